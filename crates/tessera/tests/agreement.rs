//! What is this folder? `inspect`, `verify`, `convert` and `run` give one answer, for every broken or odd folder.
#![cfg(unix)]

mod common;

use common::{Home, copy, data, golden};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CONFIG: &str = "mlc-chat-config.json";

/// A change to the folder `m`.
type Change = fn(&Path);

fn config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join(CONFIG);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn pipe(folder: &Path, name: &str) {
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn device(folder: &Path, name: &str) {
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

fn folder(change: Change) -> Home {
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(data().join("chat-config").join(name), home.path("m").join(name)).unwrap();
    }
    config(&home.path("m"), |c| {
        c["context_window_size"] = json!(256);
        c["tokenizer_files"] = json!(["tokenizer.json", "tokenizer_config.json"]);
    });
    change(&home.path("m"));
    home
}

const RUN: [&str; 7] = ["run", "m", "--raw", "Hi", "--max-tokens", "1", "--quiet"];

#[test]
fn a_good_folder_is_good_to_all() {
    let home = folder(|_| {});
    home.tessera(&["verify", "m"]).ok();
    home.tessera(&["inspect", "m"]).ok();
    home.tessera(&["convert", "m", "out"]).ok();
    home.tessera(&RUN).ok();
}

/// Whatever `run` refuses, `verify` reports. Before: exit 0 of `verify`, or a `run` that never ended.
#[test]
fn what_run_refuses_verify_reports() {
    let broken: &[(&str, Change)] = &[
        ("tokenizer.json cut", |f| std::fs::write(f.join("tokenizer.json"), b"{\"version\": ").unwrap()),
        ("tokenizer.json empty object", |f| std::fs::write(f.join("tokenizer.json"), b"{}").unwrap()),
        ("tokenizer.json a pipe", |f| pipe(f, "tokenizer.json")),
        ("tokenizer.json a device", |f| device(f, "tokenizer.json")),
        ("tokenizer_config.json a pipe", |f| pipe(f, "tokenizer_config.json")),
        ("chat_template.jinja a pipe", |f| pipe(f, "chat_template.jinja")),
        ("generation_config.json a pipe", |f| pipe(f, "generation_config.json")),
        ("config a pipe", |f| pipe(f, CONFIG)),
        ("config a device", |f| device(f, CONFIG)),
        ("rope base 0", |f| config(f, |c| c["model_config"]["position_embedding_base"] = json!(0))),
        ("eps -1", |f| config(f, |c| c["model_config"]["rms_norm_eps"] = json!(-1))),
        ("context 2^60", |f| config(f, |c| c["context_window_size"] = json!(1u64 << 60))),
        ("vocabulary -1", |f| config(f, |c| c["vocab_size"] = json!(-1))),
        ("inner vocabulary -1", |f| config(f, |c| c["model_config"]["vocab_size"] = json!(-1))),
        ("temperature -3", |f| config(f, |c| c["temperature"] = json!(-3))),
        ("top_p 7", |f| config(f, |c| c["top_p"] = json!(7))),
        ("gelu", |f| config(f, |c| c["model_config"]["hidden_act"] = json!("gelu"))),
        ("another quantisation", |f| config(f, |c| c["quantization"] = json!("q4f16_1"))),
        ("another layout", |f| config(f, |c| c["quantization"] = json!("q4f16_0"))),
    ];
    for (what, change) in broken {
        let home = folder(*change);
        let run = home.tessera(&RUN);
        assert_eq!(run.code, Some(1), "run, {what}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("error: "), "run, {what}: {}", run.stderr);
        let verify = home.tessera(&["verify", "m"]);
        assert_eq!(verify.code, Some(1), "verify, {what}: {}{}", verify.stdout, verify.stderr);
    }
}

/// The quantisation is what the tensors are, to every command.
#[test]
fn a_folder_that_says_another_quantisation_is_refused_by_all() {
    let home = folder(|f| config(f, |c| c["quantization"] = json!("q4f16_1")));
    for args in
        [&RUN[..], &["verify", "m"], &["convert", "m", "out", "--quant", "q4f16_1"], &["convert", "m", "o2"]]
    {
        home.tessera(args).fails(&["q4f16_1", "q4f32_1"]);
    }
}

#[test]
fn the_manifest_of_the_other_storage_is_looked_at() {
    let home = folder(|f| std::fs::write(f.join("tensor-cache-b16.json"), b"{\"metadata\": {").unwrap());
    home.tessera(&["verify", "m"]).fails(&["tensor-cache-b16.json"]);
}

#[test]
fn a_folder_with_that_manifest_alone_is_one_to_all() {
    let home = folder(|f| std::fs::remove_file(f.join("tensor-cache.json")).unwrap());
    assert!(home.path("m/tensor-cache-b16.json").is_file());
    for args in [&RUN[..], &["verify", "m"], &["inspect", "m"], &["convert", "m", "out"]] {
        home.tessera(args).ok();
    }
}

/// Settings that mean nothing are told, and nothing else changes.
#[test]
fn what_ends_nothing_is_told() {
    let told: &[(&str, Change)] = &[
        ("active_vocab_size", |f| config(f, |c| c["active_vocab_size"] = json!(-3))),
        ("1000000000", |f| config(f, |c| c["eos_token_id"] = json!(1_000_000_000))),
        ("stop_str", |f| config(f, |c| c["conv_template"]["stop_str"] = json!([""]))),
    ];
    for (word, change) in told {
        let home = folder(*change);
        let run = home.tessera(&RUN[..6]).ok();
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
}

/// LongRope's factor comes from the model's own length, not from the context that a packager chose.
#[test]
fn a_shorter_context_does_not_change_the_logits_of_longrope() {
    let logits = |context: i64| {
        let home = folder(|f| {
            config(f, |c| {
                let half = c["model_config"]["head_dim"].as_u64().unwrap() as usize / 2;
                c["model_config"]["rope_scaling"] = json!({
                    "rope_type": "longrope", "original_max_position_embeddings": 16,
                    "short_factor": vec![1.5; half], "long_factor": vec![4.0; half],
                });
                c["model_config"]["context_window_size"] = json!(256);
            })
        });
        config(&home.path("m"), |c| c["context_window_size"] = json!(context));
        home.tessera(&["logits", "m", "--tokens", "1,2,3,4", "--out", "l", "--backend", "reference"]).ok();
        std::fs::read(home.path("l")).unwrap()
    };
    assert_eq!(logits(256), logits(64));
}
