#!/usr/bin/env python3
"""Makes the golden data of tests/gguf.rs: blocks with the values that the Python package
`gguf` gives them, a tiny llama with the hashes of its tensors, and the ids of sentencepiece.

    pip install numpy gguf sentencepiece
    python make_gguf_golden.py data/gguf [later]
"""
import hashlib
import io
import json
import os
import sys

import gguf
import numpy as np
import sentencepiece
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

OUT = sys.argv[1]
RNG = np.random.default_rng(7)

# Offsets of the f16 scales in a block: random bits there would be mostly huge or NaN.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


# Types that came later, with numbers of their own, so that those of the others stay.
LATER = {"Q2_K": [80, 82], "Q3_K": [108], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}


def blocks(names, scales, RNG):
    for name in names:
        ty = Type[name]
        per_block, n_bytes = GGML_QUANT_SIZES[ty]
        n = 512 // per_block if per_block < 256 else 4
        raw = RNG.integers(0, 256, (n, n_bytes), dtype=np.uint8)
        for at in scales.get(name, []):
            scale = (RNG.standard_normal(n) * 10.0 ** RNG.integers(-6, 2, n)).astype(np.float16)
            scale[0] = 0.0
            raw[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
        if name == "MXFP4":
            # Exponents of the scale: the least two are below the normal numbers, the largest may not overflow.
            raw[:, 0] = [*range(4), *RNG.integers(4, 251, n - 4)]
        if name == "F32":
            raw = RNG.standard_normal(n).astype(np.float32)
        if name in ("F16", "BF16"):
            # Every exponent but that of infinity and NaN.
            bits = RNG.integers(0, 65536, n, dtype=np.uint16)
            top = 0x7C00 if name == "F16" else 0x7F80
            bits[(bits & top) == top] &= np.uint16(0xFFFF ^ (top & -top))
            raw = bits.view(np.float16 if name == "F16" else np.uint8)
        values = gguf.quants.dequantize(raw, ty).astype(np.float32)
        assert values.size == n * per_block and np.isfinite(values).all(), name
        raw.tofile(f"{OUT}/{name}.blocks")
        np.ascontiguousarray(values).tofile(f"{OUT}/{name}.f32")


def made(RNG):
    """Values, and the Q8_0 that the package makes of them: ties, zeros and the least numbers among them."""
    x = (RNG.standard_normal((64, 32)) * 10.0 ** RNG.integers(-7, 4, (64, 1))).astype(np.float32)
    x[0] = 0.0
    x[1] = np.arange(32) / 2 - 8
    x[1, 0] = 127
    x.tofile(f"{OUT}/made.f32")
    gguf.quants.quantize(x, Type.Q8_0).tofile(f"{OUT}/made.Q8_0")


def permute(w, heads):
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def byte_letters():
    """GPT-2's letters for bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    more = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(more)}}


def bpe_vocab(w):
    letters = byte_letters()
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ġ Ġ"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(letters[b] for b in range(256))]
    tokens += [m.replace(" ", "") for m in merges]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    w.add_token_merges(merges)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(False)
    w.add_chat_template("{{ messages[0]['content'] }}")
    return len(tokens)


def writer(name):
    w = gguf.GGUFWriter(f"{OUT}/{name}", "llama")
    w.add_name("tiny")
    return w


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tiny():
    hidden, ffn, layers, heads, kv_heads, head_dim = 32, 64, 2, 4, 2, 8
    w = writer("tiny.gguf")
    w.add_context_length(128)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(ffn)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(100000.0)
    w.add_layer_norm_rms_eps(1e-5)
    vocab = bpe_vocab(w)
    w.add_vocab_size(vocab)
    golden = []

    def add(name, hf, rows, cols, ty, n_heads=None):
        x = (RNG.standard_normal((rows, cols) if cols else rows) * 0.1).astype(np.float32)
        # HF's order is what is expected; rows are quantised one by one, so order does not matter.
        want = gguf.quants.dequantize(gguf.quants.quantize(x, ty), ty).astype(np.float32)
        golden.append({"name": hf, "shape": list(x.shape), "sha256": hashlib.sha256(want.tobytes()).hexdigest()})
        w.add_tensor(name, gguf.quants.quantize(permute(x, n_heads) if n_heads else x, ty), raw_dtype=ty)

    add("token_embd.weight", "model.embed_tokens.weight", vocab, hidden, Type.Q8_0)
    for i in range(layers):
        b, m = f"blk.{i}.", f"model.layers.{i}."
        # One of each type, so that reading and reordering are seen on all.
        q, k, v = (Type.Q4_0, Type.F16, Type.BF16) if i else (Type.F32, Type.Q5_0, Type.Q5_1)
        add(b + "attn_q.weight", m + "self_attn.q_proj.weight", heads * head_dim, hidden, q, heads)
        add(b + "attn_k.weight", m + "self_attn.k_proj.weight", kv_heads * head_dim, hidden, k, kv_heads)
        add(b + "attn_v.weight", m + "self_attn.v_proj.weight", kv_heads * head_dim, hidden, v)
        add(b + "attn_output.weight", m + "self_attn.o_proj.weight", hidden, heads * head_dim, Type.Q4_1)
        add(b + "ffn_gate.weight", m + "mlp.gate_proj.weight", ffn, hidden, Type.Q4_0)
        add(b + "ffn_up.weight", m + "mlp.up_proj.weight", ffn, hidden, Type.Q4_1)
        add(b + "ffn_down.weight", m + "mlp.down_proj.weight", hidden, ffn, Type.Q4_0)
        add(b + "attn_norm.weight", m + "input_layernorm.weight", hidden, 0, Type.F32)
        add(b + "ffn_norm.weight", m + "post_attention_layernorm.weight", hidden, 0, Type.F32)
    add("output_norm.weight", "model.norm.weight", hidden, 0, Type.F32)
    finish(w)
    with open(f"{OUT}/tiny.json", "w") as f:
        json.dump(golden, f, indent=1)


STRINGS = ["hello world", "the  quick   brown", " lead", "trail ", "", "中国人民", "你好，世界！", "2023 12", "\n\t x",
           "🦙 emoji", "naïve café", "aaaa bbbb", "the the the", "says hello.", "▁", "foxjumps", "\r\n\r\n", "é"]


def spm():
    """A small SentencePiece BPE, its vocabulary as GGUF, and the ids that sentencepiece gives."""
    text = ("the quick brown fox jumps over the lazy dog. " * 3 + "a bird in the hand is worth two in the bush. "
            "hello hello world, the world says hello. 中国 人民 你好 世界 数据 12 34 2023").split(". ")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=400, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        hard_vocab_limit=False, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(sp.vocab_size())
    w = writer("spm.gguf")
    w.add_context_length(128)
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i).encode() for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in ids])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)
    finish(w)
    with open(f"{OUT}/spm.json", "w") as f:
        json.dump([{"text": s, "ids": sp.encode(s)} for s in STRINGS], f, indent=1)


os.makedirs(OUT, exist_ok=True)
if sys.argv[2:] != ["later"]:
    blocks(["F32", "F16", "BF16", *SCALES], SCALES, RNG)
    tiny()
    spm()
blocks(LATER, LATER, np.random.default_rng(8))
made(np.random.default_rng(9))
