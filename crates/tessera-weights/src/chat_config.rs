//! `mlc-chat-config.json`: read leniently, written exactly as MLC's `gen_config` writes it.

mod conv;
mod detect;
mod fields;
mod generate;
mod mixed;
mod origin;
pub mod python_json;

pub use conv::{ConvTemplate, RoleText};
pub use detect::{Detected, TokenizerInfo, detect_conv_template};
pub use generate::ChatConfigInputs;

use fields::Fields;
use serde_json::{Map, Number, Value, json};

/// A chat config that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChatConfigError {
    /// Larger than any real one.
    #[error("mlc-chat-config.json: {found} bytes, at most {limit} are read")]
    TooLarge {
        /// Length found.
        found: usize,
        /// Length allowed.
        limit: usize,
    },
    /// Not JSON.
    #[error("mlc-chat-config.json: invalid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A field has another type than it should.
    #[error("mlc-chat-config.json: {field}: expected {expected}, found {found}")]
    Field {
        /// Path of the field.
        field: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A conversation template that is not built in.
    #[error("unknown conversation template {name:?}; built in are {}", ConvTemplate::builtin_names().collect::<Vec<_>>().join(", "))]
    UnknownTemplate {
        /// The name.
        name: String,
    },
}

/// Longest file that is read.
const MAX_LEN: usize = 16 << 20;

/// `conv_template`: an object, or in folders of before 2024-05 the name of a built-in.
#[derive(Clone, Debug, PartialEq)]
pub enum ConvField {
    /// The template itself.
    Template(Box<ConvTemplate>),
    /// A name for [`ConvTemplate::builtin`].
    Named(String),
}

impl ConvField {
    /// The template, looked up if it is a name.
    pub fn resolve(&self) -> Result<ConvTemplate, ChatConfigError> {
        match self {
            ConvField::Template(template) => Ok((**template).clone()),
            ConvField::Named(name) => ConvTemplate::builtin(name),
        }
    }
}

/// The fields of `mlc-chat-config.json`. What a file does not say is `None`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ChatConfig {
    /// Schema version, `0.1.0` since 2024-05.
    pub version: Option<String>,
    /// MLC's name of the architecture.
    pub model_type: Option<String>,
    /// Scheme name.
    pub quantization: Option<String>,
    /// Hyper-parameters. Empty in folders of before 2023-12.
    pub model_config: Map<String, Value>,
    /// Rows of the embedding.
    pub vocab_size: Option<i64>,
    /// Longest context; -1 is unset.
    pub context_window_size: Option<i64>,
    /// Sliding window; -1 is unset.
    pub sliding_window_size: Option<i64>,
    /// Longest chunk of a prefill.
    pub prefill_chunk_size: Option<i64>,
    /// Tokens that a sliding window always keeps; -1 is unset.
    pub attention_sink_size: Option<i64>,
    /// Deployment; says nothing about the weights.
    pub tensor_parallel_shards: Option<i64>,
    /// Deployment; says nothing about the weights.
    pub pipeline_parallel_stages: Option<i64>,
    /// Usable ids.
    pub active_vocab_size: Option<i64>,
    /// Default of sampling.
    pub temperature: Option<Number>,
    /// Default of sampling.
    pub presence_penalty: Option<Number>,
    /// Default of sampling.
    pub frequency_penalty: Option<Number>,
    /// Default of sampling.
    pub repetition_penalty: Option<Number>,
    /// Default of sampling.
    pub top_p: Option<Number>,
    /// Names of the tokenizer's files.
    pub tokenizer_files: Vec<String>,
    /// How tokens stand for bytes.
    pub tokenizer_info: Option<TokenizerInfo>,
    /// The template, or its name.
    pub conv_template: Option<ConvField>,
    /// Padding token.
    pub pad_token_id: Option<Value>,
    /// First token of a text.
    pub bos_token_id: Option<Value>,
    /// Last token of a text: an id or a list of ids.
    pub eos_token_id: Option<Value>,
    /// `chat` or `embedding`, since 2026-03.
    pub model_task: Option<String>,
    /// For embedding models.
    pub embedding_metadata: Option<Value>,
    /// Keys of the old flow that were found: known, but without a meaning today.
    pub legacy: Vec<String>,
    /// Keys that are not known at all, to be shown.
    pub unknown: Vec<String>,
}

/// Keys of the flow before 2024-03.
const LEGACY: [&str; 11] = [
    "model_lib",
    "local_id",
    "model_name",
    "model_category",
    "max_window_size",
    "mean_gen_len",
    "max_gen_len",
    "shift_fill_factor",
    "num_shards",
    "conv_config",
    "tokenizer_mode",
];

impl ChatConfig {
    /// Reads the file. Unknown keys are collected, known ones must have their type.
    pub fn parse(bytes: &[u8]) -> Result<ChatConfig, ChatConfigError> {
        if bytes.len() > MAX_LEN {
            return Err(ChatConfigError::TooLarge { found: bytes.len(), limit: MAX_LEN });
        }
        let value: Value = crate::json::parse(bytes)?;
        let map = value.as_object().ok_or_else(|| ChatConfigError::Field {
            field: "the file".to_owned(),
            expected: "an object",
            found: value.to_string().chars().take(60).collect(),
        })?;
        let fields = Fields::new("", map);
        let conv_template = match fields.get("conv_template") {
            None => None,
            Some(Value::String(name)) => Some(ConvField::Named(name.clone())),
            Some(object) => Some(ConvField::Template(Box::new(ConvTemplate::from_value(object)?))),
        };
        let tokenizer_info = match fields.object("tokenizer_info")? {
            Some(info) => Some(TokenizerInfo::from_map(info)?),
            None => fields
                .string("token_table_postproc_method")?
                .map(|method| TokenizerInfo { token_postproc_method: method, ..TokenizerInfo::default() }),
        };
        let legacy_context = fields.integer("max_window_size")?;
        let mut config = ChatConfig {
            version: fields.string("version")?,
            model_type: fields.string("model_type")?,
            quantization: fields.string("quantization")?,
            model_config: fields.object("model_config")?.cloned().unwrap_or_default(),
            vocab_size: fields.integer("vocab_size")?,
            context_window_size: fields.integer("context_window_size")?.or(legacy_context),
            sliding_window_size: fields.integer("sliding_window_size")?,
            prefill_chunk_size: fields.integer("prefill_chunk_size")?,
            attention_sink_size: fields.integer("attention_sink_size")?,
            tensor_parallel_shards: fields.integer("tensor_parallel_shards")?,
            pipeline_parallel_stages: fields.integer("pipeline_parallel_stages")?,
            active_vocab_size: fields.integer("active_vocab_size")?,
            temperature: fields.number("temperature")?,
            presence_penalty: fields.number("presence_penalty")?,
            frequency_penalty: fields.number("frequency_penalty")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            top_p: fields.number("top_p")?,
            tokenizer_files: fields.strings("tokenizer_files")?.unwrap_or_default(),
            tokenizer_info,
            conv_template,
            pad_token_id: fields.get("pad_token_id").cloned(),
            bos_token_id: fields.get("bos_token_id").cloned(),
            eos_token_id: fields.get("eos_token_id").cloned(),
            model_task: fields.string("model_task")?,
            embedding_metadata: fields.get("embedding_metadata").cloned(),
            legacy: Vec::new(),
            unknown: Vec::new(),
        };
        for id in ["pad_token_id", "bos_token_id", "eos_token_id"] {
            fields.ids(id)?;
        }
        for key in fields.unknown().into_iter().chain(legacy_context.map(|_| "max_window_size".to_owned())) {
            if LEGACY.contains(&key.as_str()) { &mut config.legacy } else { &mut config.unknown }.push(key);
        }
        Ok(config)
    }

    /// The file's text in MLC's schema, order of keys and spacing (no newline at the end).
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("version", json!(self.version.as_deref().unwrap_or("0.1.0")));
        put("model_type", json!(self.model_type));
        put("quantization", json!(self.quantization));
        put("model_config", Value::Object(self.model_config.clone()));
        put("vocab_size", json!(self.vocab_size));
        put("context_window_size", json!(self.context_window_size));
        put("sliding_window_size", json!(self.sliding_window_size));
        put("prefill_chunk_size", json!(self.prefill_chunk_size));
        put("attention_sink_size", json!(self.attention_sink_size));
        put("tensor_parallel_shards", json!(self.tensor_parallel_shards));
        put("pipeline_parallel_stages", json!(self.pipeline_parallel_stages));
        put("active_vocab_size", json!(self.active_vocab_size));
        put("temperature", json!(self.temperature));
        put("presence_penalty", json!(self.presence_penalty));
        put("frequency_penalty", json!(self.frequency_penalty));
        put("repetition_penalty", json!(self.repetition_penalty));
        put("top_p", json!(self.top_p));
        put("tokenizer_files", json!(self.tokenizer_files));
        put("tokenizer_info", self.tokenizer_info.as_ref().map_or(Value::Null, TokenizerInfo::to_value));
        let conv = match &self.conv_template {
            None => Value::Null,
            Some(ConvField::Named(name)) => json!(name),
            Some(ConvField::Template(template)) => template.to_value(),
        };
        put("conv_template", conv);
        put("pad_token_id", self.pad_token_id.clone().unwrap_or(Value::Null));
        put("bos_token_id", self.bos_token_id.clone().unwrap_or(Value::Null));
        put("eos_token_id", self.eos_token_id.clone().unwrap_or(Value::Null));
        put("model_task", json!(self.model_task.as_deref().unwrap_or("chat")));
        put("embedding_metadata", self.embedding_metadata.clone().unwrap_or(Value::Null));
        python_json::to_string(&Value::Object(map), python_json::Style::CONFIG)
    }

    /// Tokens that end an answer. MLC stops on the template's `stop_token_ids` only; here the
    /// `eos_token_id` of this file is added, because older templates often lack it.
    pub fn stop_token_ids(&self) -> Result<Vec<u32>, ChatConfigError> {
        let mut ids = match &self.conv_template {
            Some(conv) => conv.resolve()?.stop_token_ids,
            None => Vec::new(),
        };
        ids.extend(eos_ids(self.eos_token_id.as_ref()));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// The ids of an `eos_token_id`, which is one id, a list, or missing. What is no id is left out: MLC
/// writes null and -1 for "none".
pub fn eos_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
