//! A chat config made from Hugging Face's files, as MLC's `gen_config` makes it.

use super::mixed;
use super::origin::{Field, From};
use super::{ChatConfig, ConvField, ConvTemplate, TokenizerInfo};
use crate::config::flattened;
use crate::embedding::{Embedding, Pooling};
use serde_json::{Map, Number, Value, json};

/// What a chat config is made from.
#[derive(Clone, Debug)]
pub struct ChatConfigInputs<'a> {
    /// MLC's name of the architecture.
    pub model_type: &'a str,
    /// Scheme name.
    pub quantization: &'a str,
    /// `config.json`.
    pub hf_config: &'a Value,
    /// `generation_config.json`.
    pub generation_config: Option<&'a Value>,
    /// Names of the tokenizer's files, in the order in which they are to be listed.
    pub tokenizer_files: &'a [String],
    /// How tokens stand for bytes.
    pub tokenizer_info: TokenizerInfo,
    /// Usable ids; the embedding's rows where there is no `tokenizer.json`.
    pub active_vocab_size: Option<usize>,
    /// The template of a chat.
    pub conv_template: ConvTemplate,
    /// What the source's authors say of the vectors that it makes, if they do.
    pub embedding: Option<Embedding>,
}

const LLAMA: &[Field] = &[
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("num_attention_heads", From::Same),
    ("num_hidden_layers", From::Same),
    ("rms_norm_eps", From::Same),
    ("vocab_size", From::Vocab),
    ("tie_word_embeddings", From::False),
    ("position_embedding_base", From::RopeTheta),
    ("rope_scaling", From::RopeScaling),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("num_key_value_heads", From::KvHeads),
    ("head_dim", From::HeadDim),
    ("tensor_parallel_shards", From::One),
    ("pipeline_parallel_stages", From::One),
    ("max_batch_size", From::One),
    ("disaggregation", From::False),
];

const QWEN2: &[Field] = &[
    ("hidden_act", From::Same),
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("num_attention_heads", From::Same),
    ("num_hidden_layers", From::Same),
    ("num_key_value_heads", From::KvHeads),
    ("rms_norm_eps", From::Same),
    ("rope_theta", From::RopeTheta),
    ("vocab_size", From::Same),
    ("tie_word_embeddings", From::False),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("tensor_parallel_shards", From::One),
    ("head_dim", From::HeadDim),
    ("dtype", From::Text("float32")),
    ("max_batch_size", From::One),
];

const QWEN3: &[Field] = &[
    ("hidden_act", From::Same),
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("attention_bias", From::False),
    ("num_attention_heads", From::Same),
    ("num_hidden_layers", From::Same),
    ("num_key_value_heads", From::KvHeads),
    ("rms_norm_eps", From::Same),
    ("rope_theta", From::RopeTheta),
    ("vocab_size", From::Same),
    ("tie_word_embeddings", From::False),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("tensor_parallel_shards", From::One),
    ("head_dim", From::HeadDim),
    ("dtype", From::Text("float32")),
    ("max_batch_size", From::One),
    ("weight_block_size", From::Null),
];

const MISTRAL: &[Field] = &[
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("num_attention_heads", From::Same),
    ("num_hidden_layers", From::Same),
    ("rms_norm_eps", From::Same),
    ("vocab_size", From::Same),
    ("position_embedding_base", From::RopeTheta),
    ("num_key_value_heads", From::KvHeads),
    ("head_dim", From::HeadDim),
    ("context_window_size", From::Context),
    ("sliding_window_size", From::Sliding),
    ("prefill_chunk_size", From::Prefill),
    ("attention_sink_size", From::Whole(4)),
    ("tensor_parallel_shards", From::One),
    ("max_batch_size", From::One),
];

const GEMMA: &[Field] = &[
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("attention_bias", From::False),
    ("num_attention_heads", From::Same),
    ("num_key_value_heads", From::KvHeads),
    ("head_dim", From::HeadDim),
    ("num_hidden_layers", From::Same),
    ("rms_norm_eps", From::Same),
    ("vocab_size", From::Same),
    ("hidden_activation", From::Null),
    ("position_embedding_base", From::RopeTheta),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("tensor_parallel_shards", From::One),
    ("max_batch_size", From::One),
];

const PHI3: &[Field] = &[
    ("model_type", From::Same),
    ("hidden_size", From::Same),
    ("vocab_size", From::Same),
    ("num_hidden_layers", From::Same),
    ("num_attention_heads", From::Same),
    ("intermediate_size", From::Same),
    ("rms_norm_eps", From::Same),
    ("num_key_value_heads", From::KvHeads),
    ("max_position_embeddings", From::Same),
    ("position_embedding_base", From::RopeTheta),
    ("rope_scaling", From::RopeScaling),
    ("original_max_position_embeddings", From::Whole(0)),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("head_dim", From::HeadDim),
    ("tensor_parallel_shards", From::One),
    ("max_batch_size", From::One),
    ("tie_word_embeddings", From::False),
    ("partial_rotary_factor", From::Fraction(1.0)),
];

const GPT2: &[Field] = &[
    ("vocab_size", From::Same),
    ("n_embd", From::Same),
    ("n_layer", From::Same),
    ("n_head", From::Same),
    ("layer_norm_epsilon", From::Same),
    ("n_inner", From::Inner),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("scale_attn_by_inverse_layer_idx", From::False),
    ("tensor_parallel_shards", From::One),
    ("head_dim", From::HeadDim),
    ("max_batch_size", From::One),
];

const GPT_NEOX: &[Field] = &[
    ("use_parallel_residual", From::Same),
    ("hidden_size", From::Same),
    ("intermediate_size", From::Same),
    ("num_attention_heads", From::Same),
    ("num_hidden_layers", From::Same),
    ("layer_norm_eps", From::Same),
    ("vocab_size", From::Same),
    ("rotary_pct", From::Same),
    ("position_embedding_base", From::RopeTheta),
    ("context_window_size", From::Context),
    ("head_dim", From::HeadDim),
    ("prefill_chunk_size", From::Prefill),
    ("tensor_parallel_shards", From::One),
    ("ffn_out_dtype", From::Text("float32")),
    ("max_batch_size", From::One),
];

const INTERNLM2: &[Field] = &[
    ("vocab_size", From::Same),
    ("hidden_size", From::Same),
    ("num_hidden_layers", From::Same),
    ("num_attention_heads", From::Same),
    ("num_key_value_heads", From::KvHeads),
    ("rms_norm_eps", From::Same),
    ("intermediate_size", From::Same),
    ("bias", From::False),
    ("use_cache", From::Same),
    ("rope_theta", From::RopeTheta),
    ("pad_token_id", From::Null),
    ("bos_token_id", From::Null),
    ("eos_token_id", From::Null),
    ("context_window_size", From::Context),
    ("prefill_chunk_size", From::Prefill),
    ("tensor_parallel_shards", From::One),
    ("max_batch_size", From::One),
    ("head_dim", From::HeadDim),
];

/// The hyper-parameters that a family's config lists, in order. `llama` is checked against MLC's own
/// output, the others follow its sources. Families without a table get llama's list and then every other scalar of `config.json`:
/// nothing that a reader needs is lost.
fn fields(model_type: &str) -> (&'static [&'static [Field]], bool) {
    match model_type {
        "llama" => (&[LLAMA], false),
        "qwen2" => (&[QWEN2], false),
        "qwen3" => (&[QWEN3], false),
        "mistral" => (&[MISTRAL], false),
        "gemma" => (&[GEMMA], false),
        "phi3" => (&[PHI3], false),
        "gpt2" => (&[GPT2], false),
        "gpt_neox" => (&[GPT_NEOX], false),
        "internlm2" => (&[INTERNLM2], false),
        "mixtral" => (&[LLAMA, mixed::MIXTRAL], false),
        "qwen3_moe" => (&[QWEN3, mixed::QWEN3_MOE], false),
        "qwen2_moe" => (&[QWEN2, mixed::QWEN2_MOE], false),
        "deepseek" => (&[mixed::DEEPSEEK], false),
        "deepseek_v2" | "deepseek_v3" => (&[mixed::DEEPSEEK_V2], false),
        "ministral3" => (&[mixed::MINISTRAL3], false),
        "phi3_v" => (&[mixed::PHI3_V], false),
        "bert" => (&[mixed::BERT], false),
        "qwen3_5" => (&[mixed::QWEN3_5], false),
        "rwkv6" => (&[mixed::RWKV6], false),
        "llama4" => (&[mixed::LLAMA4], false),
        _ => (&[LLAMA], true),
    }
}

/// Keys of `config.json` that are no hyper-parameters.
const BOOKKEEPING: [&str; 11] = [
    "model_type",
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "architectures",
];

/// The first of several keys that holds a value.
fn first<'a>(config: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().filter_map(|key| config.get(key)).find(|v| !v.is_null())
}

fn integer(config: &Value, keys: &[&str]) -> Option<i64> {
    first(config, keys).and_then(Value::as_i64)
}

fn context(config: &Value) -> Option<i64> {
    let keys = [
        "context_window_size",
        "max_position_embeddings",
        "max_sequence_length",
        "n_positions",
        "seq_length",
    ];
    integer(config, &keys)
}

const VOCAB: [&str; 2] = ["vocab_size", "padded_vocab_size"];

/// MLC prefills in chunks of at most this many tokens unless told otherwise.
const PREFILL_CHUNK: i64 = 8192;

fn prefill(config: &Value, sliding: Option<i64>) -> Option<i64> {
    integer(config, &["prefill_chunk_size"])
        .filter(|n| *n > 0)
        .or_else(|| sliding.or_else(|| context(config)).map(|n| n.min(PREFILL_CHUNK)))
}

/// The sliding window. Only Mistral's family has one in MLC; elsewhere `config.json` names one that
/// is not in use.
fn sliding(model_type: &str, config: &Value) -> Option<i64> {
    let keys = ["sliding_window_size", "sliding_window"];
    integer(config, &keys).filter(|n| *n > 0 && matches!(model_type, "mistral" | "ministral3"))
}

/// The base of the rotary angles. MLC looks at the top level only and silently takes 10000 for
/// configs of transformers 5, which nest it; the real value is written here.
fn rope_theta(config: &Value) -> Value {
    let nested = config.get("rope_parameters").and_then(|p| first(p, &["rope_theta"]));
    first(config, &["position_embedding_base", "rope_theta", "rotary_emb_base"])
        .or(nested)
        .cloned()
        .unwrap_or(json!(10000))
}

/// Scaling of the rotary angles. MLC silently drops it unless it holds `rope_type`; the older key
/// `type` is copied to that name, so that no reader runs with wrong positions unknowingly.
fn rope_scaling(config: &Value) -> Value {
    let nested = || {
        let parameters = config.get("rope_parameters")?.as_object()?;
        (parameters.get("rope_type").and_then(Value::as_str) != Some("default"))
            .then(|| parameters.iter().filter(|(k, _)| *k != "rope_theta"))
            .map(|entries| entries.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>())
    };
    let scaling = config.get("rope_scaling").and_then(Value::as_object).cloned().or_else(nested);
    let Some(mut scaling) = scaling else { return Value::Null };
    if !scaling.contains_key("rope_type")
        && let Some(kind) = scaling.get("type").cloned()
    {
        scaling.insert("rope_type".to_owned(), kind);
    }
    Value::Object(scaling)
}

fn hyper_parameter(config: &Value, sliding: Option<i64>, key: &str, from: From) -> Option<Value> {
    let heads = || integer(config, &["num_attention_heads", "n_head"]);
    let same = first(config, &[key]).cloned();
    match from {
        From::Same => same,
        From::Vocab => first(config, &VOCAB).cloned(),
        From::Null => same.or(Some(Value::Null)),
        From::False => same.or(Some(json!(false))),
        From::Text(text) => Some(json!(text)),
        From::One => Some(json!(1)),
        From::Context => context(config).map(|n| json!(if sliding.is_some() { -1 } else { n })),
        From::Prefill => prefill(config, sliding).map(Value::from),
        From::Inner => same
            .filter(|n| n.as_i64() != Some(-1))
            .or_else(|| integer(config, &["n_embd"])?.checked_mul(4).map(Value::from)),
        From::Sliding => Some(json!(sliding.unwrap_or(-1))),
        From::Whole(n) => same.or(Some(json!(n))),
        From::Fraction(f) => same.or(Some(json!(f))),
        From::Partial(f) => {
            let nested = config.get("rope_parameters").and_then(|p| first(p, &[key])).cloned();
            nested.or(same).or(Some(json!(f)))
        }
        From::RopeParameters => {
            let mut nested = first(config, &["rope_parameters", "rope_scaling"])?.as_object()?.clone();
            nested.shift_remove("rope_theta");
            Some(Value::Object(nested))
        }
        From::RopeTheta => Some(rope_theta(config)),
        From::RopeScaling => Some(rope_scaling(config)),
        From::KvHeads => same.or_else(|| heads().map(Value::from)),
        From::HeadDim => same.or_else(|| {
            let hidden = integer(config, &["hidden_size", "n_embd"])?;
            hidden.checked_div(heads()?).map(Value::from)
        }),
    }
}

fn model_config(model_type: &str, config: &Value, sliding: Option<i64>) -> Map<String, Value> {
    let (fields, open) = fields(model_type);
    let mut out: Map<String, Value> = fields
        .iter()
        .copied()
        .flatten()
        .filter_map(|(key, from)| Some(((*key).to_owned(), hyper_parameter(config, sliding, key, *from)?)))
        .collect();
    if open {
        for (key, value) in config.as_object().into_iter().flatten() {
            let scalar = value.is_number() || value.is_boolean() || value.is_string();
            if scalar && !BOOKKEEPING.contains(&key.as_str()) && !out.contains_key(key) {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    if model_type == "llama4" {
        // MLC looks for it there.
        let of = |key: &str, from| hyper_parameter(config, sliding, key, from);
        let outer = [
            ("tensor_parallel_shards", Some(json!(1))),
            ("context_window_size", of("context_window_size", From::Context)),
            ("pipeline_parallel_stages", Some(json!(1))),
            ("prefill_chunk_size", of("prefill_chunk_size", From::Prefill)),
            ("max_batch_size", Some(json!(1))),
            ("disaggregation", Some(json!(false))),
            ("vocab_size", of("vocab_size", From::Same)),
        ];
        let outer = outer.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        return std::iter::once(("text_config".to_owned(), Value::Object(out))).chain(outer).collect();
    }
    out
}

impl ChatConfig {
    /// The config of a folder that is being converted.
    pub fn generate(inputs: ChatConfigInputs<'_>) -> ChatConfig {
        let config = &*flattened(inputs.hf_config);
        let sliding = sliding(inputs.model_type, config);
        let model = model_config(inputs.model_type, config, sliding);
        let vocab_size = integer(config, &VOCAB);
        // MLC asks generation_config.json first, then config.json, then its own defaults.
        let setting = |key: &str| {
            let given = inputs.generation_config.and_then(|g| first(g, &[key]));
            given.or_else(|| first(config, &[key]))
        };
        let number = |key: &str, default: f64| -> Option<Number> {
            setting(key).and_then(Value::as_number).cloned().or_else(|| Number::from_f64(default))
        };
        // MLC knows encoders for what they are and looks no further.
        let encoder = inputs.model_type == "bert";
        let first_token = Embedding { pooling: Pooling::Cls, normalize: true };
        let vectors = inputs.embedding.or(encoder.then_some(first_token));
        let id = |key: &str, default: u32| Some(setting(key).cloned().unwrap_or(json!(default)));
        ChatConfig {
            version: Some("0.1.0".to_owned()),
            model_type: Some(inputs.model_type.to_owned()),
            quantization: Some(inputs.quantization.to_owned()),
            vocab_size,
            // A sliding window replaces the context's limit.
            context_window_size: Some(match sliding {
                Some(_) => -1,
                None => context(config).unwrap_or(-1),
            }),
            sliding_window_size: Some(sliding.unwrap_or(-1)),
            prefill_chunk_size: prefill(config, sliding)
                .or_else(|| model.get("prefill_chunk_size").and_then(Value::as_i64)),
            attention_sink_size: Some(model.get("attention_sink_size").and_then(Value::as_i64).unwrap_or(-1)),
            tensor_parallel_shards: Some(1),
            pipeline_parallel_stages: Some(1),
            active_vocab_size: inputs.active_vocab_size.and_then(|n| i64::try_from(n).ok()).or(vocab_size),
            temperature: number("temperature", 1.0),
            presence_penalty: number("presence_penalty", 0.0),
            frequency_penalty: number("frequency_penalty", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            top_p: number("top_p", 1.0),
            tokenizer_files: inputs.tokenizer_files.to_vec(),
            tokenizer_info: Some(inputs.tokenizer_info),
            conv_template: Some(ConvField::Template(Box::new(inputs.conv_template))),
            pad_token_id: id("pad_token_id", 0),
            bos_token_id: id("bos_token_id", 1),
            eos_token_id: id("eos_token_id", 2),
            model_task: Some(if vectors.is_some() { "embedding" } else { "chat" }.to_owned()),
            embedding_metadata: vectors.map(|vectors| {
                json!({
                    "model_type": if encoder { "encoder" } else { "decoder" },
                    "pooling_strategy": vectors.pooling.name(),
                    "normalize": vectors.normalize,
                })
            }),
            model_config: model,
            legacy: Vec::new(),
            unknown: Vec::new(),
        }
    }
}
