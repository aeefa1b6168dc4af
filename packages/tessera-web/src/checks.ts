// WebLLM's checks of requests under their names. The engine checks every field again, against its own tables.

import { TesseraError } from "./errors.js";
import type { ChatCompletionRequest, CompletionCreateParams, EmbeddingCreateParams } from "./openai.js";
import { chatBody, generationBody } from "./requests.js";

/** None: each field is honoured or refused by name. */
export const ChatCompletionRequestUnsupportedFields: string[] = [];

/** Throws where a request's own fields contradict each other. */
export function postInitAndCheckFieldsChatCompletion(request: ChatCompletionRequest, currentModelId: string, ..._more: unknown[]): void {
  chatBody({ ...request }, currentModelId);
  if (!Array.isArray(request.messages) || request.messages.length === 0) {
    throw new TesseraError("invalid_value", "messages is empty", { param: "messages", status: 400 });
  }
  streamed(request);
}

export function postInitAndCheckFieldsCompletion(request: CompletionCreateParams, currentModelId: string): void {
  generationBody({ ...request }, currentModelId);
  rejectCompletionResumable(request);
  streamed(request);
}

export function postInitAndCheckFieldsEmbedding(request: EmbeddingCreateParams, _currentModelId: string): void {
  if (request.input.length > 0) return;
  throw new TesseraError("invalid_value", "input is empty", { param: "input", status: 400 });
}

/** Throws if a completion is to be one that can be taken up again, which chats alone can. */
export function rejectCompletionResumable(request: CompletionCreateParams): void {
  const extra = request.extra_body as { resumable?: { enabled?: boolean } | null } | undefined;
  if (!extra?.resumable?.enabled) return;
  const param = "extra_body.resumable";
  throw new TesseraError("unsupported_value", `${param} is for chats, not for completions`, { param, status: 400 });
}

function streamed({ stream, stream_options }: { stream?: boolean | null; stream_options?: unknown }): void {
  if (stream_options && !stream) {
    throw new TesseraError("invalid_value", "stream_options is for streams", { param: "stream_options", status: 400 });
  }
}
