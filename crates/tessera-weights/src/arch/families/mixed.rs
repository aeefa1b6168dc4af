//! Families whose layers are more than attention and one MLP.

use super::Dim::{self, *};
use super::names::*;
use super::{BASE, Family, How, Row, Rows, Tie, When, embedding, linear, vector};
use crate::arch::ParamKind::{self, Plain, Router, VectorF32};
use crate::arch::block::{Mlp, NormKind};
use crate::arch::blocks::{Arithmetic, Departure, GATED, Rotation};
use crate::arch::role::Place::{Embed, Final, PostAttention, PostMlp, PreAttention, PreMlp};
use crate::arch::role::Role::{self, Norm};

const fn experts(role: Role, name: &'static str, rows: Dim, cols: Dim) -> Row {
    linear(role, name, rows, cols).kind(ParamKind::Experts).stacked(Experts)
}

const ROUTER: Row = linear(Role::Router, "model.layers.{i}.mlp.gate.weight", Experts, Hidden).kind(Router);
const GATE_UP_EXPERTS: Row =
    experts(Role::ExpertsGateUp, "model.layers.{i}.mlp.moe_gate_up_proj.weight", TwoExpert, Hidden)
        .of_experts(&[
            ("model.layers.{i}.mlp.experts.{e}.gate_proj.weight", Expert),
            ("model.layers.{i}.mlp.experts.{e}.up_proj.weight", Expert),
        ]);
const DOWN_EXPERTS: Row =
    experts(Role::ExpertsDown, "model.layers.{i}.mlp.moe_down_proj.weight", Hidden, Expert)
        .of_experts(&[("model.layers.{i}.mlp.experts.{e}.down_proj.weight", Hidden)]);
const EXPERTS: Rows = &[ROUTER, GATE_UP_EXPERTS, DOWN_EXPERTS];

const MIXTRAL: Rows = &[
    linear(Role::Router, "model.layers.{i}.moe.gate.weight", Experts, Hidden)
        .kind(Router)
        .of(&[("model.layers.{i}.block_sparse_moe.gate.weight", Experts)]),
    experts(Role::ExpertsGateUp, "model.layers.{i}.moe.e1_e3.weight", TwoExpert, Hidden).of_experts(&[
        ("model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight", Expert),
        ("model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight", Expert),
    ]),
    experts(Role::ExpertsDown, "model.layers.{i}.moe.e2.weight", Hidden, Expert)
        .of_experts(&[("model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight", Hidden)]),
];

const QWEN2_SHARED: Rows = &[
    linear(Role::SharedGateUp, "model.layers.{i}.mlp.shared_expert.gate_up_proj.weight", TwoShared, Hidden)
        .of(&[
            ("model.layers.{i}.mlp.shared_expert.gate_proj.weight", Shared),
            ("model.layers.{i}.mlp.shared_expert.up_proj.weight", Shared),
        ]),
    linear(Role::SharedDown, "model.layers.{i}.mlp.shared_expert.down_proj.weight", Hidden, Shared),
    linear(Role::SharedGate, "model.layers.{i}.mlp.shared_expert_gate.weight", One, Hidden).kind(Router),
];

/// Layers with an MLP, layers with experts.
const DEEPSEEK_MLP: Rows = &[
    linear(Role::GateUp, "model.layers.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden)
        .of(&[
            ("model.layers.{i}.mlp.gate_proj.weight", Inter),
            ("model.layers.{i}.mlp.up_proj.weight", Inter),
        ])
        .when(When::Dense),
    linear(Role::Down, "model.layers.{i}.mlp.down_proj.weight", Hidden, Inter).when(When::Dense),
    ROUTER.when(When::Experts),
    vector(Role::RouterCorrection, "model.layers.{i}.mlp.e_score_correction_bias", Experts)
        .of(&[("model.layers.{i}.mlp.gate.e_score_correction_bias", Experts)])
        .when(When::Correction),
    GATE_UP_EXPERTS.when(When::Experts),
    DOWN_EXPERTS.when(When::Experts),
    linear(Role::SharedGateUp, "model.layers.{i}.mlp.shared_experts.gate_up_proj.weight", TwoShared, Hidden)
        .of(&[
            ("model.layers.{i}.mlp.shared_experts.gate_proj.weight", Shared),
            ("model.layers.{i}.mlp.shared_experts.up_proj.weight", Shared),
        ])
        .when(When::Shared),
    linear(Role::SharedDown, "model.layers.{i}.mlp.shared_experts.down_proj.weight", Hidden, Shared)
        .when(When::Shared),
];

/// Queries from the hidden state or from a narrow row; keys and values from another.
const LATENT: Rows = &[
    linear(Role::Q, "model.layers.{i}.self_attn.q_proj.weight", Q, Hidden).when(When::WholeQ),
    linear(Role::Own("q_a_proj"), "model.layers.{i}.self_attn.q_a_proj.weight", QRank, Hidden)
        .when(When::LatentQ),
    vector(Role::Own("q_a_proj"), "model.layers.{i}.self_attn.q_a_proj.bias", QRank).when(When::LatentQBias),
    vector(Role::Own("q_a_layernorm"), "model.layers.{i}.self_attn.q_a_layernorm.weight", QRank)
        .when(When::LatentQ),
    linear(Role::Own("q_b_proj"), "model.layers.{i}.self_attn.q_b_proj.weight", Q, QRank).when(When::LatentQ),
    linear(
        Role::Own("kv_a_proj_with_mqa"),
        "model.layers.{i}.self_attn.kv_a_proj_with_mqa.weight",
        KvRankRope,
        Hidden,
    ),
    vector(Role::Own("kv_a_proj_with_mqa"), "model.layers.{i}.self_attn.kv_a_proj_with_mqa.bias", KvRankRope)
        .when(When::QkvBias),
    vector(Role::Own("kv_a_layernorm"), "model.layers.{i}.self_attn.kv_a_layernorm.weight", KvRank),
    linear(Role::Own("kv_b_proj"), "model.layers.{i}.self_attn.kv_b_proj.weight", KvHeads, KvRank),
    linear(Role::Own("w_uk"), "model.layers.{i}.self_attn.w_uk", KvRank, Nope)
        .of(&[("model.layers.{i}.self_attn.kv_b_proj.weight", KvRank)])
        .stacked(Heads)
        .kind(Plain)
        .how(How::HeadKeys),
    linear(Role::Own("w_uv"), "model.layers.{i}.self_attn.w_uv", Value, KvRank)
        .of(&[("model.layers.{i}.self_attn.kv_b_proj.weight", Value)])
        .stacked(Heads)
        .kind(Plain)
        .how(How::HeadValues),
    linear(Role::Out, "model.layers.{i}.self_attn.o_proj.weight", Hidden, LatentV),
];

const LLAMA4_LAYER: Rows = &[
    linear(Role::Q, "model.layers.{i}.self_attn.q_proj.weight", Q, Hidden),
    vector(Role::Q, "model.layers.{i}.self_attn.q_proj.bias", Q).when(When::QkvBias),
    linear(Role::K, "model.layers.{i}.self_attn.k_proj.weight", Kv, Hidden),
    vector(Role::K, "model.layers.{i}.self_attn.k_proj.bias", Kv).when(When::QkvBias),
    linear(Role::V, "model.layers.{i}.self_attn.v_proj.weight", Kv, Hidden),
    vector(Role::V, "model.layers.{i}.self_attn.v_proj.bias", Kv).when(When::QkvBias),
    linear(Role::Router, "model.layers.{i}.feed_forward.router.router.weight", Experts, Hidden)
        .of(&[("model.layers.{i}.feed_forward.router.weight", Experts)]),
    linear(Role::ExpertsGateUp, "model.layers.{i}.feed_forward.experts.gate_up_proj", Hidden, TwoExpert)
        .stacked(Experts)
        .kind(ParamKind::ExpertsByInput),
    linear(Role::ExpertsDown, "model.layers.{i}.feed_forward.experts.down_proj", Expert, Hidden)
        .stacked(Experts)
        .kind(ParamKind::ExpertsByInput),
    linear(
        Role::SharedGateUp,
        "model.layers.{i}.feed_forward.shared_expert.gate_up_proj.weight",
        TwoShared,
        Hidden,
    )
    .of(&[
        ("model.layers.{i}.feed_forward.shared_expert.gate_proj.weight", Shared),
        ("model.layers.{i}.feed_forward.shared_expert.up_proj.weight", Shared),
    ]),
    linear(Role::SharedDown, "model.layers.{i}.feed_forward.shared_expert.down_proj.weight", Hidden, Shared),
];

const BERT_FIRST: Rows = &[
    embedding(Role::Embed, "embeddings.word_embeddings.weight", Vocab),
    embedding(Role::Positions, "embeddings.position_embeddings.weight", Positions),
    embedding(Role::TokenTypes, "embeddings.token_type_embeddings.weight", TokenTypes),
    vector(Norm(Embed), "embeddings.LayerNorm.weight", Hidden),
    vector(Norm(Embed), "embeddings.LayerNorm.bias", Hidden),
];
const BERT_LAYER: Rows = &[
    linear(Role::Qkv, "encoder.layer.{i}.attention.self.qkv.weight", Qkv, Hidden).of(&[
        ("encoder.layer.{i}.attention.self.query.weight", Q),
        ("encoder.layer.{i}.attention.self.key.weight", Kv),
        ("encoder.layer.{i}.attention.self.value.weight", Kv),
    ]),
    vector(Role::Qkv, "encoder.layer.{i}.attention.self.qkv.bias", Qkv).of(&[
        ("encoder.layer.{i}.attention.self.query.bias", Q),
        ("encoder.layer.{i}.attention.self.key.bias", Kv),
        ("encoder.layer.{i}.attention.self.value.bias", Kv),
    ]),
    linear(Role::Out, "encoder.layer.{i}.attention.output.dense.weight", Hidden, Q),
    vector(Role::Out, "encoder.layer.{i}.attention.output.dense.bias", Hidden),
    vector(Norm(PostAttention), "encoder.layer.{i}.attention.output.LayerNorm.weight", Hidden),
    vector(Norm(PostAttention), "encoder.layer.{i}.attention.output.LayerNorm.bias", Hidden),
    linear(Role::Up, "encoder.layer.{i}.intermediate.dense.weight", Inter, Hidden),
    vector(Role::Up, "encoder.layer.{i}.intermediate.dense.bias", Inter),
    linear(Role::Down, "encoder.layer.{i}.output.dense.weight", Hidden, Inter),
    vector(Role::Down, "encoder.layer.{i}.output.dense.bias", Hidden),
    vector(Norm(PostMlp), "encoder.layer.{i}.output.LayerNorm.weight", Hidden),
    vector(Norm(PostMlp), "encoder.layer.{i}.output.LayerNorm.bias", Hidden),
];

/// Layers with attention, whose query heads have gates beside them, and layers with a gated delta net.
const QWEN3_5_LAYER: Rows = &[
    linear(Role::Qkv, "model.layers.{i}.self_attn.c_attn.weight", GatedQkv, Hidden)
        .of(&[
            ("model.layers.{i}.self_attn.q_proj.weight", GatedQ),
            ("model.layers.{i}.self_attn.k_proj.weight", Kv),
            ("model.layers.{i}.self_attn.v_proj.weight", Kv),
        ])
        .when(When::Attention),
    linear(Role::Out, "model.layers.{i}.self_attn.o_proj.weight", Hidden, Q).when(When::Attention),
    vector(Role::QNorm, "model.layers.{i}.self_attn.q_norm.weight", Dim::Head)
        .how(How::AddOneWide)
        .when(When::Attention),
    vector(Role::KNorm, "model.layers.{i}.self_attn.k_norm.weight", Dim::Head)
        .how(How::AddOneWide)
        .when(When::Attention),
    linear(Role::Own("in_proj_qkv"), "model.layers.{i}.linear_attn.in_proj_qkv.weight", DeltaQkv, Hidden)
        .when(When::Delta),
    linear(Role::Own("in_proj_z"), "model.layers.{i}.linear_attn.in_proj_z.weight", DeltaV, Hidden)
        .when(When::Delta),
    linear(Role::Own("in_proj_a"), "model.layers.{i}.linear_attn.in_proj_a.weight", DeltaHeads, Hidden)
        .when(When::Delta),
    linear(Role::Own("in_proj_b"), "model.layers.{i}.linear_attn.in_proj_b.weight", DeltaHeads, Hidden)
        .when(When::Delta),
    linear(Role::Own("conv1d"), "model.layers.{i}.linear_attn.conv1d_weight", One, Kernel)
        .of(&[("model.layers.{i}.linear_attn.conv1d.weight", One)])
        .stacked(DeltaQkv)
        .kind(Plain)
        .when(When::Delta),
    vector(Role::Own("A_log"), "model.layers.{i}.linear_attn.A_log", DeltaHeads)
        .kind(VectorF32)
        .when(When::Delta),
    vector(Role::Own("dt_bias"), "model.layers.{i}.linear_attn.dt_bias", DeltaHeads)
        .kind(VectorF32)
        .when(When::Delta),
    vector(Role::Own("norm"), "model.layers.{i}.linear_attn.norm.weight", DeltaHead).when(When::Delta),
    linear(Role::Out, "model.layers.{i}.linear_attn.out_proj.weight", Hidden, DeltaV).when(When::Delta),
    vector(Norm(PreAttention), "model.layers.{i}.input_layernorm.weight", Hidden).how(How::AddOneWide),
    vector(Norm(PreMlp), "model.layers.{i}.post_attention_layernorm.weight", Hidden).how(How::AddOneWide),
];

const QWEN3_5_FINAL_NORM: Rows = &[vector(Norm(Final), "model.norm.weight", Hidden).how(How::AddOneWide)];

const DEEPSEEK_YARN: Arithmetic = Arithmetic {
    rotation: Rotation::Interleaved,
    yarn_scale: true,
    mlc: &[Departure::PlainRamp, Departure::Absorbed],
    ..GATED
};

pub(in crate::arch) const FAMILIES: &[Family] = &[
    Family {
        model_types: &["mixtral"],
        layer: &[QKV_PROJ, O_PROJ, MIXTRAL, INPUT_NORM, POST_ATTN_NORM],
        block: Arithmetic { mlc: &[Departure::NoWindow], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["qwen3_moe"],
        layer: &[C_ATTN, C_ATTN_BIAS_IF, O_PROJ, O_PROJ_BIAS, QK_NORM, EXPERTS, INPUT_NORM, POST_ATTN_NORM],
        bias_key: Some(("attention_bias", false)),
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["qwen2_moe"],
        layer: &[C_ATTN, C_ATTN_BIAS, O_PROJ, EXPERTS, QWEN2_SHARED, INPUT_NORM, POST_ATTN_NORM],
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["deepseek"],
        layer: &[WQKV_PACK, O_PROJ, O_PROJ_BIAS, DEEPSEEK_MLP, INPUT_NORM, POST_ATTN_NORM],
        bias_key: Some(("attention_bias", false)),
        block: Arithmetic { mlc: &[Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["deepseek_v2", "deepseek_v3"],
        layer: &[LATENT, O_PROJ_BIAS, DEEPSEEK_MLP, INPUT_NORM, POST_ATTN_NORM],
        bias_key: Some(("attention_bias", false)),
        block: DEEPSEEK_YARN,
        ..BASE
    },
    Family {
        model_types: &["llama4"],
        sourced: ("", "language_model."),
        layer: &[LLAMA4_LAYER, O_PROJ, O_PROJ_BIAS, INPUT_NORM, POST_ATTN_NORM],
        bias_key: Some(("attention_bias", false)),
        block: Arithmetic { rotation: Rotation::Interleaved, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["qwen3_5"],
        sourced: ("model.", "model.language_model."),
        layer: &[QWEN3_5_LAYER, GATE_UP, DOWN],
        last: &[QWEN3_5_FINAL_NORM, LM_HEAD],
        block: Arithmetic { gated: true, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["bert"],
        first: &[BERT_FIRST],
        layer: &[BERT_LAYER],
        last: &[],
        tie: Tie::Always,
        learned_positions: true,
        block: Arithmetic {
            norm: NormKind::Layer,
            mlp: Mlp::Plain,
            rotation: Rotation::None,
            encoder: true,
            ..GATED
        },
        ..BASE
    },
];
