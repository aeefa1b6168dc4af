//! The sizes of what only some families have: experts, recurrences, latent attention.

use super::block::Latent;
use super::reader::Reader;
use super::{ArchError, Sizes};

/// Sizes beside those of a dense decoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of a mixture.
    pub experts: Option<ExpertSizes>,
    /// Of layers with a recurrence.
    pub delta: Option<DeltaSizes>,
    /// Of latent attention.
    pub latent: Option<Latent>,
    /// Of layers that have a recurrence and nothing else.
    pub rwkv: Option<RwkvSizes>,
    /// Entries of an embedding of token types; 0 where there is none.
    pub token_types: usize,
}

/// Sizes of a mixture's experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertSizes {
    /// How many there are in a layer.
    pub count: usize,
    /// Width of each.
    pub width: usize,
    /// Width of the one that every row goes through; 0 where there is none.
    pub shared: usize,
    /// Whether the choice among them is corrected by a bias.
    pub corrected: bool,
    /// For each layer, whether it has experts.
    pub layers: Vec<bool>,
}

/// Sizes of a gated delta net; see [`super::DeltaNet`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeltaSizes {
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub kernel: usize,
    /// For each layer, whether it is one.
    pub layers: Vec<bool>,
}

/// Sizes of a recurrence; see [`super::Rwkv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RwkvSizes {
    pub mix: usize,
    pub decay: usize,
    pub rescale_every: usize,
}

/// More than any model has.
const MAX_EXPERTS: usize = 1 << 12;
const MAX_MATRICES: usize = 1 << 18;
const MAX_WIDTH: usize = 1 << 24;
const MAX_HEAD: usize = 1 << 12;

impl Latent {
    /// Of a family that has it.
    pub(super) fn read(read: &Reader<'_>) -> Result<Option<Latent>, ArchError> {
        if !["deepseek_v2", "deepseek_v3"].contains(&read.model_type) {
            return Ok(None);
        }
        let size = |field: &'static str, limit| read.within(field, read.need(field, &[field])?, limit);
        let q_rank = match read.size("q_lora_rank", &["q_lora_rank"])? {
            Some(rank) => Some(read.within("q_lora_rank", rank, MAX_WIDTH)?),
            None => None,
        };
        let rope = size("qk_rope_head_dim", MAX_HEAD / 2)?;
        if rope % 2 != 0 {
            return Err(read.invalid("qk_rope_head_dim", rope, "an even number".to_owned()));
        }
        Ok(Some(Latent {
            q_rank,
            kv_rank: size("kv_lora_rank", MAX_WIDTH)?,
            nope: size("qk_nope_head_dim", MAX_HEAD / 2)?,
            rope,
            value: size("v_head_dim", MAX_HEAD)?,
        }))
    }
}

impl Parts {
    /// Of a config whose other sizes are known and within limits.
    pub(super) fn read(read: &Reader<'_>, sizes: &Sizes) -> Result<Parts, ArchError> {
        let token_types = match read.model_type {
            "bert" => {
                let field = "type_vocab_size";
                read.within(field, read.size(field, &[field])?.unwrap_or(2), MAX_WIDTH)?
            }
            _ => 0,
        };
        Ok(Parts {
            experts: experts(read, sizes)?,
            delta: delta(read, sizes)?,
            latent: sizes.parts.latent,
            rwkv: rwkv(read, sizes)?,
            token_types,
        })
    }

    /// That what these make fits into memory, as [`Sizes::check`] does for the rest.
    pub(super) fn elements(&self, sizes: &Sizes) -> u128 {
        let experts = self.experts.as_ref().map_or(0, |e| {
            let all = e.count as u128 * 2 * e.width as u128;
            all.max(2 * e.shared as u128) * sizes.hidden as u128
        });
        let delta = self.delta.as_ref().map_or(0, |d| {
            let width = 2 * d.key_heads * d.key_dim + d.value_heads * d.value_dim;
            width as u128 * sizes.hidden.max(d.kernel) as u128
        });
        let latent = self.latent.map_or(0, |l| {
            let heads = sizes.heads * (l.nope + l.rope + l.value);
            let rank = l.kv_rank.max(l.q_rank.unwrap_or(0)) + l.rope;
            heads.max(sizes.hidden) as u128 * rank as u128
        });
        experts.max(delta).max(latent)
    }
}

fn experts(read: &Reader<'_>, sizes: &Sizes) -> Result<Option<ExpertSizes>, ArchError> {
    let need = |field: &'static str| read.need(field, &[field]);
    let (counted, sized) = match read.model_type {
        "mixtral" | "llama4" => ("num_local_experts", "intermediate_size"),
        "qwen2_moe" | "qwen3_moe" => ("num_experts", "moe_intermediate_size"),
        "deepseek" | "deepseek_v2" | "deepseek_v3" => ("n_routed_experts", "moe_intermediate_size"),
        _ => return Ok(None),
    };
    let count = read.within(counted, need(counted)?, MAX_EXPERTS)?;
    let width = read.within(sized, need(sized)?, MAX_WIDTH)?;
    // Each has parameters of its own in a checkpoint, and their names are listed.
    if count * sizes.layers > MAX_MATRICES {
        let expected = format!("at most {} in each of {} layers", MAX_MATRICES / sizes.layers, sizes.layers);
        return Err(read.invalid(counted, count, expected));
    }
    let deepseek = counted == "n_routed_experts";
    let shared = match read.model_type {
        "llama4" => width,
        "qwen2_moe" => {
            let field = "shared_expert_intermediate_size";
            read.within(field, need(field)?, MAX_WIDTH)?
        }
        _ if deepseek => {
            let field = "n_shared_experts";
            let n = read.size(field, &[field])?.unwrap_or(0);
            if n > MAX_EXPERTS {
                return Err(read.invalid(field, n, format!("at most {MAX_EXPERTS}")));
            }
            n.saturating_mul(width)
        }
        _ => 0,
    };
    let (first, every) = match deepseek {
        true => {
            let every = read.size("moe_layer_freq", &["moe_layer_freq"])?.unwrap_or(1);
            (need("first_k_dense_replace")?, read.within("moe_layer_freq", every, 1 << 12)?)
        }
        false => (0, 1),
    };
    let layers: Vec<bool> = (0..sizes.layers).map(|i| i >= first && i % every == 0).collect();
    if !layers.contains(&true) {
        let expected = format!("less than the {} layers", sizes.layers);
        return Err(read.invalid("first_k_dense_replace", first, expected));
    }
    let corrected = match read.find(&["topk_method"]) {
        Some(method) => method == "noaux_tc",
        None => read.model_type == "deepseek_v3",
    };
    if shared > MAX_WIDTH {
        return Err(read.invalid(
            "n_shared_experts",
            shared / width,
            format!("at most {}", MAX_WIDTH / width),
        ));
    }
    Ok(Some(ExpertSizes { count, width, shared, corrected, layers }))
}

fn rwkv(read: &Reader<'_>, sizes: &Sizes) -> Result<Option<RwkvSizes>, ArchError> {
    if read.model_type != "rwkv6" {
        return Ok(None);
    }
    if sizes.heads * sizes.head_dim != sizes.hidden {
        let expected = format!("a divisor of hidden_size, which is {}", sizes.hidden);
        return Err(read.invalid("head_size", sizes.head_dim, expected));
    }
    let rescale_every = read.size("rescale_every", &["rescale_every"])?.unwrap_or(0);
    // The 7b and 14b models.
    let (mix, decay) = if sizes.hidden == 4096 { (64, 128) } else { (32, 64) };
    Ok(Some(RwkvSizes { mix, decay, rescale_every }))
}

fn delta(read: &Reader<'_>, sizes: &Sizes) -> Result<Option<DeltaSizes>, ArchError> {
    if read.model_type != "qwen3_5" {
        return Ok(None);
    }
    let size = |field: &'static str, limit| read.within(field, read.need(field, &[field])?, limit);
    let field = "full_attention_interval";
    let layers = match read.find(&["layer_types"]) {
        Some(types) => {
            let list = types.as_array().map_or(&[][..], |list| list);
            let kind = |v: &serde_json::Value| match v.as_str() {
                Some("linear_attention") => Some(true),
                Some("full_attention") => Some(false),
                _ => None,
            };
            let kinds: Option<Vec<bool>> = list.iter().map(kind).collect();
            kinds.filter(|kinds| kinds.len() == sizes.layers).ok_or_else(|| {
                let expected =
                    format!("linear_attention or full_attention for each of {} layers", sizes.layers);
                read.invalid("layer_types", types, expected)
            })?
        }
        None => {
            let every = read.within(field, read.size(field, &[field])?.unwrap_or(4), 1 << 12)?;
            (0..sizes.layers).map(|i| (i + 1) % every != 0).collect()
        }
    };
    let sizes = DeltaSizes {
        key_heads: size("linear_num_key_heads", MAX_HEAD)?,
        value_heads: size("linear_num_value_heads", MAX_HEAD)?,
        key_dim: size("linear_key_head_dim", MAX_HEAD)?,
        value_dim: size("linear_value_head_dim", MAX_HEAD)?,
        kernel: size("linear_conv_kernel_dim", 64)?,
        layers,
    };
    if !sizes.value_heads.is_multiple_of(sizes.key_heads) {
        let expected = format!("a multiple of the {} key heads", sizes.key_heads);
        return Err(read.invalid("linear_num_value_heads", sizes.value_heads, expected));
    }
    Ok(Some(sizes))
}
