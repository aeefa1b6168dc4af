//! `tessera inspect`, `verify` and `tokenize` from outside, on good folders and on damaged ones.

mod common;

use common::{Home, copy, golden};
use serde_json::{Value, json};

/// A home with a small folder `m` that has everything.
fn home() -> Home {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let args =
        ["convert", "hf", "m", "--quant", "q4f32_1", "--shard-size", "16KiB", "--conv-template", "llama-2"];
    home.tessera(&args).ok();
    home
}

#[test]
fn inspect_says_what_is_there() {
    let home = home();
    let json = home.tessera(&["inspect", "m", "--json"]).ok().json();
    for (key, value) in [
        ("architecture", json!("llama")),
        ("quantization", json!("q4f32_1")),
        ("layers", json!(2)),
        ("heads", json!(4)),
        ("kv_heads", json!(1)),
        ("context", json!(64)),
        ("tensors", json!(23)),
        ("shards", json!(5)),
        ("bytes_on_disk", json!(56044)),
        ("bytes_in_memory", json!(62840)),
        // 2 layers x 1 head x 16 x (key and value) x 2 bytes.
        ("kv_bytes_per_token", json!(128)),
        ("manifests", json!(["tensor-cache.json", "tensor-cache-b16.json"])),
        ("conv_template", json!("llama-2")),
        ("stop_token_ids", json!([2])),
        ("notes", json!([])),
    ] {
        assert_eq!(json[key], value, "{key}");
    }
    let text = home.tessera(&["inspect", "m/tensor-cache.json", "--tensors"]).ok().stdout;
    assert!(text.contains("kv bytes per token") && text.contains("model.norm.weight"), "{text}");
    let hf = home.tessera(&["inspect", "hf", "--json"]).ok().json();
    assert_eq!((&hf["kind"], &hf["tensors"]), (&json!("Hugging Face folder"), &json!(20)));
}

#[test]
fn a_folder_without_a_config_is_guessed_aloud() {
    let home = Home::new();
    copy(&golden("llama-gqa-f32/q4f16_0"), &home.path("m"));
    let json = home.tessera(&["inspect", "m", "--json"]).ok().json();
    assert_eq!((&json["architecture"], &json["quantization"]), (&json!("llama"), &json!("q4f16_0")));
    let notes = json["notes"].to_string();
    for word in ["rotary base", "context is assumed", "quantisation is assumed", "mlc-chat-config.json"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    let run = home.tessera(&["verify", "m"]).ok();
    assert!(run.stderr.contains("is assumed to be q4f16_0"), "{}", run.stderr);
}

/// Changes a JSON file of the folder.
fn edit(home: &Home, file: &str, change: impl FnOnce(&mut Value)) {
    let path = home.path("m").join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
}

#[test]
fn each_defect_is_one_line_that_names_it() {
    let manifest = "tensor-cache.json";
    let config = "mlc-chat-config.json";
    type Case<'a> = (&'a str, &'a dyn Fn(&Home), &'a [&'a str]);
    let shard = |home: &Home| home.path("m/params_shard_1.bin");
    let cases: &[Case<'_>] = &[
        ("missing shard", &|h| std::fs::remove_file(shard(h)).unwrap(), &["params_shard_1.bin", "missing"]),
        (
            "truncated shard",
            &|h| {
                let bytes = std::fs::read(shard(h)).unwrap();
                std::fs::write(shard(h), &bytes[..bytes.len() - 3]).unwrap();
            },
            &["params_shard_1.bin", "16364", "16361"],
        ),
        (
            "flipped bit",
            &|h| {
                let mut bytes = std::fs::read(shard(h)).unwrap();
                bytes[7] ^= 1;
                std::fs::write(shard(h), &bytes).unwrap();
            },
            &["params_shard_1.bin", "MD5 is"],
        ),
        (
            "swapped scales",
            &|h| {
                edit(h, manifest, |m| {
                    let text = m.to_string();
                    let text = text
                        .replace("layers.0.self_attn.qkv_proj.q_scale", "PLACE")
                        .replace("layers.0.mlp.gate_up_proj.q_scale", "layers.0.self_attn.qkv_proj.q_scale")
                        .replace("PLACE", "layers.0.mlp.gate_up_proj.q_scale");
                    *m = serde_json::from_str(&text).unwrap();
                });
            },
            &["model.layers.0.mlp.gate_up_proj.q_scale", "[320, 2]", "[96, 2]"],
        ),
        (
            "path that leaves the folder",
            &|h| edit(h, manifest, |m| m["records"][0]["dataPath"] = json!("../params_shard_0.bin")),
            &["dataPath", "../params_shard_0.bin"],
        ),
        (
            "4 GiB tensor",
            &|h| edit(h, manifest, |m| m["records"][0]["records"][0]["nbytes"] = json!(1u64 << 32)),
            &["nbytes", "4294967296"],
        ),
        (
            "manifest that is no JSON",
            &|h| std::fs::write(h.path("m").join(manifest), "{").unwrap(),
            &[manifest],
        ),
        ("unknown quantisation", &|h| edit(h, config, |c| c["quantization"] = json!("q5")), &["\"q5\""]),
        ("unknown architecture", &|h| edit(h, config, |c| c["model_type"] = json!("lama")), &["\"lama\""]),
        ("unknown template", &|h| edit(h, config, |c| c["conv_template"] = json!("nope")), &["\"nope\""]),
        (
            "config that is no JSON",
            &|h| std::fs::write(h.path("m").join(config), "{").unwrap(),
            &[config, "JSON"],
        ),
        (
            "missing tokenizer",
            &|h| std::fs::remove_file(h.path("m/tokenizer.json")).unwrap(),
            &["tokenizer.json", "missing"],
        ),
    ];
    let home = home();
    std::fs::rename(home.path("m"), home.path("good")).unwrap();
    for (what, damage, words) in cases {
        let _ = std::fs::remove_dir_all(home.path("m"));
        copy(&home.path("good"), &home.path("m"));
        damage(&home);
        let run = home.tessera(&["verify", "m"]).fails(words);
        assert!(run.stdout.contains("defect(s)") && run.stderr.contains("hint:"), "{what}: {}", run.stdout);
        let json = home.tessera(&["verify", "m", "--json"]);
        assert_eq!(json.code, Some(1), "{what}");
        let defect = &json.json()["defects"][0];
        for field in ["file", "field", "expected", "found"] {
            assert!(defect[field].as_str().is_some_and(|t| !t.is_empty()), "{what}: {defect}");
        }
    }
}

#[test]
fn tokenize_shows_the_text_plain_and_in_the_template() {
    let home = home();
    let json = home.tessera(&["tokenize", "m", "Hi", "--json"]).ok().json();
    assert_eq!((&json["ids"], &json["pieces"]), (&json!([42, 75]), &json!(["H", "i"])));
    assert_eq!(json["chat"]["template"], "llama-2");
    assert!(json["chat"]["prompt"].as_str().unwrap().ends_with("Hi [/INST] "), "{json}");
    assert_eq!(json["chat"]["ids"][0], 1);
    let text = home.tessera(&["tokenize", "m", "Hi"]).ok().stdout;
    assert!(text.starts_with("without template: 2 tokens\n     42  \"H\"\n"), "{text}");
    std::fs::remove_file(home.path("m/tokenizer.json")).unwrap();
    home.tessera(&["tokenize", "m", "Hi"]).fails(&["no tokenizer"]);
    home.tessera(&["tokenize", "hf", "Hi"]).fails(&["not an MLC folder", "tessera convert"]);
}

#[test]
fn pulling_a_checkpoint_converts_and_verifies_it() {
    let home = Home::new();
    home.checkpoint("llama-tied-bf16", true);
    home.tokenizer("hf");
    let json = home.tessera(&["pull", "./hf", "--name", "tiny", "--quant", "q4f32_1", "--json"]).ok().json();
    assert_eq!(json["quantization"], "q4f32_1");
    assert_eq!(json["source"]["converted"], "converted from Hugging Face to q4f32_1");
    home.tessera(&["verify", "tiny"]).ok();
    home.tessera(&["tokenize", "tiny", "Hi"]).ok();
    home.tessera(&["convert", "tiny", "again", "--manifest", "ndarray-cache"]).ok();
    home.tessera(&["verify", "again"]).ok();
    home.tessera(&["pull", "./hf", "--name", "other", "--quant", "q7"]).fails(&["\"q7\""]);
    home.tessera(&["inspect", "other"]).fails(&["not in the store"]);
}

#[test]
fn tokenize_gives_templates_the_date_of_today() {
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("f"));
    let config = home.path("f/mlc-chat-config.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("conv_template");
    std::fs::write(config, value.to_string()).unwrap();
    std::fs::write(home.path("f/chat_template.jinja"), "{{ strftime_now('%Y') }}").unwrap();
    let prompt = home.tessera(&["tokenize", "f", "x", "--json"]).ok().json()["chat"]["prompt"].clone();
    let year: u32 = prompt.as_str().unwrap().parse().unwrap();
    assert!(year > 2024, "{year}");
}
