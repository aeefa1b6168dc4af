// Takes docs/page.png: `node picture.mjs BASE CHROMIUM PLAYWRIGHT OUT`, where `tessera serve smollm2` of a release build
// answers at BASE and nothing else runs, since the picture shows a speed.

import { createRequire } from "node:module";

const [base, executablePath, playwright, path] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--headless", "--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ viewport: { width: 1200, height: 780 }, colorScheme: "light" });
const page = await context.newPage();
page.setDefaultTimeout(120_000);
await page.goto(base);
await page.waitForSelector("[data-ready]");
await page.click("#toggle-settings");
await page.fill("#set-max_tokens", "160");
await page.fill("#set-temperature", "0");
await page.click("#toggle-settings");

/** Sends a text and waits until the answer's figures are those that the server counted. */
async function ask(text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
  await page.waitForTimeout(800);
  await page.waitForFunction(() =>
    [...document.querySelectorAll("body *")].some((e) => !e.children.length && /^[^≈]*tokens\/s/.test(e.textContent)));
}

await ask("Give me three names for a cat.");
await page.click("text=New chat");
await ask("Write a short Python function that reverses the words of a line.");
await page.waitForTimeout(500);
await page.screenshot({ path });
await browser.close();
