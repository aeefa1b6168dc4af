// Models on the browser's GPU, a program on the CPU here. TESSERA_GOLDEN and TESSERA_CHROMIUM name a folder written by MLC and the browser.

import assert from "node:assert/strict";
import { dirname } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const { TESSERA_GOLDEN: golden, TESSERA_CHROMIUM: executablePath } = process.env;
assert.ok(golden && executablePath, "TESSERA_GOLDEN and TESSERA_CHROMIUM name folder and browser");

let server, browser, context;

before(async () => {
  const pkg = dirname(fileURLToPath(import.meta.resolve("tessera-web/package.json")));
  server = await serve({ pkg, golden });
  browser = await chromium.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--enable-unsafe-webgpu"],
  });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

beforeEach(async () => {
  await context?.close();
  context = await browser.newContext();
});

/** A page, with what it says, after `first` ran in it. */
async function visit(first = () => {}) {
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  page.said = [];
  page.on("console", (message) => message.text().startsWith("tiny: ") && page.said.push(message.text().slice(6)));
  await page.goto(server.base);
  await page.evaluate(first);
  await page.evaluate(() => {
    /** Makes an engine; on this thread, where what a test has changed is seen. */
    globalThis.make = async (backend, config = { worker: false }) => {
      const { CreateMLCEngine } = await import("tessera-web");
      const overrides = { context_window_size: 512 };
      const model_list = [{ model_id: "tiny", model: `${location.origin}/golden/`, overrides }];
      try {
        globalThis.engine = await CreateMLCEngine("tiny", { appConfig: { model_list }, backend, ...config });
        return engine.describe().backend;
      } catch (error) {
        return `${error.code}: ${error.message}`;
      }
    };
    /** Three answers, at once. */
    globalThis.answers = () => Promise.all(["Hi", "What is a tree?", "Count to ten."].map(async (content) => {
      const request = { messages: [{ role: "user", content }], max_tokens: 16, temperature: 0, logprobs: true };
      const [{ logprobs }] = (await engine.chat.completions.create(request)).choices;
      return logprobs.content.map(({ token }) => token);
    }));
  });
  return page;
}

/** The adapter says that it is hardware. */
const hardware = () => Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });

async function expected(page) {
  assert.equal(await page.evaluate(() => make("cpu")), "cpu");
  const found = await page.evaluate(() => answers());
  assert.deepEqual(found.map((tokens) => tokens.length), [16, 16, 16]);
  return found;
}

for (const worker of [true, false]) {
  test(`tokens are those of the CPU, ${worker ? "in the worker" : "on the page"}`, async () => {
    const page = await visit();
    const of = await expected(page);
    assert.equal(await page.evaluate((worker) => make("webgpu", { worker }), worker), "webgpu");
    assert.deepEqual(await page.evaluate(() => answers()), of);
    const { device } = await page.evaluate(() => engine.describe());
    assert.match(device, /^gpu: google swiftshader/);
    const ids = await page.evaluate(async () => {
      const ids = await engine.tokenize("Hi");
      return [await engine.forwardTokensAndSample([...ids], true), await engine.forwardTokensAndSample([5], false)];
    });
    assert.equal(await page.evaluate(() => make("cpu")), "cpu");
    assert.deepEqual(ids, await page.evaluate(async () => {
      const ids = await engine.tokenize("Hi");
      return [await engine.forwardTokensAndSample([...ids], true), await engine.forwardTokensAndSample([5], false)];
    }));
  });
}

test("kernels are tested once; a page goes on with its adapter lost in an answer", async () => {
  const page = await visit(() => {
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      return (globalThis.device = await requestDevice.apply(this, args));
    };
  });
  const of = await expected(page);
  assert.equal(await page.evaluate(() => make("webgpu")), "webgpu");
  assert.match(page.said.join(), /kinds of operations are tested, once/);
  page.said = [];
  await page.evaluate(() => engine.unload());
  assert.equal(await page.evaluate(() => make("webgpu")), "webgpu");
  assert.deepEqual(page.said, []);

  const lost = () => page.evaluate(async () => {
    const all = answers();
    await new Promise((resolve) => setTimeout(resolve, 300));
    device.destroy();
    return [await all, engine.describe().backend];
  });
  // The only adapter is a program on the CPU, which nobody takes by itself.
  assert.deepEqual(await lost(), [of, "cpu"]);
  assert.match(page.said.join(), /the GPU was lost and the model is loaded again: answers go on, on cpu/);
});

test("an adapter that is lost is taken once more, and not twice", async () => {
  const page = await visit(() => {
    Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      return (globalThis.device = await requestDevice.apply(this, args));
    };
  });
  const of = await expected(page);
  assert.equal(await page.evaluate(() => make("auto")), "webgpu");
  for (const backend of ["webgpu", "cpu"]) {
    const found = await page.evaluate(async () => {
      const all = answers();
      await new Promise((resolve) => setTimeout(resolve, 300));
      device.destroy();
      return [await all, engine.describe().backend];
    });
    assert.deepEqual(found, [of, backend]);
  }
});

test("another adapter than the one that was tested is not taken for it", async () => {
  const page = await visit(() => {
    Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      return (globalThis.device = await requestDevice.apply(this, args));
    };
  });
  const of = await expected(page);
  assert.equal(await page.evaluate(() => make("auto")), "webgpu");
  const found = await page.evaluate(async () => {
    const all = answers();
    await new Promise((resolve) => setTimeout(resolve, 300));
    Object.defineProperty(GPUAdapterInfo.prototype, "architecture", { get: () => "another" });
    device.destroy();
    return [await all, engine.describe().backend];
  });
  assert.deepEqual(found, [of, "cpu"]);
  assert.match(page.said.join(), /google another is not tested, and not taken for google swiftshader/);
  const { notes } = await page.evaluate(() => engine.describe());
  assert.match(notes.join(), /the GPU was lost/);
});

/** Kernels whose text has this are given another. */
const broken = (page, text, by) => page.evaluate(([text, by]) => {
  const { createShaderModule } = GPUDevice.prototype;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    return createShaderModule.call(this, { ...descriptor, code: descriptor.code.replaceAll(text, by) });
  };
}, [text, by]);

test("kernels that compute something else are found, and others or the CPU taken", async () => {
  const page = await visit(hardware);
  const of = await expected(page);
  await broken(page, "sqrt(", "sqrt(1.1 + ");
  assert.match(await page.evaluate(() => make("webgpu")), /^gpu: .* is wrong in .*norm/i);
  assert.equal(await page.evaluate(() => make("auto")), "cpu");
  // What was found is kept of an adapter that is refused, too.
  assert.match(page.said.join(), /is wrong in norm.*found before.*it runs on the CPU, on one thread: /s);
  assert.deepEqual(await page.evaluate(() => answers()), of);
});

test("a GPU that is not there, or is a program, is done without and said so", async () => {
  const page = await visit();
  const of = await expected(page);
  assert.equal(await page.evaluate(() => make("auto")), "cpu");
  assert.match(page.said.pop(), /it runs on the CPU: google swiftshader, the only adapter, is a program on the CPU/);
  await page.evaluate(() => (GPU.prototype.requestAdapter = async () => null));
  assert.equal(await page.evaluate(() => make("auto")), "cpu");
  assert.match(page.said.pop(), /it runs on the CPU: the browser gives no adapter/);
  assert.deepEqual(await page.evaluate(() => answers()), of);
  assert.equal(await page.evaluate(() => make("webgpu")), "gpu: backend `webgpu`: the browser gives no adapter");
  assert.match(await page.evaluate(() => make("vulkan")), /^invalid_value: backend is "vulkan", not one of auto, webgpu, cpu/);
});
