// WebLLM's functions on what is kept of models. They take any engine's app config: a model is found by its record.

import { recordOf, sources } from "./config.js";
import { TesseraError } from "./errors.js";
import { MANIFESTS } from "./open.js";
import { place } from "./source.js";
import { store, type Entry, type Store } from "./store.js";
import type { AppConfig } from "./types.js";

/** The places of a model whose files have addresses, and the store they would be in. */
async function kept(id: string, appConfig: AppConfig | undefined): Promise<{ kept: Store | null; urls: ((path: string) => string)[] }> {
  const places = sources(recordOf(id, appConfig)).map(place);
  const access = appConfig?.opfsAccessMode === "sync" ? "auto" : appConfig?.opfsAccessMode;
  const backend = appConfig?.cacheBackend ?? (appConfig?.useIndexedDBCache ? "indexeddb" : undefined);
  return { kept: await store(backend, access), urls: places.flatMap(({ url }) => (url ? [url] : [])) };
}

async function text(store: Store, entry: Entry): Promise<string | null> {
  const found = await store.read(entry);
  return found && new Response(found.stream as ReadableStream<Uint8Array<ArrayBuffer>>).text();
}

/** Shards of a manifest that is kept. */
async function shards(store: Store, manifest: string): Promise<Entry[] | null> {
  const json = await text(store, { scope: "webllm/model", url: manifest });
  if (json === null) return null;
  let records: unknown;
  try {
    records = (JSON.parse(json) as { records?: unknown }).records;
  } catch (cause) {
    throw new TesseraError("manifest", `${manifest}: what is kept of it is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (!Array.isArray(records)) throw new TesseraError("manifest", `${manifest}: what is kept of it has no records`);
  return records.map(({ dataPath, nbytes, md5sum }) => ({
    scope: "webllm/model", url: new URL(dataPath, manifest).href, nbytes, ...(md5sum && { md5: md5sum }),
  }));
}

/** Whether all of a model's weights are kept. */
export async function hasModelInCache(modelId: string, appConfig?: AppConfig): Promise<boolean> {
  const { kept: store, urls } = await kept(modelId, appConfig);
  if (!store) return false;
  for (const url of urls) {
    for (const manifest of MANIFESTS) {
      const entries = await shards(store, url(manifest));
      if (!entries) continue;
      return (await Promise.all(entries.map((entry) => store.has(entry)))).every(Boolean);
    }
  }
  return false;
}

/** Removes a model's weights and small files but its chat config; shards that another kept model has stay. */
export async function deleteModelInCache(modelId: string, appConfig?: AppConfig): Promise<void> {
  const { kept: store, urls } = await kept(modelId, appConfig);
  if (!store) return;
  const folders = urls.map((url) => url(""));
  const mine = (url: string) => folders.some((folder) => url.startsWith(folder));
  const all = (await store.urls("webllm/model")).filter((url) => MANIFESTS.some((name) => url.endsWith(`/${name}`)));
  const others = new Set<string | undefined>();
  for (const manifest of all.filter((url) => !mine(url))) {
    // One that is spoiled has nothing to keep.
    for (const { md5 } of (await shards(store, manifest).catch(() => null)) ?? []) others.add(md5);
  }
  for (const manifest of all.filter(mine)) {
    for (const { md5, ...entry } of (await shards(store, manifest).catch(() => null)) ?? []) {
      await store.remove(md5 && !others.has(md5) ? { ...entry, md5 } : entry);
    }
  }
  for (const scope of ["webllm/model", "tessera/absent"] as const) {
    for (const url of (await store.urls(scope)).filter(mine)) await store.remove({ scope, url });
  }
}

/** Removes a model's `mlc-chat-config.json`. */
export async function deleteChatConfigInCache(modelId: string, appConfig?: AppConfig): Promise<void> {
  const { kept: store, urls } = await kept(modelId, appConfig);
  for (const url of urls) await store?.remove({ scope: "webllm/config", url: url("mlc-chat-config.json") });
}

/** Removes the library that WebLLM has fetched for a model. None is fetched here. */
export async function deleteModelWasmInCache(modelId: string, appConfig?: AppConfig): Promise<void> {
  const { kept: store } = await kept(modelId, appConfig);
  const { model_lib, model_lib_url } = recordOf(modelId, appConfig);
  const url = model_lib ?? model_lib_url;
  if (url) await store?.remove({ scope: "webllm/wasm", url });
}

/** Removes everything that is kept of a model. */
export async function deleteModelAllInfoInCache(modelId: string, appConfig?: AppConfig): Promise<void> {
  await deleteModelInCache(modelId, appConfig);
  await deleteModelWasmInCache(modelId, appConfig);
  await deleteChatConfigInCache(modelId, appConfig);
}
