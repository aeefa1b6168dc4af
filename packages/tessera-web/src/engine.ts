// WebLLM's engine, over a host.

import { Answers, whole } from "./answers.js";
import { checked, recordOf, sources } from "./config.js";
import { Chat, Completions, Embeddings } from "./endpoints.js";
import { TesseraError } from "./errors.js";
import { adapter } from "./gpu.js";
import type { Description, Endpoint, Loading, News, Told } from "./host.js";
import type { Link } from "./link.js";
import type { Progress } from "./open.js";
import { chatBody, generationBody, withExtra } from "./requests.js";
import type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionRequestBase, ChatCompletionRequestNonStreaming,
  ChatCompletionRequestStreaming, Completion, CompletionCreateParams, CompletionCreateParamsBase,
  CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming, CompletionUsage, CreateEmbeddingResponse,
  EmbeddingCreateParams,
} from "./openai.js";
import type {
  AppConfig, CallOptions, ChatOptions, InitProgressCallback, LogitProcessor, LogLevel, MLCEngineConfig, MLCEngineInterface,
  ResumableSessionInfo, ResumeChatCompletionOptions, ResumeResult,
} from "./types.js";

/** Makes the link of an engine. */
export type Connect = (config: MLCEngineConfig, told: (told: Told[]) => void) => Link;

/** Requests that run at once in a model, where nothing is said. */
const SEQUENCES = 4;

interface Running {
  model: string;
  id: number;
}

export abstract class Engine implements MLCEngineInterface {
  private readonly config: MLCEngineConfig;
  private readonly answers = new Answers();
  private link: Link | undefined;
  private loaded = new Map<string, Description>();
  private running = new Set<Running>();
  private loading: { number: number; stop: () => void } | undefined;
  private loads = 0;
  private messages = new Map<string, string>();
  private rates = new Map<string, string>();
  private ids = new Map<string, number[]>();

  readonly chat: Chat;
  readonly completions: Completions;
  readonly embeddings: Embeddings;

  protected constructor(private readonly connect: Connect, config: MLCEngineConfig = {}) {
    this.config = checked(config);
    this.chat = new Chat(this);
    this.completions = new Completions(this);
    this.embeddings = new Embeddings(this);
    this.answers.onNotice = (model, notice, description) => {
      const known = this.loaded.get(model)?.notes;
      if (!known) return;
      const news = [notice, ...description.notes.filter((note) => !known.includes(note))];
      this.loaded.set(model, { ...description, notes: [...known, ...news] });
      for (const one of news) this.warn(model, one);
    };
  }

  setInitProgressCallback(callback?: InitProgressCallback): void {
    this.config.initProgressCallback = callback;
  }

  getInitProgressCallback(): InitProgressCallback | undefined {
    return this.config.initProgressCallback;
  }

  setAppConfig(appConfig: AppConfig): void {
    this.config.appConfig = checked({ appConfig }).appConfig;
  }

  setLogLevel(logLevel: LogLevel): void {
    this.config.logLevel = logLevel;
  }

  setLogitProcessorRegistry(logitProcessorRegistry?: Map<string, LogitProcessor>): void {
    this.config.logitProcessorRegistry = checked({ ...this.config, logitProcessorRegistry }).logitProcessorRegistry;
  }

  /** Loads models under their ids; those that were loaded go first. */
  async reload(modelId: string | string[], chatOpts?: ChatOptions | ChatOptions[]): Promise<void> {
    const ids = Array.isArray(modelId) ? modelId : [modelId];
    const options = Array.isArray(chatOpts) ? chatOpts : chatOpts === undefined ? [] : [chatOpts];
    if (new Set(ids).size !== ids.length) {
      throw new TesseraError("invalid_value", `a model is to be loaded twice: ${ids.join(", ")}`);
    }
    if (options.length > 0 && options.length !== ids.length) {
      throw new TesseraError("invalid_value", `${ids.length} models are to be loaded, with ${options.length} options`);
    }
    await this.unload();
    for (const [i, id] of ids.entries()) {
      if (!(await this.load(id, options[i] ?? {}))) return;
    }
  }

  /** False if it was stopped by `unload`. */
  private async load(id: string, options: ChatOptions): Promise<boolean> {
    const record = recordOf(id, this.config.appConfig);
    const number = ++this.loads;
    const link = (this.link ??= this.connect(this.config, this.answers.told));
    let stopped = false;
    this.loading = {
      number,
      stop: () => {
        stopped = true;
        void link.call("stop", number).catch(() => {});
      },
    };
    const begun = performance.now();
    this.answers.onProgress(number, (progress) => this.report(progress, begun));
    const overrides: ChatOptions = { ...record.overrides, ...options };
    const context = overrides.context_window_size;
    // The chat config has it twice.
    if (context !== undefined && context > 0) {
      overrides.model_config = { ...(overrides.model_config as object), context_window_size: context };
    }
    try {
      const { cacheBackend: cache, opfsAccessMode: access } = this.config.appConfig ?? {};
      const { integrity } = record;
      const sequences = this.config.sequences ?? SEQUENCES;
      const { backend = "auto", threads } = this.config;
      const loading: Loading = { sources: sources(record), sequences, overrides, integrity, cache, access, backend, threads };
      const description = await link.call("load", number, id, loading);
      if (stopped) {
        await link.call("unload", id);
        return false;
      }
      this.loaded.set(id, description);
      this.config.initProgressCallback?.({
        progress: 1,
        timeElapsed: (performance.now() - begun) / 1e3,
        text: `Finish loading on ${description.device}`,
      });
      for (const note of description.notes) this.warn(id, note);
      return true;
    } catch (error) {
      if (stopped) return false;
      throw error;
    } finally {
      this.answers.onProgress(number, undefined);
      if (this.loading?.number === number) this.loading = undefined;
    }
  }

  private warn(model: string, what: string): void {
    if (this.config.logLevel !== "SILENT" && this.config.logLevel !== "ERROR") console.warn(`${model}: ${what}`);
  }

  private report(progress: Progress, begun: number): void {
    const { loaded, total, kept, shards } = progress;
    const seconds = (performance.now() - begun) / 1e3;
    const mb = (bytes: number) => (bytes / 1e6).toFixed(0);
    const rate = seconds > 0 ? (loaded / 1e6 / seconds).toFixed(1) : "0";
    const from = kept > 0 ? ` (${mb(kept)} of them kept from before)` : "";
    const text = {
      files: "Reading the config and the tokenizer",
      shards: `Fetching and checking weights: ${mb(loaded)} of ${mb(total)} MB${from}, ${rate} MB/s, shard ${shards[0]} of ${shards[1]}`,
      model: "Loading the model",
    }[progress.stage];
    const part = total > 0 ? Math.min(loaded / total, 1) * 0.99 : 0;
    this.config.initProgressCallback?.({ progress: part, timeElapsed: seconds, text, detail: progress });
  }

  /** Ends what runs, and gives the models' memory back. */
  async unload(): Promise<void> {
    this.loading?.stop();
    this.answers.fail(undefined, new TesseraError("model_not_loaded", "the model was unloaded"));
    const [link, ids] = [this.link, [...this.loaded.keys()]];
    this.link = undefined;
    for (const map of [this.loaded, this.messages, this.rates, this.ids]) map.clear();
    // With a worker its whole memory goes.
    for (const id of ids) await link?.call("unload", id);
    link?.close();
  }

  /** What a model is and what it runs on. */
  describe(modelId?: string): Description {
    return this.loaded.get(this.chosen(modelId))!;
  }

  private chosen(model?: unknown): string {
    const ids = [...this.loaded.keys()];
    if (typeof model === "string" && model !== "") {
      if (this.loaded.has(model)) return model;
      throw new TesseraError("model_not_loaded", `no model is loaded as ${model}; loaded: ${ids.join(", ") || "none"}`);
    }
    if (ids.length === 1) return ids[0]!;
    const what = ids.length === 0 ? "no model is loaded: call reload()" : `several models are loaded, say which: ${ids.join(", ")}`;
    throw new TesseraError("model_not_loaded", what);
  }

  async chatCompletion(request: ChatCompletionRequestNonStreaming, options?: CallOptions): Promise<ChatCompletion>;
  async chatCompletion(request: ChatCompletionRequestStreaming, options?: CallOptions): Promise<AsyncIterable<ChatCompletionChunk>>;
  async chatCompletion(
    request: ChatCompletionRequest | ChatCompletionRequestBase, options?: CallOptions,
  ): Promise<ChatCompletion | AsyncIterable<ChatCompletionChunk>>;
  async chatCompletion(request: ChatCompletionRequestBase, options: CallOptions = {}): Promise<any> {
    const model = this.chosen(request.model);
    return this.generate("chat", model, chatBody({ ...request }, model), options);
  }

  async completion(request: CompletionCreateParamsNonStreaming, options?: CallOptions): Promise<Completion>;
  async completion(request: CompletionCreateParamsStreaming, options?: CallOptions): Promise<AsyncIterable<Completion>>;
  async completion(
    request: CompletionCreateParams | CompletionCreateParamsBase, options?: CallOptions,
  ): Promise<Completion | AsyncIterable<Completion>>;
  async completion(request: CompletionCreateParamsBase, options: CallOptions = {}): Promise<any> {
    const model = this.chosen(request.model);
    return this.generate("completions", model, generationBody({ ...request }, model), options);
  }

  async embedding(request: EmbeddingCreateParams, options: CallOptions = {}): Promise<CreateEmbeddingResponse> {
    const model = this.chosen(request.model);
    const { value, timing } = await this.reading("embeddings", model, { ...request, model }, options, whole);
    const seconds = timing.prefill_s + timing.decode_s;
    const rate = seconds > 0 ? value.usage.prompt_tokens / seconds : 0;
    return { ...value, usage: { ...value.usage, extra: { prefill_tokens_per_s: rate } } };
  }

  private async generate(endpoint: Endpoint, model: string, body: any, options: CallOptions): Promise<any> {
    if (body.stream === true) return this.stream(endpoint, model, body, options);
    const { value, timing } = await this.reading(endpoint, model, body, options, whole);
    const answer = { ...value, created: value.created * 1e3, usage: withExtra(value.usage, timing) };
    const choice = answer.choices[0];
    this.note(model, choice?.message?.content ?? choice?.text ?? "", answer.usage);
    return answer;
  }

  private async stream(endpoint: Endpoint, model: string, body: any, options: CallOptions): Promise<AsyncIterable<any>> {
    const wanted = body.stream_options?.include_usage === true;
    body = { ...body, stream_options: { ...body.stream_options, include_usage: true } };
    // What is wrong with the request is thrown here, not at the first part.
    const { running, answer, end } = await this.begin(endpoint, model, body, options);
    const engine = this;
    return (async function* () {
      let ended = false, text = "", last: any;
      try {
        for (;;) {
          const news: News = await answer.next();
          if (news.kind === "failed") {
            ended = true;
            throw TesseraError.from(news.value);
          }
          if (news.kind === "end") {
            ended = true;
            const usage = withExtra(last?.usage, news.value);
            engine.note(model, text, usage);
            if (wanted && last) yield { ...last, usage };
            return;
          }
          if (news.kind !== "part") continue;
          const { usage, ...part } = news.value;
          part.created *= 1e3;
          if (usage) {
            last = { ...part, usage };
            continue;
          }
          const choice = part.choices[0];
          if (choice?.index === 0) text += choice.delta?.content ?? choice.text ?? "";
          engine.messages.set(model, text);
          yield part;
        }
      } finally {
        end(ended);
        // A reader that went before the end wants no more.
        if (!ended) await engine.cancel(running);
      }
    })();
  }

  private async begin(endpoint: Endpoint, model: string, body: unknown, { signal }: CallOptions) {
    signal?.throwIfAborted();
    const link = this.link!;
    const processor = this.config.logitProcessorRegistry?.get(model);
    const id = await link.call("ask", model, endpoint, JSON.stringify(body), ...(processor ? [processor] : []));
    const running = { model, id };
    const answer = this.answers.of(model, id);
    this.running.add(running);
    const stop = () => void this.cancel(running);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    const end = (ended: boolean) => {
      signal?.removeEventListener("abort", stop);
      this.running.delete(running);
      this.answers.forget(model, id, ended);
    };
    return { running, answer, end };
  }

  private async reading<T>(
    endpoint: Endpoint, model: string, body: unknown, options: CallOptions,
    read: (answer: ReturnType<Answers["of"]>) => Promise<T>,
  ): Promise<T> {
    const { answer, end } = await this.begin(endpoint, model, body, options);
    try {
      return await read(answer);
    } finally {
      end(true);
    }
  }

  private async cancel({ model, id }: Running): Promise<void> {
    await this.link?.call("cancel", model, id);
  }

  /** Ends everything that is being generated, with `finish_reason` `abort`. */
  async interruptGenerate(): Promise<void> {
    await Promise.all([...this.running].map((running) => this.cancel(running)));
  }

  private note(model: string, text: string, usage: CompletionUsage | undefined): void {
    this.messages.set(model, text);
    const { prefill_tokens_per_s: prefill = 0, decode_tokens_per_s: decode = 0 } = usage?.extra ?? {};
    this.rates.set(model, `prefill: ${prefill.toFixed(4)} tokens/sec, decoding: ${decode.toFixed(4)} tokens/sec`);
  }

  /** The text of the last answer so far. */
  async getMessage(modelId?: string): Promise<string> {
    return this.messages.get(this.chosen(modelId)) ?? "";
  }

  /** Of the last answer. */
  async runtimeStatsText(modelId?: string): Promise<string> {
    return this.rates.get(this.chosen(modelId)) ?? "prefill: 0.0000 tokens/sec, decoding: 0.0000 tokens/sec";
  }

  /** Forgets the conversation. Nothing depends on it: each request has its whole conversation. */
  async resetChat(keepStats = false, modelId?: string): Promise<void> {
    if (this.loaded.size === 0) return;
    const model = this.chosen(modelId);
    this.messages.delete(model);
    this.ids.delete(model);
    this.config.logitProcessorRegistry?.get(model)?.resetState();
    if (!keepStats) this.rates.delete(model);
  }

  /** Feeds ids, after those of earlier calls, and gives the likeliest next one. */
  async forwardTokensAndSample(inputIds: number[], isPrefill: boolean, modelId?: string): Promise<number> {
    const model = this.chosen(modelId);
    const ids = [...(isPrefill ? [] : (this.ids.get(model) ?? [])), ...inputIds];
    const processor = this.config.logitProcessorRegistry?.get(model);
    if (isPrefill) processor?.resetState();
    const given = await this.link!.call("logits", model, Uint32Array.from(ids));
    const logits = processor?.processLogits(given) ?? given;
    this.ids.set(model, ids);
    let best = -1;
    for (const [id, logit] of logits.entries()) {
      if (Number.isNaN(logit)) throw new TesseraError("model", `${model}: the logit of token ${id} is not a number`);
      if (best < 0 || logit > logits[best]!) best = id;
    }
    processor?.processSampledToken(best);
    return best;
  }

  /** The logits of the token after these ids. */
  async logits(ids: ArrayLike<number>, modelId?: string): Promise<Float32Array> {
    return this.link!.call("logits", this.chosen(modelId), Uint32Array.from(ids));
  }

  async tokenize(text: string, modelId?: string): Promise<Uint32Array> {
    return this.link!.call("tokenize", this.chosen(modelId), text);
  }

  async detokenize(ids: ArrayLike<number>, modelId?: string): Promise<string> {
    return this.link!.call("detokenize", this.chosen(modelId), Uint32Array.from(ids));
  }

  async getMaxStorageBufferBindingSize(): Promise<number> {
    return (await adapter())?.limits.maxStorageBufferBindingSize ?? WASM_MEMORY;
  }

  async getGPUVendor(): Promise<string> {
    return (await adapter())?.info?.vendor ?? "";
  }

  async listResumableSessions(): Promise<ResumableSessionInfo[]> {
    return [];
  }

  async resumeChatCompletion(
    sessionId: string, _options?: ResumeChatCompletionOptions,
  ): Promise<ResumeResult | AsyncIterable<ChatCompletionChunk>> {
    throw new TesseraError("not_found", `no session is called ${sessionId}: tessera-web keeps none yet`);
  }

  async deleteResumableSession(_sessionId: string): Promise<void> {}

  /** Bytes of the wasm module's memory. */
  async memory(): Promise<number> {
    return this.link ? this.link.call("memory") : 0;
  }
}

/** Bytes that a wasm memory can have. */
const WASM_MEMORY = 2 ** 32;

/** Of a class of engines, the function that makes one and loads models. */
export function creator<E extends Engine>(Make: new (config?: MLCEngineConfig) => E) {
  return async (
    modelId: string | string[],
    engineConfig?: MLCEngineConfig,
    chatOpts?: ChatOptions | ChatOptions[],
  ): Promise<E> => {
    const engine = new Make(engineConfig);
    try {
      await engine.reload(modelId, chatOpts);
    } catch (error) {
      // Nobody has it, so nobody else can end its worker.
      await engine.unload();
      throw error;
    }
    return engine;
  };
}
