//! Small files of a folder, read with care: only regular ones, and never more than is sensible.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// A file's bytes; `None` if there is no such file. A pipe would wait for a writer and a device never ends: what is
/// not a regular file is an error, as is one of more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let too_long = |found: u64| {
        let found = if found > limit { found.to_string() } else { "more".to_owned() };
        Error::new(ErrorKind::FileTooLarge, format!("{found} bytes, at most {limit} are read"))
    };
    if meta.len() > limit {
        return Err(too_long(meta.len()));
    }
    let mut bytes = Vec::new();
    // It may have grown since.
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long(0)) } else { Ok(Some(bytes)) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::read;

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
        assert!(read(folder.path(), 9).is_err());
    }
}
