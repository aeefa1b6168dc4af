//! `tessera verify`: every shard's MD5, every tensor's shape, type and values.

use crate::checkpoint;
use crate::cli::VerifyArgs;
use crate::models;
use crate::output::Output;
use crate::progress::{Bar, use_threads};
use std::path::Path;
use std::process::ExitCode;
use tessera_engine::decoder;
use tessera_engine::open::{ModelFiles, OpenError};
use tessera_engine::template::TemplateChoice;
use tessera_engine::text::{Text, TextError};
use tessera_weights::arch::StoredTensor;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::convert::{FolderModel, FolderModelError};
use tessera_weights::folder::{Folder, FolderError, infer_scheme};
use tessera_weights::manifest::{MANIFEST_NAMES, Manifest};
use tessera_weights::verify::{self, Defect, ExpectedTensor, Note, Report, VerifyOptions};

const CONFIG: &str = "mlc-chat-config.json";
/// One of them is the tokenizer.
const TOKENIZERS: [&str; 3] = ["tokenizer.json", "tokenizer.model", "vocab.json"];

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

/// Verifies a folder against its own config, or against what its shapes say if it has none.
pub fn check(path: &Path, out: &Output) -> anyhow::Result<Report> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let mut beside = Beside::default();
    let chat = beside.chat_config(folder)?;
    let expected = beside.expected(path, folder, chat.as_ref())?;
    let bar = Bar::new(out, 0);
    let options = VerifyOptions { expected: expected.as_deref(), ..VerifyOptions::default() };
    let mut report = verify::verify(path, options, &|p| bar.show(p.done, p.total, ""));
    bar.end();
    if report.manifest.is_some() && report.is_clean() && beside.defects.is_empty() {
        beside.as_run_opens_it(path, folder);
    }
    // Without a manifest this is no MLC folder, and its other files mean nothing.
    if report.manifest.is_some() {
        report.defects.extend(beside.defects);
        report.notes.extend(beside.notes.into_iter().map(|message| Note {
            file: None,
            tensor: None,
            message,
        }));
    }
    Ok(report)
}

/// What the files beside the shards have to say.
#[derive(Default)]
struct Beside {
    defects: Vec<Defect>,
    notes: Vec<String>,
}

impl Beside {
    fn defect(&mut self, file: &str, field: &str, expected: &str, found: &str, message: String) {
        let text = |t: &str| t.to_owned();
        let (file, field, expected, found) = (text(file), text(field), text(expected), text(found));
        self.defects.push(Defect { file, tensor: None, field, expected, found, message });
    }

    /// Reads the chat config and looks at what it names.
    fn chat_config(&mut self, folder: &Path) -> anyhow::Result<Option<ChatConfig>> {
        let Some(bytes) = checkpoint::read(&folder.join(CONFIG))? else {
            self.notes.push(format!("no {CONFIG}; what it would say is guessed from the tensors"));
            return Ok(None);
        };
        let chat = match ChatConfig::parse(&bytes) {
            Ok(chat) => chat,
            Err(error) => {
                self.defect(CONFIG, "file", "a chat config", "something else", error.to_string());
                return Ok(None);
            }
        };
        for name in &chat.tokenizer_files {
            if !folder.join(name).is_file() {
                let message =
                    format!("{name} is listed in {CONFIG} but is missing; fetch it from the source");
                self.defect(name, "tokenizer_files", "a file", "nothing", message);
            }
        }
        if let Some(Err(error)) = chat.conv_template.as_ref().map(|c| c.resolve()) {
            self.defect(CONFIG, "conv_template", "a known template", "another", error.to_string());
        }
        Ok(Some(chat))
    }

    /// Whatever `run` would refuse, by the same code. It stops at the first thing that is wrong, so it is asked once
    /// everything else is right.
    fn as_run_opens_it(&mut self, path: &Path, folder: &Path) {
        // The other way to store the same tensors, for machines with 16-bit loads: MLC writes it beside the first.
        for name in MANIFEST_NAMES.iter().filter(|name| name.contains("b16")) {
            let twin = folder.join(name);
            if twin.exists()
                && twin != path
                && let Err(error) = Folder::open(&twin)
            {
                self.defect(name, "file", "a manifest of these shards", "another", error.to_string());
            }
        }
        let files = match ModelFiles::open(path) {
            Ok(files) => files,
            Err(OpenError::Config { source, .. }) if !self.runs(folder) => {
                return self.notes.push(format!("it can be converted but not run: {source}"));
            }
            Err(error) => {
                return self.defect(CONFIG, "file", "a folder that opens", "another", error.to_string());
            }
        };
        if !TOKENIZERS.iter().any(|name| folder.join(name).exists()) {
            self.notes.push("no tokenizer: it can be verified and converted but not run".to_owned());
        } else if let Err(error) = Text::open(&files, TemplateChoice::Auto) {
            let file = if matches!(error, TextError::Defaults(_)) { CONFIG } else { "tokenizer" };
            self.defect(file, "file", "one that can be used", "another", error.to_string());
        }
        if decoder::FAMILIES.contains(&files.config.model_type.as_str())
            && let Err(error) = decoder::program(&files.folder, &files.config, files.scheme)
        {
            self.defect(CONFIG, "model_config", "a model of these tensors", "another", error.to_string());
        }
    }

    /// Whether the folder's family is one that runs.
    fn runs(&self, folder: &Path) -> bool {
        let text = checkpoint::read(&folder.join(CONFIG)).ok().flatten().unwrap_or_default();
        let chat = ChatConfig::parse(&text).ok();
        chat.and_then(|c| c.model_type).is_none_or(|t| decoder::FAMILIES.contains(&t.as_str()))
    }

    /// The architecture's tensors, where they can be told.
    fn expected(
        &mut self,
        path: &Path,
        folder: &Path,
        chat: Option<&ChatConfig>,
    ) -> anyhow::Result<Option<Vec<ExpectedTensor>>> {
        // Not by opening the folder: a damaged shard must not keep the shapes from being compared.
        let manifest = match path.is_dir() {
            true => MANIFEST_NAMES.iter().map(|name| folder.join(name)).find(|p| p.is_file()),
            false => Some(path.to_owned()),
        };
        let Some(manifest) = manifest else { return Ok(None) };
        // Whatever is wrong with the manifest is reported by the verification itself.
        let Ok(manifest) = Manifest::parse(&checkpoint::read(&manifest)?.unwrap_or_default()) else {
            return Ok(None);
        };
        let shape = |name: &str| manifest.record(name).map(|r| r.shape.clone());
        let infer = || -> Result<_, FolderError> { infer_scheme(&Folder::open(path)?) };
        match FolderModel::of(chat, &shape, infer) {
            Ok(model) => {
                self.notes.extend(model.guesses.iter().cloned());
                let stored = model.params.iter().flat_map(|p| p.stored(model.scheme));
                let expected =
                    |t: StoredTensor| ExpectedTensor { name: t.name, shape: t.shape, dtype: t.dtype };
                return Ok(Some(stored.map(expected).collect()));
            }
            Err(FolderModelError::OtherScheme { stated, found }) => {
                let message = format!("quantization is {stated}, but the tensors are those of {found}");
                self.defect(CONFIG, "quantization", found, stated, message);
            }
            Err(FolderModelError::Scheme(error)) => {
                self.defect(CONFIG, "quantization", "a known scheme", "another", error.to_string());
            }
            Err(FolderModelError::Arch(error)) => {
                self.defect(CONFIG, "model_config", "a known architecture", "another", error.to_string());
            }
            Err(error) => self.notes.push(format!(
                "names and shapes are not compared with an architecture, because none could be told: {error}"
            )),
        }
        Ok(None)
    }
}
