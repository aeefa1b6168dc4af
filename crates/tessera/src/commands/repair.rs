//! `tessera repair`: fetches again what is damaged of a folder, and no more.

use super::verify;
use crate::cli::RepairArgs;
use crate::mending::{Repaired, needs, no_source, repair};
use crate::models;
use crate::output::{Bytes, Output};
use crate::progress::use_threads;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use tessera_hub::{HubError, SourceRecord};

/// Mends; exit 1 if anything is wrong still.
pub fn run(args: RepairArgs, out: &Output) -> anyhow::Result<ExitCode> {
    use_threads(args.threads, out)?;
    let repaired = repair(&locate(&args.path)?, args.from.as_deref(), out)?;
    if out.json {
        let mut value = serde_json::to_value(&repaired)?;
        value["fetched"] = json!(repaired.fetched());
        out.print_json(&value)?;
    } else {
        print(&repaired, out)?;
    }
    if repaired.source.is_none() && !repaired.needed.is_empty() {
        let record = SourceRecord::read(&repaired.path);
        return Err(no_source(&repaired.path, record.as_ref(), repaired.needed.len()));
    }
    Ok(if repaired.defects.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A folder that has lost its manifest is one that can be mended.
fn locate(path: &str) -> anyhow::Result<PathBuf> {
    match models::locate(path) {
        Err(error) => match error.downcast_ref() {
            Some(HubError::NotAModel { path }) if path.is_dir() => Ok(path.clone()),
            _ => Err(error),
        },
        found => found,
    }
}

fn print(repaired: &Repaired, out: &Output) -> anyhow::Result<()> {
    for (file, mended) in &repaired.mended {
        let how = if mended.in_part { "mended in part" } else { "fetched whole" };
        out.line(format_args!("{file}: {how}, {} came", Bytes(mended.fetched)))?;
        if let Some(kept) = &mended.kept {
            out.note(format_args!("note: {file} as it was is kept as {kept}"));
        }
    }
    for (file, why) in &repaired.failed {
        out.line(format_args!("{file}: not mended: {why}"))?;
    }
    for defect in &repaired.defects {
        out.line(verify::line(defect))?;
    }
    if repaired.source.is_none() {
        for damage in &repaired.needed {
            out.line(needs(damage))?;
        }
    }
    for hint in &repaired.hints {
        out.note(format_args!("hint: {hint}"));
    }
    let (mended, bytes) = (repaired.mended.len(), Bytes(repaired.fetched()));
    match (repaired.defects.len(), mended) {
        (0, 0) => out.line("nothing is damaged"),
        (0, n) => out.line(format_args!("{n} file(s) mended, {bytes} fetched: ok")),
        (left, n) => out.line(format_args!("{n} file(s) mended, {bytes} fetched: {left} defect(s) are left")),
    }
}
