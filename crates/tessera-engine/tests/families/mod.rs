//! The goldens of all families, and what a backend makes of them; for the tests of every backend.

use serde_json::Value;
use std::path::{Path, PathBuf};
use tessera_compute::backend::Backend;
use tessera_compute::batch::Want;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_weights::arch::Semantics;

/// One file of logits and the folder that it belongs to.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub semantics: Semantics,
    pub steps: Vec<Step>,
}

pub struct Step {
    /// Everything fed so far.
    pub tokens: Vec<u32>,
    /// Of the last of them.
    pub logits: Vec<f64>,
}

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/arch")
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let dirs = std::fs::read_dir(data()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    for dir in dirs {
        for file in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let Some(kind) = stem.strip_prefix("logits-") else { continue };
            let of = kind.split('-').next().unwrap();
            let (scheme, semantics) =
                if of == "hf" { ("q0f32", Semantics::Authors) } else { (of, Semantics::Mlc) };
            let steps: Vec<Step> = json(&file)["steps"].as_array().unwrap().iter().map(step).collect();
            let name = format!("{}/{kind}", dir.file_name().unwrap().to_str().unwrap());
            out.push(Case { name, folder: dir.join(scheme), semantics, steps });
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn step(step: &Value) -> Step {
    let tokens = step["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let logits = step["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    Step { tokens, logits }
}

/// All logits of the case's steps. Hugging Face's are each from one call over all tokens, MLC's from calls that go on.
pub fn run(case: &Case, backend: &dyn Backend) -> Vec<Vec<f32>> {
    let mut files = ModelFiles::open(&case.folder).unwrap();
    files.semantics = case.semantics;
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, backend, room).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut sequence = Sequence::default();
    let mut out = Vec::new();
    for step in &case.steps {
        if case.semantics == Semantics::Authors {
            model.release(std::mem::take(&mut sequence));
        }
        let new = &step.tokens[sequence.tokens.len()..];
        let (held, all) = (sequence.tokens.len(), step.tokens.len());
        let call = if held == 0 || all - held > 1 { held..all } else { 0..0 };
        let feed = Feed { sequence: &mut sequence, tokens: new, call, drafts: 0, pick: Pick::Last };
        let output =
            model.forward(&mut [feed], Want::Logits).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        out.push(output.logits.clone());
    }
    out
}

/// Logits of every token of a prompt that is fed in chunks, beside others or alone.
pub fn in_chunks(model: &mut Model, prompts: &[Vec<u32>], chunk: usize) -> Vec<Vec<u32>> {
    let mut sequences: Vec<Sequence> = prompts.iter().map(|_| Sequence::default()).collect();
    let mut out = vec![Vec::new(); prompts.len()];
    let longest = prompts.iter().map(Vec::len).max().unwrap();
    for done in (0..longest).step_by(chunk) {
        let mut feeds = Vec::new();
        let mut fed = Vec::new();
        for (i, (sequence, prompt)) in sequences.iter_mut().zip(prompts).enumerate() {
            let tokens = &prompt[done.min(prompt.len())..prompt.len().min(done + chunk)];
            if !tokens.is_empty() {
                feeds.push(Feed { sequence, tokens, call: 0..prompt.len(), drafts: 0, pick: Pick::All });
                fed.push((i, tokens.len()));
            }
        }
        let vocab = model.config.vocab_size;
        let logits = &model.forward(&mut feeds, Want::Logits).unwrap().logits;
        let mut rest = logits.iter().map(|x| x.to_bits());
        for (i, n) in fed {
            out[i].extend(rest.by_ref().take(n * vocab));
        }
    }
    sequences.into_iter().for_each(|sequence| model.release(sequence));
    out
}

/// The quantised folder of each family, once.
pub fn folders() -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = cases().into_iter().map(|case| case.folder).collect();
    out.retain(|folder| folder.ends_with("q4f32_1"));
    out.sort();
    out.dedup();
    out
}
