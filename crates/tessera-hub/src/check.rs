//! Whether an MLC folder's files are what its manifest says.

use crate::download::sniff;
use crate::kind::{Kind, file_names, kind_of};
use crate::mlc::{MANIFEST_LIMIT, ShardFile, shards_of};
use crate::{FileRecord, HashKind, HubError, Result};
use std::fs;
use std::path::Path;
use tessera_weights::files;

/// Compares every file of an MLC folder with the manifest: length and MD5 of each shard. Returns all
/// files of the folder with their digests.
pub fn check_folder(dir: &Path, manifest: &str) -> Result<Vec<FileRecord>> {
    let path = dir.join(manifest);
    sniff(&path, manifest)?;
    let bytes = files::need(&path, MANIFEST_LIMIT).map_err(HubError::io(&path))?;
    let shards = shards_of(manifest, &bytes)?;
    let mut records = Vec::new();
    for shard in &shards {
        let path = dir.join(&shard.name);
        let found = fs::metadata(&path).map_err(HubError::io(&path))?.len();
        if found != shard.bytes {
            sniff(&path, &shard.name)?;
            return Err(HubError::WrongSize { file: shard.name.clone(), expected: shard.bytes, found });
        }
        let digest = crate::hash_file(&path, HashKind::Md5)?;
        if let Some(expected) = &shard.md5
            && *expected != digest
        {
            return Err(HubError::WrongHash {
                file: shard.name.clone(),
                kind: digest.kind.name(),
                expected: expected.hex.clone(),
                found: digest.hex,
            });
        }
        let checked = shard.md5.is_some();
        records.push(FileRecord { name: shard.name.clone(), bytes: found, digest, checked });
    }
    records.extend(others(dir, &shards)?);
    Ok(records)
}

/// The digests of the files of a folder that its manifest states none of; the manifest's own among them, so that
/// all bytes of the folder hang on these.
pub(crate) fn beside_shards(dir: &Path) -> Result<Vec<FileRecord>> {
    let Kind::Mlc(manifest) = kind_of(dir)? else {
        return Err(HubError::NotAModel { path: dir.to_path_buf() });
    };
    let path = dir.join(manifest);
    let bytes = files::need(&path, MANIFEST_LIMIT).map_err(HubError::io(&path))?;
    let mut shards = shards_of(manifest, &bytes)?;
    shards.retain(|shard| shard.md5.is_some());
    others(dir, &shards)
}

/// The files of a folder that are none of these.
fn others(dir: &Path, shards: &[ShardFile]) -> Result<Vec<FileRecord>> {
    let mut records = Vec::new();
    for name in file_names(dir)? {
        if !shards.iter().any(|s| s.name == name) {
            let path = dir.join(&name);
            let bytes = fs::metadata(&path).map_err(HubError::io(&path))?.len();
            let digest = crate::hash_file(&path, HashKind::Sha256)?;
            records.push(FileRecord { name, bytes, digest, checked: false });
        }
    }
    Ok(records)
}
