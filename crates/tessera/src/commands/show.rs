//! `tessera show`: one model of the store.

use crate::cli::ShowArgs;
use crate::output::{Bytes, Output};
use serde::Serialize;
use std::process::ExitCode;
use tessera_hub::{Entry, ModelName, Store};

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: Entry,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    name: String,
    bytes: u64,
}

/// Prints folder, source and files.
pub fn run(args: ShowArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let entry = store.entry(&ModelName::parse(args.name.strip_prefix("HF://").unwrap_or(&args.name))?)?;
    let files = entry.files()?;
    if out.json {
        let files = files.into_iter().map(|(name, bytes)| File { name, bytes }).collect();
        out.print_json(&Shown { entry, files })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![("name", entry.name.clone()), ("folder", entry.path.display().to_string())];
    lines.extend(entry.quantization.clone().map(|q| ("quant", q)));
    lines.push(("size", format!("{} in {} files", Bytes(entry.bytes), files.len())));
    match &entry.source {
        None => lines.push(("source", "unknown (no tessera-source.json)".into())),
        Some(source) => {
            lines.push(("source", source.source.clone()));
            lines.extend(source.revision.clone().map(|r| ("revision", r)));
            lines.push(("fetched", source.fetched.clone()));
            lines.extend(source.licence.clone().map(|l| ("licence", l)));
            lines.extend(source.converted.clone().map(|c| ("converted", c)));
        }
    }
    for (key, value) in lines {
        out.line(format_args!("{key:<10}{value}"))?;
    }
    out.line("")?;
    let digest_of = |name: &str| {
        let record = entry.source.as_ref()?.installed().iter().find(|f| f.name == name)?;
        Some(format!("{}{}", record.digest, if record.checked { "" } else { " (as it came)" }))
    };
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|(name, bytes)| {
            vec![name.clone(), Bytes(*bytes).to_string(), digest_of(name).unwrap_or_default()]
        })
        .collect();
    out.table(&["FILE", "SIZE", "DIGEST"], &[1], &rows)?;
    Ok(ExitCode::SUCCESS)
}
