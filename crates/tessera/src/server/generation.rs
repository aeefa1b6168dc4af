//! The requests of one client request in the engine: choices, prompts of a list, texts to embed.

use super::error::{ApiError, ApiResult, failure, refusal};
use super::metrics::Meter;
use super::models::Lease;
use super::shutdown::{Activity, Phase};
use super::{App, Caller};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_engine::engine::{EngineEvent, SubmitError, Ticket};
pub use tessera_openai::reply::Job;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// How long to wait before a full queue is asked again for the rest of a list.
const QUEUE_AGAIN: Duration = Duration::from_millis(50);

/// Jobs that run. Dropping it cancels what has not ended.
pub struct Generation {
    lease: Lease,
    states: Vec<State>,
    pending: VecDeque<(usize, Job)>,
    events: mpsc::UnboundedReceiver<(usize, EngineEvent)>,
    sender: mpsc::UnboundedSender<(usize, EngineEvent)>,
    /// Most jobs in the engine at once.
    window: usize,
    /// Jobs in it now.
    in_engine: usize,
    deadline: Instant,
    limit: Duration,
    phase: watch::Receiver<Phase>,
    meter: Meter,
    stream: Arc<TcpStream>,
    _activity: Activity,
}

/// What [`Generation::next`] waited for.
enum Happened {
    Event((usize, EngineEvent)),
    Ending,
    TooLong,
    QueueAgain,
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    has_token: bool,
    ended: bool,
}

impl Generation {
    /// Queues the jobs; those of a long list as others end.
    pub fn start(app: &App, caller: &Caller, lease: Lease, jobs: Vec<Job>) -> ApiResult<Generation> {
        let (sender, events) = mpsc::unbounded_channel();
        let meter = app.metrics.meter(&lease.name, &caller.request_id, caller.arrived);
        let mut generation = Generation {
            states: jobs.iter().map(|_| State::default()).collect(),
            pending: jobs.into_iter().enumerate().collect(),
            events,
            sender,
            window: app.config.engine.max_sequences.max(1),
            in_engine: 0,
            deadline: caller.arrived + app.config.timeout,
            limit: app.config.timeout,
            phase: app.shutdown.phase(),
            meter,
            stream: caller.stream.clone(),
            _activity: app.shutdown.begin(),
            lease,
        };
        match generation.submit() {
            // Part of a list is in the queue; the rest follows.
            Err(SubmitError::QueueFull { .. }) if generation.in_engine > 0 => {}
            Err(error) => {
                if error == SubmitError::Closed {
                    app.models.slot(&generation.lease.name)?.forget(&generation.lease);
                }
                return Err(refusal(&error));
            }
            Ok(()) => {}
        }
        Ok(generation)
    }

    /// The model.
    pub fn model(&self) -> &Lease {
        &self.lease
    }

    /// The connection on which the answer is sent.
    pub fn stream(&self) -> Arc<TcpStream> {
        self.stream.clone()
    }

    /// Hands jobs to the engine while there is room.
    fn submit(&mut self) -> Result<(), SubmitError> {
        let mut next = 0;
        while self.in_engine < self.window
            && let Some((index, job)) = self.pending.get_mut(next)
        {
            if job.after.is_some_and(|i| !self.states[i].has_token && !self.states[i].ended) {
                next += 1;
                continue;
            }
            let (index, sender) = (*index, self.sender.clone());
            // A receiver that is gone has dropped the ticket too.
            let sink = Box::new(move |event| drop(sender.send((index, event))));
            self.states[index].ticket = Some(self.lease.engine.submit((job.make)(), sink)?);
            self.in_engine += 1;
            self.pending.remove(next);
        }
        Ok(())
    }

    /// The rest of a list: a queue that is full now is asked again later.
    fn submit_rest(&mut self) -> ApiResult<()> {
        match self.submit() {
            Ok(()) | Err(SubmitError::QueueFull { .. }) => Ok(()),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// The next event, with the number of its job; `None` when all have ended.
    pub async fn next(&mut self) -> ApiResult<Option<(usize, EngineEvent)>> {
        let (index, event) = loop {
            if self.pending.is_empty() && self.in_engine == 0 {
                return Ok(None);
            }
            let again = self.in_engine == 0;
            let happened = tokio::select! {
                biased;
                _ = self.phase.wait_for(|phase| *phase == Phase::Ending) => Happened::Ending,
                () = tokio::time::sleep_until(self.deadline.into()) => Happened::TooLong,
                // The sender is ours, so the channel does not end.
                Some(event) = self.events.recv() => Happened::Event(event),
                () = tokio::time::sleep(QUEUE_AGAIN), if again => Happened::QueueAgain,
            };
            match happened {
                Happened::Event(event) => break event,
                Happened::QueueAgain => self.submit_rest()?,
                Happened::TooLong => return Err(self.too_long()),
                Happened::Ending => {
                    let message = "the server is shutting down and its grace period is over";
                    return Err(ApiError::unavailable("shutting_down", message));
                }
            }
        };
        self.meter.note(&event);
        let makes_room = match &event {
            EngineEvent::Token { .. } => !std::mem::replace(&mut self.states[index].has_token, true),
            EngineEvent::Done { .. } => {
                self.end(index);
                true
            }
            EngineEvent::Failed(error) => {
                self.end(index);
                return Err(failure(error));
            }
            _ => false,
        };
        if makes_room && !self.pending.is_empty() {
            self.submit_rest()?;
        }
        Ok(Some((index, event)))
    }

    fn end(&mut self, index: usize) {
        self.states[index].ended = true;
        self.states[index].ticket = None;
        self.in_engine -= 1;
    }

    fn too_long(&self) -> ApiError {
        let seconds = self.limit.as_secs_f64();
        ApiError::timeout(format!("the request took longer than the {seconds} s that this server allows"))
    }
}
