//! One pass of the model: which tokens of which requests, and what became of them.

use super::Machine;
use super::running::{Outcome, Running};
use crate::constraint::Constraint;
use crate::failure::Failure;
use crate::kv::Sequence;
use crate::model::{Feed, Pick, StepError};
use crate::scheduler::{Ready, draft_room, plan};
use crate::slot::Rows;
use crate::units::Amounts;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use std::time::Duration;
use tessera_compute::backend;
use tessera_compute::batch::Want;

/// See the module.
pub(super) struct Pass {
    /// By their place, ascending: nobody comes or goes before the pass is taken.
    members: Vec<Member>,
    want: Want,
    /// Whether it was made.
    made: Option<Result<(), Failure>>,
}

/// What a request is fed.
struct Member {
    /// Its place among the running ones.
    at: usize,
    tokens: Vec<u32>,
    pick: Pick,
    drafts: usize,
}

impl Machine {
    /// Says what is fed next: tokens of all that generate, or texts of those that are embedded; where there are both,
    /// they take turns. False if there is nothing. The youngest requests give their pages back where there are too few
    /// for all.
    pub fn plan(&mut self) -> bool {
        if self.pass.is_some() {
            return true;
        }
        if self.probe.is_some() {
            return false;
        }
        let Some(mut shares) = self.shares() else { return false };
        let embeds = |one: &Running| one.slot.want() == Want::Hidden;
        let fed = || self.running.iter().zip(&shares).filter(|(_, share)| **share > 0);
        let (any, all) = (fed().any(|(one, _)| embeds(one)), fed().all(|(one, _)| embeds(one)));
        self.embedded = all || any && !self.embedded;
        for (one, share) in self.running.iter().zip(&mut shares) {
            *share = if embeds(one) == self.embedded { *share } else { 0 };
        }
        if shares.iter().all(|share| *share == 0) {
            return false;
        }
        let room = draft_room(&self.ready(), &shares);
        for (one, share) in self.running.iter_mut().zip(&shares).filter(|(_, share)| **share > 0) {
            // Only one that is alone can find too little, which its step says.
            let positions = one.sequence.tokens.len() + share;
            let _ = self.model.reserve(&mut one.sequence, positions);
        }
        self.pass = Some(self.pass(&shares, room));
        true
    }

    fn ready(&self) -> Vec<Ready> {
        let one = |one: &Running| {
            if one.stalled.is_some() {
                return Ready { pending: 0, prefill: false, whole: false };
            }
            let held = one.sequence.tokens.len();
            let pending = one.slot.limit(held, one.slot.pending(held));
            let pending = self.model.span_limit(&one.sequence, one.slot.prompt_len(), pending);
            Ready { pending, prefill: one.slot.is_prefill(held), whole: self.limits.encoder }
        };
        self.running.iter().map(one).collect()
    }

    /// How many tokens each running request could be fed.
    fn shares(&mut self) -> Option<Vec<usize>> {
        loop {
            let shares = plan(&self.ready(), self.options.max_batch_tokens);
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

    /// The tokens, and drafts for as many as there is room for: what the others need of this pass they have.
    fn pass(&mut self, shares: &[usize], room: usize) -> Pass {
        let mut members = Vec::new();
        let mut want = Want::Greedy;
        let model = &self.model;
        let mut free = model.kv().available();
        for (at, (one, n)) in self.running.iter_mut().zip(shares).enumerate().filter(|(_, (_, n))| **n > 0) {
            let Running { slot, sequence, .. } = one;
            let (held, n) = (sequence.tokens.len(), *n);
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
            if slot.want() != Want::Greedy {
                want = slot.want();
            }
            one.prefills = held < one.slot.prompt_len();
            members.push(Member { at, tokens, pick, drafts: drafts.len() });
        }
        Pass { members, want, made: None }
    }

    /// The constraints whose masks are needed after the pass that is planned, for whoever computes them beside it and
    /// gives them back; [`Machine::take`] computes those that were not lent. A request whose mask has not come when the
    /// pass is taken sits the next ones out.
    pub fn lend(&mut self) -> Vec<(u64, Box<dyn Constraint>)> {
        let Some(pass) = &self.pass else { return Vec::new() };
        let running = &mut self.running;
        let lent = |member: &Member| {
            let one = &mut running[member.at];
            Some((one.id, one.slot.lend()?))
        };
        pass.members.iter().filter_map(lent).collect()
    }

    /// Makes the pass that is planned; the calling thread waits.
    pub fn step(&mut self) {
        let Machine { model, running, pass: Some(pass), .. } = self else { return };
        let step = AssertUnwindSafe(|| {
            let step = model.plan(&mut feeds(running, &pass.members), pass.want)?;
            model.step(step)
        });
        pass.made = Some(made(catch_unwind(step)));
    }

    /// Begins the pass that is planned, for whoever does not wait for it but asks with [`Machine::poll`].
    pub fn begin(&mut self) {
        let Machine { model, running, pass: Some(pass), .. } = self else { return };
        let step = AssertUnwindSafe(|| {
            let step = model.plan(&mut feeds(running, &pass.members), pass.want)?;
            model.begin_step(step)
        });
        if let Err(failure) = made(catch_unwind(step)) {
            pass.made = Some(Err(failure));
        }
    }

    /// Whether a pass is made whose device was lost: [`Machine::take`] loads the model again, if it has a loader.
    pub fn is_lost(&self) -> bool {
        let made = self.pass.as_ref().and_then(|pass| pass.made.as_ref());
        matches!(made, Some(Err(Failure::Step(StepError::Device(backend::StepError::Lost(_))))))
    }

    /// Whether the pass that was begun is made.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Machine { model, pass: Some(pass), .. } = self else { return Poll::Ready(()) };
        if pass.made.is_none() {
            let polled = catch_unwind(AssertUnwindSafe(|| model.poll(cx)));
            pass.made = Some(match polled {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => result.map_err(Failure::from),
                Err(panic) => Err(Failure::panicked(STEP, &*panic)),
            });
        }
        Poll::Ready(())
    }

    /// Where the device is lost, loads the model again, and lets all that ran begin again with the tokens that they have:
    /// what is wrong, if that is not how it failed or cannot be done.
    fn recover(&mut self, failure: Failure) -> Option<Failure> {
        let Failure::Step(StepError::Device(backend::StepError::Lost(lost))) = &failure else {
            return Some(failure);
        };
        match self.model.reload() {
            Ok(true) => {}
            Ok(false) => return Some(failure),
            Err(error) => {
                let what = format!("{lost}; it could not be loaded again: {error}");
                return Some(StepError::Device(backend::StepError::Lost(what)).into());
            }
        }
        self.stats.reloads += 1;
        for mut one in std::mem::take(&mut self.running) {
            // Pages and rows went with the device.
            (one.sequence, one.stalled, one.offered) = (Sequence::default(), None, false);
            let place = self.preempted.partition_point(|other| other.order < one.order);
            self.preempted.insert(place, one);
        }
        None
    }

    /// Takes what was made. A pass that was not is made first.
    pub fn take(&mut self, now: Duration) {
        if self.pass.as_ref().is_some_and(|pass| pass.made.is_none()) {
            self.step();
        }
        let Some(Pass { members, made: Some(made), .. }) = self.pass.take() else { return };
        let rows = |member: &Member| member.pick.rows(0..member.tokens.len()).len();
        let picked = members.iter().map(rows).sum();
        self.stats.steps += 1;
        self.stats.fed_tokens += members.iter().map(|member| member.tokens.len() as u64).sum::<u64>();
        let Machine { model, running, .. } = self;
        let output = match made {
            Ok(()) => model.commit(&mut feeds(running, &members)).map_err(Failure::from),
            Err(failure) => {
                model.failed(&mut feeds(running, &members));
                match self.recover(failure) {
                    Some(failure) => Err(failure),
                    None => return,
                }
            }
        };
        let running = &mut self.running;
        let mut outcomes: Vec<Option<Outcome>> = running.iter().map(|_| None).collect();
        let mut first = 0;
        for member in &members {
            let (one, n) = (&mut running[member.at], rows(member));
            match &output {
                Ok(output) => {
                    let part = Rows::new(output, picked, first);
                    match one.slot.is_away() {
                        true => one.stalled = Some((part.kept(n), n)),
                        false => outcomes[member.at] = Some(one.take(part)),
                    }
                }
                Err(failure) => outcomes[member.at] = Some((Vec::new(), Err(failure.clone()))),
            }
            first += n;
        }
        self.settle(outcomes, now);
    }
}

/// What fails where a step panics.
const STEP: &str = "the model's step";

fn made(result: std::thread::Result<Result<(), StepError>>) -> Result<(), Failure> {
    match result {
        Ok(result) => result.map_err(Failure::from),
        Err(panic) => Err(Failure::panicked(STEP, &*panic)),
    }
}

/// The members' tokens with their sequences, for the model.
fn feeds<'a>(running: &'a mut [Running], members: &'a [Member]) -> Vec<Feed<'a>> {
    let mut members = members.iter().peekable();
    let mut feeds = Vec::new();
    for (at, one) in running.iter_mut().enumerate() {
        if let Some(Member { tokens, pick, drafts, .. }) = members.next_if(|member| member.at == at) {
            let call = if one.prefills { 0..one.slot.prompt_len() } else { 0..0 };
            let sequence = &mut one.sequence;
            feeds.push(Feed { sequence, tokens, call, drafts: *drafts, pick: *pick });
        }
    }
    feeds
}
