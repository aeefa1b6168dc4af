//! Whether the files of a folder are still those that it was installed with, by its record. Shards whose MD5
//! the manifest states are left to who reads the manifest.

use crate::hash::Digest;
use crate::kind::{MANIFEST_NAMES, RECORD_FILE};
use crate::mlc::{MANIFEST_LIMIT, shards_of};
use crate::{FileRecord, HashKind, HubError, Result, SourceRecord};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tessera_weights::embedding::POOLING;
use tessera_weights::files;

/// A file that is not what was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Altered {
    /// Its name in the folder.
    pub name: String,
    /// What was installed.
    pub expected: FileRecord,
    /// Length and digest of what is here; `None` if there is no such file.
    pub found: Option<(u64, Digest)>,
    /// Whether the user had said that an edit of it is meant, and it is another one now.
    pub was_edited: bool,
}

impl Altered {
    /// All of it in a sentence.
    pub fn message(&self) -> String {
        let Altered { name, expected, found, was_edited } = self;
        let since = if *was_edited { "was accepted as edited" } else { "was installed" };
        match found {
            None => format!("{name} is missing: it {since} with {} bytes", expected.bytes),
            Some((bytes, _)) if *bytes != expected.bytes => {
                format!("{name} has {bytes} bytes, it {since} with {}", expected.bytes)
            }
            Some((_, digest)) => format!("{name}: {digest}, it {since} with {}", expected.digest),
        }
    }
}

/// What of a folder is no longer as its record says, edits apart that the user has accepted.
pub fn altered(dir: &Path, record: &SourceRecord) -> Result<Vec<Altered>> {
    let stated = stated_by_manifest(dir);
    let mut altered = Vec::new();
    for installed in record.installed() {
        let name = &installed.name;
        let known = Digest::parse(installed.digest.kind, &installed.digest.hex);
        let (Ok(()), Some(_)) = (allowed(name), known) else {
            return Err(HubError::BadManifest {
                file: RECORD_FILE.to_string(),
                why: format!("{name:?} with {:?} is no file of a folder", installed.digest.hex),
            });
        };
        // MD5 is what manifests state; one that cannot be read says that itself.
        if installed.digest.kind == HashKind::Md5 && stated.as_ref().is_none_or(|s| s.contains(name)) {
            continue;
        }
        let edit = record.edited.iter().find(|f| f.name == *name);
        let expected = edit.unwrap_or(installed);
        let found = look(dir, expected)?;
        if found.as_ref().is_none_or(|(bytes, digest)| (*bytes, digest) != (expected.bytes, &expected.digest))
            // An edit that was undone is none.
            && (edit.is_none() || look(dir, installed)? != Some((installed.bytes, installed.digest.clone())))
        {
            let (name, expected) = (name.clone(), expected.clone());
            altered.push(Altered { name, expected, found, was_edited: edit.is_some() });
        }
    }
    Ok(altered)
}

/// Notes that files of a folder were changed on purpose, as they are now.
pub fn accept(dir: &Path, names: &[String]) -> Result<()> {
    let refused =
        |name: &str, why: &str| HubError::BadManifest { file: name.to_string(), why: why.to_string() };
    let Some(mut record) = SourceRecord::open(dir)? else {
        return Err(refused(RECORD_FILE, "there is none here, so no digest has to be accepted"));
    };
    let stated = stated_by_manifest(dir).unwrap_or_default();
    for name in names {
        if MANIFEST_NAMES.contains(&name.as_str()) || stated.contains(name) {
            return Err(refused(name, "the weights are not edited; `tessera repair` brings the file back"));
        }
        let Some(installed) = record.installed().iter().find(|f| f.name == *name) else {
            return Err(refused(name, "it was not installed, so nothing is compared with it"));
        };
        allowed(name).map_err(|why| refused(name, why))?;
        let now = FileRecord { checked: false, ..installed.clone() };
        let Some((bytes, digest)) = look(dir, &now)? else {
            return Err(refused(name, "it is missing; `tessera repair` brings the file back"));
        };
        record.edited.retain(|f| f.name != *name);
        if (bytes, &digest) != (now.bytes, &now.digest) {
            record.edited.push(FileRecord { bytes, digest, ..now });
        }
    }
    record.write(dir)
}

/// Forgets that these files were edited.
pub(crate) fn unaccept(dir: &Path, name: &str) -> Result<()> {
    if let Some(mut record) = SourceRecord::open(dir)?
        && record.edited.iter().any(|f| f.name == name)
    {
        record.edited.retain(|f| f.name != name);
        record.write(dir)?;
    }
    Ok(())
}

/// Length and digest of a file, by the function of a recorded one.
fn look(dir: &Path, like: &FileRecord) -> Result<Option<(u64, Digest)>> {
    let path = dir.join(&like.name);
    let bytes = match fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(HubError::io(&path)(e)),
    };
    Ok(Some((bytes, crate::hash_file(&path, like.digest.kind)?)))
}

/// Shards with an MD5 in the manifest; `None` if it cannot be read.
fn stated_by_manifest(dir: &Path) -> Option<HashSet<String>> {
    let name = MANIFEST_NAMES.iter().find(|name| dir.join(name).is_file())?;
    let bytes = files::need(&dir.join(name), MANIFEST_LIMIT).ok()?;
    let shards = shards_of(name, &bytes).ok()?;
    Some(shards.into_iter().filter(|s| s.md5.is_some()).map(|s| s.name).collect())
}

/// Names come from a file that anybody may have written. Those of a copied folder need not be plain on every
/// platform, but lead nowhere else.
pub(crate) fn allowed(name: &str) -> Result<(), &'static str> {
    let one = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0']);
    if name == POOLING || one { Ok(()) } else { Err("it leads out of the folder") }
}
