// The module with threads: workers over one memory, which only a page that is cross-origin isolated may have.

import init, * as exports from "./tessera_threads.js";
import { fetched, fitting, once, type Core, type Exports } from "./core.js";
import { relaxed } from "./features.js";

/** What a thread is given. */
export interface Given {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

/** Why there can be no threads here; nothing where there can. */
export function unthreaded(): string | undefined {
  const { WorkerGlobalScope, crossOriginIsolated } = globalThis as { WorkerGlobalScope?: Function; crossOriginIsolated?: boolean };
  if (!WorkerGlobalScope || !(globalThis instanceof WorkerGlobalScope)) return "a page's own thread may not wait for others";
  if (typeof Worker === "undefined") return "this kind of worker can start no others";
  if (!crossOriginIsolated) {
    return "the page is not cross-origin isolated (headers Cross-Origin-Opener-Policy: same-origin, Cross-Origin-Embedder-Policy: require-corp)";
  }
  if (!relaxed()) return "this browser has no relaxed SIMD that rounds once";
  return undefined;
}

/** The module with threads. */
export function threaded(): Promise<Core> {
  return once("threads", async () => {
    const module = await WebAssembly.compile(await fetched(new URL("./tessera_threads_bg.wasm", import.meta.url)));
    const { memory } = (await init({ module_or_path: module })) as unknown as { memory: WebAssembly.Memory };
    return {
      ...fitting(exports as unknown as Exports),
      async threads(wanted) {
        const missing = Math.max(wanted - 1 - exports.idle(), 0);
        await Promise.all(Array.from({ length: missing }, () => started({ module, memory })));
        exports.lent(missing);
        return wanted;
      },
    };
  });
}

/** A worker that has the module and waits for work. It ends with the worker that started it. */
function started(given: Given): Promise<void> {
  const worker = new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "tessera thread" });
  return new Promise((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => reject(new Error(`a thread: ${event.message ?? "its script cannot be loaded"}; \`threads: 1\` needs none`));
    worker.postMessage(given);
  });
}
