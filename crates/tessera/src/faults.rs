//! What is wrong with an MLC folder beyond its shards, by the code that `run` opens it with; for the commands that look
//! at, verify and convert one.

use crate::hints;
use crate::output::hint_of;
use std::path::Path;
use tessera_engine::decoder;
use tessera_engine::open::ModelFiles;
use tessera_engine::template::TemplateChoice;
use tessera_engine::text::{Text, TextError};
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::ConfigError;
use tessera_weights::folder::Folder;
use tessera_weights::manifest::MANIFEST_NAMES;
use tessera_weights::model::{CHAT_CONFIG, Description, FolderModelError};
use tessera_weights::verify::Defect;

/// One of them is the tokenizer.
const TOKENIZERS: [&str; 3] = ["tokenizer.json", "tokenizer.model", "vocab.json"];

/// Something that is wrong, and what to do about it.
#[derive(Debug)]
pub struct Fault {
    /// What is wrong.
    pub defect: Defect,
    /// What to do.
    pub hint: Option<String>,
}

/// All that is wrong, and what is only worth knowing.
#[derive(Debug, Default)]
pub struct Faults {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is not.
    pub notes: Vec<String>,
}

impl Faults {
    fn push(&mut self, [file, field, expected, found]: [&str; 4], error: &(dyn std::error::Error + 'static)) {
        let hint = hints::of(error);
        self.add([file, field, expected, found], error.to_string(), hint);
    }

    fn add(&mut self, [file, field, expected, found]: [&str; 4], message: String, hint: Option<String>) {
        let text = |t: &str| t.to_owned();
        let (file, field, expected, found) = (text(file), text(field), text(expected), text(found));
        let defect = Defect { file, tensor: None, field, expected, found, message };
        self.faults.push(Fault { defect, hint });
    }

    /// What the config and the tensors are wrong about.
    pub fn of_description(&mut self, description: &Description) {
        self.notes.extend(description.notes.iter().cloned());
        description.errors.iter().for_each(|error| self.of_model(error));
        description.not_runnable.iter().for_each(|error| self.of_model(error));
    }

    fn of_model(&mut self, error: &FolderModelError) {
        let (file, field, expected, found) = match error {
            FolderModelError::Folder(_) => (None, "tensor", "tensors of a known scheme", "others"),
            FolderModelError::ChatConfig { file, .. } => (Some(file), "file", "a chat config", "another"),
            FolderModelError::Config { file, .. } => {
                (Some(file), "model_config", "one to be used", "another")
            }
            FolderModelError::File { file, .. } => (Some(file), "file", "one that can be read", "another"),
            FolderModelError::Scheme { file, .. } => {
                (Some(file), "quantization", "a known scheme", "another")
            }
            FolderModelError::OtherScheme { file, stated, found } => {
                (Some(file), "quantization", *found, *stated)
            }
        };
        let file = file.and_then(|f| f.file_name()).and_then(|f| f.to_str()).unwrap_or(CHAT_CONFIG);
        self.push([file, field, expected, found], error);
    }

    /// Why a checkpoint cannot be converted.
    pub fn of_conversion(&mut self, error: &anyhow::Error) {
        let words = ["config.json", "file", "one that can be converted", "another"];
        self.add(words, format!("{error:#}"), hint_of(error));
    }

    /// Files beside the shards that `run` may not need, but others do.
    pub fn of_files(&mut self, folder: &Path, manifest: &str, chat: Option<&ChatConfig>) {
        for name in chat.map_or(&[][..], |c| &c.tokenizer_files) {
            if !folder.join(name).is_file() {
                let message =
                    format!("{name} is listed in {CHAT_CONFIG} but is missing; fetch it from the source");
                self.add([name, "tokenizer_files", "a file", "nothing"], message, None);
            }
        }
        if let Some(Err(error)) = chat.and_then(|c| c.conv_template.as_ref()).map(|c| c.resolve()) {
            self.push([CHAT_CONFIG, "conv_template", "a known template", "another"], &error);
        }
        // The other way to store the same tensors, for machines with 16-bit loads: MLC writes it beside the first.
        for name in MANIFEST_NAMES.iter().filter(|name| name.contains("b16") && **name != manifest) {
            let twin = folder.join(name);
            if twin.exists()
                && let Err(error) = Folder::open(&twin)
            {
                self.push([name, "file", "a manifest of these shards", "another"], &error);
            }
        }
    }

    /// Whatever else `run` would refuse: tokenizer, template files, defaults, tensors that are not the config's.
    pub fn of_use(&mut self, folder: &Folder) {
        let description = Description::of_folder(folder);
        if description.model.is_none() {
            return;
        }
        let words = [CHAT_CONFIG, "model_config", "a model of these tensors", "another"];
        // What is wrong with the description has been told.
        let Ok(files) = ModelFiles::of(folder.clone(), description) else { return };
        if !TOKENIZERS.iter().any(|name| folder.path().join(name).exists()) {
            self.notes.push("no tokenizer: it can be verified and converted but not run".to_owned());
        } else if let Err(error) = Text::open(&files, TemplateChoice::Auto) {
            let file = if matches!(error, TextError::Defaults(_)) { CHAT_CONFIG } else { "tokenizer" };
            self.push([file, "file", "one that can be used", "another"], &error);
        }
        let manifest = files.folder.manifest();
        if let Err(error) = decoder::program(manifest, &files.config, files.scheme, files.semantics) {
            self.push(words, &error);
        }
    }
}

/// Whether an error may only say that a shard or the manifest is damaged, which a verification tells better.
pub fn may_follow(error: &FolderModelError) -> bool {
    matches!(
        error,
        FolderModelError::Folder(_) | FolderModelError::Config { source: ConfigError::Shapes { .. }, .. }
    )
}
