//! The engine's thread: brings requests to the machine, drives it, and brings its events out.

use super::masks::{Done, Masks};
use super::outlet::Outlet;
use super::{Shared, Submission, lock};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::request::EngineStats;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves until the engine is closed.
pub(super) fn run(shared: &Arc<Shared>, machine: Machine) {
    let _ended = Ended(shared);
    let waker = Arc::downgrade(shared);
    let masks = Masks::new(move || {
        if let Some(shared) = waker.upgrade() {
            // Taken so that the thread cannot miss it between its look and its sleep.
            let _inbox = shared.inbox();
            shared.wake.notify_one();
        }
    });
    let mut worker = Worker { shared, machine, masks, outlets: HashMap::new(), busy: Duration::ZERO };
    worker.deliver();
    while worker.receive() {
        worker.turn();
        if let Some(failure) = worker.machine.broken().cloned() {
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
    machine: Machine,
    masks: Masks,
    /// Of the requests that have not ended, by number.
    outlets: HashMap<u64, Outlet>,
    /// In steps.
    busy: Duration,
}

/// How long the thread sleeps at most while all sequences wait for masks.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How long masks are waited for after a step: at least this, or this part of the step's time.
const GRACE: Duration = Duration::from_millis(1);
const GRACE_PART: u32 = 8;

impl Worker<'_> {
    /// Takes what was submitted; sleeps while there is nothing to do. False when the engine has ended.
    fn receive(&mut self) -> bool {
        let idle = self.machine.is_idle();
        let mut inbox = self.shared.inbox();
        while idle && inbox.submitted.is_empty() && inbox.closes.is_none() {
            inbox = self.shared.wake.wait(inbox).unwrap_or_else(|e| e.into_inner());
        }
        // Nobody can go on before a mask is there.
        let stalled = self.machine.is_stalled() && !self.masks.any_done();
        if stalled && inbox.submitted.is_empty() && inbox.closes.is_none() {
            let waited = self.shared.wake.wait_timeout(inbox, LONGEST_WAIT);
            inbox = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
        for Submission { id, request, outlet, at } in inbox.submitted.drain(..) {
            self.outlets.insert(id, outlet);
            self.machine.submit(id, request, at);
        }
        let over = inbox.closes.is_some_and(|at| at <= Instant::now());
        let last = inbox.closes.is_some() && self.machine.is_idle();
        drop(inbox);
        if over || last {
            self.end(&Failure::Shutdown);
            return false;
        }
        true
    }

    /// Takes nothing more and fails everything that is left.
    fn end(&mut self, failure: &Failure) {
        let mut inbox = self.shared.inbox();
        inbox.ended = true;
        for Submission { id, request, outlet, at } in inbox.submitted.drain(..) {
            self.outlets.insert(id, outlet);
            self.machine.submit(id, request, at);
        }
        drop(inbox);
        self.machine.fail_all(failure);
        self.deliver();
    }

    /// One pass of the model, if there is something to feed.
    fn turn(&mut self) {
        let gone = self.outlets.iter().filter(|(_, outlet)| outlet.is_cancelled());
        gone.for_each(|(id, _)| self.machine.cancel(*id));
        self.take_masks(0, Instant::now());
        self.machine.admit(self.now());
        self.deliver();
        if !self.machine.plan() {
            return;
        }
        let asked = self.machine.lend();
        let n = asked.len();
        asked.into_iter().for_each(|(id, constraint)| self.masks.ask(id, constraint));
        let begun = Instant::now();
        self.machine.step();
        let took = begun.elapsed();
        self.busy += took;
        if n > 0 {
            self.take_masks(n, Instant::now() + GRACE.max(took / GRACE_PART));
        }
        self.machine.take(self.now());
        self.deliver();
    }

    fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Gives masks that are there to the machine; waits until `n` are, or until then.
    fn take_masks(&mut self, n: usize, until: Instant) {
        for Done { id, constraint, mask } in self.masks.collect(n, until) {
            self.machine.give_back(id, constraint, mask);
        }
    }

    /// Hands events out. Numbers are published before, so that whoever has a request's last event finds it counted and
    /// its place in the queue free.
    fn deliver(&mut self) {
        let events = self.machine.events();
        let stats = EngineStats { busy_seconds: self.busy.as_secs_f64(), ..self.machine.stats() };
        *lock(&self.shared.stats) = stats;
        let mut inbox = self.shared.inbox();
        inbox.live -= events.iter().filter(|(_, event)| event.is_last()).count();
        inbox.running = stats.running;
        drop(inbox);
        for (id, event) in events {
            let last = event.is_last();
            if let Some(outlet) = self.outlets.get_mut(&id) {
                outlet.emit(event);
            }
            if last {
                self.outlets.remove(&id);
            }
        }
    }
}
