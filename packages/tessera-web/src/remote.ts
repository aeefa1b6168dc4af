// WebLLM's clients of an engine in a worker, a service worker or an extension.

import { checked } from "./config.js";
import { Chat, Completions, Embeddings } from "./endpoints.js";
import { TesseraError } from "./errors.js";
import type { Port } from "./handler.js";
import type { RequestKind, Requests, WorkerResponse } from "./messages.js";
import type {
  ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionRequestBase, ChatCompletionRequestNonStreaming,
  ChatCompletionRequestStreaming, Completion, CompletionCreateParams, CompletionCreateParamsBase,
  CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming, CreateEmbeddingResponse, EmbeddingCreateParams,
} from "./openai.js";
import type {
  AppConfig, CallOptions, ChatOptions, InitProgressCallback, LogLevel, MLCEngineConfig, MLCEngineInterface,
  ResumableSessionInfo, ResumeChatCompletionOptions, ResumeResult,
} from "./types.js";

/** A worker, or what stands for one. */
export interface ChatWorker {
  onmessage: any;
  postMessage: (message: any) => void;
}

/** An engine in a worker whose script has a `WebWorkerMLCEngineHandler`. */
export class WebWorkerMLCEngine implements MLCEngineInterface {
  worker: ChatWorker;
  readonly chat: Chat;
  readonly completions: Completions;
  readonly embeddings: Embeddings;
  /** What is loaded, as far as is known here. */
  modelId?: string[];
  chatOpts?: ChatOptions[];
  private initProgressCallback?: InitProgressCallback;
  private readonly pending = new Map<string, { resolve: (value: any) => void; reject: (error: Error) => void }>();

  constructor(worker: ChatWorker, engineConfig: MLCEngineConfig = {}) {
    const { logitProcessorRegistry, ...config } = engineConfig;
    const { appConfig, logLevel, initProgressCallback } = checked(config);
    if (logitProcessorRegistry) console.warn("logitProcessorRegistry has no effect here: a function cannot be sent to a worker");
    this.worker = worker;
    worker.onmessage = (event: unknown) => this.onmessage(event);
    if (appConfig) this.setAppConfig(appConfig);
    if (logLevel) this.setLogLevel(logLevel);
    this.initProgressCallback = initProgressCallback;
    this.chat = new Chat(this);
    this.completions = new Completions(this);
    this.embeddings = new Embeddings(this);
  }

  setInitProgressCallback(callback?: InitProgressCallback): void {
    this.initProgressCallback = callback;
  }

  getInitProgressCallback(): InitProgressCallback | undefined {
    return this.initProgressCallback;
  }

  setAppConfig(appConfig: AppConfig): void {
    this.post("setAppConfig", crypto.randomUUID(), appConfig);
  }

  setLogLevel(logLevel: LogLevel): void {
    this.post("setLogLevel", crypto.randomUUID(), logLevel);
  }

  async reload(modelId: string | string[], chatOpts?: ChatOptions | ChatOptions[]): Promise<void> {
    const ids = Array.isArray(modelId) ? modelId : [modelId];
    const options = chatOpts === undefined || Array.isArray(chatOpts) ? chatOpts : [chatOpts];
    await this.ask("reload", { modelId: ids, ...(options && { chatOpts: options }) });
    this.modelId = ids;
    this.chatOpts = options;
  }

  async unload(): Promise<void> {
    await this.ask("unload", null);
    this.modelId = this.chatOpts = undefined;
  }

  async getMaxStorageBufferBindingSize(): Promise<number> {
    return this.ask("getMaxStorageBufferBindingSize", null);
  }

  async getGPUVendor(): Promise<string> {
    return this.ask("getGPUVendor", null);
  }

  async getMessage(modelId?: string): Promise<string> {
    return this.ask("getMessage", { modelId });
  }

  async runtimeStatsText(modelId?: string): Promise<string> {
    return this.ask("runtimeStatsText", { modelId });
  }

  async interruptGenerate(): Promise<void> {
    await this.ask("interruptGenerate", null);
  }

  async resetChat(keepStats = false, modelId?: string): Promise<void> {
    await this.ask("resetChat", { keepStats, modelId });
  }

  async forwardTokensAndSample(inputIds: number[], isPrefill: boolean, modelId?: string): Promise<number> {
    return this.ask("forwardTokensAndSample", { inputIds, isPrefill, modelId });
  }

  async chatCompletion(request: ChatCompletionRequestNonStreaming, options?: CallOptions): Promise<ChatCompletion>;
  async chatCompletion(request: ChatCompletionRequestStreaming, options?: CallOptions): Promise<AsyncIterable<ChatCompletionChunk>>;
  async chatCompletion(
    request: ChatCompletionRequest | ChatCompletionRequestBase, options?: CallOptions,
  ): Promise<AsyncIterable<ChatCompletionChunk> | ChatCompletion>;
  async chatCompletion(request: ChatCompletionRequestBase, options?: CallOptions): Promise<any> {
    return this.generate("chatCompletion", request, options);
  }

  async completion(request: CompletionCreateParamsNonStreaming, options?: CallOptions): Promise<Completion>;
  async completion(request: CompletionCreateParamsStreaming, options?: CallOptions): Promise<AsyncIterable<Completion>>;
  async completion(
    request: CompletionCreateParams | CompletionCreateParamsBase, options?: CallOptions,
  ): Promise<AsyncIterable<Completion> | Completion>;
  async completion(request: CompletionCreateParamsBase, options?: CallOptions): Promise<any> {
    return this.generate("completion", request, options);
  }

  private async generate(
    what: "chatCompletion" | "completion", request: { stream?: boolean | null; model?: string | null }, options?: CallOptions,
  ): Promise<any> {
    const expected = this.expected(options);
    if (!request.stream) return this.ask(`${what}NonStreaming`, { request, ...expected });
    const streamId = crypto.randomUUID();
    const selectedModelId = request.model ?? expected.modelId[0]!;
    await this.ask(`${what}StreamInit`, { request, selectedModelId, streamId, ...expected });
    return this.asyncGenerate(streamId);
  }

  async embedding(request: EmbeddingCreateParams, options?: CallOptions): Promise<CreateEmbeddingResponse> {
    return this.ask("embedding", { request, ...this.expected(options) });
  }

  private expected({ signal }: CallOptions = {}): { modelId: string[]; chatOpts?: ChatOptions[] } {
    if (signal) {
      const message = "signal: WebLLM's messages have none; take `MLCEngine`, which has a worker of its own, or interruptGenerate()";
      throw new TesseraError("unsupported_value", message, { param: "signal" });
    }
    if (!this.modelId) throw new TesseraError("model_not_loaded", "no model is loaded: call reload()");
    return { modelId: this.modelId, ...(this.chatOpts && { chatOpts: this.chatOpts }) };
  }

  /** Asks for the parts of a stream one after another. */
  async *asyncGenerate(streamId: string): AsyncGenerator<any, void, void> {
    let ended = false;
    try {
      for (;;) {
        let part: unknown;
        try {
          part = await this.ask("completionStreamNextChunk", { streamId });
        } catch (error) {
          ended = true;
          throw error;
        }
        if (typeof part !== "object" || part === null) {
          ended = true;
          return;
        }
        yield part;
      }
    } finally {
      if (!ended) await this.ask("completionStreamReturn", { streamId });
    }
  }

  async listResumableSessions(): Promise<ResumableSessionInfo[]> {
    return this.ask("listResumableSessions", null);
  }

  async resumeChatCompletion(
    sessionId: string, options?: ResumeChatCompletionOptions,
  ): Promise<ResumeResult | AsyncIterable<ChatCompletionChunk>> {
    if (!options?.stream) return this.ask("resumeChatCompletion", { sessionId, options });
    const streamId = crypto.randomUUID();
    return (await this.ask("resumeChatCompletionStreamInit", { sessionId, options, streamId })) ?? this.asyncGenerate(streamId);
  }

  async deleteResumableSession(sessionId: string): Promise<void> {
    await this.ask("deleteResumableSession", { sessionId });
  }

  onmessage(event: any): void {
    const message: WorkerResponse = typeof MessageEvent !== "undefined" && event instanceof MessageEvent ? event.data : event;
    if (message.kind === "initProgressCallback") return this.initProgressCallback?.(message.content);
    if (message.kind !== "return" && message.kind !== "throw") return;
    const asked = this.pending.get(message.uuid);
    this.pending.delete(message.uuid);
    // Another client's, where several have one service worker.
    if (!asked) return;
    if (message.kind === "return") asked.resolve(message.content);
    else asked.reject(message.error ? TesseraError.from(message.error) : new TesseraError("worker", message.content));
  }

  private ask<K extends RequestKind>(kind: K, content: Requests[K]): Promise<any> {
    const uuid = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      this.pending.set(uuid, { resolve, reject });
      try {
        this.post(kind, uuid, content);
      } catch (cause) {
        this.pending.delete(uuid);
        reject(new TesseraError("worker", `${kind} cannot be sent to the engine: ${(cause as Error).message}`, { cause }));
      }
    });
  }

  private post<K extends RequestKind>(kind: K, uuid: string, content: Requests[K]): void {
    this.worker.postMessage({ kind, uuid, content });
  }
}

/** Makes a client of an engine in a worker, and loads models. */
export async function CreateWebWorkerMLCEngine(
  worker: any, modelId: string | string[], engineConfig?: MLCEngineConfig, chatOpts?: ChatOptions | ChatOptions[],
): Promise<WebWorkerMLCEngine> {
  const engine = new WebWorkerMLCEngine(worker, engineConfig);
  await engine.reload(modelId, chatOpts);
  return engine;
}

/** How often a service worker is told that it is needed: browsers end it after about 30 s. */
const KEEP_ALIVE_MS = 10_000;

function services(): ServiceWorkerContainer {
  if (typeof navigator !== "undefined" && "serviceWorker" in navigator) return navigator.serviceWorker;
  throw new TesseraError("unsupported_value", "there are no service workers here: the page must come over https or from localhost");
}

/** The page's service worker, as a worker. */
class Service implements ChatWorker {
  get onmessage(): any {
    return services().onmessage;
  }

  set onmessage(handler: any) {
    services().onmessage = handler;
  }

  postMessage(message: unknown): void {
    const worker = services().controller;
    if (!worker) throw new TesseraError("worker", "no service worker controls this page: is it registered, and was the page loaded after it?");
    worker.postMessage(message);
  }
}

/** An engine in the page's service worker, whose script has a `ServiceWorkerMLCEngineHandler`. */
export class ServiceWorkerMLCEngine extends WebWorkerMLCEngine {
  /** Signs of life that were asked for and did not come. */
  missedHeartbeat = 0;

  constructor(engineConfig?: MLCEngineConfig, keepAliveMs: number = KEEP_ALIVE_MS) {
    services();
    super(new Service(), engineConfig);
    setInterval(() => {
      this.worker.postMessage({ kind: "keepAlive", uuid: crypto.randomUUID() });
      this.missedHeartbeat++;
    }, keepAliveMs);
  }

  override onmessage(event: any): void {
    const message: WorkerResponse = event.data ?? event;
    if (message.kind === "heartbeat") this.missedHeartbeat = 0;
    else super.onmessage(message);
  }
}

/** Waits for the page's service worker, makes a client of its engine, and loads models. */
export async function CreateServiceWorkerMLCEngine(
  modelId: string | string[], engineConfig?: MLCEngineConfig, chatOpts?: ChatOptions | ChatOptions[], keepAliveMs?: number,
): Promise<ServiceWorkerMLCEngine> {
  await services().ready;
  const engine = new ServiceWorkerMLCEngine(engineConfig, keepAliveMs);
  await engine.reload(modelId, chatOpts);
  return engine;
}

export interface ExtensionMLCEngineConfig extends MLCEngineConfig {
  extensionId?: string;
  onDisconnect?: () => void;
}

/** An extension's port, as a worker. */
class Ported implements ChatWorker {
  private handler: any;

  constructor(readonly port: Port) {
    port.onMessage.addListener((message) => this.handler?.(message));
  }

  get onmessage(): any {
    return this.handler;
  }

  set onmessage(handler: any) {
    this.handler = handler;
  }

  postMessage(message: unknown): void {
    this.port.postMessage(message);
  }
}

/** An engine in the service worker of an extension. */
export class ExtensionServiceWorkerMLCEngine extends WebWorkerMLCEngine {
  readonly port: Port;
  extensionId?: string;

  constructor(engineConfig: ExtensionMLCEngineConfig = {}, keepAliveMs: number = KEEP_ALIVE_MS) {
    const { extensionId, onDisconnect, ...config } = engineConfig;
    const runtime = (globalThis as any).chrome?.runtime;
    if (typeof runtime?.connect !== "function") {
      throw new TesseraError("unsupported_value", "ExtensionServiceWorkerMLCEngine is for pages of an extension: there is no chrome.runtime");
    }
    const name = "web_llm_service_worker";
    const port: Port = extensionId ? runtime.connect(extensionId, { name }) : runtime.connect({ name });
    super(new Ported(port), config);
    this.port = port;
    this.extensionId = extensionId;
    const alive = setInterval(() => this.worker.postMessage({ kind: "keepAlive", uuid: crypto.randomUUID() }), keepAliveMs);
    port.onDisconnect.addListener(() => {
      clearInterval(alive);
      onDisconnect?.();
    });
  }
}

/** Makes a client of an extension's engine, and loads models. */
export async function CreateExtensionServiceWorkerMLCEngine(
  modelId: string | string[], engineConfig?: ExtensionMLCEngineConfig, chatOpts?: ChatOptions | ChatOptions[], keepAliveMs?: number,
): Promise<ExtensionServiceWorkerMLCEngine> {
  const engine = new ExtensionServiceWorkerMLCEngine(engineConfig, keepAliveMs);
  await engine.reload(modelId, chatOpts);
  return engine;
}
