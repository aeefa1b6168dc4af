//! The ways in which a manifest can be wrong.

use super::json::quoted;
use crate::dtype::{DType, Encoding};

/// Where in the manifest a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The shard's `dataPath`, or `records[i]` while that is not known.
    pub shard: Option<String>,
    /// The tensor's name, or `records[i]` while that is not known.
    pub tensor: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(shard) = &self.shard {
            write!(f, "shard {shard}: ")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {tensor}: ")?;
        }
        Ok(())
    }
}

/// A manifest that is refused, and why. Names in the fields were checked to be printable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are a git-LFS pointer.
    #[error("this is a git-LFS pointer and not the manifest itself; fetch it with `git lfs pull`")]
    LfsPointer,
    /// The bytes are a web page.
    #[error("this is an HTML page and not a manifest; the download went wrong")]
    Html,
    /// More bytes than any manifest has.
    #[error("the manifest has {len} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Its length.
        len: u64,
        /// The largest length accepted.
        limit: u64,
    },
    /// Not JSON, or a key twice in one object.
    #[error("invalid JSON at line {line}, column {column}: {what}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the JSON parser says.
        what: String,
    },
    /// A field is missing or has a value of the wrong kind or range.
    #[error("{place}field {field}: expected {expected}, found {found}")]
    Field {
        /// Where.
        place: Place,
        /// The field's name.
        field: &'static str,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// More shards, tensors or values than any folder has.
    #[error("the manifest lists {count} {what} or more; at most {limit} are accepted")]
    TooMany {
        /// `shards`, `tensors` or `values`.
        what: &'static str,
        /// How many were counted.
        count: usize,
        /// The largest number accepted.
        limit: usize,
    },
    /// A `dataPath` that is not the name of a file in the folder.
    #[error("dataPath {} is refused: {why}", quoted(path))]
    UnsafePath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two shards name the same file.
    #[error("shard {shard} is listed twice: as records[{first}] and as records[{second}]")]
    DuplicateShard {
        /// The file's name.
        shard: String,
        /// Index of its first entry.
        first: usize,
        /// Index of its second entry.
        second: usize,
    },
    /// Two tensors have the same name.
    #[error("tensor {tensor} is listed twice: in shard {first} and in shard {second}")]
    DuplicateTensor {
        /// The name.
        tensor: String,
        /// Shard of the first.
        first: String,
        /// Shard of the second.
        second: String,
    },
    /// `param_0`, `param_1`, ...: a folder of the flow before 2024-03.
    #[error(
        "shard {shard}: tensor {tensor} has a number for a name: the folder was written by MLC's converter of \
         before 2024-03, whose order of tensors is known only to its compiled library; convert the original \
         checkpoint again"
    )]
    LegacyName {
        /// Its shard.
        shard: String,
        /// The name.
        tensor: String,
    },
    /// `..._shard-0`: a folder cut for tensor parallelism.
    #[error(
        "shard {shard}: tensor {tensor} is one worker's part: the folder was cut for tensor parallelism; \
         convert without presharding"
    )]
    Presharded {
        /// Its shard.
        shard: String,
        /// The name.
        tensor: String,
    },
    /// A shape that no tensor has.
    #[error("shard {shard}: tensor {tensor}: shape {shape:?} is refused: {why}")]
    Shape {
        /// Its shard.
        shard: String,
        /// The tensor's name.
        tensor: String,
        /// The shape, its first 16 sizes.
        shape: Vec<u64>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `nbytes` is not what shape, dtype and format need.
    #[error(
        "shard {shard}: tensor {tensor}: nbytes is {stated}, but shape {shape:?} of {dtype} in format {} \
         takes {needed}",
        format.name()
    )]
    WrongSize {
        /// Its shard.
        shard: String,
        /// The tensor's name.
        tensor: String,
        /// `nbytes`.
        stated: u64,
        /// What it should be.
        needed: u64,
        /// The shape.
        shape: Vec<usize>,
        /// The dtype.
        dtype: DType,
        /// The encoding.
        format: Encoding,
    },
    /// A record ends after its shard does.
    #[error(
        "shard {shard}: tensor {tensor}: byteOffset {offset} + nbytes {nbytes} is past the end of the shard at \
         {shard_len}"
    )]
    PastEnd {
        /// Its shard.
        shard: String,
        /// The tensor's name.
        tensor: String,
        /// `byteOffset`.
        offset: u64,
        /// `nbytes`.
        nbytes: u64,
        /// The shard's `nbytes`.
        shard_len: u64,
    },
    /// Two records share bytes.
    #[error(
        "shard {shard}: tensor {tensor} starts at byte {offset}, inside tensor {other}, which ends at {other_end}"
    )]
    Overlap {
        /// Their shard.
        shard: String,
        /// The tensor that starts later.
        tensor: String,
        /// Where it starts.
        offset: u64,
        /// The tensor that starts first.
        other: String,
        /// Where that one ends.
        other_end: u64,
    },
    /// No tensor at all.
    #[error("the manifest lists no tensors")]
    Empty,
}

/// An error in the five parts that a report has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// The shard, if the error is about one.
    pub shard: Option<String>,
    /// The tensor, if the error is about one.
    pub tensor: Option<String>,
    /// The field of the manifest.
    pub field: &'static str,
    /// What would be accepted.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl ManifestError {
    /// Shard, tensor, field, expected and found.
    pub fn details(&self) -> Details {
        let at = |shard: &str, tensor: Option<&String>, field, expected: String, found: String| Details {
            shard: (!shard.is_empty()).then(|| shard.to_owned()),
            tensor: tensor.cloned(),
            field,
            expected,
            found,
        };
        match self {
            Self::LfsPointer => at("", None, "file", "a manifest".into(), "a git-LFS pointer".into()),
            Self::Html => at("", None, "file", "a manifest".into(), "an HTML page".into()),
            Self::TooLarge { len, limit } => {
                at("", None, "file", format!("at most {limit} bytes"), format!("{len} bytes"))
            }
            Self::Json { line, column, what } => {
                at("", None, "file", "valid JSON".into(), format!("line {line}, column {column}: {what}"))
            }
            Self::Field { place, field, expected, found } => Details {
                shard: place.shard.clone(),
                tensor: place.tensor.clone(),
                field,
                expected: expected.clone(),
                found: found.clone(),
            },
            Self::TooMany { what, count, limit } => {
                at("", None, "records", format!("at most {limit} {what}"), format!("{count} or more"))
            }
            Self::UnsafePath { path, why } => at(
                "",
                None,
                "dataPath",
                "the name of a file in the folder".into(),
                format!("{}: {why}", quoted(path)),
            ),
            Self::DuplicateShard { shard, first, second } => at(
                shard,
                None,
                "dataPath",
                "each file once".into(),
                format!("records[{first}] and records[{second}]"),
            ),
            Self::DuplicateTensor { tensor, first, second } => at(
                second,
                Some(tensor),
                "name",
                "each name once".into(),
                format!("in {first} and in {second}"),
            ),
            Self::LegacyName { shard, tensor } => {
                at(shard, Some(tensor), "name", "a parameter's name".into(), tensor.clone())
            }
            Self::Presharded { shard, tensor } => {
                at(shard, Some(tensor), "name", "a whole tensor".into(), tensor.clone())
            }
            Self::Shape { shard, tensor, shape, why } => {
                at(shard, Some(tensor), "shape", (*why).into(), format!("{shape:?}"))
            }
            Self::WrongSize { shard, tensor, stated, needed, .. } => {
                at(shard, Some(tensor), "nbytes", needed.to_string(), stated.to_string())
            }
            Self::PastEnd { shard, tensor, offset, nbytes, shard_len } => at(
                shard,
                Some(tensor),
                "byteOffset",
                format!("byteOffset + nbytes at most {shard_len}"),
                format!("{offset} + {nbytes}"),
            ),
            Self::Overlap { shard, tensor, offset, other, other_end } => at(
                shard,
                Some(tensor),
                "byteOffset",
                format!("at least {other_end}, where {other} ends"),
                offset.to_string(),
            ),
            Self::Empty => at("", None, "records", "at least one tensor".into(), "none".into()),
        }
    }
}
