//! `NAME.part` grows beside `NAME.part.json`, which remembers what its bytes belong to. They may be
//! joined with bytes of another answer only if a strong entity tag or a digest tells one version of
//! the file from the next. The note outlives the part where nothing but the tag can tell later whether
//! the finished `NAME` is still the file that the server has.

use crate::source::without_secrets;
use crate::{Digest, HashKind, HubError, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tessera_weights::files;

/// How the two files are called after the one that they become.
const PART: &str = ".part";
const NOTE: &str = ".part.json";

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

    /// What is noted of the finished file `dest` of `len` bytes, if it came from this address.
    pub fn of_finished(dest: &Path, url: &str, len: u64) -> Option<PartNote> {
        let note = read_note(&with_suffix(dest, NOTE))?;
        (note.url == without_secrets(url) && note.total == Some(len)).then_some(note)
    }
}

fn read_note(path: &Path) -> Option<PartNote> {
    serde_json::from_slice(&files::need(path, MAX_NOTE).ok()?).ok()
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
        let path = with_suffix(dest, PART);
        let note_path = with_suffix(dest, NOTE);
        let note = read_note(&note_path);
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

    /// Puts the first `len` bytes of `from` in the place of what has not come yet, for a file whose digest
    /// will tell whether that was right. More that is here already stays.
    pub fn seed(dest: &Path, url: &str, from: &Path, len: u64) -> Result<()> {
        let mut part = Part::open(dest, url, None, true)?;
        if part.len >= len {
            return Ok(());
        }
        part.clear()?;
        part.remember(PartNote { url: without_secrets(url), ..PartNote::default() })?;
        let file = files::open(from).map_err(HubError::io(from))?;
        let mut copy = part.append()?;
        io::copy(&mut file.take(len), &mut copy).map_err(HubError::io(&part.path))?;
        Ok(())
    }

    /// Whether other bytes that are said to be the rest can be known to be it.
    pub fn can_be_joined(&self) -> bool {
        self.has_digest || self.note.strong_tag().is_some() || self.note.digest().is_some()
    }

    /// Writes down what the bytes that come next belong to; by rename, since a part whose note is half
    /// written could not be gone on with.
    pub fn remember(&mut self, note: PartNote) -> Result<()> {
        self.note = note;
        let text = serde_json::to_vec(&self.note).map_err(|e| HubError::io(&self.note_path)(e.into()))?;
        let new = with_suffix(&self.note_path, ".new");
        fs::write(&new, text).map_err(HubError::io(&new))?;
        fs::rename(&new, &self.note_path).map_err(HubError::io(&self.note_path))
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
    pub fn publish(&mut self, dest: &Path) -> Result<()> {
        if !self.has_digest && self.note.strong_tag().is_some() {
            let note = PartNote { total: Some(self.len), ..std::mem::take(&mut self.note) };
            self.remember(note)?;
            return fs::rename(&self.path, dest).map_err(HubError::io(dest));
        }
        fs::rename(&self.path, dest).map_err(HubError::io(dest))?;
        // Nobody will ask; a leftover is harmless.
        let _ = fs::remove_file(&self.note_path);
        Ok(())
    }
}

/// The file that a note is about, by their names.
pub(crate) fn noted_file(note: &str) -> Option<&str> {
    note.strip_suffix(NOTE)
}

/// Whether a file of this name would be taken for what is known of another one.
pub(crate) fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    [PART, NOTE].iter().any(|end| lower.ends_with(end))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
