//! Codes that are better than plain rounding's, in the same format.

use super::{Optimize, Settings, Summary, watched};
use crate::interrupt;
use crate::output::{Output, hinted};
use crate::progress::Bar;
use crate::quality::{self, Sums};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use tessera_compute::cpu::Cpu;
use tessera_engine::calibrate::{CalibrateError, Calibration, Codes, OwnText, calibrate, own_text};
use tessera_engine::decoder::program;
use tessera_engine::machine::Machine;
use tessera_engine::model::Model;
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_engine::request::EngineOptions;
use tessera_engine::template::{Message, RenderOptions, TemplateChoice};
use tessera_engine::text::Text;
use tessera_weights::arch::Param;
use tessera_weights::convert::{self, ConvertOptions, Loss, SourceNames, Staging};
use tessera_weights::files;
use tessera_weights::scheme::{SCHEMES, Scheme};
use tessera_weights::source::TensorSource;

/// Tokens of one text that is calibrated for, at most.
const LEN: usize = 256;
/// Texts that are calibrated for, at most: 7680 tokens of many beginnings.
const TEXTS: usize = 30;
/// Texts besides that are kept to measure with.
const HELD_BACK: usize = 4;
/// Largest text file that is read.
const MAX_TEXT: u64 = 256 << 20;
/// Of the model's own text: so that a conversion can be made again.
const SEED: u64 = 1;

/// What a conversion is made from.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub source: &'a dyn TensorSource,
    pub params: &'a [Param],
    pub names: SourceNames,
    /// The files beside the weights.
    pub files: &'a [(String, Vec<u8>)],
}

/// What optimising did, for `--json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Quality {
    /// The level.
    pub level: &'static str,
    /// Relative squared error of the values of each matrix, and what plain rounding would have left.
    pub matrices: Vec<Matrix>,
    /// Matrices of which nobody knew what they are fed.
    pub uncalibrated: Vec<String>,
    /// On text that was not calibrated for.
    pub held_back: Option<HeldBack>,
}

/// One matrix.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    name: String,
    relative_squared_error: f64,
    plain: f64,
}

/// How far predictions are from the source's.
#[derive(Clone, Debug, Serialize)]
pub struct HeldBack {
    tokens: usize,
    kl: f64,
    kl_plain: f64,
    top1: f64,
    top1_plain: f64,
}

impl Quality {
    pub(super) fn new(level: Optimize, losses: &[Loss], codes: Option<&Codes>) -> Quality {
        let matrix = |loss: &Loss| Matrix {
            name: loss.param.clone(),
            relative_squared_error: loss.error,
            plain: loss.plain,
        };
        Quality {
            level: level.name(),
            matrices: losses.iter().map(matrix).collect(),
            uncalibrated: codes.map_or_else(Vec::new, |codes| codes.left.clone()),
            held_back: None,
        }
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        if let Some(held) = &self.held_back {
            return format!(
                "on {} tokens of other text: KL to the source {:.4} nats (plain rounding {:.4}), the same likeliest \
                 token {:.1} % of the time ({:.1} %)",
                held.tokens,
                held.kl,
                held.kl_plain,
                100.0 * held.top1,
                100.0 * held.top1_plain
            );
        }
        let mean = |of: fn(&Matrix) -> f64| {
            self.matrices.iter().map(of).sum::<f64>() / self.matrices.len().max(1) as f64
        };
        format!(
            "relative squared error of {} matrices {:.5} (plain rounding {:.5})",
            self.matrices.len(),
            mean(|m| m.relative_squared_error),
            mean(|m| m.plain)
        )
    }
}

/// The model as it was, in a folder that is removed again, and the texts.
pub(super) struct Calibrated {
    folder: Staging,
    held_back: Vec<Vec<u32>>,
    pub codes: Codes,
}

/// Refuses a level that the scheme has no codes for.
pub(super) fn check(scheme: &Scheme, settings: &Settings) -> anyhow::Result<()> {
    let level = settings.optimize;
    if scheme.group.is_none() && level != Optimize::None {
        return Err(hinted(
            format!("--optimize {}: {} quantises nothing", level.name(), scheme.name),
            "leave --optimize out, or name a scheme such as q4f16_1",
        ));
    }
    if settings.calibration.is_some() && level != Optimize::Calibrated {
        return Err(hinted("--calibration is read by --optimize calibrated only", "say that, too"));
    }
    Ok(())
}

/// Finds codes: the model runs as it is, over the given text or its own.
pub(super) fn find(
    from: From<'_>,
    scheme: &'static Scheme,
    settings: &Settings,
    dst: &Path,
    out: &Output,
) -> anyhow::Result<Calibrated> {
    // Refused before minutes of work, not after.
    drop(Staging::beside(dst)?);
    let folder = float(from, scheme, dst, out)?;
    let model = ModelFiles::open(folder.path())?;
    let text = Text::open(&model, TemplateChoice::Auto)?;
    let manifest = model.folder.manifest();
    let positions = program(manifest, &model.config, model.scheme, model.semantics)?.positions();
    let len = LEN.min(model.config.context_window_size).min(positions);
    let texts = match &settings.calibration {
        Some(file) => given(file, &text, len, out)?,
        None => own(&model, &text, len, out)?,
    };
    let kept = texts.len().saturating_sub(HELD_BACK).clamp(1, TEXTS);
    let bar = Bar::new(out, 0);
    let mut on = |p: tessera_engine::calibrate::Progress<'_>| {
        bar.show(p.done as u64, p.total as u64, p.param);
        if interrupt::seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let of = Calibration { files: &model, scheme, params: from.params, texts: &texts[..kept] };
    let codes = calibrate(of, &mut on);
    bar.end();
    let codes = codes.map_err(|error| match error {
        CalibrateError::Stopped => anyhow::anyhow!("stopped; nothing was written"),
        error => error.into(),
    })?;
    Ok(Calibrated { folder, held_back: texts[kept..].to_vec(), codes })
}

/// The source as a folder that can run, in the scheme's own dtype.
fn float(from: From<'_>, scheme: &Scheme, dst: &Path, out: &Output) -> anyhow::Result<Staging> {
    let plain = SCHEMES.iter().find(|s| s.group.is_none() && s.dtype == scheme.dtype);
    let plain = plain.context("no scheme without quantisation has this dtype")?;
    write(from, plain, ConvertOptions { whole_f32: true, ..ConvertOptions::default() }, dst, out)
}

/// Writes a folder that is only needed for a while beside `dst`.
fn write(
    from: From<'_>,
    scheme: &'static Scheme,
    options: ConvertOptions<'_>,
    dst: &Path,
    out: &Output,
) -> anyhow::Result<Staging> {
    // By another name than the destination's, which may be there by now.
    let mut name = dst.file_name().unwrap_or_default().to_owned();
    name.push(".aside");
    let folder = Staging::beside(&dst.with_file_name(name))?;
    let mut files = from.files.to_vec();
    for (_, bytes) in files.iter_mut().filter(|(name, _)| name == "mlc-chat-config.json") {
        let mut chat: Value = serde_json::from_slice(bytes)?;
        chat["quantization"] = scheme.name.into();
        *bytes = serde_json::to_vec(&chat)?;
    }
    let bar = Bar::new(out, 0);
    let progress = watched(&bar);
    let options = ConvertOptions { names: from.names, progress: Some(&progress), ..options };
    let written = convert::convert(from.source, from.params, scheme, &options, folder.path(), &files);
    bar.end();
    written?;
    Ok(folder)
}

/// Windows of a file, evenly from all of it.
fn given(file: &Path, text: &Text, len: usize, out: &Output) -> anyhow::Result<Vec<Vec<u32>>> {
    let shown = file.display();
    let bytes = files::named(file, MAX_TEXT).with_context(|| format!("cannot read {shown}"))?;
    let content = String::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("{shown}: byte {} is not UTF-8", e.utf8_error().valid_up_to()))?;
    let tokens = text.tokenizer.encode(&content, true)?;
    let windows: Vec<&[u32]> = tokens.chunks(len).collect();
    let most = TEXTS + HELD_BACK;
    let wanted = most.min(windows.len());
    anyhow::ensure!(wanted > 0, "{shown}: there is no text to calibrate for");
    let (read, all) = (wanted * len, tokens.len());
    if windows.len() > wanted {
        out.note(format_args!("note: {read} of {shown}'s {all} tokens are read, evenly from all of it"));
    } else if windows.len() < most {
        let best = most * len;
        out.note(format_args!("note: {shown} has {all} tokens; calibration can make use of {best}"));
    }
    // What is held back is what lies last.
    Ok((0..wanted).map(|i| windows[i * windows.len() / wanted].to_vec()).collect())
}

/// What the model writes by its own probabilities.
fn own(files: &ModelFiles, text: &Text, len: usize, out: &Output) -> anyhow::Result<Vec<Vec<u32>>> {
    let count = TEXTS + HELD_BACK;
    let room = Room { context: Some(len), sequences: count, memory: None };
    let model = Model::load(files, &Cpu::default(), room)?;
    if model.is_encoder() {
        return Err(hinted(
            "a model that makes embeddings writes no text to calibrate for",
            "give one with --calibration FILE",
        ));
    }
    let options = EngineOptions { max_sequences: count, speculate: false, ..EngineOptions::default() };
    let mut machine = Machine::new(model, text.tokenizer.clone(), options)?;
    let begin = text.tokenizer.encode("", true)?;
    let wanted = OwnText { count, len, opening: opening(text), begin, seed: SEED };
    let bar = Bar::new(out, 0);
    let mut on = |written: usize| {
        bar.show(written as u64, (count * len) as u64, "writing a text to calibrate for");
        if interrupt::seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let texts = own_text(&mut machine, &wanted, &mut on);
    bar.end();
    anyhow::ensure!(!interrupt::seen(), "stopped; nothing was written");
    Ok(texts?)
}

/// What a chat's prompts have in common, up to where the user's text begins; nothing without a template.
fn opening(text: &Text) -> Vec<u32> {
    let prompt = |content: &str| text.chat_prompt(&[Message::new("user", content)], &RenderOptions::answer());
    let (Ok(a), Ok(b)) = (prompt("Why?"), prompt("a")) else { return Vec::new() };
    a.iter().zip(&b).take_while(|(a, b)| a == b).map(|(a, _)| *a).collect()
}

impl Calibrated {
    /// Predictions of what was written, and of plain rounding, beside the source's, on what was held back.
    pub fn measure(
        &self,
        from: From<'_>,
        scheme: &'static Scheme,
        dst: &Path,
        out: &Output,
    ) -> anyhow::Result<Option<HeldBack>> {
        let texts: Vec<&[u32]> = self.held_back.iter().map(Vec::as_slice).filter(|t| t.len() > 1).collect();
        if texts.is_empty() {
            return Ok(None);
        }
        let room = Room {
            context: Some(texts.iter().map(|t| t.len()).max().unwrap_or(1)),
            sequences: 1,
            memory: None,
        };
        let load = |path: &Path| -> anyhow::Result<Model> {
            Ok(Model::load(&ModelFiles::open(path)?, &Cpu::default(), room)?)
        };
        let mut base = load(self.folder.path())?;
        if base.is_encoder() {
            return Ok(None);
        }
        let plain = write(from, scheme, ConvertOptions::default(), dst, out)?;
        let total: usize = 2 * texts.iter().map(|text| text.len()).sum::<usize>();
        let bar = Bar::new(out, 0);
        let mut done = 0;
        let mut of = |path: &Path| -> anyhow::Result<Sums> {
            quality::measure(&mut load(path)?, Some(&mut base), &texts, &mut |n| {
                done += n;
                bar.show(done as u64, total as u64, "comparing with the source");
                anyhow::ensure!(!interrupt::seen(), "stopped");
                Ok(())
            })
        };
        let both = of(dst).and_then(|ours| Ok((ours, of(plain.path())?)));
        bar.end();
        let (ours, plain) = both?;
        Ok(Some(HeldBack {
            tokens: ours.predicted,
            kl: ours.mean(ours.kl),
            kl_plain: plain.mean(plain.kl),
            top1: ours.top1(),
            top1_plain: plain.top1(),
        }))
    }
}

impl Summary {
    /// Keeps what optimising did, and tells it.
    pub(super) fn optimised(&mut self, quality: Quality, out: &Output) {
        if !quality.uncalibrated.is_empty() {
            let (count, first) = (quality.uncalibrated.len(), &quality.uncalibrated[0]);
            self.note(
                out,
                format!(
                    "{count} matrices are not multiplied as they lie, the first is {first}: their scales are \
                     searched for, and do not know what they are fed"
                ),
            );
        }
        out.note(quality.line());
        self.quality = Some(quality);
    }
}
