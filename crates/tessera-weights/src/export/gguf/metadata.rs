//! Hyper-parameters as GGUF's keys, and the rotary divisors that GGUF has as a tensor.

use super::{GgufExportError, GgufInputs};
use crate::config::{ModelConfig, RopeScaling};
use crate::gguf::{Family, Header, ROPE_FREQS, llama3_divisors};

/// Families whose windows llama.cpp computes; in all others every layer sees everything.
const WINDOWED: [&str; 2] = ["gemma2", "gemma3_text"];

/// Puts the keys and gives tensors that are no weights, by name.
pub(super) fn put(
    header: &mut Header,
    family: &Family,
    inputs: &GgufInputs<'_>,
    file_type: u32,
    notes: &mut Vec<String>,
) -> Result<Vec<(&'static str, Vec<f32>)>, GgufExportError> {
    let (config, sizes) = (inputs.config, &inputs.model.sizes);
    let (model_type, settings) = (inputs.model.model_type.as_str(), &config.settings);
    header.str("general.architecture", family.arch);
    header.str("general.type", "model");
    header.str("general.name", inputs.name);
    header.u32("general.file_type", file_type);
    header.u32("general.quantization_version", 2);

    let key = |name: &str| format!("{}.{name}", family.arch);
    let mut context = if sizes.positions > 0 { sizes.positions } else { config.trained_context };
    if let Some(windows) = &settings.windows {
        if WINDOWED.contains(&model_type) {
            check_windows(family, config)?;
            header.u32(&key("attention.sliding_window"), size(windows.size));
        } else if windows.size < context {
            notes.push(format!(
                "the model's window of {} tokens has no meaning in GGUF's {}: the file states that as its context, \
                 within which both compute the same",
                windows.size, family.arch
            ));
            context = windows.size;
        }
    }
    for (name, value) in [
        ("context_length", context),
        ("embedding_length", sizes.hidden),
        ("block_count", sizes.layers),
        ("feed_forward_length", sizes.intermediate),
        ("attention.head_count", sizes.heads),
        ("attention.head_count_kv", sizes.kv_heads),
        ("attention.key_length", sizes.head_dim),
        ("attention.value_length", sizes.head_dim),
        ("vocab_size", sizes.vocab),
    ] {
        header.u32(&key(name), size(value));
    }
    let eps =
        if family.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    header.f32(&key(eps), config.norm_eps);
    if sizes.positions == 0 {
        header.u32(&key("rope.dimension_count"), size(settings.rotary_dim));
        header.f32(&key("rope.freq_base"), config.rope_theta);
    }
    if let Some(cap) = settings.attention_cap {
        header.f32(&key("attn_logit_softcapping"), cap);
    }
    if let Some(cap) = settings.logit_cap {
        header.f32(&key("final_logit_softcapping"), cap);
    }
    if let Some(theta) = settings.local_rope_theta {
        header.f32(&key("rope.freq_base_swa"), theta);
    }
    if let Some(limit) = settings.clip_qkv {
        header.f32(&key("attention.clamp_kqv"), limit);
    }
    if family.arch == "command-r" {
        header.f32(&key("logit_scale"), settings.logit_scale);
    }
    if family.arch == "stablelm" {
        header.bool(&key("use_parallel_residual"), false);
    }
    // llama.cpp has no tensor for it, and refuses files with tensors that it does not know.
    if family.arch == "qwen3" && sizes.out_bias {
        return Err(setting(
            "attention_bias",
            true,
            "and GGUF's qwen3 has no bias on the attention's output",
        ));
    }
    check_scalar(family, config)?;
    scaling(header, &key, config)
}

/// A size as GGUF has them. Only a context can be longer, and is of no meaning there.
fn size(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn setting(field: &'static str, found: impl ToString, what: &str) -> GgufExportError {
    GgufExportError::Setting { field, found: found.to_string(), what: what.to_owned() }
}

/// llama.cpp has the pattern of a family in its code: all but every second or sixth layer.
fn check_windows(family: &Family, config: &ModelConfig) -> Result<(), GgufExportError> {
    let every = if family.arch == "gemma2" { 2 } else { 6 };
    let Some(windows) = &config.settings.windows else { return Ok(()) };
    let pattern = (0..config.num_hidden_layers).map(|i| (i + 1) % every != 0);
    if windows.layers.iter().copied().eq(pattern) {
        return Ok(());
    }
    let what = format!("GGUF's {} has a window in all but every {every}. layer", family.arch);
    Err(setting("layer_types", format!("{:?}", windows.layers), &what))
}

/// llama.cpp divides scores by the root of a head's width, or for the 27b models of hidden size by heads.
fn check_scalar(family: &Family, config: &ModelConfig) -> Result<(), GgufExportError> {
    let Some(scalar) = config.settings.query_pre_attn_scalar else { return Ok(()) };
    let largest = if family.arch == "gemma2" { 46 } else { 62 };
    let expected = match config.num_hidden_layers == largest {
        true => config.hidden_size / config.num_attention_heads,
        false => config.head_dim,
    };
    if scalar == expected as f64 {
        return Ok(());
    }
    let what = format!("GGUF has no key for it, and readers take {expected}");
    Err(setting("query_pre_attn_scalar", scalar, &what))
}

fn scaling(
    header: &mut Header,
    key: &dyn Fn(&str) -> String,
    config: &ModelConfig,
) -> Result<Vec<(&'static str, Vec<f32>)>, GgufExportError> {
    match &config.rope_scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            header.str(&key("rope.scaling.type"), "linear");
            header.f32(&key("rope.scaling.factor"), *factor);
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let (context, dim) = (*original_context as f64, config.settings.rotary_dim);
            let divisors = llama3_divisors(
                dim,
                config.rope_theta,
                *factor,
                *low_freq_factor,
                *high_freq_factor,
                context,
            );
            return Ok(vec![(ROPE_FREQS, divisors.into_iter().map(|d| d as f32).collect())]);
        }
        RopeScaling::Yarn {
            factor,
            original_context,
            beta_fast,
            beta_slow,
            attention_factor,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        } => {
            header.str(&key("rope.scaling.type"), "yarn");
            header.f32(&key("rope.scaling.factor"), *factor);
            header.u32(&key("rope.scaling.original_context_length"), size(*original_context));
            header.f32(&key("rope.scaling.yarn_beta_fast"), *beta_fast);
            header.f32(&key("rope.scaling.yarn_beta_slow"), *beta_slow);
            if let Some(product) = attention_factor {
                // ggml multiplies it by this itself (`rope_yarn`).
                header.f32(&key("rope.scaling.attn_factor"), product / (1.0 + 0.1 * factor.ln()));
            }
        }
        other => {
            let name = format!("{other:?}");
            let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
            return Err(setting(
                "rope_scaling",
                name,
                "which is not written as GGUF; linear, llama3 and plain yarn are",
            ));
        }
    }
    Ok(Vec::new())
}
