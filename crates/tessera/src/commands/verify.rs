//! `tessera verify`: every shard's MD5, every tensor's shape, type and values.

use crate::checkpoint;
use crate::cli::VerifyArgs;
use crate::faults::{Faults, may_follow};
use crate::models;
use crate::output::Output;
use crate::progress::{Bar, use_threads};
use std::path::Path;
use std::process::ExitCode;
use tessera_weights::files;
use tessera_weights::folder::{Folder, infer_scheme};
use tessera_weights::manifest::{MANIFEST_NAMES, Manifest};
use tessera_weights::model::{CHAT_CONFIG, Description, FolderModel, MAX_CONFIG, Sources};
use tessera_weights::verify::{self, Defect, ExpectedTensor, Note, Report, VerifyOptions};

/// Verifies; exit 1 if anything is wrong.
pub fn run(args: VerifyArgs, out: &Output) -> anyhow::Result<ExitCode> {
    use_threads(args.threads, out)?;
    let report = check(&models::locate(&args.path)?, out)?;
    if out.json {
        out.print_json(&report)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print(report: &Report, out: &Output) -> anyhow::Result<()> {
    for note in &report.notes {
        let file = note.file.as_ref().map(|f| format!("{f}: ")).unwrap_or_default();
        let tensor = note.tensor.as_ref().map(|t| format!("{t}: ")).unwrap_or_default();
        out.note(format_args!("note: {file}{tensor}{}", note.message));
    }
    for defect in &report.defects {
        out.line(line(defect))?;
    }
    let (shards, tensors, bytes) = (report.shards, report.tensors, report.bytes);
    match report.defects.len() {
        0 => out.line(format_args!("{shards} shards, {tensors} tensors, {bytes} bytes: ok")),
        n => {
            out.line(format_args!("{shards} shards, {tensors} tensors, {bytes} bytes: {n} defect(s)"))?;
            out.note("hint: fetch the files named above again, or convert the original checkpoint again");
            Ok(())
        }
    }
}

/// A defect as one line: the file, and the sentence about it.
fn line(defect: &Defect) -> String {
    let (file, message) = (&defect.file, &defect.message);
    match message.contains(file.as_str()) {
        true => message.clone(),
        false => format!("{file}: {message}"),
    }
}

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
    Ok(report)
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
