// The GPU that this thread is given, and what is known of it from earlier visits.

import type { Adapter, Core } from "./core.js";
import { TesseraError } from "./errors.js";

/** Where a model runs: on the GPU if there is one that computes it rightly, on the GPU or not at all, on the CPU. */
export type Backend = "auto" | "webgpu" | "cpu";
export const BACKENDS: Backend[] = ["auto", "webgpu", "cpu"];

/** What browsers say of an adapter; parts are missing in some. */
export interface BrowserAdapter {
  limits: { maxStorageBufferBindingSize: number };
  info?: { vendor: string; architecture?: string; description?: string; isFallbackAdapter?: boolean };
  isFallbackAdapter?: boolean;
}

/** The browser's GPU. */
export async function adapter(): Promise<BrowserAdapter | null> {
  const { gpu } = (typeof navigator === "undefined" ? {} : navigator) as {
    gpu?: { requestAdapter(options: object): Promise<BrowserAdapter | null> };
  };
  return (await gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null)) ?? null;
}

/** Whether the GPU is to be used, by its name, or why it is not, where that was not asked for. */
export interface Choice {
  name?: string;
  why?: string;
}

/** What a backend makes of the browser's GPU. `auto` does without one, and says why; `webgpu` does not. */
export async function chosen(backend: Backend): Promise<Choice> {
  if (backend === "cpu") return {};
  if (typeof navigator === "undefined" || !("gpu" in navigator)) return without(backend, "there is no WebGPU here");
  const about = await adapter();
  if (!about) return without(backend, NONE);
  const { vendor = "", architecture = "", description = "" } = about.info ?? {};
  const name = description || `${vendor} ${architecture}`.trim() || "an adapter without a name";
  const software = about.info?.isFallbackAdapter ?? about.isFallbackAdapter ?? false;
  if (software && backend === "auto") return without(backend, `${name}, the only adapter, is a program on the CPU`);
  return { name };
}

const NONE = "the browser gives no adapter";

function without(backend: Backend, why: string): { why: string } {
  if (backend === "webgpu") throw new TesseraError("gpu", `backend \`webgpu\`: ${why}`);
  return { why };
}

/** An adapter that is open, and what keeps what will be found of it. */
export interface Opened {
  adapter: Adapter;
  keep(): Promise<void>;
}

/** Opens the GPU that was chosen. */
export async function opened(core: Core, name: string, backend: Backend): Promise<Opened | { why: string }> {
  let adapter: Adapter | undefined;
  try {
    adapter = await core.Adapter!.open(name);
  } catch (error) {
    return without(backend, TesseraError.from(error).message);
  }
  if (!adapter) return without(backend, NONE);
  const records = await known();
  // Browsers tell no driver; a browser of another version may bring another compiler.
  const key = `https://tessera.invalid/${encodeURIComponent(`${adapter.describe()} ${navigator.userAgent}`)}`;
  const before = await records?.match(key).then((kept) => kept?.text()).catch(() => undefined);
  if (before) adapter.know(before);
  // The other handle is the model's.
  const share = adapter.share();
  return {
    adapter,
    async keep() {
      const after = share.known();
      share.free();
      // Without room for it the adapter is tested again.
      if (after !== before) await records?.put(key, new Response(after)).catch(() => {});
    },
  };
}

/** Where it is kept which kernels of which adapter are right. */
async function known(): Promise<Cache | undefined> {
  if (typeof caches === "undefined") return undefined;
  return caches.open("tessera/adapters").catch(() => undefined);
}
