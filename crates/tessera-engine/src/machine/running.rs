//! A request that has left the queue.

use crate::kv::Sequence;
use crate::request::{EngineEvent, FinishReason, Timing, Usage};
use crate::slot::{Rows, Slot, SlotEvent, Taken};
use crate::{failure::Failure, request::EngineRequest};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tessera_compute::batch::Output;

/// One that waits.
pub(super) struct Waiting {
    pub id: u64,
    pub request: EngineRequest,
    pub submitted: Duration,
}

/// One that has begun. Times are the driver's.
pub(super) struct Running {
    pub id: u64,
    /// Number of its admission.
    pub order: u64,
    pub slot: Slot,
    pub sequence: Sequence,
    /// Whether the end of its prompt was offered to others.
    pub offered: bool,
    /// Whether the last pass fed some of its prompt.
    pub prefills: bool,
    pub cached_tokens: usize,
    /// The rows of its last pass, which wait for a mask, and how many there are.
    pub stalled: Option<(Output, usize)>,
    pub submitted: Duration,
    pub started: Duration,
    pub first: Option<Duration>,
}

/// What a pass did for one sequence.
pub(super) type Outcome = (Vec<SlotEvent>, Result<Taken, Failure>);

impl Waiting {
    /// The end of a request that never ran.
    pub fn cancelled(self, now: Duration) -> EngineEvent {
        let usage = Usage { prompt_tokens: self.request.prompt.len(), ..Usage::default() };
        let timing = Timing { queued: now.saturating_sub(self.submitted), ..Timing::default() };
        let finish_reason = FinishReason::Cancelled;
        EngineEvent::Done { text: String::new(), finish_reason, usage, timing }
    }
}

impl Running {
    /// What its rows did.
    pub fn take(&mut self, rows: Rows<'_>) -> Outcome {
        let mut events = Vec::new();
        let taken = catch_unwind(AssertUnwindSafe(|| self.slot.take(rows, &mut events)))
            .map_err(|panic| Failure::panicked("it", &*panic))
            .and_then(|taken| taken.map_err(Failure::from));
        (events, taken)
    }

    /// The event for outside.
    pub fn event(&mut self, event: SlotEvent, now: Duration) -> EngineEvent {
        match event {
            SlotEvent::PromptLogprobs(scores) => EngineEvent::PromptLogprobs(scores),
            SlotEvent::Embedding(mean) => EngineEvent::Embedding(mean),
            SlotEvent::Token { id, text, logprob } => {
                self.first.get_or_insert(now);
                EngineEvent::Token { id, text, logprob }
            }
        }
    }

    /// The last event of a request that did not fail.
    pub fn done(mut self, finish_reason: FinishReason, now: Duration) -> EngineEvent {
        let (drafted_tokens, accepted_tokens) = self.slot.drafts();
        let usage = Usage {
            prompt_tokens: self.slot.prompt_len(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.slot.shown(),
            drafted_tokens,
            accepted_tokens,
        };
        let first = self.first.unwrap_or(now);
        let timing = Timing {
            queued: self.started.saturating_sub(self.submitted),
            prefill: first.saturating_sub(self.started),
            decode: now.saturating_sub(first),
        };
        let text = self.slot.finish(finish_reason);
        EngineEvent::Done { text, finish_reason, usage, timing }
    }
}
