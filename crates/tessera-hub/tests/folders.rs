//! Folders of this machine: what of them is copied, a disk that is full, and what killed processes left.

mod common;

use common::{installed, quick, shard_body, write_mlc_folder};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use tessera_hub::{Event, Fetch, FetchOptions, Fetched, HubError, ModelName, Result, Source, Store};

fn store(home: &Path) -> Store {
    Store::open(home, quick("http://127.0.0.1:9"))
}

fn pull(store: &Store, source: &Path) -> Result<Fetch> {
    store.fetch(&Source::Path(source.into()), &FetchOptions::default(), &|_| {})
}

/// Until a child process has become another program it holds the locks of all threads of this one: whoever starts one, and
/// whoever would find a name busy then, takes this.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(unix)]
mod links {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_out_of_the_folder_is_not_copied_and_said() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("m");
        write_mlc_folder(&folder);
        std::fs::write(outside.path().join("shadow"), "root:secret").unwrap();
        std::fs::create_dir(folder.join("sub")).unwrap();
        symlink("../shadow", folder.join("notes.txt")).unwrap();
        symlink(outside.path().join("shadow"), folder.join("a.md")).unwrap();
        symlink("nowhere", folder.join("broken")).unwrap();
        symlink("tokenizer.json", folder.join("same.json")).unwrap();
        let starts = alone();
        let made = std::process::Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap();
        assert!(made.success());
        drop(starts);

        let notes = Mutex::new(Vec::new());
        let tell = |event: Event<'_>| {
            if let Event::Note(text) = event {
                notes.lock().unwrap().push(text.to_string());
            }
        };
        let got = store(home.path()).fetch(&Source::Path(folder), &FetchOptions::default(), &tell).unwrap();
        let Fetched::Installed(path) = &got.what else { panic!("{:?}", got.what) };
        for name in ["notes.txt", "a.md", "broken", "sub", "pipe"] {
            assert!(std::fs::symlink_metadata(path.join(name)).is_err(), "{name} was copied");
        }
        assert_eq!(std::fs::read_to_string(path.join("same.json")).unwrap(), "{}");
        let notes = notes.into_inner().unwrap();
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        for said in [
            "notes.txt (a link to ",
            "shadow, outside",
            "broken (a link that leads nowhere",
            "sub (a folder)",
            "pipe (not a regular file)",
        ] {
            assert!(note.contains(said), "{said} is not in {note}");
        }
    }

    #[test]
    fn a_link_that_the_model_needs_is_refused() {
        for name in ["params_shard_1.bin", "tokenizer.json", "special.tok", "ndarray-cache.json"] {
            let home = tempfile::tempdir().unwrap();
            let outside = tempfile::tempdir().unwrap();
            let folder = outside.path().join("m");
            write_mlc_folder(&folder);
            std::fs::rename(folder.join(name), outside.path().join(name)).unwrap();
            symlink(outside.path().join(name), folder.join(name)).unwrap();
            let error = pull(&store(home.path()), &folder).unwrap_err();
            assert!(matches!(&error, HubError::NotInside { path, .. } if path.ends_with(name)), "{error}");
            assert!(
                error.to_string().contains(&format!("a link to {}", outside.path().display())),
                "{error}"
            );
            assert!(error.hint().is_some() && installed(home.path()).is_empty());
        }
    }

    #[test]
    fn a_checkpoint_with_links_out_of_it_is_not_converted() {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("m");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(folder.join("model.safetensors"), "x").unwrap();
        std::fs::write(outside.path().join("shadow"), "root:secret").unwrap();
        symlink("../shadow", folder.join("notes.txt")).unwrap();
        assert!(matches!(pull(&store(home.path()), &folder).unwrap().what, Fetched::Checkpoint(_)));
        symlink("../shadow", folder.join("merges.txt")).unwrap();
        let error = pull(&store(home.path()), &folder).unwrap_err();
        assert!(
            matches!(&error, HubError::NotInside { path, .. } if path.ends_with("merges.txt")),
            "{error}"
        );
    }

    #[test]
    fn a_snapshot_of_the_hubs_cache_is_made_of_links_into_its_own_blobs() {
        let home = tempfile::tempdir().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--o--r");
        let snapshot = model.join("snapshots/0123");
        let plain = cache.path().join("plain");
        write_mlc_folder(&plain);
        std::fs::create_dir_all(model.join("blobs")).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        for (i, entry) in std::fs::read_dir(&plain).unwrap().flatten().enumerate() {
            std::fs::rename(entry.path(), model.join(format!("blobs/{i}"))).unwrap();
            symlink(format!("../../blobs/{i}"), snapshot.join(entry.file_name())).unwrap();
        }
        let got = pull(&store(home.path()), &snapshot).unwrap();
        let Fetched::Installed(path) = &got.what else { panic!("{:?}", got.what) };
        assert_eq!(std::fs::read(path.join("params_shard_1.bin")).unwrap(), shard_body(1));
        drop(got);

        // Another model's blobs, and a blob that is itself a link out of the cache, are not inside.
        let other = cache.path().join("models--o--x/blobs");
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("t"), "{}").unwrap();
        for target in ["../../../models--o--x/blobs/t", "../../blobs/out"] {
            let _ = std::fs::remove_file(model.join("blobs/out"));
            symlink(other.join("t"), model.join("blobs/out")).unwrap();
            std::fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
            symlink(target, snapshot.join("tokenizer.json")).unwrap();
            let options = FetchOptions { force: true, ..FetchOptions::default() };
            let error =
                store(home.path()).fetch(&Source::Path(snapshot.clone()), &options, &|_| {}).unwrap_err();
            assert!(matches!(error, HubError::NotInside { .. }), "{error}");
        }
        assert_eq!(installed(home.path()), ["0123"], "what was there is still there");
    }
}

/// This test in a process of its own, which may not write files of more than a kilobyte or two: to the
/// program the same as a full disk.
#[cfg(unix)]
#[test]
fn on_a_full_disk_the_copy_is_named_and_removed() {
    const ROOM: &str = "TESSERA_TEST_FULL_DISK";
    if let Some(place) = std::env::var_os(ROOM) {
        let place = Path::new(&place);
        let error = pull(&store(&place.join("home")), &place.join("m")).unwrap_err();
        println!("{error}\n{}", error.hint().unwrap());
        return;
    }
    let place = tempfile::tempdir().unwrap();
    write_mlc_folder(&place.path().join("m"));
    let limited = "trap '' XFSZ; ulimit -f 2; exec \"$0\" --exact on_a_full_disk_the_copy_is_named_and_removed --nocapture";
    let _starts = alone();
    let output = std::process::Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .env(ROOM, place.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let copy = place.path().join("home/partial/m/download");
    assert!(text.contains(&format!(" to {}", copy.join("params_shard_0.bin").display())), "{text}");
    assert!(text.contains("File too large") && text.contains("make room"), "{text}");
    assert!(!copy.exists() && installed(&place.path().join("home")).is_empty());
}

#[test]
fn a_damaged_copy_is_removed_as_the_hint_says() {
    let place = tempfile::tempdir().unwrap();
    write_mlc_folder(&place.path().join("m"));
    std::fs::write(place.path().join("m/params_shard_0.bin"), vec![0; 4000]).unwrap();
    let error = pull(&store(&place.path().join("home")), &place.path().join("m")).unwrap_err();
    assert!(error.hint().unwrap().contains("damaged copy was removed"), "{error}");
    assert!(!place.path().join("home/partial/m/download").exists());
}

/// Moves the model `m` to where it is when an installation is killed between its two renames.
fn half_replaced(home: &Path) {
    let work = home.join("partial/m");
    std::fs::create_dir_all(work.join("download")).unwrap();
    std::fs::rename(home.join("models/m"), work.join("replaced")).unwrap();
}

#[test]
fn a_model_that_was_about_to_be_replaced_is_put_back() {
    let _nobody_starts = alone();
    let place = tempfile::tempdir().unwrap();
    let (home, folder) = (place.path().join("home"), place.path().join("m"));
    write_mlc_folder(&folder);
    let store = store(&home);
    drop(pull(&store, &folder).unwrap());
    let name = ModelName::parse("m").unwrap();
    let looks: [(&str, &dyn Fn() -> bool); 5] = [
        ("resolve", &|| store.resolve("m").unwrap().name.is_some()),
        ("entry", &|| store.entry(&name).unwrap().bytes > 8000),
        ("list", &|| store.list().unwrap().len() == 1),
        ("fetch", &|| !pull(&store, &folder).unwrap().fresh),
        ("another fetch", &|| {
            let options = FetchOptions { name: Some(ModelName::parse("n").unwrap()), force: true };
            store.fetch(&Source::Path(folder.clone()), &options, &|_| {}).is_ok()
        }),
    ];
    for (look, works) in looks {
        half_replaced(&home);
        assert!(works(), "{look}");
        assert!(home.join("models/m/params_shard_1.bin").is_file(), "{look}");
        assert!(!home.join("partial/m/replaced").exists(), "{look}");
    }
    // Killed after the second rename: the older model is only in the way.
    std::fs::create_dir_all(home.join("partial/m/replaced")).unwrap();
    std::fs::write(home.join("partial/m/replaced/old.bin"), "old").unwrap();
    store.remove(&ModelName::parse("n").unwrap()).unwrap();
    assert!(store.resolve("m").is_ok() && !home.join("partial/m").exists());
    // Names that look like the folders of the store are names.
    let replaced = FetchOptions { name: Some(ModelName::parse("m.replaced").unwrap()), force: true };
    drop(store.fetch(&Source::Path(folder.clone()), &replaced, &|_| {}).unwrap());
    let again = FetchOptions { name: None, force: true };
    drop(store.fetch(&Source::Path(folder), &again, &|_| {}).unwrap());
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn what_killed_pulls_left_is_removed_and_what_can_be_resumed_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let (home, folder) = (place.path().join("home"), place.path().join("m"));
    write_mlc_folder(&folder);
    let gguf = place.path().join("busy.gguf");
    std::fs::write(&gguf, "GGUF").unwrap();
    let store = store(&home);
    let busy = pull(&store, &gguf).unwrap();
    let leave = |name: &str| {
        for left in ["wheel", "unpacked", "ready", "ready.tmp-12ab00", "removed", "download"] {
            let left = home.join("partial").join(name).join(left);
            std::fs::create_dir_all(&left).unwrap();
            std::fs::write(left.join("file"), "x").unwrap();
        }
    };
    let left = |name: &str| {
        let Ok(entries) = std::fs::read_dir(home.join("partial").join(name)) else { return Vec::new() };
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    leave("killed");
    leave("busy");
    drop(pull(&store, &folder).unwrap());
    assert_eq!(left("killed"), ["download"]);
    assert_eq!(left("busy").len(), 6, "a living process holds it");
    drop(busy);
    store.remove(&ModelName::parse("m").unwrap()).unwrap();
    assert_eq!(left("busy"), ["download"]);
}
