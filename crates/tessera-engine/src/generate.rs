//! One answer: a machine that is driven for one request, on the calling thread.

use crate::failure::Failure;
use crate::machine::Machine;
use crate::request::{EngineEvent, EngineOptions, EngineRequest, FinishReason, SubmitError, Usage};
use std::ops::ControlFlow;
use std::time::Duration;

/// Prompt tokens in one step.
pub const CHUNK: usize = 512;

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text, without stop strings.
    pub text: String,
    /// Every token chosen, a final stop token included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How many tokens of each kind.
    pub usage: Usage,
}

/// An answer that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// What is asked for cannot be.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// It could not go on.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl EngineOptions {
    /// For a machine that makes one answer after the other.
    pub const fn one_by_one(speculate: bool) -> EngineOptions {
        EngineOptions { max_sequences: 1, max_batch_tokens: CHUNK, queue: 0, prefix_cache: true, speculate }
    }
}

/// Makes an answer; what the prompt shares with those before is not computed again. `on` is shown what happens, and may
/// break the answer off: then it ends as [`FinishReason::Cancelled`], and `on` is not called again. The machine has no
/// other requests.
///
/// # Errors
/// What [`Limits::check`](crate::limits::Limits::check) refuses, and what fails.
pub fn generate(
    machine: &mut Machine,
    request: EngineRequest,
    on: &mut dyn FnMut(&EngineEvent) -> ControlFlow<()>,
) -> Result<Answer, GenerateError> {
    machine.limits().check(&request)?;
    // Where `on` panicked, its request is still there.
    machine.fail_all(&Failure::Shutdown);
    machine.events();
    let now = clock();
    let (mut text, mut token_ids) = (String::new(), Vec::new());
    let mut on = Some(on);
    machine.submit(0, request, now());
    loop {
        machine.admit(now());
        if machine.plan() {
            machine.step();
            machine.take(now());
        }
        for (id, event) in machine.events() {
            if on.as_mut().is_some_and(|on| on(&event).is_break()) {
                on = None;
                machine.cancel(id);
            }
            match event {
                EngineEvent::Token { id, text: piece, .. } => {
                    token_ids.push(id);
                    text.push_str(&piece);
                }
                EngineEvent::Done { text: rest, finish_reason, usage, .. } => {
                    text.push_str(&rest);
                    return Ok(Answer { text, token_ids, finish_reason, usage });
                }
                EngineEvent::Failed(failure) => return Err(failure.into()),
                EngineEvent::Started { .. }
                | EngineEvent::Prefill { .. }
                | EngineEvent::PromptLogprobs(_)
                | EngineEvent::Embedding(_) => {}
            }
        }
    }
}

/// Time since it was made; none where the platform has no clock of its own.
fn clock() -> impl Fn() -> Duration {
    #[cfg(target_family = "wasm")]
    return || Duration::ZERO;
    #[cfg(not(target_family = "wasm"))]
    {
        let begun = std::time::Instant::now();
        move || begun.elapsed()
    }
}
