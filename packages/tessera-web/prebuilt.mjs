// `node prebuilt.mjs WEB_LLM` writes src/prebuilt.ts: names and addresses of the models that WebLLM lists, out of its package.

import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";

const folder = resolve(process.argv[2] ?? "node_modules/@mlc-ai/web-llm");
const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
const { prebuiltAppConfig, functionCallingModelIds, modelVersion, modelLibURLPrefix } = await import(join(folder, "lib/index.js"));

const KNOWN = ["model", "model_id", "model_lib", "vram_required_MB", "low_resource_required", "overrides", "required_features",
  "buffer_size_required_bytes", "model_type", "model_manifest"];
const KNOWN_OVERRIDES = ["context_window_size", "sliding_window_size", "max_history_size"];
const lines = prebuiltAppConfig.model_list.map((record) => {
  const overrides = record.overrides ?? {};
  for (const [name] of [...Object.entries(record)].filter(([name]) => !KNOWN.includes(name))) throw new Error(`a new field: ${name}`);
  for (const name of Object.keys(overrides)) if (!KNOWN_OVERRIDES.includes(name)) throw new Error(`a new override: ${name}`);
  const { model, model_id, vram_required_MB: vram, low_resource_required: low, model_type: type } = record;
  const name = model.replace("https://huggingface.co/mlc-ai/", "");
  if (!model_id.startsWith(name)) throw new Error(`another address: ${model}`);
  const rest = model_id.slice(name.length);
  return [name, rest || "-", vram ?? "-", low === undefined ? "-" : Number(low), 
    `${overrides.context_window_size ?? "-"}${overrides.sliding_window_size === -1 ? "!" : ""}`, type ?? "-"].join(" ");
});
await writeFile(new URL("src/prebuilt.ts", import.meta.url), `// Made by prebuilt.mjs of @mlc-ai/web-llm ${version}: the models that it lists. Libraries and features of a GPU are left out,
// as none is needed here.

import type { AppConfig, ModelRecord } from "./types.js";

export const modelVersion = ${JSON.stringify(modelVersion)};
export const modelLibURLPrefix = ${JSON.stringify(modelLibURLPrefix)};
/** The models whose tools WebLLM knows. Here every model has tools whose template knows them. */
export const functionCallingModelIds: string[] = ${JSON.stringify(functionCallingModelIds, null, 2).replace(/"\n\]/, '",\n]')};

/** Repository, what the model's id has more, MB of a GPU's memory, whether for small devices, context (\`!\`: in place of a window), type. */
const MODELS = \`
${lines.join("\n")}
\`;

/** WebLLM's models, for engines whose config has no list. */
export const prebuiltAppConfig: AppConfig = {
  model_list: MODELS.trim().split("\\n").map((line): ModelRecord => {
    const [name, rest, memory, small, context, type] = line.split(" ") as [string, string, string, string, string, string];
    return {
      model: \`https://huggingface.co/mlc-ai/\${name}\`,
      model_id: rest === "-" ? name : name + rest,
      ...(memory !== "-" && { vram_required_MB: Number(memory) }),
      ...(small !== "-" && { low_resource_required: small === "1" }),
      ...(type !== "-" && { model_type: Number(type) }),
      ...(context !== "-" && {
        overrides: { context_window_size: parseInt(context), ...(context.endsWith("!") && { sliding_window_size: -1 }) },
      }),
    };
  }),
};
`);
