//! Which fields of a config are known, and which values of them a family's blocks can honour.
//!
//! MLC has no place for many settings of Hugging Face's configs and drops them. Here a field is read, or has no
//! effect, or asks for what is computed anyway, or is told: a model that runs with a setting left out gives
//! text that looks right and is not.

use serde_json::Value;

/// A setting that the family's blocks do not honour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The field.
    pub field: String,
    /// Its value, as JSON.
    pub found: String,
    /// The values that ask for what is computed.
    pub supported: &'static str,
}

/// What is to be said about the fields of a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Settings that are not honoured.
    pub contradictions: Vec<Contradiction>,
    /// Fields that are not known.
    pub unknown: Vec<String>,
}

/// A field with the values that ask for what is computed, wherever the family does not read it.
struct Rule {
    field: &'static str,
    /// Numbers, words, or `false`.
    allowed: &'static [&'static str],
    shown: &'static str,
    /// Families that read it, or that it means something else to.
    except: &'static [&'static str],
}

const fn rule(
    field: &'static str,
    allowed: &'static [&'static str],
    shown: &'static str,
    except: &'static [&'static str],
) -> Rule {
    Rule { field, allowed, shown, except }
}

const OFF: &[&str] = &["false"];
const ONE: &[&str] = &["1"];
const NONE: &[&str] = &[];
const SHOWN_NONE: &str = "null";
const DEEPSEEK: &[&str] = &["deepseek", "deepseek_v2", "deepseek_v3"];
const MIXTURES: &[&str] =
    &["mixtral", "qwen2_moe", "qwen3_moe", "deepseek", "deepseek_v2", "deepseek_v3", "llama4"];

/// Settings that change what a model computes. Names are those of transformers 4 and 5.
const RULES: &[Rule] = &[
    rule("partial_rotary_factor", ONE, "1", &["phi", "phi-msft", "phi3", "stablelm", "nemotron", "qwen3_5"]),
    rule("rotary_pct", ONE, "1", &["gpt_neox", "stablelm"]),
    rule("attn_logit_softcapping", NONE, SHOWN_NONE, &["gemma2"]),
    rule("final_logit_softcapping", NONE, SHOWN_NONE, &["gemma2", "gemma3_text", "gemma3"]),
    rule("query_pre_attn_scalar", NONE, SHOWN_NONE, &["gemma2", "gemma3_text", "gemma3"]),
    rule("rope_local_base_freq", NONE, SHOWN_NONE, &["gemma3_text", "gemma3"]),
    rule("num_experts", &["0"], "0", &["qwen2_moe", "qwen3_moe"]),
    rule("num_local_experts", &["0"], "0", &["mixtral", "llama4"]),
    rule("n_routed_experts", &["0"], "0", DEEPSEEK),
    rule("num_experts_per_tok", &["0"], "0", MIXTURES),
    rule("moe_intermediate_size", NONE, SHOWN_NONE, MIXTURES),
    rule("decoder_sparse_step", ONE, "1", NONE),
    rule("interleave_moe_layer_step", ONE, "1", NONE),
    rule("mlp_only_layers", NONE, "[]", NONE),
    rule("kv_lora_rank", NONE, SHOWN_NONE, DEEPSEEK),
    rule("full_attention_interval", ONE, "1", &["qwen3_5"]),
    rule("model_version", &["6_0"], "6_0", NONE),
    rule("head_size_divisor", &["8"], "8", NONE),
    rule("position_offset", &["0"], "0", NONE),
    rule("attention_multiplier", NONE, SHOWN_NONE, NONE),
    rule("embedding_multiplier", ONE, "1", NONE),
    rule("residual_multiplier", ONE, "1", NONE),
    rule("logits_scaling", ONE, "1", NONE),
    rule("logit_scale", ONE, "1", &["cohere"]),
    rule("scale_emb", ONE, "1", &["minicpm"]),
    rule("scale_depth", ONE, "1", &["minicpm"]),
    rule("clip_qkv", NONE, SHOWN_NONE, &["olmo"]),
    rule("use_qk_norm", OFF, "false", &["llama4"]),
    rule("qk_layernorm", OFF, "false", NONE),
    rule("use_parallel_residual", OFF, "false", &["gpt_neox"]),
    rule("parallel_attn", OFF, "false", NONE),
    rule("alibi", OFF, "false", NONE),
    rule("attention_chunk_size", NONE, SHOWN_NONE, &["llama4"]),
    rule("rope_interleaved", OFF, "false", NONE),
    rule("rope_interleave", OFF, "false", &["deepseek_v2", "deepseek_v3"]),
    rule("is_encoder_decoder", OFF, "false", NONE),
    rule("add_cross_attention", OFF, "false", NONE),
    rule("use_bidirectional_attention", OFF, "false", NONE),
    rule("position_embedding_type", &["rope", "rotary"], "rope", &["gpt2", "gpt_bigcode", "bert"]),
    rule("no_rope_layers", NONE, SHOWN_NONE, &["llama4"]),
    rule("rope_ratio", ONE, "1", NONE),
    rule("add_bias_linear", OFF, "false", NONE),
    rule("rmsnorm", &["true"], "true", NONE),
    rule("post_layer_norm", &["true"], "true", NONE),
    rule("apply_residual_connection_post_layernorm", OFF, "false", NONE),
    rule("multi_query", &["true"], "true", NONE),
    rule("scale_attn_weights", &["true"], "true", NONE),
    rule("reorder_and_upcast_attn", OFF, "false", NONE),
];

/// What `hidden_act` and its kin may say, by what is computed.
const ACTIVATIONS: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "llama",
            "mistral",
            "mixtral",
            "llama4",
            "internlm",
            "internlm2",
            "baichuan",
            "orion",
            "phi3",
            "phi3_v",
            "stablelm",
            "cohere",
        ],
        &["silu", "swish"],
        "silu",
    ),
    (&["gpt_neox"], &["gelu"], "gelu"),
    (
        &["gpt2", "phi", "phi-msft", "gpt_bigcode", "starcoder2"],
        &["gelu_new", "gelu_pytorch_tanh", "gelu_fast"],
        "gelu_new, gelu_pytorch_tanh, gelu_fast",
    ),
    // Gemma's first configs say `gelu` and mean the approximation.
    (
        &["gemma", "gemma2", "gemma3", "gemma3_text"],
        &["gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu"],
        "gelu_pytorch_tanh",
    ),
    (&["nemotron"], &["relu2"], "relu2"),
];
/// Families whose layers may have windows.
const WINDOWED: [&str; 13] = [
    "mistral",
    "ministral3",
    "mixtral",
    "phi3",
    "phi3_v",
    "starcoder2",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_moe",
    "gemma2",
    "gemma3",
    "gemma3_text",
];
/// Layers of another kind than attention, and attention that is limited by the context.
const LAYER_KINDS: &[(&str, &str)] = &[("qwen3_5", "linear_attention"), ("llama4", "chunked_attention")];
const ACTIVATION_FIELDS: [&str; 4] = ["hidden_act", "hidden_activation", "activation_function", "activation"];

/// Fields that are read, by whichever family, in Hugging Face's names and in MLC's.
const READ: &[&str] = &[
    "model_type",
    "hidden_size",
    "n_embd",
    "intermediate_size",
    "n_inner",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "n_layer",
    "vocab_size",
    "n_positions",
    "max_position_embeddings",
    "max_sequence_length",
    "context_window_size",
    "sliding_window",
    "sliding_window_size",
    "use_sliding_window",
    "max_window_layers",
    "attention_sink_size",
    "prefill_chunk_size",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "norm_epsilon",
    "rope_theta",
    "rotary_emb_base",
    "position_embedding_base",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "use_bias",
    "bias",
    "use_qkv_bias",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "activation",
    "rotary_dim",
    "n_head_kv",
    "num_layers",
    "kv_channels",
    "seq_length",
    "ffn_hidden_size",
    "layernorm_epsilon",
    "padded_vocab_size",
    "multi_query_attention",
    "multi_query_group_num",
    "add_qkv_bias",
    "dim_model_base",
    "scale_attn_by_inverse_layer_idx",
    "layer_types",
    "sliding_window_pattern",
    "quantization_config",
    "norm_topk_prob",
    "shared_expert_intermediate_size",
    "n_shared_experts",
    "first_k_dense_replace",
    "moe_layer_freq",
    "scoring_func",
    "topk_method",
    "n_group",
    "topk_group",
    "routed_scaling_factor",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "type_vocab_size",
    "head_size",
    "rescale_every",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
    "attn_temperature_tuning",
    "attn_scale",
    "floor_scale",
    "no_rope_layer_interval",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    // Sampling, which configs of before generation_config.json had.
    "temperature",
    "top_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
];

/// Fields that cannot change what a model computes: bookkeeping, training, deployment.
const NO_EFFECT: &[&str] = &[
    "architectures",
    "auto_map",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "cache_implementation",
    "initializer_range",
    "initializer_factor",
    "attention_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "residual_dropout",
    "embedding_dropout",
    "resid_dropout",
    "ffn_dropout",
    "pretraining_tp",
    "rope_type",
    "torchscript",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_logits",
    "summary_type",
    "summary_use_proj",
    "n_ctx",
    "is_decoder",
    "unk_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "attn_implementation",
    "attn_type",
    "max_length",
    "min_length",
    "do_sample",
    "top_k",
    "min_p",
    "num_beams",
    "no_repeat_ngram_size",
    "finetuning_task",
    "pruned_heads",
    "chunk_size_feed_forward",
    "output_router_logits",
    "router_aux_loss_coef",
    "unsloth_version",
    "unsloth_fixed",
    "tensor_parallel_shards",
    "pipeline_parallel_stages",
    "max_batch_size",
    "disaggregation",
    "ffn_out_dtype",
    "weight_block_size",
    "modules_to_not_convert",
    // What follows from other fields, or belongs to layers that are not there.
    "intermediate_size_mlp",
    "moe_layers",
    "qk_head_dim",
    "num_heads",
    "attention_hidden_size",
    "ep_size",
    "aux_loss_alpha",
    "seq_aux",
    "num_nextn_predict_layers",
    "router_jitter_noise",
    // Of what sees, which is not read.
    "vision_config",
    "img_processor",
    "embd_layer",
    "image_token_index",
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "boi_token_index",
    "eoi_token_index",
    "vision_feature_layer",
    "spatial_merge_size",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "kwargs",
    "is_text_model",
    "apply_query_key_layer_scaling",
];

fn allowed(value: &Value, allowed: &[&str]) -> bool {
    allowed.iter().any(|word| match value {
        Value::Number(n) => word.parse::<f64>().is_ok_and(|w| n.as_f64() == Some(w)),
        Value::Bool(b) => word.parse() == Ok(*b),
        Value::String(s) => s == word,
        _ => false,
    })
}

/// Looks at every field of a config: `config.json`, or `model_config` of `mlc-chat-config.json`.
pub fn findings(model_type: &str, config: &Value) -> Findings {
    let mut out = Findings::default();
    let config = super::flattened(config);
    for (key, value) in config.as_object().into_iter().flatten() {
        // Names that begin with an underscore are transformers' own notes.
        let empty = key == "mlp_only_layers" && value.as_array().is_some_and(Vec::is_empty);
        if value.is_null() || key.starts_with('_') || empty {
            continue;
        }
        let mut contradicts = |supported| {
            let mut found = value.to_string();
            if found.len() > 100 {
                found = found.chars().take(100).chain("...".chars()).collect();
            }
            out.contradictions.push(Contradiction { field: key.clone(), found, supported });
        };
        if ACTIVATION_FIELDS.contains(&key.as_str()) {
            let family = ACTIVATIONS.iter().find(|(families, ..)| families.contains(&model_type));
            match family {
                Some((_, names, shown)) if !allowed(value, names) => contradicts(shown),
                _ => {}
            }
        } else if let Some(rule) = RULES.iter().find(|rule| rule.field == key) {
            if !rule.except.contains(&model_type) && !allowed(value, rule.allowed) {
                contradicts(rule.shown);
            }
        } else if matches!(key.as_str(), "rope_scaling" | "rope_parameters") {
            if !value.is_object() {
                contradicts("an object or null");
            }
        } else if key == "layer_types" {
            let plain = |v: &Value| {
                v == "full_attention"
                    || v == "sliding_attention" && WINDOWED.contains(&model_type)
                    || LAYER_KINDS.iter().any(|(family, kind)| *family == model_type && v == kind)
            };
            if !value.as_array().is_some_and(|l| l.iter().all(plain)) {
                contradicts("full_attention in every layer");
            }
        } else if !READ.contains(&key.as_str()) && !NO_EFFECT.contains(&key.as_str()) {
            out.unknown.push(key.clone());
        }
    }
    out
}

/// What a user is told of fields that nobody here knows; `None` if there are none.
pub fn unknown_note(file: &str, unknown: &[String]) -> Option<String> {
    let names = unknown.join(", ");
    let many = if unknown.len() == 1 { "a field that is" } else { "fields that are" };
    (!unknown.is_empty()).then(|| {
        format!("{file} has {many} not known here and without effect: {names}; if the model needs it, its answers are wrong.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn contradictions(model_type: &str, config: Value) -> Vec<String> {
        findings(model_type, &config).contradictions.into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn settings_that_are_not_computed_are_found() {
        for (field, value) in [
            ("hidden_act", json!("gelu")),
            ("hidden_act", json!("relu2")),
            ("hidden_act", json!(3)),
            ("partial_rotary_factor", json!(0.5)),
            ("attn_logit_softcapping", json!(50.0)),
            ("num_experts", json!(8)),
            ("rope_scaling", json!("aaaa")),
            ("rope_parameters", json!([])),
            ("logit_scale", json!(0.0625)),
            ("use_qk_norm", json!(true)),
            ("layer_types", json!(["full_attention", "linear_attention"])),
        ] {
            assert_eq!(contradictions("llama", json!({field: value})), [field]);
        }
    }

    #[test]
    fn what_asks_for_what_is_computed_is_silent() {
        let config = json!({
            "hidden_act": "silu", "partial_rotary_factor": 1.0, "num_experts": 0, "use_qk_norm": false,
            "attn_logit_softcapping": null, "layer_types": ["full_attention"], "_anything": 1,
            "rope_scaling": {"rope_type": "yarn"}, "torch_dtype": "bfloat16", "attention_dropout": 0.1,
        });
        assert_eq!(findings("llama", &config), Findings::default());
        assert_eq!(contradictions("gemma2", json!({"attn_logit_softcapping": 50.0})), [""; 0]);
        assert_eq!(contradictions("phi3", json!({"partial_rotary_factor": 0.75})), [""; 0]);
        assert_eq!(contradictions("qwen2", json!({"hidden_act": "relu"})), [""; 0], "it is read there");
    }

    #[test]
    fn a_field_that_nobody_knows_is_named() {
        let found = findings("llama", &json!({"wibble_factor": 2, "hidden_size": 8}));
        assert_eq!(found.unknown, ["wibble_factor"]);
        assert!(unknown_note("config.json", &found.unknown).unwrap().contains("wibble_factor"));
        assert_eq!(unknown_note("config.json", &[]), None);
    }
}
