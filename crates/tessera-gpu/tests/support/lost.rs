//! A device that is destroyed in the middle of answers.

use crate::support::adapter;
use common::{Answer, Essence, greedy, model, tokenizer, tokens};
use std::collections::HashMap;
use std::time::Duration;
use tessera_compute::backend::Backend;
use tessera_engine::engine::{EngineOptions, EngineRequest};
use tessera_engine::machine::Machine;
use tessera_engine::sampler::SamplingParams;
use tessera_gpu::{Config, Gpu, GpuBackend};

#[allow(dead_code)] // The engine's tests use all of it.
#[path = "../../../tessera-engine/tests/engine/common.rs"]
mod common;

/// A device that no other test shares.
fn open() -> Option<Gpu> {
    Some(pollster::block_on(adapter()?.open(true)).unwrap())
}

/// Two answers, one of them sampled; how often the model was loaded again. The device is destroyed before a step.
fn run(destroyed: Option<usize>) -> Option<(Vec<Essence>, u64)> {
    let gpu = open()?;
    let mut model = model(&GpuBackend::new(gpu.clone(), Config::default()), 128, 2);
    model.set_loader(Box::new(|program, weights, pools| {
        GpuBackend::new(open().unwrap(), Config::default()).load(program, weights, pools)
    }));
    let options = EngineOptions { max_sequences: 2, max_batch_tokens: 32, ..EngineOptions::default() };
    let mut machine = Machine::new(model, tokenizer(), options).unwrap();
    let sampling = SamplingParams { temperature: 0.8, seed: 3, ..SamplingParams::default() };
    machine.submit(0, greedy(tokens(1, 40), 6), Duration::ZERO);
    machine.submit(
        1,
        EngineRequest { sampling, logprobs: Some(2), ..greedy(tokens(2, 30), 4) },
        Duration::ZERO,
    );
    let mut answers: HashMap<u64, Answer> = HashMap::new();
    let mut steps = 0;
    while !machine.is_idle() {
        if destroyed == Some(steps) {
            gpu.device.destroy();
        }
        steps += 1;
        machine.admit(Duration::ZERO);
        machine.plan();
        machine.take(Duration::ZERO);
        assert!(machine.broken().is_none(), "{:?}", machine.broken());
        for (id, event) in machine.events() {
            answers.entry(id).or_default().take(event);
        }
    }
    Some((vec![answers[&0].essence(), answers[&1].essence()], machine.stats().reloads))
}

#[test]
fn answers_go_on_where_the_adapter_is_lost() {
    let Some((undisturbed, 0)) = run(None) else { return };
    // In a prompt, between its steps, and while tokens are made.
    for step in [0, 1, 4] {
        let (answers, reloads) = run(Some(step)).unwrap();
        assert_eq!(reloads, 1, "destroyed before step {step}");
        assert_eq!(answers, undisturbed, "destroyed before step {step}");
    }
}
