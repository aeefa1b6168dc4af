"""Reads a quantised MLC folder by the format's description alone, in plain Python, and compares it with the values that it
was made from.

    decode_folder.py QUANTISED PLAIN BITS

Both are folders with tensor-cache.json, matrices row by row; PLAIN has the same parameters as raw float32. Prints a JSON object: for each
quantised parameter the squared error of its values as a part of their squares.
"""

import json
import struct
import sys
from pathlib import Path


def tensors(folder):
    found = {}
    manifest = json.loads((folder / "tensor-cache.json").read_text())
    for shard in manifest["records"]:
        data = (folder / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            at = record["byteOffset"]
            found[record["name"]] = (record, data[at : at + record["nbytes"]])
    return found


def floats(record, data):
    if record["dtype"] == "float16":
        return [x[0] for x in struct.iter_unpack("<e", data)]
    if record["dtype"] == "bfloat16" or record["format"] == "f32-to-bf16":
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    return [x[0] for x in struct.iter_unpack("<f", data)]


def decoded(words, scales, bits, group):
    """Rows of values: a word holds as many codes as fit, lowest bits first."""
    record, data = words
    per_word, zero = 32 // bits, (1 << (bits - 1)) - 1
    row_words = record["shape"][-1]
    flat = [x[0] for x in struct.iter_unpack("<I", data)]
    scale = floats(*scales)
    row_scales = scales[0]["shape"][-1]
    rows = []
    for r in range(len(flat) // row_words):
        codes = []
        for word in flat[r * row_words : (r + 1) * row_words]:
            codes.extend(word >> (bits * i) & ((1 << bits) - 1) for i in range(per_word))
        own = scale[r * row_scales : (r + 1) * row_scales]
        rows.append([(code - zero) * own[i // group] for i, code in enumerate(codes) if i // group < row_scales])
    return rows


def main():
    quantised, plain, bits = tensors(Path(sys.argv[1])), tensors(Path(sys.argv[2])), int(sys.argv[3])
    told = {}
    for name, words in quantised.items():
        if not name.endswith(".q_weight"):
            continue
        stem = name.removesuffix(".q_weight")
        rows = decoded(words, quantised[stem + ".q_scale"], bits, {3: 40, 4: 32}[bits])
        record, data = plain[stem + ".weight"]
        cols, values = record["shape"][-1], floats(record, data)
        lost = total = 0.0
        for r, row in enumerate(rows):
            for w, v in zip(values[r * cols : (r + 1) * cols], row):
                lost += (w - v) ** 2
                total += w * w
        told[stem + ".weight"] = lost / total
    print(json.dumps(told))


main()
