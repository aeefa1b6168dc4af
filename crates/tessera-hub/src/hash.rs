//! MD5 and SHA-256 of files, and hexadecimal text that is known to be such a digest.

use crate::{HubError, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;
use std::path::Path;
use tessera_weights::files;

/// Which function made a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashKind {
    /// MD5: what an MLC manifest states for each shard.
    Md5,
    /// SHA-256: what git-LFS and package indexes state.
    Sha256,
}

impl HashKind {
    /// The usual spelling.
    pub fn name(self) -> &'static str {
        match self {
            HashKind::Md5 => "MD5",
            HashKind::Sha256 => "SHA-256",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            HashKind::Md5 => 32,
            HashKind::Sha256 => 64,
        }
    }
}

/// A digest in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The function that made it.
    pub kind: HashKind,
    /// Its value.
    pub hex: String,
}

impl Digest {
    /// A digest from text, if it has the right length and alphabet.
    pub fn parse(kind: HashKind, text: &str) -> Option<Digest> {
        (text.len() == kind.hex_len() && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| Digest { kind, hex: text.to_ascii_lowercase() })
    }

    /// Fails unless the file has this digest. `label` is the name that the error gives.
    pub fn check(&self, path: &Path, label: &str) -> Result<()> {
        let found = hash_file(path, self.kind)?;
        if found != *self {
            return Err(HubError::WrongHash {
                file: label.to_string(),
                kind: self.kind.name(),
                expected: self.hex.clone(),
                found: found.hex,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.hex)
    }
}

/// The digest of a whole file, read in pieces.
pub fn hash_file(path: &Path, kind: HashKind) -> Result<Digest> {
    let file = files::open(path).map_err(HubError::io(path))?;
    let hex = match kind {
        HashKind::Md5 => digest_of::<md5::Md5>(file),
        HashKind::Sha256 => digest_of::<sha2::Sha256>(file),
    }
    .map_err(HubError::io(path))?;
    Ok(Digest { kind, hex })
}

fn digest_of<D: md5::Digest>(mut from: impl Read) -> std::io::Result<String> {
    let mut state = D::new();
    let mut buffer = vec![0u8; 1 << 18];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => state.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(state.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(hash_file(&path, HashKind::Md5).unwrap().hex, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            hash_file(&path, HashKind::Sha256).unwrap().hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let other = Digest::parse(HashKind::Md5, &"0".repeat(32)).unwrap();
        assert!(matches!(other.check(&path, "abc"), Err(HubError::WrongHash { .. })));
        assert!(Digest::parse(HashKind::Md5, "xyz").is_none());
    }
}
