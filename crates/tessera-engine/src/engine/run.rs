//! The engine's thread: admit, plan, step, emit.

use super::masks::{Done, Masks};
use super::running::Running;
use super::{Shared, Submission, lock};
use crate::model::{Feed, Model, Pick, StepError};
use crate::request::{EngineStats, FailureKind, FinishReason};
use crate::scheduler::{FairQueue, Ready, admits, draft_room, plan};
use crate::slot::{Rows, Slot, SlotError, SlotEvent, Taken};
use crate::tokenizer::Tokenizer;
use crate::units::{ALL, Amounts, UnitPool, WINDOW};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_compute::backend;
use tessera_compute::batch::Want;

/// Serves until the engine is closed.
pub(super) fn run(shared: &Arc<Shared>, mut model: Model, tokenizer: &Arc<Tokenizer>) {
    let _ended = Ended(shared);
    model.keep_prefixes(shared.options.prefix_cache);
    let waker = Arc::downgrade(shared);
    let masks = Masks::new(move || {
        if let Some(shared) = waker.upgrade() {
            // Taken so that the thread cannot miss it between its look and its sleep.
            let _inbox = shared.inbox();
            shared.wake.notify_one();
        }
    });
    let mut worker = Worker {
        shared,
        masks,
        tokenizer,
        model,
        waiting: FairQueue::default(),
        preempted: VecDeque::new(),
        running: Vec::new(),
        admitted: 0,
        stats: EngineStats::default(),
        broken: None,
    };
    worker.publish();
    while worker.receive() {
        worker.drop_cancelled();
        worker.admit();
        worker.resume();
        worker.step();
        worker.publish();
        if let Some(failure) = worker.broken.take() {
            worker.end(&failure);
            return;
        }
    }
}

/// However the thread ends, nobody waits for it: what is still in the inbox goes, and with it the sinks.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox();
        inbox.ended = true;
        let submitted = std::mem::take(&mut inbox.submitted);
        drop(inbox);
        drop(submitted);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    tokenizer: &'a Arc<Tokenizer>,
    masks: Masks,
    model: Model,
    waiting: FairQueue<Submission>,
    /// Oldest first; they come before all that wait.
    preempted: VecDeque<Running>,
    /// In order of admission.
    running: Vec<Running>,
    admitted: u64,
    stats: EngineStats,
    /// Why no step can be made any more.
    broken: Option<Failure>,
}

/// How long the thread sleeps at most while all sequences wait for masks.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How long masks are waited for after a step: at least this, or this part of the step's time.
const GRACE: Duration = Duration::from_millis(1);
const GRACE_PART: u32 = 8;

/// What a sequence is fed in a step.
struct Fed {
    tokens: Vec<u32>,
    pick: Pick,
    drafts: usize,
}

/// What a step did for one sequence.
type Outcome = (Vec<SlotEvent>, Result<Taken, Failure>);

#[derive(Clone)]
struct Failure {
    error: String,
    kind: FailureKind,
}

impl Worker<'_> {
    /// Takes what was submitted; sleeps while there is nothing to do. False when the engine has ended.
    fn receive(&mut self) -> bool {
        let idle = self.running.is_empty() && self.preempted.is_empty() && self.waiting.is_empty();
        let mut inbox = self.shared.inbox();
        while idle && inbox.submitted.is_empty() && inbox.closes.is_none() {
            inbox = self.shared.wake.wait(inbox).unwrap_or_else(|e| e.into_inner());
        }
        // Nobody can go on before a mask is there.
        let stalled =
            !idle && !self.running.is_empty() && self.running.iter().all(|one| one.stalled.is_some());
        if stalled && inbox.submitted.is_empty() && inbox.closes.is_none() && !self.masks.any_done() {
            let waited = self.shared.wake.wait_timeout(inbox, LONGEST_WAIT);
            inbox = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
        for submission in inbox.submitted.drain(..) {
            self.waiting.push(submission.request.flow, submission);
        }
        let over = inbox.closes.is_some_and(|at| at <= Instant::now());
        let last = inbox.closes.is_some() && idle && self.waiting.is_empty();
        if over || last {
            drop(inbox);
            let error = "the engine is shut down".to_owned();
            self.end(&Failure { error, kind: FailureKind::Shutdown });
            return false;
        }
        true
    }

    /// Takes nothing more and fails everything that is left.
    fn end(&mut self, failure: &Failure) {
        let mut inbox = self.shared.inbox();
        inbox.ended = true;
        for submission in inbox.submitted.drain(..) {
            self.waiting.push(submission.request.flow, submission);
        }
        drop(inbox);
        for mut submission in self.waiting.take_if(|_| true) {
            self.leave();
            self.stats.failed += 1;
            self.count();
            submission.outlet.fail(failure.error.clone(), failure.kind);
        }
        let preempted = std::mem::take(&mut self.preempted);
        for one in preempted.into_iter().chain(std::mem::take(&mut self.running)) {
            self.fail(one, failure.clone());
        }
        self.publish();
    }

    fn drop_cancelled(&mut self) {
        for submission in self.waiting.take_if(|s| s.outlet.is_cancelled()) {
            self.leave();
            self.stats.cancelled += 1;
            self.count();
            submission.cancel();
        }
        let (gone, stay): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.preempted).into_iter().partition(Running::is_cancelled);
        self.preempted = stay;
        let (gone_too, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(Running::is_cancelled);
        self.running = stay;
        for one in gone.into_iter().chain(gone_too) {
            self.finish(one, FinishReason::Cancelled);
        }
    }

    /// Lets sequences begin while there are places and pages.
    fn admit(&mut self) {
        while self.running.len() < self.shared.options.max_sequences {
            let kv = self.model.kv();
            let fits = |needed| admits(self.running.len(), needed, kv.available());
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
            let Some(next) = self.waiting.peek() else { return };
            let prompt = &next.request.prompt;
            if !fits(self.model.needed(&prompt[..prompt.len() - 1], prompt.len(), prompt.len())) {
                return;
            }
            let Some(submission) = self.waiting.pop() else { return };
            self.start(submission);
        }
    }

    fn start(&mut self, submission: Submission) {
        let Submission { request, mut outlet, at } = submission;
        let speculate = self.shared.options.speculate;
        let (context, vocab) = (self.shared.context, self.shared.vocab_size);
        let pooling = self.model.embedding.pooling;
        let slot = match Slot::new(request, self.tokenizer, vocab, context, speculate, pooling) {
            Ok(slot) => slot,
            Err(error) => {
                let Failure { error, kind } = SlotError::from(error).into();
                self.leave();
                self.stats.failed += 1;
                self.count();
                return outlet.fail(error, kind);
            }
        };
        let sequence = self.model.begin(slot.cacheable(), slot.prompt_len());
        self.admitted += 1;
        self.stats.prompt_tokens += slot.prompt_len() as u64;
        self.stats.cached_tokens += sequence.tokens.len() as u64;
        self.running.push(Running::start(self.admitted, slot, sequence, outlet, at));
    }

    /// Lets a sequence go that ended well.
    fn finish(&mut self, mut one: Running, reason: FinishReason) {
        self.model.offer(&mut one.sequence);
        self.model.release(std::mem::take(&mut one.sequence));
        self.leave();
        match reason {
            FinishReason::Cancelled => self.stats.cancelled += 1,
            _ => self.stats.finished += 1,
        }
        let (drafted, accepted) = one.slot.drafts();
        self.stats.drafted_tokens += drafted as u64;
        self.stats.accepted_tokens += accepted as u64;
        self.count();
        one.done(reason);
    }

    fn fail(&mut self, mut one: Running, failure: Failure) {
        self.model.release(std::mem::take(&mut one.sequence));
        self.leave();
        self.stats.failed += 1;
        self.count();
        one.fail(failure.error, failure.kind);
    }

    /// Makes room in the queue, before the last event says so.
    fn leave(&mut self) {
        self.shared.inbox().live -= 1;
    }

    fn publish(&mut self) {
        self.count();
        self.shared.inbox().running = self.running.len();
    }

    /// Publishes all numbers but that of the running ones: before a request's last event, so that whoever has
    /// it finds it counted.
    fn count(&mut self) {
        let kv = self.model.kv();
        let pages = |of: fn(&UnitPool) -> usize| of(kv.pool(ALL)) + of(kv.pool(WINDOW));
        self.stats.pages_total = pages(UnitPool::total);
        self.stats.pages_cached = pages(UnitPool::idle);
        self.stats.pages_used = self.stats.pages_total - self.stats.pages_cached - pages(UnitPool::free);
        *lock(&self.shared.stats) = self.stats;
    }

    /// One step of the model for those that generate, one for those that are embedded.
    fn step(&mut self) {
        let Some(shares) = self.plan() else { return };
        let generates: Vec<usize> = (0..shares.len()).filter(|i| shares[*i] > 0).collect();
        let (embeds, generates) =
            generates.into_iter().partition(|i| self.running[*i].slot.want() == Want::Hidden);
        let room = draft_room(&self.ready(), &shares);
        for (one, share) in self.running.iter_mut().zip(&shares).filter(|(_, share)| **share > 0) {
            // Only one that is alone can find too little, which its step says.
            let positions = one.sequence.tokens.len() + share;
            let _ = self.model.reserve(&mut one.sequence, positions);
        }
        let mut outcomes: Vec<Option<Outcome>> = self.running.iter().map(|_| None).collect();
        for members in [generates, embeds] {
            let members: Vec<usize> = members;
            if !members.is_empty() {
                self.forward(&members, &shares, room, &mut outcomes);
            }
        }
        self.emit(outcomes);
    }

    fn ready(&self) -> Vec<Ready> {
        let one = |one: &Running| {
            if one.stalled.is_some() {
                return Ready { pending: 0, prefill: false, whole: false };
            }
            let held = one.sequence.tokens.len();
            let pending = one.slot.limit(held, one.slot.pending(held));
            let pending = self.model.span_limit(&one.sequence, one.slot.prompt_len(), pending);
            Ready { pending, prefill: one.slot.is_prefill(held), whole: self.model.is_encoder() }
        };
        self.running.iter().map(one).collect()
    }

    /// How many tokens each running sequence feeds. The youngest ones give their pages back when there are
    /// too few for all.
    fn plan(&mut self) -> Option<Vec<usize>> {
        loop {
            let shares = plan(&self.ready(), self.shared.options.max_batch_tokens);
            let kv = self.model.kv();
            let missing = |(one, share): (&Running, &usize)| {
                kv.missing(&one.sequence, one.sequence.tokens.len() + share)
            };
            let needed: Amounts = self.running.iter().zip(&shares).map(missing).sum();
            if needed.fit_in(kv.available()) || self.running.len() == 1 {
                return (!self.running.is_empty()).then_some(shares);
            }
            let mut youngest = self.running.pop()?;
            self.stats.preemptions += 1;
            // Its rows are computed again with its pages.
            youngest.stalled = None;
            self.model.offer(&mut youngest.sequence);
            self.model.release(std::mem::take(&mut youngest.sequence));
            let place = self.preempted.partition_point(|other| other.order < youngest.order);
            self.preempted.insert(place, youngest);
        }
    }

    fn forward(
        &mut self,
        members: &[usize],
        shares: &[usize],
        room: usize,
        outcomes: &mut [Option<Outcome>],
    ) {
        let Worker { model, running, preempted, masks, stats, broken, .. } = self;
        let orders: Vec<u64> = running.iter().map(|one| one.order).collect();
        let mut asked = 0;
        let mut fed = Vec::with_capacity(members.len());
        let mut want = Want::Greedy;
        let mut free = model.kv().available();
        for i in members {
            let Running { slot, sequence, .. } = &mut running[*i];
            let (held, n) = (sequence.tokens.len(), shares[*i]);
            // A draft takes what is free: what the others need of this step they have.
            let drafts = if n == slot.pending(held) && !slot.is_prefill(held) {
                slot.draft(model.draft_limit(sequence, slot.prompt_len(), (n, room), free))
            } else {
                Vec::new()
            };
            if !drafts.is_empty() {
                let needed = model.kv().missing(sequence, held + n + drafts.len());
                free = free.less(needed + model.kv().saved());
            }
            let (tokens, pick) = slot.feed(held, n, &drafts);
            fed.push(Fed { tokens, pick, drafts: drafts.len() });
            if slot.want() != Want::Greedy {
                want = slot.want();
            }
        }
        let (mut slots, mut feeds) = (Vec::new(), Vec::new());
        let mut next = fed.iter();
        for (i, one) in running.iter_mut().enumerate() {
            if members.contains(&i)
                && let Some(Fed { tokens, pick, drafts }) = next.next()
            {
                let held = one.sequence.tokens.len();
                let prompt_len = if held < one.slot.prompt_len() { one.slot.prompt_len() } else { 0 };
                let (sequence, call) = (&mut one.sequence, 0..prompt_len);
                feeds.push(Feed { sequence, tokens, call, drafts: *drafts, pick: *pick });
                slots.push(&mut one.slot);
            }
        }
        for (i, slot) in members.iter().zip(&mut slots) {
            if let Some(constraint) = slot.lend() {
                asked += 1;
                masks.ask(orders[*i], constraint);
            }
        }
        drop(slots);
        let begun = Instant::now();
        let step = AssertUnwindSafe(move || {
            let model = model;
            model.forward(&mut feeds, want)
        });
        let output = match catch_unwind(step) {
            Ok(output) => output.map_err(Failure::from),
            Err(panic) => Err(Failure::internal(format!("the model's step failed: {}", message(&*panic)))),
        };
        let took = begun.elapsed();
        stats.steps += 1;
        stats.fed_tokens += fed.iter().map(|fed| fed.tokens.len() as u64).sum::<u64>();
        stats.busy_seconds += took.as_secs_f64();
        if asked > 0 {
            let until = Instant::now() + GRACE.max(took / GRACE_PART);
            masks.collect(asked, until).into_iter().for_each(|done| give_back(running, preempted, done));
        }
        let rows = |fed: &Fed| fed.pick.rows(0..fed.tokens.len()).len();
        let picked: usize = fed.iter().map(rows).sum();
        if let Err(failure) = &output
            && failure.kind == FailureKind::Files
        {
            *broken = Some(failure.clone());
        }
        let mut first = 0;
        for (i, fed) in members.iter().zip(&fed) {
            let (one, n) = (&mut running[*i], rows(fed));
            match &output {
                Ok(output) => {
                    let part = Rows::new(output, picked, first);
                    match one.slot.is_away() {
                        true => one.stalled = Some((part.kept(n), n)),
                        false => outcomes[*i] = Some(taken(&mut one.slot, part)),
                    }
                }
                Err(failure) => outcomes[*i] = Some((Vec::new(), Err(failure.clone()))),
            }
            first += n;
        }
    }

    /// Lets those go on whose masks have come.
    fn resume(&mut self) {
        let done = self.masks.collect(0, Instant::now());
        done.into_iter().for_each(|done| give_back(&mut self.running, &mut self.preempted, done));
        if self.running.iter().all(|one| one.stalled.is_none() || one.slot.is_away()) {
            return;
        }
        let resumed = |one: &mut Running| {
            let (output, n) = one.stalled.take_if(|_| !one.slot.is_away())?;
            Some(taken(&mut one.slot, Rows::new(&output, n, 0)))
        };
        let outcomes = self.running.iter_mut().map(resumed).collect();
        self.emit(outcomes);
    }

    /// Hands events out, keeps what others may use, and lets go who has ended.
    fn emit(&mut self, outcomes: Vec<Option<Outcome>>) {
        let mut stay = Vec::with_capacity(self.running.len());
        for (mut one, outcome) in std::mem::take(&mut self.running).into_iter().zip(outcomes) {
            let Some((events, taken)) = outcome else {
                stay.push(one);
                continue;
            };
            let shown = events.iter().filter(|e| matches!(e, SlotEvent::Token { .. })).count();
            self.stats.generated_tokens += shown as u64;
            events.into_iter().for_each(|event| one.emit(event));
            let taken = match taken {
                Ok(taken) => taken,
                Err(failure) => {
                    self.fail(one, failure);
                    continue;
                }
            };
            self.model.truncate(&mut one.sequence, taken.kept);
            match taken.finished {
                Some(reason) => self.finish(one, reason),
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
}

impl Failure {
    fn internal(error: String) -> Failure {
        Failure { error, kind: FailureKind::Internal }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Failure {
        let kind = match &error {
            // The model has to be loaded again.
            StepError::Changed(_) | StepError::Device(backend::StepError::Lost(_)) => FailureKind::Files,
            StepError::Units(_) => FailureKind::Pages,
            StepError::Context { .. } | StepError::Device(_) => FailureKind::Internal,
        };
        Failure { error: error.to_string(), kind }
    }
}

impl From<SlotError> for Failure {
    fn from(error: SlotError) -> Failure {
        use crate::sampler::SampleError;
        let kind = match &error {
            SlotError::Broken { .. } | SlotError::Sample(SampleError::NotANumber { .. }) => {
                FailureKind::Model
            }
            SlotError::Sample(SampleError::NoToken { .. }) => FailureKind::NoToken,
            SlotError::Sample(_) => FailureKind::Internal,
            SlotError::Constraint(_) | SlotError::ForcedToken { .. } => FailureKind::Constraint,
        };
        Failure { error: error.to_string(), kind }
    }
}

/// Brings a constraint home. Its sequence may have ended.
fn give_back(running: &mut [Running], preempted: &mut VecDeque<Running>, done: Done) {
    if let Some(one) = running.iter_mut().chain(preempted).find(|one| one.order == done.order) {
        one.slot.give_back(done.constraint, done.mask);
    }
}

/// What a step did for a sequence.
fn taken(slot: &mut Slot, rows: Rows<'_>) -> Outcome {
    let mut events = Vec::new();
    let taken = catch_unwind(AssertUnwindSafe(|| slot.take(rows, &mut events)))
        .map_err(|panic| Failure::internal(format!("it failed: {}", message(&*panic))))
        .and_then(|taken| taken.map_err(Failure::from));
    (events, taken)
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
