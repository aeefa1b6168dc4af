// From a folder's files to a model: small files first, then the shards, each checked while it arrives.

import type { Core, Engine, Folder } from "./core.js";
import { TesseraError } from "./errors.js";
import { Files, parts, type Shard } from "./files.js";
import { opened, type Backend, type Choice } from "./gpu.js";
import type { ModelIntegrity } from "./integrity.js";
import { pause, type Place } from "./source.js";
import type { Store } from "./store.js";

/** How far a load has come. */
export interface Progress {
  /** What is being done: small files read, shards fetched, the model loaded. */
  stage: "files" | "shards" | "model";
  /** Bytes of shards that have come, and of all. */
  loaded: number;
  total: number;
  /** Of those that have come, the bytes that were kept from an earlier visit. */
  kept: number;
  /** Shards that are complete, and all. */
  shards: [number, number];
}

/** In the order in which they are tried: MLC renamed it. */
export const MANIFESTS = ["tensor-cache.json", "ndarray-cache.json"];
/** Shards that are fetched at once. */
const AT_ONCE = 4;
/** How often a connection that breaks within a shard is taken up again. */
const RESUMES = 8;

/** Faults that a folder has which was changed where it comes from, after some of its files were kept. */
const STALE = ["checksum", "length", "file", "integrity"];

/** What is opened. */
export interface Model {
  name: string;
  /** Where its folder may be. */
  places: Place[];
  integrity?: ModelIntegrity;
  /** Laid over its `mlc-chat-config.json`. */
  overrides: Record<string, unknown>;
  /** Requests that run at once. */
  sequences: number;
  backend: Backend;
  /** Whether it is to run on the GPU. */
  gpu: Choice;
  /** Threads on the CPU. */
  threads: number;
}

/** Opens a model from the first of its places that has a manifest; the strings are what there is to note. */
export async function open(
  core: Core,
  { name, places, integrity, overrides, sequences, backend, gpu, threads }: Model,
  store: Store | null,
  tell: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<[Engine, string[]]> {
  for (let fresh = false; ; fresh = true) {
    const folder = new core.Folder();
    let kept = false;
    try {
      tell({ stage: "files", loaded: 0, total: 0, kept: 0, shards: [0, 0] });
      const found = await first(places.map((place) => new Files(place, store, fresh, integrity)), signal);
      if (!found) {
        const message = `${name}: there is no ${MANIFESTS.join(" and no ")}: is it the address of a folder that MLC-LLM or WebLLM reads?`;
        throw new TesseraError("manifest", message);
      }
      kept = found.kept;
      const { files, manifest } = found;
      const shards = JSON.parse(folder.manifest(manifest)) as Shard[];
      const take = async (file: string): Promise<boolean> => {
        const bytes = await files.small(file, signal);
        if (bytes) folder.file(file, file === "mlc-chat-config.json" ? overridden(bytes, overrides) : bytes);
        return bytes !== null;
      };
      const there = await Promise.all(core.files.map(take));
      if (!there[core.files.indexOf("tokenizer.json")]) await Promise.all(core.otherTokenizers.map(take));
      await fill(folder, shards, files, tell, signal);
      const total = bytesOf(shards);
      tell({ stage: "model", loaded: total, total, kept: 0, shards: [shards.length, shards.length] });
      const on = gpu.name === undefined ? gpu : await opened(core, gpu.name, backend);
      if ("adapter" in on) {
        try {
          return [await folder.openOn(on.adapter, backend === "webgpu", name, sequences), files.notes];
        } finally {
          await on.keep();
        }
      }
      const engine = folder.open(name, sequences, await core.threads(threads));
      return [engine, on.why ? [`it runs on the CPU: ${on.why}`, ...files.notes] : files.notes];
    } catch (thrown) {
      // `open` takes the folder; before it, its memory is given back here.
      try {
        folder.free();
      } catch {
        // It was taken.
      }
      const error = TesseraError.from(thrown);
      const stale = kept && error instanceof TesseraError && STALE.includes(error.code);
      if (!stale || signal.aborted) throw error;
    }
  }
}

function bytesOf(shards: Shard[]): number {
  return shards.reduce((sum, shard) => sum + shard.nbytes, 0);
}

/** The first of these folders that has a manifest; one that is kept goes before one that has to be fetched. */
async function first(
  folders: Files[],
  signal: AbortSignal,
): Promise<{ files: Files; manifest: Uint8Array; kept: boolean } | null> {
  for (const kept of [true, false]) {
    for (const files of folders) {
      for (const path of MANIFESTS) {
        const manifest = await (kept ? files.kept(path) : files.fetched(path, signal));
        if (manifest) return { files, manifest, kept };
      }
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

/** Takes bytes that came; `kept`, where from. */
type Came = (bytes: number, kept: boolean) => void;

async function fill(
  folder: Folder,
  shards: Shard[],
  files: Files,
  tell: (progress: Progress) => void,
  outer: AbortSignal,
): Promise<void> {
  const total = bytesOf(shards);
  // One that fails ends the others.
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  let next = 0, loaded = 0, kept = 0, complete = 0, told = 0;
  const came: Came = (bytes, isKept) => {
    loaded += bytes;
    if (isKept) kept += bytes;
    const now = performance.now();
    if (now - told < 50 && loaded < total) return;
    told = now;
    tell({ stage: "shards", loaded, total, kept, shards: [complete, shards.length] });
  };
  const worker = async () => {
    while (next < shards.length) {
      const index = next++;
      const shard = shards[index]!;
      await files.alone(shard, signal, () => right(folder, index, shard, files, came, signal));
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

/** A shard whose checksum is right: what is kept of it, else what is fetched, twice at most: a proxy may have spoiled it. */
async function right(
  folder: Folder, index: number, shard: Shard, files: Files, came: Came, signal: AbortSignal,
): Promise<void> {
  for (let fetched = 0; ; ) {
    let have = 0, kept = 0;
    const count: Came = (bytes, isKept) => {
      have += bytes;
      if (isKept) kept += bytes;
      came(bytes, isKept);
    };
    try {
      return await one(folder, index, shard, files, count, signal);
    } catch (thrown) {
      const error = TesseraError.from(thrown);
      const wrong = error instanceof TesseraError && error.code === "checksum";
      if (kept === 0) fetched++;
      if (!wrong || fetched > 1) throw error;
      if (kept > 0) files.note(`what was kept of ${shard.path} was wrong, it is fetched again: ${error.message}`);
      await files.remove(shard);
      came(-kept, true);
      came(kept - have, false);
    }
  }
}

async function one(
  folder: Folder, index: number, shard: Shard, files: Files, came: Came, signal: AbortSignal,
): Promise<void> {
  folder.begin(index);
  let have = 0;
  const take = (part: Uint8Array, isKept: boolean) => {
    folder.push(index, part);
    have += part.length;
    came(part.length, isKept);
  };
  if (!(await files.keptShard(shard, (part) => take(part, true), signal))) {
    throw new TesseraError("checksum", "it has another length, or cannot be read");
  }
  const sink = have < shard.nbytes ? await files.keep(shard, have) : undefined;
  let right = false;
  try {
    for (let attempt = 0; have < shard.nbytes; attempt++) {
      const before = have;
      const response = await files.read(shard.path, have, signal);
      if (!response) throw new TesseraError("file", `${shard.path}: the manifest lists it, and it is not there`);
      try {
        for await (const part of parts(response.body, signal)) {
          take(part, false);
          await sink?.push(part);
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
    right = true;
  } finally {
    await sink?.close(right);
  }
}
