// WebLLM's handlers: an engine that is asked by messages. `Make` is the entry's own class of engines.

import { fieldsOf, TesseraError } from "./errors.js";
import type { RequestKind, Requests, WorkerRequest, WorkerResponse } from "./messages.js";
import type { Engine } from "./engine.js";
import type { ChatOptions, LogitProcessor } from "./types.js";

type Done = (value: any) => void;

/** What is there of a platform's port of an extension. */
export interface Port {
  postMessage(message: unknown): void;
  onDisconnect: { addListener(listener: () => void): void };
  onMessage: { addListener(listener: (message: any) => void): void };
  disconnect?(): void;
}

/** In a worker: `const handler = new WebWorkerMLCEngineHandler(); onmessage = (event) => handler.onmessage(event);` */
export class WorkerHandler {
  modelId?: string[];
  chatOpts?: ChatOptions[];
  readonly engine: Engine;
  private readonly streams = new Map<string, AsyncIterator<unknown>>();

  constructor(engine: Engine) {
    this.engine = engine;
    engine.setInitProgressCallback((content) => this.postMessage({ kind: "initProgressCallback", uuid: "", content }));
  }

  /** To the client; subclasses have other ways. */
  postMessage(message: any): void {
    (globalThis as unknown as { postMessage(message: unknown): void }).postMessage(message);
  }

  setLogitProcessorRegistry(registry?: Map<string, LogitProcessor>): void {
    this.engine.setLogitProcessorRegistry(registry);
  }

  /** Answers with what `task` gives, or with its error. */
  async handleTask<T>(uuid: string, task: () => Promise<T>): Promise<void> {
    let answer: WorkerResponse;
    try {
      answer = { kind: "return", uuid, content: await task() };
    } catch (thrown) {
      const error = TesseraError.from(thrown);
      answer = { kind: "throw", uuid, content: String(error), error: fieldsOf(error) };
    }
    this.postMessage(answer);
  }

  onmessage(event: any, onComplete?: Done, onError?: () => void): void {
    const message: WorkerRequest = typeof MessageEvent !== "undefined" && event instanceof MessageEvent ? event.data : event;
    const { kind, uuid, content } = message ?? {};
    if (kind === "setLogLevel" || kind === "setAppConfig") {
      // They have no answer.
      if (kind === "setLogLevel") this.engine.setLogLevel(content);
      else this.engine.setAppConfig(content);
      onComplete?.(null);
      return;
    }
    // One of a subclass, and what is none of ours.
    if (kind === "customRequest" || !kind || !content && !(kind in KINDS)) {
      onComplete?.(null);
      return;
    }
    const answer = KINDS[kind as keyof typeof KINDS] as Answer<any> | undefined;
    if (!answer) {
      onError?.();
      throw new TesseraError("worker", `a message of the unknown kind ${JSON.stringify(kind)} came`);
    }
    void this.handleTask(uuid, async () => {
      const value = await answer(this, content);
      onComplete?.(value);
      return value;
    });
  }

  /** Loads what the client believes to be loaded: the worker may have been ended since. */
  async reloadIfUnmatched(expectedModelId: string[], expectedChatOpts?: ChatOptions[]): Promise<void> {
    if (JSON.stringify(this.modelId) === JSON.stringify(expectedModelId)) return;
    await this.reload(expectedModelId, expectedChatOpts);
  }

  async reload(modelId: string[], chatOpts?: ChatOptions[]): Promise<null> {
    await this.engine.reload(modelId, chatOpts);
    this.modelId = modelId;
    this.chatOpts = chatOpts;
    return null;
  }

  async unload(): Promise<null> {
    await this.engine.unload();
    this.modelId = this.chatOpts = undefined;
    this.streams.clear();
    return null;
  }

  /** Keeps a stream whose parts are asked for one after another. */
  begin(id: string, stream: AsyncIterable<unknown>): null {
    this.streams.set(id, stream[Symbol.asyncIterator]());
    return null;
  }

  /** The next part of a stream, or nothing after the last. */
  async next(id: string): Promise<unknown> {
    const stream = this.streams.get(id);
    if (!stream) throw new TesseraError("worker", "no such stream: it has ended, or the model was unloaded");
    try {
      const { value, done } = await stream.next();
      if (done) this.streams.delete(id);
      return value;
    } catch (error) {
      this.streams.delete(id);
      throw error;
    }
  }

  async leave(id: string): Promise<null> {
    const stream = this.streams.get(id);
    this.streams.delete(id);
    await stream?.return?.();
    return null;
  }
}

type Answer<K extends RequestKind> = (handler: WorkerHandler, content: Requests[K]) => Promise<unknown> | unknown;

/** What is done with each kind of message that has an answer. */
const KINDS: { [K in Exclude<RequestKind, "setLogLevel" | "setAppConfig" | "customRequest" | "keepAlive">]: Answer<K> } = {
  reload: (handler, { modelId, chatOpts }) => handler.reload(modelId, chatOpts),
  unload: (handler) => handler.unload(),
  resetChat: async ({ engine }, { keepStats, modelId }) => (await engine.resetChat(keepStats, modelId), null),
  getMessage: ({ engine }, { modelId }) => engine.getMessage(modelId),
  runtimeStatsText: ({ engine }, { modelId }) => engine.runtimeStatsText(modelId),
  interruptGenerate: async ({ engine }) => (await engine.interruptGenerate(), null),
  forwardTokensAndSample: ({ engine }, { inputIds, isPrefill, modelId }) => engine.forwardTokensAndSample(inputIds, isPrefill, modelId),
  getMaxStorageBufferBindingSize: ({ engine }) => engine.getMaxStorageBufferBindingSize(),
  getGPUVendor: ({ engine }) => engine.getGPUVendor(),
  async chatCompletionNonStreaming(handler, { request, modelId, chatOpts }) {
    await handler.reloadIfUnmatched(modelId, chatOpts);
    return handler.engine.chatCompletion(request);
  },
  async chatCompletionStreamInit(handler, { request, modelId, chatOpts, streamId }) {
    await handler.reloadIfUnmatched(modelId, chatOpts);
    return handler.begin(streamId, (await handler.engine.chatCompletion(request)) as unknown as AsyncIterable<unknown>);
  },
  async completionNonStreaming(handler, { request, modelId, chatOpts }) {
    await handler.reloadIfUnmatched(modelId, chatOpts);
    return handler.engine.completion(request);
  },
  async completionStreamInit(handler, { request, modelId, chatOpts, streamId }) {
    await handler.reloadIfUnmatched(modelId, chatOpts);
    return handler.begin(streamId, (await handler.engine.completion(request)) as unknown as AsyncIterable<unknown>);
  },
  completionStreamNextChunk: (handler, { streamId }) => handler.next(streamId),
  completionStreamReturn: (handler, { streamId }) => handler.leave(streamId),
  async embedding(handler, { request, modelId, chatOpts }) {
    await handler.reloadIfUnmatched(modelId, chatOpts);
    return handler.engine.embedding(request);
  },
  listResumableSessions: ({ engine }) => engine.listResumableSessions(),
  resumeChatCompletion: ({ engine }, { sessionId, options }) => engine.resumeChatCompletion(sessionId, options),
  async resumeChatCompletionStreamInit(handler, { sessionId, options, streamId }) {
    const found = await handler.engine.resumeChatCompletion(sessionId, options);
    return Symbol.asyncIterator in found ? handler.begin(streamId, found) : found;
  },
  deleteResumableSession: async ({ engine }, { sessionId }) => (await engine.deleteResumableSession(sessionId), null),
};

/** Whether a client asks for what is loaded already: it may be a page that was opened anew. */
function isLoaded(handler: WorkerHandler, { modelId, chatOpts }: Requests["reload"]): boolean {
  return JSON.stringify([handler.modelId, handler.chatOpts]) === JSON.stringify([modelId, chatOpts]);
}

/** In a service worker, made while its script is first run. */
export class ServiceHandler extends WorkerHandler {
  private readonly clients = new Map<string, { postMessage(message: unknown): void }>();
  private loadUuid = "";

  constructor(engine: Engine) {
    super(engine);
    if (typeof self === "undefined" || typeof self.addEventListener !== "function") {
      throw new TesseraError("unsupported_value", "ServiceWorkerMLCEngineHandler is for service workers");
    }
    engine.setInitProgressCallback((content) => this.postMessage({ kind: "initProgressCallback", uuid: this.loadUuid, content }));
    self.addEventListener("message", (event: any) => {
      if (event.source) this.clients.set(event.data?.uuid, event.source);
      event.waitUntil?.(new Promise<unknown>((resolve) => this.onmessage(event, resolve, () => resolve(null))));
    });
  }

  override postMessage(message: WorkerResponse): void {
    this.clients.get(message.uuid)?.postMessage(message);
    if (message.kind !== "initProgressCallback") this.clients.delete(message.uuid);
  }

  override onmessage(event: any, onComplete?: Done, onError?: () => void): void {
    const message: WorkerRequest = event.data ?? event;
    if (message.kind === "keepAlive") {
      this.postMessage({ kind: "heartbeat", uuid: message.uuid });
      onComplete?.(null);
      return;
    }
    if (message.kind === "reload") this.loadUuid = message.uuid;
    if (message.kind === "reload" && isLoaded(this, message.content)) {
      void this.handleTask(message.uuid, async () => (loadedAlready(this), onComplete?.(null), null));
      return;
    }
    super.onmessage(message, onComplete, onError);
  }
}

/** In the service worker of an extension: over a port, which may be another one after a while. */
export class ExtensionHandler extends WorkerHandler {
  port: Port | null = null;

  constructor(engine: Engine, port: Port) {
    super(engine);
    this.setPort(port);
  }

  setPort(port: Port): void {
    this.port = port;
    port.onDisconnect.addListener(() => this.onPortDisconnect(port));
  }

  onPortDisconnect(port: Port): void {
    if (port === this.port) this.port = null;
  }

  override postMessage(message: WorkerResponse): void {
    this.port?.postMessage(message);
  }

  override onmessage(event: any): void {
    if (event?.kind === "keepAlive" || event?.type === "keepAlive") return;
    if (event?.kind === "reload" && isLoaded(this, event.content)) {
      void this.handleTask(event.uuid, async () => (loadedAlready(this), null));
      return;
    }
    super.onmessage(event);
  }
}

function loadedAlready({ engine, modelId }: WorkerHandler): void {
  const { device } = engine.describe(modelId?.[0]);
  engine.getInitProgressCallback()?.({ progress: 1, timeElapsed: 0, text: `Finish loading on ${device}` });
}
