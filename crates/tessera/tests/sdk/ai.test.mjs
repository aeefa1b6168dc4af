// Vercel's AI SDK with its three ways to a server: responses, chat, and the provider for compatible ones.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(process.env.TESSERA_NODE_FOLDER + "/");
const { generateObject, generateText, stepCountIs, streamText, tool } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { z } = require("zod");

const baseURL = `${process.env.TESSERA_URL}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "none" });
const compatible = createOpenAICompatible({
  name: "tessera", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true,
});
const models = {
  responses: openai.responses("smollm2"), chat: openai.chat("smollm2"), compatible: compatible("smollm2"),
};

for (const [name, model] of Object.entries(models)) {
  const options = { model, maxRetries: 0, maxOutputTokens: 24, temperature: 0 };

  test(`${name}: a text, whole and as a stream`, async () => {
    const asked = { ...options, instructions: "Be brief.", prompt: "Why is the sky blue?" };
    const whole = await generateText(asked);
    const stream = streamText({ ...asked, onError: ({ error }) => assert.fail(error) });
    let text = "";
    for await (const part of stream.textStream) text += part;
    assert.ok(text);
    assert.equal(text, whole.text);
    assert.ok((await stream.usage).outputTokens > 0);
  });

  test(`${name}: two steps with a tool`, async () => {
    const ran = [];
    const clock = tool({
      description: "The time", inputSchema: z.object({ zone: z.enum(["utc", "local"]) }),
      execute: ({ zone }) => (ran.push(zone), "12:30"),
    });
    const { steps } = await generateText({
      ...options, maxOutputTokens: 200, prompt: "What time is it?", tools: { clock }, stopWhen: stepCountIs(2),
      // One call ends the step; how many a small model makes is its own affair.
      providerOptions: { openai: { parallelToolCalls: false }, tessera: { parallel_tool_calls: false } },
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    });
    assert.equal(steps.length, 2);
    assert.ok(ran.length > 0 && ran.every((zone) => ["utc", "local"].includes(zone)));
  });

  test(`${name}: an object`, async () => {
    const schema = z.object({ ripe: z.boolean(), colour: z.enum(["red", "green"]) });
    const { object } = await generateObject({ ...options, maxOutputTokens: 100, schema, prompt: "Is it ripe?" });
    assert.deepEqual(schema.parse(object), object);
  });
}
