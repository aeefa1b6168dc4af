// What every entry exports but its own engines.

export {
  deleteChatConfigInCache, deleteModelAllInfoInCache, deleteModelInCache, deleteModelWasmInCache, hasModelInCache,
} from "./cached.js";
export {
  ChatCompletionRequestUnsupportedFields, postInitAndCheckFieldsChatCompletion, postInitAndCheckFieldsCompletion,
  postInitAndCheckFieldsEmbedding, rejectCompletionResumable,
} from "./checks.js";
export { Chat, Completions, Embeddings } from "./endpoints.js";
export { IntegrityError, TesseraError } from "./errors.js";
export type { Description } from "./host.js";
export { isValidSRI, verifyIntegrity } from "./integrity.js";
export type { FileIntegrityMap, ModelIntegrity, SRIString } from "./integrity.js";
export type { CustomRequestParams, WorkerRequest, WorkerResponse } from "./messages.js";
export type { Progress } from "./open.js";
export * from "./openai.js";
export {
  ARTIFACT_SCHEMA_VERSION, MODEL_PACKAGE_MANIFEST_FILENAME, TENSOR_CACHE_MANIFEST_FILENAME,
} from "./package.js";
export type { CompiledProgramArtifact, ModelPackageManifest } from "./package.js";
export { functionCallingModelIds, modelLibURLPrefix, modelVersion, prebuiltAppConfig } from "./prebuilt.js";
export {
  CreateExtensionServiceWorkerMLCEngine, CreateServiceWorkerMLCEngine, CreateWebWorkerMLCEngine,
  ExtensionServiceWorkerMLCEngine, ServiceWorkerMLCEngine, WebWorkerMLCEngine,
} from "./remote.js";
export type { FolderSource } from "./source.js";
export type { CacheBackend, OPFSAccessMode } from "./store.js";
export * from "./types.js";
