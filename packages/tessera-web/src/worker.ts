// The worker that the package makes. It imports nothing of what makes it.

import { core, inflated } from "./core.js";
import { relaxed } from "./features.js";
import { Host } from "./host.js";
import { serve } from "./link.js";

/** Where the module is: inside this script, where `?wasm=ADDRESS` of its own address says, else beside it. */
function wasm(): Promise<BufferSource> {
  const { tesseraInlined } = self as { tesseraInlined?: string };
  if (tesseraInlined !== undefined) return inflated(tesseraInlined);
  const given = new URL(self.location.href).searchParams.get("wasm");
  if (given) return fetched(given);
  // Each in one expression, for bundlers.
  return fetched(relaxed() ? new URL("./tessera_relaxed_bg.wasm", import.meta.url) : new URL("./tessera_bg.wasm", import.meta.url));
}

async function fetched(url: URL | string): Promise<BufferSource> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response.arrayBuffer();
}

serve(self as any, (tell) => new Host(() => core(wasm), tell));
