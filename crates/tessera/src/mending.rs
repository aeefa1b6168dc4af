//! Brings a damaged folder back: verified, the fewest bytes fetched again, verified.

use crate::output::{Bytes, Output, hinted};
use crate::pulling::Bar;
use crate::verification::check;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tessera_hub::{Damage, HubError, Mended, ModelName, Need, Source, SourceRecord, Store, damage_of};
use tessera_weights::verify::{Defect, Note};

/// A manifest first, then what it tells of the others, then what those tell.
const ROUNDS: usize = 3;

/// What was done, and what is left.
#[derive(Debug, Serialize)]
pub struct Repaired {
    /// The folder.
    pub path: PathBuf,
    /// Where bytes were taken from, if that was known.
    pub source: Option<String>,
    /// Files that are right again.
    pub mended: BTreeMap<String, Mended>,
    /// Files that are not, with the reason.
    pub failed: BTreeMap<String, String>,
    /// What to do about those.
    #[serde(skip)]
    pub hints: BTreeSet<String>,
    /// What has to come for the files that are still damaged.
    pub needed: Vec<Damage>,
    /// What is still wrong.
    pub defects: Vec<Defect>,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}

impl Repaired {
    /// Bytes that came, of all files.
    pub fn fetched(&self) -> u64 {
        self.mended.values().map(|m| m.fetched).sum()
    }
}

/// Mends the folder at `path` from `from`, or from where it was pulled.
pub fn repair(path: &Path, from: Option<&str>, out: &Output) -> anyhow::Result<Repaired> {
    let store = Store::open_default()?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let given = from.map(Source::parse).transpose()?;
    let record = SourceRecord::open(folder).or_else(|error| match &given {
        // Its digests are lost, and not needed to know where from.
        Some(_) => Ok(None),
        None => Err(error),
    })?;
    let (source, revision) = match (&given, &record) {
        (Some(source), _) => (Some(source.clone()), None),
        (None, Some(record)) if record.converted.is_none() => {
            (Some(Source::parse(&record.source)?), record.revision.clone())
        }
        _ => (None, None),
    };
    let mut repaired = Repaired {
        path: folder.to_owned(),
        source: source.as_ref().map(Source::to_string),
        mended: BTreeMap::new(),
        failed: BTreeMap::new(),
        hints: BTreeSet::new(),
        needed: Vec::new(),
        defects: Vec::new(),
        notes: Vec::new(),
    };
    for _ in 0..=ROUNDS {
        let report = check(path, out)?;
        let damages = damage_of(folder, &report, record.as_ref())?;
        (repaired.defects, repaired.notes) = (report.defects, report.notes);
        repaired.needed = damages.clone();
        let again =
            |d: &Damage| repaired.mended.contains_key(&d.file) || repaired.failed.contains_key(&d.file);
        // The source had its chance.
        if damages.is_empty() || damages.iter().any(again) {
            break;
        }
        let Some(source) = &source else { break };
        for damage in &damages {
            out.detail(needs(damage));
        }
        let bar = Bar::new(out);
        let outcomes = store.mend(folder, &damages, source, revision.as_deref(), &|event| bar.show(event));
        bar.end();
        let outcomes = outcomes.unwrap_or_else(|error| {
            repaired.hints.extend(error.hint());
            let why = said(&error);
            repaired.failed.extend(damages.iter().map(|d| (d.file.clone(), why.clone())));
            Vec::new()
        });
        for outcome in outcomes {
            match outcome.result {
                Ok(mended) => {
                    repaired.mended.insert(outcome.file, mended);
                }
                Err(error) => {
                    // What a pull does about a wrong digest is no advice here.
                    if !matches!(error, HubError::WrongHash { .. }) {
                        repaired.hints.extend(error.hint());
                    }
                    repaired.failed.insert(outcome.file, said(&error));
                }
            }
        }
    }
    Ok(repaired)
}

fn said(error: &HubError) -> String {
    match error {
        HubError::WrongHash { .. } | HubError::WrongSize { .. } => {
            format!("{error}; the source has another file than this folder should")
        }
        _ => error.to_string(),
    }
}

/// What has to come of a file, as a line.
pub fn needs(damage: &Damage) -> String {
    let file = &damage.file;
    match (&damage.need, damage.to_fetch()) {
        (Need::Parts(parts), _) if parts.is_empty() => format!("{file}: needs nothing, it is only too long"),
        (Need::Parts(parts), Some(bytes)) => {
            let shown: Vec<String> = parts.iter().map(|p| format!("{}-{}", p.start, p.end - 1)).collect();
            format!("{file}: needs the bytes {} ({})", shown.join(", "), Bytes(bytes))
        }
        (_, Some(bytes)) => format!("{file}: needs all of it ({})", Bytes(bytes)),
        (_, None) => format!("{file}: needs all of it"),
    }
}

/// Why nothing could be fetched, with what would help.
pub fn no_source(path: &Path, record: Option<&SourceRecord>, count: usize) -> anyhow::Error {
    let shown = path.display();
    let Some(record) = record.filter(|r| r.converted.is_some()) else {
        return hinted(
            format!("{shown}: {count} file(s) are damaged, and where the folder came from is not recorded"),
            "name a source that has the same files: --from org/repo, --from https://... or --from FOLDER",
        );
    };
    let how = record.converted.as_deref().unwrap_or_default();
    hinted(
        format!("{shown}: {count} file(s) are damaged, and its source has no such files: it was {how}"),
        format!(
            "`{}` makes it again; --from takes the files of a folder that was made the same way",
            pull_again(path, record, how)
        ),
    )
}

/// The command that pulls and converts a model a second time.
fn pull_again(path: &Path, record: &SourceRecord, how: &str) -> String {
    let quant = how.rsplit_once(" to ").map(|(_, quant)| format!(" --quant {quant}")).unwrap_or_default();
    let store = Store::open_default().ok();
    let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| ModelName::parse(n).ok());
    let name = name.filter(|name| store.as_ref().is_some_and(|store| store.model_path(name) == path));
    let Some(name) = name else { return format!("tessera pull{quant} {}", record.source) };
    // The catalogue knows more than where the files are.
    let catalogue = store.and_then(|store| store.catalogue().ok());
    if catalogue.is_some_and(|catalogue| catalogue.get(name.as_str()).is_some()) {
        return format!("tessera pull --force{quant} {name}");
    }
    format!("tessera pull --force --name {name}{quant} {}", record.source)
}
