//! Every family and scheme of the goldens on an adapter against the reference, which other tests hold to MLC's own logits
//! and Hugging Face's.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::backend;
use tessera_compute::backend::Backend;
use tessera_compute::batch::Want;
use tessera_compute::reference::Reference;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_weights::arch::Semantics;

/// Root of the mean square of the differences, of that of the logits.
const BOUND: f64 = 1e-3;

struct Case {
    name: String,
    folder: PathBuf,
    semantics: Semantics,
    /// Everything fed so far, step after step.
    steps: Vec<Vec<u32>>,
}

fn cases() -> Vec<Case> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/arch");
    let mut out = Vec::new();
    let dirs = std::fs::read_dir(data).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    for dir in dirs {
        for file in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let Some(kind) = stem.strip_prefix("logits-") else { continue };
            let of = kind.split('-').next().unwrap();
            // Long prompts take lavapipe many seconds, and differ from others in attention only.
            if kind.ends_with("-long") && of != "q4f32_1" {
                continue;
            }
            let (scheme, semantics) =
                if of == "hf" { ("q0f32", Semantics::Authors) } else { (of, Semantics::Mlc) };
            let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let tokens = |step: &Value| {
                step["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
            };
            let steps = json["steps"].as_array().unwrap().iter().map(tokens).collect();
            let name = format!("{}/{kind}", dir.file_name().unwrap().to_str().unwrap());
            out.push(Case { name, folder: dir.join(scheme), semantics, steps });
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn run(case: &Case, backend: &dyn Backend) -> Result<Vec<f32>, String> {
    let mut files = ModelFiles::open(&case.folder).unwrap();
    files.semantics = case.semantics;
    let room = Room { context: None, sequences: 2, memory: None };
    let mut model = Model::load(&files, backend, room).map_err(|e| e.to_string())?;
    let mut sequence = Sequence::default();
    let mut out = Vec::new();
    for tokens in &case.steps {
        if case.semantics == Semantics::Authors {
            model.release(std::mem::take(&mut sequence));
        }
        let new = &tokens[sequence.tokens.len()..];
        let (held, all) = (sequence.tokens.len(), tokens.len());
        let call = if held == 0 || all - held > 1 { held..all } else { 0..0 };
        let feed = Feed { sequence: &mut sequence, tokens: new, call, drafts: 0, pick: Pick::Last };
        let output = model.forward(&mut [feed], Want::Logits).map_err(|e| e.to_string())?;
        out.extend(&output.logits);
    }
    Ok(out)
}

#[test]
fn every_family_agrees_with_the_reference() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut wrong = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        let Some(gpu) = backend(false) else { return };
        let expected = run(&case, &Reference).unwrap();
        let far = run(&case, &gpu).map(|found| {
            let off: f64 = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let size: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
            if found.len() == expected.len() { (off / size).sqrt() } else { f64::NAN }
        });
        println!("{}: {far:?}", case.name);
        if !far.as_ref().is_ok_and(|far| *far <= BOUND) {
            wrong.push(format!("{}: {far:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Logits of every token of a prompt that is fed in chunks, beside others or alone.
fn in_chunks(model: &mut Model, prompts: &[Vec<u32>], chunk: usize) -> Vec<Vec<u32>> {
    let mut sequences: Vec<Sequence> = prompts.iter().map(|_| Sequence::default()).collect();
    let mut out = vec![Vec::new(); prompts.len()];
    let longest = prompts.iter().map(Vec::len).max().unwrap();
    for done in (0..longest).step_by(chunk) {
        let (mut feeds, mut fed) = (Vec::new(), Vec::new());
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

/// A row has the same bits alone, beside others, and however its prompt was cut.
#[test]
fn chunks_and_neighbours_change_no_bit() {
    let mut folders: Vec<PathBuf> = cases().into_iter().map(|case| case.folder).collect();
    folders.retain(|folder| folder.ends_with("q4f32_1"));
    folders.sort();
    folders.dedup();
    for folder in folders {
        let Some(gpu) = backend(true) else { return };
        let files = ModelFiles::open(&folder).unwrap();
        let room = Room { context: None, sequences: 2, memory: None };
        let mut model = Model::load(&files, &gpu, room).unwrap();
        let (most, vocab) = (model.context() as u32, model.config.vocab_size as u32);
        let prompt = |n: u32| (0..n.min(most)).map(|i| (i * i * 7 + n) % vocab).collect::<Vec<_>>();
        let prompts = [70u32, 13].map(prompt);
        let mut alone = |p| in_chunks(&mut model, std::slice::from_ref(p), 2048).remove(0);
        let expected: Vec<_> = prompts.iter().map(&mut alone).collect();
        for chunk in [1, 3, 9] {
            let found = in_chunks(&mut model, &prompts, chunk);
            assert!(found == expected, "{}: chunks of {chunk}", folder.display());
        }
    }
}
