//! `tessera repair` and the digests that `verify` compares, from outside.

mod common;

use common::{Home, copy};
use serde_json::json;
use std::path::PathBuf;

/// A home with a folder `out` that runs, pulled as `m`.
fn pulled() -> (Home, PathBuf) {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let args = ["convert", "hf", "out", "--quant", "q4f32_1", "--shard-size", "16KiB"];
    home.tessera(&[&args[..], &["--conv-template", "llama-2"]].concat()).ok();
    home.tessera(&["pull", "./out", "--name", "m"]).ok();
    home.tessera(&["verify", "m"]).ok();
    let model = home.path("store/models/m");
    (home, model)
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_damaged_comes_back_and_nothing_else() {
    let (home, model) = pulled();
    assert_eq!(home.tessera(&["repair", "m"]).ok().stdout, "nothing is damaged\n");
    let shard = model.join("params_shard_1.bin");
    let whole = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &whole[..whole.len() - 100]).unwrap();
    flip(&model.join("params_shard_2.bin"), 77);
    flip(&model.join("tokenizer.json"), 30);
    let verify = home.tessera(&["verify", "m"]).fails(&[
        "shard params_shard_1.bin has",
        "shard params_shard_2.bin: MD5 is",
        "tokenizer.json: SHA-256",
        "it was installed with SHA-256",
        "hint: `tessera repair m` fetches again",
        "`tessera verify m --accept tokenizer.json`",
    ]);
    assert!(verify.stdout.contains("defect(s)"), "{}", verify.stdout);
    let json = home.tessera(&["repair", "m", "--json"]).ok().json();
    let second = std::fs::metadata(model.join("params_shard_2.bin")).unwrap().len();
    let tokenizer = std::fs::metadata(model.join("tokenizer.json")).unwrap().len();
    assert_eq!(json["mended"]["params_shard_1.bin"], json!({"in_part": true, "fetched": 100, "kept": null}));
    assert_eq!(json["mended"]["params_shard_2.bin"]["fetched"], second);
    assert_eq!(json["mended"]["tokenizer.json"]["kept"], "tokenizer.json.old");
    assert_eq!(json["fetched"], 100 + second + tokenizer);
    assert_eq!((&json["needed"], &json["defects"], &json["failed"]), (&json!([]), &json!([]), &json!({})));
    assert_eq!(std::fs::read(&shard).unwrap(), whole);
    home.tessera(&["verify", "m"]).ok();
    let run = home.tessera(&["run", "m", "--raw", "--max-tokens", "2", "--temperature", "0", "ab"]).ok();
    assert!(!run.stdout.is_empty());
}

#[test]
fn a_config_that_was_edited_on_purpose_is_accepted() {
    let (home, model) = pulled();
    let config = model.join("mlc-chat-config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let edited = text.replacen("\"temperature\"", "\"top_p\": 0.9,\n  \"temperature\"", 1);
    let edited = if edited == text { text.replacen('{', "{ ", 1) } else { edited };
    std::fs::write(&config, &edited).unwrap();
    home.tessera(&["verify", "m"]).fails(&[
        "mlc-chat-config.json has",
        "if you have edited mlc-chat-config.json on purpose",
        "`tessera verify m --accept mlc-chat-config.json`",
    ]);
    home.tessera(&["verify", "m", "--accept", "mlc-chat-config.json"]).ok();
    home.tessera(&["verify", "m"]).ok();
    assert_eq!(home.tessera(&["repair", "m"]).ok().stdout, "nothing is damaged\n");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), edited);
    // Who wants the first one back removes the edited one.
    std::fs::remove_file(&config).unwrap();
    home.tessera(&["verify", "m"]).fails(&["mlc-chat-config.json is missing"]);
    home.tessera(&["repair", "m"]).ok();
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
    home.tessera(&["verify", "m"]).ok();
    home.tessera(&["verify", "m", "--accept", "params_shard_0.bin"])
        .fails(&["params_shard_0.bin: the weights"]);
    home.tessera(&["verify", "out", "--accept", "tokenizer.json"]).fails(&["tessera-source.json"]);
}

#[test]
fn without_a_source_it_says_what_is_damaged_and_what_would_mend_it() {
    let (home, _) = pulled();
    copy(&home.path("out"), &home.path("mine"));
    let shard = home.path("mine/params_shard_1.bin");
    let whole = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &whole[..1000]).unwrap();
    std::fs::remove_file(home.path("mine/tokenizer.json")).unwrap();
    let needs = format!("params_shard_1.bin: needs the bytes 1000-{}", whole.len() - 1);
    home.tessera(&["repair", "./mine"]).fails(&[
        &needs,
        "where the folder came from is not recorded",
        "--from",
    ]);
    let run = home.tessera(&["repair", "./mine", "--json"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.json()["needed"][1]["file"], "tokenizer.json");
    assert_eq!(run.json()["source"], json!(null));
    assert_eq!(std::fs::read(&shard).unwrap().len(), 1000);
    let mended = home.tessera(&["repair", "./mine", "--from", "./out"]).ok();
    assert!(mended.stdout.contains("params_shard_1.bin: mended in part"), "{}", mended.stdout);
    assert_eq!(std::fs::read(&shard).unwrap(), whole);
    // Also without its manifest.
    for name in ["tensor-cache.json", "tensor-cache-b16.json", "params_shard_1.bin"] {
        std::fs::remove_file(home.path("mine").join(name)).unwrap();
    }
    home.tessera(&["repair", "./mine"]).fails(&["tensor-cache.json: needs all of it"]);
    home.tessera(&["repair", "./mine", "--from", "./out"]).ok();
    home.tessera(&["verify", "./mine"]).ok();
    // Another model's folder mends nothing and harms nothing.
    home.tessera(&["convert", "hf", "other", "--quant", "q4f16_1", "--shard-size", "16KiB"]).ok();
    flip(&shard, 5);
    let before = std::fs::read(&shard).unwrap();
    home.tessera(&["repair", "./mine", "--from", "./other"])
        .fails(&["params_shard_1.bin: not mended", "the source has another file"]);
    assert_eq!(std::fs::read(&shard).unwrap(), before);
}

#[test]
fn a_model_that_was_converted_is_made_again() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    home.tessera(&["pull", "./hf", "--name", "m", "--quant", "q4f32_1"]).ok();
    home.tessera(&["verify", "m"]).ok();
    let model = home.path("store/models/m");
    for name in ["tokenizer.json", "mlc-chat-config.json", "tensor-cache.json"] {
        let path = model.join(name);
        let good = std::fs::read(&path).unwrap();
        let at = good.iter().rposition(|b| b.is_ascii_digit()).unwrap();
        flip(&path, at);
        home.tessera(&["verify", "m"]).fails(&[&format!("{name}: SHA-256")]);
        std::fs::write(&path, good).unwrap();
    }
    flip(&model.join("params_shard_0.bin"), 5);
    let run = home.tessera(&["repair", "m"]).fails(&["its source has no such files", "--quant q4f32_1"]);
    let hint = run.stderr.split('`').nth(1).unwrap().to_string();
    let words: Vec<&str> = hint.split(' ').skip(1).collect();
    home.tessera(&words).ok();
    home.tessera(&["verify", "m"]).ok();
}
