//! What an endpoint asks of the engine, and what it makes of the engine's events: the same for a server and for a page.

use crate::error::ApiResult;
use crate::subject::Subject;
use serde_json::Value;
use tessera_engine::request::{EngineEvent, EngineRequest};

/// One request for the engine.
pub struct Job {
    /// Makes it; again, if the queue was full.
    pub make: Box<dyn FnMut() -> EngineRequest + Send>,
    /// The job whose prompt this one shares: it begins when that one has its first token, so that the
    /// prompt is computed once.
    pub after: Option<usize>,
}

/// An answer that is being made.
pub trait Reply: Send {
    /// Whether it is sent in parts.
    fn is_streamed(&self) -> bool;

    /// What the engine is asked for. `flow`: who asks, so that flows take turns.
    fn jobs(&self, flow: u64) -> Vec<Job>;

    /// Parts that come before any event.
    fn begin(&mut self, subject: &Subject) -> Vec<Value>;

    /// Parts that an event of a job makes.
    ///
    /// # Errors
    /// What ends the answer.
    fn take(&mut self, job: usize, event: EngineEvent, subject: &Subject) -> ApiResult<Vec<Value>>;

    /// Parts that come when all jobs have ended.
    fn end(&mut self) -> Vec<Value>;

    /// The answer as a whole, when all jobs have ended.
    ///
    /// # Errors
    /// Where there is none.
    fn whole(&mut self) -> ApiResult<Value>;
}
