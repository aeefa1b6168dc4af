//! A folder's tensors by name: the manifest joined with its shards.
//!
//! Opening checks everything but the values: manifest, presence and exact length of every shard. From
//! then on a [`Tensor`] is a view into a mapped file. Values are looked at by [`crate::verify`].

mod error;
mod form;
mod infer;
mod matrix;
#[cfg(feature = "fs")]
mod open;

pub use error::FolderError;
pub use form::Shape;
#[cfg(feature = "fs")]
pub(crate) use infer::infer_from;
pub use infer::infer_scheme;
#[cfg(feature = "fs")]
pub(crate) use open::{locate, map_shard, read_manifest};

use crate::bytes::Bytes;
use crate::manifest::{Disguise, Manifest, Record, Shard};
use crate::tensor::Tensor;
use std::path::{Path, PathBuf};

/// The manifest's name where it has no file.
const PARTS: &str = "manifest";

/// An opened folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    manifest_name: String,
    manifest: Manifest,
    /// In the order of the manifest's records.
    tensors: Vec<Tensor>,
}

impl Folder {
    /// A folder from bytes at hand: the manifest's text and, for each shard that it lists, the shard's
    /// bytes. This is the way in where there is no file system.
    pub fn from_parts(
        manifest: &[u8],
        shard: impl FnMut(&Shard) -> Option<Bytes>,
    ) -> Result<Folder, FolderError> {
        let manifest = Manifest::parse(manifest)
            .map_err(|source| FolderError::Manifest { file: PARTS.to_owned(), source: Box::new(source) })?;
        Folder::from_manifest(manifest, shard)
    }

    /// The same where the manifest was parsed before.
    pub fn from_manifest(
        manifest: Manifest,
        shard: impl FnMut(&Shard) -> Option<Bytes>,
    ) -> Result<Folder, FolderError> {
        let found: Vec<Option<Bytes>> = manifest.shards().iter().map(shard).collect();
        Folder::assemble(PathBuf::new(), PARTS.to_owned(), manifest, found)
    }

    /// Joins a manifest with its shards, `None` for one that is missing.
    pub(crate) fn assemble(
        path: PathBuf,
        manifest_name: String,
        manifest: Manifest,
        shards: Vec<Option<Bytes>>,
    ) -> Result<Folder, FolderError> {
        let total = shards.len();
        let missing: Vec<usize> = (0..total).filter(|&i| shards[i].is_none()).collect();
        if let Some(&first) = missing.first() {
            return Err(FolderError::MissingShard {
                shard: manifest.shards()[first].path.clone(),
                missing: missing.len(),
                total,
            });
        }
        let shards: Vec<Bytes> = shards.into_iter().flatten().collect();
        for (shard, bytes) in manifest.shards().iter().zip(&shards) {
            check_shard(shard, bytes)?;
        }
        let tensors = manifest.records().iter().map(|record| tensor(record, &shards[record.shard])).collect();
        Ok(Folder { path, manifest_name, manifest, tensors })
    }

    /// The folder; empty if it was made from parts.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File name of the manifest that was read.
    pub fn manifest_name(&self) -> &str {
        &self.manifest_name
    }

    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All tensors, in the manifest's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.manifest.position(name).map(|i| &self.tensors[i])
    }

    /// The shards' bytes, those that have tensors.
    pub fn shards(&self) -> Vec<Bytes> {
        // Tensors of a shard follow each other.
        let mut shards: Vec<Bytes> = Vec::new();
        for tensor in &self.tensors {
            if shards.last().is_none_or(|last| !last.same_owner(&tensor.bytes)) {
                shards.push(tensor.bytes.clone());
            }
        }
        shards
    }

    /// The shards' files, in the manifest's order.
    pub fn shard_paths(&self) -> impl ExactSizeIterator<Item = PathBuf> {
        self.manifest.shards().iter().map(|shard| self.path.join(&shard.path))
    }

    /// Bytes of all shards.
    pub fn stored_len(&self) -> u64 {
        self.manifest.stored_len()
    }

    /// Bytes of all tensors in their in-memory types, which for f32 is twice what is stored.
    pub fn memory_len(&self) -> u64 {
        self.manifest.memory_len()
    }
}

/// Compares a shard's bytes with what the manifest says of their length.
pub(crate) fn check_shard(shard: &Shard, bytes: &[u8]) -> Result<(), FolderError> {
    let (name, found, expected) = (shard.path.clone(), bytes.len() as u64, shard.nbytes);
    if found == expected {
        return Ok(());
    }
    Err(match Disguise::of(bytes) {
        Some(Disguise::LfsPointer) => FolderError::LfsPointer { shard: name, found, expected },
        Some(Disguise::Html) => FolderError::Html { shard: name, found, expected },
        None if found < expected => FolderError::TruncatedShard { shard: name, found, expected },
        None => FolderError::LongShard { shard: name, found, expected },
    })
}

/// A record's view of its shard, whose length was checked.
pub(crate) fn tensor(record: &Record, shard: &Bytes) -> Tensor {
    let range = record.range();
    let bytes = shard
        .slice(range.start as usize..range.end as usize)
        .expect("the manifest's records lie inside their shards, and the shard has its length");
    Tensor {
        name: record.name.clone(),
        shape: record.shape.clone(),
        dtype: record.dtype,
        encoding: record.encoding,
        bytes,
    }
}
