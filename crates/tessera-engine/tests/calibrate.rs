//! Codes that know what they are fed: on every kind of product, less of the logits is lost on text that was not used, and
//! the folder is one that everybody reads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tessera_compute::batch::Want;
use tessera_compute::cpu::Cpu;
use tessera_engine::calibrate::{CalibrateError, Calibration, Codes, OwnText, calibrate, own_text};
use tessera_engine::kv::Sequence;
use tessera_engine::machine::Machine;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_engine::request::EngineOptions;
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::arch::Param;
use tessera_weights::convert::{ConvertOptions, Found, MlcSource, Rounding, SourceNames, convert};
use tessera_weights::model::Description;
use tessera_weights::scheme::Scheme;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/arch").join(name)
}

fn texts(seed: u32, count: usize, vocab: usize) -> Vec<Vec<u32>> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocab as u32
    };
    (0..count).map(|_| (0..32).map(|_| next()).collect()).collect()
}

fn params(files: &ModelFiles) -> Vec<Param> {
    Description::of_folder(&files.folder).model.unwrap().params
}

/// Outputs of the last tokens: logits, or an encoder's hidden states.
fn outputs(files: &ModelFiles, texts: &[Vec<u32>]) -> Vec<f32> {
    let cpu = Cpu { threads: 1, ..Cpu::default() };
    let mut model = Model::load(files, &cpu, Room { context: None, sequences: 1, memory: None }).unwrap();
    let mut all = Vec::new();
    for text in texts {
        let mut sequence = Sequence::default();
        let call = 0..text.len();
        let feed = Feed { sequence: &mut sequence, tokens: text, call, drafts: 0, pick: Pick::All };
        let want = if files.config.block(files.semantics).is_encoder() { Want::Hidden } else { Want::Logits };
        let output = model.forward(&mut [feed], want).unwrap();
        all.extend(output.logits.iter().chain(&output.hidden));
        model.release(sequence);
    }
    all
}

fn lost(a: &[f32], b: &[f32]) -> f64 {
    assert!(a.len() == b.len() && !a.is_empty());
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// The model with these codes, in a folder of its own.
fn written(files: &ModelFiles, scheme: &'static Scheme, rounding: Rounding<'_>, dst: &Path) -> ModelFiles {
    let found = Description::of_folder(&files.folder).model.unwrap();
    let source = MlcSource::new(&files.folder, &found).unwrap();
    let options = ConvertOptions { names: SourceNames::Mlc, rounding, ..ConvertOptions::default() };
    convert(&source, &found.params, scheme, &options, dst, &[]).unwrap();
    let config = files.config.clone();
    ModelFiles {
        folder: tessera_weights::folder::Folder::open(dst).unwrap(),
        config,
        scheme,
        semantics: files.semantics,
        embeddings: files.embeddings,
        chat_config: None,
        notes: Vec::new(),
    }
}

fn codes(files: &ModelFiles, scheme: &'static Scheme, texts: &[Vec<u32>]) -> Codes {
    let of = Calibration { files, scheme, params: &params(files), texts };
    calibrate(of, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn less_is_lost_in_every_kind_of_model() {
    let (mut count, mut ratio) = (0.0, 0.0);
    for (name, left) in [
        ("qwen3", 0),
        ("gemma2", 0),
        ("mixtral", 0),
        ("qwen3_5", 0),
        ("rwkv6", 0),
        ("gpt2", 0),
        ("mistral-window", 0),
        ("bert", 0),
        ("deepseek_v2", 2),
    ] {
        let files = ModelFiles::open(&data(name).join("q0f32")).unwrap();
        let scheme = Scheme::find("q4f32_1").unwrap();
        let vocab = files.config.vocab_size;
        let codes = codes(&files, scheme, &texts(1, 75, vocab));
        let other = texts(2, 3, vocab);
        let exact = outputs(&files, &other);
        let home = tempfile::tempdir().unwrap();
        let of = |rounding, to: &str| {
            lost(&exact, &outputs(&written(&files, scheme, rounding, &home.path().join(to)), &other))
        };
        let (ours, searched, plain) =
            (of(Rounding::Found(&codes), "a"), of(Rounding::Search, "b"), of(Rounding::Mlc, "c"));
        println!("{name}: {ours:.4} {searched:.4} {plain:.4}, left {:?}", codes.left);
        assert_eq!(codes.left.len(), left, "{name}: {:?}", codes.left);
        // A few hundred tokens of noise say little of a few models; of all they do.
        assert!(ours < 0.8 * plain && ours < 1.03 * searched, "{name}: {ours} {searched} {plain}");
        (count, ratio) = (count + 1.0, ratio + ours / searched);
    }
    assert!(ratio < 0.9 * count, "{ratio} of {count}");
}

#[test]
fn the_same_texts_give_the_same_codes() {
    let files = ModelFiles::open(&data("mixtral").join("q0f32")).unwrap();
    let scheme = Scheme::find("q3f16_1").unwrap();
    let texts = texts(1, 8, files.config.vocab_size);
    let [a, b] = [(); 2].map(|()| codes(&files, scheme, &texts));
    let mut seen = 0;
    for param in params(&files) {
        assert_eq!(a.of(&param.name), b.of(&param.name), "{}", param.name);
        seen += usize::from(a.of(&param.name).is_some());
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn what_cannot_be_calibrated_says_so() {
    let files = ModelFiles::open(&data("qwen3").join("q0f32")).unwrap();
    let (params, texts) = (params(&files), texts(1, 2, files.config.vocab_size));
    let with = |scheme: &str, texts: &[Vec<u32>], on: &mut dyn FnMut() -> ControlFlow<()>| {
        let scheme = Scheme::find(scheme).unwrap();
        calibrate(Calibration { files: &files, scheme, params: &params, texts }, &mut |_| on())
            .map(drop)
            .unwrap_err()
    };
    let go_on = &mut || ControlFlow::Continue(());
    assert!(matches!(with("q0f16", &texts, go_on), CalibrateError::Scheme { scheme: "q0f16" }));
    assert!(matches!(with("q4f16_1", &[vec![]], go_on), CalibrateError::NoText));
    assert!(matches!(with("q4f16_1", &texts, &mut || ControlFlow::Break(())), CalibrateError::Stopped));
    let beyond = vec![vec![0, files.config.vocab_size as u32]];
    assert!(with("q4f16_1", &beyond, go_on).to_string().contains("vocabulary"));
}

#[test]
fn a_model_writes_its_own_text() {
    let files = ModelFiles::open(&data("qwen3").join("q0f32")).unwrap();
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-tokenizer.json");
    let json = std::fs::read(json).unwrap();
    let read = |name: &str| (name == "tokenizer.json").then(|| json.clone());
    let tokenizer = std::sync::Arc::new(Tokenizer::from_files(read).unwrap());
    let write = || {
        let room = Room { context: Some(64), sequences: 4, memory: None };
        let model = Model::load(&files, &Cpu { threads: 1, ..Cpu::default() }, room).unwrap();
        let options = EngineOptions { max_sequences: 4, ..EngineOptions::default() };
        let mut machine = Machine::new(model, tokenizer.clone(), options).unwrap();
        let wanted = OwnText { count: 6, len: 50, opening: vec![7, 8, 9], begin: vec![1], seed: 3 };
        own_text(&mut machine, &wanted, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let texts = write();
    assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [50; 6]);
    assert!(texts[0].starts_with(&[7, 8, 9]) && texts[1].starts_with(&[1]) && texts[0] != texts[2]);
    assert_eq!(texts, write());
}
