//! Every family that GGUF has, out and in again: the values and the arithmetic of MLC's own tiny folders.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tessera_weights::arch::{Param, Semantics, Sizes, params};
use tessera_weights::config::ModelConfig;
use tessera_weights::convert::{ConvertOptions, convert};
use tessera_weights::export::{GgufExportError, GgufInputs, GgufReport, export_gguf};
use tessera_weights::folder::Folder;
use tessera_weights::gguf::{GgufModel, TensorInfo, dequantize, open};
use tessera_weights::model::Description;
use tessera_weights::quantize::decode;
use tessera_weights::scheme::{Layout, Scheme};
use tessera_weights::source::TensorSource;

/// Folders of `data/arch` by what GGUF calls them.
const FAMILIES: &[(&str, &str)] = &[
    ("mistral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3_text", "gemma3"),
    ("phi3", "phi3"),
    ("phi", "phi2"),
    ("orion", "orion"),
    ("cohere", "command-r"),
    ("olmo", "olmo"),
    ("stablelm", "stablelm"),
    ("olmo2", "olmo2"),
    ("starcoder2", "starcoder2"),
    ("gpt2", "gpt2"),
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch")
}

/// A byte-level tokenizer of as many tokens as these models have: they come without one.
fn tokenizer(size: usize) -> Vec<(String, Vec<u8>)> {
    let vocab: BTreeMap<String, usize> = (0..size).map(|id| (format!("t{id}"), id)).collect();
    let json = json!({
        "added_tokens": [{ "id": 0, "content": "t0", "special": true }],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "post_processor": null,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    let config =
        json!({ "bos_token": "t0", "eos_token": "t0", "chat_template": "{{ messages[0]['content'] }}" });
    vec![
        ("tokenizer.json".to_owned(), json.to_string().into_bytes()),
        ("tokenizer_config.json".to_owned(), config.to_string().into_bytes()),
    ]
}

/// A folder written as GGUF, with what is known of the folder.
fn exported(
    name: &str,
    scheme: &str,
    published: bool,
    dst: &Path,
) -> (Folder, Description, Result<GgufReport, GgufExportError>) {
    let folder = Folder::open(data().join(name).join(scheme)).unwrap();
    let mut description = Description::of_folder(&folder);
    // The tiny Gemmas have another factor on their scores than any that was published, and GGUF has no key for it.
    let settings = &mut description.config.as_mut().unwrap().settings;
    settings.query_pre_attn_scalar = settings.query_pre_attn_scalar.map(|x| if published { 16.0 } else { x });
    assert!(description.errors.is_empty(), "{name}: {:?}", description.errors);
    let model = description.model.as_ref().unwrap();
    let files = tokenizer(model.sizes.vocab);
    let inputs = GgufInputs {
        model,
        config: description.config.as_ref().unwrap(),
        chat: description.chat.as_ref().unwrap(),
        files: &files,
        name,
        allow_inexact: false,
    };
    let report = export_gguf(&folder, &inputs, dst, &decode, &mut |_, _| ControlFlow::Continue(()));
    (folder, description, report)
}

fn params_of(gguf: &GgufModel) -> Vec<Param> {
    let model_type = gguf.config["model_type"].as_str().unwrap();
    params(model_type, &Sizes::from_json(model_type, &gguf.config).unwrap()).unwrap()
}

/// A parameter's values, whichever scheme the folder has.
fn values(folder: &Folder, param: &Param, scheme: &Scheme) -> Vec<f32> {
    match *param.shape.as_slice() {
        [rows, cols] => {
            let base = param.name.strip_suffix(".weight").unwrap();
            let layout = param.layout(scheme).unwrap_or(Layout::Nk);
            decode(&folder.matrix(base, scheme.group, layout, rows, cols).unwrap())
        }
        _ => folder.floats(&param.name, &param.shape).unwrap(),
    }
}

#[test]
fn values_and_arithmetic_survive_the_way_out_and_in() {
    let mut seen = 0;
    for &(name, arch) in FAMILIES {
        for scheme in ["q0f32", "q4f16_1", "q4f32_1"] {
            if !data().join(name).join(scheme).is_dir() {
                continue;
            }
            seen += 1;
            let what = format!("{name} {scheme}");
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.gguf");
            let (folder, description, report) = exported(name, scheme, true, &path);
            let report = report.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(report.exact, report.quantised, "{what}: {:?}", report.notes);
            let gguf = open(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(gguf.source.gguf().meta_str("general.architecture").unwrap(), Some(arch));

            // In again with every bit of the float32 values, and the values are those of the folder.
            let options = ConvertOptions { whole_f32: true, ..ConvertOptions::default() };
            let plain = Scheme::find("q0f32").unwrap();
            let params = params_of(&gguf);
            convert(&gguf.source, &params, plain, &options, &dir.path().join("plain"), &[]).unwrap();
            let again = Folder::open(dir.path().join("plain")).unwrap();
            let model = description.model.as_ref().unwrap();
            assert_eq!(params.len(), model.params.len(), "{what}");
            for param in &model.params {
                let (found, want) = (values(&again, param, plain), values(&folder, param, model.scheme));
                // Gemma's norms are written with the one that is added and read without it.
                let differ = found.iter().zip(&want).filter(|(a, b)| a != b).count();
                assert_eq!((differ, found.len()), (0, want.len()), "{what}: {}", param.name);
            }

            // In the folder's own scheme no code changes where rows are whole groups.
            let own = model.scheme;
            if own.group.is_some() {
                let dst = dir.path().join("own");
                let options = ConvertOptions::default();
                let report = convert(&gguf.source, &params, own, &options, &dst, &[]).unwrap();
                let whole = params.iter().filter(|p| p.layout(own).is_some() && p.cols() % 32 == 0);
                assert_eq!(report.exact, whole.count(), "{what}");
            }
            same_arithmetic(&what, &gguf.config, description.config.as_ref().unwrap());
        }
    }
    assert!(seen > 20, "{seen} folders were there");
}

/// The blocks that follow from the file's config are those of the folder's. Windows that GGUF cannot mean are kept by a
/// shorter context, so they are left out of this.
#[track_caller]
fn same_arithmetic(what: &str, config: &Value, folder: &ModelConfig) {
    let mut read = ModelConfig::from_hf(config).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut want = folder.clone();
    let kept = ["gemma2", "gemma3_text"].contains(&want.model_type.as_str());
    if let Some(windows) = want.settings.windows.take_if(|_| !kept) {
        assert!(read.context_window_size <= windows.size, "{what}");
        read.settings.windows = None;
    }
    let (mut read, want) = (read.block(Semantics::Authors), want.block(Semantics::Authors));
    // Numbers go through f32 in the file, as the blocks have them; the base is a double.
    for (a, b) in read.ropes.iter_mut().zip(&want.ropes) {
        assert!((a.theta / b.theta - 1.0).abs() < 1e-6, "{what}: {} and {}", a.theta, b.theta);
        a.theta = b.theta;
    }
    assert_eq!(read.differs_from(&want), Vec::<&str>::new(), "{what}");
    assert_eq!(read, want, "{what}");
}

#[test]
fn what_a_reader_would_compute_otherwise_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gguf");
    for (name, parts) in [
        // Its query_pre_attn_scalar is 24 where the width of a head is 16.
        ("gemma2", &["query_pre_attn_scalar", "24", "16"][..]),
        ("qwen3-bias", &["attention_bias", "true", "qwen3"]),
        ("phi3-longrope", &["rope_scaling", "LongRope"]),
        ("gpt_neox", &["gpt_neox", "qwen2, qwen3, gemma"]),
    ] {
        let (.., report) = exported(name, "q0f32", false, &path);
        let error = report.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{name}: {error:?} does not say {part:?}");
        }
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "{name}");
    }
}

/// A Python with the package `gguf`: one that is there, or where `TESSERA_TEST_INSTALL` says so a new one.
fn python() -> Option<PathBuf> {
    let has = |python: &Path| {
        let run = Command::new(python).args(["-c", "import gguf"]).output();
        run.is_ok_and(|run| run.status.success()).then(|| python.to_owned())
    };
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf-venv");
    let own = venv.join("bin/python");
    if let Some(python) = has(Path::new("python3")).or_else(|| has(&own)) {
        return Some(python);
    }
    const INSTALL: &str = "TESSERA_TEST_INSTALL";
    if std::env::var_os(INSTALL).is_none_or(|v| v.is_empty()) {
        eprintln!(
            "SKIPPED: the Python package gguf is not here, and {INSTALL} does not say that it may be installed"
        );
        return None;
    }
    let run = |program: &Path, args: &[&str]| {
        let run = Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    };
    run(Path::new("python3"), &["-m", "venv", venv.to_str().unwrap()]);
    run(&own, &["-m", "pip", "install", "-q", "gguf"]);
    has(&own)
}

#[test]
fn the_gguf_package_reads_what_is_written() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    for &(name, _) in FAMILIES {
        for scheme in ["q0f32", "q4f32_1"] {
            let path = dir.path().join(format!("{name}-{scheme}.gguf"));
            let (_, description, report) = exported(name, scheme, true, &path);
            report.unwrap();
            let file = open(&path).unwrap();
            let (gguf, config) = (file.source.gguf(), description.config.unwrap());
            let digest = |tensor: &TensorInfo| {
                let mut values = vec![0.0; tensor.numel];
                assert!(dequantize(tensor.ty, gguf.data(tensor), &mut values));
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
            };
            let tensors: BTreeMap<&str, String> =
                gguf.tensors().iter().map(|t| (t.name.as_str(), digest(t))).collect();
            let arch = gguf.meta_str("general.architecture").unwrap().unwrap();
            let expected = json!({
                "hf": file.source.tensors().iter().map(|t| &t.name).collect::<Vec<_>>(),
                "tensors": tensors,
                "keys": {
                    format!("{arch}.embedding_length"): config.hidden_size,
                    format!("{arch}.attention.head_count_kv"): config.num_key_value_heads,
                    "tokenizer.ggml.model": "gpt2",
                    "tokenizer.ggml.pre": "gpt-2",
                    "tokenizer.chat_template": "{{ messages[0]['content'] }}",
                },
            });
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_gguf_export.py");
            let mut child = Command::new(&python)
                .args([script.as_os_str(), path.as_os_str()])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(expected.to_string().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{name} {scheme}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
