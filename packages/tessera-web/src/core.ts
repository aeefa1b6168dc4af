// The wasm module. Its glue is made by wasm-bindgen at build time.

import init, { Adapter, Engine, Folder, files, held, otherTokenizers, version } from "./tessera.js";
import { TesseraError } from "./errors.js";

export { Adapter, Engine, Folder };

/** Version of this JavaScript: a test holds it to the package's. */
export const VERSION = "0.1.0";

export interface Core {
  Folder: typeof Folder;
  Adapter: typeof Adapter;
  /** Names of a folder's small files. */
  files: string[];
  /** Those that are read where there is no `tokenizer.json`. */
  otherTokenizers: string[];
  /** Bytes that the module's memory has. */
  memory(): number;
}

/** Gives the module's bytes, or their address. */
export type Source = () => Promise<BufferSource> | URL | string;

let loading: Promise<Core> | undefined;

/** Loads the module, once in a thread: where the first engine says. */
export function core(source: Source): Promise<Core> {
  loading ??= load(source).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function load(source: Source): Promise<Core> {
  try {
    await init({ module_or_path: await source() });
  } catch (cause) {
    const help = /Content Security Policy/i.test(String(cause)) ? ": the page's policy must have 'wasm-unsafe-eval' in script-src" : "";
    throw new TesseraError("module", `tessera's wasm module cannot be loaded: ${cause}${help}`, { cause });
  }
  if (version() !== VERSION) {
    const message = `the wasm module is of version ${version()}, its JavaScript of ${VERSION}: a cache has mixed them`;
    throw new TesseraError("version", message);
  }
  return { Folder, Adapter, files: files(), otherTokenizers: otherTokenizers(), memory: held };
}

/** Of a module that is inside a script: its bytes. */
export async function inflated(base64: string): Promise<ArrayBuffer> {
  const packed = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
