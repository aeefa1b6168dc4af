//! From the events of one choice to what is said, thought and called.

use super::logprobs::chat_entry;
use crate::server::error::{ApiError, ApiResult};
use serde_json::Value;
use tessera_engine::engine::{EngineEvent, FinishReason, Usage};
use tessera_engine::tokenizer::Tokenizer;

/// A part of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallDelta {
    /// Number of the call in the answer.
    pub index: usize,
    /// Id and name, with the first part.
    pub begins: Option<(String, String)>,
    /// More of the arguments.
    pub arguments: String,
}

/// A whole call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// The id that the result comes back with.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON as text.
    pub arguments: String,
}

/// What an event adds.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// To the text.
    pub content: String,
    /// To what was thought.
    pub reasoning: String,
    /// To the calls.
    pub calls: Vec<CallDelta>,
    /// Entries of `logprobs.content`.
    pub logprobs: Vec<Value>,
    /// The end, by OpenAI's word.
    pub finish: Option<&'static str>,
}

impl Delta {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
            && self.reasoning.is_empty()
            && self.calls.is_empty()
            && self.logprobs.is_empty()
            && self.finish.is_none()
    }
}

/// One choice so far.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The text.
    pub content: String,
    /// What was thought.
    pub reasoning: String,
    /// The calls.
    pub calls: Vec<Call>,
    /// Entries of `logprobs.content`.
    pub logprobs: Vec<Value>,
    /// The end.
    pub finish: Option<&'static str>,
    /// Tokens, at the end.
    pub usage: Usage,
    /// Tokens that were thought.
    pub reasoning_tokens: usize,
}

impl Answer {
    /// Takes an event.
    pub fn take(&mut self, event: EngineEvent, tokenizer: &Tokenizer) -> ApiResult<Delta> {
        let mut delta = Delta::default();
        match event {
            EngineEvent::Token { text, logprob, .. } => {
                delta.content = text;
                delta.logprobs = logprob.iter().map(|l| chat_entry(l, tokenizer)).collect();
            }
            EngineEvent::Done { text, finish_reason, usage, .. } => {
                delta.content = text;
                delta.finish = Some(finish(finish_reason)?);
                self.usage = usage;
            }
            _ => {}
        }
        self.add(&delta);
        Ok(delta)
    }

    fn add(&mut self, delta: &Delta) {
        self.content.push_str(&delta.content);
        self.reasoning.push_str(&delta.reasoning);
        self.logprobs.extend(delta.logprobs.iter().cloned());
        self.finish = delta.finish.or(self.finish);
        for part in &delta.calls {
            if let Some((id, name)) = &part.begins {
                self.calls.push(Call { id: id.clone(), name: name.clone(), arguments: String::new() });
            }
            if let Some(call) = self.calls.get_mut(part.index) {
                call.arguments.push_str(&part.arguments);
            }
        }
    }
}

/// OpenAI's word for an end.
pub fn finish(reason: FinishReason) -> ApiResult<&'static str> {
    match reason {
        FinishReason::Stop | FinishReason::Length => Ok(reason.name()),
        // Only a dropped ticket cancels, and then nobody is there to be told.
        FinishReason::Cancelled => Err(ApiError::internal("the request was cancelled by the server")),
    }
}
