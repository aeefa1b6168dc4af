// What every entry exports.

export {
  deleteChatConfigInCache, deleteModelAllInfoInCache, deleteModelInCache, deleteModelWasmInCache, hasModelInCache,
} from "./cached.js";
export { IntegrityError, TesseraError } from "./errors.js";
export type { Description } from "./host.js";
export { isValidSRI, verifyIntegrity } from "./integrity.js";
export type { FileIntegrityMap, ModelIntegrity, SRIString } from "./integrity.js";
export type { Progress } from "./open.js";
export type { FolderSource } from "./source.js";
export type { CacheBackend, OPFSAccessMode } from "./store.js";
export * from "./types.js";
