//! The sizes that the tables speak of, under one name each whatever the config calls them.

use super::reader::Reader;
use serde_json::Value;

use super::block::Latent;
use super::families::{Dim, Tie};
use super::parts::{DeltaSizes, ExpertSizes, Parts, RwkvSizes};
use super::{ArchError, family};
use crate::config::ModelConfig;

/// Sizes and switches that decide which parameters a model has and how large they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sizes {
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Entries of a learned position embedding; 0 where there is none.
    pub positions: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether q, k and v have biases where the family leaves that open.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub out_bias: bool,
    /// Whether the MLP's linears have one.
    pub mlp_bias: bool,
    /// Of what only some families have.
    pub parts: Parts,
}

/// More than any model has; keeps every product of two sizes inside 64 bits and every list inside memory.
const LIMIT: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;

impl From<&ModelConfig> for Sizes {
    fn from(c: &ModelConfig) -> Sizes {
        Sizes {
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            intermediate: c.intermediate_size,
            layers: c.num_hidden_layers,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            positions: c.context_window_size,
            tied: c.tie_word_embeddings,
            qkv_bias: c.attention_bias || c.qkv_bias,
            out_bias: c.attention_bias,
            mlp_bias: c.mlp_bias,
            parts: c.settings.parts.clone(),
        }
    }
}

impl Sizes {
    /// From the hyper-parameters of a model: HF's `config.json`, or `model_config` of
    /// `mlc-chat-config.json`, which keeps HF's names.
    pub fn from_json(model_type: &str, config: &Value) -> Result<Sizes, ArchError> {
        let family = family(model_type)?;
        let config = crate::config::flattened(config);
        let read = Reader { model_type, config: &config };
        let hidden = read.need("hidden_size", &["hidden_size", "n_embd"])?;
        let rwkv = model_type == "rwkv6";
        let heads = match rwkv {
            true => {
                let size = read.size("head_size", &["head_size"])?.unwrap_or(64);
                hidden / read.within("head_size", size, 1 << 12)?
            }
            false => read.need("num_attention_heads", &["num_attention_heads", "n_head"])?,
        };
        let latent = Latent::read(&read)?;
        let head_dim = match read.size("head_dim", &["head_dim", "kv_channels"])? {
            _ if rwkv => read.size("head_size", &["head_size"])?.unwrap_or(64),
            // Of queries and keys; a config may speak of something else here.
            _ if let Some(latent) = latent => latent.nope + latent.rope,
            Some(dim) => dim,
            None if model_type == "qwen3_5" => 256,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(read.invalid("hidden_size", hidden, format!("a multiple of the {heads} heads")));
            }
        };
        let intermediate = ["intermediate_size", "n_inner", "ffn_hidden_size"];
        let intermediate = match read.size("intermediate_size", &intermediate)? {
            // Qwen's counts both halves.
            Some(size) if model_type == "qwen" => size / 2,
            // phi-msft writes 0 for the usual width.
            Some(0) if model_type == "phi-msft" => hidden.saturating_mul(4),
            // MLC goes by the hidden size, whatever the config says.
            _ if rwkv => hidden / 2 * 7,
            Some(size) => size,
            None if family.mlp_is_four_hidden => hidden.saturating_mul(4),
            None => return Err(read.missing("intermediate_size")),
        };
        let positions = match family.learned_positions {
            true => {
                read.need("n_positions", &["n_positions", "max_position_embeddings", "context_window_size"])?
            }
            false => 0,
        };
        let tied = match family.tie {
            Tie::Always => true,
            Tie::Never => false,
            Tie::Config { default } => read.flag("tie_word_embeddings", &["tie_word_embeddings"], default)?,
        };
        let qkv_bias = match family.bias_key {
            Some((key, default)) => read.flag(key, &[key], default)?,
            None if read.flag("attention_bias", &["attention_bias"], false)? => {
                return Err(read.invalid("attention_bias", true, "false".to_owned()));
            }
            None => false,
        };
        let mlp_bias = match family.mlp_bias_key {
            Some((key, default)) => read.flag(key, &[key], default)?,
            None => false,
        };
        let groups = "multi_query_group_num";
        let kv_heads = match model_type {
            "gpt_bigcode" => 1,
            "chatglm" if read.flag("multi_query_attention", &["multi_query_attention"], false)? => {
                read.need(groups, &[groups])?
            }
            _ => read.size("num_key_value_heads", &["num_key_value_heads", "n_head_kv"])?.unwrap_or(heads),
        };
        let mut sizes = Sizes {
            vocab: read.need("vocab_size", &["vocab_size", "padded_vocab_size"])?,
            hidden,
            intermediate,
            layers: read.need("num_hidden_layers", &["num_hidden_layers", "n_layer", "num_layers"])?,
            heads,
            kv_heads,
            head_dim,
            positions,
            tied,
            qkv_bias,
            out_bias: qkv_bias,
            mlp_bias,
            parts: Parts { latent, ..Parts::default() },
        };
        // Lists of layers are made only where there are not too many.
        sizes.check(model_type)?;
        sizes.parts = Parts::read(&read, &sizes)?;
        sizes.check(model_type)?;
        Ok(sizes)
    }

    /// That every size is positive, within limits, and that heads divide.
    pub(crate) fn check(&self, model_type: &str) -> Result<(), ArchError> {
        let invalid = |field, found: usize, expected: String| ArchError::Invalid {
            model_type: model_type.to_owned(),
            field,
            found: found.to_string(),
            expected,
        };
        for (field, value, limit) in [
            ("vocab_size", self.vocab, LIMIT),
            ("hidden_size", self.hidden, LIMIT),
            ("intermediate_size", self.intermediate, LIMIT),
            ("num_hidden_layers", self.layers, MAX_LAYERS),
            ("num_attention_heads", self.heads, 1 << 12),
            ("num_key_value_heads", self.kv_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
        ] {
            if value == 0 || value > limit {
                return Err(invalid(field, value, format!("1 to {limit}")));
            }
        }
        if self.positions == 0 && family(model_type)?.learned_positions {
            return Err(invalid("n_positions", 0, format!("1 to {LIMIT}")));
        }
        if self.positions > LIMIT {
            return Err(invalid("n_positions", self.positions, format!("at most {LIMIT}")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(invalid(
                "num_key_value_heads",
                self.kv_heads,
                format!("a divisor of the {} attention heads", self.heads),
            ));
        }
        // Where addresses have 32 bits, a matrix can be larger than memory and its size larger than a word.
        let widest = [Dim::Vocab, Dim::TwoInter, Dim::Qkv, Dim::Positions].map(|d| self.dim(d));
        let widest = widest.into_iter().max().unwrap_or(0).max(self.hidden);
        let inner = self.hidden.max(self.intermediate).max(self.dim(Dim::Q));
        let elements = ((widest as u128) * (inner as u128)).max(self.parts.elements(self));
        if elements * 4 > isize::MAX as u128 {
            return Err(invalid(
                "hidden_size",
                self.hidden,
                "a model whose matrices fit into memory".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn dim(&self, dim: Dim) -> usize {
        match dim {
            Dim::Vocab => self.vocab,
            Dim::Hidden => self.hidden,
            Dim::Inter => self.intermediate,
            Dim::TwoInter => 2 * self.intermediate,
            Dim::Q => self.heads * self.head_dim,
            Dim::Kv => self.kv_heads * self.head_dim,
            Dim::Qkv => (self.heads + 2 * self.kv_heads) * self.head_dim,
            Dim::Head => self.head_dim,
            Dim::Positions => self.positions,
            Dim::TokenTypes => self.parts.token_types,
            Dim::One => 1,
            Dim::Five => 5,
            Dim::Heads => self.heads,
            Dim::GatedQ => 2 * self.dim(Dim::Q),
            Dim::GatedQkv => 2 * self.dim(Dim::Q) + 2 * self.dim(Dim::Kv),
            _ => self.part(dim),
        }
    }

    /// A size of a part; 0 where the model has no such part.
    fn part(&self, dim: Dim) -> usize {
        let Parts { experts, delta, latent, rwkv, .. } = &self.parts;
        let rwkv = |of: fn(&RwkvSizes) -> usize| rwkv.as_ref().map_or(0, of);
        let expert = |of: fn(&ExpertSizes) -> usize| experts.as_ref().map_or(0, of);
        let delta = |of: fn(&DeltaSizes) -> usize| delta.as_ref().map_or(0, of);
        let latent = |of: &dyn Fn(&Latent) -> usize| latent.as_ref().map_or(0, of);
        match dim {
            Dim::Experts => expert(|e| e.count),
            Dim::Expert => expert(|e| e.width),
            Dim::TwoExpert => expert(|e| 2 * e.width),
            Dim::Shared => expert(|e| e.shared),
            Dim::TwoShared => expert(|e| 2 * e.shared),
            Dim::DeltaQkv => delta(|d| 2 * d.key_heads * d.key_dim + d.value_heads * d.value_dim),
            Dim::DeltaV => delta(|d| d.value_heads * d.value_dim),
            Dim::DeltaHead => delta(|d| d.value_dim),
            Dim::DeltaHeads => delta(|d| d.value_heads),
            Dim::Kernel => delta(|d| d.kernel),
            Dim::QRank => latent(&|l| l.q_rank.unwrap_or(0)),
            Dim::KvRank => latent(&|l| l.kv_rank),
            Dim::KvRankRope => latent(&|l| l.kv_rank + l.rope),
            Dim::KvHeads => latent(&|l| self.heads * (l.nope + l.value)),
            Dim::LatentV => latent(&|l| self.heads * l.value),
            Dim::Nope => latent(&|l| l.nope),
            Dim::Value => latent(&|l| l.value),
            Dim::Mix => rwkv(|r| r.mix),
            Dim::FiveMix => rwkv(|r| 5 * r.mix),
            Dim::Decay => rwkv(|r| r.decay),
            _ => 0,
        }
    }
}
