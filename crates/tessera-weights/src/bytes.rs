//! A shared, immutable range of bytes: mapped from a file or owned.

pub use crate::changed::Changed;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

enum Owner {
    Vec(Vec<u8>),
    #[cfg(feature = "fs")]
    Map(crate::mapped::Mapped),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::Vec(v) => v,
            #[cfg(feature = "fs")]
            Owner::Map(m) => m.bytes(),
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

    /// Maps a whole file, read only. `path` is where it lies: for errors, and to see whether it changes.
    #[cfg(feature = "fs")]
    pub fn map(file: &std::fs::File, path: &std::path::Path) -> std::io::Result<Bytes> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::from_vec(Vec::new()));
        }
        let map = crate::mapped::Mapped::new(file, path)?;
        let range = 0..map.bytes().len();
        Ok(Bytes { owner: Arc::new(Owner::Map(map)), range })
    }

    /// Whether a mapped file is still what it was when it was opened. To be asked after its bytes were read and before
    /// what was made of them is used: a file that grows shorter reads as zeros or ends the process, see
    /// `mapped::guard`. Bytes in memory do not change.
    pub fn check(&self) -> Result<(), Changed> {
        match &*self.owner {
            Owner::Vec(_) => Ok(()),
            #[cfg(feature = "fs")]
            Owner::Map(map) => map.check(),
        }
    }

    /// Whether both are parts of the same file or vector.
    pub fn same_owner(&self, other: &Bytes) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
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
