//! A request's results do not depend on who else is there.

use crate::common::*;
use std::ops::ControlFlow;
use tessera_engine::engine::{Engine, EngineOptions, EngineRequest};
use tessera_engine::generate::{CHUNK, generate};
use tessera_engine::machine::Machine;
use tessera_engine::sampler::SamplingParams;
use tessera_weights::config::RopeScaling;

/// Requests of all sorts; some share their beginning, within pages and across them.
fn request(i: usize) -> EngineRequest {
    let shared = tokens(1, 150);
    let prompt = match i {
        0 => tokens(2, 1),
        1 => shared.clone(),
        2 => [&shared[..], &tokens(3, 40)].concat(),
        3 => [&shared[..100], &tokens(4, 130)].concat(),
        4 => tokens(5, 64),
        5 => shared[..128].to_vec(),
        6 => [7, 8, 9, 10].repeat(20),
        _ => tokens(6, 300),
    };
    let sampled = SamplingParams { seed: i as u64, temperature: 0.7, ..SamplingParams::default() };
    let sampling = match i % 4 {
        0 | 3 => SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        1 => SamplingParams { top_p: 0.9, repetition_penalty: 1.2, ..sampled },
        _ => SamplingParams { top_k: 20, frequency_penalty: 0.3, presence_penalty: 0.1, ..sampled },
    };
    EngineRequest {
        prompt,
        sampling,
        max_tokens: Some(24),
        logprobs: (i.is_multiple_of(2)).then_some(3),
        prompt_logprobs: i == 4,
        embed: false,
        flow: i as u64 % 3,
        ..EngineRequest::default()
    }
}

fn requests() -> Vec<EngineRequest> {
    let embed = EngineRequest { prompt: tokens(1, 200), embed: true, ..EngineRequest::default() };
    (0..8).map(request).chain([embed]).collect()
}

/// One that has two tokens to choose from, so that drafts are right as often as not.
fn two_tokens() -> EngineRequest {
    let mut two = greedy(tokens(8, 30), 60);
    two.sampling.logit_bias = vec![(9, 60.0), (10, 60.0)];
    two
}

fn plain() -> EngineOptions {
    EngineOptions { prefix_cache: false, speculate: false, ..EngineOptions::default() }
}

/// Each alone in an engine without any of what is tested.
fn alone() -> Vec<Essence> {
    let engine = engine(&cpu(1), 512, 1, plain());
    requests().into_iter().map(|request| answer(&engine, request).essence()).collect()
}

fn together(engine: &Engine) -> Vec<Answer> {
    let streams: Vec<Stream> = requests().into_iter().map(|r| Stream::start(engine, r)).collect();
    streams.into_iter().map(Stream::finish).collect()
}

#[test]
fn alone_or_together_cold_or_warm_at_any_chunk_and_number_of_threads() {
    let expected = alone();
    let repeated = answer(&engine(&cpu(1), 512, 1, plain()), two_tokens()).essence();
    for (threads, max_batch_tokens) in [(1, 512), (2, 7), (2, 64), (1, 16)] {
        let max_sequences = max_batch_tokens.min(8);
        let options = EngineOptions { max_sequences, max_batch_tokens, ..EngineOptions::default() };
        let engine = engine(&cpu(threads), 512, 8, options);
        for warm in [false, true] {
            let found = together(&engine);
            for (i, answer) in found.iter().enumerate() {
                assert_eq!(
                    answer.essence(),
                    expected[i],
                    "request {i}, {threads} threads, steps of {max_batch_tokens}, warm {warm}"
                );
            }
            assert_idle(&engine);
            let cached: usize = found.iter().map(|a| a.usage().cached_tokens).sum();
            if warm {
                // All of every prompt but its last token, where no row of it is wanted.
                let prompts: usize = [0, 149, 189, 229, 0, 127, 79, 299, 0].iter().sum();
                assert_eq!(cached, prompts);
            }
        }
        // Whoever runs alone is drafted.
        assert_eq!(answer(&engine, two_tokens()).essence(), repeated);
        assert!(engine.stats().accepted_tokens > 0, "nothing was drafted: {:?}", engine.stats());
    }
}

#[test]
fn a_preempted_sequence_goes_on_as_if_nothing_had_happened() {
    let expected = alone();
    for prefix_cache in [false, true] {
        // Room for one whole sequence, or for about two of these requests.
        let options = EngineOptions { prefix_cache, max_batch_tokens: 64, ..EngineOptions::default() };
        let engine = engine(&cpu(2), 512, 1, options);
        for (i, answer) in together(&engine).iter().enumerate() {
            assert_eq!(answer.essence(), expected[i], "request {i}, prefix cache {prefix_cache}");
        }
        assert_idle(&engine);
        let stats = engine.stats();
        assert!(stats.preemptions > 0, "{stats:?}");
        assert_eq!((stats.finished, stats.failed), (9, 0));
    }
}

#[test]
fn a_rope_that_depends_on_the_length_sees_the_same_lengths() {
    let long = |factor: f64| (0..8).map(|i| 1.0 + factor * f64::from(i)).collect();
    for scaling in [
        RopeScaling::Dynamic { factor: 3.0, original_context: 90 },
        RopeScaling::LongRope {
            short_factor: long(0.1),
            long_factor: long(0.5),
            original_context: 170,
            factor: None,
            attention_factor: None,
        },
    ] {
        let engine = |sequences, options| scaled_engine(scaling.clone(), 512, sequences, options);
        let alone = engine(1, plain());
        let expected: Vec<Essence> =
            requests().into_iter().map(|request| answer(&alone, request).essence()).collect();
        // With room for all, and with preemptions.
        for sequences in [8, 1] {
            let options = EngineOptions { max_batch_tokens: 48, ..EngineOptions::default() };
            let engine = engine(sequences, options);
            for warm in [false, true] {
                for (i, answer) in together(&engine).iter().enumerate() {
                    assert_eq!(answer.essence(), expected[i], "request {i}, {scaling:?}, warm {warm}");
                }
            }
            assert_idle(&engine);
            assert_eq!(engine.stats().preemptions > 0, sequences == 1);
            assert!(sequences == 1 || engine.stats().cached_tokens > 0, "{:?}", engine.stats());
        }
    }
}

/// Recurrences, windows, and both kinds of layers: what a sequence keeps is not pages alone.
#[test]
fn states_and_windows_are_shared_and_given_back_as_pages_are() {
    // The goldens have 131 tokens.
    let requests = || {
        let small = |mut request: EngineRequest| {
            request.prompt.iter_mut().for_each(|token| *token %= 131);
            request
        };
        requests().into_iter().chain([two_tokens()]).map(small)
    };
    for name in ["qwen3_5", "rwkv6", "mistral-window", "gemma3_text", "deepseek_v2"] {
        let alone = Engine::start(family(name, 512, 1, 512), tokenizer(), plain()).unwrap();
        let expected: Vec<Essence> = requests().map(|request| answer(&alone, request).essence()).collect();
        // With room for all, and with so little that they wait for each other.
        for sequences in [10, 1] {
            let options = EngineOptions { max_batch_tokens: 48, ..EngineOptions::default() };
            let model = family(name, 512, sequences, options.max_batch_tokens);
            let engine = Engine::start(model, tokenizer(), options).unwrap();
            for warm in [false, true] {
                let streams: Vec<Stream> = requests().map(|r| Stream::start(&engine, r)).collect();
                let found: Vec<Answer> = streams.into_iter().map(Stream::finish).collect();
                for (i, answer) in found.iter().enumerate() {
                    let at = format!("{name}: request {i}, room for {sequences}, warm {warm}");
                    assert_eq!(answer.essence(), expected[i], "{at}");
                }
                let cached: usize = found.iter().map(|a| a.usage().cached_tokens).sum();
                assert!(sequences == 1 || !warm || cached > 600, "{name}: {cached} tokens from the cache");
            }
            assert_idle(&engine);
            let stats = engine.stats();
            assert_eq!((stats.finished, stats.failed), (20, 0), "{name}");
            let (drafted, right) = (stats.drafted_tokens, stats.accepted_tokens);
            assert!(sequences == 1 || right > 0, "{name}: {right} of {drafted} drafts");
        }
    }
}

/// A chat: each turn begins where the last one ended, or where its prompt did if the answer is told otherwise then.
#[test]
fn turns_of_a_chat_go_on_where_they_can() {
    let request = |prompt: &[u32]| EngineRequest {
        prompt: prompt.to_vec(),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_tokens: Some(20),
        ..EngineRequest::default()
    };
    let small = |seed, len| tokens(seed, len).into_iter().map(|t| t % 131).collect::<Vec<u32>>();
    for name in ["qwen3_5", "rwkv6", "mistral-window", "gemma3_text", "deepseek_v2", "phi3-longrope"] {
        let turn = |machine: &mut Machine, prompt: &[u32]| {
            generate(machine, request(prompt), &mut |_| ControlFlow::Continue(())).unwrap()
        };
        let machine = || {
            let model = family(name, 512, 1, CHUNK);
            Machine::new(model, tokenizer(), EngineOptions::one_by_one(true)).unwrap()
        };
        let anew = |prompt: &[u32]| turn(&mut machine(), prompt).token_ids;
        let mut machine = machine();
        let first = small(1, 150);
        let answer = turn(&mut machine, &first);
        assert_eq!((answer.token_ids == anew(&first), answer.usage.cached_tokens), (true, 0), "{name}");
        let second = [&first[..], &answer.token_ids, &small(2, 30)].concat();
        // Again with another end, as when a turn is made anew, and without the first answer.
        let other = [&first[..], &answer.token_ids, &small(3, 50)].concat();
        let told = [&first[..], &small(4, 90)].concat();
        // Keys and values of the last token that was chosen are not computed.
        let long = name == "phi3-longrope";
        // The state there is gone when its page has been filled: then the last page of the prompt before is next.
        let again = if matches!(name, "qwen3_5" | "rwkv6") { 128 } else { 169 };
        for (prompt, cached) in [(&second, 169), (&second, 192), (&other, again), (&told, 128)] {
            let answer = turn(&mut machine, prompt);
            assert_eq!(answer.token_ids, anew(prompt), "{name}");
            let found = answer.usage.cached_tokens;
            assert!(
                long || (cached..cached + 32).contains(&found),
                "{name}: {found} of {cached} of {} tokens",
                prompt.len()
            );
        }
        let kv = machine.model().kv();
        assert_eq!(kv.available(), kv.total(), "{name}");
    }
}

#[test]
fn seeds_belong_to_requests() {
    let engine = engine(&cpu(1), 256, 4, EngineOptions::default());
    let with = |seed| EngineRequest {
        prompt: tokens(1, 10),
        sampling: SamplingParams { seed, ..SamplingParams::default() },
        max_tokens: Some(20),
        ..EngineRequest::default()
    };
    let streams = [1, 2, 1].map(|seed| Stream::start(&engine, with(seed)));
    let [a, b, c] = streams.map(|s| s.finish().tokens);
    assert_eq!(a, c);
    assert_ne!(a, b);
}

#[test]
fn a_shared_prefix_is_not_computed_again() {
    let engine = engine(&cpu(2), 2048, 2, EngineOptions::default());
    let shared = tokens(1, 1000);
    let ask = |seed| {
        let before = engine.stats().fed_tokens;
        let answer = answer(&engine, greedy([&shared[..], &tokens(seed, 16)].concat(), 1));
        wait_for("the step's count", || engine.stats().finished == seed);
        (answer.usage().cached_tokens, engine.stats().fed_tokens - before)
    };
    assert_eq!(ask(1), (0, 1016));
    assert_eq!(ask(2), (1000, 16));
    // One that comes while the first still runs finds as much.
    let mut first = Stream::start(&engine, greedy(tokens(9, 200), 500));
    while first.answer.tokens.is_empty() {
        first.next();
    }
    let second = answer(&engine, greedy([&tokens(9, 200)[..], &[5]].concat(), 1));
    assert_eq!(second.usage().cached_tokens, 200);
    first.cancel();
    first.finish();
}
