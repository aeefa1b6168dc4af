//! `tessera verify`: every shard's MD5, every tensor's shape, type and values.

use crate::checkpoint;
use crate::cli::VerifyArgs;
use crate::models;
use crate::output::Output;
use crate::progress::{Bar, use_threads};
use std::path::Path;
use std::process::ExitCode;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::convert::FolderModel;
use tessera_weights::folder::{Folder, FolderError, infer_scheme};
use tessera_weights::manifest::{MANIFEST_NAMES, Manifest};
use tessera_weights::verify::{self, ExpectedTensor, Note, Report, VerifyOptions};

/// Verifies; exit 1 if anything is wrong.
pub fn run(args: VerifyArgs, out: &Output) -> anyhow::Result<ExitCode> {
    use_threads(args.threads)?;
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
        n => out.line(format_args!("{shards} shards, {tensors} tensors, {bytes} bytes: {n} defect(s)")),
    }
}

/// A defect as one line: file, tensor, field, expected, found, and the sentence about it.
fn line(defect: &verify::Defect) -> String {
    let tensor = defect.tensor.as_ref().map(|t| format!("{t}: ")).unwrap_or_default();
    let fields = format!("{}: expected {}, found {}", defect.field, defect.expected, defect.found);
    let text = format!("{}: {tensor}{fields}", defect.file);
    match defect.message.is_empty() {
        true => text,
        false => format!("{text} ({})", defect.message),
    }
}

/// Verifies a folder against its own config, or against what its shapes say if it has none.
pub fn check(path: &Path, out: &Output) -> anyhow::Result<Report> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let mut notes = Vec::new();
    let expected = match expected(path, folder, &mut notes) {
        Ok(expected) => Some(expected),
        Err(why) => {
            notes.push(format!("names and shapes are not compared with the architecture: {why:#}"));
            None
        }
    };
    let bar = Bar::new(out, 0);
    let options = VerifyOptions { expected: expected.as_deref(), ..VerifyOptions::default() };
    let mut report = verify::verify(path, options, &|p| bar.show(p.done, p.total, ""));
    bar.end();
    report.notes.extend(notes.into_iter().map(|message| Note { file: None, tensor: None, message }));
    Ok(report)
}

/// The architecture's tensors.
fn expected(path: &Path, folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<Vec<ExpectedTensor>> {
    let chat = checkpoint::read(&folder.join("mlc-chat-config.json"))?;
    let chat = chat.as_deref().map(ChatConfig::parse).transpose()?;
    if chat.is_none() {
        notes.push("no mlc-chat-config.json; what it would say is guessed from the tensors".to_owned());
    }
    // Not by opening the folder: a damaged shard must not keep the shapes from being compared.
    let manifest = match path.is_dir() {
        true => MANIFEST_NAMES.iter().map(|name| folder.join(name)).find(|p| p.is_file()),
        false => Some(path.to_owned()),
    };
    let manifest = manifest.ok_or_else(|| anyhow::anyhow!("there is no manifest"))?;
    let manifest = Manifest::parse(&checkpoint::read(&manifest)?.unwrap_or_default())
        .map_err(|_| anyhow::anyhow!("the manifest is refused"))?;
    let shape = |name: &str| manifest.record(name).map(|r| r.shape.clone());
    let infer = || -> Result<_, FolderError> { infer_scheme(&Folder::open(path)?) };
    let model = FolderModel::of(chat.as_ref(), &shape, infer)?;
    notes.extend(model.guesses.iter().cloned());
    let stored = model.params.iter().flat_map(|p| p.stored(model.scheme));
    Ok(stored.map(|t| ExpectedTensor { name: t.name, shape: t.shape, dtype: t.dtype }).collect())
}
