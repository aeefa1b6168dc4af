/** The wasm module, as gzip and base64. */
export const WASM: string;
/** The worker's script, with all that it imports. */
export const WORKER: string;
