// WebLLM's messages between an engine and its client on another thread. An error travels as its text; ours has its fields
// beside it.

import type { fieldsOf } from "./errors.js";
import type { AppConfig, ChatOptions, InitProgressReport, LogLevel, ResumeChatCompletionOptions } from "./types.js";

/** Of a subclass. */
export interface CustomRequestParams {
  requestName: string;
  requestMessage: string;
}

/** The models that the client believes to be loaded: a worker may have been ended since. */
interface Expected {
  modelId: string[];
  chatOpts?: ChatOptions[];
}

/** What each kind of message has. */
export interface Requests {
  reload: Expected;
  unload: null;
  resetChat: { keepStats: boolean; modelId?: string };
  getMessage: { modelId?: string };
  runtimeStatsText: { modelId?: string };
  interruptGenerate: null;
  forwardTokensAndSample: { inputIds: number[]; isPrefill: boolean; modelId?: string };
  getMaxStorageBufferBindingSize: null;
  getGPUVendor: null;
  chatCompletionNonStreaming: Expected & { request: any };
  chatCompletionStreamInit: Expected & { request: any; selectedModelId: string; streamId: string };
  completionNonStreaming: Expected & { request: any };
  completionStreamInit: Expected & { request: any; selectedModelId: string; streamId: string };
  completionStreamNextChunk: { streamId: string };
  completionStreamReturn: { streamId: string };
  embedding: Expected & { request: any };
  listResumableSessions: null;
  resumeChatCompletion: { sessionId: string; options?: ResumeChatCompletionOptions };
  resumeChatCompletionStreamInit: { sessionId: string; options?: ResumeChatCompletionOptions; streamId: string };
  deleteResumableSession: { sessionId: string };
  setLogLevel: LogLevel;
  setAppConfig: AppConfig;
  keepAlive: null | undefined;
  customRequest: CustomRequestParams;
}

export type RequestKind = keyof Requests;
export type WorkerRequest = { [K in RequestKind]: { kind: K; uuid: string; content: Requests[K] } }[RequestKind];

export type WorkerResponse =
  | { kind: "return"; uuid: string; content: any }
  | { kind: "throw"; uuid: string; content: string; error?: ReturnType<typeof fieldsOf> }
  | { kind: "initProgressCallback"; uuid: string; content: InitProgressReport }
  | { kind: "heartbeat"; uuid: string };
