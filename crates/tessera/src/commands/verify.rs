//! `tessera verify`: every shard's MD5, every tensor's shape, type and values.

use crate::cli::VerifyArgs;
use crate::models;
use crate::output::Output;
use crate::progress::use_threads;
use crate::verification::{DIGEST, NOTHING, check};
use std::path::Path;
use std::process::ExitCode;
use tessera_weights::verify::{Defect, Report};

/// Verifies; exit 1 if anything is wrong.
pub fn run(args: VerifyArgs, out: &Output) -> anyhow::Result<ExitCode> {
    use_threads(args.threads, out)?;
    let path = models::locate(&args.path)?;
    if !args.accept.is_empty() {
        let folder = if path.is_dir() { &path } else { path.parent().unwrap_or(Path::new(".")) };
        tessera_hub::accept(folder, &args.accept)?;
    }
    let report = check(&path, out)?;
    if out.json {
        out.print_json(&report)?;
    } else {
        print(&report, &args.path, out)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print(report: &Report, path: &str, out: &Output) -> anyhow::Result<()> {
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
            out.note(format_args!(
                "hint: `tessera repair {path}` fetches again what is damaged; or convert the original checkpoint again"
            ));
            // A shard is never edited; the manifest is part of the weights too.
            let beside = |d: &&Defect| {
                d.field == DIGEST && d.found != NOTHING && Some(&d.file) != report.manifest.as_ref()
            };
            if let Some(edited) = report.defects.iter().find(beside) {
                out.note(format_args!(
                    "hint: if you have edited {0} on purpose: `tessera verify {path} --accept {0}`",
                    edited.file
                ));
            }
            Ok(())
        }
    }
}

/// A defect as one line: the file, and the sentence about it.
pub fn line(defect: &Defect) -> String {
    let (file, message) = (&defect.file, &defect.message);
    match message.contains(file.as_str()) {
        true => message.clone(),
        false => format!("{file}: {message}"),
    }
}
