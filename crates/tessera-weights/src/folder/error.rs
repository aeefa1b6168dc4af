//! The ways in which a folder can be wrong.

use crate::manifest::ManifestError;

/// A folder that cannot be opened, or a tensor that it does not have as asked.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nothing is there.
    #[error("{path}: no such file or folder")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// A folder without a manifest, and nothing that says why.
    #[error("{path}: no manifest; an MLC folder has a tensor-cache.json or an ndarray-cache.json")]
    NoManifest {
        /// The folder.
        path: String,
    },
    /// Shards without a manifest.
    #[error(
        "{path}: {shards} params_shard_*.bin but no manifest; it is written last, so the conversion was \
         interrupted: convert again, or fetch the manifest"
    )]
    InterruptedConversion {
        /// The folder.
        path: String,
        /// How many shards there are.
        shards: usize,
    },
    /// A Hugging Face checkpoint.
    #[error(
        "{path}: a Hugging Face checkpoint ({found}), not an MLC folder; convert it: tessera convert {path} DST --quant Q"
    )]
    HuggingFace {
        /// The folder or file.
        path: String,
        /// The file that gave it away.
        found: String,
    },
    /// A GGUF file.
    #[error("{path}: a GGUF file, not an MLC folder; convert it: tessera convert {path} DST --quant Q")]
    Gguf {
        /// The file.
        path: String,
    },
    /// A file of another name.
    #[error("{path}: not a manifest; give the folder, or its tensor-cache.json or ndarray-cache.json")]
    NotAManifest {
        /// The file.
        path: String,
    },
    /// Both names of the manifest are there and disagree.
    #[error(
        "{path}: {first} and {second} describe different tensors; name the one to open, or remove the stale one"
    )]
    ManifestsDiffer {
        /// The folder.
        path: String,
        /// The newer name.
        first: &'static str,
        /// The older name.
        second: &'static str,
    },
    /// The manifest is refused.
    #[error("{file}: {source}")]
    Manifest {
        /// The manifest's file name.
        file: String,
        /// Why.
        source: Box<ManifestError>,
    },
    /// A shard that is not there.
    #[error("shard {shard} is missing ({missing} of {total} shards are)")]
    MissingShard {
        /// The first one that is missing.
        shard: String,
        /// How many are.
        missing: usize,
        /// How many the manifest lists.
        total: usize,
    },
    /// A pointer in a shard's place.
    #[error(
        "shard {shard} is a git-LFS pointer of {found} bytes in place of {expected}; fetch it with `git lfs pull`"
    )]
    LfsPointer {
        /// The shard.
        shard: String,
        /// Its length.
        found: u64,
        /// Its length by the manifest.
        expected: u64,
    },
    /// A web page in a shard's place.
    #[error(
        "shard {shard} is an HTML page of {found} bytes in place of {expected}: the server answered with an \
         error page; fetch it again"
    )]
    Html {
        /// The shard.
        shard: String,
        /// Its length.
        found: u64,
        /// Its length by the manifest.
        expected: u64,
    },
    /// A shard that is too short.
    #[error("shard {shard} has {found} bytes, the manifest says {expected}: an interrupted download")]
    TruncatedShard {
        /// The shard.
        shard: String,
        /// Its length.
        found: u64,
        /// Its length by the manifest.
        expected: u64,
    },
    /// A shard that is too long.
    #[error("shard {shard} has {found} bytes, the manifest says {expected}: it belongs to another manifest")]
    LongShard {
        /// The shard.
        shard: String,
        /// Its length.
        found: u64,
        /// Its length by the manifest.
        expected: u64,
    },
    /// A tensor that was asked for and is not there.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// The name, or the names, that would have done.
        tensor: String,
    },
    /// A tensor of an unexpected type.
    #[error("tensor {tensor}: expected dtype {expected}, found {found}")]
    WrongDType {
        /// The tensor.
        tensor: String,
        /// What would be accepted.
        expected: String,
        /// Its dtype.
        found: String,
    },
    /// A tensor of an unexpected shape.
    #[error("tensor {tensor}: expected shape {expected:?}, found {found:?}{hint}")]
    WrongShape {
        /// The tensor.
        tensor: String,
        /// The shape that is needed.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
        /// What probably happened, or nothing; starts with `; `.
        hint: &'static str,
    },
    /// `q_weight` and `q_scale` have changed places.
    #[error(
        "tensors {weight} ({weight_is}) and {scale} ({scale_is}) are swapped: codes are uint32, scales float"
    )]
    Swapped {
        /// Name of the codes.
        weight: String,
        /// What is there.
        weight_is: String,
        /// Name of the scales.
        scale: String,
        /// What is there.
        scale_is: String,
    },
    /// A matrix in a form that the scheme does not have.
    #[error("weight {base}: {what}")]
    WrongForm {
        /// Name without `.weight` or `.q_weight`.
        base: String,
        /// What is there, and what was expected.
        what: String,
    },
    /// The quantisation scheme could not be told from the tensors.
    #[error("the quantisation cannot be told from the tensors: {what}")]
    UnknownScheme {
        /// What is missing or ambiguous.
        what: String,
    },
}

impl FolderError {
    /// The file that the error is about, if it is about one.
    pub fn file(&self) -> Option<&str> {
        match self {
            FolderError::Io { file, .. } | FolderError::Manifest { file, .. } => Some(file),
            FolderError::MissingShard { shard, .. }
            | FolderError::LfsPointer { shard, .. }
            | FolderError::Html { shard, .. }
            | FolderError::TruncatedShard { shard, .. }
            | FolderError::LongShard { shard, .. } => Some(shard),
            FolderError::NotFound { path }
            | FolderError::NoManifest { path }
            | FolderError::InterruptedConversion { path, .. }
            | FolderError::HuggingFace { path, .. }
            | FolderError::Gguf { path }
            | FolderError::NotAManifest { path }
            | FolderError::ManifestsDiffer { path, .. } => Some(path),
            _ => None,
        }
    }
}
