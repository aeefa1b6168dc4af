// The examples as they lie there, in Chromium and in Node, and what the chat makes of Markdown. TESSERA_EXAMPLES,
// TESSERA_GOLDEN and TESSERA_CHROMIUM name their folder, a folder written by MLC and the browser.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const { TESSERA_GOLDEN: golden, TESSERA_CHROMIUM: executablePath, TESSERA_EXAMPLES: examples, TESSERA_SHOT: shot } = process.env;
assert.ok(golden && executablePath && examples, "TESSERA_GOLDEN, TESSERA_CHROMIUM and TESSERA_EXAMPLES name folders and browser");

let server, browser, context;

before(async () => {
  const pkg = dirname(fileURLToPath(import.meta.resolve("tessera-web/package.json")));
  server = await serve({ pkg, golden, examples });
  server.spoil = ({ path, bytes }) => (path === "mlc-chat-config.json" ? talkative(bytes) : undefined);
  browser = await chromium.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
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

/** The folder's own context is too short for a conversation, and its answers are others each time. */
function talkative(bytes) {
  const config = JSON.parse(bytes);
  config.context_window_size = config.model_config.context_window_size = 1024;
  config.temperature = 0;
  return Buffer.from(JSON.stringify(config));
}

/** A page of the examples, with the errors that it told. */
async function visit(path) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.failed = [];
  page.on("pageerror", (error) => page.failed.push(String(error)));
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && page.failed.push(message.text()));
  await page.addInitScript(() => {
    globalThis.texts = [];
    new MutationObserver(() => {
      const text = document.querySelector("pre")?.textContent;
      if (text && text !== texts.at(-1)) texts.push(text);
    }).observe(document, { childList: true, subtree: true });
  });
  await page.goto(`${server.base}/examples/${path}`);
  return page;
}

/** What an example shows in the end, and the texts that it showed before. */
async function shown(name, isWhole = (text) => text !== "") {
  const page = await visit(`${name}/?model=${server.base}/golden/`);
  for (;;) {
    assert.deepEqual(page.failed, []);
    const text = await page.textContent("pre");
    if (isWhole(text)) return { text, texts: await page.evaluate(() => globalThis.texts), state: await page.textContent("p"), page };
    await page.waitForTimeout(50);
  }
}

test("basic: a whole answer", async () => {
  const { text, texts, state } = await shown("basic");
  assert.equal([...text].length, 200);
  assert.equal(texts.length, 1);
  assert.match(state, /^Finish loading on /);
});

for (const [name, tokens] of [["streaming", 300], ["worker", 200], ["service-worker", 200]]) {
  test(`${name}: an answer that grows`, async () => {
    const { texts } = await shown(name, (text) => text.length === tokens);
    assert.ok(texts.length > 3, `${texts.length} texts`);
    assert.ok(texts.every((text, i) => text.startsWith(texts[i - 1] ?? "")));
  });
}

test("streaming tells what it took", async () => {
  const { page } = await shown("streaming", (text) => text.length === 300);
  await page.waitForFunction(() => /^300 tokens, [\d.]+ a second$/.test(document.querySelector("p").textContent));
});

test("json-schema: JSON that fits", async () => {
  const { stars, mood, summary, ...rest } = JSON.parse((await shown("json-schema")).text);
  assert.deepEqual(rest, {});
  assert.ok(Number.isInteger(stars) && stars >= 1 && stars <= 5);
  assert.ok(["glad", "neutral", "angry"].includes(mood));
  assert.ok(typeof summary === "string" && [...summary].length <= 80);
});

test("tools: a call, its result, an answer", async () => {
  const { text } = await shown("tools", (text) => /\n\n./.test(text));
  const [, args, result] = /^weather\((.*)\) gives "(.*)"\n\n./.exec(text);
  assert.equal(result, `Rain in ${JSON.parse(args).city}, 9 °C`);
});

test("embeddings: texts in an order", async () => {
  const lines = (await shown("embeddings")).text.split("\n");
  const cosines = lines.map((line) => Number(/^(-?[01]\.\d{3}) {2}\w/.exec(line)[1]));
  assert.equal(cosines.length, 3);
  assert.deepEqual(cosines, cosines.toSorted((one, other) => other - one));
  assert.ok(cosines.every((cosine) => Math.abs(cosine) <= 1));
});

test("an example shows its error", async () => {
  const page = await visit(`basic/?model=${server.base}/nowhere/`);
  await page.waitForFunction(() => /there is no tensor-cache\.json/.test(document.querySelector("p").textContent));
});

test("node: an answer of a folder on the disk", async () => {
  // Beside what is installed.
  const there = await mkdtemp(fileURLToPath(new URL("../example-", import.meta.url)));
  try {
    await copyFile(join(examples, "node/index.mjs"), join(there, "index.mjs"));
    await cp(golden, join(there, "folder"), { recursive: true });
    const config = join(there, "folder/mlc-chat-config.json");
    await writeFile(config, talkative(await readFile(config)));
    const { stdout } = await promisify(execFile)(process.execPath, [join(there, "index.mjs"), join(there, "folder")]);
    assert.equal([...stdout].length, 201);
  } finally {
    await rm(there, { recursive: true });
  }
});

const ready = (page) => page.waitForFunction(() => !document.getElementById("send").disabled);

test("chat: loads a folder by its address, answers, goes on, begins anew, and runs on what is chosen", async () => {
  const page = await visit("chat/");
  await page.fill("#model", "/golden/");
  await page.click("#load button");
  await ready(page);
  assert.match(await page.textContent("#state"), /^CPU \/golden\/: .*1024 tokens of context.*it runs on the CPU: /s);
  for (const text of ["Hi", "And?"]) {
    await page.fill("#text", text);
    await page.press("#text", "Enter");
    // Answers are drawn: one may end before it is stopped, or with its first token.
    await page.waitForFunction(() => document.querySelector("#log > :last-child .markdown")?.textContent || document.getElementById("send").textContent === "Send");
    await page.click("#send");
    await page.waitForFunction(() => document.getElementById("send").textContent === "Send");
  }
  assert.deepEqual(await page.locator("#log > *").evaluateAll((all) => all.map((node) => node.className)), ["user", "assistant", "user", "assistant"]);
  assert.match(await page.textContent("#log > :last-child .figures"), /^\d+ tokens, [\d.]+ a second · .* of prompt, [1-9]\d* of them known · /);
  await page.click("#anew");
  assert.equal(await page.locator("#log > *").count(), 0);

  await page.selectOption("#backend", "cpu");
  await page.click("#load button");
  await page.waitForFunction(() => /^CPU \/golden\/: (?!.*it runs on the CPU)/s.test(document.getElementById("state").textContent));
  await page.evaluate(() => (document.getElementById("backend").value = "webgpu"));
  await page.evaluate(() => document.getElementById("load").requestSubmit());
  await page.waitForFunction(() => document.querySelector("#log .error, #state b")?.textContent !== "CPU" && document.getElementById("progress").hidden);
  assert.match(await page.textContent("body"), /backend `webgpu`: |WebGPU \/golden\//);

  await page.selectOption("#backend", "auto");
  await page.fill("#model", "/nowhere/");
  await page.click("#load button");
  await page.waitForFunction(() => /there is no tensor-cache\.json/.test(document.querySelector("#log .error")?.textContent));
  assert.deepEqual(page.failed, []);
});

/** Answers in place of a model: the package's module for a page whose model says `text`, in pieces. */
async function speaking(page, text) {
  await page.route("**/tessera-web/dist/index.js", (route) => route.fulfill({ contentType: "text/javascript", body: `
    export const prebuiltAppConfig = { model_list: [] }, ModelType = {};
    const text = ${JSON.stringify(text)};
    async function* parts() {
      for (let at = 0; at < text.length; at += 7) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        yield { choices: [{ delta: { content: text.slice(at, at + 7) }, finish_reason: null }] };
      }
      const extra = { decode_tokens_per_s: 20, time_to_first_token_s: 0.1 };
      yield { choices: [], usage: { completion_tokens: 9, prompt_tokens: 5, extra } };
    }
    export class MLCEngine {
      chat = { completions: { create: async () => parts() } };
      async reload(model) { this.model = model; }
      async unload() {}
      async interruptGenerate() {}
      describe() { return { model: this.model, backend: "webgpu", device: "gpu: a card", context: 4096, memory: "1 MiB of weights", notes: [] }; }
    }` }));
  await page.goto(`${server.base}/examples/chat/?model=tiny`);
  await ready(page);
  await page.fill("#text", "Write Markdown.");
  await page.press("#text", "Enter");
  await page.waitForFunction(() => document.querySelector(".figures")?.textContent.startsWith("9 tokens"));
}

const ANSWER = `## Tides

The sea rises **twice a day**, as the *moon* pulls it; see [a picture](https://example.org/tide "x") or https://example.org/a_(b).

1. High water
   - at noon, about \`12:00\`
   - at night
2. Low water

| place | metres | |
| :-- | --: | :-: |
| Bay of Fundy | 16.3 | high |
| Baltic | 0.1 | ~~none~~ low |

> It is the moon,
> mostly.

\`\`\`js
const html = "<b>not bold</b>";
\`\`\`

---

<img src="/golden/stolen" onerror="document.title='hacked'"><script>document.title='hacked'</script>
![a picture](/golden/stolen) ![another](https://example.org/x.png) [x](javascript:alert(1)) <b>text</b>
`;

test("chat: Markdown of an answer is shown, and HTML in it is text", async () => {
  const page = await visit("chat/");
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  server.asked = [];
  await speaking(page, ANSWER);
  const answer = page.locator(".assistant .markdown");
  for (const [inner, text] of [
    ["h2", "Tides"], ["strong", "twice a day"], ["em", "moon"], ["ol > li > p >> nth=1", "Low water"], ["ol ul li code", "12:00"],
    ["td.right >> nth=0", "16.3"], ["td.center del", "none"], ["blockquote p", "It is the moon,\nmostly."],
    [".code pre", 'const html = "<b>not bold</b>";'], [".code .head span", "js"],
  ]) assert.equal(await answer.locator(inner).textContent(), text, inner);
  const links = await answer.locator("a").evaluateAll((all) => all.map(({ href, rel, target, textContent }) => [href, rel, target, textContent]));
  const rel = ["noopener noreferrer nofollow", "_blank"];
  assert.deepEqual(links, [
    ["https://example.org/tide", ...rel, "a picture"], ["https://example.org/a_(b)", ...rel, "https://example.org/a_(b)"],
    ["https://example.org/x.png", ...rel, "picture: another"],
  ]);
  const last = await answer.locator("> :last-child").textContent();
  for (const text of ["<img src=\"/golden/stolen\" onerror=", "<script>", "[x](javascript:alert(1)) <b>text</b>"]) assert.ok(last.includes(text), last);
  assert.equal(await answer.locator("img, script, b, iframe").count(), 0);
  await answer.locator(".copy").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'const html = "<b>not bold</b>";');
  assert.equal(await page.title(), "Chat");
  assert.deepEqual(server.asked, []);
  assert.deepEqual(page.failed, []);
  if (shot) {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${shot}-${colorScheme}.png`, fullPage: true });
    }
    await page.setViewportSize({ width: 390, height: 800 });
    await page.screenshot({ path: `${shot}-narrow.png`, fullPage: true });
  }
});

/** A text and the HTML that a browser would write for what is made of it. */
const CASES = [
  ["<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"],
  ["[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"],
  ["[x](JaVa\tscript:alert(1)) [y](data:text/html,a) [z](/there)", "<p>[x](JaVa\tscript:alert(1)) [y](data:text/html,a) [z](/there)</p>"],
  ["a **b *c* d** _e_ f_g_h ***i***", "<p>a <strong>b <em>c</em> d</strong> <em>e</em> f_g_h <em><strong>i</strong></em></p>"],
  ["2 * 3 * 4 and **un", "<p>2 * 3 * 4 and **un</p>"],
  ["\\*a\\* `` b`c `` a\\\nb  \nc\nd<br>e", "<p>*a* <code>b`c</code> a<br>b  <br>c\nd<br>e</p>"],
  ["# a #\ntext\n####### no", "<h1>a</h1><p>text\n####### no</p>"],
  ["- a\n\n  b\n- [x] c\n    - d\n* e", "<ul><li><p>a</p><p>b</p></li><li><p>☑ c</p><ul><li><p>d</p></li></ul></li></ul><ul><li><p>e</p></li></ul>"],
  ["3. a\n   1. b\n4. c\nd", '<ol start="3"><li><p>a</p><ol><li><p>b</p></li></ol></li><li><p>c\nd</p></li></ol>'],
  ["1. a\n```\nb\n```\n2. c", '<ol><li><p>a</p></li></ol>CODE(,b)<ol start="2"><li><p>c</p></li></ol>'],
  ["```rust\nfn a() {\n  <b>", "CODE(rust,fn a() {\n  &lt;b&gt;)"],
  ["a\n~~~\n```\n~~~\nb", "<p>a</p>CODE(,```)<p>b</p>"],
  ["- a\n  ```\n  b\n    c\n  ```", "<ul><li><p>a</p>CODE(,b\n  c)</li></ul>"],
  ["> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"],
  ["a | b\n--|--\n1 | `x\\|y` | more\n2\n", "TABLE(<tr><th>a</th><th>b</th></tr>)(<tr><td>1</td><td><code>x|y</code></td></tr>)<p>2</p>"],
  ["a | b\n---", "<p>a | b</p><hr>"],
  ["[![a](https://e.org/i)](https://e.org/l)", "<p>LINK(https://e.org/l)picture: a</a></p>"],
  ["<https://e.org/>, (https://e.org/a_b_), **https://e.org/c**.", "<p>LINK(https://e.org/)https://e.org/</a>, (LINK(https://e.org/a_b)https://e.org/a_b</a>_), <strong>LINK(https://e.org/c)https://e.org/c</a></strong>.</p>"],
];

test("chat: Markdown case by case", async () => {
  const page = await visit("chat/");
  const made = await page.evaluate(async (texts) => {
    const { Markdown } = await import("/examples/chat/markdown.js");
    return texts.map((text) => {
      const markdown = new Markdown();
      markdown.show(text);
      return markdown.node.innerHTML;
    });
  }, CASES.map(([text]) => text));
  const short = (html) => html.replaceAll(' class=""', "")
    .replace(/<div class="code" dir="ltr"><div class="head"><span>(.*?)<\/span><button type="button" class="copy">Copy<\/button><\/div><pre tabindex="0"><code>(.*?)<\/code><\/pre><\/div>/gs, "CODE($1,$2)")
    .replace(/<div class="table" tabindex="0"><table><thead>(.*?)<\/thead><tbody>(.*?)<\/tbody><\/table><\/div>/gs, "TABLE($1)($2)")
    .replace(/<a href="(.*?)" title="\1" target="_blank" rel="noopener noreferrer nofollow">/g, "LINK($1)");
  for (const [i, [text, html]] of CASES.entries()) assert.equal(short(made[i]), html, text);
});

test("chat: text that grows is what it is at once, and what is done stays", async () => {
  const page = await visit("chat/");
  const seen = await page.evaluate(async (text) => {
    const { Markdown } = await import("/examples/chat/markdown.js");
    const growing = new Markdown();
    let head, code;
    const differing = [];
    for (let length = 0; length <= text.length; length++) {
      growing.show(text.slice(0, length));
      const whole = new Markdown();
      whole.show(text.slice(0, length));
      if (growing.node.innerHTML !== whole.node.innerHTML) differing.push(length);
      if (length === 20) head = growing.node.querySelector("h2");
      if (text.slice(0, length).endsWith("const html")) code = growing.node.querySelector(".code pre").textContent;
    }
    return { differing, code, stays: head === growing.node.querySelector("h2") };
  }, ANSWER);
  assert.deepEqual(seen, { differing: [], code: "const html", stays: true });
});

test("chat: texts that are made to be hard take no time and no depth", async () => {
  const page = await visit("chat/");
  const hard = ["*a_ ", "[", "![", "](a", "[a](", "`a``b", ">", "> - ", "- ", "  ", "a|", "|-", "***a ", "_a*", "](a (", "#", "\\", "~~a ",
    "https://e.org/).", "<https://", "[a](https://e.org) ", "[*a ", "*a* ", "-\t", "`", "1. "];
  const found = await page.evaluate(async (pieces) => {
    const { Markdown } = await import("/examples/chat/markdown.js");
    const depth = (node) => {
      let deepest = 0;
      for (let walker = document.createTreeWalker(node), at = walker.currentNode; at; at = walker.nextNode()) {
        let depth = 0;
        for (let up = at; up !== node; up = up.parentNode) depth++;
        deepest = Math.max(deepest, depth);
        if (deepest > 1000) break;
      }
      return deepest;
    };
    const texts = pieces.flatMap((piece) => {
      const long = piece.repeat(Math.ceil(50_000 / piece.length));
      return [long, `${long}x`, `${long}\n${long}`, Array.from({ length: 2000 }, (_, i) => " ".repeat(i % 40) + piece).join("\n")];
    });
    texts.push(`${"*a ".repeat(20_000)}${"a* ".repeat(20_000)}`, `${"[".repeat(9000)}a${"](https://e.org)".repeat(9000)}`,
      `**${"a`b`".repeat(50_000)}**`, `${"|a".repeat(5000)}\n${"|-".repeat(5000)}\n${"|\n".repeat(5000)}`,
      Array.from({ length: 400 }, (_, i) => `${" ".repeat(2 * i)}- a`).join("\n"), Array.from({ length: 2000 }, (_, i) => "`".repeat(i % 300)).join("a"));
    return texts.map((text) => {
      const begun = performance.now();
      const markdown = new Markdown();
      markdown.show(text);
      return { text: text.slice(0, 20), ms: performance.now() - begun, depth: depth(markdown.node) };
    }).filter(({ ms, depth }) => ms > 1000 || depth > 100);
  }, hard);
  assert.deepEqual(found, []);
});
