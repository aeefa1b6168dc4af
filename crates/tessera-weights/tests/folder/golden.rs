//! Every folder that MLC wrote opens, verifies clean, and tells its scheme.

use std::path::{Path, PathBuf};
use tessera_weights::bytes::Bytes;
use tessera_weights::folder::{Folder, FolderError, infer_scheme};
use tessera_weights::manifest::MANIFEST_NAMES;
use tessera_weights::scheme::{GroupFormat, Layout, Scheme};
use tessera_weights::tensor::MatrixData;
use tessera_weights::verify::{VerifyOptions, verify};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden")
}

/// Every folder with a manifest.
fn folders() -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect()
    };
    let mut found = Vec::new();
    for model in list(&golden()) {
        found.extend(list(&model));
        found.push(model);
    }
    found.retain(|p| MANIFEST_NAMES.iter().any(|name| p.join(name).is_file()));
    found.sort();
    found
}

#[test]
fn all_open_verify_clean_and_tell_their_scheme() {
    let folders = folders();
    assert_eq!(folders.len(), 48, "golden folders under {}", golden().display());
    for path in folders {
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = Folder::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(folder.manifest().warnings(), [], "{}", path.display());
        let metadata = folder.manifest().metadata();
        assert_eq!(metadata.param_size, Some(folder.tensors().len() as u64));
        assert_eq!(metadata.param_bytes, Some(folder.memory_len() as f64));
        for tensor in folder.tensors() {
            assert!(tensor.bytes.is_mapped());
            assert_eq!(tensor.to_f32().map(|v| v.len()), tensor.dtype.is_float().then(|| tensor.numel()));
        }
        let report = verify(&path, VerifyOptions::default(), &|_| {});
        assert_eq!(report.defects, [], "{}", path.display());
        assert_eq!((report.md5_matches, report.tensors_read), (report.shards, report.tensors));
        match infer_scheme(&folder) {
            Ok(scheme) => {
                let expected = if name == "llama-gqa-f32-oldname" { "q4f32_1" } else { name };
                assert_eq!(scheme.name, expected, "{}", path.display());
                assert_eq!(report.scheme.as_deref(), Some(expected));
                assert_eq!(report.notes, [], "{}", path.display());
            }
            Err(error) => {
                assert!(name.starts_with("e4m3") || name.starts_with("e5m2"), "{}: {error}", path.display());
                assert!(error.to_string().contains("fp8 weights are not supported"), "{error}");
            }
        }
    }
}

#[test]
fn a_manifest_file_opens_its_folder() {
    let path = golden().join("llama-gqa-f32/q4f32_1");
    let whole = Folder::open(path.join("tensor-cache.json")).unwrap();
    let b16 = Folder::open(path.join("tensor-cache-b16.json")).unwrap();
    assert_eq!(b16.manifest_name(), "tensor-cache-b16.json");
    assert_eq!(infer_scheme(&b16).unwrap().name, "q4bf16_1");
    assert_eq!(b16.manifest().warnings(), []);
    for tensor in whole.tensors() {
        let twin = b16.tensor(&tensor.name).unwrap();
        assert_eq!(twin.to_f32(), tensor.to_f32());
        assert_eq!(&twin.bytes[..], &tensor.bytes[..]);
    }
    let old = Folder::open(golden().join("llama-gqa-f32-oldname")).unwrap();
    assert_eq!(old.manifest_name(), "ndarray-cache.json");
    assert!(old.manifest().same_content(whole.manifest()));
}

#[test]
fn parts_make_the_same_folder() {
    let path = golden().join("llama-mha-f16/q4f16_1");
    let opened = Folder::open(&path).unwrap();
    let manifest = std::fs::read(path.join("tensor-cache.json")).unwrap();
    let read = |name: &str| std::fs::read(path.join(name)).ok().map(Bytes::from_vec);
    let made = Folder::from_parts(&manifest, |shard| read(&shard.path)).unwrap();
    assert_eq!(made.tensors().len(), opened.tensors().len());
    for (a, b) in made.tensors().zip(opened.tensors()) {
        assert_eq!((&a.name, &a.bytes[..]), (&b.name, &b.bytes[..]));
    }
    let error = Folder::from_parts(&manifest, |_| None).unwrap_err();
    assert!(matches!(error, FolderError::MissingShard { missing: 5, total: 5, .. }), "{error}");
}

/// llama-gqa-f32: hidden 48, intermediate 72, 80 rows of q, k and v, vocabulary 101.
#[test]
fn matrices_of_every_scheme_have_their_shapes() {
    let shapes = [
        ("model.layers.1.self_attn.qkv_proj", 80, 48),
        ("model.layers.1.self_attn.o_proj", 48, 48),
        ("model.layers.0.mlp.gate_up_proj", 144, 48),
        ("model.layers.0.mlp.down_proj", 48, 72),
        ("lm_head", 101, 48),
    ];
    let mut checked = 0;
    for entry in std::fs::read_dir(golden().join("llama-gqa-f32")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(scheme) = Scheme::find(path.file_name().unwrap().to_str().unwrap()) else { continue };
        let folder = Folder::open(&path).unwrap();
        for (base, rows, cols) in shapes {
            let matrix = folder.matrix(base, scheme.group, scheme.layout, rows, cols).unwrap();
            assert!(matrix.check());
            let quantised = scheme.group.is_some() && (scheme.head || base != "lm_head");
            assert_eq!(
                matches!(matrix.data, MatrixData::Grouped { .. }),
                quantised,
                "{} {base}",
                scheme.name
            );
        }
        let embedding = folder.matrix("model.embed_tokens", scheme.group, Layout::Nk, 101, 48).unwrap();
        assert_eq!(matches!(embedding.data, MatrixData::Grouped { .. }), scheme.embedding);
        assert_eq!(folder.vector("model.norm.weight", 48).unwrap().len(), 48);
        checked += 1;
    }
    assert_eq!(checked, 11);
}

#[test]
fn a_matrix_that_lies_the_other_way_is_told() {
    for (scheme, asked, hint) in
        [("q4f16_1", Layout::Kn, "_1 schemes"), ("q4f16_0", Layout::Nk, "_0 schemes")]
    {
        let folder = Folder::open(golden().join("llama-gqa-f32").join(scheme)).unwrap();
        let base = "model.layers.0.self_attn.o_proj";
        let error = folder.matrix(base, Some(GroupFormat::INT4), asked, 48, 48).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("o_proj.q_weight") && text.contains(hint), "{text}");
    }
    let folder = Folder::open(golden().join("llama-gqa-f32/q4f16_1")).unwrap();
    let error = folder
        .matrix("model.layers.0.mlp.down_proj", Some(GroupFormat::INT4), Layout::Nk, 48, 100)
        .unwrap_err();
    let expected = "tensor model.layers.0.mlp.down_proj.q_weight: expected shape [48, 16], found [48, 12]";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_golden_with_one_byte_changed_is_found() {
    let from = golden().join("llama-tied-bf16/q4f32_1");
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("params_shard_2.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let report = verify(copy.path(), VerifyOptions::default(), &|_| {});
    let found: Vec<_> = report.defects.iter().map(|d| (d.file.as_str(), d.field.as_str())).collect();
    assert_eq!(found, [("params_shard_2.bin", "md5sum")]);
    assert_eq!(report.md5_matches, report.shards - 1);
}
