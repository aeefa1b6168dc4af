/** What more is known of an error. */
interface Fields {
  /** Field of the request that is wrong, where one is. */
  param?: string;
  /** What a server would answer. */
  status?: number;
}

/** What is wrong, with a word for programs. */
export class TesseraError extends Error {
  /** Such as `checksum`, `memory`, `http`, or a code of OpenAI's API. */
  readonly code: string;
  readonly param?: string;
  readonly status?: number;

  constructor(code: string, message: string, more: Fields & { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "TesseraError";
    this.code = code;
    if (more.param) this.param = more.param;
    if (more.status) this.status = more.status;
  }

  /** From what the wasm module throws, a JSON text, or from what travelled between threads. */
  static from(thrown: unknown): Error {
    if (thrown instanceof Error) return thrown;
    const fields = typeof thrown === "string" ? parsed(thrown) : thrown;
    if (fields && typeof fields === "object" && "message" in fields) {
      const { code, message, param, status, url, expected, actual } = fields as Record<string, unknown>;
      if (code === "integrity") return new IntegrityError(String(url), String(expected), String(actual));
      return new TesseraError(String(code ?? "error"), String(message), {
        ...(typeof param === "string" && { param }),
        ...(typeof status === "number" && { status }),
      });
    }
    return new TesseraError("error", String(thrown));
  }
}

/** A file whose hash is not the one that its model's record says. */
export class IntegrityError extends TesseraError {
  constructor(
    readonly url: string,
    readonly expected: string,
    readonly actual: string,
  ) {
    super("integrity", `${url}: its hash is ${actual}, the integrity of its model's record says ${expected}`);
    this.name = "IntegrityError";
  }
}

/** An error as plain values: an `Error` loses its own between threads. */
export function fieldsOf(thrown: unknown): { code: string; message: string; param?: string; status?: number } {
  const error = TesseraError.from(thrown);
  const { code, param, status } = error as TesseraError;
  const fields = { code: code ?? error.name, message: error.message, ...(param && { param }), ...(status && { status }) };
  if (!(error instanceof IntegrityError)) return fields;
  const { url, expected, actual } = error;
  return { ...fields, ...{ url, expected, actual } };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
