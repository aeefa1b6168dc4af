//! Every quantisation on an adapter against the reference: folders that MLC's converter wrote; and encoders.

#[path = "support/far.rs"]
mod far;
mod support;

use far::far;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{backend, device};
use tessera_compute::backend::Backend;
use tessera_compute::batch::Want;
use tessera_compute::reference::Reference;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_gpu::{Config, GpuBackend};
use tessera_weights::arch::Semantics;
use tessera_weights::config::ModelConfig;
use tessera_weights::folder::Folder;
use tessera_weights::scheme::Scheme;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data")
}

/// Logits or hidden states of every token, all fed at once.
fn run(files: &ModelFiles, backend: &dyn Backend, want: Want) -> Vec<f32> {
    let room = Room { context: None, sequences: 1, memory: None };
    let mut model = Model::load(files, backend, room).unwrap();
    let vocab = model.config.vocab_size as u32;
    let tokens: Vec<u32> = (0..37.min(model.context() as u32)).map(|i| (i * i * 7 + 3) % vocab).collect();
    let mut sequence = Sequence::default();
    let feed =
        Feed { sequence: &mut sequence, tokens: &tokens, call: 0..tokens.len(), drafts: 0, pick: Pick::All };
    let output = model.forward(&mut [feed], want).unwrap();
    if want == Want::Hidden { output.hidden.clone() } else { output.logits.clone() }
}

#[test]
fn every_scheme_agrees_with_the_reference() {
    let mut schemes = 0;
    for root in std::fs::read_dir(data().join("golden")).unwrap().map(|e| e.unwrap().path()) {
        let Ok(config) = std::fs::read(root.join("hf/config.json")) else { continue };
        let config: Value = serde_json::from_slice(&config).unwrap();
        for folder in std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let Ok(scheme) = Scheme::find(&name) else { continue };
            let files = ModelFiles {
                embeddings: Default::default(),
                folder: Folder::open(folder.clone()).unwrap(),
                config: ModelConfig::from_hf(&config).unwrap(),
                scheme,
                chat_config: None,
                semantics: Semantics::default(),
                notes: Vec::new(),
            };
            let expected = run(&files, &Reference, Want::Logits);
            for (halves, bound) in [(false, 1e-5), (true, 3e-3)] {
                let Some(gpu) = backend(halves) else { return };
                let far = far(&run(&files, &gpu, Want::Logits), &expected);
                println!("{}, halves {halves}: {far:.1e}", folder.display());
                assert!(far < bound, "{}, halves {halves}: {far:e}", folder.display());
            }
            schemes += 1;
        }
    }
    assert!(schemes >= 11, "{schemes} folders");
}

#[test]
fn an_encoder_agrees_with_the_reference() {
    for scheme in ["q0f32", "q4f16_1", "q4f32_1"] {
        let files = ModelFiles::open(&data().join("arch/bert").join(scheme)).unwrap();
        let Some(gpu) = backend(false) else { return };
        let far = far(&run(&files, &gpu, Want::Hidden), &run(&files, &Reference, Want::Hidden));
        assert!(far < 1e-5, "{scheme}: {far:e}");
    }
}

/// A model whose matrices are as large as a real one's, with no more than WebGPU promises of every adapter; by name, since
/// it is not among the goldens: `scripts/make_seed_gguf.py seed.gguf --mlc FOLDER` makes one of 0.7 GB.
/// `TESSERA_MODEL=FOLDER cargo test -p tessera-gpu --test schemes large -- --ignored --nocapture`
#[test]
#[ignore = "takes a model of a real one's size, in TESSERA_MODEL"]
fn a_large_model_runs_within_webgpus_limits() {
    let folder = std::env::var_os("TESSERA_MODEL").expect("TESSERA_MODEL is a folder");
    let files = ModelFiles::open(Path::new(&folder)).unwrap();
    let gpu = device().expect("there is an adapter");
    println!("bindings of {} MiB", gpu.binding_limit() >> 20);
    let backend = GpuBackend::new(gpu, Config::default());
    let room = Room { context: Some(64), sequences: 1, memory: None };
    let run = |backend: &dyn Backend| {
        let before = peak();
        let mut model = Model::load(&files, backend, room).unwrap();
        let (more, stored) = (peak() - before, files.folder.stored_len() >> 20);
        println!("{}: {more} MiB more at the load's peak, {stored} are in the files", backend.name());
        let mut sequence = Sequence::default();
        let mut logits = Vec::new();
        for tokens in [&[1, 306, 4658, 278][..], &[6593]] {
            let (call, pick) = (0..tokens.len(), Pick::All);
            let feed = Feed { sequence: &mut sequence, tokens, call, drafts: 0, pick };
            logits.extend_from_slice(&model.forward(&mut [feed], Want::Logits).unwrap().logits);
        }
        logits
    };
    let far = far(&run(&backend), &run(&Reference));
    println!("{}: {far:.1e}", Path::new(&folder).display());
    assert!(far < 3e-3, "{far:e}");
}

/// MiB that this process held at most, pages of files included; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}
