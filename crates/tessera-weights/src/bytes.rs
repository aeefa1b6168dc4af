//! A shared, immutable range of bytes: mapped from a file or owned.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

enum Owner {
    Vec(Vec<u8>),
    #[cfg(feature = "fs")]
    Map(memmap2::Mmap),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::Vec(v) => v,
            #[cfg(feature = "fs")]
            Owner::Map(m) => m,
        }
    }
}

/// A cheap handle on bytes that never move. Nothing about their alignment is promised: a record may
/// start anywhere in its shard.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Takes over a vector.
    pub fn from_vec(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { owner: Arc::new(Owner::Vec(bytes)), range }
    }

    /// Maps a whole file, read only.
    #[cfg(feature = "fs")]
    pub fn map(file: &std::fs::File) -> std::io::Result<Bytes> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::from_vec(Vec::new()));
        }
        // SAFETY: the map is read only and private to this handle. Another process could still
        // truncate the file under us; model files are replaced by rename only, and lengths are
        // checked against the manifest before any record is handed out.
        let map = unsafe { memmap2::Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Bytes { owner: Arc::new(Owner::Map(map)), range })
    }

    /// A part of these bytes, `None` if it is not inside them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Bytes { owner: self.owner.clone(), range: start..start + (range.end - range.start) })
    }

    /// Whether the bytes lie in a file's pages rather than in memory of their own.
    pub fn is_mapped(&self) -> bool {
        match *self.owner {
            Owner::Vec(_) => false,
            #[cfg(feature = "fs")]
            Owner::Map(_) => true,
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} of {})", self.len(), if self.is_mapped() { "a mapped file" } else { "a vector" })
    }
}
