//! The model that a request is about.

use crate::error::{ApiError, ApiResult};
use http::StatusCode;
use std::sync::OnceLock;
use tessera_engine::grammar::{GrammarEnv, GrammarError};
use tessera_engine::model::Model;
use tessera_engine::reasoning;
use tessera_engine::template::ChatTemplate;
use tessera_engine::text::Text;
use tessera_engine::tools::ToolSupport;
use tessera_weights::embedding::Embedding;

/// What requests need to know of a model.
pub struct Subject {
    /// The name that requests use.
    pub name: String,
    /// Tokenizer and template.
    pub text: Text,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Length of a hidden state.
    pub hidden_size: usize,
    /// What becomes of the hidden states of a text.
    pub embedding: Embedding,
    /// Whether vectors are all that it makes.
    pub encoder: bool,
    /// Rows of its head.
    pub vocab_size: usize,
    /// How it writes calls of tools.
    pub tool_support: ToolSupport,
    /// Whether it may think before it answers.
    pub knows_reasoning: bool,
    /// Made when a grammar is first asked for.
    grammar_env: OnceLock<Result<GrammarEnv, GrammarError>>,
}

impl Subject {
    /// A model that requests use by this name.
    pub fn new(name: String, text: Text, model: &Model) -> Subject {
        let jinja = text.template.as_ref().ok().and_then(ChatTemplate::jinja_source);
        let knows_reasoning =
            jinja.is_some_and(reasoning::is_known) || text.tokenizer.id_of(reasoning::OPEN).is_some();
        let for_tools = text.other_template.as_ref().and_then(ChatTemplate::jinja_source);
        Subject {
            name,
            context: model.context(),
            hidden_size: model.config.hidden_size,
            embedding: model.embedding,
            encoder: model.is_encoder(),
            vocab_size: model.config.vocab_size,
            tool_support: ToolSupport::detect(for_tools.or(jinja), &text.tokenizer),
            knows_reasoning,
            grammar_env: OnceLock::new(),
            text,
        }
    }

    /// What grammars of this model share.
    pub fn grammar_env(&self) -> ApiResult<&GrammarEnv> {
        let env = self.grammar_env.get_or_init(|| {
            GrammarEnv::new(self.text.tokenizer.clone(), self.vocab_size, &self.text.stop_token_ids)
        });
        env.as_ref().map_err(|e| {
            let message = format!("{}: {e}", self.name);
            ApiError::request(StatusCode::BAD_REQUEST, "unsupported_grammar", message)
        })
    }

    /// Whether there is a Jinja template that mentions this name. A field for a template that has no use for
    /// it is refused.
    pub fn template_mentions(&self, name: &str) -> bool {
        let templates = [self.text.template.as_ref().ok(), self.text.other_template.as_ref()];
        let jinja = templates.into_iter().flatten().find_map(ChatTemplate::jinja_source);
        jinja.is_some_and(|source| mentions(source, name))
    }
}

/// Whether a name occurs in a text, and not only as a part of a longer one.
fn mentions(text: &str, name: &str) -> bool {
    let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + name.len()..].chars().next())
        })
}
