//! The tables: for each model type, its parameters in module order, and what its blocks compute.
//!
//! A row reads: its role, MLC's name, where its values come from, its columns, its kind, how, and when it exists.

mod mixed;
mod names;
mod recurrent;
mod row;

use super::block::Mlp;
use super::block::NormKind::Layer;
use super::blocks::{Arithmetic, Departure, GATED, Rotation};
use super::role::{Place, Role};
use Dim::*;
use names::*;
pub(super) use row::{Dim, From, How, Row, When};
use row::{embedding, head, linear, vector};

/// Whether the head is the embedding.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tie {
    Always,
    Never,
    Config { default: bool },
}

pub(super) type Rows = &'static [Row];

#[derive(Debug)]
pub(super) struct Family {
    pub model_types: &'static [&'static str],
    /// How MLC's names begin instead of as in the table.
    pub named: (&'static str, &'static str),
    /// How the sources' names begin instead of as in the table.
    pub sourced: (&'static str, &'static str),
    pub first: &'static [Rows],
    pub layer: &'static [Rows],
    pub last: &'static [Rows],
    pub tie: Tie,
    /// The config key that turns on attention biases, and what its absence means.
    pub bias_key: Option<(&'static str, bool)>,
    /// The config key that turns on the MLP's biases, and what its absence means.
    pub mlp_bias_key: Option<(&'static str, bool)>,
    /// Whether the MLP's width is four times the hidden size unless given.
    pub mlp_is_four_hidden: bool,
    pub learned_positions: bool,
    /// Tensors of a folder, by how their names begin, that are no part of the language model.
    pub left_out: &'static [&'static str],
    /// What its blocks compute.
    pub block: Arithmetic,
}

const BASE: Family = Family {
    model_types: &[],
    named: ("", ""),
    sourced: ("", ""),
    first: &[EMBED],
    layer: &[],
    last: &[FINAL_NORM, LM_HEAD],
    tie: Tie::Config { default: false },
    bias_key: None,
    mlp_bias_key: None,
    mlp_is_four_hidden: false,
    learned_positions: false,
    left_out: &[],
    block: GATED,
};

/// Every family.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().chain(mixed::FAMILIES).chain(recurrent::FAMILIES)
}

const FAMILIES: &[Family] = &[
    Family {
        model_types: &["llama"],
        layer: LLAMA_LAYER,
        bias_key: Some(("attention_bias", false)),
        mlp_bias_key: Some(("mlp_bias", false)),
        ..BASE
    },
    Family {
        model_types: &["mistral"],
        layer: LLAMA_LAYER,
        bias_key: Some(("attention_bias", false)),
        mlp_bias_key: Some(("mlp_bias", false)),
        block: Arithmetic { mlc: &[Departure::CacheWindow], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["ministral3"],
        sourced: ("", "language_model."),
        layer: LLAMA_LAYER,
        bias_key: Some(("attention_bias", false)),
        mlp_bias_key: Some(("mlp_bias", false)),
        block: Arithmetic {
            mlc: &[
                Departure::CacheWindow,
                Departure::PlainRamp,
                Departure::YarnScale,
                Departure::NoPositionScale,
            ],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["qwen2"],
        layer: &[C_ATTN, C_ATTN_BIAS, O_PROJ, GATE_UP, DOWN, INPUT_NORM, POST_ATTN_NORM],
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["qwen3"],
        layer: &[
            C_ATTN,
            C_ATTN_BIAS_IF,
            O_PROJ,
            O_PROJ_BIAS,
            QK_NORM,
            GATE_UP,
            DOWN,
            INPUT_NORM,
            POST_ATTN_NORM,
        ],
        bias_key: Some(("attention_bias", false)),
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["gemma"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, GEMMA_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
        block: Arithmetic { root_hidden: true, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["gemma2"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, GEMMA_FOUR_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
        block: Arithmetic {
            root_hidden: true,
            mlc: &[Departure::NoAttentionCap, Departure::ScaleByHead, Departure::NoWindow],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["gemma3_text"],
        named: ("", "language_model."),
        layer: &[GEMMA3_ATTENTION, GATE_UP, DOWN, GEMMA_FOUR_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
        block: Arithmetic {
            root_hidden: true,
            mlc: &[
                Departure::LayerWindow(1024),
                Departure::OneBase,
                Departure::NoRopeScaling,
                Departure::NoLogitCap,
            ],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["gpt2"],
        first: &[GPT2_FIRST],
        layer: &[GPT2_LAYER],
        last: &[GPT2_LAST],
        tie: Tie::Never,
        mlp_is_four_hidden: true,
        learned_positions: true,
        block: Arithmetic { norm: Layer, mlp: Mlp::Plain, rotation: Rotation::None, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["gpt_neox"],
        first: &[&[embedding(Role::Embed, "gpt_neox.embed_in.weight", Vocab)]],
        layer: &[NEOX_LAYER],
        last: &[&[
            vector(Role::Norm(Place::Final), "gpt_neox.final_layer_norm.weight", Hidden),
            vector(Role::Norm(Place::Final), "gpt_neox.final_layer_norm.bias", Hidden),
            head("embed_out.weight"),
        ]],
        tie: Tie::Never,
        bias_key: Some(("attention_bias", true)),
        block: Arithmetic { norm: Layer, mlp: Mlp::Plain, mlc: &[Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["internlm2"],
        first: &[&[embedding(Role::Embed, "model.tok_embeddings.weight", Vocab)]],
        layer: &[INTERNLM2_LAYER],
        // Not `head`: the module is called `output`, which no scheme takes for the final layer.
        last: &[FINAL_NORM, &[linear(Role::Head, "output.weight", Vocab, Hidden)]],
        tie: Tie::Never,
        bias_key: Some(("bias", false)),
        block: Arithmetic { mlc: &[Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["phi3"],
        first: &[&[embedding(Role::Embed, "transformer.embd.weight", Vocab).of(PHI_EMBED)]],
        layer: &[PHI3_LAYER],
        last: &[
            &[vector(Role::Norm(Place::Final), "transformer.norm.weight", Hidden)
                .of(&[("model.norm.weight", Hidden)])],
            LM_HEAD,
        ],
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::LongRopeByCall], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["phi3_v"],
        named: ("transformer.", "model."),
        left_out: &["vision_embed_tokens."],
        first: &[&[embedding(Role::Embed, "transformer.embd.weight", Vocab).of(PHI_EMBED)]],
        layer: &[PHI3_LAYER],
        last: &[
            &[vector(Role::Norm(Place::Final), "transformer.norm.weight", Hidden)
                .of(&[("model.norm.weight", Hidden)])],
            LM_HEAD,
        ],
        tie: Tie::Never,
        block: Arithmetic { mlc: &[Departure::NoWindow, Departure::LongRopeByCall], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["phi"],
        first: &[&[embedding(Role::Embed, "transformer.embd.weight", Vocab).of(PHI_EMBED)]],
        layer: &[PHI_LAYER],
        last: &[PHI_LAST],
        tie: Tie::Never,
        block: Arithmetic { norm: Layer, parallel: true, mlp: Mlp::Plain, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["orion"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        block: Arithmetic { norm: Layer, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["stablelm"],
        layer: &[QKV_PROJ, QKV_PROJ_BIAS, O_PROJ, GATE_UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        bias_key: Some(("use_qkv_bias", false)),
        block: Arithmetic { norm: Layer, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["baichuan"],
        layer: &[
            &[linear(Role::Qkv, "model.layers.{i}.self_attn.W_pack.weight", Qkv, Hidden)],
            O_PROJ,
            GATE_UP,
            DOWN,
            INPUT_NORM,
            POST_ATTN_NORM,
        ],
        ..BASE
    },
    Family {
        model_types: &["internlm"],
        layer: &[WQKV_PACK, O_PROJ, O_PROJ_BIAS, GATE_UP, DOWN, INPUT_NORM, POST_ATTN_NORM],
        bias_key: Some(("bias", true)),
        block: Arithmetic { mlc: &[Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["starcoder2"],
        layer: &[WQKV_PACK, O_PROJ, O_PROJ_BIAS, STARCODER2_MLP, LAYER_NORMS],
        last: &[
            FINAL_NORM,
            FINAL_NORM_BIAS,
            &[head("lm_head.weight").of(&[("model.embed_tokens.weight", Vocab)]).how(How::Copy)],
        ],
        tie: Tie::Never,
        bias_key: Some(("use_bias", true)),
        mlp_bias_key: Some(("use_bias", true)),
        block: Arithmetic { norm: Layer, mlp: Mlp::Plain, mlc: &[Departure::NoWindow], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["cohere"],
        layer: &[
            QKV_PROJ,
            &[linear(Role::Out, "model.layers.{i}.self_attn.out_proj.weight", Hidden, Q)
                .of(&[("model.layers.{i}.self_attn.o_proj.weight", Hidden)])],
            GATE,
            UP,
            DOWN,
            INPUT_NORM,
        ],
        tie: Tie::Always,
        block: Arithmetic {
            norm: Layer,
            parallel: true,
            rotation: Rotation::Interleaved,
            mlc: &[Departure::HalfSplit, Departure::NoLogitScale],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["olmo"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN],
        last: &[LM_HEAD],
        block: Arithmetic { norm: Layer, bare: true, eps: Some(1e-5), ..GATED },
        ..BASE
    },
    Family {
        model_types: &["olmo2"],
        layer: &[QKV_PROJ, O_PROJ, QK_NORM_WIDE, GATE_UP, DOWN, ATTN_RESULT_NORM, POST_FF_NORM],
        ..BASE
    },
    Family {
        model_types: &["nemotron"],
        layer: &[QKV_PROJ, O_PROJ, UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        block: Arithmetic { norm: Layer, norm_offset: 1.0, mlp: Mlp::Plain, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["phi-msft"],
        first: &[&[embedding(Role::Embed, "transformer.embd.weight", Vocab)
            .of(&[("transformer.embd.wte.weight", Vocab)])]],
        layer: &[PHI_MSFT_LAYER],
        last: &[PHI_MSFT_LAST],
        tie: Tie::Never,
        mlp_is_four_hidden: true,
        block: Arithmetic { norm: Layer, parallel: true, mlp: Mlp::Plain, ..GATED },
        ..BASE
    },
    Family {
        model_types: &["gpt_bigcode"],
        first: &[&[
            embedding(Role::Embed, "transformer.wte.weight", Vocab),
            embedding(Role::Positions, "transformer.wpe.weight", Positions),
        ]],
        layer: &[BIGCODE_LAYER],
        last: &[&[
            vector(Role::Norm(Place::Final), "transformer.ln_f.weight", Hidden),
            vector(Role::Norm(Place::Final), "transformer.ln_f.bias", Hidden),
            head("lm_head.weight"),
        ]],
        tie: Tie::Never,
        mlp_is_four_hidden: true,
        learned_positions: true,
        block: Arithmetic {
            norm: Layer,
            mlp: Mlp::Plain,
            rotation: Rotation::None,
            mlc: &[Departure::ErfGelu],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["minicpm"],
        layer: &[WQKV_PACK, O_PROJ, GATE_UP, DOWN, INPUT_NORM, POST_ATTN_NORM],
        block: Arithmetic { mlc: &[Departure::NoRopeScaling], ..GATED },
        ..BASE
    },
    Family {
        model_types: &["chatglm"],
        first: &[&[embedding(Role::Embed, "transformer.embedding.weight", Vocab)
            .of(&[("transformer.embedding.word_embeddings.weight", Vocab)])]],
        layer: &[CHATGLM_LAYER],
        // Not `head`: the module is called `output_layer`.
        last: &[&[
            vector(Role::Norm(Place::Final), "transformer.encoder.final_layernorm.weight", Hidden),
            linear(Role::Head, "transformer.output_layer.weight", Vocab, Hidden),
        ]],
        tie: Tie::Never,
        bias_key: Some(("add_qkv_bias", false)),
        block: Arithmetic {
            rotation: Rotation::Interleaved,
            mlc: &[Departure::HalfSplit, Departure::WholeHead],
            ..GATED
        },
        ..BASE
    },
    Family {
        model_types: &["qwen"],
        first: &[&[embedding(Role::Embed, "transformer.wte.weight", Vocab)]],
        layer: &[QWEN_LAYER],
        last: &[&[
            vector(Role::Norm(Place::Final), "transformer.ln_f.weight", Hidden),
            head("lm_head.weight"),
        ]],
        tie: Tie::Never,
        block: Arithmetic { mlp: Mlp::GatedSecond, ..GATED },
        ..BASE
    },
];
