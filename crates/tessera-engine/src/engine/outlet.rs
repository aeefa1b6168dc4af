//! A request's way out.

use super::Sink;
use crate::failure::Failure;
use crate::request::EngineEvent;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a request's events go. If it is dropped before the last event, because the engine's thread
/// panicked, that is the last event: nobody waits for one that cannot come.
pub(super) struct Outlet {
    sink: Sink,
    cancelled: Arc<AtomicBool>,
    ended: bool,
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
        self.ended |= event.is_last();
        if catch_unwind(AssertUnwindSafe(|| (self.sink)(event))).is_err() {
            self.cancelled.store(true, Ordering::Release);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.ended {
            self.emit(EngineEvent::Failed(Failure::Thread));
        }
    }
}
