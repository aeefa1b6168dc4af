// The GPU that this thread is given, and what is known of it from earlier visits.

import type { Adapter, Core } from "./core.js";
import { TesseraError } from "./errors.js";

/** Where a model runs: on the GPU if there is one that computes it rightly, on the GPU or not at all, on the CPU. */
export type Backend = "auto" | "webgpu" | "cpu";
export const BACKENDS: Backend[] = ["auto", "webgpu", "cpu"];

/** What is had of the browser's GPU. */
export interface Given {
  /** Open, if it is to be used. */
  adapter?: Adapter;
  /** Why it is not, where that was not asked for. */
  why?: string;
  /** Keeps what was found of it. */
  keep(): Promise<void>;
}

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

/** Opens it as a backend wants it. `auto` does without, and says why; `webgpu` does not. */
export async function given(core: Core, backend: Backend): Promise<Given> {
  const without = (why?: string): Given => {
    if (backend === "webgpu") throw new TesseraError("gpu", `backend \`webgpu\`: ${why}`);
    return { why, keep: async () => {} };
  };
  if (backend === "cpu") return without();
  if (typeof navigator === "undefined" || !("gpu" in navigator)) return without("there is no WebGPU here");
  const about = await adapter();
  if (!about) return without("the browser gives no adapter");
  const { vendor = "", architecture = "", description = "" } = about.info ?? {};
  const name = description || `${vendor} ${architecture}`.trim() || "an adapter without a name";
  const software = about.info?.isFallbackAdapter ?? about.isFallbackAdapter ?? false;
  if (software && backend === "auto") return without(`${name}, the only adapter, is a program on the CPU`);
  let opened: Adapter | undefined;
  try {
    opened = await core.Adapter.open(name);
  } catch (error) {
    return without(TesseraError.from(error).message);
  }
  if (!opened) return without("the browser gives no adapter");
  const records = await known();
  // Browsers tell no driver; a browser of another version may bring another compiler.
  const key = `https://tessera.invalid/${encodeURIComponent(`${opened.describe()} ${navigator.userAgent}`)}`;
  const before = await (await records?.match(key))?.text();
  if (before) opened.know(before);
  const share = opened.share();
  return {
    adapter: opened,
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
