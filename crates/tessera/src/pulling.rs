//! Brings a model into the store: fetched, converted where it has to be, verified.

use crate::checkpoint::{self, Model};
use crate::conversion::{self, Optimize, Settings};
use crate::output::{Bytes, Output, hinted};
use crate::progress::use_threads;
use crate::verification::check;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use tessera_hub::{Event, Fetch, FetchOptions, Fetched, ModelName, Source, SourceRecord, Store};
use tessera_weights::scheme::Scheme;

/// Quantisation where neither the user nor the catalogue names one.
const DEFAULT_QUANT: &str = "q4f16_1";

/// A model that is now in the store.
pub struct Pulled {
    /// Its name.
    pub name: ModelName,
    /// Its folder.
    pub path: PathBuf,
    /// False if it was there before.
    pub fresh: bool,
}

/// Brings a model into the store; also what `run` does on a first use.
pub fn pull(
    store: &Store,
    source: &Source,
    options: FetchOptions,
    quant: Option<&str>,
    out: &Output,
) -> anyhow::Result<Pulled> {
    let bar = Bar::new(out);
    let fetch = store.fetch(source, &options, &|event| bar.show(event));
    bar.end();
    let fetch = fetch?;
    for file in &fetch.record.files {
        let how = if file.checked { "checked" } else { "not stated by the source" };
        out.detail(format_args!("{}: {}, {} ({how})", file.name, Bytes(file.bytes), file.digest));
    }
    let path = match &fetch.what {
        Fetched::Installed(path) => path.clone(),
        Fetched::Checkpoint(from) | Fetched::Gguf(from) => {
            let quant = quant.or(fetch.quantization.as_deref()).unwrap_or(DEFAULT_QUANT);
            let record = convert_fetched(store, &fetch, from, quant, out)?;
            store.install(&fetch.name, &store.staging(&fetch.name), &record)?
        }
    };
    Ok(Pulled { name: fetch.name.clone(), path, fresh: fetch.fresh })
}

/// Converts what was fetched (a Hugging Face folder or a GGUF file at `from`) to an MLC folder at
/// `store.staging(&fetch.name)`, verifies it, and returns the record to install it with.
fn convert_fetched(
    store: &Store,
    fetch: &Fetch,
    from: &Path,
    quant: &str,
    out: &Output,
) -> anyhow::Result<SourceRecord> {
    let target = store.staging(&fetch.name);
    let mut model = checkpoint::open(from, false)?;
    if let Model::Checkpoint(checkpoint) = &mut model {
        checkpoint.recommend(&fetch.generation);
    }
    // Whoever takes this scheme wants nothing lost.
    let whole_f32 = quant == "q0f32";
    // A user may have asked for a scheme without codes.
    let optimize = match Scheme::find(quant) {
        Ok(scheme) if scheme.group.is_some() => fetch.optimize,
        _ => Optimize::None,
    };
    let settings = Settings { quant: Some(quant.to_owned()), whole_f32, optimize, ..Settings::default() };
    out.note(format_args!("converting to {quant}"));
    use_threads(None, out)?;
    let summary = conversion::to_mlc(&model, &settings, &target, out)?;
    let report = check(&target, out)?;
    if let Some(defect) = report.defects.first() {
        let count = report.defects.len();
        // Whatever is wrong came with the source: the shards were written a moment ago.
        let removed = std::fs::remove_dir_all(&target).is_ok();
        return Err(hinted(
            format!(
                "{}: the converted model has {count} defect(s), the first is {}",
                fetch.name, defect.message
            ),
            if removed {
                "the source itself is damaged; pull another one"
            } else {
                "remove the partial folder"
            },
        ));
    }
    let mut record = fetch.record.clone();
    record.converted = Some(format!("converted from {} to {}", summary.source_kind, summary.quantization));
    Ok(record)
}

/// A progress bar on a terminal, single lines elsewhere.
pub struct Bar {
    bar: Option<ProgressBar>,
    out: Output,
}

impl Bar {
    /// A bar, or lines.
    pub fn new(out: &Output) -> Bar {
        let bar = out.shows_progress().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template(
                "{msg:24!} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Bar { bar, out: out.clone() }
    }

    /// What a fetch tells.
    pub fn show(&self, event: Event<'_>) {
        match (event, &self.bar) {
            (Event::Note(text), Some(bar)) => bar.suspend(|| self.out.note(text)),
            (Event::Note(text), None) => self.out.note(text),
            (Event::Bytes { file, done, total }, Some(bar)) => {
                bar.set_length(total.max(done));
                bar.set_position(done);
                bar.set_message(file.to_string());
            }
            (Event::Bytes { .. }, None) => {}
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
