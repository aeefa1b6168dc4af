//! Q4_0 to MLC's 4-bit schemes: every weight of the folder is the weight of the file.

mod gguf_writer;

use gguf_writer::{File, Noise, q4_llama};
use half::f16;
use std::ops::ControlFlow;
use std::path::Path;
use tessera_weights::arch::{Param, Sizes, params};
use tessera_weights::bytes::Bytes;
use tessera_weights::config::{ModelConfig, RopeScaling};
use tessera_weights::convert::{ConvertOptions, ConvertReport, convert};
use tessera_weights::export::{GgufExportError, GgufInputs, GgufReport, export_gguf};
use tessera_weights::folder::Folder;
use tessera_weights::gguf::{Gguf, GgufModel};
use tessera_weights::model::Description;
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
            let (found, want) = (decode(&matrix), all_values(&model.source, param));
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

/// Gives all blocks a scale of 1/16.
fn one_scale(file: &mut File) {
    for tensor in file.tensors.iter_mut().filter(|t| t.ty == 2) {
        for block in tensor.data.chunks_exact_mut(18) {
            block[..2].copy_from_slice(&0x2c00u16.to_le_bytes());
        }
    }
}

#[test]
fn float32_keeps_only_scales_that_sixteen_bits_hold() {
    // A scale of a power of two fits bfloat16, one of eleven significant bits does not.
    let mut file = q4_llama(3);
    one_scale(&mut file);
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
    let (found, want) = (decode(&matrix), all_values(&model.source, param));
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

/// A folder of the file with a chat config of the model's own numbers.
fn folder(model: &GgufModel, scheme: &str, dst: &Path) -> Folder {
    let chat = serde_json::json!({
        "version": "0.1.0", "model_type": "llama", "quantization": scheme, "model_config": model.config,
        "vocab_size": model.config["vocab_size"], "context_window_size": 64, "sliding_window_size": -1,
        "prefill_chunk_size": 64, "attention_sink_size": -1, "tensor_parallel_shards": 1,
        "tokenizer_files": ["tokenizer.model", "tokenizer_config.json"],
        "bos_token_id": 1, "eos_token_id": [2], "pad_token_id": 0,
    });
    let mut files = model.tokenizer_files.clone();
    files.push(("mlc-chat-config.json".to_owned(), chat.to_string().into_bytes()));
    let scheme = Scheme::find(scheme).unwrap();
    convert(&model.source, &params_of(model), scheme, &ConvertOptions::default(), dst, &files).unwrap();
    Folder::open(dst).unwrap()
}

fn exported(
    folder: &Folder,
    files: &[(String, Vec<u8>)],
    allow_inexact: bool,
    dst: &Path,
) -> Result<GgufReport, GgufExportError> {
    let description = Description::of_folder(folder);
    assert!(description.errors.is_empty(), "{:?}", description.errors);
    let inputs = GgufInputs {
        model: description.model.as_ref().unwrap(),
        config: description.config.as_ref().unwrap(),
        chat: description.chat.as_ref().unwrap(),
        files,
        name: "tiny",
        allow_inexact,
    };
    export_gguf(folder, &inputs, dst, &decode, &mut |_, _| ControlFlow::Continue(()))
}

fn parsed(path: &Path) -> Gguf {
    Gguf::parse(Bytes::from_vec(std::fs::read(path).unwrap())).unwrap()
}

#[test]
fn a_file_comes_back_byte_for_byte() {
    let file = q4_llama(21);
    let model = model(&file);
    let before = Gguf::parse(Bytes::from_vec(file.bytes())).unwrap();
    for scheme in ["q4f16_1", "q4f16_0"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&model, scheme, &dir.path().join("mlc"));
        let path = dir.path().join("again.gguf");
        let report = exported(&folder, &model.tokenizer_files, false, &path).unwrap();
        assert_eq!((report.quantised, report.exact), (15, 15), "{:?}", report.notes);
        assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
        let after = parsed(&path);
        assert_eq!(after.tensors().len(), before.tensors().len());
        for tensor in before.tensors() {
            let again = after.tensor(&tensor.name).unwrap_or_else(|| panic!("no {}", tensor.name));
            assert_eq!((again.ty, &again.dims), (tensor.ty, &tensor.dims), "{}", tensor.name);
            assert!(after.data(again) == before.data(tensor), "{scheme}: {}", tensor.name);
        }
        // Nothing is written over, and nothing half done is left beside it.
        assert!(
            matches!(exported(&folder, &model.tokenizer_files, false, &path), Err(e) if e.to_string().contains("exists"))
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        // The same model, read again.
        let again = GgufModel::from_bytes(Bytes::from_vec(std::fs::read(&path).unwrap()), "again").unwrap();
        for key in [
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "rms_norm_eps",
            "rope_theta",
            "vocab_size",
            "eos_token_id",
        ] {
            assert_eq!(again.config[key], model.config[key], "{key}");
        }
        let (old, new) = (Vocabulary::of(&before), Vocabulary::of(&after));
        assert_eq!(old, new);
    }
}

/// What a tokenizer says, by key.
#[derive(Debug, PartialEq)]
struct Vocabulary(Vec<String>, Vec<f32>, Vec<u32>);

impl Vocabulary {
    fn of(gguf: &Gguf) -> Vocabulary {
        Vocabulary(
            gguf.meta_strings("tokenizer.ggml.tokens").unwrap().unwrap().to_vec(),
            gguf.meta_f32s("tokenizer.ggml.scores").unwrap().unwrap(),
            gguf.meta_u32s("tokenizer.ggml.token_type").unwrap().unwrap(),
        )
    }
}

#[test]
fn scales_that_no_f16_is_are_refused_tensor_by_tensor() {
    // Weights of 1e-7 have a float32 scale that is between the least f16 and zero.
    let mut file = q4_llama(2);
    one_scale(&mut file);
    let mut values = vec![1.0f32; 64 * 64];
    values[64 + 32..64 + 64].fill(1e-7);
    file.set_tensor("blk.1.attn_output.weight", &[64, 64], &values);
    let model = model(&file);
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(&model, "q4f32_1", &dir.path().join("mlc"));
    let path = dir.path().join("f.gguf");
    let error = exported(&folder, &model.tokenizer_files, false, &path).unwrap_err().to_string();
    for part in ["1 tensor(s)", "blk.1.attn_output.weight", "row 1, group 1", "1 of 128"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert!(!path.exists());
    let report = exported(&folder, &model.tokenizer_files, true, &path).unwrap();
    assert_eq!((report.quantised, report.exact), (15, 14));
    assert!(report.notes.iter().any(|n| n.contains("blk.1.attn_output.weight")), "{:?}", report.notes);
    let again = parsed(&path);
    let block = &again.data(again.tensor("blk.1.attn_output.weight").unwrap())[3 * 18..];
    let scale = f16::from_le_bytes([block[0], block[1]]);
    assert!(scale.to_f32().abs() <= 1e-7, "{scale}");
}

#[test]
fn plain_numbers_stay_what_they_are_and_three_bits_become_eight() {
    let model = model(&q4_llama(13));
    let dir = tempfile::tempdir().unwrap();
    for (scheme, ty) in
        [("q0f16", "F16"), ("q0f32", "BF16"), ("q0bf16", "BF16"), ("q3f16_1", "Q8_0"), ("q3f16_0", "Q8_0")]
    {
        let folder = folder(&model, scheme, &dir.path().join(scheme));
        let path = dir.path().join(format!("{scheme}.gguf"));
        let report = exported(&folder, &model.tokenizer_files, false, &path).unwrap();
        assert_eq!(report.types, [(ty, 15), ("F32", 5)].into(), "{scheme}");
        let again = GgufModel::from_bytes(Bytes::from_vec(std::fs::read(&path).unwrap()), "f").unwrap();
        let found = Scheme::find(scheme).unwrap();
        for param in params_of(&again).iter().filter(|p| p.shape.len() == 2) {
            let base = param.name.strip_suffix(".weight").unwrap();
            let layout = param.layout(found).unwrap_or(Layout::Nk);
            let matrix = folder.matrix(base, found.group, layout, param.rows(), param.cols()).unwrap();
            let (want, is) = (decode(&matrix), all_values(&again.source, param));
            let largest = want.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            // Half of a 127th, and what a 16-bit scale adds.
            let bound = if ty == "Q8_0" { largest / 250.0 } else { 0.0 };
            let worst = want.iter().zip(&is).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound, "{scheme}: {}: {worst} is beyond {bound}", param.name);
        }
        assert_eq!(
            report.notes.iter().filter(|n| n.contains("3-bit")).count(),
            if ty == "Q8_0" { 15 } else { 0 }
        );
    }
}

/// Values of a parameter, of any type.
fn all_values(source: &dyn TensorSource, param: &Param) -> Vec<f32> {
    let read = |name: &str| {
        let at = source.tensors().iter().position(|t| t.name == name).unwrap();
        match source.read(at).unwrap() {
            Values::F32(v) => v,
            Values::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Values::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
        }
    };
    param.sources.iter().flat_map(|s| read(&s.name)).collect()
}

/// `tiny.gguf`, whose tokenizer is a byte-level BPE with merges and a chat template.
fn tiny() -> (GgufModel, Gguf) {
    let path = format!("{}/tests/data/gguf/tiny.gguf", env!("CARGO_MANIFEST_DIR"));
    let bytes = Bytes::from_vec(std::fs::read(path).unwrap());
    (GgufModel::from_bytes(bytes.clone(), "tiny.gguf").unwrap(), Gguf::parse(bytes).unwrap())
}

#[test]
fn a_byte_level_tokenizer_comes_back() {
    let (model, before) = tiny();
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(&model, "q0f16", &dir.path().join("mlc"));
    let path = dir.path().join("again.gguf");
    exported(&folder, &model.tokenizer_files, false, &path).unwrap();
    let after = parsed(&path);
    for key in ["tokens", "merges"].map(|k| format!("tokenizer.ggml.{k}")) {
        assert!(before.meta_strings(&key).unwrap().is_some());
        assert_eq!(after.meta_strings(&key).unwrap(), before.meta_strings(&key).unwrap(), "{key}");
    }
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"] {
        assert_eq!(after.meta_str(key).unwrap(), before.meta_str(key).unwrap(), "{key}");
    }
    for key in ["bos_token_id", "eos_token_id"].map(|k| format!("tokenizer.ggml.{k}")) {
        assert_eq!(after.meta_u32(&key).unwrap(), before.meta_u32(&key).unwrap(), "{key}");
    }
    let key = "tokenizer.ggml.token_type";
    assert_eq!(after.meta_u32s(key).unwrap(), before.meta_u32s(key).unwrap());
    assert_eq!(after.meta_bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    assert_eq!(after.meta_bool("tokenizer.ggml.add_eos_token").unwrap(), Some(false));
}

/// Files beside the weights.
type Files = Vec<(String, Vec<u8>)>;

#[test]
fn a_tokenizer_that_gguf_cannot_say_is_refused_by_name() {
    let (model, _) = tiny();
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(&model, "q0f16", &dir.path().join("mlc"));
    let path = dir.path().join("f.gguf");
    let refused = |change: &dyn Fn(&mut Files), parts: &[&str]| {
        let mut files = model.tokenizer_files.clone();
        change(&mut files);
        let error = exported(&folder, &files, false, &path).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        assert!(!path.exists());
    };
    let patched = |change: fn(&mut serde_json::Value)| {
        move |files: &mut Files| {
            let (_, bytes) = files.iter_mut().find(|(name, _)| name == "tokenizer.json").unwrap();
            let mut json = serde_json::from_slice(bytes).unwrap();
            change(&mut json);
            *bytes = json.to_string().into_bytes();
        }
    };
    refused(&|files| files.clear(), &["there is no tokenizer", "tokenizer.json"]);
    refused(&|files| files[0].1.truncate(9), &["tokenizer.json", "invalid JSON"]);
    let split = |json: &mut serde_json::Value| {
        json["pre_tokenizer"]["pretokenizers"][0] = serde_json::json!({
            "type": "Split", "pattern": { "Regex": "[a-f]+" }, "behavior": "Isolated", "invert": false,
        });
    };
    refused(&patched(split), &["tokenizer.json", "[a-f]+", "none is known"]);
    refused(&patched(|j| j["normalizer"] = serde_json::json!({ "type": "Lowercase" })), &["none is known"]);
    refused(&patched(|j| j["model"]["type"] = "Unigram".into()), &["Unigram", "BPE"]);
    refused(&patched(|j| j["model"]["vocab"]["zz"] = 269.into()), &["\"zz\"", "269"]);
    refused(&patched(|j| j["model"]["vocab"]["zz"] = u64::MAX.into()), &["\"zz\"", "18446744073709551615"]);
    refused(&patched(|j| j["model"]["merges"][0] = 7.into()), &["merge 7"]);
    // A text that is cut by scores, without the scores.
    refused(&patched(|j| j["pre_tokenizer"] = serde_json::Value::Null), &["tokenizer.model", "scores"]);
    let broken = |files: &mut Files| {
        files.retain(|(name, _)| name != "tokenizer.json");
        files.push(("tokenizer.model".into(), vec![0xff; 9]));
    };
    refused(&broken, &["tokenizer.model", "not a SentencePiece model"]);
}

#[test]
fn rotary_scalings_come_back() {
    let model = model(&q4_llama(31));
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(&model, "q4f16_1", &dir.path().join("mlc"));
    let mut description = Description::of_folder(&folder);
    let mut config = description.config.take().unwrap();
    let yarn = |attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original_context: 32,
        beta_fast: 16.0,
        beta_slow: 2.0,
        attention_factor,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    // The base of the divisors decides what they are recognised as.
    config.rope_theta = 500000.0;
    for scaling in [RopeScaling::Linear { factor: 2.5 }, llama3, yarn(None), yarn(Some(1.25))] {
        config.rope_scaling = scaling.clone();
        let path = dir.path().join("f.gguf");
        let inputs = GgufInputs {
            model: description.model.as_ref().unwrap(),
            config: &config,
            chat: description.chat.as_ref().unwrap(),
            files: &model.tokenizer_files,
            name: "tiny",
            allow_inexact: false,
        };
        export_gguf(&folder, &inputs, &path, &decode, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let bytes = Bytes::from_vec(std::fs::read(&path).unwrap());
        let again = GgufModel::from_bytes(bytes, "f").unwrap();
        let read = ModelConfig::from_hf(&again.config).unwrap();
        match (&read.rope_scaling, &scaling) {
            // Through an f32 and a logarithm.
            (
                RopeScaling::Yarn { attention_factor: Some(a), .. },
                RopeScaling::Yarn { attention_factor: Some(b), .. },
            ) => assert!((a - b).abs() < 1e-6, "{a} and {b}"),
            (found, want) => assert_eq!(found, want),
        }
        std::fs::remove_file(&path).unwrap();
    }
}
