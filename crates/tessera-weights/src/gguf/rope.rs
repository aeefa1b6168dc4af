//! RoPE scaling of a GGUF llama as HF's `rope_scaling`.
//!
//! GGUF says `linear` and `yarn` in metadata; Llama 3's scaling is only there as a tensor of
//! divisors, `rope_freqs.weight`, from which its parameters are recognised.

use serde_json::{Value, json};

use super::error::GgufError;
use super::header::Gguf;

/// The tensor of divisors.
pub const ROPE_FREQS: &str = "rope_freqs.weight";

/// Parameters of Llama 3.1 and 3.2, which differ in `factor` only (8 and 32).
const LLAMA3_LOW: f64 = 1.0;
const LLAMA3_HIGH: f64 = 4.0;
const LLAMA3_CONTEXT: u32 = 8192;
/// Divisors were computed in f32 by some writers and in f64 by others.
const FACTOR_TOLERANCE: f64 = 1e-4;

/// HF's `rope_scaling`, or `None` where positions are used as they are.
pub fn rope_scaling(
    gguf: &Gguf,
    head_dim: usize,
    theta: f64,
    context: u32,
) -> Result<Option<Value>, GgufError> {
    let declared = declared(gguf, context)?;
    match (declared, factors(gguf, head_dim, theta)?) {
        (Some(_), Some(_)) => Err(GgufError::RopeFactors {
            what: "the metadata declare a rope scaling as well; expected only one of them".to_string(),
        }),
        (declared, factors) => Ok(declared.or(factors)),
    }
}

/// What `llama.rope.scaling.*` says.
fn declared(gguf: &Gguf, context: u32) -> Result<Option<Value>, GgufError> {
    const TYPE: &str = "llama.rope.scaling.type";
    const FACTOR: &str = "llama.rope.scaling.factor";
    const ATTN_FACTOR: &str = "llama.rope.scaling.attn_factor";
    // `rope.scale_linear` is the name of the factor in files of before November 2023.
    let factor = match gguf.meta_f32(FACTOR)? {
        Some(factor) => Some(factor),
        None => gguf.meta_f32("llama.rope.scale_linear")?,
    };
    // As llama.cpp: no type means linear, and a factor of 0 means none.
    let kind = gguf.meta_str(TYPE)?.unwrap_or("linear");
    let factor = decimal(factor.unwrap_or(0.0));
    if factor < 0.0 {
        return Err(bad(FACTOR, factor, "a scaling factor cannot be negative"));
    }
    let attn_factor = decimal(gguf.meta_f32(ATTN_FACTOR)?.unwrap_or(1.0));
    if attn_factor != 1.0 && kind != "yarn" {
        return Err(bad(ATTN_FACTOR, attn_factor, "it is supported with yarn only"));
    }
    match kind {
        "none" => Ok(None),
        "linear" if factor == 0.0 || factor == 1.0 => Ok(None),
        "linear" => Ok(Some(json!({ "type": "linear", "rope_type": "linear", "factor": factor }))),
        "yarn" => {
            if factor == 0.0 {
                return Err(GgufError::MissingKey { key: FACTOR.to_string() });
            }
            yarn(gguf, factor, attn_factor, context).map(Some)
        }
        other => Err(GgufError::BadValue {
            key: TYPE.to_string(),
            found: format!("{other:?}"),
            what: "expected none, linear or yarn".to_string(),
        }),
    }
}

fn yarn(gguf: &Gguf, factor: f64, attn_factor: f64, context: u32) -> Result<Value, GgufError> {
    let original = gguf.meta_u32("llama.rope.scaling.original_context_length")?.unwrap_or(context);
    let mut scaling = json!({
        "type": "yarn",
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
    });
    for (key, name) in [
        ("llama.rope.scaling.yarn_beta_fast", "beta_fast"),
        ("llama.rope.scaling.yarn_beta_slow", "beta_slow"),
    ] {
        if let Some(v) = gguf.meta_f32(key)? {
            scaling[name] = json!(decimal(v));
        }
    }
    for (key, neutral) in [
        ("llama.rope.scaling.yarn_ext_factor", 1.0),
        ("llama.rope.scaling.yarn_attn_factor", 1.0),
        ("llama.rope.scaling.yarn_log_multiplier", 0.0),
    ] {
        if let Some(v) = gguf.meta_f32(key)?
            && v != neutral
        {
            return Err(bad(key, decimal(v), "HF's llama has no such setting"));
        }
    }
    if attn_factor != 1.0 {
        // ggml multiplies cos and sin by attn_factor * (1 + 0.1 ln factor) (`rope_yarn`); HF's
        // attention_factor is that whole product.
        scaling["attention_factor"] = json!(attn_factor * (1.0 + 0.1 * factor.ln()));
    }
    Ok(scaling)
}

/// What the tensor of divisors means.
fn factors(gguf: &Gguf, head_dim: usize, theta: f64) -> Result<Option<Value>, GgufError> {
    let Some(tensor) = gguf.tensor(ROPE_FREQS) else { return Ok(None) };
    let wrong = |what: String| Err(GgufError::RopeFactors { what });
    if tensor.ty.name != "F32" || tensor.dims != [head_dim as u64 / 2] {
        return wrong(format!(
            "{} with dimensions {:?}, expected F32 with [{}]",
            tensor.ty.name,
            tensor.dims,
            head_dim / 2
        ));
    }
    let divisors: Vec<f64> = gguf
        .data(tensor)
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    if divisors.iter().all(|&d| d == 1.0) {
        return Ok(None);
    }
    // The lowest frequency is divided by the whole factor.
    let factor = decimal(divisors.last().copied().unwrap_or(1.0) as f32);
    let expected = llama3_divisors(head_dim, theta, factor);
    for (i, (&found, &expected)) in divisors.iter().zip(&expected).enumerate() {
        // A NaN is not close to anything.
        let close = (found - expected).abs() <= FACTOR_TOLERANCE * expected;
        if !close {
            return wrong(format!(
                "divisor {i} is {found}, expected {expected} of Llama 3 scaling by {factor}; other scalings are not supported"
            ));
        }
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    })))
}

/// `_compute_llama3_parameters` of HF, as divisors of the frequencies.
fn llama3_divisors(head_dim: usize, theta: f64, factor: f64) -> Vec<f64> {
    let context = f64::from(LLAMA3_CONTEXT);
    (0..head_dim / 2)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
            if wavelength < context / LLAMA3_HIGH {
                1.0
            } else if wavelength > context / LLAMA3_LOW {
                factor
            } else {
                let smooth = (context / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}

/// The decimal that was meant: the shortest one that gives this f32. 1e-5 as f32 is
/// 9.999999747378752e-06; its shortest spelling is 0.00001.
pub fn decimal(v: f32) -> f64 {
    v.to_string().parse().unwrap_or_else(|_| f64::from(v))
}

/// `llama.rope.freq_base`, by default 10000.
pub fn theta(gguf: &Gguf) -> Result<f64, GgufError> {
    const KEY: &str = "llama.rope.freq_base";
    let theta = decimal(gguf.meta_f32(KEY)?.unwrap_or(10000.0));
    if theta <= 0.0 {
        return Err(bad(KEY, theta, "the base must be positive"));
    }
    Ok(theta)
}

/// `llama.rope.dimension_count` must be the whole head: HF's llama cannot rotate a part of it.
pub fn check_dimensions(gguf: &Gguf, head_dim: u32) -> Result<(), GgufError> {
    const KEY: &str = "llama.rope.dimension_count";
    match gguf.meta_u32(KEY)? {
        Some(n) if n != head_dim => Err(GgufError::BadValue {
            key: KEY.to_string(),
            found: n.to_string(),
            what: format!("expected the width of a head, {head_dim}; partial rotation is not supported"),
        }),
        _ if !head_dim.is_multiple_of(2) => Err(GgufError::BadValue {
            key: "llama.attention.key_length".to_string(),
            found: head_dim.to_string(),
            what: "a rotated head has an even width".to_string(),
        }),
        _ => Ok(()),
    }
}

fn bad(key: &str, found: f64, what: &str) -> GgufError {
    GgufError::BadValue { key: key.to_string(), found: found.to_string(), what: what.to_string() }
}
