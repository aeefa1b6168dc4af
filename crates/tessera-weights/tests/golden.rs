//! Conversion against folders that MLC itself wrote: every byte of every shard and manifest.
//!
//! The data under `data/golden` was made with mlc-llm 79d603f0 and apache-tvm 0.26.0; see its README.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tessera_weights::arch::{self, Param, Sizes};
use tessera_weights::convert::{
    ConvertError, ConvertOptions, ManifestName, Plan, SourceNames, convert, plan_manifest,
};
use tessera_weights::folder::Folder;
use tessera_weights::hf::HfFolder;
use tessera_weights::quantize::{decode, decode_row};
use tessera_weights::scheme::{SCHEMES, Scheme};
use tessera_weights::source::{SourceError, SourceTensor, TensorSource, Values};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// A golden checkpoint, and the cap of its shards.
struct Golden {
    name: &'static str,
    cap_kib: u64,
    /// Whether MLC followed the index file; otherwise it sorted the names of the lone file.
    index: bool,
}

const GOLDENS: &[Golden] = &[
    Golden { name: "llama-gqa-f32", cap_kib: 16, index: true },
    Golden { name: "llama-tied-bf16", cap_kib: 16, index: true },
    Golden { name: "llama-mha-f16", cap_kib: 12, index: false },
    Golden { name: "qwen2-tied-bf16", cap_kib: 8, index: false },
    Golden { name: "qwen3-f32", cap_kib: 8, index: false },
    Golden { name: "gemma-bf16", cap_kib: 8, index: false },
    Golden { name: "gpt2-f32", cap_kib: 8, index: false },
    Golden { name: "gptneox-f16", cap_kib: 8, index: false },
    Golden { name: "internlm2-bf16", cap_kib: 8, index: false },
    Golden { name: "phi3-bf16", cap_kib: 8, index: false },
];

/// A golden's checkpoint in a temporary folder, without the index file where MLC did not see one.
fn checkpoint(golden: &Golden) -> (tempfile::TempDir, HfFolder, Vec<Param>) {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data().join("golden").join(golden.name).join("hf")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if golden.index || !name.ends_with(".index.json") {
            fs::copy(&path, copy.path().join(name)).unwrap();
        }
    }
    let source = HfFolder::open(copy.path()).unwrap();
    let params = params_of(&source.config().unwrap());
    (copy, source, params)
}

fn params_of(config: &Value) -> Vec<Param> {
    let model_type = config["model_type"].as_str().unwrap();
    arch::params(model_type, &Sizes::from_json(model_type, config).unwrap()).unwrap()
}

/// What a conversion writes: all files of a folder except those copied from the source.
fn written(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .filter(|(name, _)| !name.starts_with("tokenizer") && name != "mlc-chat-config.json")
        .collect()
}

fn assert_same_files(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    // Manifests first: their text says more than a shard's bytes.
    for (name, bytes) in expected.iter().rev() {
        let found = found.get(name).unwrap_or_else(|| panic!("{what}: {name} was not written"));
        if name.ends_with(".json") {
            let (found, bytes) = (String::from_utf8_lossy(found), String::from_utf8_lossy(bytes));
            for (found, expected) in found.lines().zip(bytes.lines()) {
                if !expected.contains("md5sum") {
                    assert_eq!(found, expected, "{what}: {name}");
                }
            }
        }
        let at = found.iter().zip(bytes).position(|(a, b)| a != b);
        assert!(found == bytes, "{what}: {name} differs from byte {at:?}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: more files than MLC writes");
}

#[test]
fn every_golden_folder_is_reproduced_to_the_byte() {
    let mut folders = 0;
    for golden in GOLDENS {
        let (_copy, source, params) = checkpoint(golden);
        for scheme in SCHEMES {
            let expected = data().join("golden").join(golden.name).join(scheme.name);
            if !expected.exists() {
                continue;
            }
            let out = tempfile::tempdir().unwrap();
            let dst = out.path().join("mlc");
            let options = ConvertOptions { shard_cap: golden.cap_kib << 10, ..ConvertOptions::default() };
            let report = convert(&source, &params, scheme, &options, &dst, &[]).unwrap();
            let what = format!("{}/{}", golden.name, scheme.name);
            let expected = written(&expected);
            assert_same_files(&written(&dst), &expected, &what);
            assert_eq!(report.shards, expected.keys().filter(|n| n.starts_with("params_shard_")).count());
            assert!(report.unused.is_empty() && report.non_finite.is_empty(), "{what}: {report:?}");
            folders += 1;
        }
    }
    assert_eq!(folders, 45, "q* folders in the data");
}

#[test]
fn the_manifests_old_name_changes_nothing_else() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let out = tempfile::tempdir().unwrap();
    let dst = out.path().join("mlc");
    let options = ConvertOptions {
        shard_cap: 16 << 10,
        manifest_name: ManifestName::NdarrayCache,
        ..ConvertOptions::default()
    };
    convert(&source, &params, Scheme::find("q4f32_1").unwrap(), &options, &dst, &[]).unwrap();
    let expected = written(&data().join("golden/llama-gqa-f32/q4f32_1"))
        .into_iter()
        .map(|(name, bytes)| (name.replace("tensor-cache", "ndarray-cache"), bytes))
        .collect();
    assert_same_files(&written(&dst), &expected, "old name");
}

/// Sizes of Chinese-LLaMA-2-1.3B.
fn seed_config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32,
        "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 55296,
        "tie_word_embeddings": false
    })
}

#[test]
fn a_dry_run_of_the_seeds_config_is_the_seeds_manifest() {
    let scheme = Scheme::find("q4f32_1").unwrap();
    let text = plan_manifest(&params_of(&seed_config()), scheme, &ConvertOptions::default()).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();

    let seed = fs::read_to_string(data().join("seed-ndarray-cache.json")).unwrap();
    let mut seed: Value = serde_json::from_str(&seed).unwrap();
    for shard in seed["records"].as_array_mut().unwrap() {
        let md5 = shard.as_object_mut().unwrap().shift_remove("md5sum");
        assert!(md5.is_some());
    }
    // Serialised, so that the order of keys and the spelling of numbers count too.
    assert_eq!(serde_json::to_string_pretty(&found).unwrap(), serde_json::to_string_pretty(&seed).unwrap());
    for number in
        ["\"ParamSize\": 45,", "\"ParamBytes\": 789200896.0,", "\"BitsPerParam\": 5.000788364646225\n"]
    {
        assert!(text.contains(number), "{number}");
    }
}

/// Named f32 tensors, several files, and a fault on reading one of them.
struct Memory {
    tensors: Vec<SourceTensor>,
    files: Vec<String>,
    values: Vec<Vec<f32>>,
    broken: Option<usize>,
}

impl Memory {
    fn of(source: &HfFolder, keep: impl Fn(&str) -> bool, file: impl Fn(&str) -> String) -> Memory {
        let mut memory = Memory { tensors: vec![], files: vec![], values: vec![], broken: None };
        for (i, tensor) in source.tensors().iter().enumerate().filter(|(_, t)| keep(&t.name)) {
            let Values::F32(values) = source.read(i).unwrap() else { panic!("an f32 golden") };
            memory.files.push(file(&tensor.name));
            memory.tensors.push(tensor.clone());
            memory.values.push(values);
        }
        memory
    }
}

impl TensorSource for Memory {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        if self.broken == Some(index) {
            let (file, tensor) = (self.files[index].clone(), self.tensors[index].name.clone());
            return Err(SourceError { file, tensor, what: "unplugged".to_owned() });
        }
        Ok(Values::F32(self.values[index].clone()))
    }

    fn file(&self, index: usize) -> &str {
        &self.files[index]
    }
}

#[test]
fn bits_per_param_counts_files_that_mlc_loads_twice() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    // k of layer 0 is in another file than q and v: making qkv loads both, o_proj needs only the first.
    let split = Memory::of(
        &source,
        |_| true,
        |name| {
            if name.contains("layers.0.self_attn.k_proj") || name.contains("layers.1") { "b" } else { "a" }
                .to_owned()
        },
    );
    let scheme = Scheme::find("q4f32_1").unwrap();
    let plan = Plan::new(&split, &params, scheme, &ConvertOptions::default()).unwrap();
    let whole = Plan::new(&source, &params, scheme, &ConvertOptions::default()).unwrap();
    assert_eq!(whole.metadata.bits_per_param, 36560.0 * 8.0 / 42960.0);
    // a, then a and b for qkv; b stays while a's tensors are made and serves layer 1 without a load.
    assert_eq!(plan.metadata.bits_per_param, whole.metadata.bits_per_param);

    // Three files, walked one after the other: embedding | layer 0 | the rest, with layer 1's v in the
    // first file, so that the first is loaded again after the second has pushed it out.
    let split = Memory::of(
        &source,
        |_| true,
        |name| {
            match name {
                "model.embed_tokens.weight" | "model.layers.1.self_attn.v_proj.weight" => "a",
                n if n.contains("layers.0") => "b",
                _ => "c",
            }
            .to_owned()
        },
    );
    let plan = Plan::new(&split, &params, scheme, &ConvertOptions::default()).unwrap();
    // Emission: a's embedding (load a), a's v of layer 1 = qkv (load c, a stays), layer 0 (load b; a and c
    // go), the rest of layer 1, norm and head (load c again).
    let count = |file: &str| {
        let of = |(t, f): (&SourceTensor, &String)| if f == file { t.shape.iter().product() } else { 0usize };
        split.tensors.iter().zip(&split.files).map(of).sum::<usize>()
    };
    let counted = count("a") + 2 * count("c") + count("b");
    assert_eq!(plan.metadata.bits_per_param, 36560.0 * 8.0 / counted as f64);
}

#[test]
fn a_missing_tensor_is_named_with_what_needs_it() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let memory =
        Memory::of(&source, |n| !n.contains("layers.1.self_attn.k_proj"), |_| "x.safetensors".into());
    let error = convert_into_nothing(&memory, &params);
    assert_eq!(
        error.to_string(),
        "model.layers.1.self_attn.qkv_proj.weight needs tensor model.layers.1.self_attn.k_proj.weight, \
         which x.safetensors does not hold"
    );
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes_and_the_file() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let mut memory = Memory::of(&source, |_| true, |_| "x.safetensors".into());
    let at = memory.tensors.iter().position(|t| t.name.ends_with("layers.0.mlp.down_proj.weight")).unwrap();
    memory.tensors[at].shape = vec![72, 48];
    let error = convert_into_nothing(&memory, &params);
    assert_eq!(
        error.to_string(),
        "x.safetensors: tensor model.layers.0.mlp.down_proj.weight has shape [72, 48], expected [48, 72]"
    );
}

#[test]
fn tensors_that_would_be_dropped_are_refused_and_values_that_are_not_finite_reported() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let mut memory = Memory::of(&source, |_| true, |_| "x.safetensors".into());
    memory.tensors.push(SourceTensor {
        name: "model.layers.0.self_attn.q_proj.bias".to_owned(),
        dtype: tessera_weights::dtype::DType::F32,
        shape: vec![48],
    });
    memory.files.push("x.safetensors".to_owned());
    memory.values.push(vec![0.0; 48]);
    let error = convert_into_nothing(&memory, &params);
    assert!(matches!(&error, ConvertError::Unused { count: 1, .. }), "{error}");

    let at = memory.tensors.iter().position(|t| t.name == "lm_head.weight").unwrap();
    memory.values[at][1000] = f32::NAN;
    let out = tempfile::tempdir().unwrap();
    let options = ConvertOptions { allow_unused: true, ..ConvertOptions::default() };
    let scheme = Scheme::find("q4f16_1").unwrap();
    let report = convert(&memory, &params, scheme, &options, &out.path().join("mlc"), &[]).unwrap();
    assert_eq!(report.unused, ["model.layers.0.self_attn.q_proj.bias"]);
    assert_eq!(report.non_finite, ["lm_head.weight"]);
}

#[test]
fn floats_are_kept_whole_if_asked_for() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let scheme = Scheme::find("q0f32").unwrap();
    let out = tempfile::tempdir().unwrap();
    let made = |whole_f32: bool| {
        let options = ConvertOptions { whole_f32, ..ConvertOptions::default() };
        let dst = out.path().join(whole_f32.to_string());
        let report = convert(&source, &params, scheme, &options, &dst, &[]).unwrap();
        (report.rounded, dst.join("tensor-cache-b16.json").exists(), Folder::open(&dst).unwrap())
    };
    let (rounded, b16, _) = made(false);
    assert!(rounded > 0 && b16);
    let (rounded, b16, folder) = made(true);
    assert!(rounded == 0 && !b16);
    for param in params.iter().filter(|p| p.sources.len() == 1) {
        let tensor = source.tensors().iter().position(|t| t.name == param.sources[0].name).unwrap();
        let Values::F32(expected) = source.read(tensor).unwrap() else { panic!("not float32") };
        assert!(expected.iter().any(|x| x.to_bits() & 0xffff != 0) || expected.iter().all(|x| *x == 1.0));
        assert_eq!(folder.floats(&param.name, &param.shape).unwrap(), expected, "{}", param.name);
    }
}

/// Converts where it must fail, and checks that nothing is left.
fn convert_into_nothing(source: &dyn TensorSource, params: &[Param]) -> ConvertError {
    let out = tempfile::tempdir().unwrap();
    let scheme = Scheme::find("q4f16_1").unwrap();
    let options = ConvertOptions { shard_cap: 16 << 10, ..ConvertOptions::default() };
    let error = convert(source, params, scheme, &options, &out.path().join("mlc"), &[]).unwrap_err();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "a failed conversion leaves nothing");
    error
}

#[test]
fn an_interrupted_conversion_leaves_nothing_that_opens() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let mut memory = Memory::of(&source, |_| true, |_| "x.safetensors".into());
    memory.broken = Some(memory.tensors.len() - 1);
    assert!(matches!(convert_into_nothing(&memory, &params), ConvertError::Source(_)));

    // At every moment before the end, which is where a kill could come, there is no destination and no
    // manifest anywhere.
    let out = tempfile::tempdir().unwrap();
    let dst = out.path().join("mlc");
    let seen = RefCell::new(Vec::new());
    let watch = |progress: &tessera_weights::convert::Progress<'_>| {
        if !progress.tensor.is_empty() {
            assert!(!dst.exists());
            // The folder, and the lock that says that its process lives.
            let beside = fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().path());
            let (folders, locks): (Vec<_>, Vec<_>) = beside.partition(|path| path.is_dir());
            let ([staging], [lock]) = (&folders[..], &locks[..]) else { panic!("{folders:?} {locks:?}") };
            assert!(staging.to_str().unwrap().contains("mlc.tmp-"));
            assert_eq!(lock.as_os_str().to_str(), Some(format!("{}.lock", staging.display()).as_str()));
            assert!(written(staging).keys().all(|name| name.ends_with(".bin")));
        }
        seen.borrow_mut().push((progress.done, progress.total));
        if seen.borrow().len() == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ConvertOptions { shard_cap: 16 << 10, progress: Some(&watch), ..ConvertOptions::default() };
    let scheme = Scheme::find("q4f16_1").unwrap();
    let error = convert(&source, &params, scheme, &options, &dst, &[]).unwrap_err();
    assert!(matches!(error, ConvertError::Stopped { .. }), "{error}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);

    convert(&source, &params, scheme, &options, &dst, &[]).unwrap();
    let seen = seen.borrow();
    assert!(seen[9..].windows(2).all(|w| w[0].0 <= w[1].0));
    assert_eq!(seen.last().unwrap().0, seen.last().unwrap().1);
}

#[test]
fn a_destination_that_holds_something_is_left_alone() {
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let scheme = Scheme::find("q0f16").unwrap();
    let options = ConvertOptions::default();
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("mine"), "mine").unwrap();
    let error = convert(&source, &params, scheme, &options, out.path(), &[]).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    let error = convert(&source, &params, scheme, &options, &out.path().join("mine"), &[]).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");

    let empty = out.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let extra = vec![("tokenizer.json".to_owned(), b"{}".to_vec())];
    convert(&source, &params, scheme, &options, &empty, &extra).unwrap();
    assert_eq!(fs::read(empty.join("tokenizer.json")).unwrap(), b"{}");

    for name in ["../evil", "params_shard_0.bin", "tensor-cache.json", ""] {
        let extra = vec![(name.to_owned(), vec![])];
        let error = convert(&source, &params, scheme, &options, &out.path().join("x"), &extra).unwrap_err();
        assert!(matches!(error, ConvertError::BadExtraName { .. }), "{name}");
    }
}

#[test]
fn a_source_with_mlcs_own_names_is_taken_as_it_is() {
    // Fuse first, through q0f32 values read back as a source, then quantise: for NK schemes fusing and
    // quantising commute, so the codes equal those of the direct way on bf16 values.
    let (_copy, source, params) = checkpoint(&GOLDENS[0]);
    let scheme = Scheme::find("q4f32_1").unwrap();
    let fused = fused(&source, &params);
    let out = tempfile::tempdir().unwrap();
    let options =
        ConvertOptions { shard_cap: 16 << 10, names: SourceNames::Mlc, ..ConvertOptions::default() };
    convert(&fused, &params, scheme, &options, &out.path().join("mlc"), &[]).unwrap();
    let expected = written(&data().join("golden/llama-gqa-f32/q4f32_1"));
    assert_same_files(&written(&out.path().join("mlc")), &expected, "from MLC's names");
}

/// The parameters of a llama checkpoint, fused but not quantised, in MLC's order.
fn fused(source: &HfFolder, params: &[Param]) -> Memory {
    let mut memory = Memory { tensors: vec![], files: vec![], values: vec![], broken: None };
    for param in params {
        let mut all = Vec::new();
        for need in &param.sources {
            let at = source.tensors().iter().position(|t| t.name == need.name).unwrap();
            let Values::F32(values) = source.read(at).unwrap() else { panic!("an f32 golden") };
            all.extend(values);
        }
        memory.tensors.push(SourceTensor {
            name: param.name.clone(),
            dtype: tessera_weights::dtype::DType::F32,
            shape: param.shape.clone(),
        });
        memory.files.push("mlc".to_owned());
        memory.values.push(all);
    }
    memory
}

#[test]
fn a_checkpoint_in_parts_without_an_index_and_broken_ones() {
    let (copy, _source, _params) = checkpoint(&GOLDENS[2]);
    let path = copy.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();

    fs::write(copy.path().join("other.safetensors"), &good).unwrap();
    let error = HfFolder::open(copy.path()).unwrap_err().to_string();
    assert!(
        error.contains("lm_head.weight is both in model.safetensors and in other.safetensors"),
        "{error}"
    );
    fs::remove_file(copy.path().join("other.safetensors")).unwrap();

    for (bytes, part) in [
        (good[..good.len() - 1].to_vec(), "not a safetensors file"),
        (good[..6].to_vec(), "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git-LFS pointer"),
        (b"<!DOCTYPE html>".to_vec(), "a web page"),
        (Vec::new(), "not a safetensors file"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = HfFolder::open(copy.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("model.safetensors"), "{error}");
    }
    fs::write(&path, &good).unwrap();

    let index = copy.path().join("model.safetensors.index.json");
    for (text, part) in [
        (r#"{"weight_map": {"a": "../b.safetensors"}}"#, "expected a plain file name"),
        (r#"{"weight_map": {"a": 3}}"#, "expected a plain file name"),
        (r#"{"weight_map": {"a": "model.safetensors"}}"#, "does not hold it"),
        (r#"{"weight_map": {"a": "gone.safetensors"}}"#, "gone.safetensors"),
        (r#"{"weight_map": 3}"#, "weight_map is missing"),
        ("{", "not valid JSON"),
    ] {
        fs::write(&index, text).unwrap();
        let error = HfFolder::open(copy.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    fs::remove_file(&index).unwrap();
    fs::rename(&path, copy.path().join("pytorch_model.bin")).unwrap();
    let error = HfFolder::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("only .bin weights"), "{error}");
}

#[test]
fn decoding_a_golden_stays_within_half_a_step_of_the_checkpoint() {
    use tessera_weights::bytes::Bytes;
    use tessera_weights::dtype::DType;
    use tessera_weights::scheme::Layout;
    use tessera_weights::tensor::{Matrix, MatrixData};

    let golden = data().join("golden/llama-mha-f16");
    let (_copy, source, _params) = checkpoint(&GOLDENS[2]);
    let name = "model.layers.0.self_attn.o_proj";
    let at = source.tensors().iter().position(|t| t.name == format!("{name}.weight")).unwrap();
    let Values::F16(weights) = source.read(at).unwrap() else { panic!("an f16 golden") };
    for scheme in ["q4f16_1", "q4f16_0", "q3f16_0"].map(|s| Scheme::find(s).unwrap()) {
        let folder = golden.join(scheme.name);
        let manifest = fs::read(folder.join("tensor-cache.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let tensor = |suffix: &str| {
            let shards = manifest["records"].as_array().unwrap();
            let (shard, record) = shards
                .iter()
                .flat_map(|s| s["records"].as_array().unwrap().iter().map(move |r| (s, r)))
                .find(|(_, r)| r["name"] == format!("{name}.{suffix}"))
                .unwrap();
            let bytes = fs::read(folder.join(shard["dataPath"].as_str().unwrap())).unwrap();
            let from = record["byteOffset"].as_u64().unwrap() as usize;
            Bytes::from_vec(bytes[from..from + record["nbytes"].as_u64().unwrap() as usize].to_vec())
        };
        let format = scheme.group.unwrap();
        let matrix = Matrix {
            rows: 80,
            cols: 80,
            data: MatrixData::Grouped {
                format,
                layout: scheme.layout,
                words: tensor("q_weight"),
                scale_dtype: DType::F16,
                scales: tensor("q_scale"),
            },
        };
        assert!(matrix.check(), "{}", scheme.name);
        assert_eq!(scheme.layout == Layout::Kn, scheme.name.ends_with("_0"));
        let decoded = decode(&matrix);
        let mut row = vec![0.0; 80];
        decode_row(&matrix, 7, &mut row);
        assert_eq!(row, decoded[7 * 80..8 * 80]);
        for (row, decoded) in weights.chunks(80).zip(decoded.chunks(80)) {
            for (group, decoded) in row.chunks(format.group).zip(decoded.chunks(format.group)) {
                let largest = group.iter().fold(0.0f32, |m, w| m.max(w.to_f32().abs()));
                let bound = largest / format.zero() as f32 * 0.52;
                assert!(group.iter().zip(decoded).all(|(w, d)| (w.to_f32() - d).abs() <= bound));
            }
        }
    }
}
