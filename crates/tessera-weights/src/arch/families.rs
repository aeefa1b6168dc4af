//! The tables: for each model type, its parameters in module order.
//!
//! A row reads: MLC's name, where its values come from, its columns, its kind, how, and when it exists.
//! `{i}` is the layer. Rows that several families share are written once.

use super::ParamKind::{self, Embedding, Head, Linear, Vector, VectorF32};
use super::Sizes;
use Dim::*;

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
}

/// Where a parameter's rows come from; each source with its number of rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// One source under the parameter's own name.
    Same(Dim),
    /// These sources.
    Names(&'static [(&'static str, Dim)]),
}

/// [`super::Combine`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Rows,
    Copy,
    Transpose,
    AddOne,
    PerHead,
    PerGroup,
}

/// When a row applies.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Always,
    Untied,
    QkvBias,
    OutBias,
    MlpBias,
}

impl When {
    pub(super) fn holds(self, sizes: &Sizes) -> bool {
        match self {
            When::Always => true,
            When::Untied => !sizes.tied,
            When::QkvBias => sizes.qkv_bias,
            When::OutBias => sizes.out_bias,
            When::MlpBias => sizes.mlp_bias,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub name: &'static str,
    pub from: From,
    pub cols: Option<Dim>,
    pub kind: ParamKind,
    pub combine: How,
    pub when: When,
}

impl Row {
    const fn of(self, names: &'static [(&'static str, Dim)]) -> Row {
        Row { from: From::Names(names), ..self }
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

const fn linear(name: &'static str, rows: Dim, cols: Dim) -> Row {
    Row {
        name,
        from: From::Same(rows),
        cols: Some(cols),
        kind: Linear,
        combine: How::Rows,
        when: When::Always,
    }
}

const fn embedding(name: &'static str, rows: Dim) -> Row {
    linear(name, rows, Hidden).kind(Embedding)
}

const fn head(name: &'static str) -> Row {
    linear(name, Vocab, Hidden).kind(Head)
}

const fn vector(name: &'static str, len: Dim) -> Row {
    Row { name, from: From::Same(len), cols: None, kind: Vector, combine: How::Rows, when: When::Always }
}

/// Whether the head is the embedding.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tie {
    Always,
    Never,
    Config { default: bool },
}

type Rows = &'static [Row];

#[derive(Debug)]
pub(super) struct Family {
    pub model_types: &'static [&'static str],
    /// Put before MLC's names, not before the sources'.
    pub prefix: &'static str,
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
}

const BASE: Family = Family {
    model_types: &[],
    prefix: "",
    first: &[EMBED],
    layer: &[],
    last: &[FINAL_NORM, LM_HEAD],
    tie: Tie::Config { default: false },
    bias_key: None,
    mlp_bias_key: None,
    mlp_is_four_hidden: false,
    learned_positions: false,
};

const EMBED: Rows = &[embedding("model.embed_tokens.weight", Vocab)];
const FINAL_NORM: Rows = &[vector("model.norm.weight", Hidden)];
const FINAL_NORM_BIAS: Rows = &[vector("model.norm.bias", Hidden)];
const LM_HEAD: Rows = &[head("lm_head.weight").when(When::Untied)];

const QKV: &[(&str, Dim)] = &[
    ("model.layers.{i}.self_attn.q_proj.weight", Q),
    ("model.layers.{i}.self_attn.k_proj.weight", Kv),
    ("model.layers.{i}.self_attn.v_proj.weight", Kv),
];
const QKV_BIAS: &[(&str, Dim)] = &[
    ("model.layers.{i}.self_attn.q_proj.bias", Q),
    ("model.layers.{i}.self_attn.k_proj.bias", Kv),
    ("model.layers.{i}.self_attn.v_proj.bias", Kv),
];
const QKV_PROJ: Rows = &[linear("model.layers.{i}.self_attn.qkv_proj.weight", Qkv, Hidden).of(QKV)];
const QKV_PROJ_BIAS: Rows =
    &[vector("model.layers.{i}.self_attn.qkv_proj.bias", Qkv).of(QKV_BIAS).when(When::QkvBias)];
const C_ATTN: Rows = &[linear("model.layers.{i}.self_attn.c_attn.weight", Qkv, Hidden).of(QKV)];
const C_ATTN_BIAS: Rows = &[vector("model.layers.{i}.self_attn.c_attn.bias", Qkv).of(QKV_BIAS)];
const WQKV_PACK: Rows = &[
    linear("model.layers.{i}.self_attn.wqkv_pack.weight", Qkv, Hidden).of(QKV),
    vector("model.layers.{i}.self_attn.wqkv_pack.bias", Qkv).of(QKV_BIAS).when(When::QkvBias),
];
const O_PROJ: Rows = &[linear("model.layers.{i}.self_attn.o_proj.weight", Hidden, Q)];
const O_PROJ_BIAS: Rows = &[vector("model.layers.{i}.self_attn.o_proj.bias", Hidden).when(When::OutBias)];
const QK_NORM: Rows = &[
    vector("model.layers.{i}.self_attn.q_norm.weight", Dim::Head),
    vector("model.layers.{i}.self_attn.k_norm.weight", Dim::Head),
];
const QK_NORM_WIDE: Rows = &[
    vector("model.layers.{i}.self_attn.q_norm.weight", Q),
    vector("model.layers.{i}.self_attn.k_norm.weight", Kv),
];

const GATE_UP: Rows = &[linear("model.layers.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden)
    .of(&[("model.layers.{i}.mlp.gate_proj.weight", Inter), ("model.layers.{i}.mlp.up_proj.weight", Inter)])];
const GATE_UP_BIAS: Rows = &[vector("model.layers.{i}.mlp.gate_up_proj.bias", TwoInter)
    .of(&[("model.layers.{i}.mlp.gate_proj.bias", Inter), ("model.layers.{i}.mlp.up_proj.bias", Inter)])
    .when(When::MlpBias)];
const UP: Rows = &[linear("model.layers.{i}.mlp.up_proj.weight", Inter, Hidden)];
const GATE: Rows = &[linear("model.layers.{i}.mlp.gate_proj.weight", Inter, Hidden)];
const DOWN: Rows = &[linear("model.layers.{i}.mlp.down_proj.weight", Hidden, Inter)];
const DOWN_BIAS: Rows = &[vector("model.layers.{i}.mlp.down_proj.bias", Hidden).when(When::MlpBias)];

const INPUT_NORM: Rows = &[vector("model.layers.{i}.input_layernorm.weight", Hidden)];
const POST_ATTN_NORM: Rows = &[vector("model.layers.{i}.post_attention_layernorm.weight", Hidden)];
const POST_FF_NORM: Rows = &[vector("model.layers.{i}.post_feedforward_layernorm.weight", Hidden)];
const LAYER_NORMS: Rows = &[
    vector("model.layers.{i}.input_layernorm.weight", Hidden),
    vector("model.layers.{i}.input_layernorm.bias", Hidden),
    vector("model.layers.{i}.post_attention_layernorm.weight", Hidden),
    vector("model.layers.{i}.post_attention_layernorm.bias", Hidden),
];

const GEMMA_NORMS: Rows = &[
    vector("model.layers.{i}.input_layernorm.weight", Hidden).how(How::AddOne),
    vector("model.layers.{i}.post_attention_layernorm.weight", Hidden).how(How::AddOne),
];
const GEMMA_FF_NORMS: Rows = &[
    vector("model.layers.{i}.pre_feedforward_layernorm.weight", Hidden).how(How::AddOne),
    vector("model.layers.{i}.post_feedforward_layernorm.weight", Hidden).how(How::AddOne),
];
const GEMMA_FINAL_NORM: Rows = &[vector("model.norm.weight", Hidden).how(How::AddOne)];
const GEMMA3_ATTENTION: Rows = &[
    linear("model.layers.{i}.self_attn.q_proj.weight", Q, Hidden),
    linear("model.layers.{i}.self_attn.k_proj.weight", Kv, Hidden),
    linear("model.layers.{i}.self_attn.v_proj.weight", Kv, Hidden),
    linear("model.layers.{i}.self_attn.o_proj.weight", Hidden, Q),
    vector("model.layers.{i}.self_attn.q_norm.weight", Dim::Head).how(How::AddOne),
    vector("model.layers.{i}.self_attn.k_norm.weight", Dim::Head).how(How::AddOne),
];

const GPT2_FIRST: Rows = &[
    embedding("transformer.wte.weight", Vocab).of(&[("wte.weight", Vocab)]),
    embedding("transformer.wpe.weight", Positions).of(&[("wpe.weight", Positions)]),
];
const GPT2_LAYER: Rows = &[
    vector("transformer.h.{i}.ln_1.weight", Hidden).of(&[("h.{i}.ln_1.weight", Hidden)]),
    vector("transformer.h.{i}.ln_1.bias", Hidden).of(&[("h.{i}.ln_1.bias", Hidden)]),
    linear("transformer.h.{i}.attn.c_attn.weight", Qkv, Hidden)
        .of(&[("h.{i}.attn.c_attn.weight", Qkv)])
        .how(How::Transpose),
    vector("transformer.h.{i}.attn.c_attn.bias", Qkv).of(&[("h.{i}.attn.c_attn.bias", Qkv)]),
    linear("transformer.h.{i}.attn.c_proj.weight", Hidden, Hidden)
        .of(&[("h.{i}.attn.c_proj.weight", Hidden)])
        .how(How::Transpose),
    vector("transformer.h.{i}.attn.c_proj.bias", Hidden).of(&[("h.{i}.attn.c_proj.bias", Hidden)]),
    vector("transformer.h.{i}.ln_2.weight", Hidden).of(&[("h.{i}.ln_2.weight", Hidden)]),
    vector("transformer.h.{i}.ln_2.bias", Hidden).of(&[("h.{i}.ln_2.bias", Hidden)]),
    linear("transformer.h.{i}.mlp.c_fc.weight", Inter, Hidden)
        .of(&[("h.{i}.mlp.c_fc.weight", Inter)])
        .how(How::Transpose),
    vector("transformer.h.{i}.mlp.c_fc.bias", Inter).of(&[("h.{i}.mlp.c_fc.bias", Inter)]),
    linear("transformer.h.{i}.mlp.c_proj.weight", Hidden, Inter)
        .of(&[("h.{i}.mlp.c_proj.weight", Hidden)])
        .how(How::Transpose),
    vector("transformer.h.{i}.mlp.c_proj.bias", Hidden).of(&[("h.{i}.mlp.c_proj.bias", Hidden)]),
];
const GPT2_LAST: Rows = &[
    vector("transformer.ln_f.weight", Hidden).of(&[("ln_f.weight", Hidden)]),
    vector("transformer.ln_f.bias", Hidden).of(&[("ln_f.bias", Hidden)]),
    head("lm_head.weight").of(&[("wte.weight", Vocab)]).how(How::Copy),
];

const NEOX_LAYER: Rows = &[
    vector("gpt_neox.layers.{i}.input_layernorm.weight", Hidden),
    vector("gpt_neox.layers.{i}.input_layernorm.bias", Hidden),
    vector("gpt_neox.layers.{i}.post_attention_layernorm.weight", Hidden),
    vector("gpt_neox.layers.{i}.post_attention_layernorm.bias", Hidden),
    linear("gpt_neox.layers.{i}.attention.query_key_value.weight", Qkv, Hidden).how(How::PerHead),
    vector("gpt_neox.layers.{i}.attention.query_key_value.bias", Qkv).how(How::PerHead),
    linear("gpt_neox.layers.{i}.attention.dense.weight", Hidden, Q),
    vector("gpt_neox.layers.{i}.attention.dense.bias", Hidden),
    linear("gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight", Inter, Hidden),
    vector("gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias", Inter).kind(VectorF32),
    linear("gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight", Hidden, Inter),
    vector("gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias", Hidden).kind(VectorF32),
];

const INTERNLM2_LAYER: Rows = &[
    linear("model.layers.{i}.attention.wqkv.weight", Qkv, Hidden).how(How::PerGroup),
    linear("model.layers.{i}.attention.wo.weight", Hidden, Q),
    linear("model.layers.{i}.feed_forward.gate_up_proj.weight", TwoInter, Hidden).of(&[
        ("model.layers.{i}.feed_forward.w1.weight", Inter),
        ("model.layers.{i}.feed_forward.w3.weight", Inter),
    ]),
    linear("model.layers.{i}.feed_forward.w2.weight", Hidden, Inter),
    vector("model.layers.{i}.attention_norm.weight", Hidden),
    vector("model.layers.{i}.ffn_norm.weight", Hidden),
];

const PHI3_LAYER: Rows = &[
    vector("transformer.h.{i}.ln.weight", Hidden).of(&[("model.layers.{i}.input_layernorm.weight", Hidden)]),
    linear("transformer.h.{i}.mixer.qkv_proj.weight", Qkv, Hidden)
        .of(&[("model.layers.{i}.self_attn.qkv_proj.weight", Qkv)]),
    linear("transformer.h.{i}.mixer.out_proj.weight", Hidden, Q)
        .of(&[("model.layers.{i}.self_attn.o_proj.weight", Hidden)]),
    linear("transformer.h.{i}.mlp.gate_up_proj.weight", TwoInter, Hidden)
        .of(&[("model.layers.{i}.mlp.gate_up_proj.weight", TwoInter)]),
    linear("transformer.h.{i}.mlp.down_proj.weight", Hidden, Inter)
        .of(&[("model.layers.{i}.mlp.down_proj.weight", Hidden)]),
    vector("transformer.h.{i}.post_attention_layernorm.weight", Hidden)
        .of(&[("model.layers.{i}.post_attention_layernorm.weight", Hidden)]),
];

const PHI_EMBED: &[(&str, Dim)] = &[("model.embed_tokens.weight", Vocab)];
const PHI_LAYER: Rows = &[
    vector("transformer.h.{i}.ln.weight", Hidden).of(&[("model.layers.{i}.input_layernorm.weight", Hidden)]),
    vector("transformer.h.{i}.ln.bias", Hidden).of(&[("model.layers.{i}.input_layernorm.bias", Hidden)]),
    linear("transformer.h.{i}.mixer.Wqkv.weight", Qkv, Hidden).of(QKV),
    vector("transformer.h.{i}.mixer.Wqkv.bias", Qkv).of(QKV_BIAS),
    linear("transformer.h.{i}.mixer.out_proj.weight", Hidden, Q)
        .of(&[("model.layers.{i}.self_attn.dense.weight", Hidden)]),
    vector("transformer.h.{i}.mixer.out_proj.bias", Hidden)
        .of(&[("model.layers.{i}.self_attn.dense.bias", Hidden)]),
    linear("transformer.h.{i}.mlp.fc1.weight", Inter, Hidden)
        .of(&[("model.layers.{i}.mlp.fc1.weight", Inter)]),
    vector("transformer.h.{i}.mlp.fc1.bias", Inter).of(&[("model.layers.{i}.mlp.fc1.bias", Inter)]),
    linear("transformer.h.{i}.mlp.fc2.weight", Hidden, Inter)
        .of(&[("model.layers.{i}.mlp.fc2.weight", Hidden)]),
    vector("transformer.h.{i}.mlp.fc2.bias", Hidden).of(&[("model.layers.{i}.mlp.fc2.bias", Hidden)]),
];
const PHI_LAST: Rows = &[
    vector("lm_head.ln.weight", Hidden).of(&[("model.final_layernorm.weight", Hidden)]),
    vector("lm_head.ln.bias", Hidden).of(&[("model.final_layernorm.bias", Hidden)]),
    head("lm_head.linear.weight").of(&[("lm_head.weight", Vocab)]),
    vector("lm_head.linear.bias", Vocab).of(&[("lm_head.bias", Vocab)]),
];

const STARCODER2_MLP: Rows = &[
    linear("model.layers.{i}.mlp.c_fc.weight", Inter, Hidden),
    vector("model.layers.{i}.mlp.c_fc.bias", Inter).when(When::MlpBias),
    linear("model.layers.{i}.mlp.c_proj.weight", Hidden, Inter),
    vector("model.layers.{i}.mlp.c_proj.bias", Hidden).when(When::MlpBias),
];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        model_types: &["llama", "mistral"],
        layer: &[
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
        ],
        bias_key: Some(("attention_bias", false)),
        mlp_bias_key: Some(("mlp_bias", false)),
        ..BASE
    },
    Family {
        model_types: &["qwen2"],
        layer: &[C_ATTN, C_ATTN_BIAS, O_PROJ, GATE_UP, DOWN, INPUT_NORM, POST_ATTN_NORM],
        ..BASE
    },
    Family {
        model_types: &["qwen3"],
        layer: &[C_ATTN, O_PROJ, QK_NORM, GATE_UP, DOWN, INPUT_NORM, POST_ATTN_NORM],
        ..BASE
    },
    Family {
        model_types: &["gemma"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, GEMMA_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
        ..BASE
    },
    Family {
        model_types: &["gemma2"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, GEMMA_NORMS, GEMMA_FF_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
        ..BASE
    },
    Family {
        model_types: &["gemma3_text"],
        prefix: "language_model.",
        layer: &[GEMMA3_ATTENTION, GATE_UP, DOWN, GEMMA_NORMS, GEMMA_FF_NORMS],
        last: &[GEMMA_FINAL_NORM],
        tie: Tie::Always,
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
        ..BASE
    },
    Family {
        model_types: &["gpt_neox"],
        first: &[&[embedding("gpt_neox.embed_in.weight", Vocab)]],
        layer: &[NEOX_LAYER],
        last: &[&[
            vector("gpt_neox.final_layer_norm.weight", Hidden),
            vector("gpt_neox.final_layer_norm.bias", Hidden),
            head("embed_out.weight"),
        ]],
        tie: Tie::Never,
        bias_key: Some(("attention_bias", true)),
        ..BASE
    },
    Family {
        model_types: &["internlm2"],
        first: &[&[embedding("model.tok_embeddings.weight", Vocab)]],
        layer: &[INTERNLM2_LAYER],
        // Not `head`: the module is called `output`, which no scheme takes for the final layer.
        last: &[FINAL_NORM, &[linear("output.weight", Vocab, Hidden)]],
        tie: Tie::Never,
        ..BASE
    },
    Family {
        model_types: &["phi3"],
        first: &[&[embedding("transformer.embd.weight", Vocab).of(PHI_EMBED)]],
        layer: &[PHI3_LAYER],
        last: &[&[vector("transformer.norm.weight", Hidden).of(&[("model.norm.weight", Hidden)])], LM_HEAD],
        ..BASE
    },
    Family {
        model_types: &["phi"],
        first: &[&[embedding("transformer.embd.weight", Vocab).of(PHI_EMBED)]],
        layer: &[PHI_LAYER],
        last: &[PHI_LAST],
        tie: Tie::Never,
        ..BASE
    },
    Family {
        model_types: &["orion"],
        layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        ..BASE
    },
    Family {
        model_types: &["stablelm"],
        layer: &[QKV_PROJ, QKV_PROJ_BIAS, O_PROJ, GATE_UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        bias_key: Some(("use_qkv_bias", false)),
        ..BASE
    },
    Family {
        model_types: &["baichuan"],
        layer: &[
            &[linear("model.layers.{i}.self_attn.W_pack.weight", Qkv, Hidden)],
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
        ..BASE
    },
    Family {
        model_types: &["cohere"],
        layer: &[
            QKV_PROJ,
            &[linear("model.layers.{i}.self_attn.out_proj.weight", Hidden, Q)
                .of(&[("model.layers.{i}.self_attn.o_proj.weight", Hidden)])],
            GATE,
            UP,
            DOWN,
            INPUT_NORM,
        ],
        tie: Tie::Always,
        ..BASE
    },
    Family { model_types: &["olmo"], layer: &[QKV_PROJ, O_PROJ, GATE_UP, DOWN], last: &[LM_HEAD], ..BASE },
    Family {
        model_types: &["olmo2"],
        layer: &[QKV_PROJ, O_PROJ, QK_NORM_WIDE, GATE_UP, DOWN, POST_ATTN_NORM, POST_FF_NORM],
        ..BASE
    },
    Family {
        model_types: &["nemotron"],
        layer: &[QKV_PROJ, O_PROJ, UP, DOWN, LAYER_NORMS],
        last: &[FINAL_NORM, FINAL_NORM_BIAS, LM_HEAD],
        ..BASE
    },
];
