//! The machine without a thread: its driver's clock, steps that are begun and polled, requests that come and go while
//! one is made.

use crate::common::*;
use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::Duration;
use tessera_engine::engine::{Engine, EngineEvent, EngineOptions, EngineRequest, FinishReason};
use tessera_engine::failure::Failure;
use tessera_engine::machine::Machine;

fn machine(sequences: usize) -> Machine {
    let options = EngineOptions { max_sequences: sequences, ..EngineOptions::default() };
    Machine::new(model(&cpu(1), 256, sequences), tokenizer(), options).unwrap()
}

/// Answers by the request's number.
#[derive(Default)]
struct Answers(HashMap<u64, Answer>);

impl Answers {
    fn take(&mut self, machine: &mut Machine) {
        for (id, event) in machine.events() {
            self.0.entry(id).or_default().take(event);
        }
    }
}

/// One turn as a browser makes it.
fn turn(machine: &mut Machine, now: Duration, meanwhile: &mut dyn FnMut(&mut Machine)) {
    machine.admit(now);
    assert!(machine.plan());
    machine.begin();
    meanwhile(machine);
    while machine.poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    machine.take(now);
}

#[test]
fn steps_that_are_begun_and_polled_give_what_the_engine_gives() {
    let requests = || {
        let embed = EngineRequest { embed: true, ..greedy(tokens(3, 40), 1) };
        [greedy(tokens(1, 100), 12), greedy(tokens(2, 30), 20), embed]
    };
    let (mut machine, mut answers) = (machine(3), Answers::default());
    for (id, request) in requests().into_iter().enumerate() {
        machine.submit(id as u64, request, Duration::ZERO);
    }
    while !machine.is_idle() {
        turn(&mut machine, Duration::ZERO, &mut |_| ());
        answers.take(&mut machine);
    }
    let engine = Engine::start(model(&cpu(1), 256, 3), tokenizer(), EngineOptions::default()).unwrap();
    for (id, request) in requests().into_iter().enumerate() {
        assert_eq!(answers.0[&(id as u64)].essence(), answer(&engine, request).essence());
    }
    let stats = machine.stats();
    assert_eq!((stats.finished, stats.running, stats.pages_used), (3, 0, 0));
}

#[test]
fn whoever_comes_or_goes_while_a_step_is_made_does_so_after_it() {
    let (mut machine, mut answers) = (machine(2), Answers::default());
    machine.submit(1, greedy(tokens(1, 20), 50), Duration::ZERO);
    machine.submit(2, greedy(tokens(2, 20), 50), Duration::ZERO);
    turn(&mut machine, Duration::ZERO, &mut |machine| {
        machine.cancel(1);
        machine.cancel(7);
        machine.submit(3, greedy(tokens(3, 20), 2), Duration::ZERO);
        // Nothing is touched.
        machine.admit(Duration::ZERO);
        assert!(machine.plan());
        assert_eq!(machine.stats().running, 2);
    });
    while !machine.is_idle() {
        turn(&mut machine, Duration::ZERO, &mut |_| ());
        answers.take(&mut machine);
    }
    let reasons = [1, 2, 3].map(|id| answers.0[&id].reason());
    assert_eq!(reasons, [FinishReason::Cancelled, FinishReason::Length, FinishReason::Length]);
    assert_eq!([1, 2, 3].map(|id| answers.0[&id].tokens.len()), [1, 50, 2]);
}

#[test]
fn times_are_those_of_the_driver() {
    let (mut machine, mut answers) = (machine(1), Answers::default());
    let at = Duration::from_secs;
    machine.submit(5, greedy(tokens(1, 20), 3), at(100));
    for now in [103, 110, 200] {
        turn(&mut machine, at(now), &mut |_| ());
        answers.take(&mut machine);
    }
    let (.., timing) = answers.0[&5].done.unwrap();
    assert_eq!((timing.queued, timing.prefill, timing.decode), (at(3), at(0), at(97)));
}

#[test]
fn all_that_is_left_can_be_failed() {
    let mut machine = machine(1);
    machine.submit(1, greedy(tokens(1, 20), 50), Duration::ZERO);
    machine.submit(2, greedy(tokens(2, 20), 50), Duration::ZERO);
    turn(&mut machine, Duration::ZERO, &mut |_| ());
    machine.events();
    machine.fail_all(&Failure::Shutdown);
    let failed = |id| (id, EngineEvent::Failed(Failure::Shutdown));
    assert_eq!(machine.events(), [failed(2), failed(1)]);
    assert!(machine.is_idle() && !machine.plan());
    let kv = machine.model().kv();
    assert_eq!(kv.available(), kv.total());
}
