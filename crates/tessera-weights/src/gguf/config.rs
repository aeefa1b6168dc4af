//! The hyper-parameters of a GGUF llama, and HF's `config.json` made of them.

use serde_json::{Value, json};

use super::error::GgufError;
use super::header::Gguf;
use super::rope;
use super::value::required;

/// Keys under `llama.` that are read, or that say nothing about the arithmetic. Any other is refused:
/// writers add keys (`logit_scale`, `attention.scale`, ...) that change what the model computes.
const KNOWN_KEYS: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "tensor_data_layout",
    "expert_count",
    "expert_used_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_log_multiplier",
];

/// Hyper-parameters of a llama, checked against each other; tensors are checked against them.
#[derive(Clone, Debug)]
pub(super) struct Hyper {
    pub hidden: u64,
    pub ffn: u64,
    pub layers: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub vocab: u64,
    pub context: u32,
    pub eps: f64,
    pub theta: f64,
    pub rope_scaling: Option<Value>,
    pub tied: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
}

impl Hyper {
    /// From the metadata and from which tensors there are.
    pub fn parse(gguf: &Gguf) -> Result<Hyper, GgufError> {
        check_kind(gguf)?;
        let hidden = positive(gguf, "llama.embedding_length")?;
        let heads = positive(gguf, "llama.attention.head_count")?;
        let kv_heads = match gguf.meta_u32_uniform("llama.attention.head_count_kv")? {
            Some(_) => positive(gguf, "llama.attention.head_count_kv")?,
            None => heads,
        };
        if heads % kv_heads != 0 {
            return Err(bad(
                "llama.attention.head_count_kv",
                kv_heads,
                format!("it must divide the number of heads, {heads}"),
            ));
        }
        let head_dim = head_dim(gguf, hidden, heads)?;
        rope::check_dimensions(gguf, head_dim)?;
        let context = positive(gguf, "llama.context_length")?;
        check_window(gguf, context)?;
        let eps_key = "llama.attention.layer_norm_rms_epsilon";
        let eps = rope::decimal(required(gguf.meta_f32(eps_key)?, eps_key)?);
        if eps < 0.0 {
            return Err(bad(eps_key, eps, "it must not be negative".to_string()));
        }
        let theta = rope::theta(gguf)?;
        Ok(Hyper {
            hidden: hidden.into(),
            ffn: positive(gguf, "llama.feed_forward_length")?.into(),
            layers: positive(gguf, "llama.block_count")?,
            heads,
            kv_heads,
            head_dim,
            vocab: vocab(gguf)?,
            context,
            eps,
            theta,
            rope_scaling: rope::rope_scaling(gguf, head_dim as usize, theta, context)?,
            tied: gguf.tensor("output.weight").is_none(),
            // All or none: the tensors of every layer are checked against these two.
            attention_bias: ["attn_q", "attn_k", "attn_v", "attn_output"]
                .iter()
                .any(|t| gguf.tensor(&format!("blk.0.{t}.bias")).is_some()),
            mlp_bias: ["ffn_gate", "ffn_up", "ffn_down"]
                .iter()
                .any(|t| gguf.tensor(&format!("blk.0.{t}.bias")).is_some()),
        })
    }
}

/// HF's `config.json` of the model. Floating-point settings are the decimals that were meant: GGUF
/// keeps them in f32.
pub fn hf_config(gguf: &Gguf) -> Result<Value, GgufError> {
    let h = Hyper::parse(gguf)?;
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": h.hidden,
        "intermediate_size": h.ffn,
        "num_hidden_layers": h.layers,
        "num_attention_heads": h.heads,
        "num_key_value_heads": h.kv_heads,
        "head_dim": h.head_dim,
        "vocab_size": h.vocab,
        "max_position_embeddings": h.context,
        "rms_norm_eps": h.eps,
        "rope_theta": h.theta,
        "rope_scaling": h.rope_scaling,
        "tie_word_embeddings": h.tied,
        "attention_bias": h.attention_bias,
        "mlp_bias": h.mlp_bias,
        "torch_dtype": torch_dtype(gguf),
    });
    let id = |name: &str| -> Result<Option<u32>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match gguf.meta_u32(&key)? {
            Some(id) if u64::from(id) >= h.vocab => {
                Err(bad(&key, id, format!("the vocabulary has {} tokens", h.vocab)))
            }
            id => Ok(id),
        }
    };
    if let Some(bos) = id("bos")? {
        config["bos_token_id"] = json!(bos);
    }
    match (id("eos")?, id("eot")?) {
        (Some(eos), Some(eot)) if eos != eot => config["eos_token_id"] = json!([eos, eot]),
        (Some(eos), _) | (None, Some(eos)) => config["eos_token_id"] = json!(eos),
        (None, None) => {}
    }
    if let Some(pad) = id("padding")? {
        config["pad_token_id"] = json!(pad);
    }
    Ok(config)
}

/// Refuses what is not one whole dense llama.
fn check_kind(gguf: &Gguf) -> Result<(), GgufError> {
    let arch_key = "general.architecture";
    let arch = required(gguf.meta_str(arch_key)?, arch_key)?;
    if arch != "llama" {
        return Err(bad(arch_key, format!("{arch:?}"), "only \"llama\" is supported".to_string()));
    }
    if let Some(kind) = gguf.meta_str("general.type")?
        && kind != "model"
    {
        return Err(bad(
            "general.type",
            format!("{kind:?}"),
            "only a whole \"model\" is supported".to_string(),
        ));
    }
    if let Some(n) = gguf.meta_u32("split.count")?
        && n > 1
    {
        let what = "a model in several GGUF files is not supported; merge them first".to_string();
        return Err(bad("split.count", n, what));
    }
    if let Some(v) = gguf.meta_u32("general.quantization_version")?
        && v != 2
    {
        return Err(bad("general.quantization_version", v, "only version 2 is supported".to_string()));
    }
    if let Some(n) = gguf.meta_u32("llama.expert_count")?
        && n > 0
    {
        return Err(bad("llama.expert_count", n, "mixture-of-experts models are not supported".to_string()));
    }
    for (key, value) in gguf.metadata() {
        if let Some(name) = key.strip_prefix("llama.")
            && !KNOWN_KEYS.contains(&name)
        {
            return Err(GgufError::UnknownKey { key: key.clone(), found: value.describe() });
        }
    }
    Ok(())
}

fn head_dim(gguf: &Gguf, hidden: u32, heads: u32) -> Result<u32, GgufError> {
    let (k, v) = ("llama.attention.key_length", "llama.attention.value_length");
    let head_dim = match gguf.meta_u32_uniform(k)? {
        Some(_) => positive(gguf, k)?,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let what = format!("it does not divide llama.embedding_length {hidden}, and {k} is absent");
            return Err(bad("llama.attention.head_count", heads, what));
        }
    };
    match gguf.meta_u32_uniform(v)? {
        Some(n) if n != head_dim => Err(bad(v, n, format!("expected the width of a key, {head_dim}"))),
        _ => Ok(head_dim),
    }
}

/// HF's llama has no sliding window; one as long as the context changes nothing.
fn check_window(gguf: &Gguf, context: u32) -> Result<(), GgufError> {
    let key = "llama.attention.sliding_window";
    match gguf.meta_u32_uniform(key)? {
        Some(n) if n != 0 && n < context => {
            Err(bad(key, n, format!("a window shorter than the context of {context} is not supported")))
        }
        _ => Ok(()),
    }
}

/// Rows of the embedding.
fn vocab(gguf: &Gguf) -> Result<u64, GgufError> {
    let name = "token_embd.weight";
    let tensor = gguf.tensor(name).ok_or_else(|| GgufError::MissingTensor { tensor: name.to_string() })?;
    let rows = tensor.dims.get(1).copied().unwrap_or(1);
    match gguf.meta_u32("llama.vocab_size")? {
        Some(n) if u64::from(n) != rows => {
            Err(bad("llama.vocab_size", n, format!("token_embd.weight has {rows} rows")))
        }
        _ => Ok(rows),
    }
}

/// The type that the checkpoint most likely had. Block types were made from 16-bit floats as a rule.
fn torch_dtype(gguf: &Gguf) -> &'static str {
    let matrices = || gguf.tensors().iter().filter(|t| t.dims.len() == 2);
    if matrices().any(|t| t.ty.name == "BF16") {
        "bfloat16"
    } else if matrices().all(|t| t.ty.name == "F32") {
        "float32"
    } else {
        "float16"
    }
}

fn bad(key: &str, found: impl ToString, what: String) -> GgufError {
    GgufError::BadValue { key: key.to_string(), found: found.to_string(), what }
}

/// A key's integer, which must be there and positive.
fn positive(gguf: &Gguf, key: &str) -> Result<u32, GgufError> {
    match required(gguf.meta_u32_uniform(key)?, key)? {
        0 => Err(bad(key, 0, "it must be positive".to_string())),
        v => Ok(v),
    }
}
