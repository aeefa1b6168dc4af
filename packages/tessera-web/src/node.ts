// Node's entry, and that of Deno and Bun: the module comes from the disk, and so may a folder.

import { readFile } from "node:fs/promises";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { core } from "./core.js";
import { Engine } from "./engine.js";
import { Host } from "./host.js";
import { here } from "./link.js";
import type { FolderSource } from "./source.js";
import type { ChatOptions, MLCEngineConfig } from "./types.js";

export { TesseraError } from "./errors.js";
export type { Description } from "./host.js";
export type { Progress } from "./open.js";
export type { FolderSource } from "./source.js";
export * from "./types.js";

/** An engine without a model; `reload` loads one. It runs on the calling thread. */
export class MLCEngine extends Engine {
  constructor(config: MLCEngineConfig = {}) {
    super((config, told) => {
      const module = async () => readFile(config.wasmUrl ? new URL(config.wasmUrl) : new URL("./tessera_bg.wasm", import.meta.url));
      return here((tell) => new Host(() => core(module), tell), told);
    }, config);
  }
}

/** Makes an engine and loads models. */
export async function CreateMLCEngine(
  modelId: string | string[],
  engineConfig?: MLCEngineConfig,
  chatOpts?: ChatOptions | ChatOptions[],
): Promise<MLCEngine> {
  const engine = new MLCEngine(engineConfig);
  await engine.reload(modelId, chatOpts);
  return engine;
}

/** A folder on the disk, as `model` of a record. */
export function folder(path: string): FolderSource {
  return async (name, { offset }) => {
    const stream = createReadStream(join(path, name), { start: offset, highWaterMark: 1 << 20 });
    try {
      await new Promise((resolve, reject) => stream.once("open", resolve).once("error", reject));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
      throw error;
    }
    return new Response(Readable.toWeb(stream) as ReadableStream);
  };
}
