//! Conversions, from an opened model to a finished folder. `convert` and `pull` are thin around it.

mod chat;
mod gguf;
mod optimized;
mod safetensors;
mod settings;

use crate::checkpoint::{Checkpoint, MlcFolder, Model};
use crate::interrupt;
use crate::output::{Output, hinted};
use crate::progress::Bar;
use serde::Serialize;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tessera_weights::arch::{self, Param, Sizes};
use tessera_weights::chat_config::python_json;
use tessera_weights::convert::{
    self, ConvertOptions, ConvertReport, Flavour, ManifestName, MlcSource, Plan, Rounding, SHARD_CAP,
    SourceNames,
};
use tessera_weights::lora::{Adapter, LoraSource};
use tessera_weights::model::FolderModel;
use tessera_weights::scheme::Scheme;
use tessera_weights::source::TensorSource;

pub use gguf::to_gguf;
pub use optimized::Quality;
pub use safetensors::to_safetensors;
pub use tessera_hub::Optimize;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The quantisation; `None` keeps an MLC folder's.
    pub quant: Option<String>,
    /// Cap of a shard.
    pub shard_size: u64,
    /// Name of the manifest.
    pub manifest: ManifestName,
    /// Name of a conversation template.
    pub conv_template: Option<String>,
    /// Keeps unquantised float32 values whole.
    pub whole_f32: bool,
    /// How codes are chosen.
    pub optimize: Optimize,
    /// The text that is calibrated for; without one the model's own.
    pub calibration: Option<PathBuf>,
    /// Folders of LoRA adapters to merge, each with a factor.
    pub adapters: Vec<(PathBuf, f64)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            quant: None,
            shard_size: SHARD_CAP,
            manifest: ManifestName::default(),
            conv_template: None,
            whole_f32: false,
            optimize: Optimize::None,
            calibration: None,
            adapters: Vec::new(),
        }
    }
}

/// What was done.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// What the source was.
    pub source_kind: String,
    /// `mlc`, `safetensors` or `gguf`.
    pub format: &'static str,
    /// Quantisation of what was written.
    pub quantization: String,
    /// Name of the conversation template, if one was written.
    pub conv_template: Option<String>,
    /// Shards, or safetensors files.
    pub files: usize,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Parameters that are quantised.
    pub quantised: usize,
    /// Those of them that have the source's own codes and scales.
    pub exact: usize,
    /// Parameters that hold a NaN or an infinity.
    pub non_finite: Vec<String>,
    /// Tensors of the source that were not needed.
    pub unused: Vec<String>,
    /// What choosing codes better did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Everything that the user should know.
    pub notes: Vec<String>,
}

impl Summary {
    fn note(&mut self, out: &Output, text: impl Into<String>) {
        let text = text.into();
        out.note(format_args!("note: {text}"));
        self.notes.push(text);
    }

    fn removed(&mut self, folders: &[String], out: &Output) {
        for folder in folders {
            self.note(out, format!("{folder}: removed; a conversion that was killed had left it"));
        }
    }

    fn take(&mut self, report: ConvertReport, out: &Output) {
        self.removed(&report.removed, out);
        (self.quantised, self.exact) = (report.quantised, report.exact);
        (self.files, self.tensors, self.bytes) = (report.shards, report.tensors, report.bytes);
        if let Some(first) = report.non_finite.first() {
            let count = report.non_finite.len();
            self.note(out, format!("{count} parameter(s) hold a NaN or an infinity, the first is {first}"));
        }
        if report.rounded > 0 {
            self.note(
                out,
                format!(
                    "{} parameter(s) of float32 are rounded to their upper 16 bits, as MLC stores them; --whole-f32 \
                     keeps them",
                    report.rounded
                ),
            );
        }
        if !report.unused.is_empty() {
            const SHOWN: usize = 4;
            let mut names = report.unused[..report.unused.len().min(SHOWN)].join(", ");
            if report.unused.len() > SHOWN {
                names.push_str(&format!(" and {} more (--json has all)", report.unused.len() - SHOWN));
            }
            self.note(
                out,
                format!("{} tensor(s) of the source are not needed: {names}", report.unused.len()),
            );
        }
        (self.non_finite, self.unused) = (report.non_finite, report.unused);
    }
}

/// The model type and parameters of a Hugging Face config.
pub fn params_of(config: &Value) -> anyhow::Result<(String, Vec<Param>)> {
    let Some(model_type) = tessera_weights::config::model_type(config) else {
        return Err(hinted(
            "config.json: model_type is missing",
            "add it; it is the architecture's name, such as llama",
        ));
    };
    if let Some(method) = config.get("quantization_config").filter(|v| !v.is_null()) {
        let method = method.get("quant_method").and_then(Value::as_str).unwrap_or("an unknown method");
        return Err(hinted(
            format!("config.json: the checkpoint is quantised already ({method}), which is not supported"),
            "convert the original checkpoint",
        ));
    }
    let params = arch::params(&model_type, &Sizes::from_json(&model_type, config)?)?;
    Ok((model_type, params))
}

/// The scheme that is asked for; a checkpoint has no default.
fn scheme_of(settings: &Settings) -> anyhow::Result<&'static Scheme> {
    match &settings.quant {
        Some(name) => Ok(Scheme::find(name)?),
        None => Err(hinted(
            "--quant is missing: a checkpoint has no quantisation to keep",
            "q4f16_1 is the common one, q4f32_1 the one for machines without f16, q0f16 quantises nothing",
        )),
    }
}

/// Whether a checkpoint's config and tokenizer can be converted; the weights are not looked at.
pub fn check(checkpoint: &Checkpoint) -> anyhow::Result<()> {
    params_of(&checkpoint.config)?;
    settings::refuse_config(checkpoint)?;
    chat::tokenizer(checkpoint)?;
    Ok(())
}

/// The manifest that [`to_mlc`] would write, without digests.
pub fn dry_run(model: &Model, settings: &Settings) -> anyhow::Result<String> {
    let (shard_cap, whole_f32) = (settings.shard_size, settings.whole_f32);
    let options = ConvertOptions { shard_cap, whole_f32, ..ConvertOptions::default() };
    let (source, params, scheme, names) = match model {
        Model::Checkpoint(checkpoint) => {
            let (_, params) = params_of(&checkpoint.config)?;
            let scheme = scheme_of(settings)?;
            optimized::check(scheme, settings)?;
            let Some(source) = &checkpoint.weights else {
                return Ok(convert::plan_manifest(&params, scheme, &options)?);
            };
            return Ok(Plan::new(source.as_ref(), &params, scheme, &options)?.manifest(None, Flavour::Plain));
        }
        Model::Mlc(mlc) => {
            let found = mlc.model()?;
            let scheme = settings.quant.as_deref().map_or(Ok(found.scheme), Scheme::find)?;
            optimized::check(scheme, settings)?;
            if copies(found, scheme, settings) {
                refuse_unused(mlc, scheme, settings)?;
            }
            (MlcSource::new(&mlc.folder, found)?, found.params.clone(), scheme, SourceNames::Mlc)
        }
    };
    let options = ConvertOptions { names, ..options };
    Ok(Plan::new(&source, &params, scheme, &options)?.manifest(None, Flavour::Plain))
}

/// Writes an MLC folder.
pub fn to_mlc(model: &Model, settings: &Settings, dst: &Path, out: &Output) -> anyhow::Result<Summary> {
    match model {
        Model::Checkpoint(checkpoint) => from_checkpoint(checkpoint, settings, dst, out),
        Model::Mlc(mlc) => from_mlc(mlc, settings, dst, out),
    }
}

fn from_checkpoint(
    checkpoint: &Checkpoint,
    settings: &Settings,
    dst: &Path,
    out: &Output,
) -> anyhow::Result<Summary> {
    let scheme = scheme_of(settings)?;
    let (model_type, params) = params_of(&checkpoint.config)?;
    let source = checkpoint.weights.as_deref();
    let source = source.ok_or_else(|| anyhow::anyhow!("the folder has a config.json but no weights"))?;
    let mut summary = Summary {
        source_kind: checkpoint.kind.to_owned(),
        format: "mlc",
        quantization: scheme.name.to_owned(),
        ..Summary::default()
    };
    settings::check(checkpoint, &model_type, &mut summary, out)?;
    let chat = chat::chat_config(checkpoint, &model_type, scheme, settings, &mut summary, out)?;
    settings::read_back(checkpoint, &model_type, &chat)?;
    let mut files = checkpoint.files.clone();
    files.push(("mlc-chat-config.json".to_owned(), chat.into_bytes()));
    let source = merged(source, &params, SourceNames::Hf, settings, &mut summary, out)?;
    run(&source, &params, scheme, settings, SourceNames::Hf, dst, &files, &mut summary, out)?;
    if let Some(from) = checkpoint.quantised.as_deref().filter(|_| summary.quantised > 0) {
        let (all, exact) = (summary.quantised, summary.exact);
        let text = match exact {
            0 => {
                format!("the source is quantised ({from}); its values are quantised again to {}", scheme.name)
            }
            _ if exact == all => {
                format!(
                    "all {all} quantised parameters have the codes and scales of the source: nothing is lost"
                )
            }
            _ => format!(
                "{exact} of {all} quantised parameters have the codes and scales of the source; the values of the \
                 others are quantised again to {}",
                scheme.name
            ),
        };
        summary.note(out, text);
    }
    Ok(summary)
}

/// A source with the adapters that are wanted in it.
fn merged<'a>(
    source: &'a dyn TensorSource,
    params: &[Param],
    names: SourceNames,
    settings: &Settings,
    summary: &mut Summary,
    out: &Output,
) -> anyhow::Result<LoraSource<'a>> {
    let open = |(folder, scale): &(PathBuf, f64)| Adapter::open(folder, *scale);
    let adapters = settings.adapters.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let merged = LoraSource::new(source, params, names, &adapters)?;
    for ((folder, scale), adapter) in settings.adapters.iter().zip(&adapters) {
        let by = if *scale == 1.0 { String::new() } else { format!(" times {scale}") };
        summary.note(out, format!("{}: merged into {} tensors{by}", folder.display(), adapter.len()));
    }
    Ok(merged)
}

/// Whether the weights of an MLC folder stay what they are.
fn copies(found: &FolderModel, scheme: &Scheme, settings: &Settings) -> bool {
    scheme.name == found.scheme.name && settings.adapters.is_empty()
}

/// Refuses what would do nothing where shards are copied.
fn refuse_unused(mlc: &MlcFolder, scheme: &Scheme, settings: &Settings) -> anyhow::Result<()> {
    let (folder, name) = (mlc.folder.path().display(), scheme.name);
    if settings.optimize != Optimize::None {
        return Err(hinted(
            format!(
                "--optimize {}: the quantisation stays {name}, so the codes do, too",
                settings.optimize.name()
            ),
            "give what the folder was converted from: what rounding has lost cannot be found again",
        ));
    }
    let of_shards = [("--shard-size", settings.shard_size != SHARD_CAP), ("--whole-f32", settings.whole_f32)];
    if let Some((flag, _)) = of_shards.iter().find(|(_, given)| *given) {
        return Err(hinted(
            format!(
                "{flag}: the quantisation of {folder} stays {name}, so its shards are copied as they are"
            ),
            format!("leave {flag} out, or name another quantisation with --quant"),
        ));
    }
    Ok(())
}

fn from_mlc(mlc: &MlcFolder, settings: &Settings, dst: &Path, out: &Output) -> anyhow::Result<Summary> {
    let found = mlc.model()?;
    let scheme = settings.quant.as_deref().map_or(Ok(found.scheme), Scheme::find)?;
    let mut summary = Summary {
        source_kind: "MLC".to_owned(),
        format: "mlc",
        quantization: scheme.name.to_owned(),
        ..Summary::default()
    };
    for note in &mlc.description.notes {
        summary.note(out, note.clone());
    }
    let same = copies(found, scheme, settings);
    if same {
        optimized::check(scheme, settings)?;
        refuse_unused(mlc, scheme, settings)?;
    }
    let mut files = mlc.files()?;
    match chat::changed(mlc, scheme, settings)? {
        Some(text) => files.push(("mlc-chat-config.json".to_owned(), text)),
        None => summary.note(out, "no mlc-chat-config.json in the source, so none is written"),
    }
    if same {
        let bar = Bar::new(out, mlc.folder.stored_len());
        let progress = watched(&bar);
        interrupt::watch();
        let report = convert::copy_folder(&mlc.folder, settings.manifest, dst, &files, Some(&progress));
        bar.end();
        summary.take(report?, out);
        return Ok(summary);
    }
    if found.scheme.group.is_some() {
        let text = format!(
            "the source is quantised ({}); the result cannot be better than that, and quantising twice loses \
             more than converting the original checkpoint",
            found.scheme.name
        );
        summary.note(out, text);
    }
    let source = MlcSource::new(&mlc.folder, found)?;
    let source = merged(&source, &found.params, SourceNames::Mlc, settings, &mut summary, out)?;
    run(&source, &found.params, scheme, settings, SourceNames::Mlc, dst, &files, &mut summary, out)?;
    Ok(summary)
}

/// A progress function that shows a bar and stops on Ctrl-C.
fn watched(bar: &Bar) -> impl Fn(&convert::Progress<'_>) -> ControlFlow<()> {
    move |p| {
        bar.show(p.done, p.total, p.tensor);
        if interrupt::seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[allow(clippy::too_many_arguments)] // one call each from the two kinds of source
fn run(
    source: &dyn TensorSource,
    params: &[Param],
    scheme: &'static Scheme,
    settings: &Settings,
    names: SourceNames,
    dst: &Path,
    files: &[(String, Vec<u8>)],
    summary: &mut Summary,
    out: &Output,
) -> anyhow::Result<()> {
    optimized::check(scheme, settings)?;
    interrupt::watch();
    let from = optimized::From { source, params, names, files };
    let calibrated = match settings.optimize {
        Optimize::Calibrated => Some(optimized::find(from, scheme, settings, dst, out)?),
        _ => None,
    };
    let bar = Bar::new(out, 0);
    let progress = watched(&bar);
    let rounding = match (&calibrated, settings.optimize) {
        (Some(calibrated), _) => Rounding::Found(&calibrated.codes),
        (None, Optimize::Scales) => Rounding::Search,
        (None, _) => Rounding::Mlc,
    };
    let options = ConvertOptions {
        shard_cap: settings.shard_size,
        manifest_name: settings.manifest,
        names,
        allow_unused: false,
        whole_f32: settings.whole_f32,
        rounding,
        progress: Some(&progress),
    };
    let report = convert::convert(source, params, scheme, &options, dst, files);
    bar.end();
    let report = report?;
    if settings.optimize != Optimize::None {
        let codes = calibrated.as_ref().map(|calibrated| &calibrated.codes);
        let mut quality = Quality::new(settings.optimize, &report.losses, codes);
        if let Some(calibrated) = &calibrated {
            quality.held_back = calibrated.measure(from, scheme, dst, out)?;
        }
        summary.optimised(quality, out);
    }
    summary.take(report, out);
    Ok(())
}

/// JSON as MLC writes its config.
fn mlc_json(value: &Value) -> Vec<u8> {
    python_json::to_string(value, python_json::Style::CONFIG).into_bytes()
}
