//! The jobs of one request on their way through an engine: which may begin, which run, which have ended.

use crate::reply::Job;
use std::collections::VecDeque;
use tessera_engine::request::{EngineEvent, EngineRequest};

/// Jobs, and a handle of each that runs. Whoever drops them drops the handles.
pub struct Jobs<H> {
    states: Vec<State<H>>,
    pending: VecDeque<(usize, Job)>,
    /// Most that run at once.
    window: usize,
    running: usize,
}

struct State<H> {
    handle: Option<H>,
    has_token: bool,
    ended: bool,
}

impl<H> Jobs<H> {
    /// At most `window` of them run at once, at least one.
    pub fn new(jobs: Vec<Job>, window: usize) -> Jobs<H> {
        let states = jobs.iter().map(|_| State { handle: None, has_token: false, ended: false }).collect();
        Jobs { states, pending: jobs.into_iter().enumerate().collect(), window: window.max(1), running: 0 }
    }

    /// Jobs that run.
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Whether all have ended.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty() && self.running == 0
    }

    /// Handles of those that run.
    pub fn handles(&self) -> impl Iterator<Item = &H> {
        self.states.iter().filter_map(|state| state.handle.as_ref())
    }

    /// Begins jobs while there is room, each by its number, those first that wait for no other.
    ///
    /// # Errors
    /// What `send` says: that job and those behind it are still to begin.
    pub fn submit<E>(&mut self, mut send: impl FnMut(usize, EngineRequest) -> Result<H, E>) -> Result<(), E> {
        let mut next = 0;
        while self.running < self.window
            && let Some((index, job)) = self.pending.get_mut(next)
        {
            if job.after.is_some_and(|i| !self.states[i].has_token && !self.states[i].ended) {
                next += 1;
                continue;
            }
            let index = *index;
            self.states[index].handle = Some(send(index, (job.make)())?);
            self.running += 1;
            self.pending.remove(next);
        }
        Ok(())
    }

    /// Takes note of an event of a job: whether others may begin now.
    pub fn note(&mut self, index: usize, event: &EngineEvent) -> bool {
        let state = &mut self.states[index];
        let makes_room = match event {
            EngineEvent::Token { .. } => !std::mem::replace(&mut state.has_token, true),
            event if event.is_last() => {
                state.ended = true;
                self.running -= usize::from(state.handle.take().is_some());
                true
            }
            _ => false,
        };
        makes_room && !self.pending.is_empty()
    }

    /// Those that have not begun, by their numbers: they do not any more, and have ended.
    pub fn give_up(&mut self) -> Vec<usize> {
        let given_up: Vec<usize> = self.pending.drain(..).map(|(index, _)| index).collect();
        given_up.iter().for_each(|index| self.states[*index].ended = true);
        given_up
    }
}
