//! The state of one request: what is known of its tokens, how the next one is chosen, and what may be
//! shown. It knows no model and no pages: it says which tokens are fed next, and takes the rows that the
//! model made of them.
//!
//! Tokens are *known* from the prompt, by choice, or because a grammar forces them; those whose keys and
//! values are not there are *pending*. After the pending ones drafts may be fed. A row belongs to a position
//! and tells about the token after it. If that one is known, the row can only give its probability;
//! otherwise a token is chosen, and if a draft stood there that is the same, its row counts too. So with and
//! without drafts the same tokens are chosen from the same rows by the same random numbers.

use crate::constraint::{Constraint, ConstraintError};
use crate::detokenize::{DetokenizeOptions, Detokenizer};
use crate::lookup::Lookup;
use crate::model::Pick;
use crate::pool::Pool;
use crate::request::{EngineRequest, FinishReason, TokenLogprob};
use crate::sampler::{SampleError, Sampler, logprobs};
use crate::tokenizer::Tokenizer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tessera_compute::batch::{Output, Want};
use tessera_compute::functions::argmax;
use tessera_weights::embedding::Pooling;

/// Most rows of logits that one sequence takes from a step.
const MOST_ROWS: usize = 64;
/// Most tokens that a sequence feeds in a step while it is not behind.
const MOST_DECODED: usize = 16;

/// What came out of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum SlotEvent {
    /// Of every token of the prompt but the first.
    PromptLogprobs(Vec<TokenLogprob>),
    /// A token of the answer.
    Token {
        /// The token.
        id: u32,
        /// Text that has become certain.
        text: String,
        /// If asked for.
        logprob: Option<TokenLogprob>,
    },
    /// The text's vector, as the model pools.
    Embedding(Vec<f32>),
}

/// Why a request cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SlotError {
    /// A number that is not finite.
    #[error(
        "after {tokens} tokens an output is not a finite number: the model's weights or output are broken"
    )]
    Broken {
        /// Tokens of the sequence.
        tokens: usize,
    },
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The grammar.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A token that the model does not have.
    #[error("the grammar forces token {token}, the vocabulary has {vocab_size}")]
    ForcedToken {
        /// The token.
        token: u32,
        /// Rows of the model's head.
        vocab_size: usize,
    },
}

/// What became of a step's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Tokens of the sequence that are right: wrong drafts come after them.
    pub kept: usize,
    /// If the request has ended.
    pub finished: Option<FinishReason>,
}

/// One sequence's rows of a step's output.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    output: &'a Output,
    /// Rows of the whole step.
    picked: usize,
    /// The sequence's first.
    first: usize,
}

/// Tokens of the last feed.
#[derive(Debug, Default)]
struct Fed {
    from: usize,
    tokens: Vec<u32>,
    drafts: usize,
    pick: Option<Pick>,
}

/// See the module.
pub struct Slot {
    sampler: Sampler,
    greedy: bool,
    text: Detokenizer,
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt_len: usize,
    vocab_size: usize,
    /// Most tokens of the answer.
    most: usize,
    /// Tokens of the answer that were handed out.
    shown: usize,
    stop_token_ids: Vec<u32>,
    include_stop: bool,
    logprobs: Option<usize>,
    /// Probabilities of the prompt's tokens so far; `None` if not wanted, or handed out.
    prompt_scores: Option<Vec<TokenLogprob>>,
    /// The hidden states so far, where a vector is wanted.
    pool: Option<Pool>,
    constraint: Option<Box<dyn Constraint>>,
    /// Whether the constraint is lent, to have its mask computed.
    away: bool,
    mask: Option<Result<Vec<u32>, ConstraintError>>,
    lookup: Option<Lookup>,
    fed: Fed,
    drafted: usize,
    accepted: usize,
}

impl<'a> Rows<'a> {
    /// The rows from `first` on of an output with `picked` rows.
    pub const fn new(output: &'a Output, picked: usize, first: usize) -> Rows<'a> {
        Rows { output, picked, first }
    }

    /// The first `n` rows, to be kept after the step.
    pub fn kept(&self, n: usize) -> Output {
        let part = |values: &[f32]| {
            let width = values.len() / self.picked.max(1);
            values[self.first * width..][..n * width].to_vec()
        };
        let tokens = self.output.tokens.get(self.first..self.first + n).unwrap_or_default();
        Output {
            logits: part(&self.output.logits),
            hidden: part(&self.output.hidden),
            tokens: tokens.to_vec(),
        }
    }

    fn of(&self, values: &'a [f32], i: usize) -> &'a [f32] {
        let width = values.len() / self.picked.max(1);
        &values[(self.first + i) * width..][..width]
    }
}

impl Slot {
    /// Starts a request that has been checked: its prompt is not empty and leaves room in the context.
    pub fn new(
        request: EngineRequest,
        tokenizer: &Arc<Tokenizer>,
        vocab_size: usize,
        context: usize,
        speculate: bool,
        pooling: Pooling,
    ) -> Result<Slot, SampleError> {
        let prompt_len = request.prompt.len();
        let alone = request.processor.is_none();
        let sampler = Sampler::new(request.sampling, &request.prompt)?.with_processor(request.processor);
        let greedy = sampler.is_plain_greedy();
        let options = DetokenizeOptions {
            skip_special: !request.keep_special,
            strip_leading_space: (!request.begins_text).then_some(false),
            stop: request.stop,
            include_stop: request.include_stop,
        };
        // A draft that is taken back would have been told to a processor.
        let lookup = speculate && alone && request.constraint.is_none() && !request.embed;
        Ok(Slot {
            sampler,
            greedy,
            text: Detokenizer::new(tokenizer.clone(), options),
            tokens: request.prompt,
            prompt_len,
            vocab_size,
            most: request.max_tokens.unwrap_or(usize::MAX).min(context.saturating_sub(prompt_len)),
            shown: 0,
            stop_token_ids: request.stop_token_ids,
            include_stop: request.include_stop,
            logprobs: request.logprobs,
            prompt_scores: request.prompt_logprobs.then(Vec::new),
            pool: request.embed.then(|| Pool::new(pooling, prompt_len)),
            constraint: request.constraint,
            away: false,
            mask: None,
            lookup: lookup.then(Lookup::default),
            fed: Fed::default(),
            drafted: 0,
            accepted: 0,
        })
    }

    /// Prompt and answer.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// Tokens of the answer that were handed out.
    pub fn shown(&self) -> usize {
        self.shown
    }

    /// Tokens that were drafted, and those of them that were right.
    pub fn drafts(&self) -> (usize, usize) {
        (self.drafted, self.accepted)
    }

    /// Whether every position of the prompt must be computed, so that none can come from a cache.
    pub fn needs_whole_prompt(&self) -> bool {
        self.prompt_scores.is_some() || self.pool.as_ref().is_some_and(Pool::needs_first)
    }

    /// Whether a row of every prompt token is wanted.
    fn wants_prompt_rows(&self, held: usize) -> bool {
        self.needs_whole_prompt() && held < self.prompt_len
    }

    /// Where known tokens begin that wait for their probability, if any do: the position of the row.
    fn waiting(&self) -> Option<usize> {
        let next = self.prompt_len + self.shown;
        (self.logprobs.is_some() && next < self.tokens.len()).then(|| next - 1)
    }

    /// How many of the next `n` pending tokens may be fed in one step: rows of logits are large.
    pub fn limit(&self, held: usize, n: usize) -> usize {
        if self.pool.is_none() && self.wants_prompt_rows(held) {
            return n.min(MOST_ROWS);
        }
        match self.waiting() {
            Some(at) if held < at => n.min(at - held),
            Some(_) => n.min(MOST_ROWS),
            None => n,
        }
    }

    /// The first tokens, as far as their keys and values may come from a cache: a row is needed of the
    /// last one, and of all before tokens whose probability is wanted.
    pub fn cacheable(&self) -> &[u32] {
        let len = match self.needs_whole_prompt() {
            true => 0,
            false => self.waiting().unwrap_or(self.tokens.len() - 1),
        };
        &self.tokens[..len]
    }

    /// What the step must return for this request.
    pub fn want(&self) -> Want {
        let scores = self.logprobs.is_some() || self.prompt_scores.is_some();
        match (&self.pool, self.greedy && !scores && self.constraint.is_none() && !self.away) {
            (Some(_), _) => Want::Hidden,
            (None, true) => Want::Greedy,
            (None, false) => Want::Logits,
        }
    }

    /// Known tokens after the `held` ones.
    pub fn pending(&self, held: usize) -> usize {
        self.tokens.len() - held
    }

    /// Whether the prompt, or what was known before the sequence lost its pages, is still being fed. A
    /// choice leaves one token to feed, and a grammar adds a few.
    pub fn is_prefill(&self, held: usize) -> bool {
        held < self.prompt_len || self.pending(held) > MOST_DECODED
    }

    /// Up to `most` drafts to feed after all pending tokens.
    pub fn draft(&mut self, most: usize) -> Vec<u32> {
        let Some(lookup) = &mut self.lookup else { return Vec::new() };
        let left = self.most.saturating_sub(self.tokens.len() - self.prompt_len + 1);
        match most.min(left) {
            0 => Vec::new(),
            most => lookup.draft(&self.tokens, most),
        }
    }

    /// The next tokens to feed to a sequence that holds `held`: `n` of the pending ones, and `drafts` if
    /// these are all. The rows that [`Pick`] says go to [`Slot::take`].
    pub fn feed(&mut self, held: usize, n: usize, drafts: &[u32]) -> (Vec<u32>, Pick) {
        let last = held + n == self.tokens.len();
        let mut tokens = self.tokens[held..held + n].to_vec();
        let drafts = if last { drafts } else { &[] };
        tokens.extend_from_slice(drafts);
        let waits = self.waiting().is_some_and(|at| held >= at);
        let pick = if let Some(pool) = &self.pool {
            pool.pick(held, n)
        } else if self.wants_prompt_rows(held) || !drafts.is_empty() || waits {
            Pick::All
        } else if last {
            Pick::Last
        } else {
            Pick::None
        };
        self.fed = Fed { from: held, tokens: tokens.clone(), drafts: drafts.len(), pick: Some(pick) };
        (tokens, pick)
    }

    /// Computes the mask for the next choice, if nobody else did.
    fn prepare(&mut self) {
        if let (Some(constraint), None) = (&mut self.constraint, &self.mask) {
            let mask = AssertUnwindSafe(|| constraint.mask().map(<[u32]>::to_vec));
            let failed = |_| Err(ConstraintError::Failed { what: "it panicked".to_owned() });
            self.mask = Some(catch_unwind(mask).unwrap_or_else(failed));
        }
    }

    /// Lends the constraint if its mask is needed after the tokens that were fed. Until it is given back
    /// there is nothing to [`Slot::take`].
    pub fn lend(&mut self) -> Option<Box<dyn Constraint>> {
        let constraint = self.wants_mask().then(|| self.constraint.take()).flatten();
        self.away |= constraint.is_some();
        constraint
    }

    /// Takes the constraint back, with its mask.
    pub fn give_back(&mut self, constraint: Box<dyn Constraint>, mask: Result<Vec<u32>, ConstraintError>) {
        self.constraint = Some(constraint);
        self.mask = Some(mask);
        self.away = false;
    }

    /// Whether the constraint is lent.
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// Whether a mask is needed after the tokens that were fed.
    fn wants_mask(&self) -> bool {
        let all_fed = self.fed.from + self.fed.tokens.len() >= self.tokens.len();
        self.constraint.is_some() && self.mask.is_none() && all_fed && self.fed.pick != Some(Pick::None)
    }

    /// Takes the rows of the last feed. Events before an error have happened.
    pub fn take(&mut self, rows: Rows<'_>, events: &mut Vec<SlotEvent>) -> Result<Taken, SlotError> {
        let fed = std::mem::take(&mut self.fed);
        let end = fed.from + fed.tokens.len();
        let picked = fed.pick.unwrap_or(Pick::None).rows(fed.from..end);
        let known = end - fed.drafts;
        let mut finished = None;
        for (i, position) in picked.enumerate() {
            // The row of a wrong draft, and all after it, mean nothing.
            if finished.is_some() || self.tokens.get(position) != Some(&fed.tokens[position - fed.from]) {
                break;
            }
            self.accepted += usize::from(position >= known);
            finished = self.row(position, rows, i, events)?;
        }
        let agree = self.tokens[fed.from..].iter().zip(&fed.tokens).take_while(|(a, b)| a == b).count();
        let kept = fed.from + agree;
        if let Some(lookup) = &mut self.lookup {
            self.drafted += fed.drafts;
            lookup.learn(fed.drafts, kept.saturating_sub(known));
        }
        Ok(Taken { kept, finished })
    }

    /// The text that was held back, for an answer that ended so.
    pub fn finish(&mut self, reason: FinishReason) -> String {
        self.text.finish(reason != FinishReason::Stop)
    }

    fn row(
        &mut self,
        position: usize,
        rows: Rows<'_>,
        i: usize,
        events: &mut Vec<SlotEvent>,
    ) -> Result<Option<FinishReason>, SlotError> {
        if let Some(pool) = &mut self.pool {
            let vector = pool.take(position, rows.of(&rows.output.hidden, i));
            let vector = vector.map_err(|broken| SlotError::Broken { tokens: broken.position + 1 })?;
            events.extend(vector.clone().map(SlotEvent::Embedding));
            return Ok(vector.map(|_| FinishReason::Stop));
        }
        let next = position + 1;
        if let Some(token) = self.tokens.get(next).copied() {
            if next < self.prompt_len {
                // After a preemption rows come a second time.
                if self.prompt_scores.as_ref().is_some_and(|scores| scores.len() + 1 == next) {
                    let score = self.score(rows.of(&rows.output.logits, i), self.logprobs, token)?;
                    self.prompt_scores.get_or_insert_default().push(score);
                }
                return Ok(None);
            }
            if next < self.prompt_len + self.shown {
                return Ok(None);
            }
            let score = match self.logprobs {
                Some(_) => Some(self.score(rows.of(&rows.output.logits, i), self.logprobs, token)?),
                None => None,
            };
            return Ok(self.show(token, score, events));
        }
        if let Some(scores) = self.prompt_scores.take() {
            events.push(SlotEvent::PromptLogprobs(scores));
        }
        if self.most == 0 {
            return Ok(Some(FinishReason::Length));
        }
        let token = self.choose(rows, i)?;
        let score = match self.logprobs {
            Some(_) => Some(self.score(rows.of(&rows.output.logits, i), self.logprobs, token)?),
            None => None,
        };
        self.tokens.push(token);
        self.force(token)?;
        let mut finished = self.show(token, score, events);
        // What is forced needs no row, unless its probability is wanted.
        while finished.is_none() && self.logprobs.is_none() {
            let Some(token) = self.tokens.get(self.prompt_len + self.shown).copied() else { break };
            finished = self.show(token, None, events);
        }
        Ok(finished)
    }

    fn choose(&mut self, rows: Rows<'_>, i: usize) -> Result<u32, SlotError> {
        let broken = SlotError::Broken { tokens: self.tokens.len() };
        if self.constraint.is_some() {
            self.prepare();
            let mut mask = self.mask.take().unwrap_or_else(|| Ok(Vec::new()))?;
            let logits = rows.of(&rows.output.logits, i);
            mask.resize(logits.len().div_ceil(32), 0);
            return Ok(self.sampler.sample(logits, Some(&mask))?);
        }
        if !self.greedy {
            return Ok(self.sampler.sample(rows.of(&rows.output.logits, i), None)?);
        }
        // Whether the device or this function looks for the largest must make no difference.
        let token = match rows.output.tokens.get(rows.first + i) {
            Some(token) => *token,
            None => argmax(rows.of(&rows.output.logits, i)),
        };
        let token = token.ok_or(broken)?;
        self.sampler.accept(token);
        Ok(token)
    }

    /// Tells the grammar of a chosen token and appends those that must follow.
    fn force(&mut self, token: u32) -> Result<(), SlotError> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        self.mask = None;
        if self.stop_token_ids.contains(&token) {
            return Ok(());
        }
        constraint.accept(token)?;
        if constraint.finished() {
            return Ok(());
        }
        for token in constraint.forced() {
            if self.tokens.len() - self.prompt_len >= self.most {
                break;
            }
            if token as usize >= self.vocab_size {
                return Err(SlotError::ForcedToken { token, vocab_size: self.vocab_size });
            }
            self.tokens.push(token);
            self.sampler.accept(token);
            if self.stop_token_ids.contains(&token) {
                break;
            }
            constraint.accept(token)?;
        }
        Ok(())
    }

    /// Hands out a token of the answer.
    fn show(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
        events: &mut Vec<SlotEvent>,
    ) -> Option<FinishReason> {
        self.shown += 1;
        let stop = self.stop_token_ids.contains(&token);
        let text = if stop && !self.include_stop { String::new() } else { self.text.push(token) };
        events.push(SlotEvent::Token { id: token, text, logprob });
        let all = self.prompt_len + self.shown == self.tokens.len();
        let complete = || all && self.constraint.as_ref().is_some_and(|c| c.finished());
        if stop || self.text.stopped().is_some() || complete() {
            Some(FinishReason::Stop)
        } else if self.shown >= self.most {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    fn score(&self, logits: &[f32], k: Option<usize>, token: u32) -> Result<TokenLogprob, SlotError> {
        let (top, own) = logprobs(logits, k.unwrap_or(0), token)?;
        let bytes = self.text.bytes(token).to_vec();
        let top = top.into_iter().map(|l| (l.token, l.logprob)).collect();
        Ok(TokenLogprob { id: token, bytes, logprob: own.logprob, top })
    }
}
