// The package in Node, on the golden folder: the bits of the native engine, and what a request can meet.
// scripts/check-web installs what is packed and runs this; TESSERA_GOLDEN is the golden folder.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { CreateMLCEngine, MLCEngine, TesseraError, folder } from "tessera-web";

const GOLDEN = process.env.TESSERA_GOLDEN;
assert.ok(GOLDEN, "TESSERA_GOLDEN names the golden folder");
const messages = [{ role: "user", content: "Hi" }];

function config(model = folder(GOLDEN)) {
  return {
    logLevel: "SILENT",
    appConfig: {
      model_list: [{ model_id: "tiny", model, overrides: { context_window_size: 512 } }],
    },
  };
}

test("logits are the native engine's, bit for bit", async () => {
  const engine = await CreateMLCEngine("tiny", config());
  const cases = JSON.parse(await readFile(new URL("bits.json", import.meta.url), "utf8"));
  for (const { ids, md5 } of cases) {
    const logits = await engine.logits(ids);
    const bytes = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
    assert.equal(createHash("md5").update(bytes).digest("hex"), md5, `${ids}`);
  }
  await engine.unload();
});

test("streamed, whole and at once, answers are the same", async () => {
  const engine = await CreateMLCEngine("tiny", config());
  const request = { messages, max_tokens: 12, seed: 3, temperature: 1 };
  const [whole, text] = await Promise.all([
    engine.chat.completions.create(request),
    (async () => {
      let text = "", last;
      for await (const part of await engine.chat.completions.create({
        ...request, stream: true, stream_options: { include_usage: true },
      })) {
        text += part.choices[0]?.delta.content ?? "";
        last = part;
      }
      assert.equal(last.usage.completion_tokens, 12);
      assert.ok(last.usage.extra.decode_tokens_per_s > 0);
      return text;
    })(),
  ]);
  assert.equal(whole.choices[0].message.content, text);
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.equal(await engine.getMessage(), text);
  await engine.unload();
});

test("a stream that is left, a signal and an interruption end the request", async () => {
  const engine = await CreateMLCEngine("tiny", config());
  for await (const part of await engine.chat.completions.create({ messages, stream: true })) {
    if (part.choices[0].delta.content) break;
  }
  const controller = new AbortController();
  const long = { messages, ignore_eos: true };
  const one = engine.chat.completions.create(long, { signal: controller.signal });
  const other = engine.chat.completions.create(long);
  setTimeout(() => controller.abort(), 20);
  assert.equal((await one).choices[0].finish_reason, "abort");
  await engine.interruptGenerate();
  assert.match((await other).choices[0].finish_reason, /abort|length/);
  assert.ok(await engine.chat.completions.create({ messages, max_tokens: 1 }));
  await engine.unload();
});

test("a field that is not honoured is refused by name", async () => {
  const engine = await CreateMLCEngine("tiny", config());
  await assert.rejects(engine.chat.completions.create({ messages, temprature: 1 }), (error) => {
    assert.ok(error instanceof TesseraError);
    assert.equal(error.param, "temprature");
    assert.equal(error.status, 400);
    return true;
  });
  await assert.rejects(engine.logits([]), /the prompt is empty/);
  await assert.rejects(engine.forwardTokensAndSample([99999], true), /token 99999 does not exist/);
  await engine.unload();
  await assert.rejects(engine.chat.completions.create({ messages }), /no model is loaded/);
});

test("a setting that would have no effect is refused or told", () => {
  const refused = (config, words) => assert.throws(() => new MLCEngine(config), words);
  refused({ logitProcessorRegistry: new Map() }, /logitProcessorRegistry is not supported/);
  const { appConfig } = config();
  refused({ appConfig: { model_list: [{ ...appConfig.model_list[0], integrity: {} }] } }, /model_list\[0\]\.integrity/);
  refused({ worker: true }, /on the calling thread/);
  const said = [];
  const warn = console.warn;
  console.warn = (text) => said.push(text);
  try {
    new MLCEngine({ appConfig: { ...appConfig, cacheBackend: "opfs" } });
  } finally {
    console.warn = warn;
  }
  assert.match(said.join(), /appConfig\.cacheBackend has no effect/);
});

test("the JavaScript's version is the package's", async () => {
  const installed = new URL(import.meta.resolve("tessera-web/package.json"));
  const { version } = JSON.parse(await readFile(installed, "utf8"));
  const { VERSION } = await import(new URL("dist/core.js", installed));
  assert.equal(VERSION, version);
});

test("a flipped byte is fetched again once, then named; a cut connection goes on at the byte", async () => {
  const read = folder(GOLDEN);
  const calls = [];
  const source = (spoil) => async (path, { offset }) => {
    calls.push([path, offset]);
    const response = await read(path, { offset });
    if (!response || path !== "params_shard_1.bin") return response;
    const bytes = new Uint8Array(await response.arrayBuffer());
    return spoil(bytes, offset);
  };
  let spoiled = 0;
  const flip = (times) => source((bytes) => {
    if (spoiled++ < times) bytes[9] ^= 1;
    return new Response(bytes);
  });
  await (await CreateMLCEngine("tiny", config(flip(1)))).unload();
  spoiled = 0;
  await assert.rejects(CreateMLCEngine("tiny", config(flip(2))), /params_shard_1\.bin: its md5 is .* the manifest says/);
  calls.length = 0;
  const cut = source((bytes, offset) => {
    if (offset > 0) return new Response(bytes);
    let sent = false;
    return new Response(new ReadableStream({
      pull(out) {
        if (sent) return out.error(new Error("the connection broke"));
        sent = true;
        out.enqueue(bytes.subarray(0, 100));
      },
    }, { highWaterMark: 0 }));
  });
  await (await CreateMLCEngine("tiny", config(cut))).unload();
  const shard = calls.filter(([path]) => path === "params_shard_1.bin").map(([, offset]) => offset);
  assert.deepEqual(shard, [0, 100]);
});

test("progress goes from 0 to 1, and an unknown model is named", async () => {
  const reports = [];
  const engine = new MLCEngine({ ...config(), initProgressCallback: (report) => reports.push(report) });
  await engine.reload("tiny");
  assert.equal(reports.at(0).progress, 0);
  assert.equal(reports.at(-1).progress, 1);
  assert.ok(reports.every((report, i) => i === 0 || report.progress >= reports[i - 1].progress));
  await assert.rejects(engine.reload("other"), /no model is called other; appConfig.model_list has: tiny/);
  await engine.unload();
});
