// tessera-web and wllama in headless Chromium on the same model, in turn, on the CPU: seconds to the first token of a prompt
// of about 500 tokens, and tokens a second after it. It needs the packed tessera-web, @wllama/wllama and playwright-core
// installed where it lies.
//
//   node bench-browser.mjs FOLDER GGUF [ROUNDS]

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const [folder, gguf, rounds = "3"] = process.argv.slice(2);
const { TESSERA_CHROMIUM: executablePath } = process.env;
if (!folder || !gguf || !executablePath) throw new Error("usage: TESSERA_CHROMIUM=BROWSER node bench-browser.mjs FOLDER GGUF [ROUNDS]");

const packageOf = (name) => dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`)));
const roots = { tessera: packageOf("tessera-web"), wllama: packageOf("@wllama/wllama"), folder: resolve(folder) };
const TYPES = { js: "text/javascript", json: "application/json", wasm: "application/wasm", html: "text/html" };
const server = createServer(async (request, response) => {
  // Threads need both.
  response.setHeader("cross-origin-opener-policy", "same-origin");
  response.setHeader("cross-origin-embedder-policy", "require-corp");
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  if (path === "/") return response.setHeader("content-type", TYPES.html).end("<!doctype html><title>bench</title>");
  const [, root, ...rest] = path.split("/");
  try {
    const bytes = await readFile(root === "model.gguf" ? gguf : join(roots[root], ...rest));
    response.setHeader("content-type", TYPES[path.split(".").pop()] ?? "application/octet-stream").end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const base = `http://127.0.0.1:${server.address().port}`;

const WORDS = "The quick brown fox jumps over the lazy dog while seven wise men count the stars above the quiet harbour. ";
const PROMPT = WORDS.repeat(22) + "Then the oldest of them said:";
const TOKENS = 64;

/** In the page: load, then `[prompt tokens, seconds to the first token, tokens a second after it, text]`. */
const tessera = async ([base, threads, prompt, max_tokens]) => {
  const { CreateMLCEngine } = await import(`${base}/tessera/dist/index.js`);
  const begun = performance.now();
  const engine = await CreateMLCEngine(`${base}/folder/`, { backend: "cpu", threads, logLevel: "SILENT" });
  const load = (performance.now() - begun) / 1e3;
  const request = { prompt, max_tokens, temperature: 0, ignore_eos: true, stream: true, stream_options: { include_usage: true } };
  const asked = performance.now();
  let first, last, usage, text = "";
  for await (const part of await engine.completions.create(request)) {
    usage = part.usage ?? usage;
    if (!part.choices[0]?.text) continue;
    last = performance.now();
    first ??= last;
    text += part.choices[0].text;
  }
  return {
    what: engine.describe().device, load, prompt: usage.prompt_tokens, first: (first - asked) / 1e3,
    rate: ((usage.completion_tokens - 1) / (last - first)) * 1e3, text,
  };
};
const wllama = async ([base, threads, prompt, max_tokens]) => {
  const { Wllama } = await import(`${base}/wllama/esm/index.js`);
  const engine = new Wllama({ default: `${base}/wllama/esm/wasm/wllama.wasm` }, { suppressNativeLog: true });
  const begun = performance.now();
  await engine.loadModelFromUrl(`${base}/model.gguf`, { n_threads: threads, n_ctx: 1024, n_gpu_layers: 0 });
  const load = (performance.now() - begun) / 1e3;
  const asked = performance.now();
  let first, last, n = 0, text = "", prompted;
  const options = { prompt, max_tokens, temperature: 0, ignore_eos: true, stream: true, timings_per_token: true };
  for await (const part of await engine.createCompletion(options)) {
    prompted = part.timings?.prompt_n ?? prompted;
    const piece = part.choices?.[0]?.text ?? "";
    if (piece === "") continue;
    last = performance.now();
    first ??= last;
    n++;
    text += piece;
  }
  return {
    what: `wllama ${threads} threads`, load, prompt: prompted, first: (first - asked) / 1e3, rate: ((n - 1) / (last - first)) * 1e3, text,
  };
};

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const median = (all) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
for (const threads of [1, 2]) {
  const found = { tessera: [], wllama: [] };
  for (let round = 0; round < Number(rounds); round++) {
    for (const [name, run] of [["tessera", tessera], ["wllama", wllama]]) {
      const context = await browser.newContext();
      const page = await context.newPage();
      page.setDefaultTimeout(0);
      await page.goto(base);
      const one = await page.evaluate(run, [base, threads, PROMPT, TOKENS]);
      found[name].push(one);
      const { what, load, prompt, first, rate, text } = one;
      console.log(
        `${what}: loaded in ${load.toFixed(2)} s, first token of ${prompt} after ${first.toFixed(2)} s, then ${rate.toFixed(1)} tokens/s: ${JSON.stringify(text.slice(0, 50))}`,
      );
      await context.close();
    }
  }
  const of = (name, field) => median(found[name].map((one) => one[field]));
  console.log(
    `${threads} threads, medians: decode ${of("tessera", "rate").toFixed(1)} to ${of("wllama", "rate").toFixed(1)} tokens/s, ` +
      `${(of("tessera", "rate") / of("wllama", "rate")).toFixed(2)} times; first token after ${of("tessera", "first").toFixed(2)} to ` +
      `${of("wllama", "first").toFixed(2)} s, ${(of("wllama", "first") / of("tessera", "first")).toFixed(2)} times`,
  );
}
await browser.close();
server.close();
