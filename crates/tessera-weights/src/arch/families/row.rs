//! A row of the tables: a parameter whose sizes are names.

use crate::arch::ParamKind::{self, Embedding, Head, Linear, Vector};
use crate::arch::{Role, Sizes};
use Dim::{Hidden, Vocab};

/// A size by name, given a number by [`Sizes::dim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Dim {
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
pub(in crate::arch) enum From {
    /// One source under the parameter's own name.
    Same(Dim),
    /// These sources.
    Names(&'static [(&'static str, Dim)]),
    /// These sources of each expert, one expert after the other.
    Experts(&'static [(&'static str, Dim)]),
}

/// [`super::Combine`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum How {
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
pub(in crate::arch) enum When {
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
    pub(in crate::arch) fn holds(self, sizes: &Sizes, layer: Option<usize>) -> bool {
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
pub(in crate::arch) struct Row {
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
    pub(in crate::arch) const fn of(self, names: &'static [(&'static str, Dim)]) -> Row {
        Row { from: From::Names(names), ..self }
    }

    pub(in crate::arch) const fn of_experts(self, names: &'static [(&'static str, Dim)]) -> Row {
        Row { from: From::Experts(names), ..self }
    }

    pub(in crate::arch) const fn stacked(self, lead: Dim) -> Row {
        Row { lead: Some(lead), ..self }
    }

    pub(in crate::arch) const fn how(self, combine: How) -> Row {
        Row { combine, ..self }
    }

    pub(in crate::arch) const fn when(self, when: When) -> Row {
        Row { when, ..self }
    }

    pub(in crate::arch) const fn kind(self, kind: ParamKind) -> Row {
        Row { kind, ..self }
    }
}

pub(in crate::arch) const fn linear(role: Role, name: &'static str, rows: Dim, cols: Dim) -> Row {
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

pub(in crate::arch) const fn embedding(role: Role, name: &'static str, rows: Dim) -> Row {
    linear(role, name, rows, Hidden).kind(Embedding)
}

pub(in crate::arch) const fn head(name: &'static str) -> Row {
    linear(Role::Head, name, Vocab, Hidden).kind(Head)
}

pub(in crate::arch) const fn vector(role: Role, name: &'static str, len: Dim) -> Row {
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
