//! Log-probabilities, embeddings, grammars, and how an answer ends.

use crate::common::*;
use std::sync::{Arc, Mutex};
use tessera_compute::batch::Want;
use tessera_compute::reference::Reference;
use tessera_engine::engine::{
    Constraint, ConstraintError, EngineOptions, EngineRequest, FailureKind, FinishReason,
};
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Pick};
use tessera_engine::sampler::SamplingParams;

fn start(options: EngineOptions) -> tessera_engine::engine::Engine {
    engine(&cpu(1), 256, 4, options)
}

/// All logits of a sequence, straight from the model, and its hidden states.
fn rows(tokens: &[u32], want: Want) -> Vec<Vec<f32>> {
    let mut model = model(&cpu(1), 256, 1);
    let mut sequence = Sequence::default();
    let feed = Feed { sequence: &mut sequence, tokens, call: 0..tokens.len(), drafts: 0, pick: Pick::All };
    let output = model.forward(&mut [feed], want).unwrap();
    let values = if want == Want::Hidden { &output.hidden } else { &output.logits };
    values.chunks_exact(values.len() / tokens.len()).map(<[f32]>::to_vec).collect()
}

fn log_softmax(row: &[f32], token: u32) -> f64 {
    let max = row.iter().fold(f64::MIN, |m, x| m.max(f64::from(*x)));
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    f64::from(row[token as usize]) - max - sum.ln()
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let engine = start(EngineOptions::default());
    let mut request = greedy(tokens(1, 100), 10);
    request.logprobs = Some(5);
    request.prompt_logprobs = true;
    request.sampling.repetition_penalty = 1.5;
    request.sampling.logit_bias = vec![(9, 100.0)];
    let answer = answer(&engine, request);
    assert_eq!(answer.tokens, [9; 10]);
    let all = [&tokens(1, 100)[..], &answer.tokens].concat();
    let rows = rows(&all, Want::Logits);
    let scores = [answer.prompt_logprobs.unwrap(), answer.logprobs].concat();
    assert_eq!(scores.len(), all.len() - 1);
    for ((score, row), token) in scores.iter().zip(&rows).zip(&all[1..]) {
        assert_eq!((score.id, score.top.len()), (*token, 5));
        assert!((f64::from(score.logprob) - log_softmax(row, *token)).abs() < 1e-5);
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
        assert_eq!(score.top.iter().map(|t| t.0).collect::<Vec<_>>(), order[..5]);
        for (id, logprob) in &score.top {
            assert!((f64::from(*logprob) - log_softmax(row, *id)).abs() < 1e-5);
        }
    }
}

#[test]
fn a_prompt_can_be_scored_without_an_answer() {
    let engine = start(EngineOptions::default());
    let mut request = greedy(tokens(1, 150), 0);
    request.prompt_logprobs = true;
    let scored = answer(&engine, request);
    assert_eq!(scored.prompt_logprobs.as_ref().map(Vec::len), Some(149));
    assert_eq!((scored.reason(), scored.tokens.len()), (FinishReason::Length, 0));
    let mut request = greedy(vec![5], 1);
    request.prompt_logprobs = true;
    assert_eq!(answer(&engine, request).prompt_logprobs, Some(Vec::new()));
}

#[test]
fn an_embedding_is_the_mean_of_the_final_hidden_states() {
    let prompt = tokens(1, 100);
    let hidden = rows(&prompt, Want::Hidden);
    let expected: Vec<f32> = (0..hidden[0].len())
        .map(|i| (hidden.iter().map(|row| f64::from(row[i])).sum::<f64>() / 100.0) as f32)
        .collect();
    for max_batch_tokens in [16, 64, 512] {
        let engine = start(EngineOptions { max_batch_tokens, ..EngineOptions::default() });
        let request = || EngineRequest { prompt: prompt.clone(), embed: true, ..EngineRequest::default() };
        for _ in 0..2 {
            let answer = answer(&engine, request());
            assert_eq!(answer.embedding.as_deref(), Some(&*expected));
            assert_eq!((answer.reason(), answer.usage().completion_tokens), (FinishReason::Stop, 0));
        }
    }
    // The reference says the same, up to 16 bits of activations and keys.
    let mut model = model(&Reference, 256, 1);
    let mut sequence = Sequence::default();
    let feed = Feed { sequence: &mut sequence, tokens: &prompt, call: 0..100, drafts: 0, pick: Pick::All };
    let output = model.forward(&mut [feed], Want::Hidden).unwrap();
    let worst = hidden.iter().flatten().zip(&output.hidden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = output.hidden.iter().map(|x| x.abs()).fold(0.0, f32::max);
    assert!(worst < 0.02 * size, "{worst} of {size}");
    // The head's input times the head is what the head gives.
    let logits = rows(&prompt, Want::Logits);
    assert_eq!(logits.len(), hidden.len());
}

/// Allows what a list of steps says.
#[derive(Clone)]
enum Step {
    OneOf(Vec<u32>),
    Forced(Vec<u32>),
}

type Accepted = Arc<Mutex<Vec<u32>>>;

struct Script {
    steps: Vec<Step>,
    mask: Vec<u32>,
    taken: Accepted,
    inside: usize,
    at: usize,
}

impl Constraint for Script {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        self.mask = vec![0; 259usize.div_ceil(32)];
        let allowed = match &self.steps[self.at] {
            Step::OneOf(tokens) => tokens.clone(),
            Step::Forced(tokens) => vec![tokens[self.inside]],
        };
        allowed.iter().for_each(|t| self.mask[*t as usize / 32] |= 1 << (t % 32));
        // Missing words allow nothing.
        while self.mask.last() == Some(&0) {
            self.mask.pop();
        }
        Ok(&self.mask)
    }

    fn forced(&mut self) -> Vec<u32> {
        match self.steps.get(self.at) {
            Some(Step::Forced(tokens)) => tokens[self.inside..].to_vec(),
            _ => Vec::new(),
        }
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.taken.lock().unwrap().push(token);
        let (ok, len) = match &self.steps[self.at] {
            Step::OneOf(tokens) => (tokens.contains(&token), 1),
            Step::Forced(tokens) => (tokens[self.inside] == token, tokens.len()),
        };
        if !ok {
            return Err(ConstraintError::NotAllowed { token });
        }
        self.inside += 1;
        if self.inside == len {
            (self.at, self.inside) = (self.at + 1, 0);
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.at == self.steps.len()
    }
}

/// A script, and what it will have accepted.
fn script(steps: &[Step]) -> (Option<Box<dyn Constraint>>, Accepted) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let script = Script { steps: steps.to_vec(), mask: Vec::new(), taken: taken.clone(), inside: 0, at: 0 };
    (Some(Box::new(script)), taken)
}

#[test]
fn a_grammar_is_followed_and_forced_tokens_take_no_steps() {
    let steps = [
        Step::OneOf(vec![40, 41, 42]),
        Step::Forced(vec![50, 51, 52, 53]),
        Step::OneOf(vec![60, 61]),
        Step::OneOf(vec![258]),
        Step::Forced(vec![70; 30]),
    ];
    let engine = start(EngineOptions::default());
    let mut answers = Vec::new();
    for logprobs in [None, Some(2)] {
        let (constraint, taken) = script(&steps);
        let before = engine.stats().steps;
        let found = answer(&engine, EngineRequest { constraint, logprobs, ..greedy(tokens(1, 20), 100) });
        assert_eq!(found.reason(), FinishReason::Stop);
        assert_eq!(found.tokens.len(), 37);
        assert!([40, 41, 42].contains(&found.tokens[0]) && [60, 61].contains(&found.tokens[5]));
        assert_eq!(found.tokens[1..5], [50, 51, 52, 53]);
        assert_eq!(found.tokens[6..], [&[258][..], &[70; 30]].concat());
        assert_eq!(*taken.lock().unwrap(), found.tokens);
        wait_for("the end", || engine.stats().finished > answers.len() as u64);
        let steps = engine.stats().steps - before;
        match logprobs {
            // The prompt, two choices after the forced ones; what is forced at the end is not fed.
            None => assert_eq!(steps, 3),
            Some(_) => {
                assert_eq!(found.logprobs.len(), 37);
                let all = [&tokens(1, 20)[..], &found.tokens].concat();
                let rows = rows(&all, Want::Logits);
                for (score, (row, token)) in found.logprobs.iter().zip(rows[19..].iter().zip(&all[20..])) {
                    assert_eq!(score.id, *token);
                    assert!((f64::from(score.logprob) - log_softmax(row, *token)).abs() < 1e-5);
                }
            }
        }
        answers.push(found.tokens);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_grammar_that_cannot_go_on_fails_its_request_only() {
    let engine = start(EngineOptions::default());
    let other = Stream::start(&engine, greedy(tokens(2, 20), 100));
    let fail = |steps: &[Step]| {
        let (constraint, _) = script(steps);
        answer(&engine, EngineRequest { constraint, ..greedy(tokens(1, 20), 100) }).failed.unwrap()
    };
    assert_eq!(fail(&[Step::OneOf(vec![])]).1, FailureKind::NoToken);
    let (error, kind) = fail(&[Step::OneOf(vec![5]), Step::Forced(vec![6, 259])]);
    assert_eq!(
        (&*error, kind),
        ("the grammar forces token 259, the vocabulary has 259", FailureKind::Constraint)
    );
    // Beyond its own script this one panics.
    struct Broken;
    impl Constraint for Broken {
        fn mask(&mut self) -> Result<&[u32], ConstraintError> {
            panic!("on purpose")
        }
        fn forced(&mut self) -> Vec<u32> {
            Vec::new()
        }
        fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
            Err(ConstraintError::NotAllowed { token })
        }
        fn finished(&self) -> bool {
            false
        }
    }
    let request = EngineRequest { constraint: Some(Box::new(Broken)), ..greedy(tokens(1, 20), 100) };
    assert_eq!(answer(&engine, request).failed.unwrap().1, FailureKind::Constraint);
    assert_eq!(other.finish().tokens.len(), 100);
    assert_idle(&engine);
}

/// A mask that takes long holds up nobody else, and changes nothing.
#[test]
fn a_slow_mask_holds_up_nobody_else() {
    struct Slow(Script, std::sync::mpsc::Receiver<()>);
    impl Constraint for Slow {
        fn mask(&mut self) -> Result<&[u32], ConstraintError> {
            // Until it is told to go on, or nobody is left to tell.
            let _ = self.1.recv();
            self.0.mask()
        }
        fn forced(&mut self) -> Vec<u32> {
            self.0.forced()
        }
        fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
            self.0.accept(token)
        }
        fn finished(&self) -> bool {
            self.0.finished()
        }
    }
    let steps: Vec<Step> = (0..6).map(|i| Step::OneOf((40 + 5 * i..60 + 5 * i).collect())).collect();
    let plain =
        || Script { steps: steps.clone(), mask: Vec::new(), taken: Accepted::default(), inside: 0, at: 0 };
    let engine = start(EngineOptions::default());
    let request = |constraint: Box<dyn Constraint>, logprobs| EngineRequest {
        constraint: Some(constraint),
        logprobs,
        ..greedy(tokens(1, 20), 100)
    };
    for logprobs in [None, Some(1)] {
        let alone = answer(&engine, request(Box::new(plain()), logprobs));
        let (go, going) = std::sync::mpsc::channel();
        let slow = Stream::start(&engine, request(Box::new(Slow(plain(), going)), logprobs));
        for round in 0..3 {
            // One without a grammar, one with another.
            let other = answer(&engine, greedy(tokens(2 + round, 20), 60));
            assert_eq!(other.tokens.len(), 60);
            let held = answer(&engine, request(Box::new(plain()), logprobs));
            assert_eq!(held.tokens, alone.tokens);
            go.send(()).unwrap();
        }
        drop(go);
        let slow = slow.finish();
        assert_eq!(
            (slow.reason(), &slow.tokens, &slow.logprobs),
            (alone.reason(), &alone.tokens, &alone.logprobs)
        );
    }
    // One that is cancelled meanwhile is gone at once.
    let (go, going) = std::sync::mpsc::channel();
    let mut slow = Stream::start(&engine, request(Box::new(Slow(plain(), going)), None));
    slow.next();
    slow.cancel();
    assert_eq!(slow.finish().reason(), FinishReason::Cancelled);
    drop(go);
    assert_idle(&engine);
}

#[test]
fn answers_end_where_they_should() {
    let engine = start(EngineOptions::default());
    // The folder's logits go up to 261.
    let sampling = SamplingParams { temperature: 50.0, ..SamplingParams::default() };
    let sampled = || EngineRequest { sampling: sampling.clone(), ..greedy(tokens(1, 20), 30) };
    let whole = answer(&engine, sampled());
    assert_eq!((whole.reason(), whole.tokens.len()), (FinishReason::Length, 30));

    // At a stop token that was chosen; its text only if it is asked for.
    let at = (5..30).find(|i| !whole.tokens[..*i].contains(&whole.tokens[*i])).unwrap();
    let stop = whole.tokens[at];
    let mut lengths = Vec::new();
    for include_stop in [false, true] {
        let request = EngineRequest { stop_token_ids: vec![stop], include_stop, ..sampled() };
        let stopped = answer(&engine, request);
        assert_eq!((stopped.reason(), &stopped.tokens[..]), (FinishReason::Stop, &whole.tokens[..=at]));
        lengths.push(stopped.text.len());
    }
    assert!(lengths[0] < lengths[1]);

    // At a stop string, with and without it.
    let ascii = tokenizer();
    let letter = |id: u32| ascii.decode(&[id]);
    let text = letter(70);
    for (include_stop, expected) in [(false, ""), (true, &*text)] {
        let (constraint, _) = script(&[Step::Forced(vec![70; 3])]);
        let request =
            EngineRequest { constraint, stop: vec![text.clone()], include_stop, ..greedy(tokens(1, 20), 30) };
        let stopped = answer(&engine, request);
        assert_eq!((stopped.reason(), &*stopped.text), (FinishReason::Stop, expected));
        assert_eq!(stopped.usage().completion_tokens, 1);
    }

    // At the end of the context.
    let full = answer(&engine, EngineRequest { max_tokens: None, ..greedy(tokens(1, 200), 0) });
    assert_eq!((full.reason(), full.usage().completion_tokens), (FinishReason::Length, 56));
}
