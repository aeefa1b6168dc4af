//! A model that serves many requests at once.
//!
//! One plain thread drives a [`Machine`]. Requests come in by [`Engine::submit`]; events go out through the request's own
//! sink. Grammars' masks are computed beside the model's steps.

mod masks;
mod outlet;
mod run;

pub use crate::constraint::{Constraint, ConstraintError};
pub use crate::failure::{Failure, FailureKind};
pub use crate::request::{
    EngineEvent, EngineOptions, EngineRequest, EngineStats, FinishReason, MAX_LOGPROBS, StartError,
    SubmitError, Timing, TokenLogprob, Usage,
};

use crate::limits::Limits;
use crate::machine::Machine;
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tessera_compute::threads;

/// Takes the events of one request, on the engine's thread: it must not block.
pub type Sink = Box<dyn FnMut(EngineEvent) + Send>;

/// A running model. Clones are handles to the same one; when the last one is dropped, what still runs is
/// failed and the thread ends.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// A request in the engine. Dropping it cancels the request before the next step; after the last event it
/// means nothing.
#[must_use = "dropping the ticket cancels the request"]
pub struct Ticket {
    /// Number of the request, from 1.
    pub id: u64,
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What handles, tickets and the thread share.
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    stats: Mutex<EngineStats>,
    options: EngineOptions,
    limits: Limits,
    /// Times are counted from here.
    begun: Instant,
}

/// What the thread has not seen yet.
#[derive(Default)]
struct Inbox {
    submitted: VecDeque<Submission>,
    /// Requests that were submitted and have not ended.
    live: usize,
    /// Those of them that ran after the last step.
    running: usize,
    last_id: u64,
    /// Set by a shutdown: when the last requests are failed.
    closes: Option<Instant>,
    /// The thread has ended.
    ended: bool,
}

/// A request on its way.
struct Submission {
    id: u64,
    request: EngineRequest,
    outlet: outlet::Outlet,
    at: Duration,
}

impl Engine {
    /// Starts the thread.
    pub fn start(
        model: Model,
        tokenizer: Arc<Tokenizer>,
        options: EngineOptions,
    ) -> Result<Engine, StartError> {
        let machine = Machine::new(model, tokenizer, options)?;
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            stats: Mutex::default(),
            options,
            limits: machine.limits(),
            begun: Instant::now(),
        });
        let own = shared.clone();
        let thread = threads::spawn("tessera-engine".to_owned(), move || run::run(&own, machine))?;
        Ok(Engine { handle: Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Checks at once what can be checked, and queues the request. Its events go to `sink` from the
    /// engine's thread.
    pub fn submit(&self, request: EngineRequest, sink: Sink) -> Result<Ticket, SubmitError> {
        let shared = &self.handle.shared;
        shared.limits.check(&request)?;
        let mut inbox = shared.inbox();
        if inbox.closes.is_some() || inbox.ended {
            return Err(SubmitError::Closed);
        }
        let limit = shared.options.queue;
        if inbox.live >= limit.saturating_add(shared.options.max_sequences) {
            return Err(SubmitError::QueueFull { waiting: inbox.live.saturating_sub(inbox.running), limit });
        }
        inbox.live += 1;
        inbox.last_id += 1;
        let id = inbox.last_id;
        let cancelled = Arc::new(AtomicBool::new(false));
        let ticket = Ticket { id, cancelled: cancelled.clone(), shared: shared.clone() };
        let outlet = outlet::Outlet::new(sink, cancelled);
        inbox.submitted.push_back(Submission { id, request, outlet, at: shared.begun.elapsed() });
        shared.wake.notify_one();
        Ok(ticket)
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> EngineStats {
        let shared = &self.handle.shared;
        let (live, running) = {
            let inbox = shared.inbox();
            (inbox.live, inbox.running)
        };
        EngineStats { waiting: live.saturating_sub(running), running, ..*lock(&shared.stats) }
    }

    /// Whether the thread has ended: no request is taken any more.
    pub fn has_ended(&self) -> bool {
        self.handle.shared.inbox().ended
    }

    /// Longest sequence in tokens.
    pub fn context(&self) -> usize {
        self.handle.shared.limits.context
    }

    /// Refuses new requests, lets those that were accepted go on for `grace`, fails the rest, and returns
    /// when the thread has ended. Not to be called from a sink.
    pub fn shutdown(self, grace: Duration) {
        self.handle.shared.close(grace);
        let thread = lock(&self.handle.thread).take();
        if let Some(thread) = thread {
            // The thread catches panics of the model; one of its own has nothing left to tell.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(Duration::ZERO);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
        // Taken so that the thread cannot miss it between its look and its sleep.
        let _inbox = self.shared.inbox();
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn close(&self, grace: Duration) {
        let mut inbox = self.inbox();
        let at = Instant::now().checked_add(grace);
        // A grace beyond the clock's range is one without end.
        let at = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(u32::MAX.into()));
        inbox.closes = Some(inbox.closes.map_or(at, |other| other.min(at)));
        self.wake.notify_one();
    }
}

/// The value, also after a panic in another thread: every change to it is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
