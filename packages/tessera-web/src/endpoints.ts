// WebLLM's classes behind `engine.chat`, `engine.completions` and `engine.embeddings`.

import type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionRequestBase, ChatCompletionRequestNonStreaming,
  ChatCompletionRequestStreaming, Completion, CompletionCreateParams, CompletionCreateParamsBase,
  CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming, CreateEmbeddingResponse, EmbeddingCreateParams,
} from "./openai.js";
import type { CallOptions, MLCEngineInterface } from "./types.js";

class ChatCompletions {
  constructor(private readonly engine: MLCEngineInterface) {}

  create(request: ChatCompletionRequestNonStreaming, options?: CallOptions): Promise<ChatCompletion>;
  create(request: ChatCompletionRequestStreaming, options?: CallOptions): Promise<AsyncIterable<ChatCompletionChunk>>;
  create(
    request: ChatCompletionRequestBase, options?: CallOptions,
  ): Promise<AsyncIterable<ChatCompletionChunk> | ChatCompletion>;
  create(request: ChatCompletionRequestBase, options?: CallOptions): Promise<AsyncIterable<ChatCompletionChunk> | ChatCompletion> {
    return this.engine.chatCompletion(request as ChatCompletionRequest, options);
  }
}

export class Chat {
  readonly completions: ChatCompletions;

  constructor(engine: MLCEngineInterface) {
    this.completions = new ChatCompletions(engine);
  }
}

/** Completions of texts. */
export class Completions {
  constructor(private readonly engine: MLCEngineInterface) {}

  create(request: CompletionCreateParamsNonStreaming, options?: CallOptions): Promise<Completion>;
  create(request: CompletionCreateParamsStreaming, options?: CallOptions): Promise<AsyncIterable<Completion>>;
  create(request: CompletionCreateParamsBase, options?: CallOptions): Promise<AsyncIterable<Completion> | Completion>;
  create(request: CompletionCreateParamsBase, options?: CallOptions): Promise<AsyncIterable<Completion> | Completion> {
    return this.engine.completion(request as CompletionCreateParams, options);
  }
}

export class Embeddings {
  constructor(private readonly engine: MLCEngineInterface) {}

  create(request: EmbeddingCreateParams, options?: CallOptions): Promise<CreateEmbeddingResponse> {
    return this.engine.embedding(request, options);
  }
}
