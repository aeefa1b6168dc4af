//! What a GGUF file says beside the model: sampling settings, and keys about text that nobody here knows.

use super::error::GgufError;
use super::header::Gguf;
use super::rope::decimal;
use super::value::Value;
use serde_json::{Map, Value as Json, json};

const SAMPLING: &str = "general.sampling.";
/// The settings that Hugging Face has other names for.
const NAMES: [(&str, &str); 2] = [("temp", "temperature"), ("penalty_repeat", "repetition_penalty")];

/// `generation_config.json` of the file's `general.sampling` keys; `None` if it has none.
pub fn generation_config(gguf: &Gguf) -> Result<Option<Json>, GgufError> {
    let mut config = Map::new();
    for (key, value) in gguf.metadata().range(SAMPLING.to_owned()..) {
        let Some(name) = key.strip_prefix(SAMPLING) else { break };
        let name = NAMES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours);
        let value = match value {
            Value::F32(_) => json!(gguf.meta_f32(key)?.map(decimal)),
            Value::Bool(b) => json!(b),
            Value::String(s) => json!(s),
            _ => match gguf.meta_u32(key) {
                Ok(n) => json!(n),
                Err(_) => json!(value.describe()),
            },
        };
        config.insert(name.to_owned(), value);
    }
    Ok((!config.is_empty()).then_some(Json::Object(config)))
}

/// Keys under `tokenizer.` that are read, or that ask for nothing when a text is made.
const KNOWN: &[&str] = &[
    "model",
    "pre",
    "tokens",
    "token_type",
    "token_type_count",
    "scores",
    "merges",
    "precompiled_charsmap",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "unknown_token_id",
    "padding_token_id",
    // Filling in the middle, classification: no text of a chat has them unless it is written there.
    "seperator_token_id",
    "separator_token_id",
    "cls_token_id",
    "mask_token_id",
    "prefix_token_id",
    "suffix_token_id",
    "middle_token_id",
    "fim_pre_token_id",
    "fim_suf_token_id",
    "fim_mid_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
];

/// Keys under `tokenizer.` that are not read.
pub fn unknown_keys(gguf: &Gguf) -> Vec<String> {
    let known = |key: &str| match key.strip_prefix("tokenizer.") {
        Some(name) => {
            name == "chat_template"
                || name.starts_with("chat_template.")
                || name == "chat_templates"
                || name.strip_prefix("ggml.").is_some_and(|name| KNOWN.contains(&name))
        }
        None => true,
    };
    gguf.metadata().keys().filter(|key| !known(key)).cloned().collect()
}
