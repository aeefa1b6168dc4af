// The worker that the package makes. It imports nothing of what makes it.

import { core, inflated } from "./core.js";
import { Host } from "./host.js";
import { serve } from "./link.js";

/** Where the module is: inside this script, where `?wasm=ADDRESS` of its own address says, else beside it. */
function wasm(): Promise<BufferSource> {
  const { tesseraInlined } = self as { tesseraInlined?: string };
  if (tesseraInlined !== undefined) return inflated(tesseraInlined);
  const given = new URL(self.location.href).searchParams.get("wasm");
  return given ? fetched(given) : fetched(new URL("./tessera_bg.wasm", import.meta.url));
}

async function fetched(url: URL | string): Promise<BufferSource> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response.arrayBuffer();
}

serve(self as any, (tell) => new Host(() => core(wasm), tell));
