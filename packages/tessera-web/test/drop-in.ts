// Code that is written for WebLLM. types.test.mjs compiles it against WebLLM's own types and against ours: "webllm" is
// each of them in turn.

import * as webllm from "webllm";

const report = (progress: webllm.InitProgressReport) => console.log(progress.text, progress.progress, progress.timeElapsed);
const callback: webllm.InitProgressCallback = report;
const integrity: webllm.ModelIntegrity = {
  config: "sha256-AAAA", model_lib: "sha256-AAAA", tokenizer: { "tokenizer.json": "sha384-AAAA" }, onFailure: "warn",
};
const record: webllm.ModelRecord = {
  model: "https://example.org/model", model_id: "m", model_lib: "https://example.org/m.wasm",
  overrides: { context_window_size: 1024, sliding_window_size: -1, attention_sink_size: 0, temperature: 0.5, top_p: 1,
    repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0, vocab_size: 3, tokenizer_files: ["tokenizer.json"] },
  vram_required_MB: 100, low_resource_required: true, buffer_size_required_bytes: 1, required_features: ["shader-f16"],
  model_type: webllm.ModelType.LLM, integrity,
};
const access: webllm.OPFSAccessMode = "auto";
const appConfig: webllm.AppConfig = { model_list: [record, ...webllm.prebuiltAppConfig.model_list], cacheBackend: "opfs", opfsAccessMode: access };
const level: webllm.LogLevel = "INFO";
const processor: webllm.LogitProcessor = {
  processLogits: (logits: Float32Array) => logits, processSampledToken: (_token: number) => {}, resetState: () => {},
};
const config: webllm.MLCEngineConfig = {
  appConfig, initProgressCallback: callback, logLevel: level, logitProcessorRegistry: new Map([["m", processor]]),
};
const options: webllm.ChatOptions = { temperature: 1, context_window_size: 512 };

async function main(): Promise<void> {
  const direct: webllm.MLCEngine = await webllm.CreateMLCEngine("m", config, options);
  const several = await webllm.CreateMLCEngine(["a", "b"], config, [options, options]);
  several.setLogitProcessorRegistry(new Map());
  const worker = await webllm.CreateWebWorkerMLCEngine(new Worker("w.js", { type: "module" }), "m", config);
  const service = await webllm.CreateServiceWorkerMLCEngine("m", config, options, 1000);
  const extension = await webllm.CreateExtensionServiceWorkerMLCEngine("m", { onDisconnect: () => {}, extensionId: "x", ...config });
  const engines: webllm.MLCEngineInterface[] = [direct, worker, service, extension, new webllm.MLCEngine({ logLevel: "WARN" })];
  const missed: number = service.missedHeartbeat;
  for (const engine of engines) await use(engine, missed);
  for (const f of [webllm.deleteModelAllInfoInCache, webllm.deleteModelInCache, webllm.deleteModelWasmInCache, webllm.deleteChatConfigInCache]) {
    await f("m", appConfig);
  }
  const has: boolean = await webllm.hasModelInCache("m", appConfig);
  const valid: boolean = webllm.isValidSRI("sha256-AAAA");
  try {
    await webllm.verifyIntegrity(new ArrayBuffer(1), "sha256-AAAA", "https://example.org", "error");
  } catch (error) {
    if (error instanceof webllm.IntegrityError) console.log(error.url, error.expected, error.actual, has, valid);
  }
  const text: string = webllm.modelVersion + webllm.modelLibURLPrefix + webllm.functionCallingModelIds[0];
  const names: string = webllm.MODEL_PACKAGE_MANIFEST_FILENAME + webllm.TENSOR_CACHE_MANIFEST_FILENAME;
  console.log(text, names, webllm.ARTIFACT_SCHEMA_VERSION + 1, webllm.ChatCompletionRequestUnsupportedFields.length);
}

async function use(engine: webllm.MLCEngineInterface, max: number): Promise<void> {
  engine.setInitProgressCallback(callback);
  const back: webllm.InitProgressCallback | undefined = engine.getInitProgressCallback();
  engine.setAppConfig(appConfig);
  engine.setLogLevel(level);
  await engine.reload("m", options);
  await engine.reload(["a", "b"], [options, options]);
  const messages: webllm.ChatCompletionMessageParam[] = [
    { role: "system", content: "You are brief." },
    { role: "user", content: [{ type: "text", text: "Hi" }] },
    { role: "assistant", content: null, tool_calls: [{ id: "0", type: "function", function: { name: "f", arguments: "{}" } }] },
    { role: "tool", content: "3", tool_call_id: "0" },
  ];
  const parameters: webllm.FunctionParameters = { type: "object", properties: { city: { type: "string" } } };
  const tool: webllm.ChatCompletionTool = { type: "function", function: { name: "f", description: "d", parameters } };
  const choice: webllm.ChatCompletionToolChoiceOption = { type: "function", function: { name: "f" } };
  const format: webllm.ResponseFormat = { type: "json_object", schema: "{}" };
  const base: webllm.ChatCompletionRequestBase = {
    messages, max_tokens: max, n: 1, stop: ["a"], temperature: 0, top_p: 1, frequency_penalty: 0, presence_penalty: 0,
    repetition_penalty: 1, logit_bias: { "1": -100 }, logprobs: true, top_logprobs: 2, seed: 1, tools: [tool], tool_choice: choice,
    response_format: format, ignore_eos: false, model: "m", extra_body: { enable_thinking: false },
  };
  const whole: webllm.ChatCompletion = await engine.chat.completions.create({ ...base, stream: false });
  const first: webllm.ChatCompletion.Choice = whole.choices[0];
  const message: webllm.ChatCompletionMessage = first.message;
  const calls: webllm.ChatCompletionMessageToolCall[] | undefined = message.tool_calls;
  const reason: webllm.ChatCompletionFinishReason = first.finish_reason;
  const logprobs: webllm.ChatCompletionTokenLogprob[] | null | undefined = first.logprobs?.content;
  const top: webllm.TopLogprob | undefined = logprobs?.[0].top_logprobs[0];
  const usage: webllm.CompletionUsage | undefined = whole.usage;
  console.log(calls?.[0].function.name, reason, top?.logprob, usage?.extra.decode_tokens_per_s, whole.created, back);
  const request: webllm.ChatCompletionRequestStreaming = { messages, stream: true, stream_options: { include_usage: true } };
  const stream: AsyncIterable<webllm.ChatCompletionChunk> = await engine.chat.completions.create(request);
  let reply = "";
  for await (const chunk of stream) {
    const delta: webllm.ChatCompletionChunk.Choice.Delta | undefined = chunk.choices[0]?.delta;
    reply += delta?.content || "";
    if (chunk.usage) console.log(chunk.usage.extra.prefill_tokens_per_s);
  }
  const either: webllm.ChatCompletionRequest = Math.random() > 2 ? request : { messages };
  const any = await engine.chatCompletion(either);
  if (!(Symbol.asyncIterator in any)) console.log(any.choices[0].message.content);
  const done: webllm.Completion = await engine.completions.create({ prompt: "a", echo: true, max_tokens: 3 });
  const one: webllm.CompletionChoice = done.choices[0];
  for await (const part of await engine.completions.create({ prompt: one.text, stream: true })) reply += part.choices[0].text;
  const params: webllm.EmbeddingCreateParams = { input: ["a", "b"], model: "m" };
  const vectors: webllm.CreateEmbeddingResponse = await engine.embeddings.create(params);
  const vector: webllm.Embedding = vectors.data[0];
  const stats: string = (await engine.runtimeStatsText("m")) + (await engine.getMessage("m"));
  const size: number = await engine.getMaxStorageBufferBindingSize();
  const vendor: string = await engine.getGPUVendor();
  const next: number = await engine.forwardTokensAndSample([1, 2], true, "m");
  const sessions: webllm.ResumeProbeResult[] = await engine.listResumableSessions();
  const resume: webllm.ResumeChatCompletionOptions = { stream: false };
  const resumed = await engine.resumeChatCompletion("s", resume);
  if ("recoveredText" in resumed) console.log((resumed as webllm.ResumeResult).recoveredText);
  await engine.deleteResumableSession("s");
  const resumable: webllm.ResumableGenerationConfig = { enabled: false };
  engine.interruptGenerate();
  await engine.resetChat(false, "m");
  await engine.unload();
  console.log(vector.embedding.length + size + next + sessions.length, stats, vendor, resumable, reply);
}

class Handler extends webllm.WebWorkerMLCEngineHandler {
  onmessage(event: any): void {
    const request: webllm.WorkerRequest = event.data;
    const custom = request.content as webllm.CustomRequestParams;
    if (request.kind === "customRequest") console.log(custom.requestName, custom.requestMessage, this.modelId?.[0], this.chatOpts?.length);
    super.onmessage(event);
  }

  postMessage(message: any): void {
    const response: webllm.WorkerResponse = message;
    console.log(response.kind);
    super.postMessage(message);
  }
}
const handler = new Handler();
self.onmessage = (event: MessageEvent) => handler.onmessage(event);
handler.engine.setAppConfig(appConfig);
new webllm.ServiceWorkerMLCEngineHandler();

class Client extends webllm.WebWorkerMLCEngine {}
const client = new Client(new Worker("w.js"), config);
console.log(client.modelId, client.chatOpts, client.worker);

void main();
