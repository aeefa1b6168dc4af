//! MLC's own logits, made by models that its compiler built for the CPU, against the reference and the
//! CPU backend on the same folders.

use serde_json::Value;
use std::path::{Path, PathBuf};
use tessera_compute::backend::Backend;
use tessera_compute::batch::Want;
use tessera_compute::cpu::{Activations, Cpu};
use tessera_compute::reference::Reference;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_weights::arch::Semantics;
use tessera_weights::config::ModelConfig;
use tessera_weights::folder::Folder;
use tessera_weights::scheme::Scheme;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/golden")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The golden folders have no chat config of their own: the checkpoint's config is used.
fn open(name: &str, scheme: &str) -> ModelFiles {
    let root = golden().join(name);
    ModelFiles {
        embeddings: Default::default(),
        folder: Folder::open(root.join(scheme)).unwrap(),
        config: ModelConfig::from_hf(&json(&root.join("hf/config.json"))).unwrap(),
        scheme: Scheme::find(scheme).unwrap(),
        chat_config: None,
        semantics: Semantics::default(),
        notes: Vec::new(),
    }
}

fn load(files: &ModelFiles, backend: &dyn Backend) -> Model {
    Model::load(files, backend, Room { context: None, sequences: 1, memory: None }).unwrap()
}

/// Prefill of the first step's tokens, then one token a step; the largest difference to MLC's logits.
fn difference(model: &mut Model, steps: &Value) -> f64 {
    let mut sequence = Sequence::default();
    let mut worst = 0.0f64;
    for step in steps.as_array().unwrap() {
        let tokens: Vec<u32> =
            step["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        let expected: Vec<f64> =
            step["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let new = &tokens[sequence.tokens.len()..];
        let prompt_len = if sequence.tokens.is_empty() { tokens.len() } else { 0 };
        let feed =
            Feed { sequence: &mut sequence, tokens: new, call: 0..prompt_len, drafts: 0, pick: Pick::Last };
        let output = model.forward(&mut [feed], Want::Logits).unwrap();
        assert_eq!(output.logits.len(), expected.len());
        for (found, expected) in output.logits.iter().zip(&expected) {
            worst = worst.max((f64::from(*found) - expected).abs());
        }
    }
    worst
}

#[test]
fn the_reference_reproduces_mlcs_logits() {
    // MLC computes the f32 models in f32; its distance to a float64 forward is 7e-5 (logits up to 261)
    // and 4e-5. It computes the f16 models in f16; there its distance is 0.025 and 0.10.
    for (name, scheme, bound) in [
        ("llama-tied-bf16", "q4f32_1", 3e-4),
        ("llama-tied-bf16", "q0f32", 3e-4),
        ("llama-gqa-f32", "q4f32_1", 1e-5),
        ("llama-tied-bf16", "q4f16_1", 0.05),
        ("llama-tied-bf16", "q3f16_1", 0.15),
    ] {
        let logits = json(&golden().join(name).join(format!("logits-{scheme}.json")));
        let mut model = load(&open(name, scheme), &Reference);
        let worst = difference(&mut model, &logits["steps"]);
        println!(
            "{name}/{scheme}: {worst:e}, MLC's own distance to float64 {}",
            logits["max_abs_diff_to_float64_numpy"]
        );
        assert!(worst < bound, "{name}/{scheme}: {worst} (bound {bound})");
    }
}

#[test]
fn the_cpu_with_f32_activations_comes_close_too() {
    // Keys and values are f16 on the CPU: 2^-11 of values up to 261.
    for (name, scheme, bound) in [
        ("llama-tied-bf16", "q4f32_1", 0.3),
        ("llama-tied-bf16", "q0f32", 0.3),
        ("llama-gqa-f32", "q4f32_1", 2e-3),
        ("llama-tied-bf16", "q4f16_1", 0.3),
        ("llama-tied-bf16", "q3f16_1", 0.3),
    ] {
        let logits = json(&golden().join(name).join(format!("logits-{scheme}.json")));
        let mut model = load(&open(name, scheme), &Cpu { activations: Activations::F32, ..Cpu::default() });
        let worst = difference(&mut model, &logits["steps"]);
        println!("{name}/{scheme}: {worst:e}");
        assert!(worst < bound, "{name}/{scheme}: {worst} (bound {bound})");
    }
}

#[test]
fn every_llama_scheme_runs_and_agrees_with_the_unquantised_one() {
    let tokens: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 101).collect();
    let run = |scheme: &str, backend: &dyn Backend| {
        let mut model = load(&open("llama-gqa-f32", scheme), backend);
        let mut sequence = Sequence::default();
        let feed = Feed {
            sequence: &mut sequence,
            tokens: &tokens,
            call: 0..tokens.len(),
            drafts: 0,
            pick: Pick::All,
        };
        model.forward(&mut [feed], Want::Logits).unwrap().logits.clone()
    };
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    // What 4 and 3 bits cost normally distributed weights in groups of 32 and 40.
    let plain = run("q0f32", &Reference);
    let size = norm(&mut plain.iter().map(|x| f64::from(*x)));
    for (scheme, bound) in [
        ("q0f16", 0.01),
        ("q0bf16", 0.01),
        ("q4f32_1", 0.3),
        ("q4f16_0", 0.3),
        ("q4f16_1", 0.3),
        ("q4f16_2", 0.3),
        ("q4bf16_0", 0.3),
        ("q4bf16_1", 0.3),
        ("q3f16_0", 0.6),
        ("q3f16_1", 0.6),
    ] {
        let reference = run(scheme, &Reference);
        let far = |a: &[f32], b: &[f32]| norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / size;
        let to_plain = far(&reference, &plain);
        let cpu = far(&run(scheme, &Cpu::default()), &reference);
        println!("{scheme}: {to_plain:.4} from q0f32, cpu {cpu:.5} from the reference");
        assert!(to_plain < bound, "{scheme}: {to_plain}");
        assert!(cpu < 2e-3, "{scheme}: cpu {cpu}");
    }
}
