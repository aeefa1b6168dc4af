//! The requests of one client request in the engine: choices, prompts of a list, texts to embed.

use super::error::{ApiError, ApiResult, failure, refusal};
use super::metrics::Meter;
use super::models::Lease;
use super::shutdown::{Activity, Phase};
use super::{App, Caller};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_engine::engine::{EngineEvent, SubmitError, Ticket};
use tessera_openai::jobs::Jobs;
pub use tessera_openai::reply::Job;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// How long to wait before a full queue is asked again for the rest of a list.
const QUEUE_AGAIN: Duration = Duration::from_millis(50);

/// Jobs that run. Dropping it cancels what has not ended.
pub struct Generation {
    lease: Lease,
    jobs: Jobs<Ticket>,
    events: mpsc::UnboundedReceiver<(usize, EngineEvent)>,
    sender: mpsc::UnboundedSender<(usize, EngineEvent)>,
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

impl Generation {
    /// Queues the jobs; those of a long list as others end.
    pub fn start(app: &App, caller: &Caller, lease: Lease, jobs: Vec<Job>) -> ApiResult<Generation> {
        let (sender, events) = mpsc::unbounded_channel();
        let meter = app.metrics.meter(&lease.name, &caller.request_id, caller.arrived);
        let mut generation = Generation {
            jobs: Jobs::new(jobs, app.config.engine.max_sequences),
            events,
            sender,
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
            Err(SubmitError::QueueFull { .. }) if generation.jobs.running() > 0 => {}
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
        let (engine, sender) = (&self.lease.engine, &self.sender);
        self.jobs.submit(|index, request| {
            let sender = sender.clone();
            // A receiver that is gone has dropped the ticket too.
            engine.submit(request, Box::new(move |event| drop(sender.send((index, event)))))
        })
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
            if self.jobs.is_done() {
                return Ok(None);
            }
            let again = self.jobs.running() == 0;
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
        let makes_room = self.jobs.note(index, &event);
        if let EngineEvent::Failed(error) = &event {
            return Err(failure(error));
        }
        if makes_room {
            self.submit_rest()?;
        }
        Ok(Some((index, event)))
    }

    fn too_long(&self) -> ApiError {
        let seconds = self.limit.as_secs_f64();
        ApiError::timeout(format!("the request took longer than the {seconds} s that this server allows"))
    }
}
