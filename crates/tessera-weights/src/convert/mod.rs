//! Writing MLC folders: any [`TensorSource`] to shards and manifests that equal MLC's own byte for byte.
//!
//! [`Plan`] decides everything from names and shapes (which tensor, in which order, in which shard);
//! [`convert`] then reads, quantises and writes one parameter at a time. A dry run is the plan alone.

#[cfg(feature = "fs")]
mod copy;
#[cfg(feature = "fs")]
mod exact;
mod layout;
mod mlc;
mod plan;
#[cfg(feature = "fs")]
mod rounding;
#[cfg(feature = "fs")]
mod run;
#[cfg(feature = "fs")]
mod staging;
#[cfg(feature = "fs")]
mod values;
mod write;

#[cfg(feature = "fs")]
pub use copy::copy_folder;
pub use layout::{Record, Shard, pack};
pub use mlc::MlcSource;
pub use plan::{Plan, plan_manifest};
#[cfg(feature = "fs")]
pub use rounding::{Found, Loss, Rounding};
#[cfg(feature = "fs")]
pub use run::convert;
#[cfg(feature = "fs")]
pub use staging::Staging;
#[cfg(feature = "fs")]
pub(crate) use values::source_row;
pub use write::{Flavour, Metadata, shard_name};

#[allow(unused_imports)] // named in the documentation above
use crate::source::{SourceError, TensorSource};
use std::ops::ControlFlow;

/// Largest shard of MLC's converter, in bytes; a single tensor may be larger.
pub const SHARD_CAP: u64 = 32 << 20;

/// What the manifest's file is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestName {
    /// `ndarray-cache.json`: before 2025-09.
    NdarrayCache,
    /// `tensor-cache.json`: what current engines look for.
    #[default]
    TensorCache,
}

impl ManifestName {
    /// The file's name.
    pub fn file(self) -> &'static str {
        match self {
            ManifestName::NdarrayCache => "ndarray-cache.json",
            ManifestName::TensorCache => "tensor-cache.json",
        }
    }

    /// The name of the second manifest, which states float32 tensors as bfloat16.
    pub fn b16_file(self) -> &'static str {
        match self {
            ManifestName::NdarrayCache => "ndarray-cache-b16.json",
            ManifestName::TensorCache => "tensor-cache-b16.json",
        }
    }
}

/// Whose names the source's tensors have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceNames {
    /// Those of the Hugging Face checkpoint: parts are fused on the way.
    #[default]
    Hf,
    /// MLC's own, each tensor whole and unquantised: an MLC folder, decoded.
    Mlc,
}

/// How far a conversion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes written.
    pub done: u64,
    /// Bytes that all shards will have.
    pub total: u64,
    /// The parameter that comes next, empty at the end.
    pub tensor: &'a str,
}

/// Told of progress before each parameter; may stop the conversion.
pub type OnProgress<'a> = &'a dyn Fn(&Progress<'_>) -> ControlFlow<()>;

/// Settings of a conversion.
#[derive(Clone, Copy)]
pub struct ConvertOptions<'a> {
    /// A shard stays below this many bytes unless one tensor alone is larger.
    pub shard_cap: u64,
    /// The manifest's name.
    pub manifest_name: ManifestName,
    /// Whose names the source has.
    pub names: SourceNames,
    /// Goes on although the checkpoint holds tensors that the architecture has no place for; they are
    /// listed in the report.
    pub allow_unused: bool,
    /// Keeps unquantised float32 values whole; MLC stores their upper 16 bits. Both are what MLC's readers read.
    pub whole_f32: bool,
    /// How codes are chosen.
    #[cfg(feature = "fs")]
    pub rounding: Rounding<'a>,
    /// Told of progress.
    pub progress: Option<OnProgress<'a>>,
}

impl Default for ConvertOptions<'_> {
    fn default() -> Self {
        ConvertOptions {
            shard_cap: SHARD_CAP,
            manifest_name: ManifestName::default(),
            names: SourceNames::default(),
            allow_unused: false,
            whole_f32: false,
            #[cfg(feature = "fs")]
            rounding: Rounding::default(),
            progress: None,
        }
    }
}

/// What a conversion did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertReport {
    /// Shards written.
    pub shards: usize,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Parameters that hold a NaN or an infinity after conversion.
    pub non_finite: Vec<String>,
    /// Parameters that are quantised.
    pub quantised: usize,
    /// Those of them that have the source's own codes and scales, and so exactly its values.
    pub exact: usize,
    /// Parameters whose float32 values were rounded to their upper 16 bits and are not what they were.
    pub rounded: usize,
    /// What rounding did to each quantised parameter, where codes were not chosen as MLC does.
    #[cfg(feature = "fs")]
    pub losses: Vec<Loss>,
    /// Tensors of the checkpoint that no parameter is made from.
    pub unused: Vec<String>,
    /// Unfinished folders of killed conversions to the same place, which were removed.
    pub removed: Vec<String>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The checkpoint lacks a tensor.
    #[error("{param} needs tensor {tensor}, which {file} does not hold")]
    MissingTensor {
        /// The parameter to be made.
        param: String,
        /// The tensor that it needs.
        tensor: String,
        /// The file, or files, that were searched.
        file: String,
    },
    /// A head that would be left out for the embedding, and is another.
    #[error(
        "{file}: {different} of the {values} values of lm_head.weight are not those of {embedding}, which the config \
         ties it to (tie_word_embeddings)"
    )]
    OtherHead {
        /// The head's file.
        file: String,
        /// The embedding.
        embedding: String,
        /// Values that differ.
        different: usize,
        /// Values in all.
        values: usize,
    },
    /// A tensor's shape is not the architecture's.
    #[error("{file}: tensor {tensor} has shape {found:?}, expected {expected:?}")]
    WrongShape {
        /// The file that holds it.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape that the config asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// Two tensors have one name.
    #[error("tensor {tensor} is in the checkpoint twice, in {first} and in {second}")]
    Twice {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// The checkpoint holds tensors that the model would silently lack.
    #[error("{file}: {count} tensor(s) have no place in this architecture, the first is {tensor}")]
    Unused {
        /// The file that holds the first.
        file: String,
        /// How many.
        count: usize,
        /// The first.
        tensor: String,
    },
    /// The sizes of a tensor do not fit the format.
    #[error("tensor {tensor} makes its shard larger than a file can be")]
    TooLarge {
        /// The tensor.
        tensor: String,
    },
    /// Shards of zero bytes were asked for.
    #[error("shard size is {found} bytes, expected at least 1")]
    BadCap {
        /// The value.
        found: u64,
    },
    /// A tensor could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The destination holds something.
    #[error("{path} is there already and is not an empty folder")]
    Exists {
        /// The destination.
        path: String,
    },
    /// An extra file's name is a path, or is one that the folder needs for itself.
    #[error("{name:?} cannot be a file of the folder: expected a plain name that no shard or manifest has")]
    BadExtraName {
        /// The name.
        name: String,
    },
    /// A shard that was to be copied is not what its manifest says.
    #[error("{file}: {field} is {found}, expected {expected}; fetch this shard again")]
    WrongShard {
        /// The shard.
        file: String,
        /// `md5sum` or `nbytes`.
        field: &'static str,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The operating system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The progress callback asked to stop.
    #[error("stopped before {tensor}; nothing was written")]
    Stopped {
        /// The parameter that would have come next.
        tensor: String,
    },
}
