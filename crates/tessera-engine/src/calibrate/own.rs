//! Text that a model writes itself, by its own probabilities: it needs no data set and no licence, and is what the model
//! will be fed when it answers.

use crate::failure::Failure;
use crate::machine::Machine;
use crate::request::{EngineEvent, EngineRequest};
use crate::sampler::SamplingParams;
use std::ops::ControlFlow;
use std::time::Duration;

/// How much is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnText {
    /// Number of texts.
    pub count: usize,
    /// Tokens of each.
    pub len: usize,
    /// What every second text begins with, such as a chat's opening.
    pub opening: Vec<u32>,
    /// What the others begin with, before a token by lot: that of a text's beginning, where the model has one.
    pub begin: Vec<u32>,
    /// The same texts for the same seed.
    pub seed: u64,
}

/// Has a model write texts, all at once as far as the machine goes. `on` is told of tokens written, and may stop it.
///
/// # Errors
/// What the model fails with. What is written until `on` stops it is returned.
pub fn own_text(
    machine: &mut Machine,
    wanted: &OwnText,
    on: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Vec<u32>>, Failure> {
    let vocab = machine.limits().vocab_size as u64;
    let len = wanted.len.min(machine.limits().context);
    let mut texts: Vec<Vec<u32>> = Vec::with_capacity(wanted.count);
    let mut state = wanted.seed;
    for i in 0..wanted.count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lot = ((state >> 33) % vocab) as u32;
        let mut prompt = match i % 2 == 0 && !wanted.opening.is_empty() {
            true => wanted.opening.clone(),
            false => wanted.begin.iter().copied().chain([lot]).collect(),
        };
        prompt.truncate(len.saturating_sub(1).max(1));
        let sampling = SamplingParams { temperature: 1.0, seed: state, ..SamplingParams::default() };
        let max_tokens = Some(len.saturating_sub(prompt.len()));
        let request =
            EngineRequest { prompt: prompt.clone(), sampling, max_tokens, ..EngineRequest::default() };
        texts.push(prompt);
        machine.submit(i as u64, request, Duration::ZERO);
    }
    let mut written = 0;
    while !machine.is_idle() {
        machine.admit(Duration::ZERO);
        if machine.plan() {
            machine.step();
            machine.take(Duration::ZERO);
        }
        for (id, event) in machine.events() {
            match event {
                EngineEvent::Token { id: token, .. } => {
                    texts[id as usize].push(token);
                    written += 1;
                }
                EngineEvent::Failed(failure) => return Err(failure),
                _ => {}
            }
        }
        if on(written).is_break() {
            break;
        }
    }
    Ok(texts)
}
