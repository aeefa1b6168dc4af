#!/usr/bin/env python3
"""Golden rotary frequencies of every RoPE scaling, computed by the code of Hugging Face transformers.

    pip install numpy transformers==5.24.0
    python scripts/oracle/rope.py crates/tessera-compute/tests/data/rope.json

The formulas are transformers' own functions (`modeling_rope_utils.ROPE_INIT_FUNCTIONS`), and the
configs are read by its `LlamaConfig`. They are written for torch, of which they use a dozen
operations; a stand-in made of numpy serves, and computes in float64, so that the golden values are
the formulas' and not their rounding. Without a `seq_len` the longest sequence is one token.
"""
import importlib.machinery
import json
import sys
import types

import numpy as np


class Array(np.ndarray):
    """A numpy array with the methods of a tensor that the formulas call."""

    def to(self, *_, dtype=None, **__):
        return self.astype(dtype).view(Array) if dtype else self

    def float(self):
        return self.to(dtype=np.float64)


def array(values, dtype=None, device=None):
    return np.asarray(values, dtype=dtype).view(Array)


def stand_in():
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
    torch.float = torch.float32 = np.float64
    torch.int64 = np.int64
    torch.Tensor = Array
    torch.tensor = array
    torch.arange = lambda *a, dtype=None, device=None: array(np.arange(*a), dtype)
    torch.where = lambda c, a, b: np.where(c, a, b).view(Array)
    torch.clamp = lambda x, low, high: np.clip(x, low, high)
    return torch


BASE = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1000, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "max_position_embeddings": 4096,
}
SHORT = [round(1.0 + 0.02 * i, 4) for i in range(32)]
LONG = [round(1.0 + 0.11 * i * i / 4, 4) for i in range(32)]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG,
            "original_max_position_embeddings": 1024}

# name, changes of the config, its rope_scaling, lengths of the sequence
CASES = [
    ("linear", {}, {"rope_type": "linear", "factor": 2.5}, [1]),
    ("linear, old key", {"rope_theta": 500000.0}, {"type": "linear", "factor": 8.0}, [1]),
    ("dynamic", {}, {"rope_type": "dynamic", "factor": 2.0}, [1, 4096, 4097, 6000, 16384]),
    ("dynamic, head_dim", {"head_dim": 128, "rope_theta": 1e6}, {"type": "dynamic", "factor": 3.5}, [5000]),
    ("dynamic, original context in the scaling", {},
     {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 1024}, [2000, 6000]),
    ("llama3.1", {"rope_theta": 500000.0, "head_dim": 128, "max_position_embeddings": 131072}, LLAMA3, [1]),
    ("llama3.2", {"rope_theta": 500000.0, "max_position_embeddings": 131072},
     LLAMA3 | {"factor": 32.0}, [1]),
    ("llama3, narrow", {"head_dim": 96}, LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 3.0,
                                                   "original_max_position_embeddings": 512}, [1]),
    ("yarn", {}, YARN, [1, 4096]),
    ("yarn, large theta", {"rope_theta": 1e6, "head_dim": 128, "max_position_embeddings": 131072},
     YARN | {"original_max_position_embeddings": 32768}, [1]),
    ("yarn, betas", {}, YARN | {"beta_fast": 16.0, "beta_slow": 2.0}, [1]),
    ("yarn, betas of zero", {}, YARN | {"beta_fast": 0, "beta_slow": 0}, [1]),
    ("yarn, attention_factor", {}, YARN | {"attention_factor": 0.75}, [1]),
    ("yarn, mscale", {}, YARN | {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0}, [1]),
    ("yarn, equal mscales", {}, YARN | {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}, [1]),
    ("yarn, mscale alone", {}, YARN | {"mscale": 2.0}, [1]),
    ("yarn, mscale_all_dim zero", {}, YARN | {"mscale": 2.0, "mscale_all_dim": 0.0}, [1]),
    ("yarn, not truncated", {"rope_theta": 150000.0}, YARN | {"factor": 32.0, "truncate": False}, [1]),
    ("yarn, one dimension", {}, YARN | {"beta_fast": 20.0, "beta_slow": 20.0, "truncate": False}, [1]),
    ("yarn, factor one", {}, YARN | {"factor": 1.0}, [1]),
    ("longrope", {}, LONGROPE, [1, 1024, 1025, 4096]),
    ("longrope, factor", {}, LONGROPE | {"factor": 16.0}, [1, 2000]),
    ("longrope, attention_factor", {}, LONGROPE | {"attention_factor": 1.25}, [1, 2000]),
    ("longrope, original context beside the scaling", {"original_max_position_embeddings": 1024},
     {k: v for k, v in LONGROPE.items() if k != "original_max_position_embeddings"}, [1024, 2000]),
    ("longrope, both contexts and a factor", {"original_max_position_embeddings": 1024},
     LONGROPE | {"factor": 16.0}, [2000]),
    ("longrope, not longer", {"max_position_embeddings": 1024}, LONGROPE, [1]),
]


def main(out):
    sys.modules["torch"] = torch = stand_in()
    from transformers import LlamaConfig, __version__
    from transformers import modeling_rope_utils as hf
    hf.torch = torch
    with open(out, "w") as f:
        f.write('{"transformers": "%s", "cases": [' % __version__)
        comma = "\n"
        for name, changes, scaling, lengths in CASES:
            config = BASE | changes | {"rope_scaling": scaling}
            read = LlamaConfig(**json.loads(json.dumps(config)))
            kind = scaling.get("rope_type") or scaling["type"]
            for length in lengths:
                inv_freq, factor = hf.ROPE_INIT_FUNCTIONS[kind](read, None, seq_len=length)
                case = {"name": name, "config": config, "seq_len": length,
                        "inv_freq": [float(f"{x:.9g}") for x in inv_freq], "factor": factor}
                f.write(comma + json.dumps(case))
                comma = ",\n"
        f.write("\n]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
