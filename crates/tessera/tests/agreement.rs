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
const VERIFY: [&str; 2] = ["verify", "m"];
const INSPECT: [&str; 2] = ["inspect", "m"];
const CONVERT: [&str; 3] = ["convert", "m", "out"];

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn inner(folder: &Path, key: &str, value: Value) {
    config(folder, |c| c["model_config"][key] = value);
}

/// For each command whether it says that something is wrong: status 1, 0 else. Any other status is a mistake.
fn answers(home: &Home, what: &str) -> [bool; 4] {
    [&RUN[..], &VERIFY, &INSPECT, &CONVERT].map(|args| {
        let run = home.tessera(args);
        let (all, command) = (format!("{}{}", run.stdout, run.stderr), args[0]);
        let code = run.code.filter(|code| [0, 1].contains(code));
        let code = code.unwrap_or_else(|| panic!("{command}, {what}: {:?} {all}", run.code));
        let told = match command {
            "inspect" => all.contains("\nwrong ") || all.contains("error: "),
            "verify" => all.contains("defect(s)") || all.contains("error: "),
            _ => all.contains("error: "),
        };
        assert_eq!(code == 1, told, "{command}, {what}: {all}");
        assert!(
            code == 0 || command != "convert" || !home.path("out").exists(),
            "{what}: something was written"
        );
        code == 1
    })
}

#[test]
fn a_good_folder_is_good_to_all() {
    assert_eq!(answers(&folder(|_| {}), "good"), [false; 4]);
}

/// Whatever `run` refuses, `verify` and `inspect` report, and `convert` does not copy. Before: exit 0 of one or the
/// other, or a command that never ended.
#[test]
fn what_run_refuses_all_refuse() {
    let broken: &[(&str, Change)] = &[
        ("tokenizer.json cut", |f| write(f, "tokenizer.json", "{\"version\": ")),
        ("tokenizer.json empty object", |f| write(f, "tokenizer.json", "{}")),
        ("tokenizer.json a pipe", |f| pipe(f, "tokenizer.json")),
        ("tokenizer.json a device", |f| device(f, "tokenizer.json")),
        ("tokenizer_config.json a pipe", |f| pipe(f, "tokenizer_config.json")),
        ("chat_template.jinja a pipe", |f| pipe(f, "chat_template.jinja")),
        ("generation_config.json a pipe", |f| pipe(f, "generation_config.json")),
        ("config a pipe", |f| pipe(f, CONFIG)),
        ("config a device", |f| device(f, CONFIG)),
        ("config cut", |f| write(f, CONFIG, "{")),
        ("config.json a pipe", |f| pipe(f, "config.json")),
        ("config.json a device", |f| device(f, "config.json")),
        ("config.json cut", |f| write(f, "config.json", "{\"model_type\": ")),
        ("no model_type", |f| config(f, |c| c["model_type"] = Value::Null)),
        ("unknown architecture", |f| config(f, |c| c["model_type"] = json!("lama"))),
        ("a known one of other tensors", |f| config(f, |c| c["model_type"] = json!("internlm"))),
        ("rope base 0", |f| inner(f, "position_embedding_base", json!(0))),
        ("rope base a word", |f| inner(f, "position_embedding_base", json!("float32"))),
        ("rope scaling a word", |f| inner(f, "rope_scaling", json!({"rope_type": "aaaa"}))),
        ("eps -1", |f| inner(f, "rms_norm_eps", json!(-1))),
        ("context 2^60", |f| config(f, |c| c["context_window_size"] = json!(1u64 << 60))),
        ("context 0", |f| config(f, |c| c["context_window_size"] = json!(0))),
        ("vocabulary -1", |f| config(f, |c| c["vocab_size"] = json!(-1))),
        ("inner vocabulary -1", |f| inner(f, "vocab_size", json!(-1))),
        ("one more layer", |f| inner(f, "num_hidden_layers", json!(3))),
        ("one layer less", |f| inner(f, "num_hidden_layers", json!(1))),
        ("another hidden size", |f| inner(f, "hidden_size", json!(128))),
        ("temperature -3", |f| config(f, |c| c["temperature"] = json!(-3))),
        ("top_p 7", |f| config(f, |c| c["top_p"] = json!(7))),
        ("no place for a user's text", |f| {
            config(f, |c| c["conv_template"]["role_templates"]["user"] = json!("Answer it."))
        }),
        ("an id far beyond the others", |f| {
            let text = std::fs::read_to_string(f.join("tokenizer.json")).unwrap();
            let mut json: Value = serde_json::from_str(&text).unwrap();
            json["model"]["vocab"]["<far>"] = json!(16_777_215);
            write(f, "tokenizer.json", &json.to_string());
        }),
        ("gelu", |f| inner(f, "hidden_act", json!("gelu"))),
        ("experts", |f| inner(f, "num_experts", json!(4))),
        ("unknown quantisation", |f| config(f, |c| c["quantization"] = json!("q5"))),
        ("another quantisation", |f| config(f, |c| c["quantization"] = json!("q4f16_1"))),
        ("another layout", |f| config(f, |c| c["quantization"] = json!("q4f16_0"))),
        ("manifest cut", |f| write(f, "tensor-cache.json", "{\"metadata\": {")),
        ("manifest a pipe", |f| {
            pipe(f, "tensor-cache.json");
            std::fs::remove_file(f.join("tensor-cache-b16.json")).unwrap();
        }),
        ("shard missing", |f| std::fs::remove_file(f.join("params_shard_0.bin")).unwrap()),
        ("shard a pipe", |f| pipe(f, "params_shard_0.bin")),
        ("shard cut", |f| write(f, "params_shard_0.bin", "x")),
    ];
    for (what, change) in broken {
        assert_eq!(answers(&folder(*change), what), [true; 4], "{what}: run, verify, inspect, convert");
    }
}

/// Where one command differs from another, and why.
#[test]
fn where_commands_differ() {
    type Odd = (&'static str, Change, [bool; 4]);
    // For each: what run, verify, inspect and convert find wrong.
    let odd: &[Odd] = &[
        // Not needed to verify and to convert: told in a note.
        (
            "no tokenizer",
            |f| {
                std::fs::remove_file(f.join("tokenizer.json")).unwrap();
                config(f, |c| c["tokenizer_files"] = json!([]));
            },
            [true, false, false, false],
        ),
        // Listed files and templates that `run --raw` gets on without: others need them.
        (
            "a listed file is missing",
            |f| config(f, |c| c["tokenizer_files"] = json!(["tokenizer.json", "merges.txt"])),
            [false, true, true, false],
        ),
        (
            "unknown template",
            |f| config(f, |c| c["conv_template"] = json!("nope")),
            [false, true, true, false],
        ),
        // `run` and `convert` read the other manifest.
        (
            "second manifest cut",
            |f| write(f, "tensor-cache-b16.json", "{\"metadata\": {"),
            [false, true, true, false],
        ),
        // Only these two read every byte.
        (
            "a flipped bit",
            |f| {
                let path = f.join("params_shard_0.bin");
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[0] ^= 1;
                std::fs::write(path, bytes).unwrap();
            },
            [false, true, false, true],
        ),
    ];
    for (what, change, expected) in odd {
        assert_eq!(answers(&folder(*change), what), *expected, "{what}: run, verify, inspect, convert");
    }
}

/// What converts computes, and is right to every command.
#[test]
fn a_family_that_is_not_llama() {
    let home = folder(|_| {});
    std::fs::remove_dir_all(home.path("m")).unwrap();
    home.checkpoint("gpt2-f32", true);
    home.tessera(&["convert", "hf", "m", "--quant", "q0f32", "--conv-template", "LM"]).ok();
    for args in [&VERIFY[..], &INSPECT, &["logits", "m", "--tokens", "1,2,3", "--out", "l.safetensors"]] {
        home.tessera(args).ok();
    }
}

/// The quantisation is what the tensors are, to every command.
#[test]
fn a_folder_that_says_another_quantisation_is_refused_by_all() {
    let home = folder(|f| config(f, |c| c["quantization"] = json!("q4f16_1")));
    let as_said = ["convert", "m", "o2", "--quant", "q4f16_1"];
    for args in [&RUN[..], &VERIFY, &INSPECT, &CONVERT, &as_said] {
        home.tessera(args).fails(&["q4f16_1", "q4f32_1"]);
    }
}

/// What can be shown is shown, and then what is wrong.
#[test]
fn inspect_shows_a_broken_folder() {
    let home = folder(|f| inner(f, "vocab_size", json!(-1)));
    let text =
        home.tessera(&INSPECT).fails(&["quantization", "q4f32_1", "tensors", "vocab_size is -1", "hint: "]);
    assert!(text.stdout.find("bytes on disk") < text.stdout.find("wrong "), "{}", text.stdout);
    let json = home.tessera(&["inspect", "m", "--json"]).fails(&[]).json();
    assert_eq!((&json["architecture"], &json["defects"][0]["file"]), (&json!("llama"), &json!(CONFIG)));
    // A checkpoint is judged as `convert` would.
    home.checkpoint("llama-tied-bf16", true);
    home.tessera(&["inspect", "hf"]).ok();
    let path = home.path("hf/config.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    value["hidden_act"] = json!("gelu");
    std::fs::write(path, value.to_string()).unwrap();
    home.tessera(&["inspect", "hf"]).fails(&["hidden_act", "Hugging Face folder"]);
    home.tessera(&["convert", "hf", "o3", "--quant", "q4f32_1"]).fails(&["hidden_act"]);
}

#[test]
fn a_folder_with_a_b16_manifest_alone_is_one_to_all() {
    let home = folder(|f| std::fs::remove_file(f.join("tensor-cache.json")).unwrap());
    assert!(home.path("m/tensor-cache-b16.json").is_file());
    assert_eq!(answers(&home, "b16"), [false; 4]);
}

/// Settings that mean nothing are told, and nothing else changes.
#[test]
fn what_does_nothing_is_told() {
    let told: &[(&str, Change)] = &[
        ("active_vocab_size", |f| config(f, |c| c["active_vocab_size"] = json!(-3))),
        ("1000000000", |f| config(f, |c| c["eos_token_id"] = json!(1_000_000_000))),
        ("stop_str", |f| config(f, |c| c["conv_template"]["stop_str"] = json!([""]))),
        ("system_message", |f| config(f, |c| c["conv_template"]["system_template"] = json!("Be brief."))),
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
