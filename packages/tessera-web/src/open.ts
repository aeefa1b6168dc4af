// From a folder's files to a model: small files first, then the shards, each checked while it arrives.

import type { Core, Engine, Folder } from "./core.js";
import { TesseraError } from "./errors.js";
import { pause, type Read } from "./source.js";

/** How far a load has come. */
export interface Progress {
  /** What is being done: small files read, shards fetched, the model loaded. */
  stage: "files" | "shards" | "model";
  /** Bytes of shards that have come, and of all. */
  loaded: number;
  total: number;
  /** Shards that are complete, and all. */
  shards: [number, number];
}

interface Shard {
  path: string;
  nbytes: number;
}

/** In the order in which they are tried: MLC renamed it. */
const MANIFESTS = ["tensor-cache.json", "ndarray-cache.json"];
/** Shards that are fetched at once. */
const AT_ONCE = 4;
/** How often a connection that breaks within a shard is taken up again. */
const RESUMES = 8;

/** Opens a model from the first of `reads` that has a manifest. `overrides` are laid over its `mlc-chat-config.json`. */
export async function open(
  core: Core,
  name: string,
  reads: Read[],
  sequences: number,
  overrides: Record<string, unknown>,
  tell: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Engine> {
  const folder = new core.Folder();
  try {
    tell({ stage: "files", loaded: 0, total: 0, shards: [0, 0] });
    const found = await first(reads, signal);
    if (!found) {
      const message = `${name}: there is no ${MANIFESTS.join(" and no ")}: is it the address of a folder that MLC-LLM or WebLLM reads?`;
      throw new TesseraError("manifest", message);
    }
    const { read, manifest } = found;
    const shards = JSON.parse(folder.manifest(manifest)) as Shard[];
    const take = async (file: string): Promise<boolean> => {
      const bytes = await whole(file, read, signal);
      if (bytes) folder.file(file, file === "mlc-chat-config.json" ? overridden(bytes, overrides) : bytes);
      return bytes !== null;
    };
    const there = await Promise.all(core.files.map(take));
    if (!there[core.files.indexOf("tokenizer.json")]) await Promise.all(core.otherTokenizers.map(take));
    await fill(folder, shards, read, tell, signal);
    const total = bytesOf(shards);
    tell({ stage: "model", loaded: total, total, shards: [shards.length, shards.length] });
    return folder.open(name, sequences);
  } catch (error) {
    // `open` takes the folder; before it, its memory is given back here.
    try {
      folder.free();
    } catch {
      // It was taken.
    }
    throw TesseraError.from(error);
  }
}

function bytesOf(shards: Shard[]): number {
  return shards.reduce((sum, shard) => sum + shard.nbytes, 0);
}

async function whole(path: string, read: Read, signal: AbortSignal): Promise<Uint8Array | null> {
  const response = await read(path, 0, signal);
  return response && new Uint8Array(await response.arrayBuffer());
}

/** The first of these places that has a manifest. */
async function first(reads: Read[], signal: AbortSignal): Promise<{ read: Read; manifest: Uint8Array } | null> {
  for (const read of reads) {
    for (const path of MANIFESTS) {
      const manifest = await whole(path, read, signal);
      if (manifest) return { read, manifest };
    }
  }
  return null;
}

/** The chat config with fields of it replaced; objects are laid over each other, everything else is replaced. */
function overridden(bytes: Uint8Array, overrides: Record<string, unknown>): Uint8Array {
  if (Object.keys(overrides).length === 0) return bytes;
  const config = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  return new TextEncoder().encode(JSON.stringify(laid(config, overrides)));
}

function laid(below: Record<string, unknown>, above: Record<string, unknown>): Record<string, unknown> {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const out = { ...below };
  for (const [key, value] of Object.entries(above)) {
    if (value === undefined) continue;
    const under = out[key];
    out[key] = isObject(under) && isObject(value) ? laid(under, value) : value;
  }
  return out;
}

async function fill(
  folder: Folder,
  shards: Shard[],
  read: Read,
  tell: (progress: Progress) => void,
  outer: AbortSignal,
): Promise<void> {
  const total = bytesOf(shards);
  // One that fails ends the others.
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  let next = 0, loaded = 0, complete = 0, told = 0;
  const came = (bytes: number) => {
    loaded += bytes;
    const now = performance.now();
    if (now - told < 50 && loaded < total) return;
    told = now;
    tell({ stage: "shards", loaded, total, shards: [complete, shards.length] });
  };
  const worker = async () => {
    while (next < shards.length) {
      const index = next++;
      const shard = shards[index]!;
      try {
        await one(folder, index, shard, read, came, signal);
      } catch (error) {
        const wrong = TesseraError.from(error);
        if (!(wrong instanceof TesseraError) || wrong.code !== "checksum") throw wrong;
        // Once more: a cache or a proxy may have spoiled it.
        came(-shard.nbytes);
        await one(folder, index, shard, read, came, signal);
      }
      complete++;
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  } catch (error) {
    stop.abort(error);
    throw error;
  }
}

async function one(
  folder: Folder,
  index: number,
  shard: Shard,
  read: Read,
  came: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  folder.begin(index);
  let have = 0;
  for (let attempt = 0; have < shard.nbytes; attempt++) {
    const before = have;
    const response = await read(shard.path, have, signal);
    if (!response) throw new TesseraError("file", `${shard.path}: the manifest lists it, and it is not there`);
    try {
      for await (const part of parts(response, signal)) {
        folder.push(index, part);
        have += part.length;
        came(part.length);
      }
    } catch (error) {
      // What the module throws is a text.
      if (signal.aborted || typeof error === "string") throw error;
      if (attempt >= RESUMES) {
        const what = `${shard.path}: the connection broke ${attempt + 1} times, at last after ${have} of ${shard.nbytes} bytes`;
        throw new TesseraError("http", `${what}: ${(error as Error).message}`, { cause: error });
      }
      if (have === before) await pause(250 * (attempt + 1), signal);
      continue;
    }
    if (have < shard.nbytes && (have === before || attempt >= RESUMES)) break;
  }
  folder.end(index);
}

async function* parts(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const stream = response.body?.getReader();
  if (!stream) return;
  try {
    for (;;) {
      signal.throwIfAborted();
      const { done, value } = await stream.read();
      if (done) return;
      yield value;
    }
  } finally {
    stream.cancel().catch(() => {});
  }
}
