//! The rows of the tables: MLC's names, what each part is, and where its values come from. `{i}` is the layer. Rows that
//! several families share are written once.

use super::Dim::{self, *};
use super::{How, Rows, When, embedding, head, linear, vector};
use crate::arch::ParamKind::VectorF32;
use crate::arch::role::Place::{Final, PostAttention, PostMlp, PreAttention, PreMlp};
use crate::arch::role::Role::{self, Norm};

pub(in crate::arch) const EMBED: Rows = &[embedding(Role::Embed, "model.embed_tokens.weight", Vocab)];
pub(in crate::arch) const FINAL_NORM: Rows = &[vector(Norm(Final), "model.norm.weight", Hidden)];
pub(in crate::arch) const FINAL_NORM_BIAS: Rows = &[vector(Norm(Final), "model.norm.bias", Hidden)];
pub(in crate::arch) const LM_HEAD: Rows = &[head("lm_head.weight").when(When::Untied)];

pub(in crate::arch) const QKV: &[(&str, Dim)] = &[
    ("model.layers.{i}.self_attn.q_proj.weight", Q),
    ("model.layers.{i}.self_attn.k_proj.weight", Kv),
    ("model.layers.{i}.self_attn.v_proj.weight", Kv),
];
pub(in crate::arch) const QKV_BIAS: &[(&str, Dim)] = &[
    ("model.layers.{i}.self_attn.q_proj.bias", Q),
    ("model.layers.{i}.self_attn.k_proj.bias", Kv),
    ("model.layers.{i}.self_attn.v_proj.bias", Kv),
];
pub(in crate::arch) const QKV_PROJ: Rows =
    &[linear(Role::Qkv, "model.layers.{i}.self_attn.qkv_proj.weight", Qkv, Hidden).of(QKV)];
pub(in crate::arch) const QKV_PROJ_BIAS: Rows =
    &[vector(Role::Qkv, "model.layers.{i}.self_attn.qkv_proj.bias", Qkv).of(QKV_BIAS).when(When::QkvBias)];
pub(in crate::arch) const C_ATTN: Rows =
    &[linear(Role::Qkv, "model.layers.{i}.self_attn.c_attn.weight", Qkv, Hidden).of(QKV)];
pub(in crate::arch) const C_ATTN_BIAS: Rows =
    &[vector(Role::Qkv, "model.layers.{i}.self_attn.c_attn.bias", Qkv).of(QKV_BIAS)];
pub(in crate::arch) const C_ATTN_BIAS_IF: Rows =
    &[vector(Role::Qkv, "model.layers.{i}.self_attn.c_attn.bias", Qkv).of(QKV_BIAS).when(When::QkvBias)];
pub(in crate::arch) const WQKV_PACK: Rows = &[
    linear(Role::Qkv, "model.layers.{i}.self_attn.wqkv_pack.weight", Qkv, Hidden).of(QKV),
    vector(Role::Qkv, "model.layers.{i}.self_attn.wqkv_pack.bias", Qkv).of(QKV_BIAS).when(When::QkvBias),
];
pub(in crate::arch) const O_PROJ: Rows =
    &[linear(Role::Out, "model.layers.{i}.self_attn.o_proj.weight", Hidden, Q)];
pub(in crate::arch) const O_PROJ_BIAS: Rows =
    &[vector(Role::Out, "model.layers.{i}.self_attn.o_proj.bias", Hidden).when(When::OutBias)];
pub(in crate::arch) const QK_NORM: Rows = &[
    vector(Role::QNorm, "model.layers.{i}.self_attn.q_norm.weight", Dim::Head),
    vector(Role::KNorm, "model.layers.{i}.self_attn.k_norm.weight", Dim::Head),
];
pub(in crate::arch) const QK_NORM_WIDE: Rows = &[
    vector(Role::QNorm, "model.layers.{i}.self_attn.q_norm.weight", Q),
    vector(Role::KNorm, "model.layers.{i}.self_attn.k_norm.weight", Kv),
];

pub(in crate::arch) const GATE_UP: Rows =
    &[linear(Role::GateUp, "model.layers.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden).of(&[
        ("model.layers.{i}.mlp.gate_proj.weight", Inter),
        ("model.layers.{i}.mlp.up_proj.weight", Inter),
    ])];
pub(in crate::arch) const GATE_UP_BIAS: Rows =
    &[vector(Role::GateUp, "model.layers.{i}.mlp.gate_up_proj.bias", TwoInter)
        .of(&[("model.layers.{i}.mlp.gate_proj.bias", Inter), ("model.layers.{i}.mlp.up_proj.bias", Inter)])
        .when(When::MlpBias)];
pub(in crate::arch) const UP: Rows =
    &[linear(Role::Up, "model.layers.{i}.mlp.up_proj.weight", Inter, Hidden)];
pub(in crate::arch) const GATE: Rows =
    &[linear(Role::Gate, "model.layers.{i}.mlp.gate_proj.weight", Inter, Hidden)];
pub(in crate::arch) const DOWN: Rows =
    &[linear(Role::Down, "model.layers.{i}.mlp.down_proj.weight", Hidden, Inter)];
pub(in crate::arch) const DOWN_BIAS: Rows =
    &[vector(Role::Down, "model.layers.{i}.mlp.down_proj.bias", Hidden).when(When::MlpBias)];

pub(in crate::arch) const INPUT_NORM: Rows =
    &[vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.weight", Hidden)];
pub(in crate::arch) const POST_ATTN_NORM: Rows =
    &[vector(Norm(PreMlp), "model.layers.{i}.post_attention_layernorm.weight", Hidden)];
/// OLMo 2 and Gemma 2 norm what attention gives, where others norm what the MLP takes.
pub(in crate::arch) const ATTN_RESULT_NORM: Rows =
    &[vector(Norm(PostAttention), "model.layers.{i}.post_attention_layernorm.weight", Hidden)];
pub(in crate::arch) const POST_FF_NORM: Rows =
    &[vector(Norm(PostMlp), "model.layers.{i}.post_feedforward_layernorm.weight", Hidden)];
pub(in crate::arch) const LAYER_NORMS: Rows = &[
    vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.weight", Hidden),
    vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.bias", Hidden),
    vector(Norm(PreMlp), "model.layers.{i}.post_attention_layernorm.weight", Hidden),
    vector(Norm(PreMlp), "model.layers.{i}.post_attention_layernorm.bias", Hidden),
];

pub(in crate::arch) const GEMMA_NORMS: Rows = &[
    vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.weight", Hidden).how(How::AddOne),
    vector(Norm(PreMlp), "model.layers.{i}.post_attention_layernorm.weight", Hidden).how(How::AddOne),
];
pub(in crate::arch) const GEMMA_FOUR_NORMS: Rows = &[
    vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.weight", Hidden).how(How::AddOne),
    vector(Norm(PostAttention), "model.layers.{i}.post_attention_layernorm.weight", Hidden).how(How::AddOne),
    vector(Norm(PreMlp), "model.layers.{i}.pre_feedforward_layernorm.weight", Hidden).how(How::AddOne),
    vector(Norm(PostMlp), "model.layers.{i}.post_feedforward_layernorm.weight", Hidden).how(How::AddOne),
];
pub(in crate::arch) const GEMMA_FINAL_NORM: Rows =
    &[vector(Norm(Final), "model.norm.weight", Hidden).how(How::AddOne)];
pub(in crate::arch) const GEMMA3_ATTENTION: Rows = &[
    linear(Role::Q, "model.layers.{i}.self_attn.q_proj.weight", Q, Hidden),
    linear(Role::K, "model.layers.{i}.self_attn.k_proj.weight", Kv, Hidden),
    linear(Role::V, "model.layers.{i}.self_attn.v_proj.weight", Kv, Hidden),
    linear(Role::Out, "model.layers.{i}.self_attn.o_proj.weight", Hidden, Q),
    vector(Role::QNorm, "model.layers.{i}.self_attn.q_norm.weight", Dim::Head).how(How::AddOne),
    vector(Role::KNorm, "model.layers.{i}.self_attn.k_norm.weight", Dim::Head).how(How::AddOne),
];

pub(in crate::arch) const GPT2_FIRST: Rows = &[
    embedding(Role::Embed, "transformer.wte.weight", Vocab).of(&[("wte.weight", Vocab)]),
    embedding(Role::Positions, "transformer.wpe.weight", Positions).of(&[("wpe.weight", Positions)]),
];
pub(in crate::arch) const GPT2_LAYER: Rows = &[
    vector(Norm(PreAttention), "transformer.h.{i}.ln_1.weight", Hidden).of(&[("h.{i}.ln_1.weight", Hidden)]),
    vector(Norm(PreAttention), "transformer.h.{i}.ln_1.bias", Hidden).of(&[("h.{i}.ln_1.bias", Hidden)]),
    linear(Role::Qkv, "transformer.h.{i}.attn.c_attn.weight", Qkv, Hidden)
        .of(&[("h.{i}.attn.c_attn.weight", Qkv)])
        .how(How::Transpose),
    vector(Role::Qkv, "transformer.h.{i}.attn.c_attn.bias", Qkv).of(&[("h.{i}.attn.c_attn.bias", Qkv)]),
    linear(Role::Out, "transformer.h.{i}.attn.c_proj.weight", Hidden, Hidden)
        .of(&[("h.{i}.attn.c_proj.weight", Hidden)])
        .how(How::Transpose),
    vector(Role::Out, "transformer.h.{i}.attn.c_proj.bias", Hidden).of(&[("h.{i}.attn.c_proj.bias", Hidden)]),
    vector(Norm(PreMlp), "transformer.h.{i}.ln_2.weight", Hidden).of(&[("h.{i}.ln_2.weight", Hidden)]),
    vector(Norm(PreMlp), "transformer.h.{i}.ln_2.bias", Hidden).of(&[("h.{i}.ln_2.bias", Hidden)]),
    linear(Role::Up, "transformer.h.{i}.mlp.c_fc.weight", Inter, Hidden)
        .of(&[("h.{i}.mlp.c_fc.weight", Inter)])
        .how(How::Transpose),
    vector(Role::Up, "transformer.h.{i}.mlp.c_fc.bias", Inter).of(&[("h.{i}.mlp.c_fc.bias", Inter)]),
    linear(Role::Down, "transformer.h.{i}.mlp.c_proj.weight", Hidden, Inter)
        .of(&[("h.{i}.mlp.c_proj.weight", Hidden)])
        .how(How::Transpose),
    vector(Role::Down, "transformer.h.{i}.mlp.c_proj.bias", Hidden).of(&[("h.{i}.mlp.c_proj.bias", Hidden)]),
];
pub(in crate::arch) const GPT2_LAST: Rows = &[
    vector(Norm(Final), "transformer.ln_f.weight", Hidden).of(&[("ln_f.weight", Hidden)]),
    vector(Norm(Final), "transformer.ln_f.bias", Hidden).of(&[("ln_f.bias", Hidden)]),
    head("lm_head.weight").of(&[("wte.weight", Vocab)]).how(How::Copy),
];

pub(in crate::arch) const NEOX_LAYER: Rows = &[
    vector(Norm(PreAttention), "gpt_neox.layers.{i}.input_layernorm.weight", Hidden),
    vector(Norm(PreAttention), "gpt_neox.layers.{i}.input_layernorm.bias", Hidden),
    vector(Norm(PreMlp), "gpt_neox.layers.{i}.post_attention_layernorm.weight", Hidden),
    vector(Norm(PreMlp), "gpt_neox.layers.{i}.post_attention_layernorm.bias", Hidden),
    linear(Role::Qkv, "gpt_neox.layers.{i}.attention.query_key_value.weight", Qkv, Hidden).how(How::PerHead),
    vector(Role::Qkv, "gpt_neox.layers.{i}.attention.query_key_value.bias", Qkv).how(How::PerHead),
    linear(Role::Out, "gpt_neox.layers.{i}.attention.dense.weight", Hidden, Q),
    vector(Role::Out, "gpt_neox.layers.{i}.attention.dense.bias", Hidden),
    linear(Role::Up, "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight", Inter, Hidden),
    vector(Role::Up, "gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias", Inter).kind(VectorF32),
    linear(Role::Down, "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight", Hidden, Inter),
    vector(Role::Down, "gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias", Hidden).kind(VectorF32),
];

pub(in crate::arch) const INTERNLM2_LAYER: Rows = &[
    linear(Role::Qkv, "model.layers.{i}.attention.wqkv.weight", Qkv, Hidden).how(How::PerGroup),
    vector(Role::Qkv, "model.layers.{i}.attention.wqkv.bias", Qkv).how(How::PerGroup).when(When::QkvBias),
    linear(Role::Out, "model.layers.{i}.attention.wo.weight", Hidden, Q),
    vector(Role::Out, "model.layers.{i}.attention.wo.bias", Hidden).when(When::OutBias),
    linear(Role::GateUp, "model.layers.{i}.feed_forward.gate_up_proj.weight", TwoInter, Hidden).of(&[
        ("model.layers.{i}.feed_forward.w1.weight", Inter),
        ("model.layers.{i}.feed_forward.w3.weight", Inter),
    ]),
    linear(Role::Down, "model.layers.{i}.feed_forward.w2.weight", Hidden, Inter),
    vector(Norm(PreAttention), "model.layers.{i}.attention_norm.weight", Hidden),
    vector(Norm(PreMlp), "model.layers.{i}.ffn_norm.weight", Hidden),
];

pub(in crate::arch) const PHI3_LAYER: Rows = &[
    vector(Norm(PreAttention), "transformer.h.{i}.ln.weight", Hidden)
        .of(&[("model.layers.{i}.input_layernorm.weight", Hidden)]),
    linear(Role::Qkv, "transformer.h.{i}.mixer.qkv_proj.weight", Qkv, Hidden)
        .of(&[("model.layers.{i}.self_attn.qkv_proj.weight", Qkv)]),
    linear(Role::Out, "transformer.h.{i}.mixer.out_proj.weight", Hidden, Q)
        .of(&[("model.layers.{i}.self_attn.o_proj.weight", Hidden)]),
    linear(Role::GateUp, "transformer.h.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden)
        .of(&[("model.layers.{i}.mlp.gate_up_proj.weight", TwoInter)]),
    linear(Role::Down, "transformer.h.{i}.mlp.down_proj.weight", Hidden, Inter)
        .of(&[("model.layers.{i}.mlp.down_proj.weight", Hidden)]),
    vector(Norm(PreMlp), "transformer.h.{i}.post_attention_layernorm.weight", Hidden)
        .of(&[("model.layers.{i}.post_attention_layernorm.weight", Hidden)]),
];

pub(in crate::arch) const PHI_EMBED: &[(&str, Dim)] = &[("model.embed_tokens.weight", Vocab)];
pub(in crate::arch) const PHI_LAYER: Rows = &[
    vector(Norm(PreAttention), "transformer.h.{i}.ln.weight", Hidden)
        .of(&[("model.layers.{i}.input_layernorm.weight", Hidden)]),
    vector(Norm(PreAttention), "transformer.h.{i}.ln.bias", Hidden)
        .of(&[("model.layers.{i}.input_layernorm.bias", Hidden)]),
    linear(Role::Qkv, "transformer.h.{i}.mixer.Wqkv.weight", Qkv, Hidden).of(QKV),
    vector(Role::Qkv, "transformer.h.{i}.mixer.Wqkv.bias", Qkv).of(QKV_BIAS),
    linear(Role::Out, "transformer.h.{i}.mixer.out_proj.weight", Hidden, Q)
        .of(&[("model.layers.{i}.self_attn.dense.weight", Hidden)]),
    vector(Role::Out, "transformer.h.{i}.mixer.out_proj.bias", Hidden)
        .of(&[("model.layers.{i}.self_attn.dense.bias", Hidden)]),
    linear(Role::Up, "transformer.h.{i}.mlp.fc1.weight", Inter, Hidden)
        .of(&[("model.layers.{i}.mlp.fc1.weight", Inter)]),
    vector(Role::Up, "transformer.h.{i}.mlp.fc1.bias", Inter).of(&[("model.layers.{i}.mlp.fc1.bias", Inter)]),
    linear(Role::Down, "transformer.h.{i}.mlp.fc2.weight", Hidden, Inter)
        .of(&[("model.layers.{i}.mlp.fc2.weight", Hidden)]),
    vector(Role::Down, "transformer.h.{i}.mlp.fc2.bias", Hidden)
        .of(&[("model.layers.{i}.mlp.fc2.bias", Hidden)]),
];
pub(in crate::arch) const PHI_LAST: Rows = &[
    vector(Norm(Final), "lm_head.ln.weight", Hidden).of(&[("model.final_layernorm.weight", Hidden)]),
    vector(Norm(Final), "lm_head.ln.bias", Hidden).of(&[("model.final_layernorm.bias", Hidden)]),
    head("lm_head.linear.weight").of(&[("lm_head.weight", Vocab)]),
    vector(Role::Head, "lm_head.linear.bias", Vocab).of(&[("lm_head.bias", Vocab)]),
];

pub(in crate::arch) const STARCODER2_MLP: Rows = &[
    linear(Role::Up, "model.layers.{i}.mlp.c_fc.weight", Inter, Hidden),
    vector(Role::Up, "model.layers.{i}.mlp.c_fc.bias", Inter).when(When::MlpBias),
    linear(Role::Down, "model.layers.{i}.mlp.c_proj.weight", Hidden, Inter),
    vector(Role::Down, "model.layers.{i}.mlp.c_proj.bias", Hidden).when(When::MlpBias),
];

pub(in crate::arch) const LLAMA_LAYER: &[Rows] = &[
    QKV_PROJ,
    QKV_PROJ_BIAS,
    O_PROJ,
    O_PROJ_BIAS,
    GATE_UP,
    GATE_UP_BIAS,
    DOWN,
    DOWN_BIAS,
    INPUT_NORM,
    POST_ATTN_NORM,
];

pub(in crate::arch) const PHI_MSFT_LAYER: Rows = &[
    vector(Norm(PreAttention), "transformer.h.{i}.ln.weight", Hidden),
    vector(Norm(PreAttention), "transformer.h.{i}.ln.bias", Hidden),
    linear(Role::Qkv, "transformer.h.{i}.mixer.Wqkv.weight", Qkv, Hidden),
    vector(Role::Qkv, "transformer.h.{i}.mixer.Wqkv.bias", Qkv),
    linear(Role::Out, "transformer.h.{i}.mixer.out_proj.weight", Hidden, Q),
    vector(Role::Out, "transformer.h.{i}.mixer.out_proj.bias", Hidden),
    linear(Role::Up, "transformer.h.{i}.mlp.fc1.weight", Inter, Hidden),
    vector(Role::Up, "transformer.h.{i}.mlp.fc1.bias", Inter),
    linear(Role::Down, "transformer.h.{i}.mlp.fc2.weight", Hidden, Inter),
    vector(Role::Down, "transformer.h.{i}.mlp.fc2.bias", Hidden),
];
pub(in crate::arch) const PHI_MSFT_LAST: Rows = &[
    vector(Norm(Final), "lm_head.ln.weight", Hidden),
    vector(Norm(Final), "lm_head.ln.bias", Hidden),
    head("lm_head.linear.weight"),
    vector(Role::Head, "lm_head.linear.bias", Vocab),
];

pub(in crate::arch) const BIGCODE_LAYER: Rows = &[
    vector(Norm(PreAttention), "transformer.h.{i}.ln_1.weight", Hidden),
    vector(Norm(PreAttention), "transformer.h.{i}.ln_1.bias", Hidden),
    linear(Role::Qkv, "transformer.h.{i}.attn.c_attn.weight", Qkv, Hidden),
    vector(Role::Qkv, "transformer.h.{i}.attn.c_attn.bias", Qkv),
    linear(Role::Out, "transformer.h.{i}.attn.c_proj.weight", Hidden, Q),
    vector(Role::Out, "transformer.h.{i}.attn.c_proj.bias", Hidden),
    vector(Norm(PreMlp), "transformer.h.{i}.ln_2.weight", Hidden),
    vector(Norm(PreMlp), "transformer.h.{i}.ln_2.bias", Hidden),
    linear(Role::Up, "transformer.h.{i}.mlp.c_fc.weight", Inter, Hidden),
    vector(Role::Up, "transformer.h.{i}.mlp.c_fc.bias", Inter),
    linear(Role::Down, "transformer.h.{i}.mlp.c_proj.weight", Hidden, Inter),
    vector(Role::Down, "transformer.h.{i}.mlp.c_proj.bias", Hidden),
];

pub(in crate::arch) const QWEN_LAYER: Rows = &[
    linear(Role::Qkv, "transformer.h.{i}.attn.c_attn.weight", Qkv, Hidden),
    vector(Role::Qkv, "transformer.h.{i}.attn.c_attn.bias", Qkv),
    linear(Role::Out, "transformer.h.{i}.attn.c_proj.weight", Hidden, Q),
    linear(Role::GateUp, "transformer.h.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden)
        .of(&[("transformer.h.{i}.mlp.w1.weight", Inter), ("transformer.h.{i}.mlp.w2.weight", Inter)]),
    linear(Role::Down, "transformer.h.{i}.mlp.c_proj.weight", Hidden, Inter),
    vector(Norm(PreAttention), "transformer.h.{i}.ln_1.weight", Hidden),
    vector(Norm(PreMlp), "transformer.h.{i}.ln_2.weight", Hidden),
];

pub(in crate::arch) const CHATGLM_LAYER: Rows = &[
    linear(Role::Qkv, "transformer.encoder.layers.{i}.self_attention.query_key_value.weight", Qkv, Hidden),
    vector(Role::Qkv, "transformer.encoder.layers.{i}.self_attention.query_key_value.bias", Qkv)
        .when(When::QkvBias),
    linear(Role::Out, "transformer.encoder.layers.{i}.self_attention.dense.weight", Hidden, Q),
    linear(Role::GateUp, "transformer.encoder.layers.{i}.mlp.dense_h_to_4h.weight", TwoInter, Hidden),
    linear(Role::Down, "transformer.encoder.layers.{i}.mlp.dense_4h_to_h.weight", Hidden, Inter),
    vector(Norm(PreAttention), "transformer.encoder.layers.{i}.input_layernorm.weight", Hidden),
    vector(Norm(PreMlp), "transformer.encoder.layers.{i}.post_attention_layernorm.weight", Hidden),
];
