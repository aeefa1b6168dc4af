//! `mlc-chat-config.json` against one that MLC wrote, and against files that are old or broken.
//! `tests/data/chat-config` holds MLC's output and the Hugging Face files that it was made from.

use serde_json::{Value, json};
use tessera_weights::chat_config::{
    ChatConfig, ChatConfigInputs, ConvField, ConvTemplate, TokenizerInfo, eos_ids,
};

const MLC: &str = include_str!("data/chat-config/mlc-chat-config.json");

fn hf(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn generate(hf_config: &Value, model_type: &str) -> ChatConfig {
    let generation = hf(include_str!("data/chat-config/generation_config.json"));
    let tokenizer = hf(include_str!("data/chat-config/tokenizer.json"));
    ChatConfig::generate(ChatConfigInputs {
        model_type,
        quantization: "q4f32_1",
        hf_config,
        generation_config: Some(&generation),
        tokenizer_files: &["tokenizer.json".to_owned(), "tokenizer_config.json".to_owned()],
        tokenizer_info: TokenizerInfo::detect(&tokenizer),
        active_vocab_size: Some(259),
        conv_template: ConvTemplate::builtin("llama-2").unwrap(),
        embedding: None,
    })
}

#[test]
fn what_is_generated_is_what_mlc_wrote() {
    let config = generate(&hf(include_str!("data/chat-config/config.json")), "llama");
    assert_eq!(config.to_json(), MLC);
}

#[test]
fn what_mlc_wrote_is_read_and_written_back() {
    let config = ChatConfig::parse(MLC.as_bytes()).unwrap();
    assert!(config.unknown.is_empty() && config.legacy.is_empty(), "{:?}", config.unknown);
    assert_eq!(config.to_json(), MLC);
    assert_eq!(config.stop_token_ids().unwrap(), [2]);
}

#[test]
fn a_legacy_folder_is_read() {
    let old = json!({
        "model_lib": "vicuna-v1-7b-q4f32_0", "local_id": "x", "conv_template": "llama-2",
        "max_window_size": 2048, "temperature": 0.7, "top_p": 0.95, "tokenizer_files": ["tokenizer.model"],
        "num_shards": 1, "a_new_key": {}
    });
    let config = ChatConfig::parse(old.to_string().as_bytes()).unwrap();
    assert_eq!(config.context_window_size, Some(2048));
    assert_eq!(config.conv_template, Some(ConvField::Named("llama-2".to_owned())));
    assert_eq!(config.unknown, ["a_new_key"]);
    assert_eq!(config.legacy, ["model_lib", "local_id", "num_shards", "max_window_size"]);
    assert_eq!(config.stop_token_ids().unwrap(), [2]);
}

#[test]
fn defects_name_the_field_and_what_was_found() {
    for (text, field) in [
        (r#"{"vocab_size": "many"}"#, "vocab_size: expected a whole number, found \"many\""),
        (r#"{"eos_token_id": "</s>"}"#, "eos_token_id: expected a list of token ids"),
        (r#"{"conv_template": 7}"#, "conv_template: expected an object or a string, found 7"),
        (r#"{"conv_template": {"roles": {"user": "U"}}}"#, "conv_template.seps"),
        (r#"{"tokenizer_info": {"strip_space_in_decode": 1}}"#, "tokenizer_info.strip_space_in_decode"),
        ("[]", "the file: expected an object"),
        ("{", "invalid JSON"),
    ] {
        let message = ChatConfig::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(field), "{text}: {message}");
    }
    let named = ChatConfig::parse(br#"{"conv_template": "no-such"}"#).unwrap();
    assert!(named.stop_token_ids().unwrap_err().to_string().contains("no-such"));
}

#[test]
fn rope_settings_that_mlc_drops_are_kept() {
    let mut config = hf(include_str!("data/chat-config/config.json"));
    config["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
    let model = generate(&config, "llama").model_config;
    assert_eq!(model["rope_scaling"], json!({"type": "linear", "factor": 4.0, "rope_type": "linear"}));
    let map = config.as_object_mut().unwrap();
    map.remove("rope_scaling");
    map.remove("rope_theta");
    map.insert(
        "rope_parameters".into(),
        json!({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}),
    );
    let model = generate(&config, "llama").model_config;
    assert_eq!(model["position_embedding_base"], json!(500000.0));
    assert_eq!(model["rope_scaling"], json!({"rope_type": "llama3", "factor": 8.0}));
}

#[test]
fn other_families_keep_what_a_reader_needs() {
    let mut config = hf(include_str!("data/chat-config/config.json"));
    config["sliding_window"] = json!(32);
    config["final_logit_softcapping"] = json!(30.0);
    let mistral = generate(&config, "mistral");
    assert_eq!((mistral.context_window_size, mistral.sliding_window_size), (Some(-1), Some(32)));
    assert_eq!((mistral.prefill_chunk_size, mistral.attention_sink_size), (Some(32), Some(4)));
    assert_eq!(generate(&config, "qwen2").sliding_window_size, Some(-1));
    let gpt2 = json!({"n_embd": 8, "n_head": 2, "n_positions": 16, "n_inner": null, "vocab_size": 3});
    let gpt2 = generate(&gpt2, "gpt2").model_config;
    assert_eq!((&gpt2["n_inner"], &gpt2["head_dim"]), (&json!(32), &json!(4)));
    let other = generate(&config, "a_new_family").model_config;
    assert_eq!(other["final_logit_softcapping"], json!(30.0));
    assert_eq!(other["num_key_value_heads"], json!(1));
}

#[test]
fn end_tokens_are_one_id_or_several() {
    assert_eq!(eos_ids(Some(&json!([1, 107]))), [1, 107]);
    assert_eq!(eos_ids(Some(&json!(2))), [2]);
    assert_eq!(eos_ids(Some(&json!(-1))), [] as [u32; 0]);
    assert_eq!(eos_ids(None), [] as [u32; 0]);
}
