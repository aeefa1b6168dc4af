// What an engine is made with and what it can do, under WebLLM's names.

import type { Progress } from "./open.js";
import type { Chat, Completions, Embeddings } from "./endpoints.js";
import type { Backend } from "./gpu.js";
import type { ModelIntegrity } from "./integrity.js";
import type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionRequestBase, ChatCompletionRequestNonStreaming,
  ChatCompletionRequestStreaming, Completion, CompletionCreateParams, CompletionCreateParamsBase,
  CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming, CreateEmbeddingResponse, EmbeddingCreateParams,
  ResponseFormat,
} from "./openai.js";
import type { FolderSource } from "./source.js";
import type { CacheBackend, OPFSAccessMode } from "./store.js";

export interface InitProgressReport {
  /** From 0 to 1. */
  progress: number;
  /** Seconds. */
  timeElapsed: number;
  text: string;
  /** Bytes and shards, which WebLLM has in `text` alone. */
  detail?: Progress;
}
export type InitProgressCallback = (report: InitProgressReport) => void;

export type LogLevel = "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR" | "SILENT";

export enum ModelType {
  "LLM",
  "embedding",
  "VLM",
}

/** Any part of `mlc-chat-config.json`. */
export interface ChatOptions {
  context_window_size?: number;
  sliding_window_size?: number;
  attention_sink_size?: number;
  temperature?: number;
  top_p?: number;
  repetition_penalty?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
  conv_template?: Record<string, unknown>;
  [field: string]: unknown;
}

export interface ModelRecord {
  /** Address of the folder, as WebLLM has it, or a folder of another kind. */
  model?: string | FolderSource;
  model_id: string;
  /** Up to WebLLM 0.2.38 the name of `model`. */
  model_url?: string;
  /** Likewise of `model_lib`. */
  model_lib_url?: string;
  /** Not needed, and not read. */
  model_lib?: string;
  overrides?: ChatOptions;
  vram_required_MB?: number;
  low_resource_required?: boolean;
  buffer_size_required_bytes?: number;
  required_features?: string[];
  model_type?: ModelType;
  integrity?: ModelIntegrity;
}

export interface AppConfig {
  model_list: ModelRecord[];
  /** Where files are kept: OPFS if there is one, else the Cache API. */
  cacheBackend?: CacheBackend;
  /** How OPFS is written; `auto`. */
  opfsAccessMode?: OPFSAccessMode;
  /** Up to WebLLM 0.2.79: `cacheBackend` is `indexeddb`. */
  useIndexedDBCache?: boolean;
}

export interface MLCEngineConfig {
  appConfig?: AppConfig;
  initProgressCallback?: InitProgressCallback;
  logLevel?: LogLevel;
  /** By the models' ids. With any in it the engine runs on the calling thread: functions cannot be sent to a worker. */
  logitProcessorRegistry?: Map<string, LogitProcessor>;
  /** Whether the engine has a worker of its own; true where there are workers. */
  worker?: boolean;
  /** Where the wasm module is, if the bundler does not say. */
  wasmUrl?: string | URL;
  /** Where the worker's script is, likewise. */
  workerUrl?: string | URL;
  /** Where models run; `auto`. */
  backend?: Backend;
  /**
   * Threads that compute where a model runs on the CPU: half of the logical cores, at most 8. More than one are had in
   * pages that are cross-origin isolated.
   */
  threads?: number;
  /** Requests that run at once in a model; 4. */
  sequences?: number;
}

/** Of one call. */
export interface CallOptions {
  /** Breaks the request off: what there is of the answer ends with `abort`. */
  signal?: AbortSignal;
}

/** Changes logits before a token is chosen, ahead of biases, penalties and grammars. Each request begins with `resetState`; those that run at once share it. */
export interface LogitProcessor {
  processLogits: (logits: Float32Array) => Float32Array;
  processSampledToken: (token: number) => void;
  resetState: () => void;
}

/** The fields of a request that say how tokens are chosen. */
export interface GenerationConfig {
  repetition_penalty?: number | null;
  ignore_eos?: boolean;
  top_p?: number | null;
  temperature?: number | null;
  max_tokens?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  stop?: string | string[] | null;
  n?: number | null;
  logit_bias?: Record<string, number> | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  response_format?: ResponseFormat | null;
  enable_thinking?: boolean | null;
  enable_latency_breakdown?: boolean | null;
}

export interface ResumeProbeResult {
  sessionId: string;
  resumable: boolean;
  reason?: string;
  modelId: string;
  emittedTokens: number;
  processedSeqLen: number;
  recoveryMode: "kv" | "token_replay" | "text_only" | "none";
}
export type ResumableSessionInfo = ResumeProbeResult;
export interface ResumeResult {
  sessionId: string;
  recoveredText: string;
  emittedTokens: number;
  processedSeqLen: number;
  replayedTokens: number;
  recoveryMode: "kv" | "token_replay" | "text_only";
}
export interface ResumeChatCompletionOptions {
  continueGeneration?: boolean;
  stream?: boolean;
}

/** What every engine can do, wherever it runs. */
export interface MLCEngineInterface {
  chat: Chat;
  completions: Completions;
  embeddings: Embeddings;
  setInitProgressCallback(callback?: InitProgressCallback): void;
  getInitProgressCallback(): InitProgressCallback | undefined;
  setAppConfig(appConfig: AppConfig): void;
  setLogLevel(logLevel: LogLevel): void;
  reload(modelId: string | string[], chatOpts?: ChatOptions | ChatOptions[]): Promise<void>;
  unload(): Promise<void>;
  chatCompletion(request: ChatCompletionRequestNonStreaming, options?: CallOptions): Promise<ChatCompletion>;
  chatCompletion(request: ChatCompletionRequestStreaming, options?: CallOptions): Promise<AsyncIterable<ChatCompletionChunk>>;
  chatCompletion(
    request: ChatCompletionRequest | ChatCompletionRequestBase, options?: CallOptions,
  ): Promise<AsyncIterable<ChatCompletionChunk> | ChatCompletion>;
  completion(request: CompletionCreateParamsNonStreaming, options?: CallOptions): Promise<Completion>;
  completion(request: CompletionCreateParamsStreaming, options?: CallOptions): Promise<AsyncIterable<Completion>>;
  completion(
    request: CompletionCreateParams | CompletionCreateParamsBase, options?: CallOptions,
  ): Promise<AsyncIterable<Completion> | Completion>;
  embedding(request: EmbeddingCreateParams, options?: CallOptions): Promise<CreateEmbeddingResponse>;
  /** The text of the last answer so far. */
  getMessage(modelId?: string): Promise<string>;
  runtimeStatsText(modelId?: string): Promise<string>;
  resetChat(keepStats?: boolean, modelId?: string): Promise<void>;
  /** Ends everything that is being generated, with `finish_reason` `abort`. */
  interruptGenerate(): Promise<void>;
  /** Feeds ids, after those of earlier calls, and gives the likeliest next one. */
  forwardTokensAndSample(inputIds: number[], isPrefill: boolean, modelId?: string): Promise<number>;
  /** Of the browser's GPU; where there is none, the bytes that a wasm memory can have. */
  getMaxStorageBufferBindingSize(): Promise<number>;
  /** Of the browser's GPU, or nothing. */
  getGPUVendor(): Promise<string>;
  /** None: nothing is journalled yet. */
  listResumableSessions(): Promise<ResumableSessionInfo[]>;
  resumeChatCompletion(
    sessionId: string, options?: ResumeChatCompletionOptions,
  ): Promise<ResumeResult | AsyncIterable<ChatCompletionChunk>>;
  deleteResumableSession(sessionId: string): Promise<void>;
}
