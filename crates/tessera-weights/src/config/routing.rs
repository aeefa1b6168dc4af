//! How a mixture chooses its experts, and factors on queries that grow with their position.

use serde_json::Value;

use super::ConfigError;
use super::fields::Fields;
use crate::arch::{Experts, Groups, PositionScale, Score, Sizes};

const DEEPSEEK: [&str; 3] = ["deepseek", "deepseek_v2", "deepseek_v3"];

/// Of a family that has experts.
pub(super) fn routing(
    model_type: &str,
    model: Fields<'_>,
    sizes: &Sizes,
) -> Result<Option<Experts>, ConfigError> {
    let Some(experts) = &sizes.parts.experts else { return Ok(None) };
    let whole = |key: &str, least: u64, most: usize| match model.get(key) {
        None => Ok(None),
        Some(v) => match v.as_u64().filter(|n| (least..=most as u64).contains(n)) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(model.invalid(key, v, &format!("{least} to {most}"))),
        },
    };
    let key = "num_experts_per_tok";
    let top_k = match whole(key, 1, experts.count)? {
        Some(n) => n,
        None if model_type == "llama4" => 1,
        None => return Err(ConfigError::Missing { field: format!("{}{key}", model.path) }),
    };
    let v3 = model_type == "deepseek_v3";
    let score = match model_type {
        "llama4" => Score::Sigmoid,
        _ if DEEPSEEK.contains(&model_type) => match model.text("scoring_func")? {
            Some("softmax") => Score::Softmax,
            Some("sigmoid") => Score::Sigmoid,
            Some(other) => return Err(unsupported(model, "scoring_func", other, "softmax, sigmoid")),
            None if v3 => Score::Sigmoid,
            None => Score::Softmax,
        },
        _ => Score::Softmax,
    };
    let renormalise = match model_type {
        "mixtral" => true,
        "llama4" => false,
        _ => model.flag("norm_topk_prob")?.unwrap_or(v3),
    };
    let scale = match model_type {
        "deepseek_v2" | "deepseek_v3" => model.number("routed_scaling_factor", f64::MIN_POSITIVE)?,
        _ => None,
    };
    let method = match model_type {
        "deepseek_v2" | "deepseek_v3" => model.text("topk_method")?,
        _ => Some("greedy"),
    };
    let groups = match method.unwrap_or(if v3 { "noaux_tc" } else { "greedy" }) {
        "greedy" => None,
        chosen @ ("group_limited_greedy" | "noaux_tc") => {
            let count = whole("n_group", 1, experts.count)?.unwrap_or(1);
            if !experts.count.is_multiple_of(count) {
                let expected = format!("a divisor of the {} experts", experts.count);
                return Err(model.invalid("n_group", &Value::from(count), &expected));
            }
            let kept = whole("topk_group", 1, count)?.unwrap_or(count);
            if kept * (experts.count / count) < top_k {
                let expected = format!("enough groups for {top_k} experts");
                return Err(model.invalid("topk_group", &Value::from(kept), &expected));
            }
            (count > 1).then_some(Groups { count, kept, two_best: chosen == "noaux_tc" })
        }
        other => {
            return Err(unsupported(model, "topk_method", other, "greedy, group_limited_greedy, noaux_tc"));
        }
    };
    Ok(Some(Experts {
        count: experts.count,
        width: experts.width,
        top_k,
        score,
        renormalise,
        scale: scale.unwrap_or(1.0) as f32,
        groups,
        on_input: model_type == "llama4",
    }))
}

fn unsupported(model: Fields<'_>, key: &str, found: &str, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported { field: format!("{}{key}", model.path), found: format!("{found:?}"), supported }
}

/// Llama 4's temperature and Ministral 3's scaling.
pub(super) fn position_scale(
    model_type: &str,
    model: Fields<'_>,
) -> Result<Option<PositionScale>, ConfigError> {
    match model_type {
        "llama4" => {
            let key = "attn_temperature_tuning";
            let on = match model.get(key) {
                // Its first configs have a number.
                Some(Value::Number(n)) => n.as_f64() != Some(0.0),
                _ => model.flag(key)?.unwrap_or(true),
            };
            let beta = model.number("attn_scale", 0.0)?.unwrap_or(0.1) as f32;
            let floor = model.number("floor_scale", 1.0)?.unwrap_or(8192.0) as f32;
            Ok(on.then_some(PositionScale { beta, floor, offset: 1 }))
        }
        "ministral3" => {
            let nested = model.get("rope_parameters").or(model.get("rope_scaling"));
            let Some(json) = nested else { return Ok(None) };
            let path = format!("{}rope_parameters.", model.path);
            let nested = Fields { json, path: &path };
            let Some(beta) = nested.number("llama_4_scaling_beta", 0.0)? else { return Ok(None) };
            let floor = nested.need_number("original_max_position_embeddings", 1.0)?;
            Ok((beta > 0.0).then_some(PositionScale { beta: beta as f32, floor: floor as f32, offset: 0 }))
        }
        _ => Ok(None),
    }
}

/// Which layers turn, where not all do (Llama 4).
pub(super) fn rope_layers(
    model_type: &str,
    model: Fields<'_>,
    layers: usize,
) -> Result<Option<Vec<bool>>, ConfigError> {
    if model_type != "llama4" {
        return Ok(None);
    }
    let key = "no_rope_layers";
    let given = model.get(key).filter(|v| v.as_array().is_none_or(|list| !list.is_empty()));
    if let Some(v) = given {
        // In spite of its name, 1 is for those that turn.
        let flag = |v: &Value| v.as_u64().filter(|n| *n <= 1).map(|n| n == 1);
        let list: Option<Vec<bool>> = v.as_array().and_then(|list| list.iter().map(flag).collect());
        let list = list.filter(|list| list.len() == layers);
        return list
            .map(Some)
            .ok_or_else(|| model.invalid(key, v, &format!("0 or 1 for each of {layers} layers")));
    }
    let key = "no_rope_layer_interval";
    let every = match model.get(key) {
        None => 4,
        Some(v) => match v.as_u64().filter(|n| (1..=1 << 12).contains(n)) {
            Some(n) => n as usize,
            None => return Err(model.invalid(key, v, "a number of layers")),
        },
    };
    Ok(Some((0..layers).map(|i| (i + 1) % every != 0).collect()))
}
