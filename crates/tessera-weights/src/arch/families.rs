//! The tables: for each model type, its parameters in module order, and what its blocks compute.
//!
//! A row reads: its role, MLC's name, where its values come from, its columns, its kind, how, and when it exists.

mod mixed;
mod names;
mod recurrent;

use super::ParamKind::{self, Embedding, Head, Linear, Vector};
use super::Sizes;
use super::block::Mlp;
use super::block::NormKind::Layer;
use super::blocks::{Arithmetic, Departure, GATED, Rotation};
use super::role::{Place, Role};
use Dim::*;
use names::*;

/// A size by name, given a number by [`Sizes::dim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    Vocab,
    Hidden,
    Inter,
    TwoInter,
    /// All query heads.
    Q,
    /// All key heads, or all value heads.
    Kv,
    /// Query, key and value heads.
    Qkv,
    /// One head.
    Head,
    Positions,
    TokenTypes,
    One,
    /// How many attention heads there are.
    Heads,
    /// How many experts there are.
    Experts,
    /// Width of an expert.
    Expert,
    TwoExpert,
    /// Width of the expert that every row goes through.
    Shared,
    TwoShared,
    /// All query heads, each with its gate.
    GatedQ,
    /// The same with key and value heads.
    GatedQkv,
    /// Query, key and value heads of a delta net.
    DeltaQkv,
    /// Its value heads.
    DeltaV,
    /// One of them.
    DeltaHead,
    /// How many there are.
    DeltaHeads,
    /// Taps of its convolution.
    Kernel,
    QRank,
    KvRank,
    /// The latent row of keys and values, and the key dimensions that turn.
    KvRankRope,
    /// Of every head, the key dimensions that do not turn, and the value.
    KvHeads,
    /// All value heads of latent attention.
    LatentV,
    /// Of a latent head, the dimensions that do not turn.
    Nope,
    /// Its value.
    Value,
    Five,
    /// Narrow rows of a recurrence.
    Mix,
    FiveMix,
    Decay,
}

/// Where a parameter's rows come from; each source with its number of rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// One source under the parameter's own name.
    Same(Dim),
    /// These sources.
    Names(&'static [(&'static str, Dim)]),
    /// These sources of each expert, one expert after the other.
    Experts(&'static [(&'static str, Dim)]),
}

/// [`super::Combine`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Rows,
    Copy,
    Transpose,
    AddOne,
    AddOneWide,
    PerHead,
    PerGroup,
    HeadKeys,
    HeadValues,
    Halved,
}

/// When a row applies.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Always,
    Untied,
    QkvBias,
    OutBias,
    MlpBias,
    /// In layers that have experts.
    Experts,
    /// In the others.
    Dense,
    /// In layers that have experts, where the model has an expert for every row, too.
    Shared,
    /// In layers whose place of attention a recurrence takes.
    Delta,
    /// In the others.
    Attention,
    /// Where queries come from the hidden state.
    WholeQ,
    /// Where they come from a narrow row.
    LatentQ,
    /// In that case, with a bias.
    LatentQBias,
    /// In layers that have experts, where the choice among them is corrected.
    Correction,
    /// In the first layer.
    First,
}

impl When {
    pub(super) fn holds(self, sizes: &Sizes, layer: Option<usize>) -> bool {
        let within = |layers: &[bool]| layer.is_some_and(|i| layers.get(i) == Some(&true));
        let parts = &sizes.parts;
        let experts = || parts.experts.as_ref().filter(|e| within(&e.layers));
        let delta = || parts.delta.as_ref().is_some_and(|d| within(&d.layers));
        let q_rank = || parts.latent.is_some_and(|latent| latent.q_rank.is_some());
        match self {
            When::Always => true,
            When::Untied => !sizes.tied,
            When::QkvBias => sizes.qkv_bias,
            When::OutBias => sizes.out_bias,
            When::MlpBias => sizes.mlp_bias,
            When::Experts => experts().is_some(),
            When::Dense => experts().is_none(),
            When::Shared => experts().is_some_and(|e| e.shared > 0),
            When::Correction => experts().is_some_and(|e| e.corrected),
            When::First => layer == Some(0),
            When::Delta => delta(),
            When::Attention => !delta(),
            When::WholeQ => !q_rank(),
            When::LatentQ => q_rank(),
            When::LatentQBias => q_rank() && sizes.qkv_bias,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its part; whether it is the weight or the bias follows from the name's end.
    pub role: Role,
    pub name: &'static str,
    pub from: From,
    pub cols: Option<Dim>,
    /// An axis before the rows.
    pub lead: Option<Dim>,
    pub kind: ParamKind,
    pub combine: How,
    pub when: When,
}

impl Row {
    const fn of(self, names: &'static [(&'static str, Dim)]) -> Row {
        Row { from: From::Names(names), ..self }
    }

    const fn of_experts(self, names: &'static [(&'static str, Dim)]) -> Row {
        Row { from: From::Experts(names), ..self }
    }

    const fn stacked(self, lead: Dim) -> Row {
        Row { lead: Some(lead), ..self }
    }

    const fn how(self, combine: How) -> Row {
        Row { combine, ..self }
    }

    const fn when(self, when: When) -> Row {
        Row { when, ..self }
    }

    const fn kind(self, kind: ParamKind) -> Row {
        Row { kind, ..self }
    }
}

const fn linear(role: Role, name: &'static str, rows: Dim, cols: Dim) -> Row {
    Row {
        role,
        name,
        from: From::Same(rows),
        cols: Some(cols),
        lead: None,
        kind: Linear,
        combine: How::Rows,
        when: When::Always,
    }
}

const fn embedding(role: Role, name: &'static str, rows: Dim) -> Row {
    linear(role, name, rows, Hidden).kind(Embedding)
}

const fn head(name: &'static str) -> Row {
    linear(Role::Head, name, Vocab, Hidden).kind(Head)
}

const fn vector(role: Role, name: &'static str, len: Dim) -> Row {
    Row {
        role,
        name,
        from: From::Same(len),
        cols: None,
        lead: None,
        kind: Vector,
        combine: How::Rows,
        when: When::Always,
    }
}

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
    /// Whether the decoder has everything that its blocks compute.
    pub runs: bool,
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
    runs: true,
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
