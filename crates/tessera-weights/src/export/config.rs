//! Hugging Face's `config.json` from `mlc-chat-config.json`: MLC's renamings undone.

use crate::arch::Sizes;
use crate::chat_config::ChatConfig;
use crate::config::{Activation, ModelConfig};
use crate::dtype::DType;
use serde_json::{Map, Value, json};

/// Keys of MLC's `model_config` that say nothing about the checkpoint.
const MLC_ONLY: &[&str] = &[
    "context_window_size",
    "prefill_chunk_size",
    "sliding_window_size",
    "attention_sink_size",
    "position_embedding_base",
    "tensor_parallel_shards",
    "pipeline_parallel_stages",
    "max_batch_size",
    "disaggregation",
    "dtype",
    "ffn_out_dtype",
    "weight_block_size",
    "model_type",
];

/// Class names of transformers.
const CLASSES: &[(&str, &str)] = &[
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("gemma", "GemmaForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
    ("gemma3_text", "Gemma3ForCausalLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt_neox", "GPTNeoXForCausalLM"),
    ("internlm", "InternLMForCausalLM"),
    ("internlm2", "InternLM2ForCausalLM"),
    ("phi", "PhiForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("orion", "OrionForCausalLM"),
    ("stablelm", "StableLmForCausalLM"),
    ("baichuan", "BaichuanForCausalLM"),
    ("starcoder2", "Starcoder2ForCausalLM"),
    ("cohere", "CohereForCausalLM"),
    ("olmo", "OlmoForCausalLM"),
    ("olmo2", "Olmo2ForCausalLM"),
    ("nemotron", "NemotronForCausalLM"),
];

/// The config of a checkpoint whose tensors are written as `dtype`. `sizes` are those of the folder, which
/// knows of biases that MLC's config leaves out.
pub fn hf_config(model_type: &str, chat: &ChatConfig, sizes: &Sizes, dtype: DType) -> Value {
    let model = &chat.model_config;
    let mut out = Map::new();
    if let Some((_, class)) = CLASSES.iter().find(|(t, _)| *t == model_type) {
        out.insert("architectures".to_owned(), json!([class]));
    }
    out.insert("model_type".to_owned(), json!(model_type));
    for (key, value) in model {
        // MLC's base is written below under HF's name.
        if !MLC_ONLY.contains(&key.as_str()) && !value.is_null() {
            out.insert(key.clone(), value.clone());
        }
    }
    let whole = |key: &str| {
        model.get(key).and_then(Value::as_i64).filter(|n| *n > 0).map(|n| (key.to_owned(), json!(n)))
    };
    let context = ["context_window_size", "max_position_embeddings"].into_iter().find_map(whole);
    let context =
        context.map(|(_, n)| n).or_else(|| chat.context_window_size.filter(|n| *n > 0).map(Value::from));
    let positions = if model_type == "gpt2" { "n_positions" } else { "max_position_embeddings" };
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value
            && !out.contains_key(key)
        {
            out.insert(key.to_owned(), value);
        }
    };
    let window = whole("sliding_window_size").map(|(_, n)| n);
    put(positions, context.or_else(|| window.clone()));
    put("sliding_window", window);
    let base = model.get("position_embedding_base").or_else(|| model.get("rope_theta")).cloned();
    if model_type == "gpt_neox" {
        put("rotary_emb_base", base.clone());
    }
    if model_type != "gpt2" {
        put("rope_theta", base);
    }
    put("tie_word_embeddings", Some(json!(sizes.tied || matches!(model_type, "gpt2" | "starcoder2"))));
    put("hidden_act", activation(model_type, chat).filter(|_| model_type != "gpt2"));
    if matches!(model_type, "llama" | "mistral") {
        put("attention_bias", Some(json!(sizes.qkv_bias)));
        put("mlp_bias", Some(json!(sizes.mlp_bias)));
    }
    for (key, value) in [
        ("bos_token_id", &chat.bos_token_id),
        ("eos_token_id", &chat.eos_token_id),
        ("pad_token_id", &chat.pad_token_id),
    ] {
        put(key, value.clone().filter(|v| !v.is_null()));
    }
    put("torch_dtype", Some(json!(dtype.name())));
    Value::Object(out)
}

/// The activation's name, where MLC's config leaves it to the architecture.
fn activation(model_type: &str, chat: &ChatConfig) -> Option<Value> {
    let mut json = json!({ "model_type": model_type, "model_config": chat.model_config });
    // The context does not matter here, and sliding windows have none.
    json["context_window_size"] = json!(1);
    let name = match ModelConfig::from_mlc(&json).ok()?.activation {
        Activation::Silu => "silu",
        Activation::Sigmoid => "sigmoid",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::Relu => "relu",
        Activation::Relu2 => "relu2",
    };
    Some(json!(name))
}
