//! What is wrong with a folder: its bytes, and whether a model would run from it.

use crate::checkpoint;
use crate::faults::{Faults, may_follow};
use crate::output::Output;
use crate::progress::Bar;
use std::path::Path;
use tessera_hub::{RECORD_FILE, SourceRecord};
use tessera_weights::files;
use tessera_weights::folder::{Folder, infer_scheme};
use tessera_weights::manifest::{MANIFEST_NAMES, Manifest};
use tessera_weights::model::{CHAT_CONFIG, Description, FolderModel, MAX_CONFIG, Sources};
use tessera_weights::verify::{self, Defect, ExpectedTensor, Note, Report, VerifyOptions};

/// The field of a defect that is about a digest which `pull` noted, and what is found of a missing file.
pub const DIGEST: &str = "digest";
/// See there.
pub const NOTHING: &str = "nothing";

/// Verifies a folder against its own config, or against what its shapes say if it has none.
pub fn check(path: &Path, out: &Output) -> anyhow::Result<Report> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let (mut beside, mut expected, mut following) = (Faults::default(), None, Vec::new());
    if let Some((name, manifest)) = manifest(path, folder)? {
        let mut description = describe(path, folder, &name, &manifest);
        let (follow, errors) = std::mem::take(&mut description.errors).into_iter().partition(may_follow);
        (following, description.errors) = (follow, errors);
        beside.of_description(&description);
        if description.chat_text.is_none() {
            beside.notes.push(format!("no {CHAT_CONFIG}; what it would say is guessed from the tensors"));
        }
        beside.of_files(folder, &name, description.chat.as_ref());
        expected = description.model.as_ref().map(expected_tensors);
    }
    let bar = Bar::new(out, 0);
    let options = VerifyOptions { expected: expected.as_deref(), ..VerifyOptions::default() };
    let mut report = verify::verify(path, options, &|p| bar.show(p.done, p.total, ""));
    bar.end();
    // Without a manifest this is no MLC folder, and its other files mean nothing.
    if report.manifest.is_none() {
        compare_digests(folder, &mut report);
        return Ok(report);
    }
    if report.is_clean() {
        beside.of_description(&Description { errors: following, ..Description::default() });
        if beside.faults.is_empty()
            && let Ok(opened) = Folder::open(path)
        {
            beside.of_use(&opened);
        }
    } else {
        beside.notes.extend(following.iter().map(|error| {
            format!(
                "names and shapes are not compared with an architecture, because none could be told: {error}"
            )
        }));
    }
    report.defects.extend(beside.faults.into_iter().map(|fault| fault.defect));
    let note = |message| Note { file: None, tensor: None, message };
    report.notes.extend(beside.notes.into_iter().map(note));
    compare_digests(folder, &mut report);
    Ok(report)
}

/// Compares the files beside the shards with the digests that `pull` noted.
fn compare_digests(folder: &Path, report: &mut Report) {
    let altered = match SourceRecord::open(folder) {
        Ok(None) => return,
        Ok(Some(record)) => tessera_hub::altered(folder, &record),
        Err(error) => Err(error),
    };
    let defect = |file: &str, field: &str, expected: String, found: String, message: String| Defect {
        file: file.to_owned(),
        tensor: None,
        field: field.to_owned(),
        expected,
        found,
        message,
    };
    match altered {
        Ok(altered) => report.defects.extend(altered.iter().map(|a| {
            let expected = format!("{} bytes, {}", a.expected.bytes, a.expected.digest);
            let found = a.found.as_ref().map(|(bytes, digest)| format!("{bytes} bytes, {digest}"));
            let found = found.unwrap_or_else(|| NOTHING.to_owned());
            defect(&a.name, DIGEST, expected, found, a.message())
        })),
        Err(error) => {
            let (words, message) =
                ("a record of the digests", format!("{error}; where it cannot be restored, remove it"));
            report.defects.push(defect(RECORD_FILE, "file", words.to_owned(), "another".to_owned(), message));
        }
    }
}

/// The manifest and its name, if there is one that can be read: what is wrong with it is for the verification to say.
fn manifest(path: &Path, folder: &Path) -> anyhow::Result<Option<(String, Manifest)>> {
    let name = match path.is_dir() {
        true => MANIFEST_NAMES.iter().find(|name| folder.join(name).is_file()).map(|n| (*n).to_owned()),
        false => path.file_name().and_then(|n| n.to_str()).map(str::to_owned),
    };
    let Some(name) = name else { return Ok(None) };
    let Ok(bytes) = checkpoint::read(&folder.join(&name)) else { return Ok(None) };
    Ok(Manifest::parse(&bytes.unwrap_or_default()).ok().map(|manifest| (name, manifest)))
}

/// Not of the opened folder: a damaged shard must not keep the shapes from being compared.
fn describe(path: &Path, folder: &Path, name: &str, manifest: &Manifest) -> Description {
    Description::of(&Sources {
        root: folder,
        manifest: name,
        read: &|name| files::read(&folder.join(name), MAX_CONFIG),
        shape: &|name| manifest.record(name).map(|r| r.shape.clone()),
        scheme: &|| infer_scheme(&Folder::open(path)?),
    })
}

/// The architecture's tensors.
fn expected_tensors(model: &FolderModel) -> Vec<ExpectedTensor> {
    let stored = model.params.iter().flat_map(|p| p.stored(model.scheme));
    stored.map(|t| ExpectedTensor { name: t.name, shape: t.shape, dtype: t.dtype }).collect()
}
