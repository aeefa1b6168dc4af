//! What an endpoint asks of the engine, and what it makes of the engine's events: the same for a server and for a page.

use crate::error::ApiResult;
use crate::subject::Subject;
use crate::usage::Totals;
use crate::{ids, now};
use serde_json::{Value, json};
use tessera_engine::request::{EngineEvent, EngineRequest};

/// One request for the engine.
pub struct Job {
    /// Makes it; again, if the queue was full.
    pub make: Box<dyn FnMut() -> EngineRequest + Send>,
    /// The job whose prompt this one shares: it begins when that one has its first token, so that the
    /// prompt is computed once.
    pub after: Option<usize>,
}

/// What does not change from part to part of an answer.
pub struct Head {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Head {
    /// Of an answer whose id begins so, to what was asked of a model by this name. `include_usage`: whether parts have a
    /// place for the usage, which the last one fills.
    pub fn new(prefix: &str, model: String, include_usage: bool) -> Head {
        Head { id: ids::unique(prefix), created: now(), model, include_usage }
    }

    /// A part of a stream.
    pub fn part(&self, object: &str, choices: Value) -> Value {
        let mut part = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            part["usage"] = Value::Null;
        }
        part
    }

    /// The last part of a stream, if it is to have the usage.
    pub fn last(&self, object: &str, totals: &Totals) -> Option<Value> {
        self.include_usage.then(|| self.whole(object, json!([]), totals))
    }

    /// The answer as a whole.
    pub fn whole(&self, object: &str, choices: Value, totals: &Totals) -> Value {
        let mut whole = self.part(object, choices);
        whole["usage"] = totals.json();
        whole
    }
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
