/** What is wrong, with a word for programs. */
export class TesseraError extends Error {
  /** Such as `checksum`, `memory`, `http`, or a code of OpenAI's API. */
  readonly code: string;
  /** Field of the request that is wrong, where one is. */
  readonly param?: string;
  /** What a server would answer. */
  readonly status?: number;

  constructor(code: string, message: string, more: { param?: string; status?: number; cause?: unknown } = {}) {
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
      const { code, message, param, status } = fields as Record<string, unknown>;
      return new TesseraError(String(code ?? "error"), String(message), {
        ...(typeof param === "string" && { param }),
        ...(typeof status === "number" && { status }),
      });
    }
    return new TesseraError("error", String(thrown));
  }
}

/** An error as plain fields: an `Error` loses its own between threads. */
export function fieldsOf(thrown: unknown): { code: string; message: string; param?: string; status?: number } {
  const error = TesseraError.from(thrown);
  const { code, param, status } = error as TesseraError;
  return { code: code ?? error.name, message: error.message, ...(param && { param }), ...(status && { status }) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
