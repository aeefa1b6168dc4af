//! From logits to a token.
//!
//! The steps, in this order:
//!
//! 0. a [`LogitProcessor`], where there is one, changes the logits as it likes;
//! 1. `logit_bias` is added;
//! 2. penalties: `repetition_penalty` as Hugging Face defines it (a positive logit is divided by it,
//!    a negative one multiplied) for every token of the prompt or the answer; then `frequency_penalty`
//!    times the count and `presence_penalty` once are subtracted as OpenAI defines them, for tokens of
//!    the answer only;
//! 3. the mask takes what a grammar does not allow;
//! 4. `temperature` divides; 0 takes the largest logit, the lowest id among equals, and ends here;
//! 5. `top_k` keeps the k largest, the lowest ids among equals;
//! 6. `top_p` keeps the smallest set of the most probable tokens that reaches p;
//! 7. `min_p` drops tokens less probable than `min_p` times the most probable one;
//! 8. one uniform number in [0, 1) from PCG64 picks among the rest.
//!
//! Weights come from an `exp` that is the same code everywhere and are summed in f64 in a fixed order, so a
//! seed gives the same tokens for the same logits everywhere. The loops over a vocabulary have no call, no
//! early end and no sum that waits for itself, so that they become vector code on every machine.

pub mod range;
#[cfg(test)]
mod tests;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use std::collections::BTreeMap;
use tessera_compute::functions;

/// How a token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps this many tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens up to this mass; 1 keeps all, 0 the most probable one.
    pub top_p: f32,
    /// Drops tokens below this part of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Weakens tokens that occurred in prompt or answer; 1 does nothing.
    pub repetition_penalty: f32,
    /// Subtracted for each earlier occurrence in the answer.
    pub frequency_penalty: f32,
    /// Subtracted once for tokens that occur in the answer.
    pub presence_penalty: f32,
    /// Added to the logits of single tokens. A later entry for the same token replaces an earlier one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// What changes logits before anything else does, and hears of the tokens that are chosen.
pub trait LogitProcessor: Send {
    /// Changes the logits, `[vocab]`.
    ///
    /// # Errors
    /// What is wrong, for people: the request ends with it.
    fn process(&mut self, logits: &mut [f32]) -> Result<(), String>;

    /// A token of the answer was chosen, or forced by a grammar.
    fn chosen(&mut self, token: u32);
}

/// A parameter outside its range, or logits that no token can be taken from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A parameter outside its range.
    #[error("{field}: expected {expected}, found {found}")]
    Param {
        /// The parameter's name.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: f32,
    },
    /// A bias for a token that does not exist.
    #[error("logit_bias: token {token} does not exist, the vocabulary has {vocab_size}")]
    BiasToken {
        /// The token.
        token: u32,
        /// Number of logits.
        vocab_size: usize,
    },
    /// What a [`LogitProcessor`] says.
    #[error("the logit processor: {0}")]
    Processor(String),
    /// A logit is not a number.
    #[error("the logit of token {token} is {value}: the model's output is broken")]
    NotANumber {
        /// The first such token.
        token: usize,
        /// NaN or +inf.
        value: f32,
    },
    /// No token is left to choose from.
    #[error(
        "no token can be chosen: {allowed} of {vocab_size} are allowed and none of them has a finite logit"
    )]
    NoToken {
        /// Tokens that the mask allows.
        allowed: usize,
        /// Number of logits.
        vocab_size: usize,
    },
    /// The mask does not have a bit for each token.
    #[error("the mask has {found} words, expected {expected}")]
    MaskLength {
        /// Words needed.
        expected: usize,
        /// Words given.
        found: usize,
    },
}

impl SamplingParams {
    /// Whether every parameter lies in its range.
    pub fn check(&self) -> Result<(), SampleError> {
        range::TEMPERATURE.check(self.temperature)?;
        range::TOP_P.check(self.top_p)?;
        range::MIN_P.check(self.min_p)?;
        range::REPETITION_PENALTY.check(self.repetition_penalty)?;
        range::FREQUENCY_PENALTY.check(self.frequency_penalty)?;
        range::PRESENCE_PENALTY.check(self.presence_penalty)?;
        for (_, bias) in &self.logit_bias {
            range::LOGIT_BIAS.check(*bias)?;
        }
        Ok(())
    }

    /// Whether the largest logit always wins.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// Log-probability of a token in the raw distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogProb {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What the choice of one sequence depends on: parameters, random numbers, and the tokens so far.
pub struct Sampler {
    params: SamplingParams,
    rng: Pcg64,
    /// Tokens of prompt and answer, with their counts in the answer. Ordered, so that nothing depends
    /// on how a hash map is laid out.
    seen: BTreeMap<u32, u32>,
    work: Vec<f32>,
    weights: Vec<f32>,
    keys: Vec<u64>,
    processor: Option<Box<dyn LogitProcessor>>,
}

impl Sampler {
    /// Starts a sequence. The prompt matters to the repetition penalty only.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Result<Sampler, SampleError> {
        params.check()?;
        // A mass of 0 would keep nothing; the smallest one keeps the first token.
        let params = SamplingParams { top_p: params.top_p.max(f32::MIN_POSITIVE), ..params };
        let seen = match params.repetition_penalty {
            1.0 => BTreeMap::new(),
            _ => prompt.iter().map(|token| (*token, 0)).collect(),
        };
        let rng = Pcg64::seed_from_u64(params.seed);
        Ok(Sampler {
            params,
            rng,
            seen,
            work: Vec::new(),
            weights: Vec::new(),
            keys: Vec::new(),
            processor: None,
        })
    }

    /// The same with a processor.
    pub fn with_processor(self, processor: Option<Box<dyn LogitProcessor>>) -> Sampler {
        Sampler { processor, ..self }
    }

    /// The parameters.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Chooses the next token and notes it as part of the answer. `mask` has a bit for each token,
    /// token 0 in the lowest bit of word 0; a set bit allows it.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<u32, SampleError> {
        let token = self.choose(logits, mask)?;
        self.accept(token);
        Ok(token)
    }

    /// Notes a token of the answer that was not chosen here (forced by a grammar, or chosen on the
    /// device).
    pub fn accept(&mut self, token: u32) {
        let count = self.seen.entry(token).or_insert(0);
        *count = count.saturating_add(1);
        if let Some(processor) = &mut self.processor {
            processor.chosen(token);
        }
    }

    /// Whether the choice is simply the largest of the raw logits, so that a device may make it.
    pub fn is_plain_greedy(&self) -> bool {
        let p = &self.params;
        p.is_greedy()
            && p.logit_bias.is_empty()
            && p.repetition_penalty == 1.0
            && p.frequency_penalty == 0.0
            && p.presence_penalty == 0.0
            && self.processor.is_none()
    }

    fn choose(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<u32, SampleError> {
        check(logits)?;
        if let Some(mask) = mask
            && mask.len() != logits.len().div_ceil(32)
        {
            return Err(SampleError::MaskLength { expected: logits.len().div_ceil(32), found: mask.len() });
        }
        let mut work = std::mem::take(&mut self.work);
        work.clear();
        work.extend_from_slice(logits);
        let processed = match &mut self.processor {
            Some(processor) => {
                processor.process(&mut work).map_err(SampleError::Processor).and_then(|()| check(&work))
            }
            None => Ok(()),
        };
        let chosen = processed.and_then(|()| self.adjust(&mut work, mask)).and_then(|()| {
            let none =
                || SampleError::NoToken { allowed: allowed(mask, logits.len()), vocab_size: logits.len() };
            if self.params.is_greedy() {
                argmax(&work).ok_or_else(none)
            } else {
                self.draw(&work).ok_or_else(none)
            }
        });
        self.work = work;
        chosen
    }

    /// Steps 1 to 3.
    fn adjust(&self, work: &mut [f32], mask: Option<&[u32]>) -> Result<(), SampleError> {
        let p = &self.params;
        let mut bias: Vec<(u32, f32)> = p.logit_bias.clone();
        bias.reverse();
        bias.sort_by_key(|(token, _)| *token);
        bias.dedup_by_key(|(token, _)| *token);
        let vocab_size = work.len();
        for (token, bias) in bias {
            let logit = work.get_mut(token as usize).ok_or(SampleError::BiasToken { token, vocab_size })?;
            *logit += bias;
        }
        for (token, count) in &self.seen {
            // A prompt may hold ids beyond the head's rows; they have no logit to weaken.
            let Some(logit) = work.get_mut(*token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= p.repetition_penalty;
            } else {
                *logit *= p.repetition_penalty;
            }
            if *count > 0 {
                *logit -= p.frequency_penalty * *count as f32 + p.presence_penalty;
            }
        }
        if let Some(mask) = mask {
            for (logits, word) in work.chunks_mut(32).zip(mask) {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        Ok(())
    }

    /// Steps 4 to 8.
    fn draw(&mut self, work: &[f32]) -> Option<u32> {
        let p = &self.params;
        let largest = work[argmax(work)? as usize];
        // A temperature that is hardly more than zero has no finite inverse.
        let inverse = (1.0 / p.temperature).min(f32::MAX);
        self.weights.clear();
        self.weights.extend(work.iter().map(|logit| exp_negative((*logit - largest) * inverse)));
        let weights = &mut self.weights[..];
        // 53 random bits make a number in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;

        if p.top_k == 0 && p.top_p == 1.0 {
            weights.iter_mut().for_each(|w| *w = if *w >= p.min_p { *w } else { 0.0 });
            return pick_any(weights, uniform);
        }

        // Keys sort by probability, then by id. Only the head of the order is needed, so it is sorted
        // in growing portions.
        let keys = &mut self.keys;
        keys.clear();
        let all: f64 = weights.chunks(BLOCK).map(sum).sum();
        // Tokens rarer than this add up to less than what top-p leaves out.
        let rare = match p.top_k {
            0 => (0.999 * (1.0 - f64::from(p.top_p)) * all / weights.len() as f64) as f32,
            _ => 0.0,
        };
        let candidates =
            work.iter().zip(&*weights).zip(0u32..).filter(|((_, w), _)| **w > 0.0 && **w >= rare);
        keys.extend(candidates.map(|((logit, _), token)| key(*logit, token)));
        let weight = |key: u64| f64::from(weights[token_of(key) as usize]);
        let mut sorted = 0;
        let mut goal = f64::from(p.top_p) * all;
        if p.top_k > 0 {
            if p.top_k < keys.len() {
                keys.select_nth_unstable_by(p.top_k - 1, |a, b| b.cmp(a));
                keys.truncate(p.top_k);
            }
            keys.sort_unstable_by(|a, b| b.cmp(a));
            sorted = keys.len();
            goal = f64::from(p.top_p) * keys.iter().map(|k| weight(*k)).sum::<f64>();
        }
        if p.top_p < 1.0 {
            let (mut mass, mut kept) = (0.0, 0);
            while kept < keys.len() && mass < goal {
                if kept == sorted {
                    let rest = &mut keys[sorted..];
                    let portion = (sorted * 3).max(256).min(rest.len());
                    if portion < rest.len() {
                        rest.select_nth_unstable_by(portion - 1, |a, b| b.cmp(a));
                    }
                    rest[..portion].sort_unstable_by(|a, b| b.cmp(a));
                    sorted += portion;
                }
                mass += weight(keys[kept]);
                kept += 1;
            }
            keys.truncate(kept);
        }
        keys.retain(|k| weight(*k) >= f64::from(p.min_p));
        pick(keys.iter().map(|k| (weight(*k), token_of(*k))), uniform)
    }
}

/// Orders tokens by logit, equals by id, lowest first: a larger key comes first.
fn key(logit: f32, token: u32) -> u64 {
    // Adding zero turns -0 into 0; then the bits of a float sort like an integer once negative ones
    // are flipped.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!token)
}

fn token_of(key: u64) -> u32 {
    !(key as u32)
}

/// Weights that are summed together.
const BLOCK: usize = 256;
/// Sums side by side.
const LANES: usize = 8;

/// The sum of some weights.
fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = weights.chunks_exact(LANES);
    let rest: f64 = whole.remainder().iter().map(|w| f64::from(*w)).sum();
    for weights in whole {
        lanes.iter_mut().zip(weights).for_each(|(lane, w)| *lane += f64::from(*w));
    }
    lanes.iter().sum::<f64>() + rest
}

/// [`pick`] among all tokens: first the block, then the token in it.
fn pick_any(weights: &[f32], uniform: f64) -> Option<u32> {
    let goal = uniform * weights.chunks(BLOCK).map(sum).sum::<f64>();
    let (mut mass, mut found) = (0.0, None);
    for (i, block) in weights.chunks(BLOCK).enumerate() {
        let own = sum(block);
        if own > 0.0 {
            found = Some((i, mass));
        }
        mass += own;
        if mass > goal && own > 0.0 {
            break;
        }
    }
    let (block, before) = found?;
    let weights = weights.chunks(BLOCK).nth(block)?.iter().zip((block * BLOCK) as u32..);
    pick_from(weights.map(|(w, token)| (f64::from(*w), token)), before, goal)
}

/// The token at which the running sum of the weights passes `uniform` times the whole.
fn pick(tokens: impl Iterator<Item = (f64, u32)> + Clone, uniform: f64) -> Option<u32> {
    let goal = uniform * tokens.clone().map(|(weight, _)| weight).sum::<f64>();
    pick_from(tokens, 0.0, goal)
}

/// The token at which the running sum, `mass` at first, passes `goal`; the last one if rounding leaves it below.
fn pick_from(tokens: impl Iterator<Item = (f64, u32)>, mut mass: f64, goal: f64) -> Option<u32> {
    let mut last = None;
    for (weight, token) in tokens.filter(|(weight, _)| *weight > 0.0) {
        mass += weight;
        last = Some(token);
        if mass > goal {
            break;
        }
    }
    last
}

/// `exp` of a number that is not positive, to 2e-7 of itself. Only operations that IEEE 754 defines to
/// the last bit, so every platform gets the same weights.
fn exp_negative(x: f32) -> f32 {
    // Below this the result is less than 2e-38: the next to nothing that no draw finds among 53 bits.
    let live = x > -87.0;
    let x = if live { x } else { 0.0 };
    // 1.5 * 2^23: adding it leaves the nearest whole number in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let k = shifted - SHIFT;
    // ln 2 in two parts; the first has bits to spare, so that k times it is exact.
    let r = (x - k * 0.693_359_4) - k * -2.121_944_4e-4;
    let mut sum = 1.0 / 5_040.0;
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * r + 1.0 / factorial;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if live { sum * power } else { 0.0 }
}

/// Log-probabilities of the raw distribution: the `k` most probable tokens, most probable first, and
/// the given token's own.
pub fn logprobs(logits: &[f32], k: usize, token: u32) -> Result<(Vec<LogProb>, LogProb), SampleError> {
    check(logits)?;
    let none = SampleError::NoToken { allowed: logits.len(), vocab_size: logits.len() };
    let largest = logits[argmax(logits).ok_or(none.clone())? as usize];
    let mut weights = [0.0; BLOCK];
    let mut all = 0.0;
    for block in logits.chunks(BLOCK) {
        weights.iter_mut().zip(block).for_each(|(w, logit)| *w = exp_negative(*logit - largest));
        all += sum(&weights[..block.len()]);
    }
    let norm = f64::from(largest) + all.ln();
    let of = |t: u32| LogProb { token: t, logprob: (f64::from(logits[t as usize]) - norm) as f32 };
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let k = k.min(order.len());
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, better);
    }
    order.truncate(k);
    order.sort_unstable_by(better);
    if token as usize >= logits.len() {
        return Err(none);
    }
    Ok((order.into_iter().map(of).collect(), of(token)))
}

/// The largest logit, the lowest id among equals. `None` if all are -inf.
fn argmax(logits: &[f32]) -> Option<u32> {
    let largest = functions::max(logits);
    (largest > f32::NEG_INFINITY)
        .then(|| logits.iter().position(|l| *l == largest))?
        .map(|token| token as u32)
}

/// -inf is how a model rules a token out; NaN and +inf are defects.
fn check(logits: &[f32]) -> Result<(), SampleError> {
    let fine = |l: &f32| *l < f32::INFINITY;
    let broken = |block: &[f32]| !block.iter().fold(true, |all, l| all & fine(l));
    if !logits.chunks(BLOCK).any(broken) {
        return Ok(());
    }
    match logits.iter().position(|l| !fine(l)) {
        Some(token) => Err(SampleError::NotANumber { token, value: logits[token] }),
        None => Ok(()),
    }
}

fn allowed(mask: Option<&[u32]>, vocab_size: usize) -> usize {
    mask.map_or(vocab_size, |m| m.iter().map(|w| w.count_ones() as usize).sum())
}
