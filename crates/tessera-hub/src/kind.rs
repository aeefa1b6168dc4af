//! What kind of model a path holds, by names only, and the plain files of a folder.

use crate::{HubError, Result};
use std::fs;
use std::path::{Path, PathBuf};
use tessera_weights::embedding::POOLING;
use tessera_weights::manifest;

/// The manifest's names, newest first.
pub const MANIFEST_NAMES: [&str; 2] = ["tensor-cache.json", "ndarray-cache.json"];

/// The record of an installed model, inside its folder.
pub const RECORD_FILE: &str = "tessera-source.json";

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
    // A `b16` manifest beside no other describes the whole model.
    if let Some(name) = manifest::MANIFEST_NAMES.iter().find(|name| path.join(name).is_file()) {
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
    // The first of a model that was cut into parts leads to the others.
    if gguf.len() > 1 {
        let first = |file: &PathBuf| file.to_str().is_some_and(|name| name.contains("-00001-of-"));
        gguf.retain(first);
    }
    match gguf.len() {
        1 => Ok(Kind::Gguf(gguf.remove(0))),
        _ => Err(not_a_model()),
    }
}

/// The plain, visible files of a folder, sorted; of those in folders only the one that matters.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(HubError::io(dir))? {
        let entry = entry.map_err(HubError::io(dir))?;
        // Links are followed: what the user put into a folder of the store is the user's.
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_file())
            && !name.starts_with('.')
            && name != RECORD_FILE
        {
            names.push(name);
        }
    }
    if dir.join(POOLING).is_file() {
        names.push(POOLING.to_string());
    }
    names.sort();
    Ok(names)
}
