//! What goes into an engine and what comes out of it.

use crate::constraint::Constraint;
use crate::failure::Failure;
use crate::sampler::{LogitProcessor, SampleError, SamplingParams};
use std::time::Duration;

/// Most alternatives to a token that can be asked for.
pub const MAX_LOGPROBS: usize = 20;

/// How an engine shares its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Tokens of one step, prompts and answers together.
    pub max_batch_tokens: usize,
    /// Requests that may wait; one more is refused.
    pub queue: usize,
    /// Whether keys and values of earlier prompts and answers are used again.
    pub prefix_cache: bool,
    /// Whether text that repeats itself is drafted from what came before. Answers are the same.
    pub speculate: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            max_sequences: 16,
            max_batch_tokens: 512,
            queue: 64,
            prefix_cache: true,
            speculate: true,
        }
    }
}

/// An engine that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option outside its range.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: usize,
    },
    /// The system gave no thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What to generate.
#[derive(Default)]
pub struct EngineRequest {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens of the answer; `None` goes on until the context is full, 0 only reads the prompt.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Ids that end the answer.
    pub stop_token_ids: Vec<u32>,
    /// Whether the answer begins a text of its own: SentencePiece's first space is dropped then.
    pub begins_text: bool,
    /// Log-probabilities of every token of the answer, with this many alternatives (at most
    /// [`MAX_LOGPROBS`]).
    pub logprobs: Option<usize>,
    /// Log-probabilities of the prompt's tokens too; the whole prompt is computed then. The number of
    /// alternatives is that of `logprobs`, or none.
    pub prompt_logprobs: bool,
    /// What changes logits before a token is chosen.
    pub processor: Option<Box<dyn LogitProcessor>>,
    /// A grammar that the answer follows.
    pub constraint: Option<Box<dyn Constraint>>,
    /// No answer but one vector of the prompt's final hidden states (after the last norm), by the model's pooling; its
    /// length is as it comes. The mean where the folder names no pooling.
    pub embed: bool,
    /// Requests of one flow (an API key, a connection) wait for each other; flows take turns.
    pub flow: u64,
    /// Whether the stop string or stop token that ended the answer is part of its text.
    pub include_stop: bool,
    /// Whether special tokens leave their text.
    pub keep_special: bool,
}

/// What happens to a request, in this order: `Started`, `Prefill`s, then `PromptLogprobs`, `Token`s or `Embedding`,
/// then `Done`. `Failed` may come at any time and is the last then. Nothing follows the last event.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// The request left the queue.
    Started {
        /// Prompt tokens whose keys and values were there already.
        cached_tokens: usize,
        /// Time in the queue.
        queued: Duration,
    },
    /// Some of the prompt has been fed.
    Prefill {
        /// Tokens fed, those that were there already included. They may be fewer than before where a request gave its pages to others.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// One for each token of the prompt but the first, which nothing predicts.
    PromptLogprobs(Vec<TokenLogprob>),
    /// One for each token of the answer, a stop token included.
    Token {
        /// The token.
        id: u32,
        /// Text that has become certain: may be empty, may end before this token's own text.
        text: String,
        /// If asked for.
        logprob: Option<TokenLogprob>,
    },
    /// See [`EngineRequest::embed`].
    Embedding(Vec<f32>),
    /// The end. A cancelled request ends like this too.
    Done {
        /// Text that was held back until now.
        text: String,
        /// Why it ended.
        finish_reason: FinishReason,
        /// Tokens.
        usage: Usage,
        /// Times.
        timing: Timing,
    },
    /// The end of a request that cannot go on.
    Failed(Failure),
}

impl EngineEvent {
    /// Whether nothing follows it.
    pub const fn is_last(&self) -> bool {
        matches!(self, EngineEvent::Done { .. } | EngineEvent::Failed(_))
    }
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those whose keys and values were there already.
    pub cached_tokens: usize,
    /// Tokens of the answer, a stop token included.
    pub completion_tokens: usize,
    /// Tokens drafted by look-up.
    pub drafted_tokens: usize,
    /// Those that the model agreed with.
    pub accepted_tokens: usize,
}

/// Times of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// In the queue.
    pub queued: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// A request that is refused at once.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Too many requests wait.
    #[error("{waiting} requests are waiting, at most {limit} may")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// Most that may.
        limit: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {prompt} tokens, the context holds {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Longest sequence.
        context: usize,
    },
    /// A token that the model does not have.
    #[error("{field}: token {token} does not exist, the vocabulary has {vocab_size}")]
    BadToken {
        /// Where it is.
        field: &'static str,
        /// The token.
        token: u32,
        /// Rows of the model's head.
        vocab_size: usize,
    },
    /// More alternatives than are kept.
    #[error("logprobs: at most {limit} alternatives can be given, {asked} were asked for")]
    Logprobs {
        /// Asked for.
        asked: usize,
        /// [`MAX_LOGPROBS`].
        limit: usize,
    },
    /// Two fields that exclude each other.
    #[error("{field} has no meaning in a request for an embedding")]
    Embed {
        /// The other field.
        field: &'static str,
    },
    /// An answer from a model that makes vectors only.
    #[error("the model makes embeddings and no text")]
    Encoder,
    /// Sampling parameters out of range.
    #[error(transparent)]
    Sampling(#[from] SampleError),
    /// The engine is shut down.
    #[error("the engine is shut down")]
    Closed,
}

/// A snapshot of an engine. Counts are since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Requests in the queue.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// KV pages in all.
    pub pages_total: usize,
    /// Pages that running sequences hold.
    pub pages_used: usize,
    /// Pages kept for later that nobody holds.
    pub pages_cached: usize,
    /// Requests that ended well.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Tokens of prompts that were started.
    pub prompt_tokens: u64,
    /// Those that were in the cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub generated_tokens: u64,
    /// Times that a sequence gave its pages back to others.
    pub preemptions: u64,
    /// Times that the model was loaded again because its device was lost.
    pub reloads: u64,
    /// Steps of the model.
    pub steps: u64,
    /// Tokens fed in them.
    pub fed_tokens: u64,
    /// Seconds spent in them.
    pub busy_seconds: f64,
    /// Tokens drafted by look-up.
    pub drafted_tokens: u64,
    /// Those that the model agreed with.
    pub accepted_tokens: u64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token or stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// The receiver wanted no more.
    Cancelled,
}

impl FinishReason {
    /// OpenAI's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// A token's probability and its best alternatives, in the model's own distribution: the softmax of the
/// raw logits, before bias, penalties, temperature and grammar.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its bytes; empty for an id that no token has.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most probable tokens, most probable first, equals by id.
    pub top: Vec<(u32, f32)>,
}
