// What an engine is made with: fields that WebLLM has and that do nothing here are told, those that would change answers
// or trust are refused.

import { TesseraError } from "./errors.js";
import type { AppConfig, MLCEngineConfig, ModelRecord } from "./types.js";

type Known<T> = Record<keyof T, true>;

const ENGINE: Known<MLCEngineConfig> = {
  appConfig: true, initProgressCallback: true, logLevel: true, worker: true, wasmUrl: true, workerUrl: true, sequences: true,
};
const APP: Known<AppConfig> = { model_list: true };
const RECORD: Known<ModelRecord> = {
  model: true, model_id: true, model_lib: true, overrides: true, vram_required_MB: true, low_resource_required: true,
  buffer_size_required_bytes: true, required_features: true, model_type: true,
};
/** They choose where files are kept, and nothing is kept yet: a load fetches them again. */
const CACHES = ["cacheBackend", "opfsAccessMode", "useIndexedDBCache"];

/** A copy of a config that has no field that is not honoured. */
export function checked(config: MLCEngineConfig): MLCEngineConfig {
  const quiet = config.logLevel === "SILENT" || config.logLevel === "ERROR";
  const look = (fields: object, known: object, path: string) => {
    for (const [name, value] of Object.entries(fields)) {
      if (name in known || value === undefined) continue;
      if (!CACHES.includes(name)) {
        const message = `${path}${name} is not supported by tessera-web`;
        throw new TesseraError("unsupported_value", message, { param: `${path}${name}` });
      }
      if (!quiet) console.warn(`${path}${name} has no effect: tessera-web keeps no files yet`);
    }
  };
  look(config, ENGINE, "");
  const { appConfig } = config;
  if (appConfig) {
    look(appConfig, APP, "appConfig.");
    appConfig.model_list.forEach((record, i) => look(record, RECORD, `appConfig.model_list[${i}].`));
  }
  return { ...config };
}
