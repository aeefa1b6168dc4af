//! Engines for tests, and answers collected from their events.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tessera_compute::backend::Backend;
use tessera_compute::cpu::Cpu;
use tessera_engine::engine::{
    Engine, EngineEvent, EngineOptions, EngineRequest, FailureKind, FinishReason, Sink, Ticket, Timing,
    TokenLogprob, Usage,
};
use tessera_engine::model::Model;
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::{Budget, Room};
use tessera_engine::sampler::SamplingParams;
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::config::{ModelConfig, RopeScaling};
use tessera_weights::folder::Folder;
use tessera_weights::scheme::Scheme;

/// Longer than any test takes: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/golden/llama-tied-bf16")
}

/// The golden folder, with a longer context than it was made for.
pub fn files(context: usize) -> ModelFiles {
    let root = golden();
    let config: Value = serde_json::from_slice(&std::fs::read(root.join("hf/config.json")).unwrap()).unwrap();
    let mut config = ModelConfig::from_hf(&config).unwrap();
    config.context_window_size = context;
    ModelFiles {
        embeddings: Default::default(),
        folder: Folder::open(root.join("q4f32_1")).unwrap(),
        config,
        scheme: Scheme::find("q4f32_1").unwrap(),
        chat_config: None,
        semantics: Default::default(),
        notes: Vec::new(),
    }
}

pub fn tokenizer() -> Arc<Tokenizer> {
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-engine/tests/data/tiny-tokenizer.json");
    let json = std::fs::read(json).unwrap();
    Arc::new(Tokenizer::from_files(|name| (name == "tokenizer.json").then(|| json.clone())).unwrap())
}

pub fn cpu(threads: usize) -> Cpu {
    Cpu { threads, ..Cpu::default() }
}

/// `sequences` times `context` positions of keys and values.
pub fn model(backend: &dyn Backend, context: usize, sequences: usize) -> Model {
    Model::load(&files(context), backend, Room { context: None, sequences, memory: None }).unwrap()
}

/// The same with another RoPE.
pub fn scaled_engine(
    scaling: RopeScaling,
    context: usize,
    sequences: usize,
    options: EngineOptions,
) -> Engine {
    let mut files = files(context);
    files.config.rope_scaling = scaling;
    let room = Room { context: None, sequences, memory: None };
    Engine::start(Model::load(&files, &cpu(1), room).unwrap(), tokenizer(), options).unwrap()
}

/// The golden of a family with a longer context than it was made for, for steps of `rows` tokens: where it has windows
/// there are as few pages of them as there can be.
pub fn family(name: &str, context: usize, sequences: usize, rows: usize) -> Model {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/arch");
    let mut files = ModelFiles::open(&data.join(name).join("q4f32_1")).unwrap();
    files.config.context_window_size = context;
    let room = Room { context: None, sequences, memory: Some(Budget::of(1 << 30, rows)) };
    Model::load(&files, &cpu(1), room).unwrap()
}

pub fn engine(backend: &dyn Backend, context: usize, sequences: usize, options: EngineOptions) -> Engine {
    Engine::start(model(backend, context, sequences), tokenizer(), options).unwrap()
}

/// `len` tokens that depend on `seed`.
pub fn tokens(seed: u64, len: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        3 + (state >> 33) as u32 % 256
    };
    (0..len).map(|_| next()).collect()
}

pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> EngineRequest {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    EngineRequest { prompt, sampling, max_tokens: Some(max_tokens), ..EngineRequest::default() }
}

/// Tokens, text, bits of numbers, end.
pub type Essence = (Vec<u32>, String, Vec<u32>, FinishReason);

/// Everything that a request gave.
#[derive(Debug, Default)]
pub struct Answer {
    pub started: Option<usize>,
    pub tokens: Vec<u32>,
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    pub embedding: Option<Vec<f32>>,
    pub done: Option<(FinishReason, Usage, Timing)>,
    pub failed: Option<(String, FailureKind)>,
}

impl Answer {
    /// Takes an event; true for the last one.
    pub fn take(&mut self, event: EngineEvent) -> bool {
        assert!(self.done.is_none() && self.failed.is_none(), "{event:?} after the last event");
        match event {
            EngineEvent::Started { cached_tokens, .. } => {
                assert_eq!(self.started.replace(cached_tokens), None);
            }
            EngineEvent::Prefill { done, total } => {
                assert!(done <= total && self.tokens.is_empty());
            }
            EngineEvent::PromptLogprobs(scores) => {
                assert!(self.tokens.is_empty());
                assert!(self.prompt_logprobs.replace(scores).is_none());
            }
            EngineEvent::Token { id, text, logprob } => {
                self.tokens.push(id);
                self.text.push_str(&text);
                self.logprobs.extend(logprob);
            }
            EngineEvent::Embedding(mean) => assert!(self.embedding.replace(mean).is_none()),
            EngineEvent::Done { text, finish_reason, usage, timing } => {
                self.text.push_str(&text);
                assert_eq!(usage.completion_tokens, self.tokens.len());
                assert_eq!(usage.cached_tokens, self.started.unwrap_or(0));
                self.done = Some((finish_reason, usage, timing));
                return true;
            }
            EngineEvent::Failed(failure) => {
                self.failed = Some((failure.to_string(), failure.kind()));
                return true;
            }
        }
        false
    }

    pub fn usage(&self) -> Usage {
        self.done.unwrap_or_else(|| panic!("no end: {self:?}")).1
    }

    pub fn reason(&self) -> FinishReason {
        self.done.unwrap_or_else(|| panic!("no end: {self:?}")).0
    }

    /// What must not depend on anything: tokens, text, and the bits of all numbers.
    pub fn essence(&self) -> Essence {
        let scores = self.logprobs.iter().chain(self.prompt_logprobs.iter().flatten());
        let bits = scores.flat_map(|l| {
            let top = l.top.iter().flat_map(|(id, logprob)| [*id, logprob.to_bits()]);
            [l.id, l.logprob.to_bits()].into_iter().chain(top)
        });
        let embedding = self.embedding.iter().flatten().map(|x| x.to_bits());
        (self.tokens.clone(), self.text.clone(), bits.chain(embedding).collect(), self.reason())
    }
}

/// A request on its way.
pub struct Stream {
    pub ticket: Option<Ticket>,
    events: Receiver<EngineEvent>,
    pub answer: Answer,
}

impl Stream {
    pub fn start(engine: &Engine, request: EngineRequest) -> Stream {
        let (sink, events) = sink();
        let ticket = Some(engine.submit(request, sink).unwrap());
        Stream { ticket, events, answer: Answer::default() }
    }

    /// Takes the next event; false after the last one.
    pub fn next(&mut self) -> bool {
        !self.answer.take(self.events.recv_timeout(PATIENCE).expect("an event"))
    }

    pub fn cancel(&mut self) {
        self.ticket = None;
    }

    pub fn finish(mut self) -> Answer {
        while self.next() {}
        assert!(self.events.recv_timeout(Duration::from_millis(1)).is_err());
        self.answer
    }
}

pub fn sink() -> (Sink, Receiver<EngineEvent>) {
    let (send, events) = channel();
    let sink = Box::new(move |event| {
        let _ = send.send(event);
    });
    (sink, events)
}

pub fn answer(engine: &Engine, request: EngineRequest) -> Answer {
    Stream::start(engine, request).finish()
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{what} does not come");
}

/// Nobody holds a page, nobody waits.
pub fn assert_idle(engine: &Engine) {
    wait_for("an idle engine", || {
        let stats = engine.stats();
        (stats.waiting, stats.running, stats.pages_used) == (0, 0, 0)
    });
}
