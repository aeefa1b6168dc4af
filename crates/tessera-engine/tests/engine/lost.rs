//! A device that is lost in the middle of answers: the model is loaded again, and they go on with the same tokens.

use crate::common::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tessera_compute::backend::{Backend, Executor, LoadError, StepError};
use tessera_compute::batch::{Output, PageKind, Pools};
use tessera_compute::program::Program;
use tessera_compute::step::Step;
use tessera_compute::weights::Weights;
use tessera_engine::engine::{EngineOptions, EngineRequest, FailureKind};
use tessera_engine::machine::Machine;
use tessera_engine::sampler::SamplingParams;

/// Executors of the CPU; each makes `0` more steps and is lost then, those that come later the next number of them.
struct Fragile(Arc<Lives>);

struct Lives {
    /// Steps that each device makes.
    of_each: Vec<usize>,
    devices: AtomicUsize,
}

struct Device {
    inner: Box<dyn Executor>,
    left: usize,
}

impl Fragile {
    fn new(of_each: &[usize]) -> Fragile {
        Fragile(Arc::new(Lives { of_each: of_each.to_vec(), devices: AtomicUsize::new(0) }))
    }
}

impl Backend for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        cpu(1).page_len(program)
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        cpu(1).workspace_len(program, rows)
    }

    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        let i = self.0.devices.fetch_add(1, Ordering::Relaxed);
        let Some(&left) = self.0.of_each.get(i) else {
            return Err(LoadError::Device("there is no other".to_owned()));
        };
        Ok(Box::new(Device { inner: cpu(1).load(program, weights, pools)?, left }))
    }
}

impl Executor for Device {
    fn begin(&mut self, step: Step) -> Result<(), StepError> {
        self.inner.begin(step)
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Poll<Result<(), StepError>> {
        let made = self.inner.poll(cx, out);
        if self.left == 0 {
            return Poll::Ready(Err(StepError::Lost("unplugged".to_owned())));
        }
        self.left -= usize::from(made.is_ready());
        made
    }

    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32) {
        self.inner.copy_page(kind, from, to);
    }

    fn kv_len(&self) -> usize {
        self.inner.kv_len()
    }

    fn describe(&self) -> String {
        "fragile".to_owned()
    }
}

fn requests() -> Vec<EngineRequest> {
    let sampling = SamplingParams { temperature: 0.8, seed: 3, ..SamplingParams::default() };
    vec![
        greedy(tokens(1, 100), 12),
        EngineRequest { sampling, logprobs: Some(2), ..greedy(tokens(2, 30), 9) },
        EngineRequest { embed: true, ..greedy(tokens(3, 40), 1) },
        EngineRequest { prompt_logprobs: true, ..greedy(tokens(4, 90), 3) },
    ]
}

/// What the requests give, or how they fail, and how often the model was loaded again.
fn run(backend: Fragile, reloads: bool) -> (Vec<Answer>, u64) {
    let mut model = model(&backend, 256, 4);
    if reloads {
        model.set_loader(Box::new(move |program, weights, pools| backend.load(program, weights, pools)));
    }
    let options = EngineOptions { max_sequences: 4, max_batch_tokens: 64, ..EngineOptions::default() };
    let mut machine = Machine::new(model, tokenizer(), options).unwrap();
    let n = requests().len();
    for (id, request) in requests().into_iter().enumerate() {
        machine.submit(id as u64, request, Duration::ZERO);
    }
    let mut answers: HashMap<u64, Answer> = HashMap::new();
    while !machine.is_idle() {
        machine.admit(Duration::ZERO);
        machine.plan();
        machine.take(Duration::ZERO);
        if let Some(failure) = machine.broken().cloned() {
            machine.fail_all(&failure);
        }
        for (id, event) in machine.events() {
            answers.entry(id).or_default().take(event);
        }
    }
    let stats = machine.stats();
    assert_eq!((stats.running, stats.pages_used), (0, 0));
    ((0..n as u64).map(|id| answers.remove(&id).unwrap()).collect(), stats.reloads)
}

#[test]
fn answers_go_on_where_a_device_is_lost() {
    let essences = |answers: Vec<Answer>| answers.iter().map(Answer::essence).collect::<Vec<_>>();
    let (undisturbed, none) = run(Fragile::new(&[usize::MAX]), true);
    let undisturbed = essences(undisturbed);
    assert_eq!(none, 0);
    let mut steps = 0;
    loop {
        let (answers, reloads) = run(Fragile::new(&[steps, usize::MAX]), true);
        assert_eq!(essences(answers), undisturbed, "lost after {steps} steps");
        if reloads == 0 {
            break;
        }
        steps += 1;
    }
    assert!(steps >= 8, "all is done in {steps} steps: too few to be lost in the middle");
    let (answers, reloads) = run(Fragile::new(&[5, 2, 0, usize::MAX]), true);
    assert_eq!((essences(answers), reloads), (undisturbed, 3));
}

#[test]
fn without_another_device_they_fail_and_say_why() {
    for (reloads, expected) in [
        (false, "the device is lost: unplugged"),
        (true, "the device is lost: unplugged; it could not be loaded again: the device: there is no other"),
    ] {
        let (answers, _) = run(Fragile::new(&[1]), reloads);
        for answer in answers {
            let (error, kind) = answer.failed.unwrap();
            assert_eq!((&*error, kind), (expected, FailureKind::Files));
        }
    }
}
