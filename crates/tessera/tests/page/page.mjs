// The chat page in a real Chromium, as a person uses it: `node page.mjs BASE MODEL CHROMIUM PLAYWRIGHT [SHOTS]`.
//
// Answers come from the server at BASE where it is about streaming, and from here (`answers`) where the text must be
// known: hostile Markdown, thinking, errors. Every request to another origin is a failure, and so is every script error.

import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

const [base, model, executablePath, playwright, shots] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const origin = new URL(base).origin;

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const only = process.env.ONLY;
let passed = 0;

/** Runs `body` on a fresh profile; afterwards nothing may have gone wrong behind its back. */
async function test(name, body, { options = {}, expected = [] } = {}) {
  if (only && !name.includes(only)) return;
  const context = await browser.newContext({ viewport: { width: 1280, height: 820 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(60_000);
  const trouble = [];
  await context.route("**/*", (route) => {
    if (new URL(route.request().url()).origin === origin) return route.fallback();
    trouble.push(`request to ${route.request().url()}`);
    return route.abort();
  });
  context.on("console", (message) => {
    if (message.type() === "error" && !expected.some((e) => message.text().includes(e))) trouble.push(`console: ${message.text()}`);
  });
  context.on("weberror", (error) => trouble.push(`script: ${error.error().stack}`));
  const page = await context.newPage();
  try {
    await open(page);
    await body(page, context);
    assert.deepEqual(trouble, []);
    passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    if (shots) await page.screenshot({ path: `${shots}/failed.png` }).catch(() => {});
    console.log(`FAILED ${name}\n${error.stack}\n${trouble.join("\n")}`);
    process.exitCode = 1;
  }
  await context.close();
}

async function open(page) {
  await page.goto(base);
  await page.waitForSelector("[data-ready]");
}

const event = (chunk) => `data: ${JSON.stringify(chunk)}\n\n`;
const delta = (fields, finish_reason = null) => event({ object: "chat.completion.chunk", choices: [{ index: 0, delta: fields, finish_reason }] });
const usage = { prompt_tokens: 100, completion_tokens: 7, total_tokens: 107, prompt_tokens_details: { cached_tokens: 64 } };
const whole = (...deltas) => [...deltas.map((d) => delta(d)), delta({}, "stop"), event({ choices: [], usage }), "data: [DONE]\n\n"].join("");
const json = (status, error, headers = {}) => ({ status, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ error }) });

/** Chat completions are answered by `reply(request)`: a stream as text, or what playwright's `fulfill` takes. */
async function answers(page, reply) {
  const bodies = [];
  await page.route("**/v1/chat/completions", async (route) => {
    bodies.push(route.request().postDataJSON());
    const made = reply(route.request(), bodies.length);
    if (made === "abort") return route.abort("connectionrefused");
    await route.fulfill(typeof made === "string" ? { headers: { "content-type": "text/event-stream" }, body: made } : made);
  });
  return bodies;
}

async function say(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

/** Waits until the newest answer is no longer running. */
async function finished(page) {
  await page.waitForFunction(() => {
    const last = [...document.querySelectorAll(".message.assistant")].at(-1);
    return last?.getAttribute("aria-busy") === "false" && !document.querySelector("#send").hidden;
  });
}

const last = (page, part = "") => page.locator(".message.assistant").last().locator(part || ":scope");
const shown = async (page) => (await last(page, ".markdown").textContent()).trim();
const users = (page) => page.locator(".message.user .bubble").allTextContents();
const titles = (page) => page.locator("#conversations .title").allTextContents();

// ---- against the server itself

await test("a question is answered, with figures, and is there after a reload", async (page) => {
  assert.equal(await page.locator("#model").inputValue(), model);
  await page.click("#toggle-settings");
  await page.fill("#set-max_tokens", "24");
  await page.fill("#set-seed", "7");
  const request = page.waitForRequest("**/v1/chat/completions");
  await say(page, "Say something.");
  const body = (await request).postDataJSON();
  assert.deepEqual([body.stream, body.seed, body.max_completion_tokens, body.temperature], [true, 7, 24, undefined]);
  await finished(page);
  const text = await last(page, ".markdown").textContent();
  assert.ok(text.trim().length > 0);
  const figures = await last(page, ".figures").textContent();
  for (const part of [model, / tokens ·/, / tokens\/s/, /first after/, /[\d,]+ of [\d,]+ cached/]) assert.match(figures, new RegExp(part));
  assert.doesNotMatch(figures, /≈/);
  assert.equal(await page.locator(".note.bad").count(), 0);

  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await last(page, ".markdown").textContent(), text);
  assert.equal(await page.locator("#set-seed").inputValue(), "7");
  assert.deepEqual(await titles(page), ["Say something."]);
  // The second question brings the first along, which the server has in its cache.
  await say(page, "And something else.");
  await finished(page);
  assert.match(await last(page, ".figures").textContent(), /cached/);
});

await test("an answer appears while it is made, and Escape stops it", async (page) => {
  // A model of random weights says at temperature 0 the same for ever, and otherwise may end at once.
  await page.click("#toggle-settings");
  await page.fill("#set-temperature", "0");
  await say(page, "Tell me a very long story about everything.");
  await page.waitForFunction(() => document.querySelector(".message.assistant .markdown")?.textContent.length > 3);
  const early = (await last(page, ".markdown").textContent()).length;
  assert.equal(await last(page).getAttribute("aria-busy"), "true");
  assert.match(await last(page, ".figures").textContent(), /≈/);
  await page.waitForFunction((n) => document.querySelector(".message.assistant .markdown").textContent.length > n, early);
  await page.fill("#prompt", "typed meanwhile");
  await page.press("#prompt", "Enter");
  assert.equal(await page.locator("#prompt").inputValue(), "typed meanwhile", "Enter during an answer loses nothing");
  await page.keyboard.press("Escape");
  await finished(page);
  assert.match(await last(page, ".notes").textContent(), /Stopped/);
  const kept = await last(page, ".markdown").textContent();
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await last(page, ".markdown").textContent(), kept);
  assert.equal(await page.locator("#prompt").inputValue(), "typed meanwhile");
});

await test("what the server refuses is shown in its words", async (page) => {
  // A model that is not served: the page asks for what the conversation had.
  await answers(page, () => whole({ content: "hello" }));
  await say(page, "hi");
  await finished(page);
  await page.unroute("**/v1/chat/completions");
  await page.evaluate(() => document.querySelector("#model").append(new Option("no-such-model", "no-such-model")));
  await page.selectOption("#model", "no-such-model");
  await say(page, "and now?");
  await finished(page);
  const note = last(page, ".note.bad");
  assert.match(await note.textContent(), /no-such-model/);
  assert.equal(await note.locator("code").textContent(), "model");
}, { expected: ["404", "400"] });

// ---- what a person does

await test("Enter sends, Shift+Enter begins a line, drafts survive", async (page) => {
  const bodies = await answers(page, () => whole({ content: "yes" }));
  await page.locator("#prompt").pressSequentially("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  assert.equal(bodies.length, 0);
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await page.locator("#prompt").inputValue(), "one\ntwo");
  await page.press("#prompt", "Enter");
  await finished(page);
  assert.equal(bodies[0].messages[0].content, "one\ntwo");
  assert.equal(await page.locator("#prompt").inputValue(), "");
  // A draft belongs to its conversation.
  await page.fill("#prompt", "unfinished");
  await page.click("#new-chat");
  assert.equal(await page.locator("#prompt").inputValue(), "");
  await page.fill("#prompt", "other");
  await page.click("#conversations .title");
  assert.equal(await page.locator("#prompt").inputValue(), "unfinished");
  await page.goBack();
  assert.equal(await page.locator("#prompt").inputValue(), "other");
  // Nothing but blanks is no message.
  await say(page, "   ");
  assert.equal(bodies.length, 1);
});

await test("another answer, an edit, a deletion: all can be taken back", async (page) => {
  const bodies = await answers(page, (_, n) => whole({ content: `answer ${n}` }));
  await say(page, "first");
  await finished(page);
  await last(page, "[aria-label='Answer again']").click();
  await finished(page);
  assert.equal(await shown(page), "answer 2");
  assert.equal(await last(page, ".count").textContent(), "2/2");
  assert.deepEqual(bodies[1].messages, bodies[0].messages);
  await last(page, "[aria-label^='Earlier']").click();
  assert.equal(await shown(page), "answer 1");

  await page.click("[aria-label='Edit and send again']");
  await page.fill(".editor textarea", "second");
  await page.press(".editor textarea", "Enter");
  await finished(page);
  assert.deepEqual(await users(page), ["second"]);
  assert.deepEqual(bodies[2].messages, [{ role: "user", content: "second" }]);
  await page.locator(".message.user [aria-label^='Earlier']").click();
  assert.deepEqual([await users(page), await shown(page)], [["first"], "answer 1"]);

  // An edit that was begun survives a reload.
  await page.click("[aria-label='Edit and send again']");
  await page.fill(".editor textarea", "half an edi");
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await page.locator(".editor textarea").inputValue(), "half an edi");
  await page.click(".editor >> text=Cancel");

  await page.click("[aria-label='Delete this message and what follows']");
  assert.deepEqual(await users(page), ["second"]);
  await page.click("text=Undo");
  await page.locator(".message.user [aria-label^='Earlier']").waitFor();
  assert.equal(await page.locator(".message.user .count").textContent(), "1/2");
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await page.locator(".message.user .count").textContent(), "1/2");
});

await test("settings are sent as typed, or stop the sending", async (page) => {
  const bodies = await answers(page, () => whole({ content: "ok" }));
  await page.click("#toggle-settings");
  const values = { system: "Be brief.", temperature: "0.5", top_p: "0.9", top_k: "40", max_tokens: "100", seed: "12", stop: "END\n\\n\\n", schema: '{"type":"object"}' };
  for (const [name, value] of Object.entries(values)) await page.fill(`#set-${name}`, value);
  await say(page, "go");
  await finished(page);
  const { messages, ...fields } = bodies[0];
  assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "go" }]);
  assert.deepEqual(fields, {
    model, temperature: 0.5, top_p: 0.9, top_k: 40, max_completion_tokens: 100, seed: 12, stop: ["END", "\n\n"],
    response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema: { type: "object" } } },
    stream: true, stream_options: { include_usage: true },
  });
  for (const [name, bad] of [["temperature", "9"], ["temperature", "warm"], ["seed", "1.5"], ["seed", "9007199254740993"], ["schema", "{"]]) {
    await page.fill(`#set-${name}`, bad);
    await say(page, "not sent");
    assert.equal(await page.locator(`#set-${name}`).getAttribute("aria-invalid"), "true", `${name} ${bad}`);
    assert.equal(await page.locator("#prompt").inputValue(), "not sent");
    await page.fill(`#set-${name}`, "");
  }
  assert.equal(bodies.length, 1);
});

await test("errors: refused with a field, cut off, unreachable, in the middle", async (page) => {
  const replies = [
    json(400, { message: "top_k is 5, this server wants none", type: "invalid_request_error", param: "top_k", code: null }),
    delta({ content: "half an ans" }),
    "abort",
    delta({ content: "part" }) + event({ error: { message: "the engine failed", type: "server_error", param: null } }),
    json(429, { message: "too many requests", param: null }, { "retry-after": "3" }),
    { status: 502, headers: { "content-type": "text/html" }, body: "<h1>Bad gateway</h1>" },
  ];
  const bodies = await answers(page, (_, n) => replies[n - 1]);
  await say(page, "question");
  await finished(page);
  assert.match(await last(page, ".note.bad").textContent(), /top_k is 5, this server wants none.*Field: top_k/);
  await page.click("text=Show the setting");
  assert.match(await page.locator("#set-top_k-error").textContent(), /wants none/);
  // A try that failed without a word leaves nothing behind.
  const again = async () => {
    await page.click("text=Try again");
    await finished(page);
  };
  await again();
  assert.equal(await page.locator(".message.assistant .count").count(), 0);
  assert.equal(await shown(page), "half an ans");
  assert.match(await last(page, ".note.bad").textContent(), /ended before the answer was complete/);
  await again();
  assert.equal(await last(page, ".count").textContent(), "2/2");
  assert.match(await last(page, ".note.bad").textContent(), /cannot be reached/);
  await again();
  assert.match(await last(page, ".note.bad").textContent(), /the engine failed/);
  assert.equal(await shown(page), "part");
  await again();
  assert.match(await last(page, ".note.bad").textContent(), /too many requests.*wait 3 s/);
  await again();
  assert.match(await last(page, ".note.bad").textContent(), /502.*Bad gateway/);
  assert.equal(bodies.length, 6);
  assert.deepEqual(await users(page), ["question"]);
}, { expected: ["400", "429", "502", "ERR_CONNECTION_REFUSED"] });

await test("hostile Markdown is text, and asks nothing of anyone", async (page, context) => {
  const hostile = [
    "<script>window.pwned = 1</script>", "<img src=x onerror='window.pwned = 2'>", "<svg onload='window.pwned = 3'>", "inline <b onclick='window.pwned = 4'>bold</b> html",
    "<iframe src='https://evil.example/'></iframe>", "<style>body { display: none }</style>", "<form action='https://evil.example/'><input name=q></form>",
    "![picture](https://evil.example/track.png)", "[click](javascript:window.pwned=5)", "[data](data:text/html,<script>window.pwned=6</script>)",
    "[good](https://good.example/path)", "<https://auto.example/>", "[![nested](https://evil.example/n.png)](javascript:window.pwned=7)",
    "```html\n<script>window.pwned = 8</script>\n```", "```\" onmouseover=\"window.pwned=9\nx\n```", "[ref]\n\n[ref]: vbscript:x",
    "| a | b |\n| --- | ---: |\n| <img src=x onerror=alert(1)> | 2 |", "- [x] done\n- [ ] open", "**bold** and `code <b>`",
  ].join("\n\n");
  await answers(page, () => whole({ content: hostile }));
  await say(page, "<img src=x onerror='window.pwned = 10'>");
  await finished(page);
  const body = last(page, ".markdown");
  for (const tag of ["script", "img", "svg:not(button svg)", "iframe", "style", "form", "input", "b", "object", "base", "link", "meta"]) {
    assert.equal(await body.locator(tag).count(), 0, tag);
  }
  assert.equal(await page.locator(".bubble img").count(), 0);
  const links = await body.locator("a").evaluateAll((all) => all.map((a) => [a.getAttribute("href"), a.target, a.rel, a.textContent]));
  const href = links.filter(([address]) => address !== null).map(([address]) => address);
  assert.deepEqual(href, ["https://evil.example/track.png", "https://good.example/path", "https://auto.example/"].concat(href.filter((h) => h.endsWith("n.png"))));
  for (const [address, target, rel] of links) if (address) assert.deepEqual([target, rel], ["_blank", "noopener noreferrer nofollow"]);
  const attributes = await body.evaluate((node) => [...node.querySelectorAll("*")].flatMap((n) => n.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style"));
  assert.deepEqual(attributes, []);
  assert.match(await body.textContent(), /<script>window\.pwned = 1<\/script>/);
  assert.equal(await body.locator("td[align=right]").count(), 1);
  assert.equal(await body.locator("strong").textContent(), "bold");
  await body.locator(".code").first().hover();
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.equal(context.pages().length, 1);
  // And again from the store.
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await page.evaluate(() => window.pwned), undefined);
});

await test("Markdown that nobody can read in time is shown as it is", async (page) => {
  const hard = { nested: "> ".repeat(20_000), emphasis: "a*_".repeat(20_000), list: "1. ".repeat(10_000), lines: "*a**b_c\n".repeat(2_000), line: "a.".repeat(30_000) + "@" };
  for (const text of Object.values(hard)) {
    const half = text.length / 2;
    await answers(page, () => whole({ content: text.slice(0, half) }, { content: text.slice(half) }));
    await page.click("#new-chat");
    await say(page, "be hard");
    await page.waitForFunction((n) => document.querySelector(".assistant[aria-busy=false] .plain")?.textContent.length === n, text.length, { timeout: 20_000 });
    assert.match(await last(page, ".markdown .note").textContent(), /plain text/);
  }
  // Much of what is easy is no reason: long code, a long table, a long list.
  const easy = `\`\`\`text\n${"a*_b\n".repeat(3_000)}\`\`\`\n\n${"| a | b |\n".repeat(2)}\n\n${"- an item\n".repeat(400)}`;
  await answers(page, () => whole({ content: easy }));
  await page.click("#new-chat");
  await say(page, "be easy");
  await finished(page);
  assert.equal(await last(page, ".plain").count(), 0);
  assert.equal(await last(page, "li").count(), 400);
});

await test("an answer that was cut goes on in place", async (page) => {
  const cut = [delta({ content: "One, two," }), delta({}, "length"), event({ choices: [], usage }), "data: [DONE]\n\n"].join("");
  const bodies = await answers(page, (_, n) => [cut, json(400, { message: "no such field here", param: "continue_final_message" }), whole({ content: " three." })][n - 1]);
  await say(page, "count");
  await finished(page);
  assert.match(await last(page, ".notes").textContent(), /longest answer/);
  await page.click("text=Go on");
  await finished(page);
  assert.equal(await shown(page), "One, two,");
  assert.match(await last(page, ".note.bad").textContent(), /no such field here/);
  await page.click("text=Go on");
  await finished(page);
  assert.equal(await shown(page), "One, two, three.");
  assert.equal(await page.locator(".count").count(), 0);
  const { messages, continue_final_message, add_generation_prompt } = bodies[2];
  assert.deepEqual([messages.at(-1), continue_final_message, add_generation_prompt], [{ role: "assistant", content: "One, two," }, true, false]);
}, { expected: ["400"] });

await test("code is highlighted and copied as it is", async (page, context) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin });
  const code = 'fn main() {\n    println!("<b>");\n}';
  await answers(page, () => whole(...`Look:\n\n\`\`\`rust\n${code}\n\`\`\`\n\nDone.`.match(/[^]{1,5}/g).map((content) => ({ content }))));
  await say(page, "code");
  await finished(page);
  assert.equal(await last(page, ".hljs-keyword").first().textContent(), "fn");
  assert.equal(await last(page, ".code-head span").textContent(), "rust");
  await last(page, "[aria-label='Copy the code']").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);
  await last(page, "[aria-label='Copy this answer']").click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^Look:\n\n```rust/);
});

await test("thinking folds away", async (page) => {
  await answers(page, () => whole({ reasoning_content: "Let me <i>see</i>." }, { content: "Four." }));
  await say(page, "2 + 2");
  await finished(page);
  const details = last(page, "details.thought");
  assert.equal(await details.getAttribute("open"), null);
  assert.match(await details.locator("summary").textContent(), /^Thought/);
  await details.locator("summary").click();
  assert.equal(await details.locator(".thought-text").textContent(), "Let me <i>see</i>.");
  assert.match(await last(page, ".figures").textContent(), /7 tokens .*64 of 100 cached/);
});

await test("a key is asked for, kept only as wished", async (page) => {
  const keys = [];
  await answers(page, (request) => {
    keys.push(request.headers().authorization);
    return keys.at(-1) === "Bearer secret" ? whole({ content: "welcome" }) : json(401, { message: "this server wants a key", param: null, code: "invalid_api_key" });
  });
  await say(page, "let me in");
  await page.waitForSelector("#key-dialog[open]");
  assert.match(await page.locator("#key-why").textContent(), /wants a key/);
  await page.fill("#key", "secret");
  await page.press("#key", "Enter");
  await page.waitForFunction(() => document.querySelector(".message.assistant .markdown")?.textContent.trim() === "welcome");
  assert.deepEqual(keys, [undefined, "Bearer secret"]);
  assert.equal(await page.locator(".message.assistant .count").count(), 0);
  const kept = () => page.evaluate(() => [localStorage.getItem("tessera.key"), sessionStorage.getItem("tessera.key")]);
  assert.deepEqual(await kept(), [null, "secret"]);
}, { expected: ["401"] });

await test("conversations: rename, search, export, import, delete, another tab", async (page, context) => {
  await answers(page, (_, n) => whole({ content: `reply ${n}` }));
  for (const text of ["about apples", "about pears"]) {
    await page.click("#new-chat");
    await say(page, text);
    await finished(page);
  }
  assert.deepEqual(await titles(page), ["about pears", "about apples"]);
  const other = await context.newPage();
  await open(other);
  assert.deepEqual(await titles(other), ["about pears", "about apples"]);
  await page.click("[aria-label='Rename “about pears”']");
  await page.fill("#conversations input", "Fruit");
  await page.keyboard.press("Enter");
  await other.waitForFunction(() => document.querySelector("#conversations .title").textContent === "Fruit");
  await other.close();
  await page.fill("#search", "FRU");
  assert.deepEqual(await titles(page), ["Fruit"]);
  await page.fill("#search", "");

  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const path = await download.path();
  const file = JSON.parse(await readFile(path, "utf8"));
  assert.equal(file.conversations.length, 2);
  assert.deepEqual(file.conversations.flatMap((c) => c.messages.map((m) => m.content)).sort(), ["about apples", "about pears", "reply 1", "reply 2"]);

  await page.locator("#conversations li", { hasText: "Fruit" }).hover();
  await page.click("[aria-label='Delete “Fruit”']");
  assert.deepEqual(await titles(page), ["about apples"]);
  await page.click("text=Undo");
  await page.waitForFunction(() => document.querySelectorAll("#conversations .title").length === 2);

  const give = (name, text) => page.setInputFiles("#import-file", { name, mimeType: "application/json", buffer: Buffer.from(text) });
  await give("again.json", JSON.stringify(file));
  await page.waitForFunction(() => document.querySelectorAll("#conversations .title").length === 4);
  assert.equal((await users(page)).length, 1);
  assert.match(await last(page, ".markdown").textContent(), /reply/);
  // A file that is not ours, or is broken, is refused with the place.
  const circle = structuredClone(file);
  circle.conversations[0].messages[0].parent = circle.conversations[0].messages[1].id;
  for (const [text, words] of [["{", /no JSON/], ["[]", /"format"/], [JSON.stringify({ ...file, version: 9 }), /version/], [JSON.stringify(circle), /messages\[0\]\.parent/]]) {
    await give("bad.json", text);
    await page.locator(".toast.bad").last().waitFor();
    assert.match(await page.locator(".toast.bad").last().textContent(), words);
    await page.locator(".toast.bad [aria-label=Dismiss]").last().click();
  }
  assert.equal((await titles(page)).length, 4);
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal((await titles(page)).length, 4);
});

await test("an answer goes on while another conversation is read", async (page) => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await page.route("**/v1/chat/completions", async (route) => {
    await held;
    await route.fulfill({ headers: { "content-type": "text/event-stream" }, body: whole({ content: "late" }) });
  });
  await say(page, "slow one");
  await page.click("#new-chat");
  assert.equal(await page.locator("#send").isVisible(), true);
  assert.equal(await page.locator("#conversations .dot").count(), 1);
  release();
  await page.waitForFunction(() => !document.querySelector("#conversations .dot"));
  assert.equal(await page.locator(".message").count(), 0);
  await page.click("#conversations .title");
  assert.equal(await shown(page), "late");
});

await test("colours follow the system, or the button", async (page) => {
  const dark = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await dark();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await dark(), light);
  await page.click("#theme"); // light
  assert.equal(await dark(), light);
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.equal(await dark(), light);
});

await test("on a phone everything fits and can be reached", async (page) => {
  await answers(page, () => whole({ content: `# Long\n\n${"word".repeat(80)}\n\n\`\`\`text\n${"x ".repeat(200)}\n\`\`\`\n\n| ${"a | ".repeat(20)}\n| ${"--- | ".repeat(20)}\n| ${"value | ".repeat(20)}` }));
  await say(page, "https://example.org/" + "long".repeat(60));
  await finished(page);
  const fits = async () => assert.ok((await page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.querySelector("#scroll").scrollWidth))) <= 360);
  await fits();
  await page.tap("#toggle-sidebar");
  assert.ok(await page.locator("#conversations .title").isVisible());
  await page.tap("#close-sidebar");
  assert.ok(!(await page.locator("#sidebar").isVisible()));
  await page.tap("#toggle-settings");
  assert.ok(await page.locator("#set-system").isVisible());
  await fits();
  await page.tap("#close-settings");
  assert.ok(await page.locator("#prompt").isVisible());
}, { options: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } });

await test("every control has a name and can be reached by keyboard", async (page) => {
  await answers(page, () => whole({ reasoning_content: "hm", content: "`a`\n\n```js\n1\n```" }));
  await say(page, "hello");
  await finished(page);
  await page.click("#toggle-settings");
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input:not([hidden]), select, textarea")]
    .filter((node) => !(node.getAttribute("aria-label") || node.labels?.[0]?.textContent.trim() || node.textContent.trim()))
    .map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((n) => n.id));
  assert.equal(new Set(ids).size, ids.length);
  await page.locator("#prompt").focus();
  await page.keyboard.press("ArrowUp");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Edit the message");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".editor").count(), 0);
  assert.match(await page.locator("#status").textContent(), /Answer complete/);
});

await test("without a database the page says so and works", async (page, context) => {
  await context.addInitScript(() => {
    IDBFactory.prototype.open = () => {
      throw new DOMException("closed", "SecurityError");
    };
  });
  await page.reload();
  await page.waitForSelector("[data-ready]");
  assert.match(await page.locator("#banner").textContent(), /does not let the page keep anything/);
  await answers(page, () => whole({ content: "still here" }));
  await say(page, "hello");
  await finished(page);
  assert.equal(await shown(page), "still here");
});

await browser.close();
console.log(process.exitCode ? `${passed} passed, others failed` : "\nall passed");
