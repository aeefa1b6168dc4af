//! `adapter_config.json`: which adapters can be merged, and by how much each module's delta counts.

use super::LoraError;
use crate::hf::HfError;
use serde_json::{Map, Value};
use std::path::Path;

const FILE: &str = "adapter_config.json";
const MAX_LEN: u64 = 16 << 20;
/// No adapter has more.
const MAX_RANK: u64 = 1 << 16;

/// What the config says of the arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    rank: u64,
    alpha: f64,
    rank_stabilised: bool,
    /// By module, more special ones first as they are written.
    ranks: Vec<(Pattern, u64)>,
    alphas: Vec<(Pattern, f64)>,
}

/// A key of `rank_pattern` and `alpha_pattern`: the end of a module's name, by whole parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    end: String,
    whole: bool,
}

impl Pattern {
    /// They are regular expressions to PEFT. What is written is names, at most with `^` before and `\.` inside.
    fn parse(key: &str) -> Option<Pattern> {
        let (key, whole) = match key.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (key, false),
        };
        let end = key.strip_suffix('$').unwrap_or(key).replace("\\.", ".");
        let plain = !end.is_empty()
            && end.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        plain.then_some(Pattern { end, whole })
    }

    fn fits(&self, module: &str) -> bool {
        match module.strip_suffix(self.end.as_str()) {
            Some("") => true,
            Some(before) => !self.whole && before.ends_with('.'),
            None => false,
        }
    }
}

impl LoraConfig {
    /// Of an adapter's folder.
    pub(super) fn open(folder: &Path) -> Result<LoraConfig, LoraError> {
        let path = folder.join(FILE);
        let file = path.display().to_string();
        let text = crate::files::need(&path, MAX_LEN)
            .map_err(|source| HfError::Io { file: file.clone(), source })?;
        let value: Value = crate::json::parse(&text)
            .map_err(|e| HfError::Json { file: file.clone(), what: format!("not valid JSON: {e}") })?;
        LoraConfig::parse(&value).map_err(|what| LoraError::Config { file, what })
    }

    /// The error is the field and what is wrong with it.
    pub fn parse(config: &Value) -> Result<LoraConfig, String> {
        let config = config.as_object().ok_or("not an object")?;
        let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
        if kind != "LORA" {
            return Err(format!(
                "peft_type is {kind}, expected LORA: no other kind of adapter can be merged"
            ));
        }
        refuse(config)?;
        let rank = |value: &Value, what: &str| {
            let found = value.as_u64().filter(|r| (1..=MAX_RANK).contains(r));
            found.ok_or_else(|| format!("{what} is {value}, expected a whole number from 1 to {MAX_RANK}"))
        };
        let alpha = |value: &Value, what: &str| {
            let found = value.as_f64().filter(|a| a.is_finite());
            found.ok_or_else(|| format!("{what} is {value}, expected a number"))
        };
        let need = |field: &str| config.get(field).ok_or_else(|| format!("{field} is missing"));
        Ok(LoraConfig {
            rank: rank(need("r")?, "r")?,
            alpha: alpha(need("lora_alpha")?, "lora_alpha")?,
            rank_stabilised: flag(config, "use_rslora")?,
            ranks: patterns(config, "rank_pattern", rank)?,
            alphas: patterns(config, "alpha_pattern", alpha)?,
        })
    }

    /// The rank of a module's delta.
    pub fn rank(&self, module: &str) -> u64 {
        find(&self.ranks, module).unwrap_or(self.rank)
    }

    /// What its B A is multiplied by.
    pub fn scale(&self, module: &str) -> f64 {
        let (alpha, rank) = (find(&self.alphas, module).unwrap_or(self.alpha), self.rank(module) as f64);
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

/// The first that fits, as PEFT takes it.
fn find<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.fits(module)).map(|(_, value)| *value)
}

fn patterns<T>(
    config: &Map<String, Value>,
    field: &str,
    read: impl Fn(&Value, &str) -> Result<T, String>,
) -> Result<Vec<(Pattern, T)>, String> {
    let Some(list) = config.get(field).filter(|v| !v.is_null()) else { return Ok(Vec::new()) };
    let list = list.as_object().ok_or_else(|| format!("{field} is {list}, expected an object"))?;
    list.iter()
        .map(|(key, value)| {
            let pattern = Pattern::parse(key).ok_or_else(|| {
                format!("{field}: {key:?} is a regular expression, expected a module's name")
            })?;
            Ok((pattern, read(value, &format!("{field}: {key}"))?))
        })
        .collect()
}

fn flag(config: &Map<String, Value>, field: &str) -> Result<bool, String> {
    match config.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(set)) => Ok(*set),
        Some(other) => Err(format!("{field} is {other}, expected true or false")),
    }
}

/// What is no plain sum of a low rank, by name.
fn refuse(config: &Map<String, Value>) -> Result<(), String> {
    if flag(config, "use_dora")? {
        return Err("use_dora is true: DoRA scales whole columns and cannot be merged here".to_owned());
    }
    if flag(config, "use_qalora")? {
        return Err("use_qalora is true: QALoRA pools its inputs and cannot be merged here".to_owned());
    }
    let set = |v: &&Value| match v {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for (field, why) in [
        ("layer_replication", "it makes a model of other layers"),
        ("target_parameters", "its deltas are of stacked parameters"),
        ("alora_invocation_tokens", "an activated LoRA counts for some tokens only"),
        ("trainable_token_indices", "it changes single rows of the embedding"),
    ] {
        if let Some(value) = config.get(field).filter(set) {
            return Err(format!("{field} is {value}: {why}, which cannot be merged here"));
        }
    }
    // These begin with another base than the published one, which they leave out of the adapter.
    if let Some(init) = config.get("init_lora_weights").and_then(Value::as_str) {
        let init_lower = init.to_ascii_lowercase();
        if ["pissa", "olora", "corda", "loftq"].iter().any(|name| init_lower.starts_with(name)) {
            return Err(format!(
                "init_lora_weights is {init}: such an adapter is a difference to weights that it has changed itself; \
                 convert it to a plain LoRA when it is saved"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(more: Value) -> Result<LoraConfig, String> {
        let mut config = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        LoraConfig::parse(&config)
    }

    #[test]
    fn scales_follow_rank_alpha_and_their_patterns() {
        let plain = config(json!({})).unwrap();
        assert_eq!((plain.rank("a.q_proj"), plain.scale("a.q_proj")), (8, 2.0));
        let patterns = json!({"rank_pattern": {"q_proj": 4, "layers.1.k_proj": 16, r"^a\.v_proj": 2}, "alpha_pattern": {"q_proj": 32}});
        let by_module = config(patterns).unwrap();
        assert_eq!((by_module.rank("x.q_proj"), by_module.scale("x.q_proj")), (4, 8.0));
        assert_eq!((by_module.rank("xq_proj"), by_module.rank("q_proj")), (8, 4), "by whole parts");
        assert_eq!((by_module.rank("m.layers.1.k_proj"), by_module.rank("m.layers.11.k_proj")), (16, 8));
        assert_eq!((by_module.rank("a.v_proj"), by_module.rank("b.a.v_proj")), (2, 8));
        let stable = config(json!({"use_rslora": true, "r": 16})).unwrap();
        assert_eq!(stable.scale("q_proj"), 4.0);
    }

    #[test]
    fn what_is_no_plain_sum_is_refused_by_name() {
        for (more, words) in [
            (json!({"peft_type": "LOHA"}), "peft_type is LOHA"),
            (json!({"peft_type": null}), "peft_type is nothing"),
            (json!({"use_dora": true}), "DoRA"),
            (json!({"use_dora": "yes"}), "use_dora is \"yes\""),
            (json!({"use_qalora": true}), "QALoRA"),
            (json!({"layer_replication": [[0, 4]]}), "layer_replication"),
            (json!({"target_parameters": ["experts.down_proj"]}), "target_parameters"),
            (json!({"init_lora_weights": "pissa_niter_16"}), "pissa_niter_16"),
            (json!({"rank_pattern": {"q.*": 4}}), "\"q.*\" is a regular expression"),
            (json!({"rank_pattern": [1]}), "expected an object"),
            (json!({"alpha_pattern": {"q_proj": "x"}}), "alpha_pattern: q_proj is \"x\""),
            (json!({"r": 0}), "r is 0"),
            (json!({"r": 1e9}), "r is 1000000000.0"),
            (json!({"lora_alpha": null}), "lora_alpha is null"),
        ] {
            let error = config(more).unwrap_err();
            assert!(error.contains(words), "{error:?} has no {words:?}");
        }
        assert!(config(json!({"init_lora_weights": "gaussian", "layer_replication": null})).is_ok());
        assert!(LoraConfig::parse(&json!([])).is_err());
    }
}
