//! What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say.

use super::TokenizerError;
use serde_json::Value;
use std::collections::BTreeMap;

/// A token that stands beside the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub content: String,
    pub special: bool,
}

/// The settings around a tokenizer.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
    /// Hugging Face's name of the tokenizer's kind.
    pub class: Option<String>,
    /// SentencePiece only: whether a text after a special token gets a space in front, like a first one.
    pub legacy: Option<bool>,
    pub added: BTreeMap<u32, Added>,
}

/// Classes of transformers that put the first and the last token around a text themselves, whatever the
/// post-processor of `tokenizer.json` says, and whether they add the first where no setting says so.
const CLASSES_THAT_ADD: [(&str, bool); 5] = [
    ("LlamaTokenizer", true),
    ("CodeLlamaTokenizer", true),
    ("GemmaTokenizer", true),
    ("CohereTokenizer", true),
    ("GPTNeoXTokenizer", false),
];

impl Settings {
    /// Whether the first and the last token are added to a text, where the class decides it.
    pub fn added_by_class(&self) -> Option<(bool, bool)> {
        let class = self.class.as_deref()?;
        let class = class.strip_suffix("Fast").unwrap_or(class);
        let (_, first) = CLASSES_THAT_ADD.iter().find(|(name, _)| *name == class)?;
        Some((self.add_bos_token.unwrap_or(*first), self.add_eos_token.unwrap_or(false)))
    }

    pub fn read(
        read: &impl Fn(&str) -> Result<Option<Vec<u8>>, TokenizerError>,
    ) -> Result<Settings, TokenizerError> {
        let json = |file: &'static str| -> Result<Value, TokenizerError> {
            match read(file)? {
                Some(bytes) => tessera_weights::json::parse(&bytes)
                    .map_err(|e| TokenizerError::invalid(file, format!("invalid JSON: {e}"))),
                None => Ok(Value::Null),
            }
        };
        let config = json("tokenizer_config.json")?;
        let map = json("special_tokens_map.json")?;
        let token = |key: &str| content(&config[key]).or_else(|| content(&map[key]));
        let mut settings = Settings {
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
            add_bos_token: config["add_bos_token"].as_bool(),
            add_eos_token: config["add_eos_token"].as_bool(),
            class: config["tokenizer_class"].as_str().map(str::to_owned),
            legacy: config["legacy"].as_bool(),
            added: BTreeMap::new(),
        };
        for (text, id) in json("added_tokens.json")?.as_object().into_iter().flatten() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                TokenizerError::invalid("added_tokens.json", format!("{text:?}: expected an id, found {id}"))
            })?;
            settings.added.insert(id, Added { content: text.clone(), special: false });
        }
        for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
            let content = content(token);
            let (Ok(id), Some(content)) = (id.parse(), content) else {
                let what =
                    format!("added_tokens_decoder: expected an id and its text, found {id:?}: {token}");
                return Err(TokenizerError::invalid("tokenizer_config.json", what));
            };
            let special = token["special"].as_bool().unwrap_or(false);
            settings.added.insert(id, Added { content, special });
        }
        Ok(settings)
    }
}

/// A token's text: a string, or an object that holds it.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}
