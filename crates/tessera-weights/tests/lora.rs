//! Adapters against merges that numpy made (`make_lora_golden.py`), from a checkpoint and from an MLC folder of it,
//! and adapters that do not fit.

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tessera_weights::arch::{self, Param, Sizes};
use tessera_weights::bytes::Bytes;
use tessera_weights::convert::{ConvertOptions, MlcSource, SourceNames, convert};
use tessera_weights::folder::Folder;
use tessera_weights::gguf::{self, GgufSource};
use tessera_weights::hf::HfFolder;
use tessera_weights::lora::{Adapter, LoraSource};
use tessera_weights::model::FolderModel;
use tessera_weights::scheme::Scheme;
use tessera_weights::source::{SourceTensor, TensorSource, Values};

/// Name, checkpoint, the adapters' factors, and how many tensors are changed.
const CASES: &[(&str, &str, &[f64], usize)] = &[
    ("plain", "llama-gqa-f32", &[1.0], 14),
    ("patterns", "llama-gqa-f32", &[1.0], 10),
    ("several", "llama-gqa-f32", &[1.0, 0.5, -1.0], 6),
    ("embedding", "llama-tied-bf16", &[1.0], 2),
    ("conv1d", "gpt2-f32", &[1.0], 4),
    ("fused", "phi3-bf16", &[1.0], 2),
    ("reordered", "gptneox-f16", &[1.0], 3),
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn adapters(case: &str, factors: &[f64]) -> Vec<Adapter> {
    let folder = |i: usize| if i == 0 { "adapter".to_owned() } else { format!("adapter{i}") };
    let open = |(i, &factor): (usize, &f64)| {
        Adapter::open(&data("lora").join(case).join(folder(i)), factor).unwrap()
    };
    factors.iter().enumerate().map(open).collect()
}

struct Model {
    source: HfFolder,
    model_type: String,
    sizes: Sizes,
    params: Vec<Param>,
}

fn model(checkpoint: &str) -> Model {
    let source = HfFolder::open(&data("golden").join(checkpoint).join("hf")).unwrap();
    let config = source.config().unwrap();
    let model_type = config["model_type"].as_str().unwrap().to_owned();
    let sizes = Sizes::from_json(&model_type, &config).unwrap();
    let params = arch::params(&model_type, &sizes).unwrap();
    Model { source, model_type, sizes, params }
}

fn f32s(values: Values) -> Vec<f32> {
    match values {
        Values::F32(v) => v,
        Values::F16(v) => v.into_iter().map(half::f16::to_f32).collect(),
        Values::BF16(v) => v.into_iter().map(half::bf16::to_f32).collect(),
    }
}

fn all(source: &dyn TensorSource) -> HashMap<String, Vec<f32>> {
    let read = |(i, t): (usize, &SourceTensor)| (t.name.clone(), f32s(source.read(i).unwrap()));
    source.tensors().iter().enumerate().map(read).collect()
}

/// The same number, or its neighbour: the sum may be made in another order before it is rounded.
fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= b.abs() * f32::EPSILON
}

#[test]
fn merges_are_numpys() {
    for (case, checkpoint, factors, count) in CASES {
        let model = model(checkpoint);
        let adapters = adapters(case, factors);
        let merged = LoraSource::new(&model.source, &model.params, SourceNames::Hf, &adapters).unwrap();
        let path = data("lora").join(case).join("merged.safetensors");
        let expected =
            all(&HfFolder::of_file("merged", Bytes::from_vec(std::fs::read(path).unwrap())).unwrap());
        assert_eq!(expected.len(), *count, "{case}");
        let (before, after) = (all(&model.source), all(&merged));
        for (name, found) in &after {
            let Some(expected) = expected.get(name) else {
                assert!(found == &before[name], "{case}: {name} was changed");
                continue;
            };
            assert_eq!(found.len(), expected.len(), "{case}: {name}");
            let wrong = found.iter().zip(expected).position(|(a, b)| !close(*a, *b));
            assert_eq!(wrong, None, "{case}: {name}");
            assert!(found != &before[name], "{case}: {name} was not changed");
        }
    }
}

/// In a folder, tensors are fused and their heads in another order: the merge is the same.
#[test]
fn an_mlc_folder_is_merged_as_its_checkpoint_is() {
    for (case, checkpoint, factors, _) in CASES {
        let model = model(checkpoint);
        let adapters = adapters(case, factors);
        let scheme = Scheme::find("q0f32").unwrap();
        let out = tempfile::tempdir().unwrap();
        let write = |source: &dyn TensorSource, names: SourceNames, to: &str| {
            let options = ConvertOptions { names, whole_f32: true, ..ConvertOptions::default() };
            convert(source, &model.params, scheme, &options, &out.path().join(to), &[]).unwrap();
            Folder::open(out.path().join(to)).unwrap()
        };
        let merged = LoraSource::new(&model.source, &model.params, SourceNames::Hf, &adapters).unwrap();
        let direct = write(&merged, SourceNames::Hf, "direct");
        let plain = write(&model.source, SourceNames::Hf, "plain");
        let of_folder = FolderModel {
            model_type: model.model_type.clone(),
            scheme,
            params: model.params.clone(),
            sizes: model.sizes.clone(),
        };
        let source = MlcSource::new(&plain, &of_folder).unwrap();
        let merged = LoraSource::new(&source, &model.params, SourceNames::Mlc, &adapters).unwrap();
        let indirect = write(&merged, SourceNames::Mlc, "indirect");
        let mut changed = 0;
        for tensor in direct.tensors() {
            let other = indirect.tensor(&tensor.name).unwrap();
            assert!(tensor.bytes[..] == other.bytes[..], "{case}: {}", tensor.name);
            changed += usize::from(tensor.bytes[..] != plain.tensor(&tensor.name).unwrap().bytes[..]);
        }
        assert!(changed > 1, "{case}");
    }
}

#[test]
fn a_gguf_file_is_a_checkpoint_like_any_other() {
    let model = gguf::open(data("gguf/tiny.gguf")).unwrap();
    let source: GgufSource = model.source;
    let model_type = model.config["model_type"].as_str().unwrap();
    let params = arch::params(model_type, &Sizes::from_json(model_type, &model.config).unwrap()).unwrap();
    let name = "model.layers.0.self_attn.q_proj";
    let index = source.tensors().iter().position(|t| t.name == format!("{name}.weight")).unwrap();
    let [rows, cols] = source.tensors()[index].shape[..] else { panic!() };
    let folder = tempfile::tempdir().unwrap();
    let key = |part: &str| format!("base_model.model.{name}.lora_{part}.weight");
    let a: Vec<f32> = (0..cols).map(|i| i as f32 / 64.0).collect();
    let b: Vec<f32> = (0..rows).map(|i| 1.0 - i as f32 / 32.0).collect();
    write(
        folder.path(),
        &json!({"lora_alpha": 2}),
        &[(key("A"), vec![1, cols], a.clone()), (key("B"), vec![rows, 1], b.clone())],
    );
    let adapters = [Adapter::open(folder.path(), 0.25).unwrap()];
    let merged = LoraSource::new(&source, &params, SourceNames::Hf, &adapters).unwrap();
    let (before, after) = (f32s(source.read(index).unwrap()), f32s(merged.read(index).unwrap()));
    for (i, (old, new)) in before.iter().zip(&after).enumerate() {
        let delta = 0.5 * f64::from(b[i / cols]) * f64::from(a[i % cols]);
        assert_eq!(*new, (f64::from(*old) + delta) as f32, "{i}");
    }
}

/// A folder of PEFT with rank 1.
fn write(folder: &Path, more: &Value, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let mut config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.join("adapter_model.safetensors")).unwrap();
}

/// What is wrong with an adapter of these tensors (name and shape) for a llama of width 48, with 6 heads of 8.
fn error(more: Value, tensors: &[(&str, &[usize])], factor: f64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let filled = |(name, shape): &(&str, &[usize])| {
        ((*name).to_owned(), shape.to_vec(), vec![0.5; shape.iter().product()])
    };
    write(folder.path(), &more, &tensors.iter().map(filled).collect::<Vec<_>>());
    let model = model("llama-gqa-f32");
    let adapter = match Adapter::open(folder.path(), factor) {
        Ok(adapter) => adapter,
        Err(error) => return error.to_string(),
    };
    let made = LoraSource::new(&model.source, &model.params, SourceNames::Hf, &[adapter]);
    made.map(|_| String::new()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn what_has_no_place_or_does_not_fit_is_named() {
    const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";
    let (a, b) = (format!("{Q}.lora_A.weight"), format!("{Q}.lora_B.weight"));
    let pair =
        |a_shape: &'static [usize], b_shape: &'static [usize]| [(a.as_str(), a_shape), (b.as_str(), b_shape)];
    assert_eq!(error(json!({}), &pair(&[1, 48], &[48, 1]), 1.0), "", "the one that fits");
    for (more, tensors, factor, words) in [
        (
            json!({}),
            pair(&[1, 47], &[48, 1]).to_vec(),
            1.0,
            vec![b.as_str(), "[48, 1]", "[1, 47]", "q_proj.weight has shape [48, 48]"],
        ),
        (
            json!({}),
            pair(&[2, 48], &[48, 1]).to_vec(),
            1.0,
            vec![a.as_str(), "[2, 48]", b.as_str(), "[48, 1]"],
        ),
        (json!({"r": 2}), pair(&[1, 48], &[48, 1]).to_vec(), 1.0, vec!["with r = 2"]),
        (json!({}), pair(&[48], &[48, 1]).to_vec(), 1.0, vec!["[r, inputs] and [outputs, r]"]),
        (
            json!({}),
            vec![(a.as_str(), &[1usize, 48][..])],
            1.0,
            vec![a.as_str(), "the B beside it is missing"],
        ),
        (
            json!({}),
            vec![(b.as_str(), &[48usize, 1][..])],
            1.0,
            vec![b.as_str(), "the A beside it is missing"],
        ),
        (json!({}), vec![], 1.0, vec!["holds no tensors"]),
        (
            json!({}),
            vec![
                ("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", &[1usize, 48][..]),
                ("base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight", &[48, 1]),
            ],
            1.0,
            vec![
                "layers.9.self_attn.q_proj.lora_B.weight has no place",
                "model.layers.9.self_attn.q_proj.weight",
            ],
        ),
        (
            json!({}),
            vec![("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[48usize][..])],
            1.0,
            vec!["lora_magnitude_vector", "not a tensor of LoRA"],
        ),
        (
            json!({}),
            vec![("base_model.model.score.weight", &[2usize, 48][..])],
            1.0,
            vec!["score.weight has no place"],
        ),
        (
            json!({}),
            vec![("base_model.model.lm_head.weight", &[102usize, 48][..])],
            1.0,
            vec!["[102, 48]", "lm_head.weight has shape [101, 48]"],
        ),
        (
            json!({}),
            vec![("base_model.model.lm_head.weight", &[101usize, 48][..])],
            0.5,
            vec!["trained whole", "0.5"],
        ),
        (
            json!({"use_dora": true}),
            pair(&[1, 48], &[48, 1]).to_vec(),
            1.0,
            vec!["adapter_config.json", "DoRA"],
        ),
        (json!({"peft_type": "IA3"}), pair(&[1, 48], &[48, 1]).to_vec(), 1.0, vec!["peft_type is IA3"]),
    ] {
        let error = error(more, &tensors, factor);
        for word in words {
            assert!(error.contains(word), "{error:?} has no {word:?}");
        }
    }
}

#[test]
fn what_is_no_adapter_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |words: &[&str]| {
        let error = Adapter::open(folder.path(), 1.0).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error:?} lacks one of {words:?}");
    };
    fails(&["adapter_config.json"]);
    std::fs::write(folder.path().join("adapter_config.json"), "{").unwrap();
    fails(&["adapter_config.json", "not valid JSON"]);
    write(folder.path(), &json!({}), &[]);
    let weights = folder.path().join("adapter_model.safetensors");
    for bytes in [&b""[..], b"version https://git-lfs.github.com/spec/v1\n", &[255; 64]] {
        std::fs::write(&weights, bytes).unwrap();
        fails(&["adapter_model.safetensors"]);
    }
    std::fs::rename(&weights, folder.path().join("adapter_model.bin")).unwrap();
    fails(&["only adapter_model.bin is there"]);
}
