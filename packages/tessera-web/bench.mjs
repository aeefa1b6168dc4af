// Loads a folder and answers one question with the built package in node, on one thread: seconds to load, tokens a second.
// One run; other work on the machine shows in it.
//
//   scripts/build-web && node packages/tessera-web/bench.mjs FOLDER

import { CreateMLCEngine, folder } from "./dist/node.js";

const [path] = process.argv.slice(2);
if (!path) throw new Error("usage: node bench.mjs FOLDER");
const begun = performance.now();
const engine = await CreateMLCEngine("model", {
  logLevel: "SILENT",
  appConfig: { model_list: [{ model_id: "model", model: folder(path) }] },
});
const { device, memory } = engine.describe();
console.log(`${device}\n${memory}\nload ${((performance.now() - begun) / 1e3).toFixed(2)} s`);
const answer = await engine.chat.completions.create({
  messages: [{ role: "user", content: "What is the capital of France?" }],
  max_tokens: 64,
  temperature: 0,
  ignore_eos: true,
});
const { prompt_tokens, completion_tokens, extra } = answer.usage;
console.log(`prompt ${prompt_tokens} tokens, ${extra.prefill_tokens_per_s.toFixed(1)} tokens/s`);
console.log(`answer ${completion_tokens} tokens, ${extra.decode_tokens_per_s.toFixed(1)} tokens/s`);
console.log(`wasm memory ${((await engine.memory()) / 1e6).toFixed(0)} MB`);
console.log(answer.choices[0].message.content);
