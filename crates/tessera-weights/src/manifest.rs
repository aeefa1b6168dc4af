//! The manifest of a folder (`tensor-cache.json`, formerly `ndarray-cache.json`): JSON text to checked
//! records.
//!
//! [`Manifest::parse`] is the only constructor. Afterwards every record lies inside its shard, no two
//! records share a byte, sizes match shapes, names are unique and paths stay in the folder. TVM's own
//! loaders check little of this: they read past a buffer's end, follow `..`, let the last of two equal
//! names win and take an unknown format as raw. Neither they nor their converter look at bytes that belong
//! to no tensor; here these are allowed too, and told as warnings.

mod error;
pub(crate) mod json;
mod parse;

pub use error::{Details, ManifestError, Place};

use crate::dtype::{DType, Encoding};
use crate::json::MAX_VALUES;
use json::Node;
use serde::Serialize;
use std::collections::HashMap;
use std::ops::Range;

/// The names that a manifest has had, in the order in which a folder is searched. The `b16` ones view
/// the same shards with every float32 tensor as the bfloat16 that it is stored as.
pub const MANIFEST_NAMES: [&str; 4] =
    ["tensor-cache.json", "ndarray-cache.json", "tensor-cache-b16.json", "ndarray-cache-b16.json"];

/// The longest manifest that is parsed. The largest published ones have a few MiB.
pub const MAX_MANIFEST_LEN: u64 = 64 << 20;
/// The most tensors, and the most shards.
pub const MAX_RECORDS: usize = 1 << 20;
/// The longest shard: 4 TiB. Keeps every sum of lengths in 64 bits.
pub const MAX_SHARD_LEN: u64 = 1 << 42;
/// The most axes.
pub const MAX_RANK: usize = 8;
/// The longest name of a tensor, in bytes.
pub const MAX_NAME_LEN: usize = 512;

/// A file of raw bytes that holds tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// A plain file name.
    pub path: String,
    /// Length of the file.
    pub nbytes: u64,
    /// MD5 of the file in lower-case hex; absent before 2023-11-13.
    pub md5sum: Option<String>,
    /// Its tensors, as indices into [`Manifest::records`].
    pub records: Range<usize>,
}

/// Where a tensor is and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Unique in the manifest.
    pub name: String,
    /// Sizes of the axes, outermost first; 1 to 8 of them, none zero.
    pub shape: Vec<usize>,
    /// Element type in memory.
    pub dtype: DType,
    /// How the bytes stand for elements.
    pub encoding: Encoding,
    /// Stored length: number of elements times the stored type's size.
    pub nbytes: u64,
    /// First byte in the shard; any alignment.
    pub offset: u64,
    /// Index into [`Manifest::shards`].
    pub shard: usize,
}

impl Record {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The element type that the bytes have.
    pub fn stored(&self) -> DType {
        self.encoding.stored(self.dtype)
    }

    /// Bytes that the elements take in their in-memory type.
    pub fn memory_len(&self) -> u64 {
        self.numel() as u64 * self.dtype.size() as u64
    }

    /// The record's bytes in its shard.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.nbytes
    }
}

/// What the converter said about the whole folder. Advisory: `BitsPerParam` is wrong for checkpoints of
/// several files, and folders of before 2023-11-16 have none of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// `ParamSize`: number of tensors.
    pub param_size: Option<u64>,
    /// `ParamBytes`: bytes in memory.
    pub param_bytes: Option<f64>,
    /// `BitsPerParam`: bits in memory for each element of the source.
    pub bits_per_param: Option<f64>,
}

/// Something odd that does not stop a folder from being read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The shard, if it is about one.
    pub file: Option<String>,
    /// The tensor, if it is about one.
    pub tensor: Option<String>,
    /// One sentence.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "shard {file}: ")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {tensor}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A checked manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    metadata: Metadata,
    shards: Vec<Shard>,
    records: Vec<Record>,
    index: HashMap<String, usize>,
    warnings: Vec<Warning>,
}

impl Manifest {
    /// Parses and checks the text of a manifest. White space and a byte order mark may come first,
    /// nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLarge { len: bytes.len() as u64, limit: MAX_MANIFEST_LEN });
        }
        match Disguise::of(bytes) {
            Some(Disguise::LfsPointer) => return Err(ManifestError::LfsPointer),
            Some(Disguise::Html) => return Err(ManifestError::Html),
            None => {}
        }
        let count = crate::json::values(bytes);
        if count > MAX_VALUES {
            return Err(ManifestError::TooMany { what: "values", count, limit: MAX_VALUES });
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let root: Node = serde_json::from_slice(text).map_err(|e| {
            // The parser's own text ends in the position that the error gives anyway.
            let what = e.to_string();
            let end = what.rfind(" at line ").unwrap_or(what.len());
            ManifestError::Json { line: e.line(), column: e.column(), what: what[..end].to_owned() }
        })?;
        parse::Parser::default().root(root)
    }

    /// What the converter said about the whole folder.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The shards, in the manifest's order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The tensors, in the manifest's order, which means nothing.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A tensor's record.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.position(name).map(|i| &self.records[i])
    }

    /// A tensor's index in [`Manifest::records`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Oddities, at most about a hundred.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Bytes of all shards.
    pub fn stored_len(&self) -> u64 {
        self.shards.iter().map(|s| s.nbytes).sum()
    }

    /// Bytes of all tensors in their in-memory types.
    pub fn memory_len(&self) -> u64 {
        self.records.iter().map(Record::memory_len).sum()
    }

    /// Whether both describe the same tensors at the same places. Metadata, key order and spelling do
    /// not count.
    pub fn same_content(&self, other: &Manifest) -> bool {
        self.shards == other.shards && self.records == other.records
    }
}

/// What a file that should be a manifest or a shard often turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disguise {
    LfsPointer,
    Html,
}

impl Disguise {
    /// Looks at the first bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<Disguise> {
        let bytes = &bytes[..bytes.len().min(256)];
        let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
        let begins =
            |with: &[u8]| start.len() >= with.len() && start[..with.len()].eq_ignore_ascii_case(with);
        if start.starts_with(b"version https://git-lfs") {
            Some(Disguise::LfsPointer)
        } else if begins(b"<!doctype") || begins(b"<html") {
            Some(Disguise::Html)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
