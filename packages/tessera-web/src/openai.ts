// What is asked and answered: OpenAI's shapes under WebLLM's names. Requests may have every field of the engine's tables
// (docs/api.md); those that WebLLM has are named here.

export type ChatCompletionFinishReason = "stop" | "length" | "tool_calls" | "abort";
export type ChatCompletionRole = "system" | "developer" | "user" | "assistant" | "tool" | "function";

export interface ChatCompletionContentPartText {
  type: "text";
  text: string;
}
/** Refused: no model that sees is run yet. */
export interface ChatCompletionContentPartImage {
  type: "image_url";
  image_url: ChatCompletionContentPartImage.ImageURL;
}
export namespace ChatCompletionContentPartImage {
  export interface ImageURL {
    url: string;
    detail?: "auto" | "low" | "high";
  }
}
export interface ChatCompletionAudioInputWav {
  data: string;
  format: "wav";
}
export interface ChatCompletionAudioInputPCM {
  data: Float32Array;
  format: "pcm_f32";
  sample_rate: number;
}
export type ChatCompletionAudioInput = ChatCompletionAudioInputWav | ChatCompletionAudioInputPCM;
/** Refused: no model that hears is run yet. */
export interface ChatCompletionContentPartInputAudio {
  type: "input_audio";
  input_audio: ChatCompletionAudioInput;
}
export type ChatCompletionContentPart =
  | ChatCompletionContentPartText | ChatCompletionContentPartImage | ChatCompletionContentPartInputAudio;

export interface ChatCompletionMessageToolCall {
  id: string;
  type: "function";
  function: ChatCompletionMessageToolCall.Function;
}
export namespace ChatCompletionMessageToolCall {
  export interface Function {
    /** A JSON text. */
    arguments: string;
    name: string;
  }
}

export interface ChatCompletionSystemMessageParam {
  role: "system" | "developer";
  content: string;
  name?: string;
}
export interface ChatCompletionUserMessageParam {
  role: "user";
  content: string | ChatCompletionContentPart[];
  name?: string;
}
export interface ChatCompletionAssistantMessageParam {
  role: "assistant";
  content?: string | null;
  name?: string;
  reasoning_content?: string;
  tool_calls?: ChatCompletionMessageToolCall[];
}
export interface ChatCompletionToolMessageParam {
  role: "tool";
  content: string;
  tool_call_id: string;
}
export type ChatCompletionMessageParam =
  | ChatCompletionSystemMessageParam | ChatCompletionUserMessageParam | ChatCompletionAssistantMessageParam
  | ChatCompletionToolMessageParam;

export type FunctionParameters = Record<string, unknown>;
export interface FunctionDefinition {
  name: string;
  description?: string;
  /** JSON Schema. */
  parameters?: FunctionParameters;
  strict?: boolean;
}
export interface ChatCompletionTool {
  type: "function";
  function: FunctionDefinition;
}
export interface ChatCompletionNamedToolChoice {
  type: "function";
  function: ChatCompletionNamedToolChoice.Function;
}
export namespace ChatCompletionNamedToolChoice {
  export interface Function {
    name: string;
  }
}
export type ChatCompletionToolChoiceOption = "none" | "auto" | "required" | ChatCompletionNamedToolChoice;

export interface ResponseFormat {
  /** `structural_tag` is refused. */
  type?: "text" | "json_object" | "json_schema" | "regex" | "grammar" | "structural_tag";
  /** With `json_object`: JSON Schema as a text. */
  schema?: string;
  json_schema?: { name: string; schema: unknown; strict?: boolean };
  regex?: string;
  grammar?: string;
  structural_tag?: unknown;
}

export interface ChatCompletionStreamOptions {
  include_usage?: boolean;
}

/** Asks that a generation can be taken up again after a crash. Refused: there is no such thing here yet. */
export interface ResumableGenerationConfig {
  enabled: boolean;
  sessionId?: string;
  checkpointIntervalTokens?: number;
  checkpointPrompt?: boolean;
  durabilityMode?: "exact" | "relaxed";
  strictPersistence?: boolean;
  storeCheckpointLogits?: boolean;
}

interface Generation {
  model?: string | null;
  stream?: boolean | null;
  stream_options?: ChatCompletionStreamOptions | null;
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
  /** 0 to 20. */
  top_logprobs?: number | null;
  tools?: ChatCompletionTool[];
  tool_choice?: ChatCompletionToolChoiceOption;
  extra_body?: {
    enable_thinking?: boolean | null;
    /** Only false. */
    enable_latency_breakdown?: boolean | null;
    resumable?: ResumableGenerationConfig | null;
  };
}
export interface ChatCompletionRequestNonStreaming extends ChatCompletionRequestBase {
  stream?: false | null;
}
export interface ChatCompletionRequestStreaming extends ChatCompletionRequestBase {
  stream: true;
}
export type ChatCompletionRequest = ChatCompletionRequestNonStreaming | ChatCompletionRequestStreaming;

export interface TopLogprob {
  token: string;
  bytes: number[] | null;
  logprob: number;
}
export interface ChatCompletionTokenLogprob extends TopLogprob {
  top_logprobs: TopLogprob[];
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
    /** Not measured apart. */
    grammar_init_s?: number;
    grammar_per_token_s?: number;
    latencyBreakdown?: Record<string, number[]>;
  };
}

export interface ChatCompletionMessage {
  role: "assistant";
  content: string | null;
  reasoning_content?: string;
  tool_calls?: ChatCompletionMessageToolCall[];
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  /** Milliseconds since 1970, as WebLLM has it. */
  created: number;
  model: string;
  choices: ChatCompletion.Choice[];
  usage?: CompletionUsage;
  system_fingerprint?: string;
}
export namespace ChatCompletion {
  export interface Choice {
    index: number;
    finish_reason: ChatCompletionFinishReason;
    logprobs: Choice.Logprobs | null;
    message: ChatCompletionMessage;
  }
  export namespace Choice {
    export interface Logprobs {
      content: ChatCompletionTokenLogprob[] | null;
    }
  }
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: ChatCompletionChunk.Choice[];
  usage?: CompletionUsage;
  system_fingerprint?: string;
}
export namespace ChatCompletionChunk {
  export interface Choice {
    index: number;
    delta: Choice.Delta;
    finish_reason: ChatCompletionFinishReason | null;
    logprobs?: ChatCompletion.Choice.Logprobs | null;
  }
  export namespace Choice {
    export interface Delta {
      role?: "system" | "user" | "assistant" | "tool";
      content?: string | null;
      reasoning_content?: string;
      tool_calls?: Delta.ToolCall[];
    }
    export namespace Delta {
      export interface ToolCall {
        index: number;
        id?: string;
        type?: "function";
        function?: ToolCall.Function;
      }
      export namespace ToolCall {
        export interface Function {
          name?: string;
          arguments?: string;
        }
      }
    }
  }
}

export interface CompletionCreateParamsBase extends Generation {
  prompt: string;
  echo?: boolean | null;
  /** As WebLLM has it, or OpenAI's number. */
  logprobs?: boolean | number | null;
  top_logprobs?: number | null;
}
export interface CompletionCreateParamsNonStreaming extends CompletionCreateParamsBase {
  stream?: false | null;
}
export interface CompletionCreateParamsStreaming extends CompletionCreateParamsBase {
  stream: true;
}
export type CompletionCreateParams = CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming;

export interface CompletionChoice {
  index: number;
  text: string;
  finish_reason: ChatCompletionFinishReason | null;
  logprobs?: ChatCompletion.Choice.Logprobs | null;
}
/** A completion, or a part of one. */
export interface Completion {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  choices: CompletionChoice[];
  usage?: CompletionUsage;
  system_fingerprint?: string;
}

export interface EmbeddingCreateParams {
  input: string | string[] | number[] | number[][];
  model?: string | null;
  encoding_format?: "float" | "base64";
  dimensions?: number;
  user?: string;
}
export interface Embedding {
  object: "embedding";
  index: number;
  embedding: number[];
}
export interface CreateEmbeddingResponse {
  object: "list";
  data: Embedding[];
  model: string;
  usage: CreateEmbeddingResponse.Usage;
}
export namespace CreateEmbeddingResponse {
  export interface Usage {
    prompt_tokens: number;
    total_tokens: number;
    extra: { prefill_tokens_per_s: number };
  }
}
