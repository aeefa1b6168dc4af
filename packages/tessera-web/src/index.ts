// The browser's entry. Nothing is touched when it is imported.

import { core } from "./core.js";
import { creator, Engine } from "./engine.js";
import { relaxed } from "./features.js";
import { ExtensionHandler, ServiceHandler, WorkerHandler, type Port } from "./handler.js";
import { Host } from "./host.js";
import { here, there } from "./link.js";
import { threaded, unthreaded } from "./threads.js";
import type { MLCEngineConfig } from "./types.js";

export * from "./api.js";

/** An engine without a model; `reload` loads one. */
export class MLCEngine extends Engine {
  constructor(config: MLCEngineConfig = {}) {
    super((config, told) => {
      const apart = typeof Worker !== "undefined" && !config.logitProcessorRegistry?.size;
      if (config.worker ?? apart) return there(worker(config), told);
      // Each in one expression, for bundlers.
      const beside = () =>
        relaxed() ? new URL("./tessera_relaxed_bg.wasm", import.meta.url) : new URL("./tessera_bg.wasm", import.meta.url);
      const module = () => config.wasmUrl ?? beside();
      return here((tell) => new Host({ one: () => core(module), threaded, unthreaded: () => (config.wasmUrl ? "`wasmUrl` names the module" : unthreaded()) }, tell), told);
    }, config);
  }
}

function worker(config: MLCEngineConfig): Worker {
  const { workerUrl, wasmUrl } = config;
  if (workerUrl === undefined && wasmUrl === undefined) {
    // In one expression, for bundlers.
    return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  }
  const url = new URL(workerUrl ?? new URL("./worker.js", import.meta.url), location.href);
  if (wasmUrl !== undefined) url.searchParams.set("wasm", new URL(wasmUrl, location.href).href);
  return new Worker(url, { type: "module" });
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
