//! Everything of a folder that deals with text: tokenizer, chat template, what ends an answer.

use crate::open::ModelFiles;
use crate::sampler::{SampleError, SamplingParams};
use crate::template::{
    ChatTemplate, ChatTemplates, Message, RenderOptions, TemplateChoice, TemplateError, stop_token_ids,
};
use crate::tokenizer::{Tokenizer, TokenizerError};
use serde_json::Number;
use serde_json::Value;
use std::sync::Arc;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::json;
use tessera_weights::model::FolderModelError;

/// Tokenizer and chat template of a folder.
#[derive(Debug)]
pub struct Text {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The chat template; the error says why there is none.
    pub template: Result<ChatTemplate, TemplateError>,
    /// Hugging Face's, where the folder has both and [`Text::template`] is MLC's: that one never knows tools,
    /// and takes instructions at the beginning only.
    pub other_template: Option<ChatTemplate>,
    /// Ids that end an answer.
    pub stop_token_ids: Vec<u32>,
    /// The folder's own sampling defaults.
    pub defaults: SamplingParams,
    /// What a user should be told.
    pub notes: Vec<String>,
}

/// Gives a small file of a folder by its name, `None` if it is not there.
pub type Read<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, FolderModelError> + 'a;

/// A conversation that cannot be made a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer makes ids that the model has no rows for.
    #[error("the tokenizer has ids up to {largest}, the model's embedding has {rows} rows")]
    Vocabulary {
        /// Largest id.
        largest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A file of the folder cannot be read.
    #[error(transparent)]
    File(#[from] FolderModelError),
    /// The folder's own sampling defaults lie outside their ranges.
    #[error("mlc-chat-config.json: {0}")]
    Defaults(#[from] SampleError),
    /// A model without a template.
    #[error("no chat template: {0}")]
    NoTemplate(String),
}

/// Settings of a folder that do nothing, or that no model can have.
fn idle_settings(config: Option<&ChatConfig>, stops: &[u32], rows: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let outside: Vec<String> = stops.iter().filter(|id| **id as usize >= rows).map(u32::to_string).collect();
    if !outside.is_empty() {
        let ids = outside.join(", ");
        notes
            .push(format!("no token has the id {ids}, which is to end an answer: the vocabulary has {rows}"));
    }
    let Some(config) = config else { return notes };
    if let Some(n) = config.active_vocab_size.filter(|n| *n < 1 || *n > rows as i64) {
        notes.push(format!(
            "mlc-chat-config.json: active_vocab_size is {n}, the vocabulary has {rows}; it has no effect"
        ));
    }
    let conv = config.conv_template.as_ref().and_then(|c| c.resolve().ok());
    if conv
        .as_ref()
        .is_some_and(|c| !c.system_message.is_empty() && !c.system_template.contains("{system_message}"))
    {
        notes.push(
            "mlc-chat-config.json: system_message has no effect: system_template has no place for it"
                .to_owned(),
        );
    }
    if conv.is_some_and(|c| c.stop_str.iter().any(String::is_empty)) {
        notes.push("mlc-chat-config.json: an empty stop_str ends nothing and is left out".to_owned());
    }
    notes
}

/// The folder's own sampling defaults, where it has any, over those of [`SamplingParams`].
pub fn sampling_defaults(config: Option<&ChatConfig>) -> Result<SamplingParams, SampleError> {
    let number = |n: fn(&ChatConfig) -> Option<&Number>, or: f32| {
        config.and_then(n).and_then(Number::as_f64).map_or(or, |v| v as f32)
    };
    let plain = SamplingParams::default();
    let defaults = SamplingParams {
        temperature: number(|c| c.temperature.as_ref(), plain.temperature),
        top_p: number(|c| c.top_p.as_ref(), plain.top_p),
        repetition_penalty: number(|c| c.repetition_penalty.as_ref(), plain.repetition_penalty),
        frequency_penalty: number(|c| c.frequency_penalty.as_ref(), plain.frequency_penalty),
        presence_penalty: number(|c| c.presence_penalty.as_ref(), plain.presence_penalty),
        ..plain
    };
    defaults.check()?;
    Ok(defaults)
}

impl Text {
    /// Reads the folder's text files.
    #[cfg(feature = "fs")]
    pub fn open(files: &ModelFiles, choice: TemplateChoice) -> Result<Text, TextError> {
        let tokenizer = Tokenizer::from_folder(files.folder.path())?;
        Text::of(files, tokenizer, choice, &|name| files.file(name))
    }

    /// The same where the folder's other files come from `read`, by name.
    pub fn of(
        files: &ModelFiles,
        tokenizer: Tokenizer,
        choice: TemplateChoice,
        read: &Read<'_>,
    ) -> Result<Text, TextError> {
        let tokenizer = Arc::new(tokenizer);
        let rows = files.config.vocab_size;
        if tokenizer.vocab_size() > rows {
            return Err(TextError::Vocabulary { largest: tokenizer.vocab_size() - 1, rows });
        }
        let chat_config = files.chat_config.as_ref();
        // A file that is there and cannot be read is no file that is not there.
        let unreadable = std::cell::RefCell::new(None);
        let lookup = |name: &str| {
            read(name).unwrap_or_else(|error| {
                unreadable.borrow_mut().get_or_insert(error);
                None
            })
        };
        let mut templates = ChatTemplates::from_files(chat_config, lookup);
        let both = templates.as_mut().ok().filter(|t| choice == TemplateChoice::Auto && t.conv.is_some());
        let other_template =
            both.and_then(|t| t.jinja.take()).map(|jinja| ChatTemplate::Jinja(Box::new(jinja)));
        let template = templates.and_then(|templates| templates.choose(choice));
        let mut notes = tokenizer.notes().to_vec();
        let generation_config: Option<Value> = lookup("generation_config.json").and_then(|bytes| {
            let parsed = json::parse(&bytes);
            parsed.map_err(|e| notes.push(format!("generation_config.json is ignored: {e}"))).ok()
        });
        let stop_token_ids = match &template {
            Ok(template) => stop_token_ids(template, chat_config, generation_config.as_ref(), &tokenizer),
            Err(_) => tokenizer.eos().into_iter().collect(),
        };
        if let Some(error) = unreadable.take() {
            return Err(error.into());
        }
        notes.extend(idle_settings(chat_config, &stop_token_ids, rows));
        let stop_token_ids = stop_token_ids.into_iter().filter(|id| (*id as usize) < rows).collect();
        let defaults = sampling_defaults(chat_config)?;
        Ok(Text { tokenizer, template, other_template, stop_token_ids, defaults, notes })
    }

    /// The ids of a conversation that the assistant is to answer, by the template that has a place for it.
    pub fn chat_prompt(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<u32>, TextError> {
        let template = self.template.as_ref().map_err(|e| TextError::NoTemplate(e.to_string()))?;
        let prompt = template.render(messages, options).or_else(|error| match &self.other_template {
            Some(other) if error.is_about_place() => other.render(messages, options).map_err(|_| error),
            _ => Err(error),
        })?;
        Ok(prompt.encode(&self.tokenizer)?)
    }

    /// Texts that end an answer, by the template.
    pub fn stop_strings(&self) -> Vec<String> {
        self.template.as_ref().map(ChatTemplate::stop_strings).unwrap_or_default()
    }
}
