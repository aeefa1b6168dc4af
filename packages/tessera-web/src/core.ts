// The wasm module. Its glue is made by wasm-bindgen at build time.

import init, { Adapter, Engine, Folder, files, held, otherTokenizers, version } from "./tessera.js";
import { TesseraError } from "./errors.js";

export { Adapter, Engine, Folder };

/** Version of this JavaScript: a test holds it to the package's. */
export const VERSION = "0.1.0";

export interface Core {
  Folder: typeof Folder;
  /** Of a module that can use a GPU. */
  Adapter?: typeof Adapter;
  /** Names of a folder's small files. */
  files: string[];
  /** Those that are read where there is no `tokenizer.json`. */
  otherTokenizers: string[];
  /** Bytes that the module's memory has. */
  memory(): number;
  /** Makes so many threads ready for a model, the caller included; how many there are. */
  threads(wanted: number): Promise<number>;
}

/** What every module exports. */
export type Exports = Pick<typeof import("./tessera.js"), "Folder" | "files" | "held" | "otherTokenizers" | "version">;

/** Gives the module's bytes, or their address. */
export type Source = () => Promise<BufferSource> | URL | string;

/** Modules are loaded once in a thread: where the first engine says. */
const loaded = new Map<string, Promise<Core>>();

export function once(kind: string, load: () => Promise<Core>): Promise<Core> {
  let core = loaded.get(kind);
  if (!core) {
    core = load().catch((cause) => {
      loaded.delete(kind);
      throw cause instanceof TesseraError ? cause : notLoaded(cause);
    });
    loaded.set(kind, core);
  }
  return core;
}

function notLoaded(cause: unknown): TesseraError {
  const help = /Content Security Policy/i.test(String(cause)) ? ": the page's policy must have 'wasm-unsafe-eval' in script-src" : "";
  return new TesseraError("module", `tessera's wasm module cannot be loaded: ${cause}${help}`, { cause });
}

/** Bytes of all modules' memories. */
export async function memory(): Promise<number> {
  const cores = await Promise.all([...loaded.values()].map((core) => core.catch(() => undefined)));
  return cores.reduce((sum, core) => sum + (core?.memory() ?? 0), 0);
}

/** The module that computes on the calling thread, and on a GPU. */
export function core(source: Source): Promise<Core> {
  return once("one", async () => {
    await init({ module_or_path: await source() });
    const exports = { Folder, files, held, otherTokenizers, version };
    return { ...fitting(exports), Adapter, threads: async () => 1 };
  });
}

/** What is common to all modules, of one that is of this version. */
export function fitting(exports: Exports): Omit<Core, "threads"> {
  const { Folder, files, held, otherTokenizers, version } = exports;
  if (version() !== VERSION) {
    const message = `the wasm module is of version ${version()}, its JavaScript of ${VERSION}: a cache has mixed them`;
    throw new TesseraError("version", message);
  }
  return { Folder, files: files(), otherTokenizers: otherTokenizers(), memory: held };
}

/** Why a module that is inside a script has no threads: they would need scripts and a module of their own. */
export const INSIDE = "the module is inside a script";

/** Of a module that is inside a script: its bytes. */
export async function inflated(base64: string): Promise<ArrayBuffer> {
  const packed = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** The bytes at an address. */
export async function fetched(url: URL | string): Promise<ArrayBuffer> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response.arrayBuffer();
}
