//! How a server ends: it refuses new requests, lets running ones finish within a bound, then ends them.

use super::error::{ApiError, ApiResult};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No model can answer yet.
    Loading,
    /// Requests are answered.
    Running,
    /// New requests are refused, running ones go on.
    Draining,
    /// Running requests are ended.
    Ending,
}

/// The phase, and what is still going on.
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    active: Arc<watch::Sender<usize>>,
}

/// Counts as something that goes on until it is dropped.
pub struct Activity(Arc<watch::Sender<usize>>);

impl Shutdown {
    /// Of a server that starts.
    pub fn new() -> Shutdown {
        Shutdown { phase: watch::Sender::new(Phase::Loading), active: Arc::new(watch::Sender::new(0)) }
    }

    /// To be told of changes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// A model can answer.
    pub fn ready(&self) {
        self.phase.send_if_modified(|phase| {
            let loading = *phase == Phase::Loading;
            *phase = if loading { Phase::Running } else { *phase };
            loading
        });
    }

    /// Notes that something begins.
    pub fn begin(&self) -> Activity {
        self.active.send_modify(|n| *n += 1);
        Activity(self.active.clone())
    }

    /// An error while nothing new is begun.
    pub fn check(&self) -> ApiResult<()> {
        match *self.phase.borrow() {
            Phase::Loading | Phase::Running => Ok(()),
            Phase::Draining | Phase::Ending => {
                Err(ApiError::unavailable("shutting_down", "the server is shutting down"))
            }
        }
    }

    /// Refuses new requests and waits until the running ones have finished, or for so long; then ends
    /// them and gives them a moment to say so. Returns how many had to be ended.
    pub async fn drain(&self, grace: Duration) -> usize {
        const LAST_WORDS: Duration = Duration::from_secs(2);
        self.phase.send_replace(Phase::Draining);
        let mut active = self.active.subscribe();
        let _ = tokio::time::timeout(grace, active.wait_for(|n| *n == 0)).await;
        let ended = *active.borrow_and_update();
        self.phase.send_replace(Phase::Ending);
        let _ = tokio::time::timeout(LAST_WORDS, active.wait_for(|n| *n == 0)).await;
        ended
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}
