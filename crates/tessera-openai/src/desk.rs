//! Replies that share a machine, for whoever has one thread and may not block it: a page.
//!
//! [`Desk::ask`] takes a request's body, [`Desk::turn`] makes one step for all that runs, and [`Desk::news`] hands over
//! what came of it. A server does the same with the engine's own thread.

use crate::chat::{self, Chat};
use crate::completions::{self, Completion};
use crate::embeddings::{self, Embeddings};
use crate::error::{ApiError, ApiResult, failure, refusal};
use crate::fields::{self, Fields};
use crate::json;
use crate::reply::{Job, Reply};
use crate::subject::Subject;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tessera_engine::failure::Failure;
use tessera_engine::machine::Machine;
use tessera_engine::request::{EngineEvent, EngineRequest, FinishReason, SubmitError, Timing, Usage};

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
    /// Most jobs of one request in the machine at once.
    window: usize,
    /// Most requests that may wait.
    queue: usize,
    asked: BTreeMap<u64, Asked>,
    /// Which request, and which of its jobs, the machine's numbers belong to.
    jobs: BTreeMap<u64, (u64, usize)>,
    last_request: u64,
    last_job: u64,
    news: Vec<(u64, News)>,
}

struct Asked {
    reply: Box<dyn Reply>,
    states: Vec<State>,
    pending: VecDeque<(usize, Job)>,
    in_machine: usize,
    timing: Timing,
}

#[derive(Default)]
struct State {
    /// The machine's number, while it runs there.
    job: Option<u64>,
    has_token: bool,
    ended: bool,
}

impl Desk {
    /// `sequences` and `queue` are those of the options that the machine was made with.
    pub fn new(machine: Machine, subject: Subject, sequences: usize, queue: usize) -> Desk {
        Desk {
            machine,
            subject,
            window: sequences,
            queue,
            asked: BTreeMap::new(),
            jobs: BTreeMap::new(),
            last_request: 0,
            last_job: 0,
            news: Vec::new(),
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
        let table = match endpoint {
            Endpoint::Chat => &fields::chat::REQUEST,
            Endpoint::Completions => &fields::completions::REQUEST,
            Endpoint::Embeddings => &fields::other::EMBEDDINGS,
        };
        let body = json::parse(body)?;
        let model = Fields::check(&body, table, "")?.text("model").unwrap_or_default().to_owned();
        let subject = &self.subject;
        let reply: Box<dyn Reply> = match endpoint {
            Endpoint::Chat => Box::new(Chat::new(chat::plan(&body, subject)?, model)),
            Endpoint::Completions => Box::new(Completion::new(completions::plan(&body, subject)?, model)),
            Endpoint::Embeddings => Box::new(Embeddings::new(embeddings::plan(&body, subject)?, model)),
        };
        self.take(reply, now)
    }

    /// Takes a request whose reply is there already.
    ///
    /// # Errors
    /// Where the machine refuses it.
    pub fn take(&mut self, mut reply: Box<dyn Reply>, now: Duration) -> ApiResult<u64> {
        let waiting = self.asked.len().saturating_sub(self.window);
        if waiting >= self.queue {
            return Err(refusal(&SubmitError::QueueFull { waiting, limit: self.queue }));
        }
        let id = self.last_request + 1;
        let mut jobs: Vec<Job> = reply.jobs(id);
        for job in &mut jobs {
            self.machine.limits().check(&(job.make)()).map_err(|error| refusal(&error))?;
        }
        self.last_request = id;
        let parts = reply.begin(&self.subject);
        if reply.is_streamed() {
            self.news.extend(parts.into_iter().map(|part| (id, News::Part(part))));
        }
        let asked = Asked {
            reply,
            states: jobs.iter().map(|_| State::default()).collect(),
            pending: jobs.into_iter().enumerate().collect(),
            in_machine: 0,
            timing: Timing::default(),
        };
        self.asked.insert(id, asked);
        self.submit(id, now);
        Ok(id)
    }

    /// Hands jobs of a request to the machine while there is room, those first that wait for no other.
    fn submit(&mut self, id: u64, now: Duration) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let mut next = 0;
        while asked.in_machine < self.window
            && let Some((index, job)) = asked.pending.get_mut(next)
        {
            if job.after.is_some_and(|i| !asked.states[i].has_token && !asked.states[i].ended) {
                next += 1;
                continue;
            }
            let index = *index;
            let request: EngineRequest = (job.make)();
            self.last_job += 1;
            asked.states[index].job = Some(self.last_job);
            asked.in_machine += 1;
            asked.pending.remove(next);
            self.jobs.insert(self.last_job, (id, index));
            self.machine.submit(self.last_job, request, now);
        }
    }

    /// Breaks a request off: what there is of its answer ends with `abort`. One that has ended stays as it is.
    pub fn cancel(&mut self, id: u64) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let pending = std::mem::take(&mut asked.pending);
        asked.states.iter().filter_map(|state| state.job).for_each(|job| self.machine.cancel(job));
        for (index, _) in pending {
            let (text, finish_reason) = (String::new(), FinishReason::Cancelled);
            let (usage, timing) = (Usage::default(), Timing::default());
            self.happened(
                id,
                index,
                EngineEvent::Done { text, finish_reason, usage, timing },
                Duration::ZERO,
            );
        }
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.machine.is_idle()
    }

    /// Lets requests begin and makes one step of the model, if there is something to feed. `now` is asked before and
    /// after.
    pub fn turn(&mut self, now: &dyn Fn() -> Duration) {
        self.machine.admit(now());
        if self.machine.plan() {
            self.machine.step();
            self.machine.take(now());
        }
        self.deliver(now());
        if let Some(failure) = self.machine.broken().cloned() {
            self.machine.fail_all(&failure);
            self.deliver(now());
        }
    }

    /// Why no request can be answered any more, if that is so.
    pub const fn broken(&self) -> Option<&Failure> {
        self.machine.broken()
    }

    /// What happened since it was last asked, with the requests' numbers.
    pub fn news(&mut self) -> Vec<(u64, News)> {
        std::mem::take(&mut self.news)
    }

    fn deliver(&mut self, now: Duration) {
        for (job, event) in self.machine.events() {
            let Some((id, index)) = self.jobs.get(&job).copied() else { continue };
            if event.is_last() {
                self.jobs.remove(&job);
                if let Some(asked) = self.asked.get_mut(&id) {
                    asked.states[index].job = None;
                    asked.in_machine -= 1;
                }
            }
            self.happened(id, index, event, now);
        }
    }

    /// Something happened to a job of a request.
    fn happened(&mut self, id: u64, index: usize, event: EngineEvent, now: Duration) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let mut makes_room = false;
        match &event {
            EngineEvent::Failed(error) => return self.fail(id, failure(error)),
            EngineEvent::Prefill { done, total } => {
                self.news.push((id, News::Prefill { done: *done, total: *total }));
            }
            EngineEvent::Token { .. } => {
                makes_room = !std::mem::replace(&mut asked.states[index].has_token, true);
            }
            EngineEvent::Done { timing, .. } => {
                asked.states[index].ended = true;
                makes_room = true;
                if timing.prefill + timing.decode > asked.timing.prefill + asked.timing.decode {
                    asked.timing = *timing;
                }
            }
            EngineEvent::Started { .. } | EngineEvent::PromptLogprobs(_) | EngineEvent::Embedding(_) => {}
        }
        match asked.reply.take(index, event, &self.subject) {
            Ok(parts) if asked.reply.is_streamed() => {
                self.news.extend(parts.into_iter().map(|part| (id, News::Part(part))));
            }
            Ok(_) => {}
            Err(error) => return self.fail(id, error),
        }
        if asked.states.iter().all(|state| state.ended) {
            return self.end(id);
        }
        if makes_room {
            self.submit(id, now);
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

    /// Ends a request; what still runs of it is cancelled, and its events are no one's.
    fn fail(&mut self, id: u64, error: ApiError) {
        let Some(asked) = self.asked.remove(&id) else { return };
        for job in asked.states.iter().filter_map(|state| state.job) {
            self.jobs.remove(&job);
            self.machine.cancel(job);
        }
        self.news.push((id, News::Failed(error)));
    }
}
