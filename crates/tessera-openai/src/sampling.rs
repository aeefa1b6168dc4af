//! How tokens are chosen, from the fields that chat and completions share.

use crate::error::{ApiError, ApiResult};
use crate::fields::chat::MAX_STOPS;
use crate::fields::{Fields, short, whole, wrong_type};
use crate::ids;
use crate::json::kind;
use crate::subject::Subject;
use serde_json::Value;
use tessera_engine::sampler::SamplingParams;
use tessera_engine::sampler::range::LOGIT_BIAS;

/// What ends an answer, and what of it is shown.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Texts.
    pub stop: Vec<String>,
    /// Tokens.
    pub stop_token_ids: Vec<u32>,
    /// Whether they are part of the text.
    pub include_stop: bool,
    /// Whether special tokens leave their text.
    pub keep_special: bool,
}

/// The fields over the model's own defaults. Temperature 0 asks for the likeliest token, so the model's
/// penalties, which would make it another, are left out then; given ones count.
pub fn sampling(fields: &Fields<'_>, served: &Subject) -> ApiResult<SamplingParams> {
    let defaults = &served.text.defaults;
    let plain = SamplingParams::default();
    let temperature = fields.number("temperature").unwrap_or(defaults.temperature);
    let penalties = if temperature == 0.0 { &plain } else { defaults };
    Ok(SamplingParams {
        temperature,
        top_p: top_p(fields, defaults),
        top_k: fields.size("top_k").unwrap_or(if fields.int("top_k").is_some() { 0 } else { defaults.top_k }),
        min_p: fields.number("min_p").unwrap_or(defaults.min_p),
        repetition_penalty: fields.number("repetition_penalty").unwrap_or(penalties.repetition_penalty),
        frequency_penalty: fields.number("frequency_penalty").unwrap_or(penalties.frequency_penalty),
        presence_penalty: fields.number("presence_penalty").unwrap_or(penalties.presence_penalty),
        logit_bias: logit_bias(fields)?,
        // A negative seed is as good as another.
        seed: fields.int("seed").map_or_else(ids::random, |seed| seed as u64),
    })
}

/// `top_p`, over the model's own.
pub fn top_p(fields: &Fields<'_>, defaults: &SamplingParams) -> f32 {
    fields.number("top_p").unwrap_or(defaults.top_p)
}

/// The parameters of choice `i` of `n`.
pub fn for_choice(params: &SamplingParams, i: usize) -> SamplingParams {
    SamplingParams { seed: params.seed.wrapping_add(i as u64), ..params.clone() }
}

/// What ends an answer. `template` adds the chat template's own stop strings.
pub fn ending(fields: &Fields<'_>, served: &Subject, template: bool) -> ApiResult<Ending> {
    let mut stop = stop_strings(fields)?;
    let mut stop_token_ids = token_ids(fields, "stop_token_ids")?;
    if let Some((i, id)) =
        stop_token_ids.iter().enumerate().find(|(_, id)| **id as usize >= served.vocab_size)
    {
        let param = format!("{}[{i}]", fields.param("stop_token_ids"));
        let message = format!("{param}: token {id} does not exist, the vocabulary has {}", served.vocab_size);
        return Err(ApiError::value(param, message));
    }
    if fields.bool("ignore_eos") != Some(true) {
        stop_token_ids.extend(&served.text.stop_token_ids);
        if template {
            stop.extend(served.text.stop_strings());
        }
    }
    let flag = |name| fields.bool(name) == Some(true);
    Ok(Ending {
        stop,
        stop_token_ids,
        include_stop: flag("include_stop_str_in_output") || flag("no_stop_trim"),
        keep_special: fields.bool("skip_special_tokens") == Some(false),
    })
}

fn stop_strings(fields: &Fields<'_>) -> ApiResult<Vec<String>> {
    let param = fields.param("stop");
    let list = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(Value::Array(list)) => list.as_slice(),
        Some(other) => return Err(wrong_type(&param, "a string or an array of strings", kind(other))),
    };
    if list.len() > MAX_STOPS {
        let message = format!("{param}: expected at most {MAX_STOPS} strings, found {}", list.len());
        return Err(ApiError::value(param, message));
    }
    let mut stops = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let param = if list.len() == 1 && !fields.get("stop").is_some_and(Value::is_array) {
            param.clone()
        } else {
            format!("{param}[{i}]")
        };
        match value {
            Value::String(text) if !text.is_empty() => stops.push(text.clone()),
            Value::String(_) => {
                return Err(ApiError::value(&*param, format!("{param}: an empty string ends nothing")));
            }
            other => return Err(wrong_type(&param, "a string", kind(other))),
        }
    }
    Ok(stops)
}

/// An array of token ids.
pub fn token_ids(fields: &Fields<'_>, name: &str) -> ApiResult<Vec<u32>> {
    let Some(list) = fields.list(name) else { return Ok(Vec::new()) };
    tokens(list, &fields.param(name))
}

/// Token ids; whether they exist is the engine's to say.
pub fn tokens(list: &[Value], param: &str) -> ApiResult<Vec<u32>> {
    let token = |(i, value): (usize, &Value)| {
        whole(value).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            let param = format!("{param}[{i}]");
            let message = format!("{param}: expected a token id, found {}", short(value));
            ApiError::value(param, message)
        })
    };
    list.iter().enumerate().map(token).collect()
}

fn logit_bias(fields: &Fields<'_>) -> ApiResult<Vec<(u32, f32)>> {
    let Some(map) = fields.get("logit_bias").and_then(Value::as_object) else { return Ok(Vec::new()) };
    let (low, high) = LOGIT_BIAS.openai;
    let expected = format!("a number from {low} to {high}");
    let mut biases = Vec::new();
    for (key, value) in map {
        let param = format!("{}.{key}", fields.param("logit_bias"));
        // Only the plain spelling: two of one token would be two biases, of which one is ignored.
        let token = key.parse().ok().filter(|token: &u32| token.to_string() == *key).ok_or_else(|| {
            ApiError::value(&*param, format!("{param}: expected a token id as the key, found {key:?}"))
        })?;
        match value.as_f64() {
            Some(bias) if (low..=high).contains(&bias) => biases.push((token, bias as f32)),
            Some(_) => {
                let message = format!("{param}: expected {expected}, found {}", short(value));
                return Err(ApiError::value(param, message));
            }
            None => return Err(wrong_type(&param, &expected, kind(value))),
        }
    }
    Ok(biases)
}
