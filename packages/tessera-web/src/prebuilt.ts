// Made by prebuilt.mjs of @mlc-ai/web-llm 0.2.86: the models that it lists. Libraries and features of a GPU are left out,
// as none is needed here.

import type { AppConfig, ModelRecord } from "./types.js";

export const modelVersion = "v0_2_86/base";
export const modelLibURLPrefix = "https://raw.githubusercontent.com/mlc-ai/binary-mlc-llm-libs/main/web-llm-models/";
/** The models whose tools WebLLM knows. Here every model has tools whose template knows them. */
export const functionCallingModelIds: string[] = [
  "Hermes-2-Pro-Llama-3-8B-q4f16_1-MLC",
  "Hermes-2-Pro-Llama-3-8B-q4f32_1-MLC",
  "Hermes-2-Pro-Mistral-7B-q4f16_1-MLC",
  "Hermes-3-Llama-3.1-8B-q4f32_1-MLC",
  "Hermes-3-Llama-3.1-8B-q4f16_1-MLC",
];

/** Repository, what the model's id has more, MB of a GPU's memory, whether for small devices, context (`!`: in place of a window), type. */
const MODELS = `
Llama-3.2-1B-Instruct-q4f32_1-MLC - 1128.82 1 4096 -
Llama-3.2-1B-Instruct-q4f16_1-MLC - 879.04 1 4096 -
Llama-3.2-1B-Instruct-q0f32-MLC - 5106.26 1 4096 -
Llama-3.2-1B-Instruct-q0f16-MLC - 2573.13 1 4096 -
Llama-3.2-3B-Instruct-q4f32_1-MLC - 2951.51 1 4096 -
Llama-3.2-3B-Instruct-q4f16_1-MLC - 2263.69 1 4096 -
Llama-3.1-8B-Instruct-q4f32_1-MLC -1k 5295.7 1 1024 -
Llama-3.1-8B-Instruct-q4f16_1-MLC -1k 4598.34 1 1024 -
Llama-3.1-8B-Instruct-q4f32_1-MLC - 6101.01 0 4096 -
Llama-3.1-8B-Instruct-q4f16_1-MLC - 5001 0 4096 -
DeepSeek-R1-Distill-Qwen-7B-q4f16_1-MLC - 5106.67 0 4096 -
DeepSeek-R1-Distill-Qwen-7B-q4f32_1-MLC - 5900.09 0 4096 -
DeepSeek-R1-Distill-Llama-8B-q4f32_1-MLC - 6101.01 0 4096 -
DeepSeek-R1-Distill-Llama-8B-q4f16_1-MLC - 5001 0 4096 -
Hermes-2-Theta-Llama-3-8B-q4f16_1-MLC - 4976.13 0 4096 -
Hermes-2-Theta-Llama-3-8B-q4f32_1-MLC - 6051.27 0 4096 -
Hermes-2-Pro-Llama-3-8B-q4f16_1-MLC - 4976.13 0 4096 -
Hermes-2-Pro-Llama-3-8B-q4f32_1-MLC - 6051.27 0 4096 -
Hermes-3-Llama-3.2-3B-q4f32_1-MLC - 2951.51 1 4096 -
Hermes-3-Llama-3.2-3B-q4f16_1-MLC - 2263.69 1 4096 -
Hermes-3-Llama-3.1-8B-q4f32_1-MLC - 5779.27 0 4096 -
Hermes-3-Llama-3.1-8B-q4f16_1-MLC - 4876.13 0 4096 -
Hermes-2-Pro-Mistral-7B-q4f16_1-MLC - 4033.28 0 4096! -
Phi-3.5-mini-instruct-q4f16_1-MLC - 3672.07 0 4096 -
Phi-3.5-mini-instruct-q4f32_1-MLC - 5483.12 0 4096 -
Phi-3.5-mini-instruct-q4f16_1-MLC -1k 2520.07 1 1024 -
Phi-3.5-mini-instruct-q4f32_1-MLC -1k 3179.12 1 1024 -
Phi-3.5-vision-instruct-q4f16_1-MLC - 4521.54 0 4096 2
Phi-3.5-vision-instruct-q4f32_1-MLC - 7050.65 0 4096 2
Phi-4-mini-instruct-q4f16_1-MLC - 3437.58 0 4096 -
Phi-4-mini-instruct-q4f32_1-MLC - 4220.59 0 4096 -
Mistral-7B-Instruct-v0.3-q4f16_1-MLC - 4573.39 0 4096! -
Mistral-7B-Instruct-v0.3-q4f32_1-MLC - 5619.27 0 4096! -
Mistral-7B-Instruct-v0.2-q4f16_1-MLC - 4573.39 0 4096! -
OpenHermes-2.5-Mistral-7B-q4f16_1-MLC - 4573.39 0 4096! -
NeuralHermes-2.5-Mistral-7B-q4f16_1-MLC - 4573.39 0 4096! -
WizardMath-7B-V1.1-q4f16_1-MLC - 4573.39 0 4096! -
SmolLM2-1.7B-Instruct-q4f16_1-MLC - 1774.19 1 4096 -
SmolLM2-1.7B-Instruct-q4f32_1-MLC - 2692.38 1 4096 -
SmolLM2-360M-Instruct-q0f16-MLC - 871.99 1 4096 -
SmolLM2-360M-Instruct-q0f32-MLC - 1743.99 1 4096 -
SmolLM2-360M-Instruct-q4f16_1-MLC - 376.06 1 4096 -
SmolLM2-360M-Instruct-q4f32_1-MLC - 579.61 1 4096 -
SmolLM2-135M-Instruct-q0f16-MLC - 359.69 1 4096 -
SmolLM2-135M-Instruct-q0f32-MLC - 719.38 1 4096 -
gemma-4-E2B-it-q4f16_1-MLC - 3387.37 0 4096 -
gemma-4-E2B-it-q4f32_1-MLC - 3862.72 0 4096 -
gemma-2-2b-it-q4f16_1-MLC - 1895.3 0 4096 -
gemma-2-2b-it-q4f32_1-MLC - 2508.75 0 4096 -
gemma-2-2b-it-q4f16_1-MLC -1k 1583.3 1 1024 -
gemma-2-2b-it-q4f32_1-MLC -1k 1884.75 1 1024 -
gemma-2-9b-it-q4f16_1-MLC - 6422.01 0 4096 -
gemma-2-9b-it-q4f32_1-MLC - 8383.33 0 4096 -
gemma-2-2b-jpn-it-q4f16_1-MLC - 1895.3 1 4096 -
gemma-2-2b-jpn-it-q4f32_1-MLC - 2508.75 1 4096 -
gemma3-1b-it-q4f16_1-MLC - 711.07 1 4096 -
OLMo-2-1124-7B-Instruct-q4f16_1-MLC - 6479.01 0 4096 -
OLMo-2-1124-7B-Instruct-q4f32_1-MLC - 9086.02 0 4096 -
OLMo-2-0425-1B-Instruct-q4f16_1-MLC - 1776.75 1 4096 -
OLMo-2-0425-1B-Instruct-q4f32_1-MLC - 2453.51 1 4096 -
Qwen3-0.6B-q4f16_1-MLC - 1403.34 1 4096 -
Qwen3-0.6B-q4f32_1-MLC - 1924.98 1 4096 -
Qwen3-0.6B-q0f16-MLC - 2220.38 1 4096 -
Qwen3-0.6B-q0f32-MLC - 3843.25 1 4096 -
Qwen3-1.7B-q4f16_1-MLC - 2036.66 1 4096 -
Qwen3-1.7B-q4f32_1-MLC - 2635.44 1 4096 -
Qwen3-4B-q4f16_1-MLC - 3431.59 1 4096 -
Qwen3-4B-q4f32_1-MLC - 4327.71 1 4096 -
Qwen3-8B-q4f16_1-MLC - 5695.78 0 4096 -
Qwen3-8B-q4f32_1-MLC - 6852.55 0 4096 -
Qwen3.5-0.8B-q4f16_1-MLC - 1629.49 1 4096 -
Qwen3.5-0.8B-q4f32_1-MLC - 1894.19 1 4096 -
Qwen3.5-0.8B-q0f16-MLC - 2660.27 1 4096 -
Qwen3.5-2B-q4f16_1-MLC - 2245.44 0 4096 -
Qwen3.5-2B-q4f32_1-MLC - 2591.55 0 4096 -
Qwen3.5-4B-q4f16_1-MLC - 3867.82 0 4096 -
Qwen3.5-4B-q4f32_1-MLC - 4680.36 0 4096 -
Qwen3.5-9B-q4f16_1-MLC - 6433.01 0 4096 -
Qwen3.5-9B-q4f32_1-MLC - 7544.74 0 4096 -
Qwen2.5-0.5B-Instruct-q4f16_1-MLC - 944.62 1 4096 -
Qwen2.5-0.5B-Instruct-q4f32_1-MLC - 1060.2 1 4096 -
Qwen2.5-0.5B-Instruct-q0f16-MLC - 1624.12 1 4096 -
Qwen2.5-0.5B-Instruct-q0f32-MLC - 2654.75 1 4096 -
Qwen2.5-1.5B-Instruct-q4f16_1-MLC - 1629.75 1 4096 -
Qwen2.5-1.5B-Instruct-q4f32_1-MLC - 1888.97 1 4096 -
Qwen2.5-3B-Instruct-q4f16_1-MLC - 2504.76 1 4096 -
Qwen2.5-3B-Instruct-q4f32_1-MLC - 2893.64 1 4096 -
Qwen2.5-7B-Instruct-q4f16_1-MLC - 5106.67 0 4096 -
Qwen2.5-7B-Instruct-q4f32_1-MLC - 5900.09 0 4096 -
Qwen2.5-Coder-0.5B-Instruct-q4f16_1-MLC - 944.62 1 4096 -
Qwen2.5-Coder-0.5B-Instruct-q4f32_1-MLC - 1060.2 1 4096 -
Qwen2.5-Coder-0.5B-Instruct-q0f16-MLC - 1624.12 1 4096 -
Qwen2.5-Coder-0.5B-Instruct-q0f32-MLC - 2654.75 1 4096 -
Qwen2.5-Coder-1.5B-Instruct-q4f16_1-MLC - 1629.75 0 4096 -
Qwen2.5-Coder-1.5B-Instruct-q4f32_1-MLC - 1888.97 0 4096 -
Qwen2.5-Coder-3B-Instruct-q4f16_1-MLC - 2504.76 1 4096 -
Qwen2.5-Coder-3B-Instruct-q4f32_1-MLC - 2893.64 1 4096 -
Qwen2.5-Coder-7B-Instruct-q4f16_1-MLC - 5106.67 0 4096 -
Qwen2.5-Coder-7B-Instruct-q4f32_1-MLC - 5900.09 0 4096 -
Qwen2.5-Math-1.5B-Instruct-q4f16_1-MLC - 1629.75 1 4096 -
Qwen2.5-Math-1.5B-Instruct-q4f32_1-MLC - 1888.97 1 4096 -
stablelm-2-zephyr-1_6b-q4f16_1-MLC - 2087.66 0 4096 -
stablelm-2-zephyr-1_6b-q4f32_1-MLC - 2999.33 0 4096 -
stablelm-2-zephyr-1_6b-q4f16_1-MLC -1k 1511.66 1 1024 -
stablelm-2-zephyr-1_6b-q4f32_1-MLC -1k 1847.33 1 1024 -
RedPajama-INCITE-Chat-3B-v1-q4f16_1-MLC - 2972.09 0 2048 -
RedPajama-INCITE-Chat-3B-v1-q4f32_1-MLC - 3928.09 0 2048 -
RedPajama-INCITE-Chat-3B-v1-q4f16_1-MLC -1k 2041.09 1 1024 -
RedPajama-INCITE-Chat-3B-v1-q4f32_1-MLC -1k 2558.09 1 1024 -
TinyLlama-1.1B-Chat-v1.0-q4f16_1-MLC - 697.24 1 2048 -
TinyLlama-1.1B-Chat-v1.0-q4f32_1-MLC - 839.98 1 2048 -
TinyLlama-1.1B-Chat-v1.0-q4f16_1-MLC -1k 675.24 1 1024 -
TinyLlama-1.1B-Chat-v1.0-q4f32_1-MLC -1k 795.98 1 1024 -
Ministral-3-3B-Base-2512-q4f16_1-MLC - 2863.69 1 4096 -
Ministral-3-3B-Base-2512-q4f32_1-MLC - 3532.37 1 4096 -
Ministral-3-3B-Reasoning-2512-q4f16_1-MLC - 2863.69 1 4096 -
Ministral-3-3B-Reasoning-2512-q4f32_1-MLC - 3532.37 1 4096 -
Ministral-3-3B-Instruct-2512-BF16-q4f16_1-MLC - 2863.69 1 4096 -
Ministral-3-3B-Instruct-2512-BF16-q4f32_1-MLC - 3532.37 1 4096 -
Llama-3.1-70B-Instruct-q3f16_1-MLC - 31153.13 0 4096 -
Qwen2-0.5B-Instruct-q4f16_1-MLC - 944.62 1 4096 -
Qwen2-0.5B-Instruct-q0f16-MLC - 1624.12 1 4096 -
Qwen2-0.5B-Instruct-q0f32-MLC - 2654.75 1 4096 -
Qwen2-1.5B-Instruct-q4f16_1-MLC - 1629.75 1 4096 -
Qwen2-1.5B-Instruct-q4f32_1-MLC - 1888.97 1 4096 -
Qwen2-7B-Instruct-q4f16_1-MLC - 5106.67 0 4096 -
Qwen2-7B-Instruct-q4f32_1-MLC - 5900.09 0 4096 -
Qwen2-Math-1.5B-Instruct-q4f16_1-MLC - 1629.75 1 4096 -
Qwen2-Math-1.5B-Instruct-q4f32_1-MLC - 1888.97 1 4096 -
Qwen2-Math-7B-Instruct-q4f16_1-MLC - 5106.67 0 4096 -
Qwen2-Math-7B-Instruct-q4f32_1-MLC - 5900.09 0 4096 -
Llama-3-8B-Instruct-q4f32_1-MLC -1k 5295.7 1 1024 -
Llama-3-8B-Instruct-q4f16_1-MLC -1k 4598.34 1 1024 -
Llama-3-8B-Instruct-q4f32_1-MLC - 6101.01 0 4096 -
Llama-3-8B-Instruct-q4f16_1-MLC - 5001 0 4096 -
Llama-3-70B-Instruct-q3f16_1-MLC - 31153.13 0 4096 -
Phi-3-mini-4k-instruct-q4f16_1-MLC - 3672.07 0 4096 -
Phi-3-mini-4k-instruct-q4f32_1-MLC - 5483.12 0 4096 -
Phi-3-mini-4k-instruct-q4f16_1-MLC -1k 2520.07 1 1024 -
Phi-3-mini-4k-instruct-q4f32_1-MLC -1k 3179.12 1 1024 -
Llama-2-7b-chat-hf-q4f32_1-MLC -1k 5284.01 0 1024 -
Llama-2-7b-chat-hf-q4f16_1-MLC -1k 4618.52 0 1024 -
Llama-2-7b-chat-hf-q4f32_1-MLC - 9109.03 0 4096 -
Llama-2-7b-chat-hf-q4f16_1-MLC - 6749.02 0 4096 -
Llama-2-13b-chat-hf-q4f16_1-MLC - 11814.09 0 4096 -
gemma-2b-it-q4f16_1-MLC - 1476.52 0 4096 -
gemma-2b-it-q4f32_1-MLC - 1750.66 0 4096 -
gemma-2b-it-q4f16_1-MLC -1k 1476.52 1 1024 -
gemma-2b-it-q4f32_1-MLC -1k 1750.66 1 1024 -
phi-2-q4f16_1-MLC - 3053.97 0 2048 -
phi-2-q4f32_1-MLC - 4032.48 0 2048 -
phi-2-q4f16_1-MLC -1k 2131.97 1 1024 -
phi-2-q4f32_1-MLC -1k 2740.48 1 1024 -
phi-1_5-q4f16_1-MLC - 1210.09 1 2048 -
phi-1_5-q4f32_1-MLC - 1682.09 1 2048 -
phi-1_5-q4f16_1-MLC -1k 1210.09 1 1024 -
phi-1_5-q4f32_1-MLC -1k 1682.09 1 1024 -
TinyLlama-1.1B-Chat-v0.4-q4f16_1-MLC - 697.24 1 2048 -
TinyLlama-1.1B-Chat-v0.4-q4f32_1-MLC - 839.98 1 2048 -
TinyLlama-1.1B-Chat-v0.4-q4f16_1-MLC -1k 675.24 1 1024 -
TinyLlama-1.1B-Chat-v0.4-q4f32_1-MLC -1k 795.98 1 1024 -
snowflake-arctic-embed-m-q0f32-MLC -b32 1407.51 - - 1
snowflake-arctic-embed-m-q0f32-MLC -b4 539.4 - - 1
snowflake-arctic-embed-s-q0f32-MLC -b32 1022.82 - - 1
snowflake-arctic-embed-s-q0f32-MLC -b4 238.71 - - 1
`;

/** WebLLM's models, for engines whose config has no list. */
export const prebuiltAppConfig: AppConfig = {
  model_list: MODELS.trim().split("\n").map((line): ModelRecord => {
    const [name, rest, memory, small, context, type] = line.split(" ") as [string, string, string, string, string, string];
    return {
      model: `https://huggingface.co/mlc-ai/${name}`,
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
