//! MLC folder to checkpoint and back: every family's golden against the checkpoint that MLC read.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tessera_weights::arch::{self, Combine, Sizes};
use tessera_weights::convert::{ConvertOptions, ManifestName, MlcSource, SourceNames, convert, copy_folder};
use tessera_weights::export::{ExportOptions, export_safetensors, plan_export};
use tessera_weights::folder::Folder;
use tessera_weights::hf::HfFolder;
use tessera_weights::model::{CHAT_CONFIG, Description, FolderModel};
use tessera_weights::quantize::{decode, f32_to_bf16_bits, round_bf16, round_f16};
use tessera_weights::scheme::Scheme;
use tessera_weights::source::{TensorSource, Values};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn model(name: &str, scheme: &str) -> FolderModel {
    let config = HfFolder::open(&golden(name).join("hf")).unwrap().config().unwrap();
    let model_type = config["model_type"].as_str().unwrap().to_owned();
    let sizes = Sizes::from_json(&model_type, &config).unwrap();
    let params = arch::params(&model_type, &sizes).unwrap();
    FolderModel { model_type, scheme: Scheme::find(scheme).unwrap(), params, sizes }
}

fn wide(values: Values) -> Vec<f32> {
    match values {
        Values::F32(v) => v,
        Values::F16(v) => v.into_iter().map(|x| x.to_f32()).collect(),
        Values::BF16(v) => v.into_iter().map(|x| x.to_f32()).collect(),
    }
}

#[test]
fn every_family_comes_back_as_the_checkpoint_rounded_to_the_folders_type() {
    let names = [
        "llama-gqa-f32",
        "llama-tied-bf16",
        "llama-mha-f16",
        "qwen2-tied-bf16",
        "qwen3-f32",
        "gemma-bf16",
        "gpt2-f32",
        "gptneox-f16",
        "internlm2-bf16",
        "phi3-bf16",
    ];
    let mut compared = 0;
    for name in names {
        for scheme in ["q0f16", "q0bf16", "q0f32"] {
            if !golden(name).join(scheme).exists() {
                continue;
            }
            let model = model(name, scheme);
            let folder = Folder::open(golden(name).join(scheme)).unwrap();
            let plan = plan_export(&model.model_type, &model.params, model.scheme).unwrap();
            let out = tempfile::tempdir().unwrap();
            let options = ExportOptions::new(model.scheme.dtype, None);
            let go = &mut |_, _| ControlFlow::Continue(());
            export_safetensors(&folder, &plan, &options, out.path(), &decode, go).unwrap();

            let original = HfFolder::open(&golden(name).join("hf")).unwrap();
            let exported = HfFolder::open(out.path()).unwrap();
            for (i, tensor) in original.tensors().iter().enumerate() {
                let what = format!("{name}/{scheme}: {}", tensor.name);
                let made = model
                    .params
                    .iter()
                    .find(|p| p.combine != Combine::Copy && p.sources.iter().any(|s| s.name == tensor.name));
                let Some(made) = made else {
                    assert!(arch::may_be_unused(&tensor.name), "{what} was dropped");
                    continue;
                };
                let at = exported.tensors().iter().position(|t| t.name == tensor.name);
                let at = at.unwrap_or_else(|| panic!("{what} is missing"));
                assert_eq!(exported.tensors()[at].shape, tensor.shape, "{what}");
                // gpt_neox keeps two biases in float32, stored as bf16, whatever the scheme.
                let kept = made.kind == arch::ParamKind::VectorF32;
                let round = |x: f32| match scheme {
                    "q0f16" if kept => round_f16(f32::from_bits(u32::from(f32_to_bf16_bits(x)) << 16)),
                    "q0f16" => round_f16(x),
                    _ => round_bf16(x),
                };
                // Gemma's norms are stored with 1 added in the checkpoint's own type, bf16.
                let expected = |x: &f32| match made.combine {
                    Combine::AddOne => round(round_bf16(x + 1.0)) - 1.0,
                    _ => round(*x),
                };
                let expected: Vec<f32> = wide(original.read(i).unwrap()).iter().map(expected).collect();
                assert_eq!(wide(exported.read(at).unwrap()), expected, "{what}");
                compared += 1;
            }
            // And nothing that the checkpoint does not have.
            let extra =
                exported.tensors().iter().find(|t| !original.tensors().iter().any(|o| o.name == t.name));
            assert_eq!(extra, None, "{name}/{scheme}");
        }
    }
    assert!(compared > 150, "{compared}");
}

#[test]
fn a_plain_folder_is_quantised_as_its_checkpoint_would_be() {
    // q0f16 of an f16 checkpoint loses nothing, so quantising the folder gives the codes that MLC gave the
    // checkpoint. Shards differ: the order of emission is the folder's.
    let folder = Folder::open(golden("llama-mha-f16/q0f16")).unwrap();
    let model = model("llama-mha-f16", "q0f16");
    let source = MlcSource::new(&folder, &model).unwrap();
    for scheme in ["q4f16_1", "q3f16_0", "q4bf16_1"] {
        let out = tempfile::tempdir().unwrap();
        let dst = out.path().join("out");
        let options = ConvertOptions { names: SourceNames::Mlc, ..ConvertOptions::default() };
        convert(&source, &model.params, Scheme::find(scheme).unwrap(), &options, &dst, &[]).unwrap();
        let found = Folder::open(&dst).unwrap();
        let expected = Folder::open(golden("llama-mha-f16").join(scheme)).unwrap();
        assert_eq!(found.tensors().len(), expected.tensors().len());
        for tensor in expected.tensors() {
            let other = found.tensor(&tensor.name).unwrap();
            assert_eq!(
                (&other.shape, other.dtype),
                (&tensor.shape, tensor.dtype),
                "{scheme} {}",
                tensor.name
            );
            assert!(*other.bytes == *tensor.bytes, "{scheme} {}", tensor.name);
        }
    }
}

#[test]
fn quantised_folders_are_decoded_and_strangers_reported() {
    let folder = Folder::open(golden("llama-gqa-f32/q4f16_0")).unwrap();
    let mut model = model("llama-gqa-f32", "q4f16_0");
    let source = MlcSource::new(&folder, &model).unwrap();
    let at = source.tensors().iter().position(|t| t.name == "model.layers.0.mlp.down_proj.weight").unwrap();
    let matrix = folder
        .matrix("model.layers.0.mlp.down_proj", model.scheme.group, model.scheme.layout, 48, 72)
        .unwrap();
    assert_eq!(wide(source.read(at).unwrap()), decode(&matrix));

    model.params.retain(|p| p.name != "lm_head.weight");
    let source = MlcSource::new(&folder, &model).unwrap();
    let at = source.tensors().iter().position(|t| t.name == "lm_head.q_weight").unwrap();
    assert!(source.read(at).unwrap_err().to_string().contains("lm_head.q_weight: no parameter"));

    model.params.push(arch::Param {
        name: "model.norm.bias".to_owned(),
        shape: vec![48],
        kind: arch::ParamKind::Vector,
        sources: Vec::new(),
        combine: Combine::Rows,
        role: arch::Role::Qkv,
        layer: Some(0),
    });
    let error = MlcSource::new(&folder, &model).err().unwrap().to_string();
    assert!(error.contains("model.norm.bias"), "{error}");
}

#[test]
fn a_copy_under_the_other_name_keeps_every_byte_and_refuses_damage() {
    let from = golden("llama-gqa-f32/q4f32_1");
    let folder = Folder::open(&from).unwrap();
    let out = tempfile::tempdir().unwrap();
    let dst = out.path().join("copy");
    let report = copy_folder(&folder, ManifestName::NdarrayCache, &dst, &[], None).unwrap();
    assert_eq!(report.shards, folder.manifest().shards().len());
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().replace("tensor-cache", "ndarray-cache");
        if name.starts_with("params") || name.starts_with("ndarray") {
            assert!(std::fs::read(dst.join(&name)).unwrap() == std::fs::read(&path).unwrap(), "{name}");
        }
    }

    let shard = dst.join("params_shard_0.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let damaged = Folder::open(&dst).unwrap();
    let again = out.path().join("again");
    let error = copy_folder(&damaged, ManifestName::TensorCache, &again, &[], None).unwrap_err().to_string();
    assert!(error.starts_with("params_shard_0.bin: md5sum is"), "{error}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "nothing was left");
}

#[test]
fn a_folder_without_a_config_is_told_by_its_shapes() {
    let folder = Folder::open(golden("llama-gqa-f32/q4f16_1")).unwrap();
    let found = Description::of_folder(&folder);
    let model = found.model.as_ref().unwrap();
    assert_eq!((model.model_type.as_str(), model.scheme.name), ("llama", "q4f16_1"));
    assert!(found.notes.iter().any(|g| g.contains("q4f16_1")), "{:?}", found.notes);
    let json: Value = serde_json::json!({"quantization": "q9", "model_type": "llama"});
    let read = |name: &str| Ok((name == CHAT_CONFIG).then(|| json.to_string().into_bytes()));
    let error = Description::of_opened(&folder, &read).errors[0].to_string();
    assert!(error.contains("q9"), "{error}");
}
