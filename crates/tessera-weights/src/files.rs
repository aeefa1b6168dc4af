//! Files, opened with care: only regular ones, and never more read than is sensible.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a file. A pipe would wait for a writer and a device never ends: what is not a regular file is an error.
pub fn open(path: &Path) -> Result<File> {
    // Before it is opened, since opening alone does something to some devices.
    regular(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        // It may have become a pipe since.
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    }
    let file = options.read(true).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(meta: &std::fs::Metadata) -> Result<()> {
    if meta.is_file() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "not a regular file"))
}

/// The bytes of a regular file of at most `limit` bytes; `None` if there is no such file.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match need(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The same of a file that must be there.
pub fn need(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    if len > limit {
        return Err(too_long(&len.to_string(), limit));
    }
    // It may have grown since.
    all(file, limit)
}

/// The bytes of whatever a user has named, which may be a pipe, but not of more than `limit` bytes.
pub fn named(path: &Path, limit: u64) -> Result<Vec<u8>> {
    all(File::open(path)?, limit)
}

fn all(file: File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long("more", limit)) } else { Ok(bytes) }
}

fn too_long(found: &str, limit: u64) -> Error {
    Error::new(ErrorKind::FileTooLarge, format!("{found} bytes, at most {limit} are read"))
}

/// Whether a regular file begins with these bytes.
pub fn starts_with(path: &Path, magic: &[u8]) -> bool {
    let mut head = vec![0; magic.len()];
    open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == magic
}

#[cfg(all(test, unix))]
mod tests {
    use super::{named, open, read, starts_with};

    #[test]
    fn only_regular_files_of_a_sensible_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(read(&path, 3).unwrap(), None);
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert!(read(&path, 2).unwrap_err().to_string().contains("3 bytes, at most 2"));
        assert!(read("/dev/zero".as_ref(), 9).unwrap_err().to_string().contains("not a regular file"));
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(read(&fifo, 9).unwrap_err().to_string().contains("not a regular file"));
        assert!(open(&fifo).unwrap_err().to_string().contains("not a regular file"));
        assert!(!starts_with(&fifo, b"GGUF") && starts_with(&path, b"ab") && !starts_with(&path, b"abcd"));
        assert!(read(folder.path(), 9).is_err());
        assert!(named("/dev/zero".as_ref(), 9).unwrap_err().to_string().contains("more bytes, at most 9"));
    }
}
