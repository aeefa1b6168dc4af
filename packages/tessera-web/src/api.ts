// What every entry exports.

export { TesseraError } from "./errors.js";
export type { Description } from "./host.js";
export type { Progress } from "./open.js";
export type { FolderSource } from "./source.js";
export * from "./types.js";
