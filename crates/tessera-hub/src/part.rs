//! `NAME.part` grows beside `NAME.part.json`, which remembers what its bytes belong to. They may be
//! joined with bytes of another answer only if a strong entity tag or a digest tells one version of
//! the file from the next.

use crate::source::without_secrets;
use crate::{Digest, HashKind, HubError, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use tessera_weights::files;

/// Longest note about a part.
const MAX_NOTE: u64 = 1 << 20;

/// How often the bytes that are here may be thrown away for another beginning. With the length of a
/// file this bounds what is received for it: between two beginnings a part only grows.
const MAX_RESTARTS: u32 = 4;

/// Where the bytes of a part came from.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct PartNote {
    /// Without password and query, which do not belong on a disk; a signed address is another one each
    /// time anyway.
    pub url: String,
    #[serde(default)]
    pub etag: Option<String>,
    #[serde(default)]
    pub sha256: Option<String>,
    #[serde(default)]
    pub total: Option<u64>,
}

impl PartNote {
    /// The entity tag, if it stands for equal bytes. A weak one stands for equal meaning.
    pub fn strong_tag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.starts_with('"'))
    }

    /// The SHA-256 that the hub stated.
    pub fn digest(&self) -> Option<Digest> {
        self.sha256.as_deref().and_then(|hex| Digest::parse(HashKind::Sha256, hex))
    }
}

pub(crate) struct Part {
    pub path: PathBuf,
    pub note: PartNote,
    pub len: u64,
    note_path: PathBuf,
    has_digest: bool,
    restarts: u32,
}

impl Part {
    /// What is here of the file that will be `dest`, if it can be gone on with.
    pub fn open(dest: &Path, url: &str, want_len: Option<u64>, has_digest: bool) -> Result<Part> {
        let path = with_suffix(dest, ".part");
        let note_path = with_suffix(dest, ".part.json");
        let note = files::need(&note_path, MAX_NOTE)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<PartNote>(&bytes).ok());
        let len = fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
        let mut part = Part { path, note: PartNote::default(), len, note_path, has_digest, restarts: 0 };
        if let Some(note) = note {
            part.note = note;
        }
        let fits = part.note.url == without_secrets(url) && want_len.is_none_or(|total| len <= total);
        if len == 0 || !fits || !part.can_be_joined() {
            part.clear()?;
        }
        Ok(part)
    }

    /// Whether other bytes that are said to be the rest can be known to be it.
    pub fn can_be_joined(&self) -> bool {
        self.has_digest || self.note.strong_tag().is_some() || self.note.digest().is_some()
    }

    /// Writes down what the bytes that come next belong to.
    pub fn remember(&mut self, note: PartNote) -> Result<()> {
        self.note = note;
        let text = serde_json::to_vec(&self.note).map_err(|e| HubError::io(&self.note_path)(e.into()))?;
        fs::write(&self.note_path, text).map_err(HubError::io(&self.note_path))
    }

    pub fn append(&self) -> Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path).map_err(HubError::io(&self.path))
    }

    /// Begins the file again because of `why`, which is the error if that has been done too often.
    pub fn restart(&mut self, why: HubError, moved: &dyn Fn(i64)) -> Result<()> {
        moved(-(self.len as i64));
        self.clear()?;
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS { Err(why) } else { Ok(()) }
    }

    pub fn clear(&mut self) -> Result<()> {
        for path in [&self.path, &self.note_path] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(path)(e)),
                _ => {}
            }
        }
        self.len = 0;
        self.note = PartNote::default();
        Ok(())
    }

    /// Gives the complete file its name.
    pub fn publish(&self, dest: &Path) -> Result<()> {
        fs::rename(&self.path, dest).map_err(HubError::io(dest))?;
        // The note has no meaning without its part; a leftover is harmless.
        let _ = fs::remove_file(&self.note_path);
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
