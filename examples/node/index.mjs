// In Node, on the CPU: `node index.mjs FOLDER`. Without a folder the model is fetched, and not kept.
import { CreateMLCEngine, folder } from "tessera-web";

const path = process.argv[2];
const engine = path
  ? await CreateMLCEngine("mine", { appConfig: { model_list: [{ model_id: "mine", model: folder(path) }] } })
  : await CreateMLCEngine("Qwen2.5-0.5B-Instruct-q4f16_1-MLC");
const messages = [{ role: "user", content: "Why is the sky blue? Two sentences." }];
for await (const { choices } of await engine.chat.completions.create({ messages, max_tokens: 200, stream: true })) {
  process.stdout.write(choices[0].delta.content ?? "");
}
process.stdout.write("\n");
