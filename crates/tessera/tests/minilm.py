"""Called by scripts/compare-embeddings: BERT's encoder in numpy f32, written from the formulas, against `tessera embed`."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXTS = [
    "This is an example sentence",
    "Each sentence is converted",
    "The cat sits outside",
    "A man is playing guitar",
    "The new movie is awesome",
    "The dog plays in the garden",
    "A woman watches TV",
    "The new movie is so great",
    "x",
    "Ünïcödé, naïve café — and 漢字 with emoji 🦀",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "HELLO hello HeLLo",
    "One sentence that goes on. " * 30,
    "unbelievably antidisestablishmentarianism",
]

erf = np.vectorize(math.erf, otypes=[np.float32])


def layer_norm(x, weight, bias, eps):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + np.float32(eps)) * weight + bias


def encode(config, tensors, ids):
    """Hidden states of one text, [tokens, hidden]."""

    def linear(x, name):
        return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

    def norm(x, name):
        return layer_norm(x, tensors[name + ".weight"], tensors[name + ".bias"], config["layer_norm_eps"])

    heads = config["num_attention_heads"]
    dim = config["hidden_size"] // heads
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        split = lambda name: linear(x, f"{layer}attention.self.{name}").reshape(len(ids), heads, dim).swapaxes(0, 1)
        q, k, v = split("query"), split("key"), split("value")
        scores = q @ k.swapaxes(1, 2) / np.float32(math.sqrt(dim))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(mixed, layer + "attention.output.dense"), layer + "attention.output.LayerNorm")
        wide = linear(x, layer + "intermediate.dense")
        wide = wide * (1 + erf(wide / np.float32(math.sqrt(2)))) / 2
        x = norm(x + linear(wide, layer + "output.dense"), layer + "output.LayerNorm")
    return x


def main():
    program, source, folder, backend = sys.argv[1:]
    source = Path(source)
    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    command = [program, "embed", folder, "--json", "--similarities", "--backend", backend, *TEXTS]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (found["pooling"], found["normalize"]) == ("mean", True), found
    expected, worst = [], 1.0
    for text, ours in zip(TEXTS, found["texts"], strict=True):
        ids = tokenizer.encode(text).ids
        assert ours["tokens"] == len(ids), (text, ours["tokens"], ids)
        mean = encode(config, tensors, ids).mean(0)
        expected.append(mean / np.linalg.norm(mean))
        vector = np.array(ours["vector"], np.float64)
        assert abs(np.linalg.norm(vector) - 1) < 1e-6
        worst = min(worst, float(vector @ expected[-1]))
    similar = np.array(expected) @ np.array(expected).T
    far = np.abs(similar - np.array(found["similarities"])).max()
    print(f"{backend}: {len(TEXTS)} texts, least cosine {worst:.7f}, similarities at most {far:.1e} apart")
    assert worst > 0.99999 and far < 2e-3, "tessera's vectors are not the model's"


main()
