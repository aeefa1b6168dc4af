// Where a folder's files come from.

import { TesseraError } from "./errors.js";

/** Gives a file of a folder from byte `offset` on, or `null` where there is none of that name. */
export type Read = (path: string, offset: number, signal: AbortSignal) => Promise<Response | null>;

/** Where a folder's files come from. */
export interface Place {
  read: Read;
  /** The address of a file, where files have one: by it they can be kept. */
  url?: (path: string) => string;
}

/** A folder: its address, its files by name, a directory handle, or a function. */
export type FolderSource =
  | string
  | URL
  | Map<string, Blob>
  | FileSystemDirectoryHandle
  | ((path: string, range: { offset: number }) => Promise<Response | null> | Response | null);

/** Attempts at a file whose server answers that it is busy or fails, and at a connection that breaks. */
const ATTEMPTS = 4;

/** Where the files of a folder come from. */
export function place(source: FolderSource): Place {
  if (typeof source === "function") return { read: async (path, offset) => source(path, { offset }) };
  if (source instanceof Map) {
    const read: Read = async (path, offset) => {
      const blob = source.get(path);
      return blob ? new Response(blob.slice(offset)) : null;
    };
    return { read };
  }
  if (typeof source === "object" && "getFileHandle" in source) return { read: directory(source) };
  const base = String(source);
  const at = (path: string) => new URL(path, base.endsWith("/") ? base : `${base}/`);
  return { read: (path, offset, signal) => fetched(at(path), offset, signal), url: (path) => at(path).href };
}

function directory(root: FileSystemDirectoryHandle): Read {
  return async (path, offset) => {
    try {
      const parts = path.split("/");
      let folder = root;
      for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
      const file = await (await folder.getFileHandle(parts[parts.length - 1]!)).getFile();
      return new Response(file.slice(offset));
    } catch (error) {
      if ((error as Error).name === "NotFoundError") return null;
      throw new TesseraError("file", `${path}: ${(error as Error).message}`, { cause: error });
    }
  };
}

async function fetched(url: URL, offset: number, signal: AbortSignal): Promise<Response | null> {
  let wrong = "";
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await pause(250 * 2 ** attempt, signal);
    let response: Response;
    try {
      response = await fetch(url, { signal, ...(offset > 0 && { headers: { range: `bytes=${offset}-` } }) });
    } catch (error) {
      if (signal.aborted) throw error;
      wrong = `${(error as Error).message}: is the network there, and does the server allow this page to read it (CORS)?`;
      continue;
    }
    if (response.status === 404 || response.status === 410) return null;
    if (response.status === 206 || (response.ok && offset === 0)) return response;
    if (response.ok) return skipped(response, offset);
    wrong = `the server answers ${response.status} ${response.statusText}`.trim();
    if (response.status !== 429 && response.status < 500) break;
  }
  throw new TesseraError("http", `${url}: ${wrong}`);
}

/** Of a server that gives the whole file where a part was asked for: the part. */
function skipped(response: Response, offset: number): Response {
  let left = offset;
  const cut = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, out) {
      const skip = Math.min(left, chunk.length);
      left -= skip;
      if (skip < chunk.length) out.enqueue(chunk.subarray(skip));
    },
  });
  return new Response(response.body?.pipeThrough(cut as ReadableWritablePair<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>) ?? null);
}

export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, milliseconds);
    function done() {
      signal.removeEventListener("abort", stop);
      resolve();
    }
    function stop() {
      clearTimeout(timer);
      reject(signal.reason);
    }
    signal.addEventListener("abort", stop, { once: true });
  });
}
