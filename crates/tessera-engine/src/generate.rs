//! One answer: feeds the prompt in chunks, then token after token until something ends it.

use crate::kv::Sequence;
use crate::lookup::MAX_DRAFT;
use crate::model::{Feed, Model, Pick, StepError};
use crate::request::{EngineRequest, FinishReason};
use crate::sampler::{SampleError, SamplingParams};
use crate::slot::{Rows, Slot, SlotError, SlotEvent};
use crate::tokenizer::Tokenizer;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Prompt tokens in one step.
pub const CHUNK: usize = 512;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens of the answer; `None` goes on until the context is full, 0 only reads the prompt.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer and are no part of it.
    pub stop: Vec<String>,
    /// Ids that end the answer and are no part of it.
    pub stop_token_ids: Vec<u32>,
    /// Whether the answer begins a text of its own: SentencePiece's first space is dropped then.
    pub begins_text: bool,
    /// Whether text that repeats itself is drafted from what came before. The answer is the same.
    pub speculate: bool,
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
    /// Tokens drafted from earlier text.
    pub drafted_tokens: usize,
    /// Those that the model agreed with.
    pub accepted_tokens: usize,
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
    /// The grammar.
    #[error(transparent)]
    Grammar(SlotError),
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
    // The last prompt token is always fed: its logits are not kept.
    let known = &prompt[..prompt.len() - 1];
    let reusable = model.reusable(sequence, prompt).min(known.len());
    model.keep_prefixes(true);
    model.truncate(sequence, reusable);
    model.go_on(sequence, known, prompt.len());
    let mut answer = Answer {
        text: String::new(),
        token_ids: Vec::new(),
        cached_tokens: sequence.tokens.len(),
        finish_reason: FinishReason::Length,
        drafted_tokens: 0,
        accepted_tokens: 0,
    };
    let (vocab_size, context) = (model.config.vocab_size, model.context());
    let mut slot = Slot::new(
        request.to_engine(),
        tokenizer,
        vocab_size,
        context,
        request.speculate,
        model.embedding.pooling,
    )?;
    let mut events = Vec::new();
    loop {
        let held = sequence.tokens.len();
        let pending = slot.pending(held);
        let n = model.span_limit(sequence, prompt.len(), slot.limit(held, pending.min(CHUNK)));
        let room = if n == pending && held >= prompt.len() { MAX_DRAFT } else { 0 };
        let free = model.kv().available();
        let drafts = slot.draft(model.draft_limit(sequence, prompt.len(), (n, room), free));
        let want = slot.want();
        let (tokens, pick) = slot.feed(held, n, &drafts);
        let prefilling = held < prompt.len();
        let picked = if pick == Pick::All { tokens.len() } else { usize::from(pick == Pick::Last) };
        let prompt_len = if prefilling { prompt.len() } else { 0 };
        let call = 0..prompt_len;
        let feed = Feed { sequence: &mut *sequence, tokens: &tokens, call, drafts: drafts.len(), pick };
        let output = model.forward(&mut [feed], want)?;
        let taken = slot.take(Rows::new(output, picked, 0), &mut events);
        if let Ok(taken) = &taken {
            model.truncate(sequence, taken.kept);
            model.remember(sequence, false);
        }
        (answer.drafted_tokens, answer.accepted_tokens) = slot.drafts();
        if prefilling && on(Event::Prefill { done: sequence.tokens.len(), total: prompt.len() }).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        if emit(&mut answer, &mut events, on).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            break;
        }
        if let Some(reason) = taken?.finished {
            answer.finish_reason = reason;
            break;
        }
    }
    model.offer(sequence);
    let rest = slot.finish(answer.finish_reason);
    if !rest.is_empty() {
        answer.text.push_str(&rest);
        // The answer is over: there is nothing left to stop.
        let _ = on(Event::Text(&rest));
    }
    Ok(answer)
}

fn emit(
    answer: &mut Answer,
    events: &mut Vec<SlotEvent>,
    on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for event in events.drain(..) {
        let SlotEvent::Token { id, text, .. } = event else { continue };
        answer.token_ids.push(id);
        on(Event::Token(id))?;
        if !text.is_empty() {
            answer.text.push_str(&text);
            on(Event::Text(&text))?;
        }
    }
    ControlFlow::Continue(())
}

impl Request {
    fn to_engine(&self) -> EngineRequest {
        EngineRequest {
            prompt: self.prompt.clone(),
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            stop_token_ids: self.stop_token_ids.clone(),
            begins_text: self.begins_text,
            ..EngineRequest::default()
        }
    }
}

impl From<SlotError> for GenerateError {
    fn from(error: SlotError) -> GenerateError {
        match error {
            SlotError::Broken { tokens } => GenerateError::Broken { tokens },
            SlotError::Sample(error) => GenerateError::Sample(error),
            SlotError::Constraint(_) | SlotError::ForcedToken { .. } => GenerateError::Grammar(error),
        }
    }
}
