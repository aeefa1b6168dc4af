// The entry for pages of one file, user scripts and bundlers that leave addresses of assets as they are: the module and the
// worker are inside. It takes 4/3 of the module's compressed size, and has the plain module alone.

import { core, INSIDE, inflated } from "./core.js";
import { creator, Engine } from "./engine.js";
import { ExtensionHandler, ServiceHandler, WorkerHandler, type Port } from "./handler.js";
import { Host } from "./host.js";
import { WASM, WORKER } from "./inlined.js";
import { here, there } from "./link.js";
import type { MLCEngineConfig } from "./types.js";

export * from "./api.js";

/** An engine without a model; `reload` loads one. */
export class MLCEngine extends Engine {
  constructor(config: MLCEngineConfig = {}) {
    super((config, told) => {
      const apart = typeof Worker !== "undefined" && !config.logitProcessorRegistry?.size;
      if (config.worker ?? apart) return there(worker(), told);
      return here((tell) => new Host({ one: () => core(() => inflated(WASM)), unthreaded: () => INSIDE }, tell), told);
    }, config);
  }
}

function worker(): Worker {
  const script = new Blob([`self.tesseraInlined = ${JSON.stringify(WASM)};\n`, WORKER], { type: "text/javascript" });
  const url = URL.createObjectURL(script);
  try {
    return new Worker(url, { type: "module" });
  } finally {
    // What is loaded needs its address no more; the worker has begun to load it.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
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
