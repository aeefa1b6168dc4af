//! Folders that appear under their final name only when they are whole.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::ConvertError;

/// A folder beside its destination that takes the destination's name once it is whole, and is removed if
/// that never happens.
///
/// A locked file beside it, of its name and `.lock`, says that its process lives. A process that is killed
/// leaves both; the system takes the lock away, and who next writes to the same destination removes them.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    published: bool,
    removed: Vec<String>,
    /// Dropped last: until then nobody else takes the folder for a killed one's.
    _lock: Lock,
}

impl Staging {
    /// Makes the folder. The destination must not be there, or be an empty folder.
    pub fn beside(dst: &Path) -> Result<Staging, ConvertError> {
        refuse_if_occupied(dst)?;
        let exists = || ConvertError::Exists { path: dst.display().to_string() };
        // `..` and `/` have no name that a sibling could be named after.
        let name = dst.file_name().ok_or_else(exists)?.to_string_lossy().into_owned();
        let parent = match dst.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|e| io(parent, e))?;
        let stem = format!("{name}.tmp-");
        let removed = remove_abandoned(parent, &stem);
        for n in 0u32.. {
            let path = parent.join(format!("{stem}{:x}{n:02x}", std::process::id()));
            let Some(lock) = Lock::take(&path)? else { continue };
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Staging { path, published: false, removed, _lock: lock }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(&path, e)),
            }
        }
        Err(exists())
    }

    /// Folders of killed processes that were removed to begin with.
    pub fn removed(&self) -> &[String] {
        &self.removed
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a whole file, durably.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let path = self.path.join(name);
        // The pooling of a sentence-transformers model is in a folder of its own.
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
        }
        write_whole(&path, bytes)
    }

    /// Gives the folder its final name.
    pub fn publish(mut self, dst: &Path) -> Result<(), ConvertError> {
        sync_folder(&self.path)?;
        refuse_if_occupied(dst)?;
        if dst.exists() {
            fs::remove_dir(dst).map_err(|e| io(dst, e))?;
        }
        fs::rename(&self.path, dst).map_err(|e| io(dst, e))?;
        self.published = true;
        match dst.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nothing better can be done about a failure here than to leave the folder, which does not open.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A locked file that goes away with its owner.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// The lock of a folder; `None` if somebody else has it, or is removing it.
    fn take(folder: &Path) -> Result<Option<Lock>, ConvertError> {
        let mut path = folder.as_os_str().to_owned();
        path.push(LOCK);
        let path = PathBuf::from(path);
        let file = match File::create_new(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
            Err(e) => return Err(io(&path, e)),
        };
        // Where the file system has no locks, nobody can take this one for a killed process's either.
        let free = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        // Between its making and its locking somebody may have found it unlocked, and removed it.
        if free && path.exists() { Ok(Some(Lock { path, _file: file })) } else { Ok(None) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An unlocked file that stays is removed by who comes next.
        let _ = fs::remove_file(&self.path);
    }
}

const LOCK: &str = ".lock";

/// Removes what killed processes left: folders named `stem` and hexadecimal digits, with a lock file that
/// can be locked. A folder without a lock file is none of ours. Returns the folders.
fn remove_abandoned(parent: &Path, stem: &str) -> Vec<String> {
    let mut removed = Vec::new();
    // A folder that cannot be listed may still be written to.
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(folder) = name.to_str().and_then(|n| n.strip_suffix(LOCK)) else { continue };
        let ours = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit());
        if !folder.strip_prefix(stem).is_some_and(ours) || !entry.file_type().is_ok_and(|t| t.is_file()) {
            continue;
        }
        let Ok(file) = File::options().read(true).write(true).open(entry.path()) else { continue };
        if file.try_lock().is_err() || !entry.path().exists() {
            continue;
        }
        let folder = parent.join(folder);
        match fs::remove_dir_all(&folder) {
            Ok(()) => removed.push(folder.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // What cannot be removed now keeps its lock file, so that the next one tries again.
            Err(_) => continue,
        }
        let _ = fs::remove_file(entry.path());
    }
    removed
}

fn refuse_if_occupied(dst: &Path) -> Result<(), ConvertError> {
    let occupied = match fs::read_dir(dst) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => true,
        Err(e) => return Err(io(dst, e)),
    };
    if occupied { Err(ConvertError::Exists { path: dst.display().to_string() }) } else { Ok(()) }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    let mut file = File::create_new(path).map_err(|e| io(path, e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| io(path, e))
}

/// Makes names durable; a folder can be synced on Unix only.
fn sync_folder(path: &Path) -> Result<(), ConvertError> {
    if cfg!(unix) {
        File::open(path).and_then(|f| f.sync_all()).map_err(|e| io(path, e))?;
    }
    Ok(())
}

pub(super) fn io(path: &Path, source: std::io::Error) -> ConvertError {
    ConvertError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not() {
        let home = tempfile::tempdir().unwrap();
        let dst = home.path().join("out");
        // A killed process: its files without its lock.
        let left = home.path().join("out.tmp-3e800");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("params_shard_0.bin"), b"half").unwrap();
        fs::write(home.path().join("out.tmp-3e800.lock"), b"").unwrap();
        // Folders that only look like it: no lock file, another destination, no hexadecimal number.
        for other in ["out.tmp-cafe", "out2.tmp-1", "out.tmp-mine"] {
            fs::create_dir(home.path().join(other)).unwrap();
        }
        fs::write(home.path().join("out2.tmp-1.lock"), b"").unwrap();
        fs::write(home.path().join("out.tmp-mine.lock"), b"").unwrap();

        let first = Staging::beside(&dst).unwrap();
        assert_eq!(first.removed(), [left.display().to_string()]);
        first.write("a", b"1").unwrap();
        // Another one to the same place, while the first lives.
        let second = Staging::beside(&dst).unwrap();
        assert!(second.removed().is_empty());
        assert_ne!(first.path(), second.path());
        drop(second);
        first.publish(&dst).unwrap();
        let others =
            ["out", "out.tmp-cafe", "out.tmp-mine", "out.tmp-mine.lock", "out2.tmp-1", "out2.tmp-1.lock"];
        assert_eq!(names(home.path()), others);
        assert_eq!(names(&dst), ["a"]);
    }
}
