// What an engine is made with, and where its models are. Fields that WebLLM has and that do nothing here are told, those
// that would change answers or trust are refused.

import { TesseraError } from "./errors.js";
import { BACKENDS } from "./gpu.js";
import { prebuiltAppConfig } from "./prebuilt.js";
import type { FolderSource } from "./source.js";
import type { AppConfig, MLCEngineConfig, ModelRecord } from "./types.js";

type Known<T> = Record<keyof T, true>;

const ENGINE: Known<MLCEngineConfig> = {
  appConfig: true, initProgressCallback: true, logLevel: true, worker: true, wasmUrl: true, workerUrl: true, sequences: true,
  logitProcessorRegistry: true, backend: true, threads: true,
};
const APP: Known<AppConfig> = { model_list: true, cacheBackend: true, opfsAccessMode: true, useIndexedDBCache: true };
const RECORD: Known<ModelRecord> = {
  model: true, model_id: true, model_lib: true, overrides: true, vram_required_MB: true, low_resource_required: true,
  buffer_size_required_bytes: true, required_features: true, model_type: true, integrity: true, model_url: true,
  model_lib_url: true,
};
const CACHES = ["cache", "indexeddb", "cross-origin", "opfs"];
const ACCESS = ["async", "sync", "auto"];

/** A copy of a config that has no field that is not honoured, in today's spelling. */
export function checked(config: MLCEngineConfig): MLCEngineConfig {
  const quiet = config.logLevel === "SILENT" || config.logLevel === "ERROR";
  const look = (fields: object, known: object, path: string) => {
    for (const [name, value] of Object.entries(fields)) {
      if (name in known || value === undefined) continue;
      const message = `${path}${name} is not supported by tessera-web`;
      throw new TesseraError("unsupported_value", message, { param: `${path}${name}` });
    }
  };
  look(config, ENGINE, "");
  one(config.backend, BACKENDS, "backend");
  if (config.threads !== undefined && !(Number.isInteger(config.threads) && config.threads >= 1 && config.threads <= 64)) {
    throw new TesseraError("invalid_value", `threads is ${config.threads}, not a number from 1 to 64`, { param: "threads" });
  }
  if (config.logitProcessorRegistry?.size && config.worker) {
    const message = "logitProcessorRegistry: functions cannot be sent to a worker; `worker: false`, or WebLLM's handlers in a worker of your own";
    throw new TesseraError("unsupported_value", message, { param: "logitProcessorRegistry" });
  }
  if (!config.appConfig) return { ...config };
  look(config.appConfig, APP, "appConfig.");
  const { useIndexedDBCache, ...appConfig } = config.appConfig;
  if (useIndexedDBCache) appConfig.cacheBackend ??= "indexeddb";
  one(appConfig.cacheBackend, CACHES, "appConfig.cacheBackend");
  one(appConfig.opfsAccessMode, ACCESS, "appConfig.opfsAccessMode");
  if (appConfig.cacheBackend === "cross-origin" && !quiet) {
    console.warn("appConfig.cacheBackend `cross-origin`: files are kept in the Cache API, for this site alone");
  }
  appConfig.model_list = appConfig.model_list.map((record, i) => {
    look(record, RECORD, `appConfig.model_list[${i}].`);
    const { model_url, model_lib_url: _, ...rest } = record;
    const model = rest.model ?? model_url;
    if (model !== undefined) return { ...rest, model };
    const param = `appConfig.model_list[${i}].model`;
    throw new TesseraError("invalid_value", `${param} is missing: the address of a folder, or a folder`, { param });
  });
  return { ...config, appConfig };
}

function one(value: string | undefined, all: string[], param: string): void {
  if (value === undefined || all.includes(value)) return;
  throw new TesseraError("invalid_value", `${param} is ${JSON.stringify(value)}, not one of ${all.join(", ")}`, { param });
}

/** The record of a model's id; an address is one of its own. */
export function recordOf(id: string, appConfig: AppConfig | undefined): ModelRecord {
  const list = (appConfig ?? prebuiltAppConfig).model_list;
  const record = list.find((record) => record.model_id === id);
  if (record) return record;
  if (/^https?:\/\//.test(id)) return { model: id, model_id: id };
  const known = appConfig ? `appConfig.model_list has: ${list.map((record) => record.model_id).join(", ") || "none"}` : "see prebuiltAppConfig";
  throw new TesseraError("model_not_found", `no model is called ${id}; ${known}`);
}

/** Where a record's folder may be: WebLLM's address is a repository's, whose files are under `resolve/main`. */
export function sources({ model }: ModelRecord): FolderSource[] {
  if (typeof model !== "string") return [model!];
  const base = typeof location === "undefined" ? undefined : location.href;
  const plain = new URL(model.endsWith("/") ? model : `${model}/`, base).href;
  if (/\/resolve\/[^/]+\//.test(plain)) return [plain];
  return [new URL("resolve/main/", plain).href, plain];
}
