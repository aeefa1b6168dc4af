// A thread of the module's. It is lent for good: what it does is asked for in memory.

import init, { lend } from "./tessera_threads.js";
import type { Given } from "./threads.js";

self.onmessage = async ({ data: { module, memory } }: MessageEvent<Given>) => {
  await init({ module_or_path: module, memory });
  self.postMessage("ready");
  lend();
};
