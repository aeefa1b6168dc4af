// Files against hashes that a page has from elsewhere (Subresource Integrity, W3C), under WebLLM's names.

import { IntegrityError, TesseraError } from "./errors.js";

/** `sha256-`, `sha384-` or `sha512-`, and the hash in base64. */
export type SRIString = string;
export type FileIntegrityMap = Record<string, SRIString>;

export interface ModelIntegrity {
  /** Of `mlc-chat-config.json`. */
  config?: SRIString;
  /** Of a library, which is not fetched here. */
  model_lib?: SRIString;
  /** Of tokenizer files, by name. Other files of a folder may be named here too. */
  tokenizer?: FileIntegrityMap;
  /** `error` is the default. */
  onFailure?: "error" | "warn";
}

const BYTES: Record<string, number> = { sha256: 32, sha384: 48, sha512: 64 };

function parsed(sri: string): { algorithm: string; hash: string } | null {
  const match = /^(sha256|sha384|sha512)-([A-Za-z0-9+/]+={0,2})$/.exec(sri);
  if (!match) return null;
  const [, algorithm, hash] = match as unknown as [string, string, string];
  try {
    return atob(hash).length === BYTES[algorithm] ? { algorithm, hash } : null;
  } catch {
    return null;
  }
}

export function isValidSRI(sri: string): boolean {
  return parsed(sri) !== null;
}

/** Throws an `IntegrityError`, or gives its text to `warn`, if the hash of `data` is another. */
export async function verifyIntegrity(
  data: BufferSource,
  expectedSRI: SRIString,
  url: string,
  onFailure: "error" | "warn" = "error",
  warn: (text: string) => void = console.warn,
): Promise<void> {
  const expected = parsed(expectedSRI);
  if (!expected) {
    const message = `${url}: ${JSON.stringify(expectedSRI)} is no integrity: \`sha256-\`, \`sha384-\` or \`sha512-\` and the hash in base64`;
    throw new TesseraError("invalid_value", message);
  }
  const { algorithm, hash } = expected;
  const digest = await crypto.subtle.digest(algorithm.replace("sha", "SHA-"), data);
  const found = btoa(String.fromCharCode(...new Uint8Array(digest)));
  if (found === hash) return;
  const error = new IntegrityError(url, expectedSRI, `${algorithm}-${found}`);
  if (onFailure === "error") throw error;
  warn(error.message);
}

/** Checks a folder's file against its model's record. */
export async function verifyFile(
  path: string, bytes: Uint8Array, url: string, integrity: ModelIntegrity | undefined, warn: (text: string) => void,
): Promise<void> {
  const sri = path === "mlc-chat-config.json" ? integrity?.config : integrity?.tokenizer?.[path];
  if (sri !== undefined) await verifyIntegrity(bytes as Uint8Array<ArrayBuffer>, sri, url, integrity?.onFailure, warn);
}
