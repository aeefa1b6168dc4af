//! A folder of this machine on its way into the store. It may come from anybody, so only regular files
//! inside it are copied: a link `notes.txt -> /etc/shadow` must not put that file into a model folder,
//! which people pass on.

use crate::kind::MANIFEST_NAMES;
use crate::mlc::{MANIFEST_LIMIT, SIDE_FILES, shards_of, tokenizer_files};
use crate::progress::Tally;
use crate::{HubError, RECORD_FILE, Result};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tessera_weights::embedding::POOLING;
use tessera_weights::files;

/// How many names one note gives.
const MAX_NAMES: usize = 8;

/// What may be copied of a folder, and what not.
struct Survey {
    files: Vec<Place>,
    /// Names with the reason.
    left_out: Vec<(String, String)>,
}

/// A file of the folder: its name, and where its bytes are.
struct Place {
    name: String,
    at: PathBuf,
    len: u64,
}

/// Copies what an MLC folder at `from` holds into the empty folder `to`.
pub(crate) fn copy_folder(from: &Path, manifest: &str, to: &Path, tally: &Tally<'_>) -> Result<()> {
    let survey = survey(from)?;
    let needed = needed_by_mlc(from, &survey, manifest)?;
    survey.refuse(from, |name| needed.iter().any(|n| n == name))?;
    if !survey.left_out.is_empty() {
        tally.note(&format!("not copied: {}", survey.listed()));
    }
    tally.set_total(survey.files.iter().fold(0, |sum, file| sum.saturating_add(file.len)));
    for file in &survey.files {
        copy_file(&file.at, &to.join(&file.name), file.len)?;
        tally.moved(&file.name, file.len as i64);
    }
    Ok(())
}

/// Fails if a file that a conversion of this folder reads is not inside of it.
pub(crate) fn only_inside(folder: &Path) -> Result<()> {
    survey(folder)?.refuse(folder, |name| {
        let lower = name.to_ascii_lowercase();
        let weights = [".safetensors", ".gguf", ".index.json"].iter().any(|end| lower.ends_with(end));
        weights || SIDE_FILES.contains(&name)
    })
}

/// Where a file of a folder is, and its length; `None` if it has none of this name.
pub(crate) fn find(folder: &Path, name: &str) -> Result<Option<(PathBuf, u64)>> {
    let survey = survey(folder)?;
    survey.refuse(folder, |n| n == name)?;
    Ok(survey.files.into_iter().find(|file| file.name == name).map(|file| (file.at, file.len)))
}

impl Survey {
    fn refuse(&self, folder: &Path, needed: impl Fn(&str) -> bool) -> Result<()> {
        match self.left_out.iter().find(|(name, _)| needed(name)) {
            Some((name, why)) => Err(HubError::NotInside { path: folder.join(name), why: why.clone() }),
            None => Ok(()),
        }
    }

    fn listed(&self) -> String {
        let shown = self.left_out.iter().take(MAX_NAMES).map(|(name, why)| format!("{name} ({why})"));
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if let Some(more) = self.left_out.len().checked_sub(MAX_NAMES).filter(|&n| n > 0) {
            text += &format!(" and {more} more");
        }
        text
    }
}

/// The names that readers of the folder look for.
fn needed_by_mlc(folder: &Path, survey: &Survey, manifest: &str) -> Result<Vec<String>> {
    let mut needed: Vec<String> = SIDE_FILES.iter().chain(&MANIFEST_NAMES).map(|n| n.to_string()).collect();
    survey.refuse(folder, |name| needed.iter().any(|n| n == name))?;
    let found = |name: &str| survey.files.iter().find(|f| f.name == name);
    if let Some(file) = found(manifest) {
        crate::download::sniff(&file.at, manifest)?;
        let bytes = files::need(&file.at, MANIFEST_LIMIT).map_err(HubError::io(&file.at))?;
        needed.extend(shards_of(manifest, &bytes)?.into_iter().map(|shard| shard.name));
    }
    if let Some(config) = found("mlc-chat-config.json") {
        needed.extend(tokenizer_files(&config.at)?);
    }
    Ok(needed)
}

fn survey(folder: &Path) -> Result<Survey> {
    let folder = fs::canonicalize(folder).map_err(HubError::io(folder))?;
    let blobs = blobs_of(&folder);
    let mut survey = Survey { files: Vec::new(), left_out: Vec::new() };
    for entry in fs::read_dir(&folder).map_err(HubError::io(&folder))? {
        let entry = entry.map_err(HubError::io(&folder))?;
        let mut path = entry.path();
        let mut name = match entry.file_name().into_string() {
            Ok(name) if name == RECORD_FILE => continue,
            Ok(name) => name,
            Err(name) => {
                survey.left_out.push((name.to_string_lossy().into_owned(), "not a UTF-8 name".into()));
                continue;
            }
        };
        let inside = |at: &Path| at.starts_with(&folder) || blobs.as_ref().is_some_and(|b| at.starts_with(b));
        let mut linked = entry.file_type().map_err(HubError::io(&path))?.is_symlink();
        if POOLING.strip_suffix("/config.json") == Some(&name) && dir_has(&path, "config.json") {
            // The one file in a folder of a folder that matters; links on the way to it count, too.
            (name, path, linked) = (POOLING.to_owned(), folder.join(POOLING), true);
        }
        let place = if name.starts_with('.') {
            Err("hidden".to_string())
        } else if linked {
            match fs::canonicalize(&path) {
                Err(e) => Err(format!("a link that leads nowhere: {e}")),
                Ok(at) if inside(&at) => Ok(at),
                Ok(at) => Err(format!("a link to {}, outside of the folder", at.display())),
            }
        } else {
            Ok(path.clone())
        };
        match place.and_then(|at| regular(&at).map(|len| (at, len))) {
            Ok((at, len)) => survey.files.push(Place { name, at, len }),
            Err(why) => survey.left_out.push((name, why)),
        }
    }
    survey.files.sort_by(|a, b| a.name.cmp(&b.name));
    survey.left_out.sort();
    Ok(survey)
}

fn dir_has(path: &Path, name: &str) -> bool {
    fs::symlink_metadata(path.join(name)).is_ok()
}

/// A folder of the Hugging Face cache, `models--ORG--NAME/snapshots/COMMIT`, is made of links into
/// `models--ORG--NAME/blobs`, which belongs to the same model and is therefore inside.
fn blobs_of(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"))?;
    let model = snapshots.parent()?;
    model.file_name()?.to_str()?.starts_with("models--").then(|| model.join("blobs"))
}

/// The length of a regular file; anything else may have no end.
fn regular(path: &Path) -> Result<u64, String> {
    let meta = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    match meta.file_type() {
        kind if kind.is_file() => Ok(meta.len()),
        kind if kind.is_dir() => Err("a folder".into()),
        _ => Err("not a regular file".into()),
    }
}

/// Copies exactly `len` bytes, which are those that the survey saw.
fn copy_file(from: &Path, to: &Path, len: u64) -> Result<()> {
    let failed = |source| HubError::Copy { from: from.to_path_buf(), to: to.to_path_buf(), source };
    let file = files::open(from).map_err(HubError::io(from))?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(HubError::io(folder))?;
    }
    let mut copy = File::create_new(to).map_err(HubError::io(to))?;
    // On Linux this shares the blocks where the file system can.
    let found = io::copy(&mut file.take(len), &mut copy).map_err(failed)?;
    if found != len {
        return Err(HubError::WrongSize { file: from.display().to_string(), expected: len, found });
    }
    Ok(())
}
