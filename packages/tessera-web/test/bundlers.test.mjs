// The package in fresh projects of bundlers, without configuration: what they build answers in Chromium as the package does
// in node.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { CreateMLCEngine, folder } from "tessera-web";
import { serve } from "./serve.mjs";

const { TESSERA_GOLDEN: golden, TESSERA_CHROMIUM: executablePath, TESSERA_PACKED: packed } = process.env;
assert.ok(golden && executablePath && packed, "TESSERA_GOLDEN, TESSERA_CHROMIUM and TESSERA_PACKED name folder, browser and package");
const REQUEST = { messages: [{ role: "user", content: "Hi" }], max_tokens: 12, temperature: 0 };
const run = promisify(execFile);

/** What is installed, and the program that makes what is served out of `src/main.js` and `index.html`. */
const PROJECTS = {
  vite: { tools: ["vite@8.4.0"], from: "tessera-web", script: "/src/main.js", command: ["vite", "build"], out: "dist" },
  webpack: {
    tools: ["webpack@5.113.0", "webpack-cli@7.3.1"], from: "tessera-web", script: "/main.js",
    command: ["webpack", "./src/main.js", "--mode", "production"], out: "dist",
  },
  esbuild: {
    tools: ["esbuild@0.28.2"], from: "tessera-web/inline", script: "/main.js",
    command: ["esbuild", "src/main.js", "--bundle", "--minify", "--format=esm", "--outfile=dist/main.js"], out: "dist",
  },
};

const main = (from) => `import { CreateMLCEngine } from ${JSON.stringify(from)};
const appConfig = { model_list: [{ model_id: "tiny", model: location.origin + "/golden/", overrides: { context_window_size: 512 } }] };
window.answers = async (worker, request) => {
  const engine = await CreateMLCEngine("tiny", { appConfig, worker });
  const answer = await engine.chat.completions.create(request);
  await engine.unload();
  return answer.choices[0].message.content;
};`;

let browser, expected;

before(async () => {
  browser = await chromium.launch({
    executablePath, args: ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
  const model = folder(golden);
  const engine = await CreateMLCEngine("tiny", {
    logLevel: "SILENT", appConfig: { model_list: [{ model_id: "tiny", model, overrides: { context_window_size: 512 } }] },
  });
  expected = (await engine.chat.completions.create(REQUEST)).choices[0].message.content;
  await engine.unload();
});

after(() => browser?.close());

for (const [name, { tools, from, script, command, out }] of Object.entries(PROJECTS)) {
  test(`${name}, with ${from}`, async () => {
    const project = await mkdtemp(join(tmpdir(), `tessera-${name}-`));
    await mkdir(join(project, "src"));
    await mkdir(join(project, out));
    const html = `<!doctype html><title>${name}</title><script type="module" src="${script}"></script>`;
    await writeFile(join(project, "index.html"), html);
    await writeFile(join(project, out, "index.html"), html);
    await writeFile(join(project, "src/main.js"), main(from));
    await writeFile(join(project, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
    const options = { cwd: project, maxBuffer: 1 << 26 };
    await run("npm", ["install", "--no-audit", "--no-fund", "--silent", packed, ...tools], options);
    await run(join("node_modules/.bin", command[0]), command.slice(1), options);
    const server = await serve({ golden, "": join(project, out) });
    try {
      const page = await browser.newPage();
      const said = [];
      page.on("pageerror", (error) => said.push(String(error)));
      await page.goto(server.base);
      await page.waitForFunction(() => window.answers);
      for (const worker of [true, false]) {
        assert.equal(await page.evaluate(([worker, request]) => window.answers(worker, request), [worker, REQUEST]), expected);
      }
      assert.deepEqual(said, []);
      await page.close();
    } finally {
      await server.close();
    }
    const built = await readdir(join(project, out), { recursive: true });
    assert.ok(built.length > 0);
  });
}
