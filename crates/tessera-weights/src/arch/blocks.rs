//! What a family's blocks compute, as its table says it, and [`Block`] made of that and a config.

use super::block::{Attention, Block, DeltaNet, Mask, Mlp, Norm, NormKind, Rotary, Rwkv, Semantics};
use crate::config::{Activation, ModelConfig, RopeScaling};

/// A family's arithmetic as its authors define it, and where MLC's departs from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arithmetic {
    pub norm: NormKind,
    /// Where the family does not leave it to the config.
    pub eps: Option<f64>,
    pub norm_offset: f32,
    /// Norms without weights.
    pub bare: bool,
    /// The embedding is multiplied by the root of the hidden size.
    pub root_hidden: bool,
    /// Parallel branches whatever the config says.
    pub parallel: bool,
    pub mlp: Mlp,
    pub rotation: Rotation,
    /// Scores are multiplied by the square of yarn's `mscale_all_dim` term.
    pub yarn_scale: bool,
    /// Query heads have gates beside them.
    pub gated: bool,
    /// All of the text sees all of it, and norms are of the sum.
    pub encoder: bool,
    pub mlc: &'static [Departure],
}

/// Which members of a head make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// No rotary positions.
    None,
    /// One of each half.
    Half,
    /// Neighbours.
    Interleaved,
}

/// What MLC computes otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Departure {
    NoAttentionCap,
    NoLogitCap,
    NoLogitScale,
    /// Scores by the head's width, and not by `query_pre_attn_scalar`.
    ScaleByHead,
    NoWindow,
    /// One window for the whole cache.
    CacheWindow,
    /// Layer windows of this width, whatever the config says, that a call does not apply to itself.
    LayerWindow(usize),
    /// Layers with windows turn as the others.
    OneBase,
    NoRopeScaling,
    LongRopeByCall,
    HalfSplit,
    /// All of a head turns.
    WholeHead,
    ErfGelu,
    /// Yarn's ramp goes by the dimension, is not rounded, and cos and sin have no factor.
    PlainRamp,
    /// As [`Arithmetic::yarn_scale`].
    YarnScale,
    NoPositionScale,
    /// Single tokens read latent rows through matrices of their own.
    Absorbed,
    /// Of the norm of each head's result in a recurrence.
    GroupEps(f32),
}

/// Llama's.
pub(super) const GATED: Arithmetic = Arithmetic {
    norm: NormKind::Rms,
    eps: None,
    norm_offset: 0.0,
    bare: false,
    root_hidden: false,
    parallel: false,
    mlp: Mlp::Gated,
    rotation: Rotation::Half,
    yarn_scale: false,
    gated: false,
    encoder: false,
    mlc: &[],
};

impl ModelConfig {
    /// What the blocks of this model compute.
    pub fn block(&self, semantics: Semantics) -> Block {
        let family = super::family(&self.model_type);
        let table = family.map_or(&GATED, |family| &family.block);
        let s = &self.settings;
        let departs = |d: Departure| semantics == Semantics::Mlc && table.mlc.contains(&d);
        let unless = |d: Departure, value: Option<f64>| value.filter(|_| !departs(d)).map(|x| x as f32);
        let eps = self.norm_eps as f32;

        let scaling = match &self.rope_scaling {
            _ if departs(Departure::NoRopeScaling) => RopeScaling::None,
            RopeScaling::Yarn {
                factor,
                original_context,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                ..
            } if departs(Departure::PlainRamp) => RopeScaling::Yarn {
                factor: *factor,
                original_context: *original_context,
                beta_fast: *beta_fast,
                beta_slow: *beta_slow,
                attention_factor: Some(1.0),
                mscale: *mscale,
                mscale_all_dim: *mscale_all_dim,
                truncate: false,
            },
            scaling => scaling.clone(),
        };
        let rotary = |theta: f64, scaling: RopeScaling| Rotary {
            dim: if departs(Departure::WholeHead) { self.head_dim } else { s.rotary_dim },
            theta,
            scaling,
            interleaved: table.rotation == Rotation::Interleaved && !departs(Departure::HalfSplit),
            ramp_by_dim: departs(Departure::PlainRamp)
                && matches!(self.rope_scaling, RopeScaling::Yarn { .. }),
            by_call: departs(Departure::LongRopeByCall),
        };
        let mut ropes = Vec::new();
        if table.rotation != Rotation::None && s.rotary_dim > 0 {
            ropes.push(rotary(self.rope_theta, scaling));
            // Layers with windows have a base of their own, and no scaling.
            let local = s.local_rope_theta.filter(|_| !departs(Departure::OneBase));
            ropes.extend(local.map(|theta| rotary(theta, RopeScaling::None)));
        }
        let scalar = s.query_pre_attn_scalar.filter(|_| !departs(Departure::ScaleByHead));
        let scale = scalar.unwrap_or(self.head_dim as f64).powf(-0.5);
        let yarn = if table.yarn_scale || departs(Departure::YarnScale) { self.yarn_scale() } else { 1.0 };
        let scale = scale * yarn;
        let attention = |layer: usize| {
            let turns = s.rope_layers.as_ref().is_none_or(|layers| layers[layer]);
            let window = s.windows.as_ref().filter(|w| w.layers[layer]);
            Attention {
                rope: match ropes.len() {
                    0 => None,
                    _ if !turns => None,
                    2 if window.is_some() => Some(1),
                    _ => Some(0),
                },
                mask: window.map_or(if table.encoder { Mask::Full } else { Mask::Causal }, |w| {
                    mask(w.size, w.sink, semantics, table.mlc)
                }),
                scale: (scale / if s.scale_by_layer { (layer + 1) as f64 } else { 1.0 }) as f32,
                qk_eps: eps,
                gated: table.gated,
                // Llama 4 has it where nothing turns, Ministral 3 everywhere.
                position_scale: s
                    .position_scale
                    .filter(|_| !departs(Departure::NoPositionScale) && (s.rope_layers.is_none() || !turns)),
                qk_norm_after_rope: (s.qk_norm_after_rope && turns).then_some(eps),
            }
        };
        let group_eps = table.mlc.iter().find_map(|departure| match *departure {
            Departure::GroupEps(eps) if semantics == Semantics::Mlc => Some(eps),
            _ => None,
        });
        let root = if table.root_hidden { (self.hidden_size as f64).sqrt() } else { 1.0 };
        Block {
            norm: Norm { kind: table.norm, eps, offset: table.norm_offset, bare: table.bare },
            embed_scale: (root * s.embed_scale) as f32,
            parallel: table.parallel || s.parallel,
            branch_scale: s.branch_scale as f32,
            clip_qkv: s.clip_qkv.map(|x| x as f32),
            attention: (0..self.num_hidden_layers).map(attention).collect(),
            attention_cap: unless(Departure::NoAttentionCap, s.attention_cap),
            mlp: table.mlp,
            activation: if departs(Departure::ErfGelu) { Activation::Gelu } else { self.activation },
            experts: self.layers(s.parts.experts.as_ref().map(|e| &*e.layers), s.routing),
            delta: self.layers(
                s.parts.delta.as_ref().map(|d| &*d.layers),
                s.parts.delta.as_ref().map(|d| DeltaNet {
                    key_heads: d.key_heads,
                    value_heads: d.value_heads,
                    key_dim: d.key_dim,
                    value_dim: d.value_dim,
                    kernel: d.kernel,
                    eps,
                }),
            ),
            latent: s.parts.latent,
            latent_eps: if departs(Departure::Absorbed) { eps } else { 1e-6 },
            absorbed: departs(Departure::Absorbed),
            post_sum: table.encoder,
            rwkv: s.parts.rwkv.map(|r| Rwkv {
                mix: r.mix,
                decay: r.decay,
                rescale_every: r.rescale_every,
                group_eps: group_eps.unwrap_or(64e-5),
            }),
            hidden_scale: s.hidden_scale as f32,
            logit_scale: unless(Departure::NoLogitScale, Some(s.logit_scale)).unwrap_or(1.0),
            logit_cap: unless(Departure::NoLogitCap, s.logit_cap),
            ropes,
        }
    }

    /// `what` in these layers.
    fn layers<T: Copy>(&self, layers: Option<&[bool]>, what: Option<T>) -> Vec<Option<T>> {
        let within = |layer: usize| layers.is_some_and(|layers| layers[layer]);
        (0..self.num_hidden_layers).map(|layer| what.filter(|_| within(layer))).collect()
    }

    /// What yarn's `mscale_all_dim` multiplies scores by.
    fn yarn_scale(&self) -> f64 {
        match self.rope_scaling {
            RopeScaling::Yarn { factor, mscale_all_dim: Some(all), .. } if factor > 1.0 && all != 0.0 => {
                (0.1 * all * factor.ln() + 1.0).powi(2)
            }
            _ => 1.0,
        }
    }
}

fn mask(size: usize, sink: usize, semantics: Semantics, mlc: &[Departure]) -> Mask {
    let departure = || {
        mlc.iter().find_map(|departure| match *departure {
            Departure::NoWindow => Some(Mask::Causal),
            Departure::LayerWindow(n) => Some(Mask::CallWindow(n)),
            Departure::CacheWindow => Some(Mask::Cache { window: size, sink }),
            _ => None,
        })
    };
    (semantics == Semantics::Mlc).then(departure).flatten().unwrap_or(Mask::Window(size))
}
