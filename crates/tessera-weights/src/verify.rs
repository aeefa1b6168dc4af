//! Reads every byte of a folder and reports everything that is wrong with it.
//!
//! [`crate::folder::Folder::open`] stops at the first defect; this goes on. MD5 is compared for every
//! shard (no loader of MLC does that), then every tensor is looked at: values, partners, and the
//! architecture's list of names and shapes where the caller has one.

#[cfg(feature = "fs")]
mod run;
mod values;

#[cfg(feature = "fs")]
pub use run::verify;
pub use values::{CodeCounts, ValueCounts, count_codes, count_values};

use crate::dtype::DType;
use serde::Serialize;

/// A tensor that the architecture has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Its name in the folder.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type in memory.
    pub dtype: DType,
}

/// What to verify.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions<'a> {
    /// The architecture's tensors; `None` leaves names and shapes unjudged.
    pub expected: Option<&'a [ExpectedTensor]>,
    /// Whether to compare MD5 sums.
    pub md5: bool,
    /// Whether to look at the values.
    pub values: bool,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        VerifyOptions { expected: None, md5: true, values: true }
    }
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes looked at.
    pub done: u64,
    /// Bytes of all shards.
    pub total: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// The file: a shard or the manifest.
    pub file: String,
    /// The tensor, if it is about one.
    pub tensor: Option<String>,
    /// The manifest's field, or `file`, `values`, `tensor` for what has none.
    pub field: String,
    /// What was expected.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// All of it in a sentence.
    pub message: String,
}

/// Something worth knowing that is not wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The file, if it is about one.
    pub file: Option<String>,
    /// The tensor, if it is about one.
    pub tensor: Option<String>,
    /// A sentence.
    pub message: String,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The path as given.
    pub path: String,
    /// File name of the manifest, if one was found.
    pub manifest: Option<String>,
    /// Shards listed.
    pub shards: usize,
    /// Shards whose MD5 was compared and agrees.
    pub md5_matches: usize,
    /// Tensors listed.
    pub tensors: usize,
    /// Tensors whose values were looked at.
    pub tensors_read: usize,
    /// Bytes of all shards, by the manifest.
    pub bytes: u64,
    /// Name of the scheme that the tensors have, if it could be told.
    pub scheme: Option<String>,
    /// What is wrong, shard by shard.
    pub defects: Vec<Defect>,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.defects.is_empty()
    }
}
