// OpenAI's JavaScript client on a page of another origin, in a real Chromium:
// `node sdk.mjs BASE MODEL CHROMIUM PLAYWRIGHT PORT SDK`.
//
// The page and the client's own modules come from http://localhost:PORT, which the server was told of, and then from
// another port, which it was not. Nothing is intercepted: Playwright would answer the browser's preflights itself.

import { createRequire } from "node:module";
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, normalize } from "node:path";

const [base, model, executablePath, playwright, port, sdk] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-features=LocalNetworkAccessChecks"],
});

/** Serves the page and the client on a port; 0 takes a free one. */
async function serve(port) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    if (path === "/") return response.setHeader("content-type", "text/html").end("<!doctype html><title>app</title>");
    const body = await readFile(join(sdk, path)).catch(() => null);
    response.statusCode = body === null ? 404 : 200;
    response.setHeader("content-type", "text/javascript").end(body ?? "");
  });
  await new Promise((resolve) => server.listen(port, "localhost", resolve));
  return server;
}

async function ask(port) {
  const server = await serve(port);
  const context = await browser.newContext();
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  const said = await page.evaluate(async ({ base, model }) => {
    const { default: OpenAI } = await import("/index.mjs");
    const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "secret", dangerouslyAllowBrowser: true, maxRetries: 0 });
    const request = { model, messages: [{ role: "user", content: "Hi" }], max_completion_tokens: 4, temperature: 0 };
    try {
      const whole = await client.chat.completions.create(request);
      let text = "";
      for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
        text += chunk.choices[0]?.delta?.content ?? "";
      }
      const models = [];
      for await (const one of client.models.list()) models.push(one.id);
      const refused = await client.chat.completions.create({ ...request, n: 0 }).catch((error) => error);
      return { whole: whole.choices[0].message.content, text, models, status: refused.status, param: refused.param, id: refused.requestID };
    } catch (error) {
      return { error: `${error.name}: ${error.message}; ${error.cause ?? ""}` };
    }
  }, { base, model });
  await context.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  return said;
}

const said = await ask(Number(port));
assert.equal(said.error, undefined);
assert.equal(said.text, said.whole);
assert.deepEqual(said.models, [model]);
assert.deepEqual([said.status, said.param], [400, "n"]);
assert.match(said.id, /^req_/);

const other = await ask(0);
assert.match(other.error ?? "it was answered", /Connection error/);

await browser.close();
console.log("\nall passed");
