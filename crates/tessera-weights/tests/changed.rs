//! Files that change while they are read: an error that names the file, whoever reads it.
#![cfg(unix)]

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tessera_weights::bytes::Bytes;
use tessera_weights::convert::MlcSource;
use tessera_weights::export::{ExportOptions, export_safetensors, plan_export};
use tessera_weights::folder::Folder;
use tessera_weights::hf::HfFolder;
use tessera_weights::model::Description;
use tessera_weights::quantize::decode;
use tessera_weights::source::TensorSource;
use tessera_weights::verify::{VerifyOptions, verify};

const WORDS: &str = "the file changed while it was in use";

/// A copy of a golden folder, in a process that truncated files do not end.
fn copy(name: &str) -> tempfile::TempDir {
    tessera_weights::mapped::guard().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// Weights of a folder.
fn weights(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "bin" || e == "safetensors")).collect()
}

fn truncate(folder: &Path) {
    for path in weights(folder) {
        OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    }
}

#[test]
fn bytes_tell_of_every_change() {
    tessera_weights::mapped::guard().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.bin");
    // More than a page of any machine.
    let whole = vec![1; 1 << 20];
    std::fs::write(&path, &whole).unwrap();
    let map = || Bytes::map(&std::fs::File::open(&path).unwrap(), &path).unwrap();

    let bytes = map();
    assert_eq!(bytes.check(), Ok(()));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1).unwrap();
    // The page that is left ends in zeros; those behind it are gone.
    assert!(bytes[1..4096].iter().all(|b| *b == 0));
    let changed = bytes.check().unwrap_err();
    assert_eq!(changed.file, path.display().to_string());
    assert_eq!(changed.what, format!("{WORDS}: it had 1048576 bytes when it was opened and has 1 now"));
    assert!(bytes[1 << 19..].iter().all(|b| *b == 0));
    let changed = bytes.slice(5000..6000).unwrap().check().unwrap_err();
    assert!(changed.what.contains("bytes from 524288 on cannot be read any more"), "{changed}");
    // Also when it is whole again: what was read in between was not.
    std::fs::write(&path, &whole).unwrap();
    assert!(bytes.check().is_err());

    let bytes = map();
    assert!(bytes[..] == whole[..] && bytes.check().is_ok());
    // What a file system notes of a time is coarse.
    std::thread::sleep(std::time::Duration::from_millis(50));
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"other").unwrap();
    assert_eq!(bytes.check().unwrap_err().what, format!("{WORDS}: it was written to since it was opened"));

    // Another file of the same name, or none, leaves the mapped one as it is.
    let bytes = map();
    let other = path.with_extension("new");
    std::fs::write(&other, b"short").unwrap();
    std::fs::rename(other, &path).unwrap();
    assert_eq!(bytes.check(), Ok(()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!((bytes.len(), bytes.check()), (whole.len(), Ok(())));
}

#[test]
fn conversions() {
    let folder = copy("llama-tied-bf16/hf");
    let source = HfFolder::open(folder.path()).unwrap();
    truncate(folder.path());
    let error = source.read(0).unwrap_err();
    assert!(error.file.ends_with(".safetensors") && error.what.starts_with(WORDS), "{error}");

    let folder = copy("llama-tied-bf16/q4f32_1");
    let opened = Folder::open(folder.path()).unwrap();
    let model = Description::of_folder(&opened).model.unwrap();
    let source = MlcSource::new(&opened, &model).unwrap();
    let plan = plan_export(&model.model_type, &model.params, model.scheme).unwrap();
    truncate(folder.path());
    let error = source.read(0).unwrap_err();
    assert!(error.file.ends_with(".bin") && error.what.starts_with(WORDS), "{error}");

    let out = tempfile::tempdir().unwrap();
    let options = ExportOptions::new(model.scheme.dtype, model.scheme.group);
    let go = &mut |_, _| ControlFlow::Continue(());
    let error =
        export_safetensors(&opened, &plan, &options, out.path(), &decode, go).unwrap_err().to_string();
    assert!(error.contains("params_shard_") && error.contains(WORDS), "{error}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn verification() {
    let folder = copy("llama-tied-bf16/q4f32_1");
    // After the first bytes of the first shard.
    let report = verify(folder.path(), VerifyOptions::default(), &|_| truncate(folder.path()));
    assert_eq!(report.defects.len(), weights(folder.path()).len());
    for defect in &report.defects {
        assert!(defect.file.starts_with("params_shard_") && defect.message.contains(WORDS), "{defect:?}");
    }
}
