#!/usr/bin/env python3
"""Reads an exported GGUF file with the Python package `gguf` and compares it with what tessera says of it.

    pip install gguf
    python check_gguf_export.py MODEL.gguf < expected.json

expected.json: `hf` the checkpoint's tensor names, `tensors` GGUF's names with the SHA-256 of their values as float32,
`keys` metadata. The names must be those that the package's own map gives for the checkpoint's, and all of them.
"""
import hashlib
import json
import sys

import gguf
import numpy as np

path, expected = sys.argv[1], json.load(sys.stdin)
reader = gguf.GGUFReader(path)


def field(key):
    found = reader.get_field(key)
    return None if found is None else found.contents()


arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[field("general.architecture")]
names = gguf.get_tensor_name_map(arch, field(f"{gguf.MODEL_ARCH_NAMES[arch]}.block_count"))
mapped = {names.get_name(name, try_suffixes=(".weight", ".bias")) for name in expected["hf"]}
found = {tensor.name: tensor for tensor in reader.tensors}
assert set(found) - {"rope_freqs.weight"} == mapped, sorted(set(found) ^ mapped)
assert set(expected["tensors"]) == set(found)
for name, digest in expected["tensors"].items():
    tensor = found[name]
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    assert hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() == digest, name
for key, value in expected["keys"].items():
    assert field(key) == value or abs(field(key) - value) < 1e-6 * abs(value), (key, field(key), value)
vocab = len(field("tokenizer.ggml.tokens"))
assert vocab == len(field("tokenizer.ggml.token_type")) and vocab == found["token_embd.weight"].shape[1]
print("ok")
