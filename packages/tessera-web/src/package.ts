// Names of WebLLM's package manifest, which says what a model's library does. Nothing here reads one.

export const MODEL_PACKAGE_MANIFEST_FILENAME = "mlc-model-manifest.json";
export const TENSOR_CACHE_MANIFEST_FILENAME = "tensor-cache.json";
export const ARTIFACT_SCHEMA_VERSION = 1;

/** Not read. */
export type ModelPackageManifest = Record<string, unknown>;
/** Not read. */
export type CompiledProgramArtifact = Record<string, unknown>;
