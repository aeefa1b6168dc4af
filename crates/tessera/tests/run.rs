//! Commands that compute, from outside, on a golden folder: `run`, `logits`, `perplexity`, `bench`, and what
//! they say about folders that cannot be used.

mod common;

use common::{Home, copy, golden};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// A home with a folder `m` that has everything. Its context is 64 tokens, too short for a chat template.
fn home() -> Home {
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
    home
}

fn run_json(home: &Home, args: &[&str]) -> Value {
    home.tessera(&[&["run", "m", "abc", "--raw", "--json", "-n", "12"], args].concat()).ok().json()
}

#[test]
fn run_prints_the_fields_that_clients_read() {
    let json = run_json(&home(), &["--temperature", "0"]);
    assert!(json["text"].is_string());
    let (tokens, prompt) =
        (json["token_ids"].as_array().unwrap(), json["prompt_token_ids"].as_array().unwrap());
    assert!(!prompt.is_empty() && !tokens.is_empty() && tokens.len() <= 12);
    assert_eq!(json["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(json["usage"]["completion_tokens"], tokens.len());
    assert!(["stop", "length"].contains(&json["finish_reason"].as_str().unwrap()), "{json}");
    for field in ["load_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(json["timings"][field].as_f64().is_some_and(|t| t > 0.0), "{field}: {json}");
    }
}

#[test]
fn the_same_settings_give_the_same_text() {
    let home = home();
    let greedy = run_json(&home, &["--temperature", "0"]);
    for args in [&["--threads", "1"][..], &["--threads", "3"], &["--kernels", "scalar"], &["--seed", "9"]] {
        let again = run_json(&home, &[&["--temperature", "0"], args].concat());
        assert_eq!(again["token_ids"], greedy["token_ids"], "{args:?}");
    }
    // A folder's penalties do not make greedy something else; typed ones do.
    let config = home.path("m/mlc-chat-config.json");
    let mut chat: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    chat["repetition_penalty"] = json!(100.0);
    std::fs::write(&config, chat.to_string()).unwrap();
    assert_eq!(run_json(&home, &["--temperature", "0"])["token_ids"], greedy["token_ids"]);
    let typed = run_json(&home, &["--temperature", "0", "--repetition-penalty", "100"]);
    assert_ne!(typed["token_ids"], greedy["token_ids"]);
    let hot = |seed: &str| {
        run_json(&home, &["--temperature", "100", "--top-p", "1", "--seed", seed])["token_ids"].clone()
    };
    let texts: Vec<_> = ["1", "2", "3"].map(hot).into();
    assert_eq!(texts[0], hot("1"));
    assert!(texts.iter().any(|t| *t != texts[0]), "seeds make no difference: {texts:?}");
}

#[test]
fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let home = home();
    // Without the penalty this model says one token again and again.
    let varied = ["--temperature", "0", "--repetition-penalty", "100"];
    let all = run_json(&home, &varied);
    let text = all["text"].as_str().unwrap();
    let third = text.chars().nth(2).unwrap().to_string();
    let before = &text[..text.find(&third).unwrap()];
    assert!(!before.is_empty(), "{text:?}");
    let cut = run_json(&home, &[&varied[..], &["--stop", &third]].concat());
    assert_eq!((&cut["finish_reason"], &cut["text"]), (&json!("stop"), &json!(before)));
}

#[test]
fn a_piped_prompt_is_the_same_as_a_given_one() {
    let home = home();
    let given = run_json(&home, &["--temperature", "0"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tessera"))
        .env("TESSERA_HOME", home.path("store"))
        .current_dir(home.0.path())
        .args(["run", "m", "--raw", "-n", "12", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"abc").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.strip_suffix('\n'), given["text"].as_str());
}

#[test]
fn logits_are_a_safetensors_file_on_both_backends() {
    let home = home();
    let rows = |file: &str, extra: &[&str]| -> Vec<f32> {
        let args = ["logits", "m", "--tokens", "1,20,21,22", "--out", file, "--json"];
        let json = home.tessera(&[&args[..], extra].concat()).ok().json();
        assert_eq!((&json["tensor"], &json["dtype"]), (&json!("logits"), &json!("F32")));
        let bytes = std::fs::read(home.path(file)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let logits = tensors.tensor("logits").unwrap();
        assert_eq!(json["shape"], json!(logits.shape()));
        assert_eq!(logits.shape()[0], 4);
        logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let reference = rows("r.safetensors", &["--backend", "reference"]);
    let exact = rows("e.safetensors", &["--exact"]);
    let largest = reference.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    assert!(largest > 0.0 && reference.iter().all(|x| x.is_finite()));
    // Both in f32; what is left is the order of sums and f16 keys and values.
    let worst = reference.iter().zip(&exact).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
    assert!(worst < 0.01 * largest, "{worst} of {largest}");
    home.tessera(&["logits", "m", "--tokens", "1,99999", "--out", "x"]).fails(&["99999", "vocabulary"]);
    home.tessera(&["logits", "m", "--tokens", "1", "--out", "no/x"]).fails(&["cannot write no/x"]);
    assert!(!home.path("x").exists());
}

#[test]
fn perplexity_does_not_depend_on_threads() {
    let home = home();
    std::fs::write(home.path("t.txt"), "a b c d e f g h ".repeat(12)).unwrap();
    let of = |args: &[&str]| {
        let json = home.tessera(&[&["perplexity", "m", "t.txt", "--json"], args].concat()).ok().json();
        assert!(json["perplexity"].as_f64().is_some_and(|p| p > 1.0 && p.is_finite()), "{json}");
        json
    };
    let (one, three) = (of(&["--threads", "1"]), of(&["--threads", "3"]));
    assert_eq!((&one["nll"], &one["window"]), (&three["nll"], &json!(64)));
    let short = of(&["--max-tokens", "20", "--window", "10"]);
    // The first token of a window is not predicted.
    assert_eq!((&short["tokens"], &short["predicted"]), (&json!(20), &json!(18)));
    std::fs::write(home.path("empty.txt"), "").unwrap();
    home.tessera(&["perplexity", "m", "gone.txt"]).fails(&["gone.txt"]);
    std::fs::write(home.path("bytes.txt"), [0x41, 0xff]).unwrap();
    home.tessera(&["perplexity", "m", "bytes.txt"]).fails(&["bytes.txt", "byte 1 is not UTF-8"]);
}

#[test]
fn bench_reports_medians_and_runs() {
    let home = home();
    let args = ["bench", "m", "--prompt-tokens", "16", "--gen-tokens", "8", "--depth", "4", "--batch", "2"];
    let json = home.tessera(&[&args[..], &["--repeat", "3", "--json"]].concat()).ok().json();
    for (key, value) in [("prompt_tokens", 16), ("gen_tokens", 8), ("depth", 4), ("batch", 2)] {
        assert_eq!(json[key], value, "{key}");
    }
    for key in ["prefill_tokens_per_s", "decode_tokens_per_s"] {
        let mut runs: Vec<f64> =
            json["runs"].as_array().unwrap().iter().map(|r| r[key].as_f64().unwrap()).collect();
        runs.sort_by(f64::total_cmp);
        assert_eq!((runs.len(), json[key].as_f64()), (3, Some(runs[1])), "{key}");
    }
    home.tessera(&["bench", "m", "--prompt-tokens", "0", "--gen-tokens", "0"]).fails(&["nothing to measure"]);
    home.tessera(&["bench", "m", "--prompt-tokens", "500"]).fails(&["the model has 64", "--context"]);
}

#[test]
fn a_folder_that_cannot_run_gets_one_sentence_and_a_hint() {
    let manifest = "tensor-cache.json";
    let config = "mlc-chat-config.json";
    type Damage<'a> = &'a dyn Fn(&Home);
    fn edit(home: &Home, file: &str, change: impl FnOnce(&mut Value)) {
        let path = home.path("m").join(file);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
    }
    let shard = |home: &Home| home.path("m/params_shard_1.bin");
    let cases: &[(&str, Damage<'_>, &[&str])] = &[
        (
            "missing shard",
            &|h| std::fs::remove_file(shard(h)).unwrap(),
            &["params_shard_1.bin is missing", "tessera verify"],
        ),
        (
            "truncated shard",
            &|h| {
                let bytes = std::fs::read(shard(h)).unwrap();
                std::fs::write(shard(h), &bytes[..100]).unwrap();
            },
            &["params_shard_1.bin has 100 bytes", "the manifest says 16364", "fetch this file again"],
        ),
        (
            "4 GiB tensor",
            &|h| edit(h, manifest, |m| m["records"][0]["records"][0]["nbytes"] = json!(1u64 << 32)),
            &[manifest, "nbytes is 4294967296"],
        ),
        (
            "path that leaves the folder",
            &|h| edit(h, manifest, |m| m["records"][0]["dataPath"] = json!("../x.bin")),
            &[manifest, "\"../x.bin\" is refused"],
        ),
        (
            "swapped scales",
            &|h| {
                edit(h, manifest, |m| {
                    let text = m.to_string();
                    let (codes, scales) =
                        ("layers.0.mlp.down_proj.q_weight", "layers.0.mlp.down_proj.q_scale");
                    let text = text.replace(codes, "TMP").replace(scales, codes).replace("TMP", scales);
                    *m = serde_json::from_str(&text).unwrap();
                });
            },
            &["down_proj.q_weight", "are swapped", "convert the checkpoint again"],
        ),
        (
            "manifest that is no JSON",
            &|h| std::fs::write(h.path("m").join(manifest), "{").unwrap(),
            &["tensor-cache.json: invalid JSON at line 1"],
        ),
        (
            "config that is no JSON",
            &|h| std::fs::write(h.path("m").join(config), "{").unwrap(),
            &["m: mlc-chat-config.json: invalid JSON"],
        ),
        (
            "unknown quantisation",
            &|h| edit(h, config, |c| c["quantization"] = json!("q5")),
            &[config, "unknown quantisation \"q5\"", "correct quantization"],
        ),
        (
            "unknown architecture",
            &|h| edit(h, config, |c| c["model_type"] = json!("lama")),
            &[config, "model type \"lama\"", "correct model_type"],
        ),
        (
            "missing tokenizer",
            &|h| std::fs::remove_file(h.path("m/tokenizer.json")).unwrap(),
            &["no tokenizer", "put the model's tokenizer.json"],
        ),
        (
            "unknown template",
            &|h| edit(h, config, |c| c["conv_template"] = json!("nope")),
            &["unknown conversation template \"nope\"", "--template", "--raw"],
        ),
    ];
    let home = home();
    std::fs::rename(home.path("m"), home.path("good")).unwrap();
    for (what, damage, words) in cases {
        let _ = std::fs::remove_dir_all(home.path("m"));
        copy(&home.path("good"), &home.path("m"));
        damage(&home);
        let run = home.tessera(&["run", "m", "Hi"]).fails(words);
        assert_eq!(
            (run.stdout.as_str(), run.stderr.matches("error:").count()),
            ("", 1),
            "{what}: {}",
            run.stderr
        );
        assert!(run.stderr.contains("\nhint: "), "{what}: {}", run.stderr);
        let json = home.tessera(&["run", "m", "Hi", "--json"]).fails(&[]);
        let error: Value = serde_json::from_str(json.stderr.lines().last().unwrap()).unwrap();
        assert!(
            error["error"]["message"].is_string() && error["error"]["hint"].is_string(),
            "{what}: {error}"
        );
    }
}

#[test]
fn wrong_usage_exits_with_2_and_wrong_input_with_1() {
    let home = home();
    for args in [
        &["run"][..],
        &["run", "m", "Hi", "--temperature=-1"],
        &["run", "m", "Hi", "--top-p", "2"],
        &["run", "m", "Hi", "--logit-bias", "5"],
        &["run", "m", "Hi", "--exact", "--fast"],
        &["run", "m", "Hi", "--raw", "--system", "x"],
        &["bench", "m", "--batch", "0"],
        &["logits", "m"],
    ] {
        assert_eq!(home.tessera(args).code, Some(2), "{args:?}");
    }
    home.tessera(&["run", "m", "Hi"]).fails(&["the context holds 64", "hint: shorten the prompt"]);
    home.tessera(&["run", "m", "", "--raw"]).fails(&["the prompt is empty"]);
    home.tessera(&["run", "m", "Hi", "--context", "100"]).fails(&["the model has 64"]);
    home.tessera(&["run", "m", "Hi", "--kernels", "mmx"]).fails(&["no mmx kernels", "scalar"]);
    home.tessera(&["run", "m", "Hi", "--raw", "--logit-bias", "99999=1"]).fails(&["99999"]);
    // This folder has no Hugging Face template.
    home.tessera(&["run", "gone", "Hi"]).fails(&["gone", "not in the store"]);
}
