// The package in Node, on the golden folder: the bits of the native engine, and what a request can meet.
// scripts/check-web installs what is packed and runs this; TESSERA_GOLDEN is the golden folder.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { CreateMLCEngine, IntegrityError, MLCEngine, TesseraError, folder } from "tessera-web";

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

test("a setting that would have no effect is refused", () => {
  const refused = (config, words) => assert.throws(() => new MLCEngine(config), words);
  refused({ threads: 2 }, /threads: outside of a browser/);
  refused({ backend: "webgpu" }, /backend: outside of a browser/);
  const { appConfig } = config();
  const record = appConfig.model_list[0];
  refused({ appConfig: { model_list: [{ ...record, model_manifest: "a.json" }] } }, /model_list\[0\]\.model_manifest/);
  refused({ appConfig: { model_list: [{ model_id: "tiny" }] } }, /model_list\[0\]\.model is missing/);
  refused({ appConfig: { ...appConfig, cacheBackend: "disk" } }, /cacheBackend is "disk", not one of cache, indexeddb/);
  refused({ worker: true }, /on the calling thread/);
});

test("integrity is checked where there is no browser too; old names of fields are taken", async () => {
  const { appConfig } = config();
  const { model, ...record } = appConfig.model_list[0];
  const make = (more) => CreateMLCEngine("tiny", { appConfig: { model_list: [{ ...record, ...more }] } });
  await (await make({ model_url: model, model_lib_url: "x.wasm" })).unload();
  const hash = createHash("sha384").update("other").digest("base64");
  await assert.rejects(make({ model, integrity: { config: `sha384-${hash}` } }), (error) => {
    assert.ok(error instanceof IntegrityError);
    assert.equal(error.expected, `sha384-${hash}`);
    return true;
  });
  await assert.rejects(make({ model, integrity: { config: "sha384-short" } }), /"sha384-short" is no integrity/);
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

test("a logit processor changes what is chosen, and hears of it", async () => {
  const heard = [];
  let wrong;
  const processor = {
    resetState: () => heard.push("reset"),
    processLogits: (logits) => wrong?.(logits) ?? logits.map((_, id) => (id === 70 + heard.length ? 0 : -Infinity)),
    processSampledToken: (token) => heard.push(token),
  };
  const engine = await CreateMLCEngine("tiny", { ...config(), logitProcessorRegistry: new Map([["tiny", processor]]) });
  const request = { messages, max_tokens: 3, temperature: 1, ignore_eos: true };
  await engine.chat.completions.create(request);
  assert.deepEqual(heard, ["reset", 71, 72, 73]);
  assert.equal(await engine.forwardTokensAndSample([5, 6], true), 75);
  assert.deepEqual(heard.slice(4), ["reset", 75]);
  wrong = () => new Float32Array(3);
  await assert.rejects(engine.chat.completions.create(request), /the logit processor: it returns 3 logits of/);
  wrong = () => {
    throw new Error("not today");
  };
  await assert.rejects(engine.chat.completions.create(request), /the logit processor: not today/);
  wrong = undefined;
  assert.ok(await engine.chat.completions.create(request));
  await engine.unload();
});
