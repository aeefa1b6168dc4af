//! Every family against what MLC wrote of a tiny checkpoint (`data/arch`): each byte of the folder, the config read back
//! from either side, and the block that follows from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tessera_weights::arch::{self, Mask, Semantics, Sizes};
use tessera_weights::config::{ModelConfig, RopeScaling};
use tessera_weights::convert::{ConvertOptions, convert};
use tessera_weights::hf::HfFolder;
use tessera_weights::scheme::SCHEMES;

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

    let (authors, _) = both("gpt_neox-parallel");
    assert!(authors.parallel);
    assert_eq!(authors.ropes[0].dim, 8);
    assert!(both("olmo").0.norm.bare && both("olmo").0.clip_qkv == Some(2.0));
    assert_eq!(both("nemotron").0.norm.offset, 1.0);
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
