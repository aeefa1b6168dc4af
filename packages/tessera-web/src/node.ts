// Node's entry, and that of Deno and Bun: the module comes from the disk, and so may a folder.

import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { core } from "./core.js";
import { creator, Engine } from "./engine.js";
import { TesseraError } from "./errors.js";
import { relaxed } from "./features.js";
import { ExtensionHandler, ServiceHandler, WorkerHandler, type Port } from "./handler.js";
import { Host } from "./host.js";
import { here } from "./link.js";
import type { FolderSource } from "./source.js";
import type { MLCEngineConfig } from "./types.js";

export * from "./api.js";

/** An engine without a model; `reload` loads one. It runs on the calling thread. */
export class MLCEngine extends Engine {
  constructor(config: MLCEngineConfig = {}) {
    if (config.worker || config.workerUrl !== undefined) {
      throw new TesseraError("unsupported_value", "worker: outside of a browser the engine runs on the calling thread");
    }
    if (config.backend === "webgpu") {
      throw new TesseraError("unsupported_value", "backend: outside of a browser models run on the CPU");
    }
    if (config.threads !== undefined && config.threads !== 1) {
      throw new TesseraError("unsupported_value", "threads: outside of a browser models run on one thread");
    }
    super((config, told) => {
      const name = relaxed() ? "./tessera_relaxed_bg.wasm" : "./tessera_bg.wasm";
      const url = config.wasmUrl ?? new URL(name, import.meta.url);
      const one = () => core(() => readFile(new URL(url)));
      return here((tell) => new Host({ one }, tell), told);
    }, { ...config, backend: "cpu" });
  }
}

/** Answers a client on another thread, as WebLLM's does: the engine runs where the handler is made. */
export class WebWorkerMLCEngineHandler extends WorkerHandler {
  constructor(config: MLCEngineConfig = {}) {
    super(new MLCEngine({ ...config, worker: false }));
  }
}

export class ServiceWorkerMLCEngineHandler extends ServiceHandler {
  constructor(config: MLCEngineConfig = {}) {
    super(new MLCEngine({ ...config, worker: false }));
  }
}

export class ExtensionServiceWorkerMLCEngineHandler extends ExtensionHandler {
  constructor(port: Port, config: MLCEngineConfig = {}) {
    super(new MLCEngine({ ...config, worker: false }), port);
  }
}

/** Makes an engine and loads models. */
export const CreateMLCEngine = /* @__PURE__ */ creator(MLCEngine);

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
