//! Finding a folder's manifest and mapping its shards.

use super::{Folder, FolderError};
use crate::bytes::Bytes;
use crate::files;
use crate::manifest::{MANIFEST_NAMES, MAX_MANIFEST_LEN, Manifest, ManifestError, Shard};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

impl Folder {
    /// Opens a folder, or the one that a manifest file lies in. Shards are mapped, not read.
    ///
    /// In a folder `tensor-cache.json` is preferred; if `ndarray-cache.json` is there too and describes
    /// other tensors, that is an error. A `b16` manifest is taken only when named or alone.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder, FolderError> {
        let located = locate(path.as_ref())?;
        let manifest = read_manifest(&located)?;
        let mut shards = Vec::with_capacity(manifest.shards().len());
        for shard in manifest.shards() {
            shards.push(map_shard(&located.folder, shard)?);
        }
        Folder::assemble(located.folder, located.manifest, manifest, shards)
    }
}

/// A folder and the name of its manifest.
pub(crate) struct Located {
    pub folder: PathBuf,
    pub manifest: String,
    /// The manifest's older name, if it is there as well.
    pub twin: Option<&'static str>,
}

/// Finds the manifest of a folder, or says what lies there in its place.
pub(crate) fn locate(path: &Path) -> Result<Located, FolderError> {
    let shown = path.display().to_string();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(FolderError::NotFound { path: shown }),
        Err(source) => return Err(FolderError::Io { file: shown, source }),
    };
    if !meta.is_dir() {
        return locate_file(path, shown);
    }
    let present: Vec<&'static str> =
        MANIFEST_NAMES.iter().copied().filter(|name| path.join(name).is_file()).collect();
    let Some(&first) = present.first() else { return Err(no_manifest(path, shown)) };
    let twin = (present.starts_with(&MANIFEST_NAMES[..2])).then_some(MANIFEST_NAMES[1]);
    Ok(Located { folder: path.to_owned(), manifest: first.to_owned(), twin })
}

fn locate_file(path: &Path, shown: String) -> Result<Located, FolderError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if MANIFEST_NAMES.contains(&name) {
        // A relative name alone has the empty parent, which is the current folder.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok(Located { folder: folder.to_owned(), manifest: name.to_owned(), twin: None });
    }
    if files::starts_with(path, b"GGUF") {
        return Err(FolderError::Gguf { path: shown });
    }
    if name.ends_with(".safetensors") || name == "config.json" || name.ends_with(".safetensors.index.json") {
        return Err(FolderError::HuggingFace { path: shown, found: name.to_owned() });
    }
    Err(FolderError::NotAManifest { path: shown })
}

/// What a folder without a manifest is instead.
fn no_manifest(path: &Path, shown: String) -> FolderError {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(source) => return FolderError::Io { file: shown, source },
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let is_shard = |n: &&String| n.starts_with("params_shard_") && n.ends_with(".bin");
    let shards = names.iter().filter(is_shard).count();
    if shards > 0 {
        return FolderError::InterruptedConversion { path: shown, shards };
    }
    let weights = |n: &&String| n.ends_with(".safetensors") || n.starts_with("pytorch_model");
    let found = names.iter().find(weights).or_else(|| names.iter().find(|n| *n == "config.json"));
    if let Some(found) = found {
        return FolderError::HuggingFace { path: shown, found: found.clone() };
    }
    match names.iter().find(|n| n.ends_with(".gguf")) {
        Some(found) => FolderError::Gguf { path: path.join(found).display().to_string() },
        None => FolderError::NoManifest { path: shown },
    }
}

/// Reads and parses the manifest, and its twin if there is one.
pub(crate) fn read_manifest(located: &Located) -> Result<Manifest, FolderError> {
    let manifest = parse_file(&located.folder, &located.manifest)?;
    if let Some(twin) = located.twin
        && !manifest.same_content(&parse_file(&located.folder, twin)?)
    {
        let path = located.folder.display().to_string();
        return Err(FolderError::ManifestsDiffer { path, first: MANIFEST_NAMES[0], second: twin });
    }
    Ok(manifest)
}

fn parse_file(folder: &Path, name: &str) -> Result<Manifest, FolderError> {
    let path = folder.join(name);
    let io = |source| FolderError::Io { file: path.display().to_string(), source };
    let refused = |source| FolderError::Manifest { file: name.to_owned(), source: Box::new(source) };
    let file = files::open(&path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    if len > MAX_MANIFEST_LEN {
        return Err(refused(ManifestError::TooLarge { len, limit: MAX_MANIFEST_LEN }));
    }
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_LEN + 1).read_to_end(&mut bytes).map_err(io)?;
    Manifest::parse(&bytes).map_err(refused)
}

/// Maps a shard's file; `None` if there is none. Its length is not looked at.
pub(crate) fn map_shard(folder: &Path, shard: &Shard) -> Result<Option<Bytes>, FolderError> {
    let path = folder.join(&shard.path);
    let io = |source| FolderError::Io { file: shard.path.clone(), source };
    match files::open(&path) {
        Ok(file) => Bytes::map(&file, &path).map(Some).map_err(io),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io(source)),
    }
}
