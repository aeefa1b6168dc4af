// The package in Chromium, as it is packed: in its worker and on the page, what it keeps between visits, and what a page
// can meet. scripts/check-web runs it; TESSERA_CHROMIUM is the browser's program.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { CreateMLCEngine, folder } from "tessera-web";
import { serve } from "./serve.mjs";

const { TESSERA_GOLDEN: golden, TESSERA_CHROMIUM: executablePath } = process.env;
assert.ok(golden && executablePath, "TESSERA_GOLDEN and TESSERA_CHROMIUM name folder and browser");
const SHARDS = JSON.parse(await readFile(`${golden}/tensor-cache.json`, "utf8")).records;
const REQUEST = { messages: [{ role: "user", content: "Hi" }], max_tokens: 12, temperature: 0 };

let server, browser, context, expected;

before(async () => {
  const pkg = dirname(fileURLToPath(import.meta.resolve("tessera-web/package.json")));
  const webllm = dirname(fileURLToPath(import.meta.resolve("@mlc-ai/web-llm")));
  server = await serve({ pkg, golden, webllm });
  browser = await chromium.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  const overrides = { context_window_size: 512 };
  const engine = await CreateMLCEngine("tiny", {
    logLevel: "SILENT", appConfig: { model_list: [{ model_id: "tiny", model: folder(golden), overrides }] },
  });
  expected = (await engine.chat.completions.create(REQUEST)).choices[0].message.content;
  await engine.unload();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

beforeEach(async () => {
  await context?.close();
  context = await browser.newContext();
  Object.assign(server, { asked: [], spoil: undefined, headers: {} });
});

/** A page of the site, with what it and its workers say. */
async function visit() {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.said = [];
  // A file that a folder does not have is the browser's own to tell.
  page.on("console", (message) => /status of 404/.test(message.text()) || page.said.push(message.text()));
  await page.goto(server.base);
  return page;
}

/** Makes an engine in a page, which holds it as `engine`, and gives the answer to a request. */
function answer(page, { appConfig = {}, record = {}, config = {} } = {}) {
  return page.evaluate(async ([appConfig, record, config, request]) => {
    const tessera = await import("tessera-web");
    const overrides = { context_window_size: 512 };
    globalThis.app = { model_list: [{ model_id: "tiny", model: `${location.origin}/golden/`, overrides, ...record }], ...appConfig };
    try {
      globalThis.engine = await tessera.CreateMLCEngine("tiny", { appConfig: app, backend: "cpu", threads: 1, ...config });
    } catch (error) {
      return { failed: error.message, code: error.code, integrity: error instanceof tessera.IntegrityError };
    }
    const whole = await engine.chat.completions.create(request);
    return { text: whole.choices[0].message.content };
  }, [appConfig, record, config, REQUEST]);
}

/** Shards that were asked for. */
const shards = () => server.asked.filter(({ path }) => path.endsWith(".bin"));

for (const worker of [true, false]) {
  test(`logits are the native engine's, bit for bit, ${worker ? "in the worker" : "on the page"}`, async () => {
    const page = await visit();
    assert.deepEqual(await answer(page, { config: { worker } }), { text: expected });
    for (const { ids, md5 } of JSON.parse(await readFile(new URL("bits.json", import.meta.url), "utf8"))) {
      const bytes = await page.evaluate(async (ids) => [...new Uint8Array((await engine.logits(ids)).buffer)], ids);
      assert.equal(createHash("md5").update(Uint8Array.from(bytes)).digest("hex"), md5, `${ids}`);
    }
    assert.deepEqual(page.said, []);
  });
}

/** What lets a page share memory among threads. */
const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

test("threads give the same bits, for two models at once too, and again after they were given back", async () => {
  server.headers = ISOLATED;
  const page = await visit();
  const cases = JSON.parse(await readFile(new URL("bits.json", import.meta.url), "utf8"));
  for (const threads of [3, 2]) {
    assert.deepEqual(await answer(page, { config: { threads } }), { text: expected });
    assert.match(await page.evaluate(() => engine.describe().device), new RegExp(`relaxed-simd kernels, ${threads} threads`));
    for (const { ids, md5 } of cases) {
      const bytes = await page.evaluate(async (ids) => [...new Uint8Array((await engine.logits(ids)).buffer)], ids);
      assert.equal(createHash("md5").update(Uint8Array.from(bytes)).digest("hex"), md5, `${ids}`);
    }
    await page.evaluate(() => engine.reload("tiny"));
  }
  const texts = await page.evaluate(async (request) => {
    const { CreateMLCEngine } = await import("tessera-web");
    const model_list = ["a", "b"].map((model_id) => ({ ...app.model_list[0], model_id }));
    const both = await CreateMLCEngine(["a", "b"], { appConfig: { model_list }, backend: "cpu", threads: 2 });
    const whole = async (model) => (await both.chat.completions.create({ ...request, model })).choices[0].message.content;
    const texts = await Promise.all([whole("a"), whole("b"), whole("a")]);
    return [...texts, both.describe("a").device === both.describe("b").device];
  }, REQUEST);
  assert.deepEqual(texts, [expected, expected, expected, true]);
  assert.deepEqual(page.said, []);
});

test("a page that is not isolated runs on one thread, and says so", async () => {
  const page = await visit();
  assert.deepEqual(await answer(page, { config: { threads: undefined } }), { text: expected });
  assert.match(page.said.pop(), /^tiny: it runs on one thread: the page is not cross-origin isolated/);
  assert.deepEqual(await answer(page, { config: { threads: 2, worker: false } }), { text: expected });
  assert.match(page.said.pop(), /^tiny: it runs on one thread: a page's own thread may not wait/);
});

test("streams, interruption and several requests at once, through the worker", async () => {
  const page = await visit();
  await answer(page);
  const seen = await page.evaluate(async (request) => {
    const one = (async () => {
      let text = "";
      for await (const part of await engine.chat.completions.create({ ...request, stream: true })) {
        text += part.choices[0]?.delta.content ?? "";
      }
      return text;
    })();
    const two = engine.chat.completions.create(request);
    const long = engine.chat.completions.create({ ...request, max_tokens: 400, ignore_eos: true });
    const texts = [await one, (await two).choices[0].message.content];
    await engine.interruptGenerate();
    const { finish_reason } = (await long).choices[0];
    return { texts, finish_reason, after: (await engine.chat.completions.create(request)).choices[0].message.content };
  }, REQUEST);
  assert.deepEqual(seen.texts, [expected, expected]);
  assert.match(seen.finish_reason, /abort|length/);
  assert.equal(seen.after, expected);
});

for (const cacheBackend of [undefined, "cache", "indexeddb", "opfs"]) {
  test(`what is kept is not fetched again, without a network too: ${cacheBackend ?? "by default"}`, async () => {
    const appConfig = cacheBackend ? { cacheBackend } : {};
    let page = await visit();
    assert.deepEqual(await answer(page, { appConfig }), { text: expected });
    assert.equal(shards().length, SHARDS.length);
    await page.close();

    page = await visit();
    server.asked = [];
    server.spoil = ({ response }) => (response.destroy(), true);
    assert.deepEqual(await answer(page, { appConfig }), { text: expected });
    assert.deepEqual(server.asked, []);
    assert.deepEqual(page.said, []);
    const has = () => page.evaluate(async () => (await import("tessera-web")).hasModelInCache("tiny", app));
    assert.equal(await has(), true);
    await page.evaluate(async () => (await import("tessera-web")).deleteModelAllInfoInCache("tiny", app));
    assert.equal(await has(), false);
    const left = await page.evaluate(async () => {
      const names = [];
      for (const name of await caches.keys()) names.push(...(await (await caches.open(name)).keys()).map(({ url }) => url));
      for await (const [name, handle] of (await navigator.storage.getDirectory()).entries()) {
        for await (const file of handle.keys()) names.push(`${name}/${file}`);
      }
      return names;
    });
    assert.deepEqual(left, []);
  });
}

test("what WebLLM has fetched is found and checked; what is wrong is fetched again, alone", async () => {
  const page = await visit();
  const wrong = SHARDS[0].dataPath;
  await page.evaluate(async ([files, wrong]) => {
    const cache = await caches.open("webllm/model");
    for (const file of files) {
      const url = `${location.origin}/golden/${file}`;
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
      if (file === wrong) bytes[7] ^= 1;
      await cache.put(url, new Response(bytes));
    }
  }, [["tensor-cache.json", ...SHARDS.map(({ dataPath }) => dataPath)], wrong]);
  server.asked = [];
  assert.deepEqual(await answer(page), { text: expected });
  assert.deepEqual(shards(), [{ path: wrong, offset: 0 }]);
  assert.ok(!server.asked.some(({ path }) => path === "tensor-cache.json"));
  assert.match(page.said.join(), new RegExp(`what was kept of ${wrong} was wrong`));
});

test("a download that was left goes on at the byte in the next visit", async () => {
  const { dataPath } = SHARDS.at(-1);
  let page = await visit();
  server.spoil = ({ path, offset, bytes, response }) => {
    if (path !== dataPath) return undefined;
    if (offset > 0) return response.writeHead(403).end(), true;
    return server.cut(response, bytes, 0, 1000);
  };
  const { failed } = await answer(page);
  assert.match(failed, new RegExp(`${dataPath}: the server answers 403`));
  await page.close();

  page = await visit();
  server.asked = [];
  server.spoil = undefined;
  assert.deepEqual(await answer(page), { text: expected });
  assert.deepEqual(shards(), [{ path: dataPath, offset: 1000 }]);
});

test("a connection that is cut at five places", async () => {
  const page = await visit();
  let cuts = 0;
  server.spoil = ({ path, offset, bytes, response }) => {
    if (!path.endsWith(".bin") || cuts === 5) return undefined;
    cuts++;
    return server.cut(response, bytes, offset, Math.ceil((bytes.length - offset) / 3));
  };
  assert.deepEqual(await answer(page), { text: expected });
  assert.equal(cuts, 5);
});

test("a shard that the server spoils is named, with both checksums", async () => {
  const page = await visit();
  const { dataPath, md5sum } = SHARDS[0];
  server.spoil = ({ path, bytes }) => {
    if (path !== dataPath) return undefined;
    const spoiled = Uint8Array.from(bytes);
    spoiled[5] ^= 16;
    return spoiled;
  };
  const { failed, code } = await answer(page);
  assert.equal(code, "checksum");
  assert.match(failed, new RegExp(`${dataPath}: its md5 is [0-9a-f]{32}, the manifest says ${md5sum}`));
  assert.equal(shards().filter(({ path }) => path === dataPath).length, 2);
});

test("a folder that was changed where it comes from is fetched again", async () => {
  let page = await visit();
  await answer(page);
  await page.evaluate(async () => {
    const cache = await caches.open("webllm/model");
    const url = `${location.origin}/golden/tensor-cache.json`;
    const old = await (await cache.match(url)).json();
    old.records[0].md5sum = "0".repeat(32);
    await cache.put(url, new Response(JSON.stringify(old)));
  });
  await page.close();
  page = await visit();
  server.asked = [];
  assert.deepEqual(await answer(page), { text: expected });
  assert.ok(server.asked.some(({ path }) => path === "tensor-cache.json"));
});

test("two tabs at once fetch each shard once", async () => {
  const pages = [await visit(), await visit()];
  assert.deepEqual(await Promise.all(pages.map((page) => answer(page))), [{ text: expected }, { text: expected }]);
  assert.equal(shards().length, SHARDS.length);
});

test("where the browser gives no room the model runs, and it is told", async () => {
  const page = await visit();
  const session = await context.newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: server.base, quotaSize: 1000 });
  assert.deepEqual(await answer(page), { text: expected });
  assert.match(page.said.join(), /tiny: storage: keeping .* failed: QuotaExceededError/);
});

test("the integrity of a record is held", async () => {
  const sri = async (file) => `sha256-${createHash("sha256").update(await readFile(`${golden}/${file}`)).digest("base64")}`;
  const integrity = { config: await sri("mlc-chat-config.json"), tokenizer: { "tokenizer.json": await sri("tokenizer.json") } };
  let page = await visit();
  assert.deepEqual(await answer(page, { record: { integrity } }), { text: expected });
  integrity.tokenizer["tokenizer.json"] = integrity.config;
  page = await visit();
  const { failed, integrity: isError } = await answer(page, { record: { integrity } });
  assert.match(failed, /tokenizer\.json: its hash is sha256-.*, the integrity of its model's record says sha256-/);
  assert.ok(isError);
});

test("a page whose policy allows wasm is enough; without, the error says what is missing", async () => {
  server.headers = { "content-security-policy": "script-src 'self' 'wasm-unsafe-eval' 'unsafe-inline'" };
  assert.deepEqual(await answer(await visit()), { text: expected });
  server.headers = { "content-security-policy": "script-src 'self' 'unsafe-inline'" };
  assert.match((await answer(await visit())).failed, /wasm-unsafe-eval/);
});

for (const client of ["tessera-web", "/webllm/index.js"]) {
  test(`WebLLM's messages: ${client} as the client of our handler`, async () => {
    const page = await visit();
    const seen = await page.evaluate(async ([client, request]) => {
      const { CreateWebWorkerMLCEngine } = await import(client);
      const said = [];
      const overrides = { context_window_size: 512 };
      const model_list = [{ model_id: "tiny", model: `${location.origin}/golden/`, model_lib: "none.wasm", overrides }];
      const worker = new Worker("/handler.js", { type: "module" });
      const engine = await CreateWebWorkerMLCEngine(worker, "tiny", {
        appConfig: { model_list }, initProgressCallback: ({ progress, text }) => said.push([progress, text]), logLevel: "ERROR",
      });
      const whole = (await engine.chat.completions.create(request)).choices[0].message.content;
      let streamed = "", usage;
      for await (const part of await engine.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })) {
        streamed += part.choices[0]?.delta.content ?? "";
        usage = part.usage;
      }
      for await (const part of await engine.chat.completions.create({ ...request, stream: true })) {
        if (part.choices[0].delta.content) break;
      }
      const completed = (await engine.completions.create({ prompt: "Hi", max_tokens: 2, temperature: 0 })).choices[0].text;
      const message = await engine.getMessage();
      const wrong = await engine.chat.completions.create({ ...request, temprature: 1 }).catch((error) => String(error));
      await engine.resetChat();
      const next = await engine.forwardTokensAndSample([1, 2, 3], true);
      await engine.unload();
      const after = await engine.chat.completions.create(request).then(() => "answered", (error) => String(error));
      return { whole, streamed, tokens: usage.completion_tokens, completed, message, wrong, next, after, last: said.at(-1) };
    }, [client, REQUEST]);
    const { completed, next, wrong, after, last, ...rest } = seen;
    assert.deepEqual(rest, { whole: expected, streamed: expected, tokens: 12, message: completed });
    assert.match(wrong, /temprature/);
    assert.match(after, /not loaded|no model is loaded|reload/i);
    assert.ok(Number.isInteger(next));
    assert.equal(last[0], 1);
    assert.match(last[1], /^Finish loading on /);
  });
}

test("in a service worker, which answers a page that was opened anew without loading again", async () => {
  const use = (page) => page.evaluate(async (request) => {
    const { CreateServiceWorkerMLCEngine } = await import("tessera-web");
    await navigator.serviceWorker.register("/service.js", { type: "module" });
    await navigator.serviceWorker.ready;
    while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 20));
    const overrides = { context_window_size: 512 };
    const appConfig = { model_list: [{ model_id: "tiny", model: `${location.origin}/golden/`, overrides }] };
    let loads = 0;
    const initProgressCallback = ({ progress }) => (loads += Number(progress < 1));
    const engine = await CreateServiceWorkerMLCEngine("tiny", { appConfig, initProgressCallback });
    let text = "";
    for await (const part of await engine.chat.completions.create({ ...request, stream: true })) {
      text += part.choices[0]?.delta.content ?? "";
    }
    return { text, loads: loads > 0 };
  }, REQUEST);
  const page = await visit();
  assert.deepEqual(await use(page), { text: expected, loads: true });
  await page.close();
  server.asked = [];
  assert.deepEqual(await use(await visit()), { text: expected, loads: false });
  assert.deepEqual(server.asked, []);
});

test("a worker whose script is not there is told", async () => {
  const { failed, code } = await answer(await visit(), { config: { workerUrl: "/nowhere.js" } });
  assert.equal(code, "worker");
  assert.match(failed, /worker failed/);
});

test("twenty rounds of a chat keep their prefix and take no more memory; unloaded, the worker is gone", async () => {
  const page = await visit();
  await answer(page, { record: { overrides: { context_window_size: 2048 } } });
  const rounds = await page.evaluate(async () => {
    const messages = [], rounds = [];
    for (let i = 0; i < 20; i++) {
      messages.push({ role: "user", content: `Round ${i}: and then?` });
      const { choices, usage } = await engine.chat.completions.create({ messages, max_tokens: 16, temperature: 0, ignore_eos: true });
      messages.push(choices[0].message);
      const { prompt_tokens, prompt_tokens_details } = usage;
      rounds.push({ prompt: prompt_tokens, cached: prompt_tokens_details.cached_tokens, memory: await engine.memory() });
    }
    return rounds;
  });
  for (const [i, { prompt, cached }] of rounds.entries()) {
    if (i > 0) assert.ok(cached >= rounds[i - 1].prompt, `round ${i}: ${cached} of ${prompt} tokens were kept, ${rounds[i - 1].prompt} were there`);
  }
  // Memory comes in pieces of 64 KiB, and the conversation's own text grows.
  assert.ok(rounds.at(-1).memory - rounds[1].memory <= 4 << 16, `${rounds[1].memory} to ${rounds.at(-1).memory} bytes`);
  assert.equal(page.workers().length, 1);
  const gone = page.workers()[0].waitForEvent("close");
  await page.evaluate(() => engine.unload());
  await gone;
  assert.equal(page.workers().length, 0);
});
