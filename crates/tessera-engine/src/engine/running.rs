//! A request in the engine and its way out.

use super::{Sink, Submission};
use crate::kv::Sequence;
use crate::request::{EngineEvent, FailureKind, FinishReason, Timing, Usage};
use crate::slot::{Slot, SlotEvent};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tessera_compute::batch::Output;

/// Where a request's events go. If it is dropped before the last event, because the engine's thread
/// panicked, that is the last event: nobody waits for one that cannot come.
pub(super) struct Outlet {
    sink: Sink,
    cancelled: Arc<AtomicBool>,
    ended: bool,
}

/// A request that has left the queue.
pub(super) struct Running {
    /// Number of its admission.
    pub order: u64,
    pub slot: Slot,
    pub sequence: Sequence,
    /// Whether the end of its prompt was offered to others.
    pub offered: bool,
    pub cached_tokens: usize,
    /// The rows of its last step, which wait for a mask, and how many there are.
    pub stalled: Option<(Output, usize)>,
    outlet: Outlet,
    submitted: Instant,
    started: Instant,
    first: Option<Instant>,
}

impl Outlet {
    pub fn new(sink: Sink, cancelled: Arc<AtomicBool>) -> Outlet {
        Outlet { sink, cancelled, ended: false }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// A sink that panics wants no more.
    pub fn emit(&mut self, event: EngineEvent) {
        self.ended |= matches!(event, EngineEvent::Done { .. } | EngineEvent::Failed { .. });
        if catch_unwind(AssertUnwindSafe(|| (self.sink)(event))).is_err() {
            self.cancelled.store(true, Ordering::Release);
        }
    }

    pub fn fail(&mut self, error: String, kind: FailureKind) {
        self.emit(EngineEvent::Failed { error, kind });
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.ended {
            self.fail("the engine's thread has failed".to_owned(), FailureKind::Internal);
        }
    }
}

impl Submission {
    /// The end of a request that never ran.
    pub fn cancel(mut self) {
        let usage = Usage { prompt_tokens: self.request.prompt.len(), ..Usage::default() };
        let timing = Timing { queued: self.at.elapsed(), ..Timing::default() };
        let finish_reason = FinishReason::Cancelled;
        self.outlet.emit(EngineEvent::Done { text: String::new(), finish_reason, usage, timing });
    }
}

impl Running {
    /// Tells that the request has begun.
    pub fn start(
        order: u64,
        slot: Slot,
        sequence: Sequence,
        mut outlet: Outlet,
        submitted: Instant,
    ) -> Running {
        let (started, cached_tokens) = (Instant::now(), sequence.tokens.len());
        outlet.emit(EngineEvent::Started { cached_tokens, queued: started - submitted });
        Running {
            order,
            slot,
            sequence,
            offered: false,
            cached_tokens,
            stalled: None,
            outlet,
            submitted,
            started,
            first: None,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.outlet.is_cancelled()
    }

    pub fn emit(&mut self, event: SlotEvent) {
        self.outlet.emit(match event {
            SlotEvent::PromptLogprobs(scores) => EngineEvent::PromptLogprobs(scores),
            SlotEvent::Embedding(mean) => EngineEvent::Embedding(mean),
            SlotEvent::Token { id, text, logprob } => {
                self.first.get_or_insert_with(Instant::now);
                EngineEvent::Token { id, text, logprob }
            }
        });
    }

    /// The last event of a request that did not fail.
    pub fn done(mut self, finish_reason: FinishReason) {
        let now = Instant::now();
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
            queued: self.started - self.submitted,
            prefill: first - self.started,
            decode: now - first,
        };
        let text = self.slot.finish(finish_reason);
        self.outlet.emit(EngineEvent::Done { text, finish_reason, usage, timing });
    }

    /// The last event of one that did.
    pub fn fail(mut self, error: String, kind: FailureKind) {
        self.outlet.fail(error, kind);
    }
}
