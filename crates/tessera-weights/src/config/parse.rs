//! [`ModelConfig`] from the two JSON files that state one.

use super::fields::Fields;
use serde_json::Value;

use super::known::{self, Contradiction};
use super::settings::{Settings, published_context, windowed};
use super::{Activation, ModelConfig, RopeScaling, flattened};
use crate::arch::{self, ArchError, Sizes};

/// A config that cannot be used; the field is named as in the file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A field that nothing can stand in for is missing.
    #[error("config: {field} is missing")]
    Missing {
        /// The field.
        field: String,
    },
    /// A value is of the wrong type or out of range.
    #[error("config: {field} is {found}, expected {expected}")]
    Invalid {
        /// The field.
        field: String,
        /// The value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A known field asks for something that is not implemented.
    #[error("config: {field} {found} is not supported; supported is {supported}")]
    Unsupported {
        /// The field.
        field: String,
        /// The value.
        found: String,
        /// The values that are.
        supported: &'static str,
    },
    /// The model type or its sizes.
    #[error(transparent)]
    Arch(#[from] ArchError),
    /// The tensors of a folder without a config are not those of a model that can be guessed.
    #[error("no config, and tensor {tensor} {what}")]
    Shapes {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

impl ModelConfig {
    /// From a parsed `mlc-chat-config.json`.
    pub fn from_mlc(json: &Value) -> Result<ModelConfig, ConfigError> {
        let top = Fields { json, path: "" };
        let inner = top.get("model_config").ok_or_else(|| top.missing("model_config"))?;
        let inner = flattened(inner);
        let model = Fields { json: &inner, path: "model_config." };
        let model_type = match top.text("model_type")? {
            Some(t) => t,
            None => model.text("model_type")?.ok_or_else(|| top.missing("model_type"))?,
        };
        let (mut config, sizes) = common(model_type, model)?;
        if let Some(v) = top.get("vocab_size")
            && v.as_u64() != Some(config.vocab_size as u64)
        {
            let expected = format!("{}, as in model_config", config.vocab_size);
            return Err(top.invalid("vocab_size", v, &expected));
        }
        let keys: &[&'static str] = match model_type {
            // MLC writes 10000 there whatever the model has, and computes with the other.
            "llama4" => &["rope_theta", "position_embedding_base"],
            _ => &["position_embedding_base", "rope_theta", "rotary_emb_base"],
        };
        config.rope_theta = theta(&mut config, model, keys)?;
        let trained = match model.tokens("context_window_size")? {
            Some(n) => Some(n),
            None => model.tokens("max_position_embeddings")?,
        };
        let window = match top.tokens("sliding_window_size")? {
            Some(n) => Some(n),
            None => model.tokens("sliding_window_size")?,
        };
        // The top level is what the packager chose, the inner value what the model was trained for.
        let mut context = top.tokens("context_window_size")?.or(trained);
        if let (None, Some(_), Some(published)) = (context, window, published_context(model_type)) {
            let what = "context_window_size is not limited";
            config.guesses.push(format!("{what}; {published} is assumed, as in the published models."));
            context = Some(published);
        }
        let context = context.or(window).or_else(|| unlimited(&mut config));
        let mut context = context.ok_or_else(|| top.missing("context_window_size"))?;
        let longest = model.tokens("max_position_embeddings")?;
        // MLC gives every Gemma 3 a context of 8192, whatever it was trained for.
        if let Some(longest) = longest.filter(|_| model_type == "gemma3_text") {
            context = context.min(longest);
        }
        let context = within_window(&mut config, context, window);
        config.context_window_size = within_chunk(&mut config, model, context)?;
        let trained = trained.unwrap_or(context);
        config.trained_context = longest.unwrap_or(trained);
        let stated = trained.max(config.trained_context);
        config.settings = Settings::read(model_type, model, &sizes, Some(stated), &mut config.guesses)?;
        let scaling = ["rope_scaling", "rope_parameters"].into_iter();
        if let Some((key, json)) = scaling.filter_map(|key| Some((key, model.get(key)?))).next() {
            let path = format!("model_config.{key}.");
            let scaling = Fields { json, path: &path };
            config.rope_scaling = rope_scaling(scaling, model, config.settings.rotary_dim, trained)?;
        }
        Ok(config)
    }

    /// From a parsed Hugging Face `config.json`.
    pub fn from_hf(json: &Value) -> Result<ModelConfig, ConfigError> {
        let flat = flattened(json);
        let top = Fields { json: &flat, path: "" };
        let model_type = top.text("model_type")?.ok_or_else(|| top.missing("model_type"))?;
        let (mut config, sizes) = common(model_type, top)?;
        let parameters = top.get("rope_parameters").map(|json| Fields { json, path: "rope_parameters." });
        let nested = match parameters {
            Some(p) => p.number("rope_theta", 1.0)?,
            None => None,
        };
        config.rope_theta = match (nested, top.number("rope_theta", 1.0)?) {
            (Some(nested), Some(outer)) if nested != outer => {
                let expected = format!("{nested}, as in rope_parameters");
                return Err(top.invalid("rope_theta", &Value::from(outer), &expected));
            }
            (Some(nested), _) => nested,
            (None, _) => theta(&mut config, top, &["rope_theta", "rotary_emb_base"])?,
        };
        let context = match top.tokens("max_position_embeddings")? {
            Some(n) => n,
            None => {
                let n = match top.tokens("n_positions")? {
                    Some(n) => Some(n),
                    None => top.tokens("seq_length")?.or_else(|| unlimited(&mut config)),
                };
                n.ok_or_else(|| top.missing("max_position_embeddings"))?
            }
        };
        let window = match top.flag("use_sliding_window")? {
            Some(false) => None,
            _ => top.tokens("sliding_window")?,
        };
        let limited = within_window(&mut config, context, window);
        config.context_window_size = within_chunk(&mut config, top, limited)?;
        config.trained_context = context;
        config.settings = Settings::read(model_type, top, &sizes, Some(context), &mut config.guesses)?;
        let scaling = match top.get("rope_scaling") {
            Some(json) => Some(Fields { json, path: "rope_scaling." }),
            None => parameters,
        };
        if let Some(scaling) = scaling {
            config.rope_scaling = rope_scaling(scaling, top, config.settings.rotary_dim, context)?;
        }
        Ok(config)
    }
}

/// What both files spell alike. Rotary settings and context are filled in by the caller.
fn common(model_type: &str, model: Fields<'_>) -> Result<(ModelConfig, Sizes), ConfigError> {
    if !model.json.is_object() {
        return Err(model.invalid("", model.json, "an object"));
    }
    let sizes = Sizes::from_json(model_type, model.json)?;
    let findings = known::findings(model_type, model.json);
    if let Some(one) = findings.contradictions.into_iter().next() {
        let Contradiction { field, found, supported } = one;
        return Err(ConfigError::Unsupported { field: format!("{}{field}", model.path), found, supported });
    }
    let file = if model.path.is_empty() { "config.json" } else { "model_config" };
    let mut guesses: Vec<String> = known::unknown_note(file, &findings.unknown).into_iter().collect();
    let eps_keys = [
        "rms_norm_eps",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_eps",
        "norm_epsilon",
        "layernorm_epsilon",
    ];
    let norm_eps = match model.any(&eps_keys) {
        Some((key, v)) => match v.as_f64().filter(|e| *e > 0.0 && *e < 1.0) {
            Some(eps) => eps,
            None => return Err(model.invalid(key, v, "a number between 0 and 1")),
        },
        None if arch::fixed_eps(model_type).is_some() => arch::fixed_eps(model_type).unwrap_or_default(),
        None => {
            guesses.push("The norms' epsilon is not in the config; 1e-6 is assumed.".to_owned());
            1e-6
        }
    };
    // These have biases whatever the config says; the others leave it to `Sizes`.
    let (qkv, out, mlp) = match model_type {
        "qwen2" => (true, false, false),
        "stablelm" => (sizes.qkv_bias, false, false),
        "qwen" => (true, false, false),
        "qwen2_moe" => (true, false, false),
        "gpt2" | "gpt_neox" | "phi" | "phi-msft" | "gpt_bigcode" | "bert" => (true, true, true),
        _ => (sizes.qkv_bias, sizes.out_bias, sizes.mlp_bias),
    };
    let config = ModelConfig {
        model_type: model_type.to_owned(),
        hidden_size: sizes.hidden,
        intermediate_size: sizes.intermediate,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        num_key_value_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        vocab_size: sizes.vocab,
        norm_eps,
        rope_theta: 10000.0,
        rope_scaling: RopeScaling::None,
        context_window_size: 0,
        trained_context: 0,
        tie_word_embeddings: sizes.tied,
        attention_bias: qkv && out,
        qkv_bias: qkv,
        mlp_bias: mlp,
        activation: activation(model_type, model)?,
        settings: Settings::plain(sizes.head_dim),
        guesses,
    };
    Ok((config, sizes))
}

fn activation(model_type: &str, model: Fields<'_>) -> Result<Activation, ConfigError> {
    let gemma = model_type.starts_with("gemma");
    let keys = ["hidden_activation", "hidden_act", "activation_function"];
    let Some((key, v)) = model.any(&keys) else {
        // MLC drops the field where an architecture has one activation only.
        return Ok(match model_type {
            "gpt_neox" | "bert" => Activation::Gelu,
            "gpt2" | "phi" | "phi-msft" | "gpt_bigcode" | "starcoder2" => Activation::GeluTanh,
            "nemotron" | "rwkv6" => Activation::Relu2,
            _ if gemma => Activation::GeluTanh,
            _ => Activation::Silu,
        });
    };
    match v.as_str() {
        Some("silu" | "swish") => Ok(Activation::Silu),
        // The first Gemma configs say `gelu` and mean the approximation, as HF's own code does.
        Some("gelu") if gemma => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some("relu2") if model_type == "nemotron" => Ok(Activation::Relu2),
        Some(other) => Err(ConfigError::Unsupported {
            field: format!("{}{key}", model.path),
            found: format!("{other:?}"),
            supported: "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu",
        }),
        None => Err(model.invalid(key, v, "a string")),
    }
}

/// The rotary base under one of `keys`; 10000 where the model has no rotary positions, fixes it, or is silent.
fn theta(config: &mut ModelConfig, model: Fields<'_>, keys: &[&'static str]) -> Result<f64, ConfigError> {
    for key in keys {
        if let Some(theta) = model.number(key, 1.0)? {
            return Ok(theta);
        }
    }
    if !["gpt2", "gpt_bigcode", "bert", "rwkv6", "chatglm", "internlm", "baichuan"]
        .contains(&&*config.model_type)
    {
        config.guesses.push(format!("{} is not in the config; 10000 is assumed.", keys[0]));
    }
    Ok(10000.0)
}

/// Attention over a sliding window equals plain attention as long as the window is not full.
fn within_window(config: &mut ModelConfig, context: usize, window: Option<usize>) -> usize {
    match window.filter(|w| *w < context) {
        None => context,
        Some(_) if windowed(&config.model_type) => context,
        Some(window) => {
            config.guesses.push(format!(
                "The model attends to a sliding window of {window} tokens; the context is limited to that."
            ));
            window
        }
    }
}

/// A recurrence forgets and goes on: the context is what it was trained for.
fn unlimited(config: &mut ModelConfig) -> Option<usize> {
    if config.model_type != "rwkv6" {
        return None;
    }
    config.guesses.push("The context is not in the config; 4096 tokens are assumed.".to_owned());
    Some(4096)
}

/// Llama 4's attention is in chunks: within the first it is plain attention.
fn within_chunk(config: &mut ModelConfig, model: Fields<'_>, context: usize) -> Result<usize, ConfigError> {
    if config.model_type != "llama4" {
        return Ok(context);
    }
    let chunk = model.tokens("attention_chunk_size")?.unwrap_or(8192);
    if chunk < context {
        config.guesses.push(format!(
            "The model attends within chunks of {chunk} tokens; the context is limited to that."
        ));
    }
    Ok(context.min(chunk))
}

fn rope_scaling(
    scaling: Fields<'_>,
    model: Fields<'_>,
    rotary_dim: usize,
    context: usize,
) -> Result<RopeScaling, ConfigError> {
    let empty = scaling.json.as_object().is_some_and(serde_json::Map::is_empty);
    let only_theta = scaling
        .json
        .as_object()
        .is_some_and(|o| o.keys().all(|k| k == "rope_theta" || k == "partial_rotary_factor"));
    if empty || only_theta {
        return Ok(RopeScaling::None);
    }
    let kind = match scaling.text("rope_type")? {
        Some(kind) => kind,
        None => scaling.text("type")?.ok_or_else(|| scaling.missing("rope_type"))?,
    };
    let key = "original_max_position_embeddings";
    let original = match scaling.tokens(key)? {
        Some(n) => Some(n),
        None => model.tokens(key)?,
    };
    let factor = || scaling.need_number("factor", 1.0);
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor()? },
        // As in HF, an `original_max_position_embeddings` has no say here.
        "dynamic" => RopeScaling::Dynamic { factor: factor()?, original_context: context },
        "llama3" => {
            let (low, high) = ("low_freq_factor", "high_freq_factor");
            let low_freq_factor = scaling.need_number(low, f64::MIN_POSITIVE)?;
            let high_freq_factor = scaling.need_number(high, f64::MIN_POSITIVE)?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("more than {low}, which is {low_freq_factor}");
                return Err(scaling.invalid(high, &Value::from(high_freq_factor), &expected));
            }
            RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor,
                high_freq_factor,
                original_context: original.ok_or_else(|| scaling.missing(key))?,
            }
        }
        "yarn" => RopeScaling::Yarn {
            factor: factor()?,
            original_context: original.unwrap_or(context),
            // HF takes the default for 0, too.
            beta_fast: scaling.number("beta_fast", 0.0)?.filter(|b| *b > 0.0).unwrap_or(32.0),
            beta_slow: scaling.number("beta_slow", 0.0)?.filter(|b| *b > 0.0).unwrap_or(1.0),
            attention_factor: scaling.number("attention_factor", f64::MIN_POSITIVE)?,
            mscale: scaling.number("mscale", 0.0)?,
            mscale_all_dim: scaling.number("mscale_all_dim", 0.0)?,
            truncate: scaling.flag("truncate")?.unwrap_or(true),
        },
        // Phi-3's first name for it.
        "longrope" | "su" => RopeScaling::LongRope {
            short_factor: scaling.numbers("short_factor", rotary_dim / 2)?,
            long_factor: scaling.numbers("long_factor", rotary_dim / 2)?,
            original_context: original.unwrap_or(context),
            attention_factor: scaling.number("attention_factor", f64::MIN_POSITIVE)?,
            factor: scaling.number("factor", 1.0)?,
        },
        other => {
            return Err(ConfigError::Unsupported {
                field: format!("{}rope_type", scaling.path),
                found: format!("{other:?}"),
                supported: "default, linear, dynamic, llama3, yarn, longrope",
            });
        }
    })
}
