//! RoPE scaling of a GGUF file as HF's `rope_scaling`.
//!
//! GGUF says `linear` and `yarn` in metadata; Llama 3's scaling is only there as a tensor of
//! divisors, `rope_freqs.weight`, from which its parameters are recognised.

use serde_json::{Value, json};

use super::error::GgufError;
use super::header::Gguf;
use super::keys::Keys;

/// The tensor of divisors.
pub const ROPE_FREQS: &str = "rope_freqs.weight";

/// Parameters of Llama 3.1 and 3.2, which differ in `factor` only (8 and 32).
const LLAMA3_LOW: f64 = 1.0;
const LLAMA3_HIGH: f64 = 4.0;
const LLAMA3_CONTEXT: u32 = 8192;
/// Divisors were computed in f32 by some writers and in f64 by others.
const FACTOR_TOLERANCE: f64 = 1e-4;

/// HF's `rope_scaling`, or `None` where positions are used as they are.
pub(super) fn rope_scaling(
    keys: Keys<'_>,
    head_dim: usize,
    theta: f64,
    context: u32,
) -> Result<Option<Value>, GgufError> {
    let declared = declared(keys, context)?;
    match (declared, factors(keys.gguf, head_dim, theta)?) {
        (Some(_), Some(_)) => Err(GgufError::RopeFactors {
            what: "the metadata declare a rope scaling as well; expected only one of them".to_string(),
        }),
        (declared, factors) => Ok(declared.or(factors)),
    }
}

/// What `rope.scaling.*` says.
fn declared(keys: Keys<'_>, context: u32) -> Result<Option<Value>, GgufError> {
    const TYPE: &str = "rope.scaling.type";
    const FACTOR: &str = "rope.scaling.factor";
    const ATTN_FACTOR: &str = "rope.scaling.attn_factor";
    // `rope.scale_linear` is the name of the factor in files of before November 2023.
    let factor = match keys.number(FACTOR)? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    // As llama.cpp: no type means linear, and a factor of 0 means none.
    let kind = keys.str(TYPE)?.unwrap_or("linear");
    let factor = factor.unwrap_or(0.0);
    if factor < 0.0 {
        return Err(keys.bad(FACTOR, factor, "a scaling factor cannot be negative".to_string()));
    }
    let attn_factor = keys.number(ATTN_FACTOR)?.unwrap_or(1.0);
    if attn_factor != 1.0 && kind != "yarn" {
        return Err(keys.bad(ATTN_FACTOR, attn_factor, "it is supported with yarn only".to_string()));
    }
    match kind {
        "none" => Ok(None),
        "linear" if factor == 0.0 || factor == 1.0 => Ok(None),
        "linear" => Ok(Some(json!({ "type": "linear", "rope_type": "linear", "factor": factor }))),
        "yarn" => {
            if factor == 0.0 {
                return Err(GgufError::MissingKey { key: keys.key(FACTOR) });
            }
            yarn(keys, factor, attn_factor, context).map(Some)
        }
        other => Err(keys.bad(TYPE, format!("{other:?}"), "expected none, linear or yarn".to_string())),
    }
}

fn yarn(keys: Keys<'_>, factor: f64, attn_factor: f64, context: u32) -> Result<Value, GgufError> {
    let original = keys.u32("rope.scaling.original_context_length")?.unwrap_or(context);
    let mut scaling = json!({
        "type": "yarn",
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
    });
    for (key, name) in
        [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")]
    {
        if let Some(v) = keys.number(key)? {
            scaling[name] = json!(v);
        }
    }
    for (key, neutral) in [
        ("rope.scaling.yarn_ext_factor", 1.0),
        ("rope.scaling.yarn_attn_factor", 1.0),
        ("rope.scaling.yarn_log_multiplier", 0.0),
    ] {
        if let Some(v) = keys.number(key)?
            && v != neutral
        {
            return Err(keys.bad(key, v, "HF's models have no such setting".to_string()));
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
    let expected = llama3_divisors(head_dim, theta, factor, LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT.into());
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
pub(crate) fn llama3_divisors(
    head_dim: usize,
    theta: f64,
    factor: f64,
    low: f64,
    high: f64,
    context: f64,
) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
            if wavelength < context / high {
                1.0
            } else if wavelength > context / low {
                factor
            } else {
                let smooth = (context / wavelength - low) / (high - low);
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

/// `rope.freq_base`, by default 10000.
pub(super) fn theta(keys: Keys<'_>) -> Result<f64, GgufError> {
    const KEY: &str = "rope.freq_base";
    match keys.number(KEY)?.unwrap_or(10000.0) {
        theta if theta <= 0.0 => Err(keys.bad(KEY, theta, "the base must be positive".to_string())),
        theta => Ok(theta),
    }
}

/// How many of a head's dimensions turn: `rope.dimension_count`, by default all.
pub(super) fn dimensions(keys: Keys<'_>, head_dim: u32) -> Result<u32, GgufError> {
    const KEY: &str = "rope.dimension_count";
    // Families whose config has a part of a head.
    let partial = matches!(keys.family.arch, "phi2" | "phi3" | "stablelm");
    match keys.u32(KEY)? {
        Some(n) if n > head_dim || n == 0 || n % 2 != 0 => {
            Err(keys.bad(KEY, n, format!("expected an even number up to the width of a head, {head_dim}")))
        }
        Some(n) if n != head_dim && !partial => Err(keys.bad(
            KEY,
            n,
            format!("expected the width of a head, {head_dim}; partial rotation is not supported here"),
        )),
        Some(n) => Ok(n),
        None if !head_dim.is_multiple_of(2) => {
            Err(keys.bad("attention.key_length", head_dim, "a rotated head has an even width".to_string()))
        }
        None => Ok(head_dim),
    }
}
