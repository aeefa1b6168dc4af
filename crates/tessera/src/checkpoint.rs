//! What lies at a path that is to be converted or looked at: an MLC folder, a Hugging Face folder or a
//! GGUF file, opened.

use crate::faults::{Fault, Faults};
use crate::output::hinted;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use tessera_hub::{Kind, kind_of};
use tessera_weights::embedding::{MODULES, POOLING};
use tessera_weights::files;
use tessera_weights::folder::{Folder, FolderError};
use tessera_weights::gguf::{self, GgufSource};
use tessera_weights::hf::HfFolder;
use tessera_weights::model::{Description, FolderModel};
use tessera_weights::source::TensorSource;

/// Tokenizer files that MLC lists in `tokenizer_files`, in its order.
pub const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
];

/// Files that hold the chat template where `tokenizer_config.json` does not. MLC does not know them, but
/// without them the template would be lost.
const TEMPLATE_FILES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];

/// No file beside the weights is larger.
const MAX_FILE: u64 = 256 << 20;

/// An opened model of any kind.
pub enum Model {
    /// Weights of a checkpoint.
    Checkpoint(Box<Checkpoint>),
    /// An MLC folder.
    Mlc(Box<MlcFolder>),
}

/// A checkpoint: Hugging Face's folder, or what a GGUF file is read as.
pub struct Checkpoint {
    /// `Hugging Face` or `GGUF`.
    pub kind: &'static str,
    /// The weights; `None` if only the config is there.
    pub weights: Option<Box<dyn TensorSource>>,
    /// `config.json`.
    pub config: Value,
    /// The block type of a GGUF's weights, if it is quantised.
    pub quantised: Option<String>,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// Files of the tokenizer, the template and the pooling.
    pub files: Vec<(String, Vec<u8>)>,
    /// Keys of a GGUF file that are not read.
    pub unknown: Vec<String>,
}

/// An MLC folder with its config.
pub struct MlcFolder {
    /// The tensors.
    pub folder: Folder,
    /// What it is.
    pub description: Description,
}

impl MlcFolder {
    /// What the folder holds; the error is the first thing for which `run` would refuse it.
    pub fn model(&self) -> anyhow::Result<&FolderModel> {
        let mut all = Faults::default();
        all.of_description(&self.description);
        if all.faults.is_empty() {
            all.of_use(&self.folder);
        }
        if let Some(Fault { defect, hint }) = all.faults.into_iter().next() {
            return Err(match hint {
                Some(hint) => hinted(defect.message, hint),
                None => anyhow::anyhow!(defect.message),
            });
        }
        let none = || anyhow::anyhow!("{}: not a model", self.folder.path().display());
        self.description.model.as_ref().ok_or_else(none)
    }

    /// Files of the tokenizer, the template and the pooling.
    pub fn files(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        read_files(self.folder.path())
    }
}

impl Checkpoint {
    /// A file beside the weights.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        find(&self.files, name)
    }

    /// Adds sampling settings that the source does not have itself.
    pub fn recommend(&mut self, settings: &Map<String, Value>) {
        if settings.is_empty() {
            return;
        }
        let config = self.generation_config.get_or_insert_with(|| Value::Object(Map::new()));
        // A generation_config.json that is no object says nothing, and is left for who reads it.
        if let Value::Object(config) = config {
            for (key, value) in settings {
                config.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
}

/// A file among some.
pub fn find<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice())
}

/// Opens what is at `path`. With `config_only` a Hugging Face folder need not have weights.
pub fn open(path: &Path, config_only: bool) -> anyhow::Result<Model> {
    let kind = match kind_of(path) {
        Ok(kind) => kind,
        Err(_) if files::starts_with(path, b"GGUF") => Kind::Gguf(path.to_owned()),
        // The manifest itself, or what lies about as one.
        Err(_) if path.is_file() => Kind::Mlc(""),
        Err(_) if path.is_dir() && path.join("config.json").is_file() => Kind::Checkpoint,
        Err(error) => {
            let text = error.to_string();
            if path.is_dir() {
                // An interrupted conversion says more than "no model".
                let error = Folder::open(path).err().map_or(text, |e| e.to_string());
                return Err(hinted(
                    error,
                    "give a Hugging Face folder (config.json and .safetensors), a .gguf file, or an MLC folder",
                ));
            }
            return Err(error.into());
        }
    };
    Ok(match kind {
        Kind::Mlc(_) => Model::Mlc(Box::new(open_mlc(path)?)),
        Kind::Gguf(file) => Model::Checkpoint(Box::new(open_gguf(&file)?)),
        Kind::Checkpoint => Model::Checkpoint(Box::new(open_hf(path, config_only)?)),
    })
}

/// Opens an MLC folder, or the one that a manifest lies in.
pub fn open_mlc(path: &Path) -> anyhow::Result<MlcFolder> {
    let folder = Folder::open(path).map_err(|error| match error {
        FolderError::MissingShard { .. }
        | FolderError::TruncatedShard { .. }
        | FolderError::LongShard { .. }
        | FolderError::LfsPointer { .. }
        | FolderError::Html { .. }
        | FolderError::Manifest { .. } => hinted(
            error.to_string(),
            format!("fetch this file again; `tessera verify {}` lists all that is wrong", path.display()),
        ),
        other => other.into(),
    })?;
    let description = Description::of_folder(&folder);
    Ok(MlcFolder { folder, description })
}

fn open_gguf(path: &Path) -> anyhow::Result<Checkpoint> {
    let model = gguf::open(path)?;
    let quantised = quantised(&model.source);
    let weights: Box<GgufSource> = Box::new(model.source);
    Ok(Checkpoint {
        kind: "GGUF",
        weights: Some(weights),
        config: model.config,
        quantised,
        generation_config: model.generation_config,
        files: model.tokenizer_files,
        unknown: model.unknown,
    })
}

/// The commonest of a file's block types; `None` if it holds plain numbers only.
fn quantised(source: &GgufSource) -> Option<String> {
    let mut elements: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in source.gguf().tensors().iter().filter(|t| t.ty.block > 1) {
        *elements.entry(tensor.ty.name).or_default() += tensor.numel;
    }
    elements.into_iter().max_by_key(|(_, n)| *n).map(|(name, _)| name.to_owned())
}

fn open_hf(path: &Path, config_only: bool) -> anyhow::Result<Checkpoint> {
    let config = json(path, "config.json")?.ok_or_else(|| {
        hinted(format!("{}: no config.json", path.display()), "fetch it from the model's page")
    })?;
    let weights = match HfFolder::open(path) {
        Ok(folder) => Some(Box::new(folder) as Box<dyn TensorSource>),
        Err(tessera_weights::hf::HfError::NoWeights { .. }) if config_only => None,
        Err(error) => return Err(error.into()),
    };
    let generation_config = json(path, "generation_config.json")?;
    Ok(Checkpoint {
        kind: "Hugging Face",
        weights,
        config,
        quantised: None,
        generation_config,
        files: read_files(path)?,
        unknown: Vec::new(),
    })
}

fn json(folder: &Path, name: &str) -> anyhow::Result<Option<Value>> {
    let path = folder.join(name);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    match tessera_weights::json::parse(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(e) => Err(hinted(format!("{}: invalid JSON: {e}", path.display()), "fetch this file again")),
    }
}

fn read_files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in TOKENIZER_FILES.into_iter().chain(TEMPLATE_FILES).chain([MODULES, POOLING]) {
        if let Some(bytes) = read(&folder.join(name))? {
            files.push((name.to_owned(), bytes));
        }
    }
    Ok(files)
}

/// A file's bytes; `None` if there is no such file.
pub fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    files::read(path, MAX_FILE).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}
