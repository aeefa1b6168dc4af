//! What becomes of a text's hidden states: one vector, by the pooling that the folder says.
//!
//! The authors' word is sentence-transformers' (`modules.json` and the pooling module's `config.json`), MLC's is
//! `embedding_metadata` of its chat config. Where a folder has neither, an encoder's first token is taken, as MLC does.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::arch::Semantics;
use crate::json;

/// Names the modules of a sentence-transformers model.
pub const MODULES: &str = "modules.json";
/// The pooling module's own config, at the place that every model has it.
pub const POOLING: &str = "1_Pooling/config.json";

/// How hidden states of all tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// Their mean.
    Mean,
    /// The last token's.
    Last,
}

impl Pooling {
    /// MLC's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Last => "last",
        }
    }

    fn parse(name: &str) -> Option<Pooling> {
        [Pooling::Cls, Pooling::Mean, Pooling::Last].into_iter().find(|p| p.name() == name)
    }
}

/// What a model's vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Embedding {
    /// From many hidden states to one.
    pub pooling: Pooling,
    /// Whether the result is divided by its length.
    pub normalize: bool,
}

impl fmt::Display for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pooling{}", self.pooling.name(), if self.normalize { ", normalised" } else { "" })
    }
}

/// What a folder says of its vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Embeddings {
    /// The authors' word.
    pub authors: Option<Embedding>,
    /// MLC's.
    pub mlc: Option<Embedding>,
    /// Whether the model is an encoder, which makes nothing else.
    pub encoder: bool,
}

impl Embeddings {
    /// What is computed; `None` for a model that nobody calls one for embeddings.
    pub fn get(&self, semantics: Semantics) -> Option<Embedding> {
        let said = match semantics {
            Semantics::Authors => self.authors.or(self.mlc),
            Semantics::Mlc => self.mlc,
        };
        said.or(self.encoder.then_some(Embedding { pooling: Pooling::Cls, normalize: true }))
    }
}

/// What sentence-transformers' files say; `None` where there are none. `read` gives a file of the folder.
///
/// # Errors
/// The file and what is wrong: no JSON, or a module or a pooling that is not here.
pub fn of_modules(
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Option<Embedding>, (&'static str, String)> {
    let parsed = |name: &'static str| {
        let parse = |bytes: Vec<u8>| json::parse(&bytes).map_err(|e| (name, format!("invalid JSON: {e}")));
        read(name).map(parse).transpose()
    };
    let modules: Option<Value> = parsed(MODULES)?;
    let mut normalize = true;
    if let Some(modules) = &modules {
        let list = modules.as_array().ok_or((MODULES, "not a list of modules".to_owned()))?;
        normalize = false;
        for module in list {
            let kind = module.get("type").and_then(Value::as_str).unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Pooling" => {}
                "Normalize" => normalize = true,
                _ => return Err((MODULES, format!("the module {kind:?} is not supported"))),
            }
        }
    }
    let Some(pooling) = parsed(POOLING)? else {
        return match modules {
            Some(_) => Err((MODULES, format!("names a pooling, but there is no {POOLING}"))),
            None => Ok(None),
        };
    };
    let pooling = pooling_of(&pooling).map_err(|what| (POOLING, what))?;
    Ok(Some(Embedding { pooling, normalize }))
}

/// Either `pooling_mode`, or one of many `pooling_mode_…` that is true.
fn pooling_of(config: &Value) -> Result<Pooling, String> {
    let fields = config.as_object().ok_or("not an object")?;
    if let Some(mode) = fields.get("pooling_mode") {
        let name = mode.as_str().unwrap_or_default().replace("lasttoken", "last");
        return Pooling::parse(&name).ok_or_else(|| format!("pooling_mode {mode} is not supported"));
    }
    let on = |(key, value): (&String, &Value)| {
        let mode = key.strip_prefix("pooling_mode_")?;
        (value == &Value::Bool(true)).then(|| mode.to_owned())
    };
    let modes: Vec<String> = fields.iter().filter_map(on).collect();
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls_token"] => Ok(Pooling::Cls),
        ["mean_tokens"] => Ok(Pooling::Mean),
        ["lasttoken"] => Ok(Pooling::Last),
        [] => Err("no pooling_mode_… is true".to_owned()),
        _ => Err(format!("pooling by {} is not supported", modes.join(" and "))),
    }
}

/// What MLC's `model_task` and `embedding_metadata` say; `None` for a chat model.
///
/// # Errors
/// A field whose value is none that MLC knows.
pub fn of_metadata(task: Option<&str>, metadata: Option<&Value>) -> Result<Option<Embedding>, String> {
    let task = match task {
        None | Some("chat") => false,
        Some("embedding") => true,
        Some(other) => return Err(format!("model_task: {other:?} is neither chat nor embedding")),
    };
    let fields = match metadata {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(format!("embedding_metadata: {other} is not an object")),
    };
    if !task {
        return Err("embedding_metadata: model_task is not embedding".to_owned());
    }
    let pooling = match fields.get("pooling_strategy") {
        None | Some(Value::Null) => return Err("embedding_metadata: no pooling_strategy".to_owned()),
        Some(name) => Pooling::parse(name.as_str().unwrap_or_default()).ok_or_else(|| {
            format!("embedding_metadata.pooling_strategy: {name} is none of cls, mean and last")
        })?,
    };
    let normalize = match fields.get("normalize") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(normalize)) => *normalize,
        Some(other) => {
            return Err(format!("embedding_metadata.normalize: {other} is neither true nor false"));
        }
    };
    Ok(Some(Embedding { pooling, normalize }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn modules(files: &[(&str, Value)]) -> Result<Option<Embedding>, (&'static str, String)> {
        of_modules(|name| files.iter().find(|f| f.0 == name).map(|f| f.1.to_string().into_bytes()))
    }

    #[test]
    fn what_the_authors_say() {
        let module = |kind: &str| json!({"type": format!("sentence_transformers.models.{kind}")});
        let mean = json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true});
        let both = [
            (MODULES, json!([module("Transformer"), module("Pooling"), module("Normalize")])),
            (POOLING, mean.clone()),
        ];
        let found = |pooling, normalize| Ok(Some(Embedding { pooling, normalize }));
        assert_eq!(modules(&both), found(Pooling::Mean, true));
        assert_eq!(modules(&[(POOLING, mean.clone())]), found(Pooling::Mean, true));
        let plain = [
            (MODULES, json!([module("Transformer"), module("Pooling")])),
            (POOLING, json!({"pooling_mode": "lasttoken"})),
        ];
        assert_eq!(modules(&plain), found(Pooling::Last, false));
        assert_eq!(modules(&[]), Ok(None));

        let refused = |files: &[(&str, Value)]| modules(files).unwrap_err();
        let dense =
            [(MODULES, json!([module("Transformer"), module("Pooling"), module("Dense")])), (POOLING, mean)];
        assert_eq!(
            refused(&dense),
            (MODULES, "the module \"sentence_transformers.models.Dense\" is not supported".to_owned())
        );
        let max = json!({"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true});
        assert_eq!(refused(&[(POOLING, max)]).1, "pooling by max_tokens and mean_tokens is not supported");
        assert_eq!(
            refused(&[(POOLING, json!({"pooling_mode": "max"}))]).1,
            "pooling_mode \"max\" is not supported"
        );
        assert!(refused(&[(MODULES, json!([module("Transformer")]))]).1.contains("there is no 1_Pooling"));
    }

    #[test]
    fn what_mlc_says() {
        let cls = json!({"model_type": "encoder", "pooling_strategy": "cls", "normalize": true});
        let found = Embedding { pooling: Pooling::Cls, normalize: true };
        assert_eq!(of_metadata(Some("embedding"), Some(&cls)), Ok(Some(found)));
        assert_eq!(of_metadata(Some("chat"), Some(&Value::Null)), Ok(None));
        for (task, metadata, word) in [
            ("rerank", Value::Null, "model_task"),
            ("chat", cls, "model_task is not embedding"),
            ("embedding", json!({"pooling_strategy": "max"}), "none of cls, mean and last"),
            ("embedding", json!({"pooling_strategy": "cls", "normalize": 1}), "normalize: 1"),
            ("embedding", json!([]), "not an object"),
        ] {
            let error = of_metadata(Some(task), Some(&metadata)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
