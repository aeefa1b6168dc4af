//! HF's `config.json` of the metadata of a GGUF file.

use serde_json::{Value, json};

use super::error::GgufError;
use super::header::Gguf;
use super::keys::{Keys, bad};
use super::rope;
use super::split;

/// Keys under the architecture's name that are read, or that say nothing about the arithmetic. Any other is refused:
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
    "attention.layer_norm_epsilon",
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

/// HF's `config.json` of the model. Floating-point settings are the decimals that were meant: GGUF
/// keeps them in f32.
pub fn hf_config(gguf: &Gguf) -> Result<Value, GgufError> {
    let keys = Keys::of(gguf)?;
    let family = keys.family;
    check_kind(keys)?;
    let hidden = keys.positive("embedding_length")?;
    let heads = keys.positive("attention.head_count")?;
    let kv_heads = match keys.uniform("attention.head_count_kv")? {
        Some(_) => keys.positive("attention.head_count_kv")?,
        None => heads,
    };
    if heads % kv_heads != 0 {
        let what = format!("it must divide the number of heads, {heads}");
        return Err(keys.bad("attention.head_count_kv", kv_heads, what));
    }
    let layers = keys.positive("block_count")?;
    let head_dim = head_dim(keys, hidden, heads)?;
    let turning = rope::dimensions(keys, head_dim)?;
    let context = keys.positive("context_length")?;
    let eps_key =
        if family.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let eps = keys.need(eps_key)?;
    if eps < 0.0 {
        return Err(keys.bad(eps_key, eps, "it must not be negative".to_string()));
    }
    let theta = rope::theta(keys)?;
    let scaling = rope::rope_scaling(keys, head_dim as usize, theta, context)?;
    let ffn = keys.positive("feed_forward_length")?;
    let vocab = vocab(keys)?;
    let mut config = json!({
        "architectures": [family.class],
        "model_type": family.model_type,
        "vocab_size": vocab,
        "torch_dtype": torch_dtype(gguf),
    });
    config[family.eps] = json!(eps);
    let mut put = |pairs: Value| {
        if let (Value::Object(to), Value::Object(from)) = (&mut config, pairs) {
            to.extend(from);
        }
    };
    if family.model_type == "gpt2" {
        put(json!({
            "n_embd": hidden, "n_inner": ffn, "n_layer": layers, "n_head": heads, "n_positions": context,
            "activation_function": "gelu_new",
        }));
    } else {
        put(json!({
            "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
            "max_position_embeddings": context, "rope_theta": theta, "rope_scaling": scaling,
            "tie_word_embeddings": gguf.tensor("output.weight").is_none(),
        }));
    }
    put(of_family(keys, &Hyper { hidden, heads, head_dim, layers, turning, context })?);
    put(ends(gguf, vocab)?);
    Ok(config)
}

/// What the settings of single families are made from.
struct Hyper {
    hidden: u32,
    heads: u32,
    head_dim: u32,
    layers: u32,
    turning: u32,
    context: u32,
}

/// Settings that only this family has, or that are said otherwise. Defaults are those of llama.cpp's loader
/// (`src/models`), which has them in place of keys.
fn of_family(keys: Keys<'_>, h: &Hyper) -> Result<Value, GgufError> {
    const ATTENTION: [&str; 4] = ["attn_q", "attn_k", "attn_v", "attn_output"];
    // What scores are divided by the root of: all but the 27b models go by the width of a head.
    let scalar = |largest: u32| if h.layers == largest { h.hidden / h.heads } else { h.head_dim };
    let window = |default| -> Result<u32, GgufError> {
        Ok(keys.uniform("attention.sliding_window")?.or(default).unwrap_or(0))
    };
    let cap = |key: &str, default| Ok::<_, GgufError>(keys.number(key)?.unwrap_or(default));
    let part = f64::from(h.turning) / f64::from(h.head_dim);
    Ok(match keys.family.model_type {
        "llama" => {
            check_window(keys, h.context)?;
            // All or none: the tensors of every layer are checked against these two.
            json!({
                "hidden_act": "silu",
                "attention_bias": keys.any_bias(&ATTENTION),
                "mlp_bias": keys.any_bias(&["ffn_gate", "ffn_up", "ffn_down"]),
            })
        }
        "qwen2" => {
            check_window(keys, h.context)?;
            json!({ "hidden_act": "silu", "use_sliding_window": false })
        }
        "qwen3" => {
            check_window(keys, h.context)?;
            json!({
                "hidden_act": "silu", "use_sliding_window": false, "attention_bias": keys.any_bias(&ATTENTION),
            })
        }
        "gemma" => json!({ "hidden_act": "gelu_pytorch_tanh" }),
        "gemma2" => json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "attn_logit_softcapping": cap("attn_logit_softcapping", 50.0)?,
            "final_logit_softcapping": cap("final_logit_softcapping", 30.0)?,
            "sliding_window": window(Some(4096))?,
            "query_pre_attn_scalar": scalar(46),
        }),
        "gemma3_text" => json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "final_logit_softcapping": keys.number("final_logit_softcapping")?,
            "sliding_window": match window(None)? {
                0 => return Err(GgufError::MissingKey { key: keys.key("attention.sliding_window") }),
                n => n,
            },
            "sliding_window_pattern": 6,
            "rope_local_base_freq": cap("rope.freq_base_swa", 10000.0)?,
            "query_pre_attn_scalar": scalar(62),
        }),
        "phi3" => {
            let mut config = json!({ "hidden_act": "silu", "partial_rotary_factor": part });
            if let n @ 1.. = window(None)? {
                config["sliding_window"] = json!(n);
            }
            config
        }
        "stablelm" => json!({
            "hidden_act": "silu",
            "partial_rotary_factor": part,
            // The key is written whatever the model does; llama.cpp goes by whether there is an ffn_norm.
            "use_parallel_residual": false,
            "use_qkv_bias": keys.any_bias(&ATTENTION[..3]),
        }),
        "phi" => json!({ "hidden_act": "gelu_new", "partial_rotary_factor": part }),
        "orion" => json!({ "hidden_act": "silu" }),
        "cohere" => json!({ "hidden_act": "silu", "logit_scale": keys.need("logit_scale")? }),
        "olmo" => json!({ "hidden_act": "silu", "clip_qkv": keys.number("attention.clamp_kqv")? }),
        "olmo2" => {
            check_window(keys, h.context)?;
            json!({ "hidden_act": "silu" })
        }
        "starcoder2" => {
            let mut config = json!({
                "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
                "use_bias": keys.any_bias(&ATTENTION),
            });
            if let n @ 1.. = window(None)? {
                config["sliding_window"] = json!(n);
            }
            config
        }
        _ => json!({}),
    })
}

/// The tokens that begin, end and fill a text.
fn ends(gguf: &Gguf, vocab: u64) -> Result<Value, GgufError> {
    let mut config = json!({});
    let id = |name: &str| -> Result<Option<u32>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match gguf.meta_u32(&key)? {
            Some(id) if u64::from(id) >= vocab => {
                Err(bad(&key, id, format!("the vocabulary has {vocab} tokens")))
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

/// Refuses what is not one whole dense decoder.
fn check_kind(keys: Keys<'_>) -> Result<(), GgufError> {
    let gguf = keys.gguf;
    if let Some(kind) = gguf.meta_str("general.type")?
        && kind != "model"
    {
        let what = "only a whole \"model\" is supported".to_string();
        return Err(bad("general.type", format!("{kind:?}"), what));
    }
    if let Some((no, count)) = split::part_of(gguf)?
        && gguf.parts().len() != count as usize
    {
        let what = format!(
            "this file is part {} of as many, and opened alone; open the first, with all beside it",
            no + 1
        );
        return Err(bad("split.count", count, what));
    }
    if let Some(v) = gguf.meta_u32("general.quantization_version")?
        && v != 2
    {
        return Err(bad("general.quantization_version", v, "only version 2 is supported".to_string()));
    }
    if let Some(n) = keys.u32("expert_count")?
        && n > 0
    {
        return Err(keys.bad("expert_count", n, "mixture-of-experts models are not supported".to_string()));
    }
    let prefix = keys.key("");
    for (key, value) in gguf.metadata() {
        if let Some(name) = key.strip_prefix(&prefix)
            && !KNOWN_KEYS.contains(&name)
            && !keys.family.keys.contains(&name)
        {
            return Err(GgufError::UnknownKey { key: key.clone(), found: value.describe() });
        }
    }
    Ok(())
}

fn head_dim(keys: Keys<'_>, hidden: u32, heads: u32) -> Result<u32, GgufError> {
    let (k, v) = ("attention.key_length", "attention.value_length");
    let head_dim = match keys.uniform(k)? {
        Some(_) => keys.positive(k)?,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let (width, absent) = (keys.key("embedding_length"), keys.key(k));
            let what = format!("it does not divide {width} {hidden}, and {absent} is absent");
            return Err(keys.bad("attention.head_count", heads, what));
        }
    };
    match keys.uniform(v)? {
        Some(n) if n != head_dim => Err(keys.bad(v, n, format!("expected the width of a key, {head_dim}"))),
        _ => Ok(head_dim),
    }
}

/// These have no sliding window in HF, or one that GGUF cannot mean; one as long as the context changes nothing.
fn check_window(keys: Keys<'_>, context: u32) -> Result<(), GgufError> {
    let key = "attention.sliding_window";
    match keys.uniform(key)? {
        Some(n) if n != 0 && n < context => {
            Err(keys.bad(key, n, format!("a window shorter than the context of {context} is not supported")))
        }
        _ => Ok(()),
    }
}

/// Rows of the embedding.
fn vocab(keys: Keys<'_>) -> Result<u64, GgufError> {
    let name = "token_embd.weight";
    let missing = || GgufError::MissingTensor { tensor: name.to_string() };
    let tensor = keys.gguf.tensor(name).ok_or_else(missing)?;
    let rows = tensor.dims.get(1).copied().unwrap_or(1);
    match keys.u32("vocab_size")? {
        Some(n) if u64::from(n) != rows => {
            Err(keys.bad("vocab_size", n, format!("token_embd.weight has {rows} rows")))
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
