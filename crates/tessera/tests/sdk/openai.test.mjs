// The official JavaScript client against the real server: streams, tools, structured output, errors, abort.
// scripts/test-clients starts the server and says where it is.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(process.env.TESSERA_NODE_FOLDER + "/");
const OpenAI = require("openai");
const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const model = "smollm2";
const url = process.env.TESSERA_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const options = { model, messages, temperature: 0, max_completion_tokens: 24 };

async function metric(name) {
  const page = await (await fetch(`${url}/metrics`)).text();
  const line = page.split("\n").find((line) => line.startsWith(`${name}{model="${model}"} `));
  assert.ok(line, `${name} is not in the metrics`);
  return Number(line.split(" ").at(-1));
}

async function until(what, holds) {
  const end = Date.now() + 60_000;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("models", async () => {
  const found = [];
  for await (const one of client.models.list()) found.push(one.id);
  assert.deepEqual(found, [model]);
});

test("a stream is the same text", async () => {
  const whole = await client.chat.completions.create(options);
  const stream = await client.chat.completions.create({
    ...options, stream: true, stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, 24);
  const helper = client.chat.completions.stream(options);
  assert.equal(await helper.finalContent(), text);
});

const parameters = {
  type: "object", properties: { zone: { enum: ["utc", "local"] } }, required: ["zone"], additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "clock", description: "The time", parameters } }];
const calling = {
  ...options, tools, tool_choice: "required", parallel_tool_calls: false, max_completion_tokens: 200, seed: 1,
};

test("a call streams to the same call, and its result is taken", async () => {
  const whole = await client.chat.completions.create(calling);
  const [call] = whole.choices[0].message.tool_calls;
  assert.ok(["utc", "local"].includes(JSON.parse(call.function.arguments).zone));
  const streamed = await client.chat.completions.stream(calling).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
  const answer = await client.chat.completions.create({
    ...options, tools, messages: [
      ...messages, whole.choices[0].message, { role: "tool", tool_call_id: call.id, content: "12:30" },
    ],
  });
  assert.ok(answer.usage.prompt_tokens > whole.usage.prompt_tokens);
});

test("tools are run by the helper", async () => {
  const asked = [];
  const run = (args) => (asked.push(args.zone), "12:30");
  const runner = client.chat.completions.runTools({
    ...calling, tool_choice: { type: "function", function: { name: "clock" } },
    tools: [{ type: "function", function: { name: "clock", parse: JSON.parse, function: run, parameters } }],
  });
  await runner.done();
  assert.equal(asked.length, 1);
});

const Answer = z.object({ ripe: z.boolean(), colour: z.enum(["red", "green"]) });

test("structured output", async () => {
  const parsed = await client.chat.completions.parse({
    ...options, max_completion_tokens: 200, response_format: zodResponseFormat(Answer, "answer"),
  });
  assert.deepEqual(Answer.parse(parsed.choices[0].message.parsed), parsed.choices[0].message.parsed);
  const response = await client.responses.parse({
    model, input: "Is it ripe?", max_output_tokens: 200, store: false, text: { format: zodTextFormat(Answer, "answer") },
  });
  assert.equal(typeof response.output_parsed.ripe, "boolean");
});

test("responses stream", async () => {
  const stream = await client.responses.create({
    model, input: "Why is the sky blue?", max_output_tokens: 24, temperature: 0, store: false, stream: true,
  });
  let text = "";
  let last;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(last.type, "response.incomplete");
  const whole = await client.chat.completions.create(options);
  assert.equal(text, whole.choices[0].message.content);
});

test("embeddings", async () => {
  const decoded = (await client.embeddings.create({ model, input: "A cat" })).data[0].embedding;
  const floats = (await client.embeddings.create({ model, input: "A cat", encoding_format: "float" })).data[0].embedding;
  assert.equal(decoded.length, floats.length);
  floats.forEach((x, i) => assert.ok(Math.abs(x - decoded[i]) < 1e-6));
});

test("errors", async () => {
  await assert.rejects(client.chat.completions.create({ ...options, frobnicate: 1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "frobnicate");
    return error.code === "unknown_parameter";
  });
  await assert.rejects(client.chat.completions.create({ ...options, model: "nothing" }), OpenAI.NotFoundError);
  await assert.rejects(
    client.chat.completions.create({ ...options, messages: [{ role: "user", content: "word ".repeat(5000) }] }),
    (error) => error.code === "context_length_exceeded",
  );
});

test("a request that is aborted ends", async () => {
  const cancelled = await metric("tessera_generations_cancelled_total");
  const endless = { ...options, max_completion_tokens: 3000, ignore_eos: true };
  const stream = await client.chat.completions.create({ ...endless, stream: true });
  for await (const _ of stream) break; // leaving the loop aborts
  // Else what runs below might still be the stream.
  await until("the stream is counted", async () => (await metric("tessera_generations_cancelled_total")) === cancelled + 1);
  const controller = new AbortController();
  const plain = client.chat.completions.create(endless, { signal: controller.signal });
  await until("it runs", async () => (await metric("tessera_requests_running")) === 1);
  controller.abort();
  await assert.rejects(plain, OpenAI.APIUserAbortError);
  await until("none runs", async () => (await metric("tessera_requests_running")) === 0);
  // A generation is counted a moment after it ended.
  await until("both are counted", async () => (await metric("tessera_generations_cancelled_total")) === cancelled + 2);
});
