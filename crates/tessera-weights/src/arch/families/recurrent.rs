//! Families without attention.

use super::Dim::*;
use super::{BASE, Dim, Family, How, Row, Rows, Tie, When, embedding, head, linear, vector};
use crate::arch::ParamKind::{Plain, Router, VectorF32};
use crate::arch::block::{Mlp, NormKind};
use crate::arch::blocks::{Arithmetic, Departure, GATED, Rotation};
use crate::arch::role::Place::{Embed, Final, PreAttention, PreMlp};
use crate::arch::role::Role::{self, Norm, Own};

/// A factor for each channel, `[1, 1, hidden]`.
const fn channels(own: &'static str, name: &'static str) -> Row {
    linear(Own(own), name, One, Hidden).stacked(One).kind(Plain)
}

const fn plain(own: &'static str, name: &'static str, rows: Dim, cols: Dim) -> Row {
    linear(Own(own), name, rows, cols).kind(Plain)
}

const RWKV6_LAYER: Rows = &[
    vector(Norm(Embed), "model.blocks.{i}.pre_ln.weight", Hidden).when(When::First),
    vector(Norm(Embed), "model.blocks.{i}.pre_ln.bias", Hidden).when(When::First),
    vector(Norm(PreAttention), "model.blocks.{i}.ln1.weight", Hidden),
    vector(Norm(PreAttention), "model.blocks.{i}.ln1.bias", Hidden),
    vector(Norm(PreMlp), "model.blocks.{i}.ln2.weight", Hidden),
    vector(Norm(PreMlp), "model.blocks.{i}.ln2.bias", Hidden),
    channels("attention.time_maa_x", "model.blocks.{i}.attention.time_maa_x"),
    channels("attention.time_maa_w", "model.blocks.{i}.attention.time_maa_w"),
    channels("attention.time_maa_k", "model.blocks.{i}.attention.time_maa_k"),
    channels("attention.time_maa_v", "model.blocks.{i}.attention.time_maa_v"),
    channels("attention.time_maa_r", "model.blocks.{i}.attention.time_maa_r"),
    channels("attention.time_maa_g", "model.blocks.{i}.attention.time_maa_g"),
    plain("attention.time_maa_w1", "model.blocks.{i}.attention.time_maa_w1", Hidden, FiveMix),
    plain("attention.time_maa_w2", "model.blocks.{i}.attention.time_maa_w2", Mix, Hidden).stacked(Five),
    plain("attention.time_decay_w1", "model.blocks.{i}.attention.time_decay_w1", Hidden, Decay),
    plain("attention.time_decay_w2", "model.blocks.{i}.attention.time_decay_w2", Decay, Hidden),
    channels("attention.time_decay", "model.blocks.{i}.attention.time_decay").kind(VectorF32),
    plain("attention.time_faaaa", "model.blocks.{i}.attention.time_faaaa", Heads, Dim::Head).kind(VectorF32),
    linear(Own("attention.key"), "model.blocks.{i}.attention.key.weight", Hidden, Hidden),
    linear(Own("attention.value"), "model.blocks.{i}.attention.value.weight", Hidden, Hidden),
    linear(Own("attention.receptance"), "model.blocks.{i}.attention.receptance.weight", Hidden, Hidden),
    // MLC takes it for a router where it is small, by its name.
    linear(Own("attention.gate"), "model.blocks.{i}.attention.gate.weight", Hidden, Hidden).kind(Router),
    linear(Role::Out, "model.blocks.{i}.attention.output.weight", Hidden, Hidden).how(How::Halved),
    vector(Own("attention.ln_x"), "model.blocks.{i}.attention.ln_x.weight", Hidden).kind(VectorF32),
    vector(Own("attention.ln_x"), "model.blocks.{i}.attention.ln_x.bias", Hidden).kind(VectorF32),
    channels("feed_forward.time_maa_k", "model.blocks.{i}.feed_forward.time_maa_k"),
    channels("feed_forward.time_maa_r", "model.blocks.{i}.feed_forward.time_maa_r"),
    linear(Role::Up, "model.blocks.{i}.feed_forward.key.weight", Inter, Hidden),
    linear(Own("feed_forward.receptance"), "model.blocks.{i}.feed_forward.receptance.weight", Hidden, Hidden),
    linear(Role::Down, "model.blocks.{i}.feed_forward.value.weight", Hidden, Inter).how(How::Halved),
];

pub(in crate::arch) const FAMILIES: &[Family] = &[Family {
    model_types: &["rwkv6"],
    sourced: ("model.", "rwkv."),
    first: &[&[embedding(Role::Embed, "model.embeddings.weight", Vocab)]],
    layer: &[RWKV6_LAYER],
    last: &[&[
        vector(Norm(Final), "model.ln_out.weight", Hidden),
        vector(Norm(Final), "model.ln_out.bias", Hidden),
        head("head.weight"),
    ]],
    tie: Tie::Never,
    mlp_is_four_hidden: true,
    block: Arithmetic {
        norm: NormKind::Layer,
        mlp: Mlp::Plain,
        rotation: Rotation::None,
        mlc: &[Departure::GroupEps(1e-5)],
        ..GATED
    },
    ..BASE
}];
