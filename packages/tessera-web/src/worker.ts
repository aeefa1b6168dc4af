// The worker that the package makes. It imports nothing of what makes it.

import { core, fetched, INSIDE, inflated } from "./core.js";
import { relaxed } from "./features.js";
import { Host } from "./host.js";
import { serve } from "./link.js";
import { threaded, unthreaded } from "./threads.js";

/** Where the module is: inside this script, where `?wasm=ADDRESS` of its own address says, else beside it. */
function wasm(): Promise<BufferSource> {
  const { tesseraInlined } = self as { tesseraInlined?: string };
  if (tesseraInlined !== undefined) return inflated(tesseraInlined);
  const given = new URL(self.location.href).searchParams.get("wasm");
  if (given) return fetched(given);
  // Each in one expression, for bundlers.
  return fetched(relaxed() ? new URL("./tessera_relaxed_bg.wasm", import.meta.url) : new URL("./tessera_bg.wasm", import.meta.url));
}

/** Why there are no threads here, if there are none. */
function unshared(): string | undefined {
  if ((self as { tesseraInlined?: string }).tesseraInlined !== undefined) return INSIDE;
  if (new URL(self.location.href).searchParams.has("wasm")) return "`wasmUrl` names the module";
  return unthreaded();
}

serve(self as any, (tell) => new Host({ one: () => core(wasm), threaded, unthreaded: unshared }, tell));
