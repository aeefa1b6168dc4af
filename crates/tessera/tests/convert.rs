//! `tessera convert` from outside: MLC's own bytes, every direction, and what is refused.

mod common;

use common::{Home, assert_holds, data, golden};
use serde_json::{Value, json};

#[test]
fn goldens_come_out_byte_for_byte() {
    for (name, scheme, cap, index) in [
        ("llama-gqa-f32", "q4f16_1", "16KiB", true),
        ("llama-mha-f16", "q3f16_0", "12KiB", false),
        ("gptneox-f16", "q4f32_1", "8KiB", false),
        ("internlm2-bf16", "q0f16", "8KiB", false),
    ] {
        let home = Home::new();
        home.checkpoint(name, index);
        let run = home
            .tessera(&["convert", "hf", "out", "--quant", scheme, "--shard-size", cap, "--threads", "2"])
            .ok();
        assert!(run.stderr.contains("no tokenizer.json"), "{}", run.stderr);
        assert_holds(&home.path("out"), &golden(name).join(scheme), str::to_owned);
    }
}

#[test]
fn the_chat_config_is_mlcs_too() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let args = ["convert", "hf", "out", "--quant", "q4f32_1", "--shard-size", "16KiB"];
    let run = home.tessera(&[&args[..], &["--conv-template", "llama-2", "--json"]].concat()).ok();
    let summary = run.json();
    assert_eq!((&summary["tensors"], &summary["files"]), (&json!(23), &json!(5)));
    assert_eq!(summary["conv_template"], "llama-2");
    assert_holds(&home.path("out"), &golden("llama-tied-bf16/q4f32_1"), str::to_owned);
    let config = std::fs::read_to_string(home.path("out/mlc-chat-config.json")).unwrap();
    assert_eq!(config, std::fs::read_to_string(data().join("chat-config/mlc-chat-config.json")).unwrap());
    assert!(home.path("out/tokenizer.json").is_file());
    assert!(home.tessera(&["verify", "out"]).ok().stdout.ends_with("56044 bytes: ok\n"));

    // The same shards under the older name, through a second conversion.
    home.tessera(&["convert", "out", "old", "--manifest", "ndarray-cache"]).ok();
    let renamed = |name: &str| name.replace("tensor-cache", "ndarray-cache");
    assert_holds(&home.path("old"), &home.path("out"), renamed);
    assert!(!home.path("old/tensor-cache.json").exists());
}

#[test]
fn a_dry_run_of_the_seeds_config_is_the_seeds_manifest() {
    let home = Home::new();
    std::fs::create_dir(home.path("hf")).unwrap();
    // The config of Chinese-LLaMA-2-1.3B; there are no weights.
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 32,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "vocab_size": 55296, "tie_word_embeddings": false, "torch_dtype": "float16"
    });
    std::fs::write(home.path("hf/config.json"), config.to_string()).unwrap();
    let run = home.tessera(&["convert", "hf", "--quant", "q4f32_1", "--dry-run"]).ok();
    let seed = std::fs::read_to_string(data().join("seed-ndarray-cache.json")).unwrap();
    let mut seed: Value = serde_json::from_str(&seed).unwrap();
    for shard in seed["records"].as_array_mut().unwrap() {
        assert!(shard.as_object_mut().unwrap().shift_remove("md5sum").is_some());
    }
    // As text, so that the order of keys and the spelling of numbers count.
    let text = |v: &Value| serde_json::to_string_pretty(v).unwrap();
    assert_eq!(text(&run.json()), text(&seed));
    home.tessera(&["convert", "hf", "out", "--quant", "q4f32_1"]).fails(&["no .safetensors"]);
    assert!(!home.path("out").exists());
}

#[test]
fn to_safetensors_and_back_gives_the_same_folder() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    // bf16 numbers stay what they are; only the order of tensors, and so the shards, may change.
    home.tessera(&["convert", "hf", "a", "--quant", "q0bf16"]).ok();
    let run = home.tessera(&["convert", "a", "st", "--to", "safetensors", "--json"]).ok();
    assert_eq!(run.json()["tensors"], 20);
    let config: Value = serde_json::from_slice(&std::fs::read(home.path("st/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!((&config["rope_theta"], &config["max_position_embeddings"]), (&json!(10000.0), &json!(64)));
    assert_eq!((&config["torch_dtype"], &config["tie_word_embeddings"]), (&json!("bfloat16"), &json!(true)));
    for scheme in ["q4f32_1", "q3f16_1"] {
        home.tessera(&["convert", "hf", "direct", "--quant", scheme]).ok();
        home.tessera(&["convert", "st", "back", "--quant", scheme]).ok();
        let list = |folder: &str| {
            let json = home.tessera(&["inspect", folder, "--tensors", "--json"]).ok().json();
            let mut list = json["tensor_list"].as_array().unwrap().clone();
            list.sort_by_key(|t| t["name"].to_string());
            list.into_iter()
                .map(|t| (t["name"].clone(), t["shape"].clone(), t["dtype"].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(list("direct"), list("back"));
        home.tessera(&["verify", "back"]).ok();
        for folder in ["direct", "back"] {
            std::fs::remove_dir_all(home.path(folder)).unwrap();
        }
    }
    home.tessera(&["convert", "a", "x", "--to", "safetensors", "--quant", "q4f16_1"])
        .fails(&["plain numbers"]);
    home.tessera(&["convert", "hf", "x", "--to", "safetensors"]).fails(&["checkpoint already"]);
}

#[test]
fn an_mlc_folder_takes_another_quantisation_with_a_note() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    home.tessera(&["convert", "hf", "a", "--quant", "q4f32_1"]).ok();
    let run = home.tessera(&["convert", "a", "b", "--quant", "q4f16_1"]).ok();
    assert!(run.stderr.contains("the source is quantised (q4f32_1)"), "{}", run.stderr);
    home.tessera(&["verify", "b"]).ok();
    let json = home.tessera(&["inspect", "b", "--json"]).ok().json();
    assert_eq!((&json["quantization"], &json["tensors"]), (&json!("q4f16_1"), &json!(23)));
    // What would do nothing where shards are copied.
    for flags in [&["--shard-size", "16KiB"][..], &["--whole-f32"]] {
        for to in ["c", "--dry-run"] {
            let run = home.tessera(&[&["convert", "a", to], flags].concat());
            run.fails(&[flags[0], "stays q4f32_1", "copied as they are", "hint:"]);
        }
    }
    home.tessera(&["convert", "a", "c", "--calibration", "x"]).fails(&["--optimize calibrated only"]);
    assert!(!home.path("c").exists());
}

#[test]
fn a_gguf_file_becomes_a_folder_that_verifies() {
    let home = Home::new();
    for file in ["tiny.gguf", "spm.gguf"] {
        std::fs::copy(data().join("gguf").join(file), home.path(file)).unwrap();
    }
    home.tessera(&["convert", "tiny.gguf", "out", "--quant", "q4f16_1"]).ok();
    home.tessera(&["verify", "out"]).ok();
    let json = home.tessera(&["inspect", "tiny.gguf", "--json"]).ok().json();
    assert_eq!((&json["kind"], &json["architecture"]), (&json!("GGUF file"), &json!("llama")));
    home.tessera(&["tokenize", "out", "a b"]).ok();
    // A vocabulary without a model.
    home.tessera(&["convert", "spm.gguf", "x", "--quant", "q0f16"])
        .fails(&["spm.gguf", "llama.embedding_length is missing"]);
}

#[test]
fn a_folder_becomes_a_gguf_file_and_comes_back() {
    let home = Home::new();
    std::fs::copy(data().join("gguf/tiny.gguf"), home.path("tiny.gguf")).unwrap();
    // Some of its matrices are Q4_0, and keep their codes; the others are quantised.
    let run = home.tessera(&["convert", "tiny.gguf", "a", "--quant", "q4f16_1", "--json"]).ok();
    let summary = run.json();
    assert_eq!((&summary["quantised"], &summary["exact"]), (&json!(9), &json!(2)));
    assert!(run.stderr.contains("2 of 9 quantised parameters have the codes"), "{}", run.stderr);
    let run = home.tessera(&["convert", "a", "a.gguf", "--to", "gguf"]).ok();
    assert!(run.stderr.contains("15 of 15 quantised tensors have exactly"), "{}", run.stderr);
    assert!(run.stdout.contains("a.gguf: 20 tensors in 1 file(s)"), "{}", run.stdout);
    let run = home.tessera(&["convert", "a.gguf", "b", "--quant", "q4f16_1"]).ok();
    assert!(run.stderr.contains("all 9 quantised parameters have the codes"), "{}", run.stderr);
    let decoded = |folder: &str, to: &str| {
        home.tessera(&["convert", folder, to, "--to", "safetensors", "--quant", "q0f32"]).ok();
        std::fs::read(home.path(to).join("model.safetensors")).unwrap()
    };
    // Every weight is what it was; in the second folder scales were turned over twice.
    assert!(decoded("a", "a-hf") == decoded("b", "b-hf"));
    let ids = |folder: &str| home.tessera(&["tokenize", folder, "hello world", "--json"]).ok().json();
    assert_eq!(ids("a"), ids("b"));

    let gguf = |args: &[&str]| home.tessera(&[&["convert"], args, &["--to", "gguf"]].concat());
    gguf(&["a", "a.gguf"]).fails(&["a.gguf exists already"]);
    gguf(&["a", "c.gguf", "--quant", "q0f16"]).fails(&["q4f16_1, not q0f16", "hint:"]);
    gguf(&["tiny.gguf", "c.gguf"]).fails(&["the source is a checkpoint", "hint:"]);
    home.tessera(&["convert", "a", "--dry-run", "--to", "gguf"]).fails(&["only an MLC folder has"]);
    assert!(!home.path("c.gguf").exists());
}

#[test]
fn what_cannot_be_converted_is_named_and_nothing_is_left() {
    let home = Home::new();
    home.checkpoint("llama-gqa-f32", true);
    let convert = |args: &[&str]| home.tessera(&[&["convert", "hf", "out"], args].concat());
    convert(&[]).fails(&["--quant is missing"]);
    convert(&["--quant", "q9f9"]).fails(&["unknown quantisation \"q9f9\"", "q4f16_1"]);
    convert(&["--quant", "q4f16_ft"]).fails(&["q4f16_ft is refused"]);
    convert(&["--quant", "q4f16_1", "--conv-template", "nope"]).fails(&["\"nope\""]);
    std::fs::create_dir(home.path("empty")).unwrap();
    home.tessera(&["convert", "empty", "out", "--quant", "q0f16"]).fails(&["empty", "hint:"]);
    home.tessera(&["convert", "gone", "out", "--quant", "q0f16"]).fails(&["gone"]);

    let config = home.path("hf/config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("\"llama\"", "\"lama\"")).unwrap();
    convert(&["--quant", "q0f16"]).fails(&["model type \"lama\" is not supported"]);
    std::fs::write(&config, "{").unwrap();
    convert(&["--quant", "q0f16"]).fails(&["config.json", "JSON"]);
    let mut quantised: Value = serde_json::from_str(&good).unwrap();
    quantised["quantization_config"] = json!({"quant_method": "awq"});
    std::fs::write(&config, quantised.to_string()).unwrap();
    convert(&["--quant", "q0f16"]).fails(&["quantised already (awq)"]);
    std::fs::write(&config, good.replace("\"intermediate_size\": 72", "\"intermediate_size\": 80")).unwrap();
    convert(&["--quant", "q0f16"]).fails(&["gate_proj.weight has shape [72, 48], expected [80, 48]"]);
    std::fs::write(&config, &good).unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(home.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["empty", "hf"]);

    home.tessera(&["convert", "hf", "empty", "--quant", "q0f16"]).ok();
    home.tessera(&["convert", "hf", "empty", "--quant", "q0f16"]).fails(&["not an empty folder"]);
}

#[test]
fn what_a_killed_conversion_left_goes_with_the_next_one_to_the_same_place() {
    let home = Home::new();
    home.checkpoint("llama-gqa-f32", true);
    for (args, dst) in [
        (&["convert", "hf", "out", "--quant", "q4f16_1"][..], "out"),
        (&["convert", "out", "copy"], "copy"),
        (&["convert", "out", "st", "--to", "safetensors"], "st"),
    ] {
        let left = home.path(&format!("{dst}.tmp-3e800"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("params_shard_0.bin"), [0; 100]).unwrap();
        std::fs::write(home.path(&format!("{dst}.tmp-3e800.lock")), "").unwrap();
        let run = home.tessera(args).ok();
        assert!(run.stderr.contains("removed; a conversion that was killed"), "{}", run.stderr);
        let names = std::fs::read_dir(home.0.path()).unwrap().map(|e| e.unwrap().file_name());
        let rest: Vec<_> = names.filter(|n| n.to_string_lossy().contains(".tmp-")).collect();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

/// Codes that are chosen better are in the format that everybody reads: here a reader in plain Python, which also finds
/// the errors that the report states.
#[test]
fn better_codes_are_read_by_others() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let text = "The quick brown fox jumps over the lazy dog; pack my box with five dozen jugs. ".repeat(40);
    std::fs::write(home.path("text.txt"), text).unwrap();
    home.tessera(&["convert", "hf", "plain", "--quant", "q0f32", "--whole-f32"]).ok();
    for (scheme, bits) in [("q4f32_1", "4"), ("q4f16_1", "4"), ("q3f16_1", "3")] {
        for level in ["scales", "calibrated"] {
            let dst = format!("{scheme}-{level}");
            let mut args = vec!["convert", "hf", &dst, "--quant", scheme, "--optimize", level, "--json"];
            if level == "calibrated" {
                args.extend(["--calibration", "text.txt"]);
            }
            let quality = home.tessera(&args).ok().json()["quality"].clone();
            assert_eq!(quality["level"], level);
            let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decode_folder.py");
            let told = std::process::Command::new("python3")
                .arg(script)
                .args([home.path(&dst), home.path("plain")])
                .arg(bits)
                .output()
                .unwrap();
            assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
            let told: Value = serde_json::from_slice(&told.stdout).unwrap();
            let matrices = quality["matrices"].as_array().unwrap();
            assert!(matrices.len() > 5);
            for matrix in matrices {
                let name = matrix["name"].as_str().unwrap();
                let number = |value: &Value| value.as_f64().unwrap();
                let (error, plain) = (number(&matrix["relative_squared_error"]), number(&matrix["plain"]));
                assert!((number(&told[name]) - error).abs() < 1e-3 * error, "{dst} {name}: {told} {error}");
                assert!(level == "calibrated" || error < plain, "{name}: {error} {plain}");
            }
            let held = &quality["held_back"];
            assert_eq!(held.is_null(), level == "scales");
            if level == "calibrated" {
                // How much less is lost is the engine's test: here it is a model of noise, and one sentence.
                assert!(held["kl"].as_f64().unwrap() > 0.0 && held["tokens"].as_u64() > Some(100), "{held}");
            }
            home.tessera(&["verify", &dst]).ok();
            assert!(
                !std::fs::read_dir(home.path("."))
                    .unwrap()
                    .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains(".tmp-") })
            );
        }
    }
}

#[test]
fn what_cannot_be_optimised_is_refused() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let convert = |args: &[&str]| home.tessera(&[&["convert", "hf", "out"], args].concat());
    convert(&["--quant", "q0f32", "--optimize", "scales"]).fails(&["q0f32 quantises nothing"]);
    convert(&["--quant", "q4f32_1", "--calibration", "x"]).fails(&["--optimize calibrated only"]);
    convert(&["--quant", "q4f32_1", "--optimize", "calibrated", "--calibration", "gone"]).fails(&["gone"]);
    home.tessera(&["convert", "hf", "q4", "--quant", "q4f32_1"]).ok();
    home.tessera(&["convert", "q4", "out", "--optimize", "scales"])
        .fails(&["the quantisation stays q4f32_1"]);
    let dry = ["convert", "hf", "--quant", "q0f16", "--optimize", "scales", "--dry-run"];
    home.tessera(&dry).fails(&["q0f16 quantises nothing"]);
    // What would do nothing says so.
    for flags in
        [&["--optimize", "scales"][..], &["--lora", "x"], &["--whole-f32"], &["--conv-template", "x"]]
    {
        for to in ["gguf", "safetensors"] {
            let args = [&["convert", "q4", "out", "--to", to], flags].concat();
            home.tessera(&args).fails(&[&format!("{} is about an MLC folder", flags[0])]);
        }
    }
    home.tessera(&["convert", "q4", "out", "--quant", "q0f32", "--allow-inexact"])
        .fails(&["about --to gguf"]);
    assert!(!home.path("out").exists());
}
