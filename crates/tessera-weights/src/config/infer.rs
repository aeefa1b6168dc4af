//! [`ModelConfig`] from nothing but the shapes in a manifest, each guess said aloud.

use super::{Activation, ConfigError, ModelConfig, RopeScaling, Settings};
use crate::scheme::GroupFormat;

/// A quantised or plain matrix as far as shapes tell.
struct Extent {
    rows: usize,
    /// Exact columns, or the number of groups that they fill.
    cols: Cols,
}

enum Cols {
    Exact(usize),
    Groups(usize),
}

impl Cols {
    fn fits(&self, cols: usize) -> bool {
        match *self {
            Cols::Exact(n) => n == cols,
            Cols::Groups(n) => {
                [GroupFormat::INT4, GroupFormat::INT3].iter().any(|format| format.groups(cols) == n)
            }
        }
    }
}

impl ModelConfig {
    /// From the shapes of a folder's tensors, by their stored names (`X.q_weight`, `X.q_scale`,
    /// `X.weight`). Only llama-like folders can be guessed; what shapes do not tell is in
    /// [`ModelConfig::guesses`].
    pub fn from_shapes(lookup: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<ModelConfig, ConfigError> {
        let layer = |rest: &str| format!("model.layers.0.{rest}");
        let mut guesses = Vec::new();
        let hidden = vector(lookup, "model.norm.weight")?;
        let embed = matrix(lookup, "model.embed_tokens")?;
        if !embed.cols.fits(hidden) {
            return Err(strange("model.embed_tokens", format!("does not have the norm's {hidden} columns")));
        }

        let fused = layer("self_attn.qkv_proj");
        let (attention, model_type) = if exists(lookup, &fused) {
            guesses.push(
                "The names fit llama and its relatives; model_type llama with SiLU is assumed.".to_owned(),
            );
            (fused, "llama")
        } else if lookup(&layer("self_attn.q_norm.weight")).is_some() {
            (layer("self_attn.c_attn"), "qwen3")
        } else {
            (layer("self_attn.c_attn"), "qwen2")
        };
        let qkv = matrix(lookup, &attention)?;
        let out = matrix(lookup, &layer("self_attn.o_proj"))?;
        let q_width = match out.cols {
            Cols::Exact(n) => n,
            Cols::Groups(_) if out.cols.fits(hidden) => hidden,
            Cols::Groups(n) => {
                guesses.push(format!("The query heads are {} wide together, if groups are of 32.", n * 32));
                n.checked_mul(32).ok_or_else(|| strange(&layer("self_attn.o_proj"), "is absurdly wide"))?
            }
        };
        let kv_width = qkv.rows.checked_sub(q_width).filter(|w| *w > 0 && w % 2 == 0).map(|w| w / 2);
        let kv_width = kv_width.ok_or_else(|| {
            strange(
                &attention,
                format!("has {} rows, which {q_width} query rows do not leave for k and v", qkv.rows),
            )
        })?;
        let head_dim = match lookup(&layer("self_attn.q_norm.weight")) {
            Some(shape) if shape.len() == 1 => shape[0],
            _ => {
                let dim = likely_head_dim(hidden, q_width, kv_width);
                guesses.push(format!("The heads are assumed to be {dim} wide ({} of them).", q_width / dim));
                dim
            }
        };
        if head_dim == 0 || q_width % head_dim != 0 || kv_width % head_dim != 0 {
            return Err(strange(&attention, format!("has no whole heads of width {head_dim}")));
        }
        let gate_up = matrix(lookup, &layer("mlp.gate_up_proj"))?;
        if gate_up.rows % 2 != 0 {
            return Err(strange(
                &layer("mlp.gate_up_proj"),
                format!("has an odd number of rows, {}", gate_up.rows),
            ));
        }
        let norm_of = |i: usize| lookup(&format!("model.layers.{i}.input_layernorm.weight"));
        let layers = (0..1 << 12).take_while(|&i| norm_of(i).is_some()).count();
        let has = |rest: &str| lookup(&layer(rest)).is_some();
        let qkv_bias = lookup(&format!("{attention}.bias")).is_some();

        let (theta, eps) = match model_type {
            "llama" if embed.rows == 128_256 => (500_000.0, 1e-5),
            "llama" => (10_000.0, 1e-5),
            _ => (1_000_000.0, 1e-6),
        };
        guesses.push(format!("The rotary base is assumed to be {theta}, without scaling."));
        guesses.push(format!("The norms' epsilon is assumed to be {eps:e}."));
        guesses.push("The context is assumed to be 2048 tokens.".to_owned());
        let config = ModelConfig {
            model_type: model_type.to_owned(),
            hidden_size: hidden,
            intermediate_size: gate_up.rows / 2,
            num_hidden_layers: layers,
            num_attention_heads: q_width / head_dim,
            num_key_value_heads: kv_width / head_dim,
            head_dim,
            vocab_size: embed.rows,
            norm_eps: eps,
            rope_theta: theta,
            rope_scaling: RopeScaling::None,
            context_window_size: 2048,
            trained_context: 2048,
            tie_word_embeddings: !exists(lookup, "lm_head"),
            attention_bias: qkv_bias && has("self_attn.o_proj.bias"),
            qkv_bias,
            mlp_bias: has("mlp.gate_up_proj.bias"),
            activation: Activation::Silu,
            settings: Settings::plain(head_dim),
            guesses,
        };
        crate::arch::Sizes::from(&config).check(model_type)?;
        Ok(config)
    }

    /// Takes the biases of a llama-like folder from its tensors: MLC's config does not mention them. `has`
    /// says whether the folder holds a tensor.
    pub fn see_biases(&mut self, has: &dyn Fn(&str) -> bool) {
        if matches!(self.model_type.as_str(), "llama" | "mistral") {
            self.qkv_bias = has("model.layers.0.self_attn.qkv_proj.bias");
            self.attention_bias = self.qkv_bias && has("model.layers.0.self_attn.o_proj.bias");
            self.mlp_bias = has("model.layers.0.mlp.gate_up_proj.bias");
        }
    }
}

fn strange(tensor: &str, what: impl Into<String>) -> ConfigError {
    ConfigError::Shapes { tensor: tensor.to_owned(), what: what.into() }
}

fn exists(lookup: &dyn Fn(&str) -> Option<Vec<usize>>, module: &str) -> bool {
    ["weight", "q_weight"].iter().any(|end| lookup(&format!("{module}.{end}")).is_some())
}

fn vector(lookup: &dyn Fn(&str) -> Option<Vec<usize>>, name: &str) -> Result<usize, ConfigError> {
    match lookup(name).as_deref() {
        Some(&[len]) if len > 0 => Ok(len),
        Some(shape) => Err(strange(name, format!("has shape {shape:?}, expected one positive size"))),
        None => Err(strange(name, "is missing, so this is not a llama-like folder")),
    }
}

fn matrix(lookup: &dyn Fn(&str) -> Option<Vec<usize>>, module: &str) -> Result<Extent, ConfigError> {
    if let Some(shape) = lookup(&format!("{module}.weight")) {
        return match shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => Ok(Extent { rows, cols: Cols::Exact(cols) }),
            _ => {
                Err(strange(&format!("{module}.weight"), format!("has shape {shape:?}, expected two sizes")))
            }
        };
    }
    let (words, scales) = (format!("{module}.q_weight"), format!("{module}.q_scale"));
    let shape =
        lookup(&words).ok_or_else(|| strange(module, "is missing, so this is not a llama-like folder"))?;
    let scale = lookup(&scales).ok_or_else(|| strange(&scales, "is missing"))?;
    // Four words belong to one scale, along the input axis.
    match (&shape[..], &scale[..]) {
        (&[n, w], &[m, g]) if n == m && n > 0 && g > 0 && g.checked_mul(4) == Some(w) => {
            Ok(Extent { rows: n, cols: Cols::Groups(g) })
        }
        (&[w, n], &[g, m]) if n == m && n > 0 && g > 0 && g.checked_mul(4) == Some(w) => {
            Ok(Extent { rows: n, cols: Cols::Groups(g) })
        }
        _ => Err(strange(&words, format!("has shape {shape:?}, which does not fit the scales' {scale:?}"))),
    }
}

/// Large models have heads of 128, small ones of 64; others only where these do not divide.
fn likely_head_dim(hidden: usize, q_width: usize, kv_width: usize) -> usize {
    let order: &[usize] =
        if hidden >= 2048 { &[128, 64, 80, 96, 32, 16, 8] } else { &[64, 128, 80, 96, 32, 16, 8] };
    let divides = |dim: &usize| q_width.is_multiple_of(*dim) && kv_width.is_multiple_of(*dim);
    order.iter().copied().find(divides).unwrap_or_else(|| gcd(q_width, kv_width))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
