//! Hyper-parameters from MLC's config, from HF's, and from shapes alone.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tessera_weights::arch::{self, Sizes};
use tessera_weights::config::{Activation, ModelConfig, RopeScaling};

fn golden(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn llama(change: impl FnOnce(&mut Value)) -> Value {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 259, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 64, "hidden_act": "silu"
    });
    change(&mut config);
    config
}

#[test]
fn mlcs_and_hfs_config_of_one_model_agree() {
    let mlc = ModelConfig::from_mlc(&golden("llama-tied-bf16/q4f32_1/mlc-chat-config.json")).unwrap();
    let hf = ModelConfig::from_hf(&golden("llama-tied-bf16/hf/config.json")).unwrap();
    assert_eq!(mlc, hf);
    assert_eq!((mlc.head_dim, mlc.num_key_value_heads, mlc.context_window_size), (16, 1, 64));
    assert!(mlc.tie_word_embeddings && mlc.guesses.is_empty());
}

#[test]
fn every_golden_checkpoints_config_is_read() {
    for name in [
        "gemma-bf16",
        "gpt2-f32",
        "gptneox-f16",
        "internlm2-bf16",
        "phi3-bf16",
        "qwen2-tied-bf16",
        "qwen3-f32",
    ] {
        let config = ModelConfig::from_hf(&golden(&format!("{name}/hf/config.json"))).unwrap();
        assert!(config.guesses.is_empty(), "{name}: {:?}", config.guesses);
        let hidden_biases = (config.qkv_bias, config.attention_bias);
        match name {
            "qwen2-tied-bf16" => assert_eq!(hidden_biases, (true, false)),
            "gpt2-f32" | "gptneox-f16" => assert_eq!(hidden_biases, (true, true)),
            _ => assert_eq!(hidden_biases, (false, false)),
        }
        if name == "gemma-bf16" {
            assert_eq!(config.activation, Activation::GeluTanh);
            assert_eq!(config.head_dim, 32);
        }
    }
}

#[test]
fn every_kind_of_rope_scaling_is_read_in_old_and_new_spelling() {
    let scaling = |v: Value| ModelConfig::from_hf(&llama(|c| c["rope_scaling"] = v)).unwrap().rope_scaling;
    assert_eq!(scaling(json!(null)), RopeScaling::None);
    assert_eq!(scaling(json!({"rope_type": "default"})), RopeScaling::None);
    assert_eq!(scaling(json!({"type": "linear", "factor": 4.0})), RopeScaling::Linear { factor: 4.0 });
    assert_eq!(
        scaling(json!({"rope_type": "dynamic", "factor": 2})),
        RopeScaling::Dynamic { factor: 2.0, original_context: 64 }
    );
    assert_eq!(
        scaling(json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32
        })),
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 32
        }
    );
    assert_eq!(
        scaling(json!({"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "truncate": false})),
        RopeScaling::Yarn {
            factor: 4.0,
            original_context: 64,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            mscale: Some(0.7),
            mscale_all_dim: None,
            truncate: false
        }
    );
    for kind in ["longrope", "su"] {
        let config = llama(|c| {
            c["original_max_position_embeddings"] = json!(16);
            c["rope_scaling"] =
                json!({"type": kind, "short_factor": vec![1.0; 8], "long_factor": vec![2; 8]});
        });
        assert_eq!(
            ModelConfig::from_hf(&config).unwrap().rope_scaling,
            RopeScaling::LongRope {
                short_factor: vec![1.0; 8],
                long_factor: vec![2.0; 8],
                original_context: 16,
                attention_factor: None,
                factor: None
            }
        );
    }
}

#[test]
fn the_rotary_base_is_found_where_transformers_5_puts_it() {
    let config = llama(|c| {
        c.as_object_mut().unwrap().remove("rope_theta");
        c["rope_parameters"] = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0});
    });
    let config = ModelConfig::from_hf(&config).unwrap();
    assert_eq!((config.rope_theta, config.guesses.len()), (500000.0, 0));
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });

    let error = ModelConfig::from_hf(&llama(|c| c["rope_parameters"] = json!({"rope_theta": 5e5})));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("rope_theta is 10000.0, expected 500000"), "{error}");

    let config = ModelConfig::from_hf(&llama(|c| c["rope_theta"] = json!(null))).unwrap();
    assert_eq!(config.guesses.len(), 1, "a default is not silent");
}

#[test]
fn a_sliding_window_limits_the_context_and_says_so() {
    let config = ModelConfig::from_hf(&llama(|c| c["sliding_window"] = json!(32))).unwrap();
    assert_eq!((config.context_window_size, config.guesses.len()), (32, 1));
    let config = ModelConfig::from_hf(&llama(|c| {
        c["sliding_window"] = json!(32);
        c["use_sliding_window"] = json!(false);
    }));
    assert_eq!(config.unwrap().context_window_size, 64);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (
            |c| c["rope_scaling"] = json!({"type": "mrope"}),
            "rope_scaling.rope_type \"mrope\" is not supported",
        ),
        (|c| c["rope_scaling"] = json!({"factor": 2}), "rope_scaling.rope_type is missing"),
        (|c| c["rope_scaling"] = json!({"type": "linear"}), "rope_scaling.factor is missing"),
        (|c| c["rope_scaling"] = json!({"type": "linear", "factor": 0.5}), "rope_scaling.factor is 0.5"),
        (
            |c| c["rope_scaling"] = json!({"type": "linear", "factor": "2"}),
            "factor is \"2\", expected a number",
        ),
        (|c| c["rope_scaling"] = json!("linear"), "rope_scaling \"linear\" is not supported"),
        (
            |c| {
                c["rope_scaling"] = json!({"type": "longrope", "short_factor": [1], "long_factor": [1]});
            },
            "short_factor is [1], expected 8 positive numbers",
        ),
        (
            |c| {
                c["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                    "high_freq_factor": 1, "original_max_position_embeddings": 32});
            },
            "high_freq_factor is 1.0, expected more than low_freq_factor, which is 4",
        ),
        (|c| c["hidden_act"] = json!("relu2"), "hidden_act \"relu2\" is not supported"),
        (|c| c["partial_rotary_factor"] = json!(0.5), "partial_rotary_factor 0.5 is not supported"),
        (|c| c["rms_norm_eps"] = json!(-1), "rms_norm_eps is -1"),
        (|c| c["max_position_embeddings"] = json!(0), "max_position_embeddings is 0"),
        (|c| c["max_position_embeddings"] = json!(null), "max_position_embeddings is missing"),
        (|c| c["hidden_size"] = json!(1u64 << 60), "hidden_size is 1152921504606846976"),
        (|c| c["model_type"] = json!("mamba"), "\"mamba\" is not supported; supported are llama"),
        (|c| *c = json!([]), "model_type is missing"),
    ];
    for (change, part) in cases {
        let error = ModelConfig::from_hf(&llama(change)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}\nlacks\n{part}");
    }
    let mut mlc = golden("llama-tied-bf16/q4f32_1/mlc-chat-config.json");
    mlc["vocab_size"] = json!(260);
    let error = ModelConfig::from_mlc(&mlc).unwrap_err().to_string();
    assert!(error.contains("vocab_size is 260, expected 259"), "{error}");
    mlc.as_object_mut().unwrap().remove("model_config");
    let error = ModelConfig::from_mlc(&mlc).unwrap_err().to_string();
    assert!(error.contains("model_config is missing"), "{error}");
}

fn shapes(folder: &str) -> HashMap<String, Vec<usize>> {
    golden(&format!("{folder}/tensor-cache.json"))["records"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|shard| shard["records"].as_array().unwrap())
        .map(|r| {
            let shape = r["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
            (r["name"].as_str().unwrap().to_owned(), shape.collect())
        })
        .collect()
}

#[test]
fn shapes_alone_give_the_sizes_and_every_guess_is_said() {
    for (name, scheme, head_dim) in [
        ("llama-gqa-f32", "q4f32_1", 16),
        ("llama-gqa-f32", "q3f16_0", 16),
        ("llama-gqa-f32", "q0f16", 16),
        ("llama-tied-bf16", "q4f16_2", 16),
        ("llama-mha-f16", "q4f16_0", 80),
        ("qwen2-tied-bf16", "q4f16_0", 32),
        ("qwen3-f32", "q4f32_1", 32),
    ] {
        let shapes = shapes(&format!("{name}/{scheme}"));
        let found = ModelConfig::from_shapes(&|tensor| shapes.get(tensor).cloned()).unwrap();
        let hf = ModelConfig::from_hf(&golden(&format!("{name}/hf/config.json"))).unwrap();
        let what = format!("{name}/{scheme}");
        assert_eq!(found.hidden_size, hf.hidden_size, "{what}");
        assert_eq!(found.intermediate_size, hf.intermediate_size, "{what}");
        assert_eq!(found.num_hidden_layers, hf.num_hidden_layers, "{what}");
        assert_eq!(found.vocab_size, hf.vocab_size, "{what}");
        assert_eq!(found.tie_word_embeddings, hf.tie_word_embeddings, "{what}");
        assert_eq!((found.qkv_bias, found.attention_bias), (hf.qkv_bias, hf.attention_bias), "{what}");
        let widths =
            |c: &ModelConfig| (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        assert_eq!(widths(&found), widths(&hf), "{what}");
        assert_eq!(found.head_dim, head_dim, "{what}");
        assert!(found.guesses.len() >= 3 && found.guesses.iter().all(|g| g.ends_with('.')), "{what}");
    }
    let error = ModelConfig::from_shapes(&|_| None).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight is missing"), "{error}");
    let huge = |_: &str| Some(vec![usize::MAX, usize::MAX]);
    assert!(ModelConfig::from_shapes(&huge).is_err());
    for sizes in [0usize, 1, 7, usize::MAX] {
        let odd = |name: &str| Some(vec![sizes; if name.contains("norm") { 1 } else { 2 }]);
        assert!(ModelConfig::from_shapes(&odd).is_err());
    }
}

#[test]
fn biases_are_seen_in_the_folder() {
    let mut config = ModelConfig::from_mlc(&golden("llama-tied-bf16/q4f32_1/mlc-chat-config.json")).unwrap();
    config.see_biases(&|name| name.ends_with("qkv_proj.bias"));
    assert_eq!((config.qkv_bias, config.attention_bias, config.mlp_bias), (true, false, false));
    let sizes = Sizes::from(&config);
    let params = arch::params("llama", &sizes).unwrap();
    assert!(params.iter().any(|p| p.name == "model.layers.1.self_attn.qkv_proj.bias" && p.shape == [96]));
    assert!(!params.iter().any(|p| p.name.ends_with("o_proj.bias")));
}

#[test]
fn no_value_in_any_field_makes_a_config_panic() {
    let strange = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(1 << 24),
        json!(i64::MIN),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!({"rope_type": "yarn", "factor": 1e308}),
        json!([1, 2, 3]),
    ];
    let mut accepted = 0;
    for name in ["llama-gqa-f32", "gemma-bf16", "gpt2-f32", "gptneox-f16", "phi3-bf16", "qwen3-f32"] {
        let good = golden(&format!("{name}/hf/config.json"));
        let mut keys: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        keys.extend(
            ["rope_scaling", "rope_parameters", "n_inner", "head_dim", "sliding_window"].map(str::to_owned),
        );
        for key in keys {
            for value in &strange {
                let mut config = good.clone();
                config[&key] = value.clone();
                let mlc = json!({"model_type": config["model_type"], "model_config": config});
                let _ = ModelConfig::from_mlc(&mlc);
                if let Ok(config) = ModelConfig::from_hf(&config) {
                    let _ = arch::params(&config.model_type, &Sizes::from(&config));
                    accepted += 1;
                }
                let model_type = config["model_type"].as_str().unwrap_or("llama");
                if let Ok(sizes) = Sizes::from_json(model_type, &config) {
                    let params = arch::params(model_type, &sizes).unwrap();
                    assert!(params.iter().all(|p| p.numel() > 0), "{key} {value}");
                }
            }
        }
    }
    assert!(accepted > 100, "most values of fields that do not matter are accepted: {accepted}");
}
