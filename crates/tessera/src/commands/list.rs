//! `tessera list`: the models of the store.

use crate::cli::ListArgs;
use crate::output::{Bytes, Output};
use serde::Serialize;
use std::process::ExitCode;
use tessera_hub::{Entry, Store};

#[derive(Serialize)]
struct Listing<'a> {
    home: String,
    models: &'a [Entry],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    catalogue: Vec<Offer>,
}

#[derive(Serialize)]
struct Offer {
    name: String,
    title: String,
    about: String,
}

/// Prints them.
pub fn run(args: ListArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let models = store.list()?;
    // With an empty store the catalogue is the only useful answer.
    let mut catalogue = Vec::new();
    if args.all || models.is_empty() {
        for (name, entry) in store.catalogue()?.iter() {
            if !models.iter().any(|m| m.name == name) {
                let (title, about) = (entry.title.clone(), entry.about.clone());
                catalogue.push(Offer { name: name.to_string(), title, about });
            }
        }
    }
    if out.json {
        if !args.all {
            catalogue.clear();
        }
        out.print_json(&Listing { home: store.home().display().to_string(), models: &models, catalogue })?;
        return Ok(ExitCode::SUCCESS);
    }
    if models.is_empty() {
        out.line(format_args!("No models in {}", store.home().display()))?;
    } else {
        let rows: Vec<Vec<String>> = models.iter().map(row).collect();
        out.table(&["NAME", "QUANT", "SIZE", "FETCHED", "SOURCE"], &[2], &rows)?;
    }
    if !catalogue.is_empty() {
        out.line("\nTo be had with `tessera pull NAME`:")?;
        for offer in catalogue {
            out.line(format_args!("  {}: {}. {}", offer.name, offer.title, offer.about))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &Entry) -> Vec<String> {
    let source = entry.source.as_ref();
    let day = source.and_then(|s| s.fetched.get(..10)).unwrap_or("-");
    vec![
        entry.name.clone(),
        entry.quantization.clone().unwrap_or_else(|| "-".into()),
        Bytes(entry.bytes).to_string(),
        day.to_string(),
        source.map_or_else(|| "-".to_string(), |s| s.source.clone()),
    ]
}
