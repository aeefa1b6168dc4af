//! A backend whose logits are a hash of everything that its pages hold, and which breaks on purpose.

use crate::common::*;
use proptest::prelude::*;
use tessera_compute::backend::{Backend, Compute, Executor, Immediate, LoadError};
use tessera_compute::batch::{Batch, BatchError, Limits, Output, PAGE, PageKind, Pools, Want};
use tessera_compute::program::Program;
use tessera_compute::weights::Weights;
use tessera_engine::engine::{EngineOptions, EngineRequest, FailureKind, FinishReason, SubmitError};
use tessera_engine::sampler::SamplingParams;

/// A step that sees this token panics.
const PANIC: u32 = 250;
/// After this token a logit is NaN.
const NAN: u32 = 251;

/// A page that holds this token cannot be copied: a panic that no step catches.
const TORN: u32 = 252;

/// Tokens without those.
fn harmless(seed: u64, len: usize) -> Vec<u32> {
    tokens(seed, len).into_iter().map(|t| 3 + t % 200).collect()
}

struct Hashing;

struct Pages {
    /// What was fed at each position, and in which RoPE class.
    pages: Vec<[(u32, usize); PAGE]>,
    vocab: usize,
}

impl Backend for Hashing {
    fn name(&self) -> &'static str {
        "hashing"
    }

    fn page_len(&self, _: &Program) -> [usize; PageKind::COUNT] {
        [PAGE, 0]
    }

    fn workspace_len(&self, _: &Program, rows: usize) -> usize {
        rows
    }

    fn load(
        &self,
        program: Program,
        _: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        let pages = vec![[(0, 0); PAGE]; pools.pages[0]];
        Ok(Box::new(Immediate::new(Pages { pages, vocab: program.vocab })))
    }
}

impl Compute for Pages {
    fn compute(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        let positions = usize::MAX;
        batch.check(Limits {
            vocab: self.vocab,
            pages: [Some(self.pages.len()), None],
            window: usize::MAX,
            positions,
            states: None,
            logits: true,
            whole: false,
        })?;
        out.clear();
        for span in batch.spans {
            for i in 0..span.len {
                let position = span.position + i;
                let token = batch.tokens[span.start + i];
                self.pages[span.pages[0][position / PAGE] as usize][position % PAGE] = (token, 0);
            }
        }
        assert!(!batch.tokens.contains(&PANIC), "on purpose");
        for span in batch.spans {
            for i in (0..span.len).filter(|i| batch.picked.contains(&((span.start + i) as u32))) {
                let mut hash = 1u64;
                for p in 0..=span.position + i {
                    let (token, _) = self.pages[span.pages[0][p / PAGE] as usize][p % PAGE];
                    hash = (hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
                }
                // Few tokens are probable, so that texts repeat themselves and drafts come true.
                let mut row: Vec<f32> = (0..self.vocab as u64)
                    .map(|t| if t < 8 { (hash >> (t * 8) & 7) as f32 } else { -20.0 })
                    .collect();
                if batch.tokens[span.start + i] == NAN {
                    row[17] = f32::NAN;
                }
                match batch.want {
                    Want::Logits => out.logits.extend_from_slice(&row),
                    Want::Greedy => out.tokens.push(tessera_compute::functions::argmax(&row)),
                    Want::Hidden => out.hidden.extend_from_slice(&row),
                }
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, _: PageKind, from: u32, to: u32) {
        assert!(self.pages[from as usize].iter().all(|(token, _)| *token != TORN), "on purpose");
        self.pages[to as usize] = self.pages[from as usize];
    }

    fn kv_len(&self) -> usize {
        self.pages.len() * PAGE
    }

    fn describe(&self) -> String {
        "hashing".to_owned()
    }
}

#[test]
fn a_broken_logit_fails_its_request_only() {
    let engine = engine(&Hashing, 256, 4, EngineOptions::default());
    let other = Stream::start(&engine, greedy(harmless(1, 20), 100));
    for logprobs in [None, Some(1)] {
        let request = EngineRequest { logprobs, ..greedy(vec![5, 6, NAN], 10) };
        let (error, kind) = answer(&engine, request).failed.unwrap();
        assert_eq!(kind, FailureKind::Model, "{error}");
    }
    let mut sampled = greedy(vec![5, 6, NAN], 10);
    sampled.sampling.temperature = 1.0;
    let (error, kind) = answer(&engine, sampled).failed.unwrap();
    assert_eq!(
        (&*error, kind),
        ("the logit of token 17 is NaN: the model's output is broken", FailureKind::Model)
    );
    let embed = EngineRequest { prompt: vec![5, 6, NAN], embed: true, ..EngineRequest::default() };
    assert_eq!(answer(&engine, embed).failed.unwrap().1, FailureKind::Model);
    assert_eq!(other.finish().tokens.len(), 100);
    assert_idle(&engine);
    assert_eq!(engine.stats().failed, 4);
}

#[test]
fn a_panic_of_the_engine_itself_leaves_nobody_waiting() {
    let engine = engine(&Hashing, 256, 4, EngineOptions::default());
    let prompt = [harmless(3, 5), vec![TORN], harmless(4, 5)].concat();
    assert_eq!(answer(&engine, greedy(prompt.clone(), 3)).tokens.len(), 3);
    let others: Vec<Stream> = (5..8).map(|i| Stream::start(&engine, greedy(harmless(i, 20), 200))).collect();
    // The second of its kind begins with a copy of the first one's page.
    let (_, kind) = answer(&engine, greedy(prompt, 3)).failed.unwrap();
    assert_eq!(kind, FailureKind::Internal);
    for other in others {
        let other = other.finish();
        assert!(other.failed.is_some() || other.tokens.len() == 200);
    }
    // Soon nothing is accepted; what is until then fails too.
    for _ in 0..1000 {
        match engine.submit(greedy(harmless(9, 5), 1), Box::new(|_| {})) {
            Err(error) => return assert_eq!(error, SubmitError::Closed),
            Ok(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
    panic!("requests are accepted that nobody answers");
}

#[test]
fn a_panic_in_a_step_fails_those_who_were_in_it_and_the_engine_goes_on() {
    let engine = engine(&Hashing, 256, 4, EngineOptions::default());
    let expected = answer(&engine, greedy(harmless(1, 100), 50)).essence();
    for _ in 0..5 {
        let (error, kind) = answer(&engine, greedy(vec![5, PANIC], 10)).failed.unwrap();
        assert_eq!((&*error, kind), ("the model's step failed: on purpose", FailureKind::Internal));
        assert_eq!(answer(&engine, greedy(harmless(1, 100), 50)).essence(), expected);
    }
    assert_idle(&engine);
}

#[test]
fn a_sink_that_panics_cancels_its_request() {
    let engine = engine(&Hashing, 4096, 1, EngineOptions::default());
    let sink = Box::new(|_| panic!("on purpose"));
    let _ticket = engine.submit(greedy(harmless(1, 10), 4000), sink).unwrap();
    assert_eq!(answer(&engine, greedy(harmless(1, 10), 5)).tokens.len(), 5);
    wait_for("the cancellation", || engine.stats().cancelled == 1);
    assert_idle(&engine);
}

fn request(seed: u64, prompt_len: usize, max_tokens: usize) -> EngineRequest {
    // Prompts of a few beginnings, so that pages are shared.
    let mut prompt = harmless(seed % 3, prompt_len);
    let own = prompt_len - prompt_len / (1 + seed as usize % 4);
    prompt[own..].iter_mut().for_each(|t| *t = 3 + (*t + seed as u32) % 200);
    let sampling = SamplingParams {
        seed,
        temperature: if seed.is_multiple_of(2) { 0.0 } else { 0.8 },
        frequency_penalty: if seed.is_multiple_of(5) { 0.5 } else { 0.0 },
        ..SamplingParams::default()
    };
    EngineRequest {
        prompt,
        sampling,
        max_tokens: Some(max_tokens),
        logprobs: seed.is_multiple_of(3).then_some(1),
        flow: seed % 2,
        ..EngineRequest::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_load_gives_everybody_the_answer_that_he_would_get_alone(
        load in prop::collection::vec((0..12u64, 1..250usize, 0..200usize, prop::bool::weighted(0.15)), 1..14),
        sequences in 1..3usize,
        max_sequences in 1..9usize,
        max_batch_tokens in prop_oneof![9..30usize, 30..600usize],
    ) {
        let plain = EngineOptions { prefix_cache: false, speculate: false, ..EngineOptions::default() };
        let alone = engine(&Hashing, 512, 1, plain);
        let options = EngineOptions { max_sequences, max_batch_tokens, ..EngineOptions::default() };
        let busy = engine(&Hashing, 512, sequences, options);
        let streams: Vec<Stream> =
            load.iter().map(|(seed, len, most, _)| Stream::start(&busy, request(*seed, *len, *most))).collect();
        for (mut stream, (seed, len, most, cancel)) in streams.into_iter().zip(&load) {
            if *cancel {
                stream.cancel();
            }
            let found = stream.finish();
            let expected = answer(&alone, request(*seed, *len, *most));
            if found.reason() == FinishReason::Cancelled {
                prop_assert!(*cancel && expected.tokens.starts_with(&found.tokens));
            } else {
                prop_assert_eq!(found.essence(), expected.essence());
            }
        }
        assert_idle(&busy);
        let stats = busy.stats();
        prop_assert_eq!(stats.finished + stats.cancelled, load.len() as u64);
    }
}
