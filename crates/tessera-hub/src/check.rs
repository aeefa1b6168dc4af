//! What kind of model a folder holds, and whether an MLC folder's files are what its manifest says.

use crate::download::sniff;
use crate::mlc::{MANIFEST_LIMIT, MANIFEST_NAMES, shards_of};
use crate::{FileRecord, HashKind, HubError, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An MLC folder, with the name of its manifest.
    Mlc(&'static str),
    /// A Hugging Face checkpoint: `config.json` and safetensors.
    Checkpoint,
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Looks at names only; nothing is opened.
pub fn kind_of(path: &Path) -> Result<Kind> {
    let meta = fs::metadata(path).map_err(HubError::io(path))?;
    let not_a_model = || HubError::NotAModel { path: path.to_path_buf() };
    if meta.is_file() {
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        return if is_gguf { Ok(Kind::Gguf(path.to_path_buf())) } else { Err(not_a_model()) };
    }
    if let Some(name) = MANIFEST_NAMES.into_iter().find(|name| path.join(name).is_file()) {
        return Ok(Kind::Mlc(name));
    }
    let mut gguf = Vec::new();
    let mut safetensors = false;
    for entry in fs::read_dir(path).map_err(HubError::io(path))? {
        let file = entry.map_err(HubError::io(path))?.path();
        match file.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("gguf") => gguf.push(file),
            Some("safetensors") => safetensors = true,
            _ => {}
        }
    }
    if safetensors && path.join("config.json").is_file() {
        return Ok(Kind::Checkpoint);
    }
    match gguf.len() {
        1 => Ok(Kind::Gguf(gguf.remove(0))),
        _ => Err(not_a_model()),
    }
}

/// Compares every file of an MLC folder with the manifest: length and MD5 of each shard. Returns all
/// files of the folder with their digests.
pub fn check_folder(dir: &Path, manifest: &str) -> Result<Vec<FileRecord>> {
    let path = dir.join(manifest);
    let len = fs::metadata(&path).map_err(HubError::io(&path))?.len();
    if len > MANIFEST_LIMIT {
        return Err(HubError::TooLarge { file: path.display().to_string(), limit: MANIFEST_LIMIT });
    }
    sniff(&path, manifest)?;
    let bytes = fs::read(&path).map_err(HubError::io(&path))?;
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

/// The plain, visible files of a folder, sorted.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(HubError::io(dir))? {
        let entry = entry.map_err(HubError::io(dir))?;
        // Links are followed: the hub's own cache is made of them.
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_file())
            && !name.starts_with('.')
            && name != crate::RECORD_FILE
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
