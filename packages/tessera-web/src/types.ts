// What is asked and answered, in WebLLM's shapes. Requests may have every field of the engine's tables (docs/api.md);
// those that WebLLM has are named here.

import type { Progress } from "./open.js";
import type { ModelIntegrity } from "./integrity.js";
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
  /** Whether the engine has a worker of its own; true where there are workers. */
  worker?: boolean;
  /** Where the wasm module is, if the bundler does not say. */
  wasmUrl?: string | URL;
  /** Where the worker's script is, likewise. */
  workerUrl?: string | URL;
  /** Requests that run at once in a model; 4. */
  sequences?: number;
}

export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details?: { cached_tokens: number };
  completion_tokens_details?: { reasoning_tokens: number };
  extra: {
    e2e_latency_s: number;
    prefill_tokens_per_s: number;
    decode_tokens_per_s: number;
    time_to_first_token_s: number;
    time_per_output_token_s: number;
  };
}

export type ChatCompletionFinishReason = "stop" | "length" | "tool_calls" | "abort";

export interface ChatCompletionMessageToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

export interface ChatCompletionMessageParam {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content?: string | { type: "text"; text: string }[] | null;
  name?: string;
  tool_calls?: ChatCompletionMessageToolCall[];
  tool_call_id?: string;
}

export interface ChatCompletionTool {
  type: "function";
  function: { name: string; description?: string; parameters?: Record<string, unknown>; strict?: boolean };
}

export interface ResponseFormat {
  type: "text" | "json_object" | "json_schema" | "regex" | "grammar";
  schema?: string;
  json_schema?: { name: string; schema: unknown; strict?: boolean };
  regex?: string;
  grammar?: string;
}

interface Generation {
  model?: string | null;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean } | null;
  n?: number | null;
  max_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  repetition_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  seed?: number | null;
  stop?: string | string[] | null;
  ignore_eos?: boolean;
  response_format?: ResponseFormat;
  /** Another field of the engine's tables. */
  [field: string]: unknown;
}

export interface ChatCompletionRequestBase extends Generation {
  messages: ChatCompletionMessageParam[];
  logprobs?: boolean | null;
  top_logprobs?: number | null;
  tools?: ChatCompletionTool[];
  tool_choice?: "none" | "auto" | "required" | { type: "function"; function: { name: string } };
  extra_body?: { enable_thinking?: boolean | null } | null;
}
export interface ChatCompletionRequestNonStreaming extends ChatCompletionRequestBase {
  stream?: false | null;
}
export interface ChatCompletionRequestStreaming extends ChatCompletionRequestBase {
  stream: true;
}
export type ChatCompletionRequest = ChatCompletionRequestNonStreaming | ChatCompletionRequestStreaming;

export interface TokenLogprob {
  token: string;
  bytes: number[] | null;
  logprob: number;
}
export interface ChatLogprobs {
  content: (TokenLogprob & { top_logprobs: TokenLogprob[] })[] | null;
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  /** Milliseconds since 1970, as WebLLM has it. */
  created: number;
  model: string;
  choices: {
    index: number;
    finish_reason: ChatCompletionFinishReason;
    logprobs: ChatLogprobs | null;
    message: {
      role: "assistant";
      content: string | null;
      reasoning_content?: string;
      tool_calls?: ChatCompletionMessageToolCall[];
    };
  }[];
  usage?: CompletionUsage;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: {
      role?: "assistant";
      content?: string | null;
      reasoning_content?: string;
      tool_calls?: { index: number; id?: string; type?: "function"; function?: { name?: string; arguments?: string } }[];
    };
    finish_reason: ChatCompletionFinishReason | null;
    logprobs?: ChatLogprobs | null;
  }[];
  usage?: CompletionUsage;
}

export interface CompletionCreateParamsBase extends Generation {
  prompt: string;
  echo?: boolean | null;
  logprobs?: number | null;
}
export interface CompletionCreateParamsNonStreaming extends CompletionCreateParamsBase {
  stream?: false | null;
}
export interface CompletionCreateParamsStreaming extends CompletionCreateParamsBase {
  stream: true;
}
export type CompletionCreateParams = CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming;

/** A completion, or a part of one. */
export interface Completion {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  choices: { index: number; text: string; finish_reason: ChatCompletionFinishReason | null; logprobs?: unknown }[];
  usage?: CompletionUsage;
}

export interface EmbeddingCreateParams {
  input: string | string[] | number[] | number[][];
  model?: string | null;
  encoding_format?: "float" | null;
}
export interface CreateEmbeddingResponse {
  object: "list";
  data: { object: "embedding"; index: number; embedding: number[] }[];
  model: string;
  usage: { prompt_tokens: number; total_tokens: number; extra: { prefill_tokens_per_s: number } };
}

/** Of one call. */
export interface CallOptions {
  /** Breaks the request off: what there is of the answer ends with `abort`. */
  signal?: AbortSignal;
}
