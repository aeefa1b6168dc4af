// `node tint.mjs TEXTS CHROMIUM PLAYWRIGHT [PART]`: what Chromium says of each kernel. TEXTS: JSON, `[[name, text], ...]`.

import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";

const [texts, executablePath, playwright, part = ""] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const all = JSON.parse(await readFile(texts, "utf8")).filter(([name]) => name.includes(part));
/** Texts that are sent at once. */
const AT_ONCE = 32;
/**
 * SwiftShader takes seconds for the pipeline of a long text. Up to here there are all kernels but products, and products of
 * every form of weights whose loops are not written out far. TINT_PIPELINES=all makes the others too, in most of an hour.
 */
const LONGEST = process.env.TINT_PIPELINES === "all" ? Infinity : 9000;

const browser = await chromium.launch({
  executablePath,
  args: ["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  // WebGPU is for secure contexts only, and localhost is one; nothing is asked of the network.
  await page.route("**/*", (route) => route.fulfill({ contentType: "text/html", body: "<title>tint</title>" }));
  await page.goto("http://localhost/");
  const adapter = await page.evaluate(async () => {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) return null;
    // No more than every WebGPU has.
    globalThis.device = await adapter.requestDevice();
    return `${adapter.info.vendor} ${adapter.info.architecture} ${adapter.info.description}`;
  });
  if (!adapter) throw new Error("this Chromium has no adapter");
  console.log(`Chromium ${browser.version()}, ${adapter}`);

  const failed = new Set();
  const count = { texts: 0, pipelines: 0 };
  const begun = Date.now();
  for (let at = 0; at < all.length; at += AT_ONCE) {
    const said = await page.evaluate(([some, longest]) => Promise.all(some.map(async ([name, code]) => {
      const module = device.createShaderModule({ code });
      const { messages } = await module.getCompilationInfo();
      const lines = code.split("\n");
      const found = messages.map((m) => `${m.type}: ${m.message}\n    ${lines[m.lineNum - 1] ?? ""}`);
      const made = code.length <= longest && !messages.some((m) => m.type === "error");
      if (made) {
        const pipeline = device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
        await pipeline.catch((e) => found.push(`pipeline: ${e.message}`));
      }
      return [name, found, made];
    })), [all.slice(at, at + AT_ONCE), LONGEST]);
    for (const [name, found, made] of said) {
      count.texts += 1;
      count.pipelines += Number(made);
      if (found.length === 0) continue;
      failed.add(name);
      console.log(`FAILED ${name}\n  ${found.join("\n  ")}`);
    }
  }
  // That a text that must be refused is: otherwise nothing was shown.
  const refused = await page.evaluate(async () => {
    const code = "@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { if (i < 32u) { workgroupBarrier(); } }";
    device.pushErrorScope("validation");
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
    await device.popErrorScope();
    return messages.some((m) => m.type === "error");
  });
  if (!refused) throw new Error("a barrier that half of the threads reach was taken");
  const seconds = Math.round((Date.now() - begun) / 1000);
  console.log(`${count.texts - failed.size} of ${count.texts} texts passed, ${count.pipelines} of them as pipelines too, in ${seconds} s`);
  if (failed.size > 0 || count.texts === 0) process.exitCode = 1;
} finally {
  await browser.close();
}
