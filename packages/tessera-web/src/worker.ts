// The worker that the package makes. It imports nothing of what makes it.

import { core } from "./core.js";
import { Host } from "./host.js";
import { serve } from "./link.js";

/** Where the module is, if not beside this file: `?wasm=ADDRESS` of the worker's own address. */
const given = new URL(self.location.href).searchParams.get("wasm");
const wasm = given ? () => fetched(given) : () => fetched(new URL("./tessera_bg.wasm", import.meta.url));

async function fetched(url: URL | string): Promise<BufferSource> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response.arrayBuffer();
}

serve(self as any, (tell) => new Host(() => core(wasm), tell));
