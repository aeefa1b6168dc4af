//! Folders that appear under their final name only when they are whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::ConvertError;

/// A folder beside its destination that takes the destination's name once it is whole, and is removed if
/// that never happens.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    published: bool,
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
        for n in 0u32.. {
            let path = parent.join(format!("{name}.tmp-{:x}{n:02x}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Staging { path, published: false }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(&path, e)),
            }
        }
        Err(exists())
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a whole file, durably.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        write_whole(&self.path.join(name), bytes)
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
