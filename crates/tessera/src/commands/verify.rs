//! `tessera verify`: every shard's MD5, every tensor's shape, type and values.

use crate::cli::VerifyArgs;
use crate::models;
use crate::output::Output;
use crate::progress::use_threads;
use crate::verification::check;
use std::process::ExitCode;
use tessera_weights::verify::{Defect, Report};

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
