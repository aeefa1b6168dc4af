//! Replies that share a machine, for whoever has one thread and may not block it: a page.
//!
//! [`Desk::ask`] takes a request's body, [`Desk::turn`] makes one step for all that runs, and [`Desk::news`] hands over
//! what came of it. A server does the same with the engine's own thread.

use crate::chat::{self, Chat};
use crate::completions::{self, Completion};
use crate::embeddings::{self, Embeddings};
use crate::error::{ApiError, ApiResult, failure, refusal};
use crate::fields::{self, Fields};
use crate::jobs::Jobs;
use crate::json;
use crate::reply::Reply;
use crate::subject::Subject;
use serde_json::Value;
use std::collections::BTreeMap;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tessera_engine::machine::Machine;
use tessera_engine::request::{EngineEvent, EngineOptions, FinishReason, SubmitError, Timing, Usage};
use tessera_engine::sampler::LogitProcessor;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// More of a prompt was fed.
    Prefill {
        /// Tokens fed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A part of an answer that is streamed.
    Part(Value),
    /// An answer that is not.
    Whole(Value),
    /// The end of an answer, which follows its last part or the whole.
    End {
        /// Of the answer that took longest.
        timing: Timing,
    },
    /// The end of a request without an answer, or with no more of it.
    Failed(ApiError),
}

/// A machine with the requests that run in it.
pub struct Desk {
    machine: Machine,
    subject: Subject,
    asked: BTreeMap<u64, Asked>,
    /// Which request, and which of its jobs, the machine's numbers belong to.
    jobs: BTreeMap<u64, (u64, usize)>,
    last_request: u64,
    last_job: u64,
    news: Vec<(u64, News)>,
    /// Whether a step was begun and is not taken.
    steps: bool,
    /// Whether it was told that the device is lost.
    lost: bool,
}

struct Asked {
    reply: Box<dyn Reply>,
    /// By the machine's numbers.
    jobs: Jobs<u64>,
    timing: Timing,
    processor: Option<MakeProcessor>,
}

/// Makes what changes the logits of a request's answers, one for each.
pub type MakeProcessor = Box<dyn Fn() -> Box<dyn LogitProcessor>>;

impl Desk {
    /// Nothing is asked yet.
    pub fn new(machine: Machine, subject: Subject) -> Desk {
        Desk {
            machine,
            subject,
            asked: BTreeMap::new(),
            jobs: BTreeMap::new(),
            last_request: 0,
            last_job: 0,
            news: Vec::new(),
            steps: false,
            lost: false,
        }
    }

    /// The model, as requests see it.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The machine. Its events are the desk's.
    pub const fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Takes a request, and gives it a number that its news bear.
    ///
    /// # Errors
    /// What is wrong with it. It has no news then.
    pub fn ask(&mut self, endpoint: Endpoint, body: &[u8], now: Duration) -> ApiResult<u64> {
        self.ask_with(endpoint, body, None, now)
    }

    /// The same, with what changes the logits.
    ///
    /// # Errors
    /// As there.
    pub fn ask_with(
        &mut self,
        endpoint: Endpoint,
        body: &[u8],
        processor: Option<MakeProcessor>,
        now: Duration,
    ) -> ApiResult<u64> {
        let table = match endpoint {
            Endpoint::Chat => &fields::chat::REQUEST,
            Endpoint::Completions => &fields::completions::REQUEST,
            Endpoint::Embeddings => &fields::other::EMBEDDINGS,
        };
        let body = json::parse(body)?;
        let model = Fields::check(&body, table, "")?.text("model").unwrap_or_default().to_owned();
        let subject = &self.subject;
        let mut reply: Box<dyn Reply> = match endpoint {
            Endpoint::Chat => Box::new(Chat::new(chat::plan(&body, subject)?, model)),
            Endpoint::Completions => Box::new(Completion::new(completions::plan(&body, subject)?, model)),
            Endpoint::Embeddings => Box::new(Embeddings::new(embeddings::plan(&body, subject)?, model)),
        };
        let EngineOptions { max_sequences, queue, .. } = self.machine.options();
        let waiting = self.asked.len().saturating_sub(max_sequences);
        if waiting >= queue {
            return Err(refusal(&SubmitError::QueueFull { waiting, limit: queue }));
        }
        let id = self.last_request + 1;
        self.last_request = id;
        let jobs = Jobs::new(reply.jobs(id), max_sequences);
        let parts = reply.begin(&self.subject);
        let streamed = reply.is_streamed();
        self.asked.insert(id, Asked { reply, jobs, timing: Timing::default(), processor });
        if let Err(error) = self.submit(id, now) {
            self.forget(id);
            return Err(refusal(&error));
        }
        if streamed {
            self.news.extend(parts.into_iter().map(|part| (id, News::Part(part))));
        }
        Ok(id)
    }

    /// Hands jobs of a request to the machine while there is room.
    fn submit(&mut self, id: u64, now: Duration) -> Result<(), SubmitError> {
        let Desk { machine, asked, jobs, last_job, .. } = self;
        let Some(asked) = asked.get_mut(&id) else { return Ok(()) };
        let processor = asked.processor.as_ref();
        asked.jobs.submit(|index, mut request| {
            request.processor = processor.map(|make| make());
            machine.limits().check(&request)?;
            *last_job += 1;
            jobs.insert(*last_job, (id, index));
            machine.submit(*last_job, request, now);
            Ok(*last_job)
        })
    }

    /// Breaks a request off: what there is of its answer ends with `abort`. One that has ended stays as it is.
    pub fn cancel(&mut self, id: u64) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.jobs.handles().for_each(|job| self.machine.cancel(*job));
        for index in asked.jobs.give_up() {
            let (text, finish_reason) = (String::new(), FinishReason::Cancelled);
            let (usage, timing) = (Usage::default(), Timing::default());
            self.happened(id, index, EngineEvent::Done { text, finish_reason, usage, timing });
        }
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.machine.is_idle()
    }

    /// Lets requests begin and makes one step of the model, if there is something to feed; while the step is not made it
    /// is pending, and to be called again. `now` is asked before and after. It is pending, too, where the device was lost
    /// and [`Machine::is_lost`]: whoever has another one sets the model's loader first.
    pub fn turn(&mut self, cx: &mut Context<'_>, now: &dyn Fn() -> Duration) -> Poll<()> {
        if !self.steps {
            self.machine.admit(now());
            self.steps = self.machine.plan();
            if self.steps {
                self.machine.begin();
            }
        }
        if self.steps {
            ready!(self.machine.poll(cx));
            if self.machine.is_lost() && !std::mem::replace(&mut self.lost, true) {
                return Poll::Pending;
            }
            self.machine.take(now());
            (self.steps, self.lost) = (false, false);
        }
        if let Some(failure) = self.machine.broken().cloned() {
            self.machine.fail_all(&failure);
        }
        for (job, event) in self.machine.events() {
            let Some((id, index)) = self.jobs.get(&job).copied() else { continue };
            if event.is_last() {
                self.jobs.remove(&job);
            }
            if let Some(asked) = self.asked.get_mut(&id)
                && asked.jobs.note(index, &event)
                && let Err(error) = self.submit(id, now())
            {
                self.fail(id, refusal(&error));
            }
            self.happened(id, index, event);
        }
        Poll::Ready(())
    }

    /// What happened since it was last asked, with the requests' numbers.
    pub fn news(&mut self) -> Vec<(u64, News)> {
        std::mem::take(&mut self.news)
    }

    /// What a job's event makes of its request's answer.
    fn happened(&mut self, id: u64, index: usize, event: EngineEvent) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        match &event {
            EngineEvent::Failed(error) => return self.fail(id, failure(error)),
            EngineEvent::Prefill { done, total } => {
                self.news.push((id, News::Prefill { done: *done, total: *total }));
            }
            EngineEvent::Done { timing, .. } => {
                if timing.prefill + timing.decode > asked.timing.prefill + asked.timing.decode {
                    asked.timing = *timing;
                }
            }
            EngineEvent::Started { .. }
            | EngineEvent::PromptLogprobs(_)
            | EngineEvent::Token { .. }
            | EngineEvent::Embedding(_) => {}
        }
        match asked.reply.take(index, event, &self.subject) {
            Ok(parts) if asked.reply.is_streamed() => {
                self.news.extend(parts.into_iter().map(|part| (id, News::Part(part))));
            }
            Ok(_) => {}
            Err(error) => return self.fail(id, error),
        }
        if asked.jobs.is_done() {
            self.end(id);
        }
    }

    fn end(&mut self, id: u64) {
        let Some(mut asked) = self.asked.remove(&id) else { return };
        if asked.reply.is_streamed() {
            let last = asked.reply.end();
            self.news.extend(last.into_iter().map(|part| (id, News::Part(part))));
        } else {
            match asked.reply.whole() {
                Ok(whole) => self.news.push((id, News::Whole(whole))),
                Err(error) => return self.news.push((id, News::Failed(error))),
            }
        }
        self.news.push((id, News::End { timing: asked.timing }));
    }

    fn fail(&mut self, id: u64, error: ApiError) {
        if self.forget(id) {
            self.news.push((id, News::Failed(error)));
        }
    }

    /// Drops a request, if it has not ended; what still runs of it is cancelled, and its events are no one's.
    fn forget(&mut self, id: u64) -> bool {
        let Some(asked) = self.asked.remove(&id) else { return false };
        for job in asked.jobs.handles() {
            self.jobs.remove(job);
            self.machine.cancel(*job);
        }
        true
    }
}
