#!/usr/bin/env python3
"""Makes the golden data of tests/lora.rs: adapters as PEFT saves them for the checkpoints of
data/golden, and what the merged tensors are, computed here in float64 with numpy alone.

    pip install numpy safetensors
    python make_lora_golden.py data/golden data/lora

For each case OUT/NAME/adapter*/ (config and weights) and OUT/NAME/merged.safetensors: every tensor
that an adapter changes, as float32.
"""
import json
import os
import struct
import sys

import numpy as np
from safetensors.numpy import save_file

GOLDEN, OUT = sys.argv[1:]
RNG = np.random.default_rng(11)


def read(folder):
    """The tensors of a folder as float64; bfloat16, which numpy lacks, by its bits."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        raw = open(f"{folder}/{name}", "rb").read()
        (n,) = struct.unpack("<Q", raw[:8])
        for key, info in json.loads(raw[8:8 + n]).items():
            if key == "__metadata__":
                continue
            from_, to = info["data_offsets"]
            data = raw[8 + n + from_:8 + n + to]
            if info["dtype"] == "BF16":
                values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[info["dtype"]])
            tensors[key] = values.reshape(info["shape"]).astype(np.float64)
    return tensors


class Case:
    def __init__(self, name, checkpoint):
        self.name, self.checkpoint = name, checkpoint
        self.model = read(f"{GOLDEN}/{checkpoint}/hf")
        self.changed = {}
        self.adapters = 0

    def weight(self, tensor):
        return self.changed.setdefault(tensor, self.model[tensor].copy())

    def adapter(self, targets, r, alpha, scale=1.0, rslora=False, ranks={}, alphas={}, saved=(), biases=(),
                transposed=False, embeddings=(), dtype=np.float32, prefix="base_model.model.", infix="",
                lora_bias=False, drop="", **more):
        """Writes an adapter and applies it to what will be written of the model."""
        file = {}
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": alpha, "bias": "none",
                  "use_rslora": rslora, "use_dora": False, "rank_pattern": ranks, "alpha_pattern": alphas,
                  "fan_in_fan_out": transposed, "modules_to_save": list(saved) or None,
                  "target_modules": sorted({t.rsplit(".", 1)[1] for t in targets}), **more}

        def pick(patterns, module, default):
            fits = [v for k, v in patterns.items() if module == k or module.endswith("." + k)]
            return fits[0] if fits else default

        def draw(*shape):
            return (RNG.standard_normal(shape) * 0.05).astype(dtype)

        for module in [*targets, *embeddings]:
            weight = self.weight(module + ".weight")
            rank = pick(ranks, module, r)
            factor = pick(alphas, module, alpha) / (np.sqrt(rank) if rslora else rank) * scale
            key = prefix + module.removeprefix(drop)
            if module in embeddings:
                a, b = draw(rank, weight.shape[0]), draw(weight.shape[1], rank)
                file[f"{key}.lora_embedding_A"], file[f"{key}.lora_embedding_B"] = a, b
            else:
                outputs, inputs = weight.shape[::-1] if transposed else weight.shape
                a, b = draw(rank, inputs), draw(outputs, rank)
                file[f"{key}.lora_A{infix}.weight"], file[f"{key}.lora_B{infix}.weight"] = a, b
            delta = b.astype(np.float64) @ a.astype(np.float64)
            if transposed or module in embeddings:
                delta = delta.T
            # What is between two adapters is a float32.
            weight[...] = (weight + factor * delta).astype(np.float32)
            if lora_bias and module + ".bias" in self.model:
                bias = self.weight(module + ".bias")
                add = draw(*bias.shape)
                file[f"{key}.lora_B{infix}.bias"] = add
                bias[...] = (bias + factor * add.astype(np.float64)).astype(np.float32)
        for tensor in [*biases, *(f"{module}.weight" for module in saved)]:
            new = draw(*self.model[tensor].shape)
            file[prefix + tensor.removeprefix(drop)] = new
            self.changed[tensor] = new.astype(np.float64)
        folder = f"{OUT}/{self.name}/adapter{self.adapters or ''}"
        self.adapters += 1
        os.makedirs(folder, exist_ok=True)
        json.dump(config, open(f"{folder}/adapter_config.json", "w"), indent=2, sort_keys=True)
        save_file(file, f"{folder}/adapter_model.safetensors")

    def write(self):
        save_file({k: v.astype(np.float32) for k, v in self.changed.items()}, f"{OUT}/{self.name}/merged.safetensors")


def layers(pattern, n=2):
    return [pattern.format(i) for i in range(n)]


ATTENTION = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkvo"]
MLP = [f"model.layers.{i}.mlp.{p}_proj" for i in range(2) for p in ("gate", "up", "down")]

case = Case("plain", "llama-gqa-f32")
case.adapter(ATTENTION + MLP, r=4, alpha=8)
case.write()

# Patterns, rsLoRA, 16-bit values, a module and a norm that were trained whole, older names.
case = Case("patterns", "llama-gqa-f32")
case.adapter(ATTENTION, r=4, alpha=8, rslora=True, ranks={"q_proj": 2, "layers.1.self_attn.v_proj": 3},
             alphas={"k_proj": 32}, saved=["lm_head", "model.layers.0.input_layernorm"], dtype=np.float16,
             infix=".default")
case.write()

# Three in order, the second at half of its strength and the third taken away; without the head's prefix.
case = Case("several", "llama-gqa-f32")
case.adapter(ATTENTION[:4], r=2, alpha=4)
case.adapter(ATTENTION[2:6], r=3, alpha=3, scale=0.5)
case.adapter(ATTENTION[:2], r=1, alpha=1, scale=-1.0, prefix="base_model.model.", drop="model.")
case.write()

# The embedding, which is the head as well.
case = Case("embedding", "llama-tied-bf16")
case.adapter(ATTENTION[:1], r=2, alpha=4, embeddings=["model.embed_tokens"])
case.write()

# Conv1D: inputs are rows.
case = Case("conv1d", "gpt2-f32")
names = [k for k in case.model if k.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))]
case.adapter([n.removesuffix(".weight") for n in names], r=2, alpha=4, transposed=True)
case.write()

# Fused by its authors.
case = Case("fused", "phi3-bf16")
names = [k for k in case.model if k.endswith(("qkv_proj.weight", "gate_up_proj.weight"))]
case.adapter([n.removesuffix(".weight") for n in names], r=4, alpha=4)
case.write()

# Heads that MLC puts in another order, with biases: of the adapter, and trained ones.
case = Case("reordered", "gptneox-f16")
names = [k for k in case.model if k.endswith("query_key_value.weight")]
case.adapter([n.removesuffix(".weight") for n in names], r=2, alpha=2, lora_bias=True,
             biases=[k for k in case.model if k.endswith("dense_h_to_4h.bias")])
case.write()
