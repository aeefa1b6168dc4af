use super::*;
use serde_json::json;

fn llama() -> Sizes {
    let config = json!({
        "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 101, "tie_word_embeddings": false
    });
    Sizes::from_json("llama", &config).unwrap()
}

#[test]
fn every_table_gives_unique_names_and_shapes_that_its_sources_fill() {
    let parts = Parts {
        experts: Some(ExpertSizes {
            count: 3,
            width: 40,
            shared: 56,
            corrected: true,
            layers: vec![false, true],
        }),
        delta: Some(DeltaSizes {
            key_heads: 2,
            value_heads: 4,
            key_dim: 8,
            value_dim: 8,
            kernel: 4,
            layers: vec![true, false],
        }),
        latent: Some(Latent { q_rank: Some(20), kv_rank: 24, nope: 4, rope: 4, value: 8 }),
        rwkv: Some(RwkvSizes { mix: 32, decay: 64, rescale_every: 1 }),
        token_types: 2,
    };
    let sizes = Sizes { qkv_bias: true, out_bias: true, mlp_bias: true, positions: 64, parts, ..llama() };
    for model_type in known() {
        // GPT-2 and GPT-NeoX have no grouped heads; GPT-2's heads are as wide as the model.
        let sizes = match model_type {
            "gpt2" | "gpt_neox" => Sizes { kv_heads: 6, ..sizes.clone() },
            _ => sizes.clone(),
        };
        let params = params(model_type, &sizes).unwrap();
        let mut names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), params.len(), "{model_type}");
        for p in &params {
            assert!(!p.name.contains('{') && !p.sources.is_empty(), "{p:?}");
            let filled: usize = p.sources.iter().map(|s| s.shape.iter().product::<usize>()).sum();
            if !p.combine.copies() || p.combine == Combine::Copy {
                assert_eq!(filled, p.numel(), "{model_type} {p:?}");
            }
            if !matches!(p.combine, Combine::Transpose | Combine::HeadKeys { .. }) && p.shape.len() > 1 {
                assert!(p.sources.iter().all(|s| s.shape.last() == p.shape.last()), "{p:?}");
            }
        }
    }
}

#[test]
fn names_agree_with_what_was_read_out_of_the_reference_loaders() {
    // One layer of each model type, MLC's names in the order of its modules.
    let expected = include_str!("names.txt");
    for line in expected.lines().filter(|l| !l.is_empty()) {
        let mut words = line.split(' ');
        let model_type = words.next().unwrap();
        let switches = words.next().unwrap();
        let sizes = Sizes {
            layers: 1,
            kv_heads: if matches!(model_type, "gpt2" | "gpt_neox") { 6 } else { 2 },
            positions: 8,
            tied: switches.contains('t'),
            qkv_bias: switches.contains('b'),
            out_bias: switches.contains('b'),
            mlp_bias: switches.contains('m'),
            ..llama()
        };
        let mut found: Vec<String> = params(model_type, &sizes)
            .unwrap()
            .iter()
            .map(|p| {
                let sources: Vec<&str> = p.sources.iter().map(|s| s.name.as_str()).collect();
                let mark = match p.kind {
                    ParamKind::Vector => "",
                    ParamKind::VectorF32 => "!",
                    _ => "*",
                };
                format!("{}{mark}={}", p.name, sources.join("+"))
            })
            .collect();
        let mut expected: Vec<String> = words.map(str::to_owned).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{model_type} {switches}");
    }
}

#[test]
fn the_layout_of_a_tensor_is_the_schemes_but_embeddings_are_always_nk() {
    let params = params("llama", &llama()).unwrap();
    let stored = |scheme: &str, name: &str| {
        let param = params.iter().find(|p| p.name == name).unwrap();
        param.stored(Scheme::find(scheme).unwrap())
    };
    let shapes = |t: Vec<StoredTensor>| t.into_iter().map(|t| t.shape).collect::<Vec<_>>();
    assert_eq!(shapes(stored("q4f16_0", "model.embed_tokens.weight")), [vec![101, 8], vec![101, 2]]);
    assert_eq!(shapes(stored("q4f16_0", "lm_head.weight")), [vec![8, 101], vec![2, 101]]);
    assert_eq!(shapes(stored("q4f16_2", "lm_head.weight")), [vec![101, 48]]);
    let down = stored("q4f32_1", "model.layers.1.mlp.down_proj.weight");
    assert_eq!(down[0].name, "model.layers.1.mlp.down_proj.q_weight");
    assert_eq!((down[0].dtype, down[1].dtype), (DType::U32, DType::F32));
    assert_eq!(down[1].stored_len(), 48 * 3 * 2);
}

#[test]
fn internlm2s_head_is_not_a_final_layer() {
    let params = params("internlm2", &llama()).unwrap();
    let output = params.iter().find(|p| p.name == "output.weight").unwrap();
    assert_eq!(output.stored(Scheme::find("q4f16_2").unwrap()).len(), 2);
}

#[test]
fn bad_sizes_are_named_with_their_value() {
    let good = json!({
        "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101
    });
    for (key, value, part) in [
        ("hidden_size", json!(-1), "hidden_size is -1"),
        ("hidden_size", json!(50), "hidden_size is 50, expected a multiple of the 6 heads"),
        ("num_attention_heads", json!(0), "multiple of the 0 heads"),
        ("num_key_value_heads", json!(4), "num_key_value_heads is 4, expected a divisor of the 6"),
        ("num_key_value_heads", json!(0), "num_key_value_heads is 0"),
        ("vocab_size", json!(u64::MAX), "vocab_size is 18446744073709551615"),
        ("intermediate_size", json!(null), "intermediate_size is missing"),
        ("attention_bias", json!("yes"), "attention_bias is \"yes\""),
    ] {
        let mut config = good.clone();
        config[key] = value;
        let error = Sizes::from_json("llama", &config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = Sizes::from_json("lama", &good).unwrap_err().to_string();
    assert!(error.contains("\"lama\"") && error.contains("llama, mistral, ministral3, qwen2"), "{error}");
}

#[test]
fn what_a_model_has_beside_its_language_part_may_be_unused() {
    for name in [
        "vision_tower.transformer.layers.0.attention.k_proj.weight",
        "multi_modal_projector.linear_1.weight",
        "model.visual.blocks.0.attn.qkv.weight",
        "mtp.fc.weight",
        "pooler.dense.bias",
        "language_model.lm_head.weight",
    ] {
        assert!(may_be_unused(name), "{name}");
    }
    // Phi 3's is part of MLC's folder.
    assert!(!may_be_unused("model.vision_embed_tokens.glb_GN"));
    assert!(!may_be_unused("model.layers.0.mlp.up_proj.weight"));
}

#[test]
fn a_language_model_has_other_names_where_it_is_part_of_another_model() {
    let sources = |model_type: &str| {
        let params = params(model_type, &llama()).unwrap();
        params[0].sources[0].clone()
    };
    let embed = "model.embed_tokens.weight";
    let source = sources("ministral3");
    assert_eq!(
        (source.name.as_str(), source.alone.as_deref()),
        ("language_model.model.embed_tokens.weight", Some(embed))
    );
    let source = sources("qwen3_5");
    assert_eq!(
        (source.name.as_str(), source.alone.as_deref()),
        ("model.language_model.embed_tokens.weight", Some(embed))
    );
    let source = sources("rwkv6");
    assert_eq!((source.name.as_str(), source.alone), ("rwkv.embeddings.weight", None));
    assert_eq!(sources("llama").alone, None);
}

#[test]
fn a_config_may_not_name_more_matrices_than_any_model_has() {
    let mut config = json!({
        "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 4096, "num_attention_heads": 6,
        "head_dim": 8, "vocab_size": 101, "num_local_experts": 4096, "num_experts_per_tok": 2
    });
    let error = Sizes::from_json("mixtral", &config).unwrap_err().to_string();
    assert!(error.contains("num_local_experts is 4096, expected at most 64"), "{error}");
    config["num_local_experts"] = json!(8);
    assert!(Sizes::from_json("mixtral", &config).is_ok());
    config["num_local_experts"] = json!(0);
    let error = Sizes::from_json("mixtral", &config).unwrap_err().to_string();
    assert!(error.contains("num_local_experts is 0, expected 1 to 4096"), "{error}");
}
