//! Requests that share a model, as a plain value: it has no thread, waits for nothing and reads no clock.
//!
//! Whoever drives it repeats: [`Machine::admit`] lets requests begin, [`Machine::plan`] says which tokens of which are
//! fed, [`Machine::step`] computes them (where nobody may wait, [`Machine::begin`] and [`Machine::poll`] do),
//! [`Machine::take`] takes what came out, and [`Machine::events`] hands it over. The engine's thread drives it for many
//! requests, [`generate`](crate::generate::generate) for one. Times are counted from any moment the driver likes.
//!
//! A request's tokens do not depend on the others, on the cache, or on how its prompt was cut.

mod logits;
mod pass;
mod running;

use crate::constraint::{Constraint, ConstraintError};
use crate::failure::{Failure, FailureKind};
use crate::limits::Limits;
use crate::model::{Loader, Model};
use crate::request::{EngineEvent, EngineOptions, EngineRequest, EngineStats, FinishReason, StartError};
use crate::scheduler::{FairQueue, admits};
use crate::slot::{Rows, Slot, SlotError, SlotEvent};
use crate::tokenizer::Tokenizer;
use crate::units::{ALL, UnitPool, WINDOW};
use logits::Probe;
use pass::Pass;
use running::{Outcome, Running, Waiting};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Machine {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    options: EngineOptions,
    limits: Limits,
    waiting: FairQueue<Waiting>,
    /// Oldest first; they come before all that wait.
    preempted: VecDeque<Running>,
    /// In order of admission.
    running: Vec<Running>,
    /// Those that are to go.
    cancelled: Vec<u64>,
    admitted: u64,
    /// Planned, begun or made, and not taken.
    pass: Option<Pass>,
    /// Whether the last pass was one of those that are embedded.
    embedded: bool,
    events: Vec<(u64, EngineEvent)>,
    stats: EngineStats,
    broken: Option<Failure>,
    probe: Option<Probe>,
}

impl Machine {
    /// A machine without requests.
    ///
    /// # Errors
    /// An option out of range. `queue` has no meaning here.
    pub fn new(
        mut model: Model,
        tokenizer: Arc<Tokenizer>,
        options: EngineOptions,
    ) -> Result<Machine, StartError> {
        for (option, found) in
            [("max_sequences", options.max_sequences), ("max_batch_tokens", options.max_batch_tokens)]
        {
            if found == 0 {
                return Err(StartError::Option { option, expected: "at least 1", found });
            }
        }
        if options.max_batch_tokens < options.max_sequences {
            let (option, found) = ("max_batch_tokens", options.max_batch_tokens);
            return Err(StartError::Option { option, expected: "at least max_sequences", found });
        }
        let encoder = model.is_encoder();
        let context = match encoder {
            true => model.context().min(options.max_batch_tokens),
            false => model.context(),
        };
        let limits = Limits { context, vocab_size: model.config.vocab_size, encoder };
        model.keep_prefixes(options.prefix_cache);
        Ok(Machine {
            model,
            tokenizer,
            options,
            limits,
            waiting: FairQueue::default(),
            preempted: VecDeque::new(),
            running: Vec::new(),
            cancelled: Vec::new(),
            admitted: 0,
            pass: None,
            embedded: false,
            events: Vec::new(),
            stats: EngineStats::default(),
            broken: None,
            probe: None,
        })
    }

    /// What loads the model again where its device is lost; see [`Model::set_loader`].
    pub fn set_loader(&mut self, loader: Loader) {
        self.model.set_loader(loader);
    }

    /// The model.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// How it shares its model.
    pub const fn options(&self) -> EngineOptions {
        self.options
    }

    /// What requests are held to.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Queues a request that [`Limits::check`] has passed. Its events bear `id`, which no other request has.
    pub fn submit(&mut self, id: u64, request: EngineRequest, now: Duration) {
        let flow = request.flow;
        self.waiting.push(flow, Waiting { id, request, submitted: now });
    }

    /// Ends a request at the next [`Machine::admit`]; one that has ended stays as it is.
    pub fn cancel(&mut self, id: u64) {
        self.cancelled.push(id);
    }

    /// Ends all requests, whatever is being made for them.
    pub fn fail_all(&mut self, failure: &Failure) {
        self.pass = None;
        for waiting in self.waiting.take_if(|_| true) {
            self.stats.failed += 1;
            self.events.push((waiting.id, EngineEvent::Failed(failure.clone())));
        }
        let preempted = std::mem::take(&mut self.preempted);
        for one in preempted.into_iter().chain(std::mem::take(&mut self.running)) {
            self.fail(one, failure.clone());
        }
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.preempted.is_empty() && self.waiting.is_empty()
    }

    /// Whether none of the running ones can go on before its mask is given back.
    pub fn is_stalled(&self) -> bool {
        !self.running.is_empty() && self.running.iter().all(|one| one.stalled.is_some())
    }

    /// Why no step can be made any more, if that is so: the model has to be loaded again.
    pub const fn broken(&self) -> Option<&Failure> {
        self.broken.as_ref()
    }

    /// What happened since it was last asked, with the requests' numbers.
    pub fn events(&mut self) -> Vec<(u64, EngineEvent)> {
        std::mem::take(&mut self.events)
    }

    /// Numbers of this moment, without times; of the queue it knows what was submitted here.
    pub fn stats(&self) -> EngineStats {
        let kv = self.model.kv();
        let pages = |of: fn(&UnitPool) -> usize| of(kv.pool(ALL)) + of(kv.pool(WINDOW));
        let (total, cached) = (pages(UnitPool::total), pages(UnitPool::idle));
        EngineStats {
            running: self.running.len(),
            pages_total: total,
            pages_cached: cached,
            pages_used: total - cached - pages(UnitPool::free),
            ..self.stats
        }
    }

    /// Brings a constraint home that [`Machine::lend`] gave away. Its request may have ended.
    pub fn give_back(
        &mut self,
        id: u64,
        constraint: Box<dyn Constraint>,
        mask: Result<Vec<u32>, ConstraintError>,
    ) {
        if let Some(one) = self.running.iter_mut().chain(&mut self.preempted).find(|one| one.id == id) {
            one.slot.give_back(constraint, mask);
        }
    }

    /// Lets cancelled requests go, those go on whose masks have come, and others begin while there are places and
    /// pages. Not while a pass is being made.
    pub fn admit(&mut self, now: Duration) {
        if self.pass.is_some() || self.probe.is_some() {
            return;
        }
        self.drop_cancelled(now);
        self.resume(now);
        while self.running.len() < self.options.max_sequences {
            let available = self.model.kv().available();
            let fits = |needed| admits(self.running.len(), needed, available);
            if let Some(one) = self.preempted.front() {
                let (known, prompt_len) = (one.slot.cacheable(), one.slot.prompt_len());
                if !fits(self.model.needed(known, prompt_len, one.slot.tokens().len())) {
                    return;
                }
                let Some(mut one) = self.preempted.pop_front() else { return };
                one.sequence = self.model.begin(one.slot.cacheable(), prompt_len);
                let place = self.running.partition_point(|other| other.order < one.order);
                self.running.insert(place, one);
                continue;
            }
            let Some(Waiting { request, .. }) = self.waiting.peek() else { return };
            let prompt = &request.prompt;
            if !fits(self.model.needed(&prompt[..prompt.len() - 1], prompt.len(), prompt.len())) {
                return;
            }
            let Some(waiting) = self.waiting.pop() else { return };
            self.start(waiting, now);
        }
    }

    fn drop_cancelled(&mut self, now: Duration) {
        let cancelled = std::mem::take(&mut self.cancelled);
        if cancelled.is_empty() {
            return;
        }
        for waiting in self.waiting.take_if(|waiting| cancelled.contains(&waiting.id)) {
            self.stats.cancelled += 1;
            self.events.push((waiting.id, waiting.cancelled(now)));
        }
        let goes = |one: &Running| cancelled.contains(&one.id);
        let (gone, stay): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.preempted).into_iter().partition(goes);
        self.preempted = stay;
        let (gone_too, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(goes);
        self.running = stay;
        for one in gone.into_iter().chain(gone_too) {
            self.finish(one, FinishReason::Cancelled, now);
        }
    }

    fn start(&mut self, waiting: Waiting, now: Duration) {
        let Waiting { id, request, submitted } = waiting;
        let Limits { context, vocab_size, .. } = self.limits;
        let (speculate, pooling) = (self.options.speculate, self.model.embedding.pooling);
        let slot = match Slot::new(request, &self.tokenizer, vocab_size, context, speculate, pooling) {
            Ok(slot) => slot,
            Err(error) => {
                self.stats.failed += 1;
                self.events.push((id, EngineEvent::Failed(SlotError::from(error).into())));
                return;
            }
        };
        let sequence = self.model.begin(slot.cacheable(), slot.prompt_len());
        let cached_tokens = sequence.tokens.len();
        self.admitted += 1;
        self.stats.prompt_tokens += slot.prompt_len() as u64;
        self.stats.cached_tokens += cached_tokens as u64;
        let queued = now.saturating_sub(submitted);
        self.events.push((id, EngineEvent::Started { cached_tokens, queued }));
        self.running.push(Running {
            id,
            order: self.admitted,
            slot,
            sequence,
            offered: false,
            prefills: false,
            cached_tokens,
            stalled: None,
            submitted,
            started: now,
            first: None,
        });
    }

    /// Lets those go on whose masks have come.
    fn resume(&mut self, now: Duration) {
        let resumed = |one: &mut Running| {
            let (output, n) = one.stalled.take_if(|_| !one.slot.is_away())?;
            Some(one.take(Rows::new(&output, n, 0)))
        };
        let outcomes: Vec<Option<Outcome>> = self.running.iter_mut().map(resumed).collect();
        if outcomes.iter().any(Option::is_some) {
            self.settle(outcomes, now);
        }
    }

    /// Tells what happened, keeps what others may use, and lets go who has ended.
    fn settle(&mut self, outcomes: Vec<Option<Outcome>>, now: Duration) {
        let mut stay = Vec::with_capacity(self.running.len());
        for (mut one, outcome) in std::mem::take(&mut self.running).into_iter().zip(outcomes) {
            let Some((events, taken)) = outcome else {
                stay.push(one);
                continue;
            };
            if let (Ok(taken), true) = (&taken, one.prefills && one.first.is_none()) {
                let total = one.slot.prompt_len();
                let done = taken.kept.min(total);
                self.events.push((one.id, EngineEvent::Prefill { done, total }));
            }
            for event in events {
                self.stats.generated_tokens += u64::from(matches!(event, SlotEvent::Token { .. }));
                self.events.push((one.id, one.event(event, now)));
            }
            let taken = match taken {
                Ok(taken) => taken,
                Err(failure) => {
                    self.fail(one, failure);
                    continue;
                }
            };
            self.model.truncate(&mut one.sequence, taken.kept);
            match taken.finished {
                Some(reason) => self.finish(one, reason, now),
                None => {
                    let prompt_done = taken.kept >= one.slot.prompt_len() && !one.offered;
                    one.offered |= prompt_done;
                    self.model.remember(&mut one.sequence, prompt_done);
                    stay.push(one);
                }
            }
        }
        self.running = stay;
    }

    /// Lets a sequence go that ended well.
    fn finish(&mut self, mut one: Running, reason: FinishReason, now: Duration) {
        self.model.offer(&mut one.sequence);
        self.model.release(std::mem::take(&mut one.sequence));
        match reason {
            FinishReason::Cancelled => self.stats.cancelled += 1,
            _ => self.stats.finished += 1,
        }
        let (drafted, accepted) = one.slot.drafts();
        self.stats.drafted_tokens += drafted as u64;
        self.stats.accepted_tokens += accepted as u64;
        self.events.push((one.id, one.done(reason, now)));
    }

    fn fail(&mut self, mut one: Running, failure: Failure) {
        self.model.release(std::mem::take(&mut one.sequence));
        self.stats.failed += 1;
        if failure.kind() == FailureKind::Files {
            self.broken = Some(failure.clone());
        }
        self.events.push((one.id, EngineEvent::Failed(failure)));
    }
}
