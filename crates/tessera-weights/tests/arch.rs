//! Every family against what MLC wrote of a tiny checkpoint (`data/arch`): each byte of the folder, the config read back
//! from either side, and the block that follows from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tessera_weights::arch::{self, Groups, Latent, Mask, PositionScale, Rwkv, Score, Semantics, Sizes};
use tessera_weights::chat_config::{ChatConfig, ChatConfigInputs, ConvTemplate, TokenizerInfo};
use tessera_weights::config::{ModelConfig, RopeScaling};
use tessera_weights::convert::{ConvertOptions, MlcSource, convert};
use tessera_weights::folder::Folder;
use tessera_weights::hf::HfFolder;
use tessera_weights::model::Description;
use tessera_weights::scheme::SCHEMES;
use tessera_weights::source::TensorSource;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The checkpoints of families that have a table, with MLC's name of each.
fn checkpoints() -> Vec<(String, String)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(data()).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        let model_type = json(&entry.path().join("q0f32/mlc-chat-config.json"))["model_type"].clone();
        let model_type = model_type.as_str().unwrap().to_owned();
        if arch::known().contains(&&*model_type) {
            out.push((name, model_type));
        }
    }
    out.sort();
    out
}

fn written(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .filter(|(name, _)| name != "mlc-chat-config.json")
        .collect()
}

/// Each tensor's form and bytes, wherever they lie.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let manifest = json(&folder.join("tensor-cache.json"));
    let mut out = BTreeMap::new();
    for shard in manifest["records"].as_array().unwrap() {
        let bytes = fs::read(folder.join(shard["dataPath"].as_str().unwrap())).unwrap();
        for record in shard["records"].as_array().unwrap() {
            let at = record["byteOffset"].as_u64().unwrap() as usize;
            let len = record["nbytes"].as_u64().unwrap() as usize;
            let form = format!("{} {} {}", record["dtype"], record["format"], record["shape"]);
            let name = record["name"].as_str().unwrap().to_owned();
            out.insert(name, (form, bytes[at..at + len].to_vec()));
        }
    }
    out
}

#[test]
fn every_familys_folder_is_reproduced_to_the_byte() {
    let mut wrong = Vec::new();
    for (name, model_type) in checkpoints() {
        let source = HfFolder::open(&data().join(&name).join("hf")).unwrap();
        let sizes = match Sizes::from_json(&model_type, &source.config().unwrap()) {
            Ok(sizes) => sizes,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let params = arch::params(&model_type, &sizes).unwrap();
        for scheme in SCHEMES {
            let expected = data().join(&name).join(scheme.name);
            if !expected.exists() {
                continue;
            }
            let out = tempfile::tempdir().unwrap();
            let dst = out.path().join("mlc");
            // What sees is not made: the rest is compared tensor by tensor.
            let part = !arch::left_out(&model_type).is_empty();
            let options = ConvertOptions { allow_unused: part, ..ConvertOptions::default() };
            if let Err(e) = convert(&source, &params, scheme, &options, &dst, &[]) {
                wrong.push(format!("{name}/{}: {e}", scheme.name));
                continue;
            }
            if part {
                let (found, mut expected) = (tensors(&dst), tensors(&expected));
                let left_out = |name: &str| arch::left_out(&model_type).iter().any(|p| name.starts_with(p));
                expected.retain(|name, _| !left_out(name));
                if found != expected {
                    wrong.push(format!("{name}/{}: its tensors differ", scheme.name));
                }
                continue;
            }
            let (found, expected) = (written(&dst), written(&expected));
            if let Some((file, _)) = expected.iter().find(|(file, bytes)| found.get(*file) != Some(*bytes)) {
                let (found, expected) = (tensors(&dst), tensors(&data().join(&name).join(scheme.name)));
                let first = expected.iter().find(|(name, tensor)| found.get(*name) != Some(*tensor));
                let first = first.map(|(name, _)| name);
                wrong.push(format!("{name}/{}: {file} differs, the first tensor is {first:?}", scheme.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn mlc(name: &str) -> ModelConfig {
    let config = json(&data().join(name).join("q0f32/mlc-chat-config.json"));
    ModelConfig::from_mlc(&config).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn hf(name: &str) -> ModelConfig {
    ModelConfig::from_hf(&json(&data().join(name).join("hf/config.json")))
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn both_configs_of_a_family_mean_the_same_block() {
    for (name, model_type) in checkpoints() {
        let (mlc, mut hf) = (mlc(&name), hf(&name));
        assert_eq!(mlc.model_type, model_type);
        assert_eq!(hf.model_type, model_type);
        // MLC's config of starcoder2 has no place for the window.
        if name == "starcoder2" {
            hf.settings.windows = None;
        }
        for semantics in [Semantics::Authors, Semantics::Mlc] {
            assert_eq!(mlc.block(semantics), hf.block(semantics), "{name} {semantics:?}");
        }
    }
}

#[test]
fn the_two_meanings_differ_where_the_families_do() {
    let both = |name: &str| (hf(name).block(Semantics::Authors), hf(name).block(Semantics::Mlc));
    for name in
        ["llama", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox", "phi", "olmo", "olmo2", "nemotron", "orion"]
    {
        if data().join(name).exists() {
            let (authors, mlc) = both(name);
            assert_eq!(authors, mlc, "{name}");
        }
    }
    let (authors, mlc) = both("gemma2");
    assert_eq!((authors.attention_cap, mlc.attention_cap), (Some(5.0), None));
    assert_eq!((authors.logit_cap, mlc.logit_cap), (Some(15.0), Some(15.0)));
    assert_eq!(
        authors.attention.iter().map(|a| a.mask).collect::<Vec<_>>(),
        [Mask::Window(48), Mask::Causal]
    );
    assert!(mlc.attention.iter().all(|a| a.mask == Mask::Causal && a.scale == 0.25));
    assert_eq!(authors.attention[0].scale, 24f64.powf(-0.5) as f32);
    assert_eq!(authors.embed_scale, 8.0);

    let (authors, mlc) = both("gemma3_text");
    assert_eq!((authors.ropes.len(), mlc.ropes.len()), (2, 1));
    assert_eq!((authors.ropes[0].theta, authors.ropes[1].theta), (1e6, 1e4));
    assert_eq!((authors.attention[0].mask, authors.attention[0].rope), (Mask::Window(512), Some(1)));
    assert_eq!((authors.attention[5].mask, authors.attention[5].rope), (Mask::Causal, Some(0)));
    assert_eq!((mlc.attention[6].mask, mlc.attention[6].rope), (Mask::CallWindow(1024), Some(0)));

    let (authors, mlc) = both("cohere");
    assert!(authors.parallel && authors.ropes[0].interleaved && !mlc.ropes[0].interleaved);
    assert_eq!((authors.logit_scale, mlc.logit_scale), (0.0625, 1.0));

    let (authors, mlc) = both("mistral-window");
    assert_eq!(authors.attention[1].mask, Mask::Window(16));
    assert_eq!(mlc.attention[1].mask, Mask::Cache { window: 16, sink: 4 });

    let (authors, mlc) = both("phi3-mini4");
    assert_eq!((authors.ropes[0].dim, authors.ropes[0].by_call, mlc.ropes[0].by_call), (12, false, true));
    assert!(matches!(authors.ropes[0].scaling, RopeScaling::LongRope { .. }));

    let (authors, mlc) = both("phi3_v");
    assert_eq!((authors.ropes[0].dim, authors.ropes[0].by_call, mlc.ropes[0].by_call), (16, false, true));

    let (authors, mlc) = both("ministral3");
    let at = |block: &arch::Block| block.attention[1];
    let by_position = PositionScale { beta: 0.1, floor: 16.0, offset: 0 };
    assert_eq!((at(&authors).position_scale, at(&mlc).position_scale), (Some(by_position), None));
    let mscale = 0.1 * 4f64.ln() + 1.0;
    assert_eq!(at(&authors).scale, 32f64.powf(-0.5) as f32);
    assert_eq!(at(&mlc).scale, (32f64.powf(-0.5) * mscale * mscale) as f32);
    assert_eq!((authors.ropes[0].ramp_by_dim, mlc.ropes[0].ramp_by_dim), (false, true));
    let rounded =
        |block: &arch::Block| matches!(block.ropes[0].scaling, RopeScaling::Yarn { truncate: true, .. });
    assert!(rounded(&authors) && !rounded(&mlc));

    let (authors, _) = both("gpt_neox-parallel");
    assert!(authors.parallel);
    assert_eq!(authors.ropes[0].dim, 8);
    assert!(both("olmo").0.norm.bare && both("olmo").0.clip_qkv == Some(2.0));
    assert_eq!(both("nemotron").0.norm.offset, 1.0);
}

#[test]
fn what_is_more_than_attention_and_one_mlp_is_in_the_block() {
    let block = |name: &str| hf(name).block(Semantics::Authors);
    let experts = |name: &str, layer: usize| block(name).experts[layer].unwrap();
    let chosen = |name: &str, layer| {
        let e = experts(name, layer);
        (e.count, e.width, e.top_k, e.score, e.renormalise)
    };
    assert_eq!(chosen("mixtral", 0), (4, 48, 2, Score::Softmax, true));
    assert_eq!(chosen("qwen3_moe", 1), (6, 40, 2, Score::Softmax, true));
    assert_eq!(chosen("qwen2_moe", 1), (6, 40, 3, Score::Softmax, false));
    assert_eq!(chosen("deepseek", 1), (5, 40, 2, Score::Softmax, false));
    assert_eq!(block("deepseek").experts[0], None);
    assert_eq!(chosen("deepseek_v2", 1), (8, 32, 3, Score::Softmax, false));
    assert_eq!(chosen("deepseek_v3", 1), (8, 32, 3, Score::Sigmoid, true));
    assert_eq!(experts("deepseek_v2", 1).groups, Some(Groups { count: 4, kept: 2, two_best: false }));
    assert_eq!(experts("deepseek_v3", 1).groups, Some(Groups { count: 4, kept: 2, two_best: true }));
    assert_eq!(experts("deepseek_v3", 1).scale, 2.5);
    assert_eq!(chosen("llama4", 3), (4, 32, 1, Score::Sigmoid, false));
    assert!(experts("llama4", 3).on_input && !experts("mixtral", 0).on_input);

    let latent = Latent { q_rank: Some(32), kv_rank: 24, nope: 16, rope: 8, value: 16 };
    let (authors, mlc) = (block("deepseek_v3"), hf("deepseek_v3").block(Semantics::Mlc));
    assert_eq!((authors.latent, authors.absorbed, mlc.absorbed), (Some(latent), false, true));
    assert_eq!(block("deepseek_v2").latent, Some(Latent { q_rank: None, ..latent }));
    let mscale = 0.1 * 0.707 * 4f64.ln() + 1.0;
    assert_eq!(authors.attention[0].scale, (24f64.powf(-0.5) * mscale * mscale) as f32);
    assert_eq!(authors.attention[0].scale, mlc.attention[0].scale);
    assert_eq!((authors.ropes[0].dim, authors.ropes[0].interleaved), (8, true));
    assert_eq!((authors.ropes[0].ramp_by_dim, mlc.ropes[0].ramp_by_dim), (false, true));

    let llama4 = block("llama4");
    let [turned, still] = [&llama4.attention[2], &llama4.attention[3]];
    let by_position = PositionScale { beta: 0.1, floor: 8.0, offset: 1 };
    assert_eq!((turned.rope, turned.position_scale), (Some(0), None));
    assert_eq!((still.rope, still.position_scale), (None, Some(by_position)));
    assert_eq!((turned.qk_norm_after_rope, still.qk_norm_after_rope), (Some(0.003), None));
    assert_eq!((llama4.ropes[0].theta, mlc_theta("llama4")), (500000.0, 500000.0));

    let (authors, mlc) = (block("rwkv6"), hf("rwkv6").block(Semantics::Mlc));
    let rwkv = Rwkv { mix: 32, decay: 64, rescale_every: 1, group_eps: 64e-5 };
    assert_eq!((authors.rwkv, mlc.rwkv), (Some(rwkv), Some(Rwkv { group_eps: 1e-5, ..rwkv })));
    assert!(authors.ropes.is_empty());

    let bert = block("bert");
    assert!(bert.post_sum && bert.ropes.is_empty() && bert.attention[0].mask == Mask::Full);

    let qwen = block("qwen3_5");
    let delta = qwen.delta[0].unwrap();
    assert_eq!((delta.key_heads, delta.value_heads, delta.key_dim, delta.value_dim), (2, 4, 16, 16));
    assert_eq!((delta.kernel, delta.eps, qwen.delta[3]), (4, 0.003, None));
    assert!(qwen.attention[3].gated && qwen.ropes[0].dim == 8);
}

fn mlc_theta(name: &str) -> f64 {
    mlc(name).rope_theta
}

#[test]
fn the_config_that_conversion_writes_means_what_the_checkpoints_does() {
    let mut wrong = Vec::new();
    for (name, model_type) in checkpoints() {
        let checkpoint = json(&data().join(&name).join("hf/config.json"));
        let made = ChatConfig::generate(ChatConfigInputs {
            model_type: &model_type,
            quantization: "q0f32",
            hf_config: &checkpoint,
            generation_config: None,
            tokenizer_files: &[],
            tokenizer_info: TokenizerInfo::detect(&Value::Null),
            active_vocab_size: None,
            conv_template: ConvTemplate::builtin("chatml").unwrap(),
            embedding: None,
        });
        let made: Value = serde_json::from_str(&made.to_json()).unwrap();
        let mut mlcs = json(&data().join(&name).join("q0f32/mlc-chat-config.json"));
        let made_model = &made["model_config"];
        let mut mlcs_model = mlcs["model_config"].take();
        // What MLC computes from other fields, or of what sees.
        let derived = mlcs_model.as_object_mut().unwrap();
        for key in ["num_heads", "vision_config", "modules_to_not_convert"] {
            derived.remove(key);
        }
        let exact = ["mixtral", "moe", "deepseek", "ministral3", "bert", "qwen3_5", "rwkv6"];
        if exact.iter().any(|part| name.contains(part)) && *made_model != mlcs_model {
            wrong.push(format!("{name}: {made_model} instead of {mlcs_model}"));
        }
        for key in ["model_task", "embedding_metadata"] {
            if made[key] != mlcs[key] {
                wrong.push(format!("{name}: {key} {} instead of {}", made[key], mlcs[key]));
            }
        }
        let meant = match ModelConfig::from_mlc(&made) {
            Ok(meant) => meant,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        for semantics in [Semantics::Authors, Semantics::Mlc] {
            let (found, expected) = (meant.block(semantics), hf(&name).block(semantics));
            if found != expected {
                wrong.push(format!("{name} {semantics:?}: {:?}", found.differs_from(&expected)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_holds_what_its_family_says() {
    let mut wrong = Vec::new();
    for (name, model_type) in checkpoints() {
        for scheme in SCHEMES.iter().map(|scheme| scheme.name) {
            let path = data().join(&name).join(scheme);
            if !path.exists() {
                continue;
            }
            let folder = Folder::open(&path).unwrap();
            let found = Description::of_folder(&folder);
            wrong.extend(found.errors.iter().map(|e| format!("{name}/{scheme}: {e}")));
            let Some(model) = found.model else {
                wrong.push(format!("{name}/{scheme}: no model"));
                continue;
            };
            if (model.model_type.as_str(), model.scheme.name) != (&model_type, scheme) {
                wrong.push(format!("{name}/{scheme}: {} {}", model.model_type, model.scheme.name));
            }
            // Every parameter's values can be read.
            match MlcSource::new(&folder, &model) {
                Ok(source) => {
                    let there = |p: &arch::Param| {
                        let at = source.tensors().iter().position(|t| t.name == p.name);
                        at.is_some_and(|at| source.read(at).is_ok_and(|v| v.len() == p.numel()))
                    };
                    let missing = model.params.iter().filter(|p| !there(p));
                    wrong.extend(missing.map(|p| format!("{name}/{scheme}: {} cannot be read", p.name)));
                }
                Err(e) => wrong.push(format!("{name}/{scheme}: {e}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_layer_type_that_nobody_computes_is_refused_by_name() {
    let mut config = json(&data().join("gemma2/hf/config.json"));
    config["layer_types"] = serde_json::json!(["full_attention", "chunked_attention"]);
    let error = ModelConfig::from_hf(&config).unwrap_err().to_string();
    assert!(error.contains("layer_types") && error.contains("chunked_attention"), "{error}");
    config["layer_types"] = serde_json::json!(["full_attention", "sliding_attention"]);
    let block = ModelConfig::from_hf(&config).unwrap().block(Semantics::Authors);
    assert_eq!(block.attention[1].mask, Mask::Window(48));
    assert_eq!(block.attention[0].mask, Mask::Causal);
}
