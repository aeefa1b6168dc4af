//! From a conversation to a prompt: MLC's `conv_template`, and Hugging Face's Jinja `chat_template`.

mod arguments;
mod conv;
mod filters;
mod guard;
mod jinja;
mod json;
mod python;
mod source;
mod strftime;

pub use conv::render as render_conv;
pub use jinja::JinjaTemplate;

use crate::tokenizer::{Tokenizer, TokenizerError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tessera_weights::chat_config::{ChatConfig, ChatConfigError, ConvTemplate};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// The text.
    #[serde(default)]
    pub content: Option<String>,
    /// Whatever else a Jinja template may ask for: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message with nothing but a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Some(content.into()), extra: Map::new() }
    }
}

/// What a prompt depends on besides the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// Whether the prompt ends where the assistant is to begin.
    pub add_generation_prompt: bool,
    /// Tools in OpenAI's form: a list of `{"type": "function", "function": {...}}`.
    pub tools: Option<Value>,
    /// Further variables of a Jinja template, `enable_thinking` for example.
    pub variables: Map<String, Value>,
    /// Seconds since 1970 (UTC), for templates that ask for the date.
    pub now: Option<i64>,
}

impl RenderOptions {
    /// For a prompt that the assistant answers.
    pub fn answer() -> RenderOptions {
        RenderOptions { add_generation_prompt: true, ..RenderOptions::default() }
    }
}

/// A prompt: ids that come first, then text in which special tokens are recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Ids before the text.
    pub prefix_ids: Vec<u32>,
    /// The text.
    pub text: String,
}

impl Prompt {
    /// Token ids of the prompt. The tokenizer adds none of its own: the template has them all.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.prefix_ids.clone();
        ids.extend(tokenizer.encode(&self.text, false)?);
        Ok(ids)
    }
}

/// A template that cannot be used, or a conversation that it has no place for.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A role that the template does not know.
    #[error("the template {template} has no role {role:?}; it has {known}")]
    Role {
        /// Name of the template.
        template: String,
        /// The role.
        role: String,
        /// Roles that it has.
        known: String,
    },
    /// A system message somewhere else than at the beginning.
    #[error(
        "message {index} is a system message: the template {template} has a place for one at the beginning only"
    )]
    SystemPlace {
        /// Name of the template.
        template: String,
        /// Index of the message.
        index: usize,
    },
    /// The default system message is not known.
    #[error("the default system message of the template {template} is not known here ({known}); give one")]
    SystemUnknown {
        /// Name of the template.
        template: String,
        /// What is known of it.
        known: String,
    },
    /// Something that the template has no place for.
    #[error("the template {template} has no place for {what}")]
    NoPlace {
        /// Name of the template.
        template: String,
        /// What was given.
        what: &'static str,
    },
    /// The Jinja template refused the conversation itself.
    #[error("the chat template refuses the conversation: {0}")]
    Raised(String),
    /// The Jinja template is wrong or does not end.
    #[error("{file}: {what}")]
    Jinja {
        /// Where the template comes from.
        file: String,
        /// What Jinja says.
        what: String,
    },
    /// A file of the folder is not what it should be.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The chat config or a template's name is wrong.
    #[error(transparent)]
    Config(#[from] ChatConfigError),
    /// The folder has no template of the kind that was asked for.
    #[error("the folder has no {0}")]
    Missing(&'static str),
}

impl TemplateError {
    /// Whether the template is fine and has no place for the conversation: another may have one.
    pub fn is_about_place(&self) -> bool {
        use TemplateError::{NoPlace, Raised, Role, SystemPlace};
        matches!(self, Role { .. } | SystemPlace { .. } | NoPlace { .. } | Raised(_))
    }
}

/// Which of a folder's templates is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemplateChoice {
    /// `conv_template` as MLC does, Hugging Face's where there is none, or where only that one has a place for
    /// the conversation.
    #[default]
    Auto,
    /// MLC's `conv_template`.
    Conv,
    /// Hugging Face's `chat_template`.
    Jinja,
}

/// A chat template of either kind.
#[derive(Debug)]
pub enum ChatTemplate {
    /// MLC's.
    Conv(Box<ConvTemplate>),
    /// Hugging Face's.
    Jinja(Box<JinjaTemplate>),
}

impl ChatTemplate {
    /// Renders a conversation.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt, TemplateError> {
        match self {
            ChatTemplate::Conv(template) => conv::render(template, messages, options),
            ChatTemplate::Jinja(template) => {
                let text = template.render(messages, options)?;
                Ok(Prompt { prefix_ids: Vec::new(), text })
            }
        }
    }

    /// Stop strings that come with the template.
    pub fn stop_strings(&self) -> Vec<String> {
        match self {
            ChatTemplate::Conv(t) => t.stop_str.iter().filter(|s| !s.is_empty()).cloned().collect(),
            ChatTemplate::Jinja(_) => Vec::new(),
        }
    }

    /// The text of a Jinja template.
    pub fn jinja_source(&self) -> Option<&str> {
        match self {
            ChatTemplate::Conv(_) => None,
            ChatTemplate::Jinja(template) => Some(template.source()),
        }
    }

    /// Name for display.
    pub fn name(&self) -> &str {
        match self {
            ChatTemplate::Conv(t) => t.name.as_deref().unwrap_or("conv_template"),
            ChatTemplate::Jinja(_) => "chat_template (Jinja)",
        }
    }
}

/// The templates of a folder.
#[derive(Debug, Default)]
pub struct ChatTemplates {
    /// MLC's, from `mlc-chat-config.json`.
    pub conv: Option<ConvTemplate>,
    /// Hugging Face's.
    pub jinja: Option<JinjaTemplate>,
}

impl ChatTemplates {
    /// Reads both. Hugging Face's is in `chat_template.jinja`, `chat_template.json` or
    /// `tokenizer_config.json`, the first of them that is there.
    pub fn from_files(
        config: Option<&ChatConfig>,
        lookup: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<ChatTemplates, TemplateError> {
        let conv = match config.and_then(|c| c.conv_template.as_ref()) {
            Some(field) => Some(field.resolve()?),
            None => None,
        };
        Ok(ChatTemplates { conv, jinja: JinjaTemplate::from_files(lookup)? })
    }

    /// The template to use.
    pub fn choose(self, choice: TemplateChoice) -> Result<ChatTemplate, TemplateError> {
        let conv = || TemplateError::Missing("conv_template in mlc-chat-config.json");
        let jinja =
            || TemplateError::Missing("chat_template in tokenizer_config.json or chat_template.jinja");
        match (choice, self.conv, self.jinja) {
            (TemplateChoice::Auto | TemplateChoice::Conv, Some(conv), _) => {
                Ok(ChatTemplate::Conv(Box::new(conv)))
            }
            (TemplateChoice::Auto | TemplateChoice::Jinja, _, Some(jinja)) => {
                Ok(ChatTemplate::Jinja(Box::new(jinja)))
            }
            (TemplateChoice::Jinja, _, None) => Err(jinja()),
            (TemplateChoice::Auto, None, None) => Err(TemplateError::Missing("chat template of either kind")),
            (TemplateChoice::Conv, None, _) => Err(conv()),
        }
    }
}

/// Tokens that end an answer: the template's own and every `eos_token_id` that the folder names.
/// MLC stops on the template's only; older templates often lack the one that the model was trained
/// with, and then an answer does not end.
pub fn stop_token_ids(
    template: &ChatTemplate,
    config: Option<&ChatConfig>,
    generation_config: Option<&Value>,
    tokenizer: &Tokenizer,
) -> Vec<u32> {
    use tessera_weights::chat_config::eos_ids;
    let mut ids = match template {
        ChatTemplate::Conv(t) => t.stop_token_ids.clone(),
        ChatTemplate::Jinja(_) => Vec::new(),
    };
    ids.extend(eos_ids(config.and_then(|c| c.eos_token_id.as_ref())));
    ids.extend(eos_ids(generation_config.and_then(|g| g.get("eos_token_id"))));
    ids.extend(tokenizer.eos());
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Two templates that give different prompts for the same conversation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{conversation}: conv_template gives {conv:?}, the Hugging Face template {jinja:?}")]
pub struct Difference {
    /// Which conversation.
    pub conversation: &'static str,
    /// The prompt by `conv_template`.
    pub conv: String,
    /// The prompt by the Jinja template.
    pub jinja: String,
}

/// Whether both templates give the same prompts; the error is the first of [`differences`].
pub fn agrees(
    conv: &ConvTemplate,
    jinja: &JinjaTemplate,
    token_text: impl Fn(u32) -> Option<String>,
) -> Result<(), Difference> {
    differences(conv, jinja, token_text).into_iter().next().map_or(Ok(()), Err)
}

/// Where two templates give different prompts: for one question, for a longer conversation, and for
/// both after a system message. A conversation that the Hugging Face template refuses (some take no
/// system message) has no right prompt and is left out. `token_text` gives the text of the ids that
/// `conv_template` puts in front.
pub fn differences(
    conv: &ConvTemplate,
    jinja: &JinjaTemplate,
    token_text: impl Fn(u32) -> Option<String>,
) -> Vec<Difference> {
    let system = Message::new("system", "Be brief.");
    let user = Message::new("user", "Hi");
    let assistant = Message::new("assistant", "Hello!");
    let again = Message::new("user", "How are you?");
    let conversations = [
        ("one question", vec![user.clone()]),
        ("three turns", vec![user.clone(), assistant.clone(), again.clone()]),
        ("one question after a system message", vec![system.clone(), user.clone()]),
        ("three turns after a system message", vec![system, user, assistant, again]),
    ];
    let options = RenderOptions { now: Some(0), ..RenderOptions::answer() };
    let mut found = Vec::new();
    for (conversation, messages) in conversations {
        let right = match jinja.render(&messages, &options) {
            Ok(text) => text,
            Err(TemplateError::Raised(_)) => continue,
            Err(e) => format!("[{e}]"),
        };
        let left = match conv::render(conv, &messages, &options) {
            Ok(prompt) => {
                let prefix = prompt.prefix_ids.iter().map(|id| token_text(*id).unwrap_or(format!("<{id}>")));
                prefix.collect::<String>() + &prompt.text
            }
            Err(e) => format!("[{e}]"),
        };
        if left != right {
            found.push(Difference { conversation, conv: left, jinja: right });
        }
    }
    found
}
