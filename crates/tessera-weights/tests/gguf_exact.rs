//! Q4_0 to MLC's 4-bit schemes: every weight of the folder is the weight of the file.

mod gguf_writer;

use gguf_writer::{File, Noise, q4_llama};
use std::ops::ControlFlow;
use std::path::Path;
use tessera_weights::arch::{Param, Sizes, params};
use tessera_weights::bytes::Bytes;
use tessera_weights::convert::{ConvertOptions, ConvertReport, convert};
use tessera_weights::folder::Folder;
use tessera_weights::gguf::GgufModel;
use tessera_weights::quantize::decode;
use tessera_weights::scheme::{Layout, Scheme};
use tessera_weights::source::{TensorSource, Values};
use tessera_weights::verify::{VerifyOptions, verify};

fn model(file: &File) -> GgufModel {
    GgufModel::from_bytes(Bytes::from_vec(file.bytes()), "f.gguf").unwrap()
}

fn params_of(model: &GgufModel) -> Vec<Param> {
    params("llama", &Sizes::from_json("llama", &model.config).unwrap()).unwrap()
}

fn converted(model: &GgufModel, scheme: &str, dst: &Path) -> ConvertReport {
    let progress = |_: &tessera_weights::convert::Progress<'_>| ControlFlow::Continue(());
    let options = ConvertOptions { progress: Some(&progress), ..ConvertOptions::default() };
    let scheme = Scheme::find(scheme).unwrap();
    convert(&model.source, &params_of(model), scheme, &options, dst, &[]).unwrap()
}

/// Values of a parameter as the file's tensors give them, one source after the other.
fn wanted(source: &dyn TensorSource, param: &Param) -> Vec<f32> {
    let read = |name: &str| {
        let at = source.tensors().iter().position(|t| t.name == name).unwrap();
        match source.read(at).unwrap() {
            Values::F32(v) => v,
            other => panic!("{name} is {:?}", other.dtype()),
        }
    };
    param.sources.iter().flat_map(|s| read(&s.name)).collect()
}

#[test]
fn every_weight_is_kept_in_every_scheme_that_can_hold_it() {
    let model = model(&q4_llama(7));
    for (name, exact) in [("q4f16_1", 9), ("q4f16_0", 9), ("q4f16_2", 8)] {
        let dir = tempfile::tempdir().unwrap();
        let dst = dir.path().join("out");
        let report = converted(&model, name, &dst);
        assert_eq!((report.exact, report.quantised), (exact, exact), "{name}");
        assert!(report.non_finite.is_empty());
        let (folder, scheme) = (Folder::open(&dst).unwrap(), Scheme::find(name).unwrap());
        for param in params_of(&model).iter().filter(|p| p.layout(scheme).is_some()) {
            let base = param.name.strip_suffix(".weight").unwrap();
            let layout = param.layout(scheme).unwrap();
            let matrix = folder.matrix(base, scheme.group, layout, param.rows(), param.cols()).unwrap();
            let (found, want) = (decode(&matrix), wanted(&model.source, param));
            assert_eq!(found.len(), want.len());
            // As numbers: a zero may have another sign.
            let differ = found.iter().zip(&want).filter(|(a, b)| a != b).count();
            assert_eq!(differ, 0, "{name}: {}", param.name);
            // That means something only if both signs of scales and all codes occur.
            assert!(want.iter().any(|&w| w < 0.0) && want.iter().any(|&w| w > 0.0));
        }
        let report = verify(&dst, VerifyOptions::default(), &|_| ());
        assert!(report.is_clean(), "{:?}", report.defects);
        assert!(report.notes.iter().any(|n| n.message.contains("negative") && n.message.contains("Q4_0")));
    }
}

#[test]
fn float32_keeps_only_scales_that_sixteen_bits_hold() {
    // A scale of a power of two fits bfloat16, one of eleven significant bits does not.
    let mut file = q4_llama(3);
    for tensor in file.tensors.iter_mut().filter(|t| t.ty == 2) {
        for block in tensor.data.chunks_exact_mut(18) {
            block[..2].copy_from_slice(&0x2c00u16.to_le_bytes());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let report = converted(&model(&file), "q4f32_1", &dir.path().join("all"));
    assert_eq!((report.exact, report.quantised), (9, 9));
    let tensor = file.tensors.iter_mut().find(|t| t.name == "blk.0.attn_k.weight").unwrap();
    tensor.data[18..20].copy_from_slice(&0x2c01u16.to_le_bytes());
    let report = converted(&model(&file), "q4f32_1", &dir.path().join("but-one"));
    assert_eq!((report.exact, report.quantised), (8, 9), "the fused q, k and v of layer 0");
}

#[test]
fn three_bits_hold_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let report = converted(&model(&q4_llama(5)), "q3f16_1", &dir.path().join("out"));
    assert_eq!((report.exact, report.quantised), (0, 9));
}

#[test]
fn a_part_of_another_type_leaves_the_others_exact() {
    let mut file = q4_llama(9);
    let (rows, cols) = (32, 64);
    let mut noise = Noise(4);
    let values: Vec<f32> = (0..rows * cols).map(|_| noise.next() as f32 / u32::MAX as f32 - 0.5).collect();
    file.set_tensor("blk.1.attn_v.weight", &[cols as u64, rows as u64], &values);
    let model = model(&file);
    let dir = tempfile::tempdir().unwrap();
    let dst = dir.path().join("out");
    let report = converted(&model, "q4f16_1", &dst);
    assert_eq!((report.exact, report.quantised), (8, 9));
    let name = "model.layers.1.self_attn.qkv_proj";
    let params = params_of(&model);
    let param = params.iter().find(|p| p.name.starts_with(name)).unwrap();
    let scheme = Scheme::find("q4f16_1").unwrap();
    let matrix = Folder::open(&dst).unwrap();
    let matrix = matrix.matrix(name, scheme.group, Layout::Nk, param.rows(), param.cols()).unwrap();
    let (found, want) = (decode(&matrix), wanted(&model.source, param));
    let split = found.len() - rows * cols;
    assert!(found[..split] == want[..split], "q and k are what they were");
    assert!(found[split..] != want[split..], "v was quantised");
}

#[test]
fn a_scale_that_is_no_number_is_refused_by_name() {
    for (bits, text) in [(0x7c00u16, "is inf"), (0xfc00, "is -inf"), (0x7e01, "NaN")] {
        let mut file = q4_llama(1);
        let tensor = file.tensors.iter_mut().find(|t| t.name == "blk.1.ffn_down.weight").unwrap();
        // 128 columns make four blocks a row: this one is the second of row 1.
        tensor.data[18 * 5..18 * 5 + 2].copy_from_slice(&bits.to_le_bytes());
        let model = model(&file);
        let dir = tempfile::tempdir().unwrap();
        let scheme = Scheme::find("q4f16_1").unwrap();
        let dst = dir.path().join("out");
        let error = convert(&model.source, &params_of(&model), scheme, &ConvertOptions::default(), &dst, &[]);
        let error = error.unwrap_err().to_string();
        for part in ["f.gguf", "model.layers.1.mlp.down_proj.weight", "row 1", "weights 32 to 63", text] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        assert!(!dst.exists());
    }
}
