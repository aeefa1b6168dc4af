//! One answer: feeds the prompt in chunks, then token after token until something ends it.

use crate::detokenize::{DetokenizeOptions, Detokenizer};
use crate::kv::Sequence;
use crate::model::{Feed, Model, Pick, StepError};
use crate::sampler::{SampleError, Sampler, SamplingParams};
use crate::tokenizer::Tokenizer;
use std::ops::ControlFlow;
use std::sync::Arc;
use tessera_compute::batch::Want;

/// Prompt tokens in one step.
pub const CHUNK: usize = 512;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens of the answer; `None` goes on until the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer and are no part of it.
    pub stop: Vec<String>,
    /// Ids that end the answer and are no part of it.
    pub stop_token_ids: Vec<u32>,
    /// Whether the answer begins a text of its own: SentencePiece's first space is dropped then.
    pub begins_text: bool,
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

/// What happens while an answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Some of the prompt has been fed.
    Prefill {
        /// Tokens fed, those that were in the cache included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token(u32),
    /// Text that has become certain; never empty.
    Text(&'a str),
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text, without stop strings.
    pub text: String,
    /// Every token chosen, a final stop token included.
    pub token_ids: Vec<u32>,
    /// Prompt tokens whose keys and values were there already.
    pub cached_tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// An answer that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
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
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A logit is NaN or infinite.
    #[error("after {tokens} tokens a logit is not a finite number: the model's weights or output are broken")]
    Broken {
        /// Tokens of the sequence.
        tokens: usize,
    },
}

/// Makes an answer. `sequence` may hold an earlier conversation: what it shares with the prompt is not
/// computed again. Afterwards it holds the prompt and the answer (less the last token).
pub fn generate(
    model: &mut Model,
    tokenizer: &Arc<Tokenizer>,
    sequence: &mut Sequence,
    request: &Request,
    on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Answer, GenerateError> {
    let prompt = &request.prompt;
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt.len() >= model.context() {
        return Err(GenerateError::PromptTooLong { prompt: prompt.len(), context: model.context() });
    }
    let mut sampler = Sampler::new(request.sampling.clone(), prompt)?;
    let greedy = sampler.is_plain_greedy();
    let want = if greedy { Want::Greedy } else { Want::Logits };
    let options = DetokenizeOptions {
        stop: request.stop.clone(),
        strip_leading_space: (!request.begins_text).then_some(false),
        ..DetokenizeOptions::default()
    };
    let mut text = Detokenizer::new(tokenizer.clone(), options);

    // The last prompt token is always fed: its logits are not kept.
    let cached_tokens = sequence.common_prefix(prompt).min(prompt.len() - 1);
    model.truncate(sequence, cached_tokens);
    let mut answer = Answer {
        text: String::new(),
        token_ids: Vec::new(),
        cached_tokens,
        finish_reason: FinishReason::Length,
    };
    let most = request.max_tokens.unwrap_or(usize::MAX).min(model.context() - prompt.len());
    // Tokens that are chosen or given, and not yet fed.
    let mut pending = prompt[cached_tokens..].to_vec();
    loop {
        let n = pending.len().min(CHUNK);
        let pick = if n == pending.len() { Pick::Last } else { Pick::None };
        let prefilling = sequence.tokens.len() < prompt.len();
        let prompt_len = if prefilling { prompt.len() } else { 0 };
        let feed = Feed { sequence, tokens: &pending[..n], prompt_len, pick };
        let output = model.forward(&mut [feed], want)?;
        pending.drain(..n);
        let token = match (pick, greedy) {
            (Pick::Last, true) => {
                let tokens = sequence.tokens.len();
                let token = output.tokens[0].ok_or(GenerateError::Broken { tokens })?;
                sampler.accept(token);
                Some(token)
            }
            (Pick::Last, false) => Some(sampler.sample(&output.logits, None)?),
            _ => None,
        };
        if prefilling && on(Event::Prefill { done: sequence.tokens.len(), total: prompt.len() }).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        let Some(token) = token else { continue };
        answer.token_ids.push(token);
        if on(Event::Token(token)).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        if request.stop_token_ids.contains(&token) {
            answer.finish_reason = FinishReason::Stop;
            break;
        }
        let piece = text.push(token);
        if emit(&mut answer, &piece, on).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        if text.stopped().is_some() {
            answer.finish_reason = FinishReason::Stop;
            break;
        }
        if answer.token_ids.len() >= most {
            break;
        }
        pending.push(token);
    }
    let rest = text.finish();
    let _ = emit(&mut answer, &rest, on);
    Ok(answer)
}

fn emit(
    answer: &mut Answer,
    piece: &str,
    on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if piece.is_empty() {
        return ControlFlow::Continue(());
    }
    answer.text.push_str(piece);
    on(Event::Text(piece))
}
