// Node, Deno and Bun give one answer.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

const { TESSERA_GOLDEN: golden, TESSERA_PACKED: packed } = process.env;
assert.ok(golden && packed, "TESSERA_GOLDEN names the golden folder, TESSERA_PACKED the package");
const run = promisify(execFile);
const SCRIPT = `import { CreateMLCEngine, folder } from "tessera-web";
const model_list = [{ model_id: "tiny", model: folder(${JSON.stringify(golden)}), overrides: { context_window_size: 512 } }];
const engine = await CreateMLCEngine("tiny", { appConfig: { model_list } });
const answer = await engine.chat.completions.create({ messages: [{ role: "user", content: "Hi" }], max_tokens: 12, temperature: 0 });
console.log(JSON.stringify(answer.choices[0].message.content));
await engine.unload();
`;

test("Node, Deno and Bun give one answer", async () => {
  const project = await mkdtemp(join(tmpdir(), "tessera-runtimes-"));
  const options = { cwd: project, env: { ...process.env, NO_COLOR: "1" } };
  await writeFile(join(project, "answer.mjs"), SCRIPT);
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "runtimes", private: true, type: "module" }));
  await run("npm", ["install", "--no-audit", "--no-fund", "--silent", packed, "deno@2.9.6", "bun@1.4.5"], options);
  const answers = {};
  for (const [name, command, ...args] of [
    ["node", process.execPath], ["deno", "node_modules/.bin/deno", "run", "--quiet", "--allow-read", "--allow-env"], ["bun", "node_modules/.bin/bun"],
  ]) {
    answers[name] = (await run(command, [...args, "answer.mjs"], options)).stdout.trim();
  }
  assert.match(answers.node, /^".+"$/);
  assert.deepEqual(answers, { node: answers.node, deno: answers.node, bun: answers.node });
});
