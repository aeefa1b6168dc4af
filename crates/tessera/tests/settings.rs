//! No setting of a model is lost: `convert` reads, knows, tells or refuses every field of its sources, and a
//! folder whose config asks for something else than what is computed does not run.

mod common;

use common::{Home, copy, golden};
use serde_json::{Value, json};

const CHECKPOINT: &str = "llama-tied-bf16";

fn edit(home: &Home, file: &str, change: impl FnOnce(&mut Value)) {
    let path = home.path(file);
    let mut value = std::fs::read(&path).map_or(json!({}), |b| serde_json::from_slice(&b).unwrap());
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn checkpoint() -> Home {
    let home = Home::new();
    home.checkpoint(CHECKPOINT, true);
    home.tokenizer("hf");
    home
}

const CONVERT: [&str; 5] = ["convert", "hf", "out", "--quant", "q4f32_1"];

/// Before: all of these converted, most of them into something else.
#[test]
fn a_setting_that_cannot_be_kept_is_refused() {
    for (file, field, value) in [
        ("config.json", "hidden_act", json!("gelu")),
        ("config.json", "hidden_act", json!("relu")),
        ("config.json", "hidden_act", json!("relu2")),
        ("config.json", "hidden_act", json!(3)),
        ("config.json", "partial_rotary_factor", json!(0.5)),
        ("config.json", "attn_logit_softcapping", json!(30.0)),
        ("config.json", "num_experts", json!(8)),
        ("config.json", "num_local_experts", json!(8)),
        ("config.json", "logits_scaling", json!(8.0)),
        ("config.json", "use_qk_norm", json!(true)),
        ("config.json", "rope_scaling", json!("aaaa")),
        ("config.json", "rope_scaling", json!({"rope_type": "wavy", "factor": 2.0})),
        ("config.json", "rope_theta", json!("float32")),
        ("config.json", "rope_theta", json!(0)),
        ("config.json", "rms_norm_eps", json!(-1)),
        ("config.json", "max_position_embeddings", json!(0)),
        ("config.json", "eos_token_id", json!("x")),
        ("config.json", "eos_token_id", json!([1, "x"])),
        ("config.json", "temperature", json!("yarn")),
        ("generation_config.json", "temperature", json!("yarn")),
        ("generation_config.json", "temperature", json!(-1)),
        ("generation_config.json", "top_p", json!([1])),
        ("generation_config.json", "top_p", json!(1.5)),
        ("generation_config.json", "repetition_penalty", json!(0)),
        ("generation_config.json", "eos_token_id", json!("x")),
    ] {
        let home = checkpoint();
        // The golden's generation_config.json would answer for these.
        if file == "config.json" && (field == "eos_token_id" || field == "temperature") {
            let _ = std::fs::remove_file(home.path("hf/generation_config.json"));
        }
        edit(&home, &format!("hf/{file}"), |c| c[field] = value.clone());
        let run = home.tessera(&CONVERT).fails(&[field]);
        assert!(run.stderr.contains("hint: "), "{field} {value}: {}", run.stderr);
        assert!(!home.path("out").exists(), "{field} {value}: a folder was written");
    }
}

#[test]
fn a_setting_that_is_left_out_is_told() {
    let home = checkpoint();
    edit(&home, "hf/config.json", |c| {
        c["wibble_factor"] = json!(2);
        c["initializer_range"] = json!(0.02);
        c["attn_logit_softcapping"] = json!(null);
    });
    edit(&home, "hf/generation_config.json", |c| {
        c["top_k"] = json!(20);
        c["suppress_tokens"] = json!([1]);
        c["do_sample"] = json!(true);
    });
    let run = home.tessera(&CONVERT).ok();
    for name in ["wibble_factor", "top_k", "suppress_tokens"] {
        assert!(run.stderr.contains(name), "{name}: {}", run.stderr);
    }
    for name in ["initializer_range", "softcapping", "do_sample"] {
        assert!(!run.stderr.contains(name), "{name}: {}", run.stderr);
    }
    let json = home.tessera(&["convert", "hf", "out2", "--quant", "q4f32_1", "--json"]).ok().json();
    assert!(
        json["notes"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains("wibble_factor")),
        "{json}"
    );
}

/// MLC computes another activation whatever the config says; the authors' meaning is the config's.
#[test]
fn an_activation_that_the_family_does_not_have_is_refused() {
    let home = Home::new();
    home.checkpoint("gemma-bf16", true);
    edit(&home, "hf/config.json", |c| c["hidden_activation"] = json!("relu"));
    home.tessera(&CONVERT).fails(&["hidden_activation", "gelu_pytorch_tanh"]);
}

#[test]
fn tensors_that_are_not_needed_are_named() {
    let home = checkpoint();
    let path = home.path("hf/model.safetensors");
    let (names, bytes) = with_extra_tensors(&std::fs::read(&path).unwrap());
    std::fs::write(path, bytes).unwrap();
    let _ = std::fs::remove_file(home.path("hf/model.safetensors.index.json"));
    let run = home.tessera(&CONVERT).ok();
    for name in names {
        assert!(run.stderr.contains(name), "{name}: {}", run.stderr);
    }
}

/// A tied head's copy and a buffer, as many checkpoints hold them.
fn with_extra_tensors(file: &[u8]) -> ([&'static str; 2], Vec<u8>) {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + len]).unwrap();
    let mut data = file[8 + len..].to_vec();
    let names = ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"];
    let mut head = header["model.embed_tokens.weight"].clone();
    let range = [0, 1].map(|i| head["data_offsets"][i].as_u64().unwrap() as usize);
    let at = data.len();
    data.extend_from_within(range[0]..range[1]);
    head["data_offsets"] = json!([at, data.len()]);
    header[names[0]] = head;
    let at = data.len();
    data.extend_from_slice(&[0; 32]);
    header[names[1]] = json!({"dtype": "F32", "shape": [8], "data_offsets": [at, at + 32]});
    let text = header.to_string();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out.extend(data);
    (names, out)
}

/// MLC ignores these fields; the model's authors would not.
#[test]
fn a_folder_whose_config_contradicts_what_is_computed_does_not_run() {
    for (field, value) in [
        ("hidden_act", json!("gelu")),
        ("partial_rotary_factor", json!(0.25)),
        ("attn_logit_softcapping", json!(50.0)),
        ("num_experts", json!(4)),
    ] {
        let home = Home::new();
        copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
        edit(&home, "m/mlc-chat-config.json", |c| c["model_config"][field] = value.clone());
        home.tessera(&["run", "m", "Hi", "--max-tokens", "1"]).fails(&[field]);
        home.tessera(&["logits", "m", "--tokens", "1,2", "--out", "l"]).fails(&[field]);
    }
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
    edit(&home, "m/mlc-chat-config.json", |c| c["model_config"]["wibble_factor"] = json!(1));
    let run = home.tessera(&["run", "m", "--raw", "Hi", "--max-tokens", "1"]).ok();
    assert!(run.stderr.contains("wibble_factor"), "{}", run.stderr);
}

#[test]
fn defaults_outside_their_range_are_an_error_of_the_folder() {
    for (field, value) in [("temperature", -1.0), ("top_p", 2.0), ("repetition_penalty", 0.0)] {
        let home = Home::new();
        copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
        edit(&home, "m/mlc-chat-config.json", |c| c[field] = json!(value));
        home.tessera(&["run", "m", "Hi", "--max-tokens", "1"]).fails(&["mlc-chat-config.json", field]);
    }
}

/// Before: read by nobody and told to nobody.
#[test]
fn the_length_of_an_answer_is_told_as_other_settings_are() {
    let home = checkpoint();
    edit(&home, "hf/generation_config.json", |c| {
        c["max_length"] = json!(77);
        c["max_new_tokens"] = json!(7);
    });
    let run = home.tessera(&CONVERT).ok();
    assert!(run.stderr.contains("generation_config.json: max_length, max_new_tokens"), "{}", run.stderr);
    // Where older configs have them.
    let home = checkpoint();
    let _ = std::fs::remove_file(home.path("hf/generation_config.json"));
    edit(&home, "hf/config.json", |c| {
        c["top_k"] = json!(7);
        c["num_beams"] = json!(4);
        c["max_length"] = json!(20);
        c["do_sample"] = json!(false);
    });
    let run = home.tessera(&CONVERT).ok();
    assert!(run.stderr.contains("config.json: top_k, num_beams, do_sample left out"), "{}", run.stderr);
}

/// A family that does not run yet has settings that MLC's config has no place for.
#[test]
fn a_setting_without_a_place_is_told_or_refused() {
    for (model, field, value) in [
        ("gemma-bf16", "rope_scaling", json!({"rope_type": "linear", "factor": 2.0})),
        ("qwen2-tied-bf16", "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("gptneox-f16", "rope_scaling", json!({"type": "linear", "factor": 2.0})),
        ("internlm2-bf16", "rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
        ("phi3-bf16", "sliding_window", json!(5)),
    ] {
        let home = Home::new();
        home.checkpoint(model, true);
        edit(&home, "hf/config.json", |c| c[field] = value.clone());
        let run = home.tessera(&CONVERT);
        assert!(run.stderr.contains(field) || run.stderr.contains("window"), "{model}: {}", run.stderr);
    }
}

/// Before: dropped, for the config says that it is the embedding.
#[test]
fn a_head_that_is_not_the_embedding_is_refused() {
    let home = checkpoint();
    let path = home.path("hf/model.safetensors");
    let (names, mut bytes) = with_extra_tensors(&std::fs::read(&path).unwrap());
    // The head's last value lies before the buffer's 32 bytes.
    let last = bytes.len() - 33;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let _ = std::fs::remove_file(home.path("hf/model.safetensors.index.json"));
    home.tessera(&CONVERT).fails(&[
        "1 of the",
        names[0],
        "hint",
        "to false in config.json",
        "model.embed_tokens.weight",
        "tie_word_embeddings",
    ]);
    assert!(!home.path("out").exists());
}

/// A GGUF file with more keys.
fn gguf_with(keys: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let file = std::fs::read(common::data().join("gguf/tiny.gguf")).unwrap();
    let key = |name: &str, kind: u32, value: &[u8]| {
        let mut out = (name.len() as u64).to_le_bytes().to_vec();
        out.extend(name.bytes());
        out.extend(kind.to_le_bytes());
        out.extend(value);
        out
    };
    let mut added: Vec<u8> = keys.iter().flat_map(|(name, kind, value)| key(name, *kind, value)).collect();
    // Tensors keep their places where the header grows by whole steps of 32.
    let empty = key("general.description", 8, &0u64.to_le_bytes()).len();
    let fill = (32 - (added.len() + empty) % 32) % 32;
    let mut text = (fill as u64).to_le_bytes().to_vec();
    text.resize(8 + fill, b'x');
    added.extend(key("general.description", 8, &text));
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + keys.len() as u64 + 1;
    let mut out = file[..16].to_vec();
    out.extend(count.to_le_bytes());
    out.extend(added);
    out.extend(&file[24..]);
    out
}

#[test]
fn sampling_and_unknown_keys_of_a_gguf_file_are_kept_or_told() {
    let home = Home::new();
    let float = |x: f32| x.to_le_bytes().to_vec();
    let file = gguf_with(&[
        ("general.sampling.temp", 6, float(0.6)),
        ("general.sampling.top_p", 6, float(0.9)),
        ("general.sampling.penalty_repeat", 6, float(1.1)),
        ("general.sampling.top_k", 5, 20u32.to_le_bytes().to_vec()),
        ("tokenizer.ggml.wibble", 4, 1u32.to_le_bytes().to_vec()),
    ]);
    std::fs::write(home.path("m.gguf"), file).unwrap();
    let run = home.tessera(&["convert", "m.gguf", "out", "--quant", "q4f32_1"]).ok();
    assert!(run.stderr.contains("general.sampling: top_k left out"), "{}", run.stderr);
    assert!(run.stderr.contains("tokenizer.ggml.wibble"), "{}", run.stderr);
    let chat: Value =
        serde_json::from_slice(&std::fs::read(home.path("out/mlc-chat-config.json")).unwrap()).unwrap();
    let settings = ["temperature", "top_p", "repetition_penalty"].map(|key| chat[key].as_f64().unwrap());
    assert_eq!(settings, [0.6, 0.9, 1.1]);
}

#[test]
fn what_a_killed_logits_left_is_taken_over() {
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
    std::fs::write(home.path("l.tmp"), vec![b'x'; 1 << 20]).unwrap();
    home.tessera(&["logits", "m", "--tokens", "1,2", "--out", "l"]).ok();
    assert!(!home.path("l.tmp").exists());
    assert!(std::fs::metadata(home.path("l")).unwrap().len() < 1 << 20);
    // A failure leaves nothing.
    std::fs::create_dir(home.path("d")).unwrap();
    home.tessera(&["logits", "m", "--tokens", "1,2", "--out", "d"]).fails(&["cannot write"]);
    assert!(!home.path("d.tmp").exists());
}
