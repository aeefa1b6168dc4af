//! One broken folder for each variant of [`FolderError`].

use crate::build::{Build, f16s, shard_name, small, words};
use serde_json::json;
use std::fs;
use std::path::Path;
use tessera_weights::dtype::DType;
use tessera_weights::folder::{Folder, FolderError, infer_scheme};
use tessera_weights::scheme::{GroupFormat, Layout};

const INT4: Option<GroupFormat> = Some(GroupFormat::INT4);

fn error(path: &Path) -> FolderError {
    Folder::open(path).expect_err("a broken folder must not open")
}

#[test]
fn the_small_folder_is_right() {
    let folder = small().temp();
    let opened = Folder::open(folder.path()).unwrap();
    assert_eq!(
        opened.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["x.q_weight", "x.q_scale", "norm.weight", "d.weight"]
    );
    assert_eq!(opened.stored_len(), 96 + 12 + 128 + 12);
    assert_eq!(opened.memory_len(), 96 + 12 + 256 + 12);
    assert_eq!(opened.shard_paths().last().unwrap(), folder.path().join("params_shard_1.bin"));
    assert_eq!(opened.vector("norm.weight", 64).unwrap(), vec![1.5; 64]);
    assert_eq!(opened.matrix("x", INT4, Layout::Nk, 3, 64).unwrap().stored_len(), 108);
    assert_eq!(opened.matrix("d", INT4, Layout::Nk, 2, 3).unwrap().stored_len(), 12);
    assert_eq!(opened.tensor("d.weight").unwrap().dtype, DType::F16);
    assert!(opened.tensor("nothing").is_none());
}

#[test]
fn what_is_no_folder_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(matches!(error(&at("nowhere")), FolderError::NotFound { .. }));
    assert!(matches!(error(folder.path()), FolderError::NoManifest { .. }));

    fs::write(at("notes.txt"), "x").unwrap();
    assert!(matches!(error(&at("notes.txt")), FolderError::NotAManifest { .. }));

    fs::write(at("model.gguf"), b"GGUF\x03\0\0\0").unwrap();
    assert!(matches!(error(&at("model.gguf")), FolderError::Gguf { .. }));
    assert!(matches!(error(folder.path()), FolderError::Gguf { path } if path.ends_with("model.gguf")));

    fs::write(at("config.json"), "{}").unwrap();
    assert!(matches!(error(folder.path()), FolderError::HuggingFace { found, .. } if found == "config.json"));
    fs::write(at("model.safetensors"), "").unwrap();
    assert!(
        matches!(error(folder.path()), FolderError::HuggingFace { found, .. } if found == "model.safetensors")
    );
    assert!(matches!(error(&at("model.safetensors")), FolderError::HuggingFace { .. }));
    assert!(error(folder.path()).to_string().contains("tessera convert"));

    fs::write(at("params_shard_0.bin"), "x").unwrap();
    fs::write(at("params_shard_1.bin"), "x").unwrap();
    assert!(matches!(error(folder.path()), FolderError::InterruptedConversion { shards: 2, .. }));
}

#[test]
fn a_manifest_that_is_refused_is_named() {
    let folder = small().temp();
    fs::write(folder.path().join("tensor-cache.json"), "{\n").unwrap();
    let text = error(folder.path()).to_string();
    assert!(text.starts_with("tensor-cache.json: invalid JSON at line 2, column 0: EOF"), "{text}");
    let mut manifest = small().manifest();
    manifest["records"][0]["dataPath"] = json!("../params_shard_0.bin");
    fs::write(folder.path().join("tensor-cache.json"), manifest.to_string()).unwrap();
    let text = error(folder.path()).to_string();
    assert!(text.contains("dataPath \"../params_shard_0.bin\" is refused"), "{text}");
    // A sparse file: the length is refused before it is read.
    let long = fs::File::create(folder.path().join("tensor-cache.json")).unwrap();
    long.set_len(1 << 40).unwrap();
    assert!(error(folder.path()).to_string().contains("at most 67108864 are accepted"));
}

#[test]
fn two_manifests_must_agree() {
    let folder = small().temp();
    let old = folder.path().join("ndarray-cache.json");
    // Other metadata and spacing are no difference.
    let mut manifest = small().manifest();
    manifest["metadata"] = json!({"ParamSize": 4});
    fs::write(&old, serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
    assert_eq!(Folder::open(folder.path()).unwrap().manifest_name(), "tensor-cache.json");
    manifest["records"][0]["records"][0]["name"] = json!("y.q_weight");
    fs::write(&old, manifest.to_string()).unwrap();
    let found = error(folder.path());
    assert!(matches!(found, FolderError::ManifestsDiffer { .. }), "{found}");
    assert!(found.to_string().contains("tensor-cache.json and ndarray-cache.json"), "{found}");
    // Naming one settles it.
    assert_eq!(Folder::open(&old).unwrap().manifest_name(), "ndarray-cache.json");
}

#[test]
fn shards_have_their_length_or_a_reason() {
    let folder = small().temp();
    let (first, second) = (folder.path().join(shard_name(0)), folder.path().join(shard_name(1)));
    let good = fs::read(&first).unwrap();

    fs::write(&first, &good[..50]).unwrap();
    let found = error(folder.path());
    assert!(matches!(found, FolderError::TruncatedShard { found: 50, expected: 108, .. }), "{found}");
    assert!(found.to_string().contains("interrupted download"));
    fs::write(&first, "").unwrap();
    assert!(matches!(error(folder.path()), FolderError::TruncatedShard { found: 0, .. }));
    fs::write(&first, [&good[..], b"x"].concat()).unwrap();
    assert!(matches!(error(folder.path()), FolderError::LongShard { found: 109, expected: 108, .. }));
    fs::write(&first, "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 108\n").unwrap();
    assert!(matches!(error(folder.path()), FolderError::LfsPointer { .. }));
    fs::write(&first, "<!DOCTYPE html><html>404</html>").unwrap();
    assert!(matches!(error(folder.path()), FolderError::Html { .. }));

    fs::remove_file(&first).unwrap();
    let found = error(folder.path());
    assert_eq!(found.to_string(), "shard params_shard_0.bin is missing (1 of 2 shards are)");
    fs::remove_file(&second).unwrap();
    assert!(matches!(error(folder.path()), FolderError::MissingShard { missing: 2, total: 2, .. }));
    fs::create_dir(&first).unwrap();
    let found = error(folder.path());
    assert!(matches!(&found, FolderError::Io { file, .. } if file == "params_shard_0.bin"), "{found}");
}

fn open(build: &Build) -> Folder {
    let folder = build.temp();
    // The maps outlive the files' names.
    Folder::open(folder.path()).unwrap()
}

#[test]
fn a_tensor_is_as_asked_or_an_error_that_names_it() {
    let folder = open(&small());
    let text = |e: FolderError| e.to_string();
    let found = folder.matrix("y", INT4, Layout::Nk, 3, 64).unwrap_err();
    assert_eq!(text(found), "tensor y.q_weight (or y.weight) is missing");
    let found = folder.vector("d.bias", 3).unwrap_err();
    assert!(matches!(found, FolderError::MissingTensor { tensor } if tensor == "d.bias"));
    let found = folder.matrix("d", None, Layout::Nk, 3, 2).unwrap_err();
    assert_eq!(text(found), "tensor d.weight: expected shape [3, 2], found [2, 3]; it is transposed");
    let found = folder.vector("norm.weight", 63).unwrap_err();
    assert!(matches!(found, FolderError::WrongShape { .. }), "{found}");
    let found = folder.vector("x.q_weight", 24).unwrap_err();
    assert!(matches!(found, FolderError::WrongDType { .. }), "{found}");
    let found = folder.matrix("x", None, Layout::Nk, 3, 64).unwrap_err();
    assert!(matches!(found, FolderError::WrongForm { .. }), "{found}");
    // 3 x 40 in 3 bits has other words.
    let found = folder.matrix("x", Some(GroupFormat::INT3), Layout::Nk, 3, 40).unwrap_err();
    assert!(matches!(found, FolderError::WrongShape { .. }), "{found}");
}

#[test]
fn halves_of_a_quantised_weight_belong_together() {
    let codes = words(&[0; 24]);
    let scales = f16s(&[1.0; 6]);
    let ask = |build: Build| open(&build).matrix("x", INT4, Layout::Nk, 3, 64).unwrap_err();
    let start = || Build::default().shard();

    let alone = ask(start().tensor("x.q_weight", &[3, 8], "uint32", &codes));
    assert!(matches!(alone, FolderError::MissingTensor { tensor } if tensor == "x.q_scale"));
    let alone = ask(start().tensor("x.q_scale", &[3, 2], "float16", &scales));
    assert!(matches!(alone, FolderError::MissingTensor { tensor } if tensor == "x.q_weight"));

    let swapped = ask(start().tensor("x.q_scale", &[3, 8], "uint32", &codes).tensor(
        "x.q_weight",
        &[3, 2],
        "float16",
        &scales,
    ));
    assert!(matches!(swapped, FolderError::Swapped { .. }), "{swapped}");

    let both = ask(start()
        .tensor("x.q_weight", &[3, 8], "uint32", &codes)
        .tensor("x.q_scale", &[3, 2], "float16", &scales)
        .tensor("x.weight", &[1], "float16", &scales[..2]));
    assert!(matches!(both, FolderError::WrongForm { .. }), "{both}");

    // Another weight's scale.
    let other = ask(start().tensor("x.q_weight", &[3, 8], "uint32", &codes).tensor(
        "x.q_scale",
        &[6, 1],
        "float16",
        &scales,
    ));
    let text = other.to_string();
    let expected = "tensor x.q_scale: expected shape [3, 2], found [6, 1]; it is the scale of another weight";
    assert!(text.starts_with(expected), "{text}");

    let typed = ask(start().tensor("x.q_weight", &[3, 8], "int32", &codes).tensor(
        "x.q_scale",
        &[3, 2],
        "float16",
        &scales,
    ));
    assert!(matches!(typed, FolderError::WrongDType { .. }), "{typed}");
}

#[test]
fn a_scheme_that_cannot_be_told_says_why() {
    let ask = |build: Build| infer_scheme(&open(&build)).map(|s| s.name).map_err(|e| e.to_string());
    let start = || Build::default().shard();
    let codes = words(&[0; 8]);
    let scales = f16s(&[1.0; 2]);
    let pair = |build: Build, base: &str, dtype: &str, word: u32| {
        build.tensor(&format!("{base}.q_weight"), &[8, 8], "uint32", &words(&[word; 64])).tensor(
            &format!("{base}.q_scale"),
            &[8, 2],
            dtype,
            &f16s(&[1.0; 16]),
        )
    };

    assert_eq!(ask(pair(start(), "x", "float16", 0x7777_7777)), Ok("q4f16_2"));
    assert_eq!(ask(pair(start(), "embed_tokens", "float16", 0x7777_7777)), Ok("q4f16_1"));
    assert_eq!(ask(pair(start(), "embed_tokens", "float16", 0x3fff_ffff)), Ok("q3f16_1"));
    assert_eq!(ask(pair(start(), "embed_tokens", "float32", 0x7777_7777)), Ok("q4f32_1"));
    for (build, part) in [
        (pair(start(), "x", "float16", 0), "32 weights of 4 bits or of 40 weights of 3 bits"),
        (pair(start(), "x", "float32", 0x7777_7777), "no scheme has 4 bits in groups of 32 with float32"),
        (
            pair(pair(start(), "x", "float16", 1), "y", "bfloat16", 1),
            "x.q_scale is float16, but y.q_scale is bfloat16",
        ),
        (start().tensor("x.q_weight", &[1, 8], "uint32", &words(&[0; 8])), "without x.q_scale"),
        (
            start().tensor("x.q_weight", &[2, 4], "uint32", &codes).tensor(
                "x.q_scale",
                &[1, 2],
                "float16",
                &scales,
            ),
            "do not have four words a group",
        ),
        (
            pair(start(), "x", "float16", 1).tensor("y.q_weight", &[4, 2], "uint32", &codes).tensor(
                "y.q_scale",
                &[1, 2],
                "float16",
                &scales,
            ),
            "x lies as Nk, but y as Kn",
        ),
        (start().tensor("x.bias", &[2], "float16", &scales), "no matrix called"),
        (
            start().tensor("x.weight", &[1, 2], "float16", &scales).tensor(
                "y.weight",
                &[1, 2],
                "bfloat16",
                &scales,
            ),
            "x.weight is float16, but y.weight is bfloat16",
        ),
        (start().tensor("x.qweight", &[2, 4], "uint32", &codes), "AWQ"),
        (start().tensor("x.q_weight", &[4, 8], "int8", &codes), "q4f16_ft"),
        (start().tensor("x.q_weight", &[4, 8], "float8_e4m3fn", &codes), "fp8"),
        (
            pair(start(), "embed_tokens", "float16", 0x7777_7777).tensor(
                "norm.weight",
                &[999],
                "float16",
                &[0; 1998],
            ),
            "neither of 32 nor of 40 weights",
        ),
    ] {
        let error = ask(build).unwrap_err();
        assert!(error.contains(part), "{error} lacks {part}");
    }
}
