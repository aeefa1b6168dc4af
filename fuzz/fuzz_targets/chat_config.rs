//! Any JSON as a chat config, and as a checkpoint's `config.json`: what is accepted lies inside its limits, reads
//! the same after it was written, and frames a conversation without changing it.
//!
//! ```text
//! mkdir -p fuzz/corpus/chat_config && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none chat_config \
//!     fuzz/corpus/chat_config fuzz/seeds/chat_config -- -runs=1000000 -dict=fuzz/chat_config.dict -max_len=4096
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tessera_engine::template::{Message, RenderOptions, render_conv};
use tessera_engine::text::sampling_defaults;
use tessera_weights::arch::{self, Sizes};
use tessera_weights::chat_config::{ChatConfig, ChatConfigInputs, ConvField, ConvTemplate, TokenizerInfo};
use tessera_weights::config::{ModelConfig, RopeScaling, known};

/// What people write, with everything in it that a template's frames look for.
const WRITTEN: &str = "{user_message}{system_message}{function_string}</s>\n";

fuzz_target!(|bytes: &[u8]| {
    let config = ChatConfig::parse(bytes);
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else {
        assert!(config.is_err());
        return;
    };
    if let Ok(config) = config {
        chat_config(config);
    }
    if let Ok(model) = ModelConfig::from_mlc(&json) {
        within_limits(&model);
    }
    if let Ok(model) = ModelConfig::from_hf(&json) {
        within_limits(&model);
        generated(&model.model_type, &json);
    }
});

fn chat_config(config: ChatConfig) {
    let text = config.to_json();
    let again = ChatConfig::parse(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again.to_json(), text);
    let written = ChatConfig {
        version: config.version.clone().or(Some("0.1.0".to_owned())),
        model_task: config.model_task.clone().or(Some("chat".to_owned())),
        // A name and an object are the same thing, written in two ways.
        legacy: Vec::new(),
        unknown: Vec::new(),
        ..config.clone()
    };
    assert_eq!(again, written);
    if let Ok(defaults) = sampling_defaults(Some(&config)) {
        assert!(defaults.check().is_ok());
    }
    let Ok(stops) = config.stop_token_ids() else { return };
    assert!(stops.is_sorted());
    let Some(Ok(conv)) = config.conv_template.as_ref().map(ConvField::resolve) else { return };
    let conversation = [
        Message::new("system", WRITTEN),
        Message::new("user", WRITTEN),
        Message::new("assistant", "Hello!"),
        Message::new("user", WRITTEN),
    ];
    for messages in [&conversation[..], &conversation[1..]] {
        let Ok(prompt) = render_conv(&conv, messages, &RenderOptions::answer()) else { continue };
        let frame = conv.role_template("user").unwrap_or("{user_message}");
        assert!(prompt.text.contains(WRITTEN) || !frame.contains("{user_message}"), "{conv:?}");
    }
}

fn within_limits(model: &ModelConfig) {
    assert!(model.hidden_size > 0 && model.intermediate_size > 0 && model.head_dim > 0, "{model:?}");
    assert!(model.vocab_size > 0 && model.num_hidden_layers > 0, "{model:?}");
    assert!(model.num_attention_heads.is_multiple_of(model.num_key_value_heads), "{model:?}");
    assert!(model.context_window_size > 0 && model.trained_context > 0, "{model:?}");
    assert!(model.context_window_size <= 1 << 24 && model.trained_context <= 1 << 24, "{model:?}");
    assert!(model.norm_eps > 0.0 && model.norm_eps < 1.0, "{model:?}");
    assert!(model.rope_theta.is_finite() && model.rope_theta >= 1.0, "{model:?}");
    match &model.rope_scaling {
        RopeScaling::LongRope { short_factor, long_factor, .. } => {
            assert_eq!((short_factor.len(), long_factor.len()), (model.head_dim / 2, model.head_dim / 2));
        }
        RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } => {
            assert!(low_freq_factor < high_freq_factor);
        }
        _ => {}
    }
    if model.num_hidden_layers > 4 {
        return;
    }
    let params = arch::params(&model.model_type, &Sizes::from(model)).expect("checked sizes are a model's");
    for param in params {
        let numel = param.shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        assert!(numel.is_some_and(|n| n > 0), "{param:?}");
    }
}

/// A checkpoint's config as a chat config: readable, and the same when written twice.
fn generated(model_type: &str, config: &Value) {
    let _ = known::findings(model_type, config);
    let chat = ChatConfig::generate(ChatConfigInputs {
        model_type,
        quantization: "q4f16_1",
        hf_config: config,
        generation_config: None,
        tokenizer_files: &[],
        tokenizer_info: TokenizerInfo::default(),
        active_vocab_size: None,
        conv_template: ConvTemplate::builtin("LM").expect("it is built in"),
        embedding: None,
    });
    let text = chat.to_json();
    let Ok(again) = ChatConfig::parse(text.as_bytes()) else { return };
    assert_eq!(again.to_json(), text);
    let _ = ModelConfig::from_mlc(&serde_json::from_str(&text).expect("it is JSON"));
}
