//! Masks are computed by threads of their own, parked while there are none. A step never waits for them: a
//! sequence whose mask is not there sits the next steps out.

use super::lock;
use crate::constraint::{Constraint, ConstraintError};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use tessera_compute::threads;

/// Most threads: one slow mask shall not hold up others.
const MOST_THREADS: usize = 4;

/// A constraint, and its mask.
pub(super) struct Done {
    /// The request that it belongs to.
    pub id: u64,
    pub constraint: Box<dyn Constraint>,
    pub mask: Result<Vec<u32>, ConstraintError>,
}

#[derive(Default)]
struct State {
    asked: VecDeque<(u64, Box<dyn Constraint>)>,
    done: Vec<Done>,
    threads: usize,
    parked: usize,
    closed: bool,
}

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    /// Something is asked for.
    asked: Condvar,
    /// Something is done.
    done: Condvar,
}

/// The threads. They end when this is dropped, after the masks that they are at.
pub(super) struct Masks {
    desk: Arc<Desk>,
    /// Called whenever a mask is there.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Masks {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Masks {
        Masks { desk: Arc::default(), wake: Arc::new(wake) }
    }

    /// Asks for the mask of a constraint.
    pub fn ask(&self, id: u64, constraint: Box<dyn Constraint>) {
        let mut state = lock(&self.desk.state);
        state.asked.push_back((id, constraint));
        if state.parked < state.asked.len() && state.threads < MOST_THREADS && self.spawn() {
            state.threads += 1;
        }
        if state.threads == 0 {
            // No thread is to be had: the step does the work.
            if let Some((id, constraint)) = state.asked.pop_back() {
                state.done.push(made(id, constraint));
            }
        }
        self.desk.asked.notify_one();
    }

    fn spawn(&self) -> bool {
        let (desk, wake) = (self.desk.clone(), self.wake.clone());
        threads::spawn("tessera-masks".to_owned(), move || work(&desk, &*wake)).is_ok()
    }

    /// Whether a mask has come that was not collected.
    pub fn any_done(&self) -> bool {
        !lock(&self.desk.state).done.is_empty()
    }

    /// What is done; waits until `n` are, or until then.
    pub fn collect(&self, n: usize, until: Instant) -> Vec<Done> {
        let mut state = lock(&self.desk.state);
        while state.done.len() < n {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.desk.done.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        std::mem::take(&mut state.done)
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        lock(&self.desk.state).closed = true;
        self.desk.asked.notify_all();
    }
}

fn work(desk: &Desk, wake: &dyn Fn()) {
    let mut state = lock(&desk.state);
    loop {
        if state.closed {
            return;
        }
        let Some((id, constraint)) = state.asked.pop_front() else {
            state.parked += 1;
            state = desk.asked.wait(state).unwrap_or_else(|e| e.into_inner());
            state.parked -= 1;
            continue;
        };
        drop(state);
        let done = made(id, constraint);
        state = lock(&desk.state);
        state.done.push(done);
        desk.done.notify_all();
        drop(state);
        wake();
        state = lock(&desk.state);
    }
}

fn made(id: u64, mut constraint: Box<dyn Constraint>) -> Done {
    let mask = catch_unwind(AssertUnwindSafe(|| constraint.mask().map(<[u32]>::to_vec)));
    let failed = |_| Err(ConstraintError::Failed { what: "it panicked".to_owned() });
    let mask = mask.unwrap_or_else(failed);
    Done { id, constraint, mask }
}
