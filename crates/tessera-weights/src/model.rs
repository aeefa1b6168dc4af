//! What a folder is: its config files and its tensors, put together once for every command.
//!
//! The sizes are what `mlc-chat-config.json` says, else `config.json`, else what the shapes tell. The quantisation
//! is what the chat config says if the tensors agree, else what they tell.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::arch::{self, Param, Semantics, Sizes};
use crate::chat_config::{ChatConfig, ChatConfigError};
use crate::config::{ConfigError, ModelConfig};
use crate::embedding::{self, Embeddings};
#[cfg(feature = "fs")]
use crate::files;
use crate::folder::{Folder, FolderError, infer_scheme};
use crate::json;
use crate::scheme::{Scheme, SchemeError};

/// MLC's config.
pub const CHAT_CONFIG: &str = "mlc-chat-config.json";
/// Hugging Face's.
pub const HF_CONFIG: &str = "config.json";
/// Longest config file that is read.
pub const MAX_CONFIG: u64 = 16 << 20;

/// Why a folder's tensors are no model.
#[derive(Debug, thiserror::Error)]
pub enum FolderModelError {
    /// The tensors.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The chat config, which its own errors name.
    #[error("{}: {source}", file.parent().unwrap_or(file).display())]
    ChatConfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: ChatConfigError,
    },
    /// The hyper-parameters.
    #[error("{file}: {source}")]
    Config {
        /// The file, or the manifest where there is none.
        file: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A file that is no JSON or cannot be read.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The quantisation's name.
    #[error("{file}: {source}")]
    Scheme {
        /// The file that names it.
        file: PathBuf,
        /// Why it cannot be used.
        source: SchemeError,
    },
    /// The config and the tensors disagree.
    #[error("{file}: quantization is {stated}, but the tensors are those of {found}")]
    OtherScheme {
        /// The file.
        file: PathBuf,
        /// Its field.
        stated: &'static str,
        /// What the tensors look like.
        found: &'static str,
    },
}

/// A folder's model: which parameters it has and how they are stored.
#[derive(Clone, Debug)]
pub struct FolderModel {
    /// MLC's name of the architecture.
    pub model_type: String,
    /// The quantisation.
    pub scheme: &'static Scheme,
    /// The architecture's parameters.
    pub params: Vec<Param>,
    /// Their sizes.
    pub sizes: Sizes,
}

/// A folder as far as it can be told.
#[derive(Debug, Default)]
pub struct Description {
    /// `mlc-chat-config.json` as it is.
    pub chat_text: Option<Vec<u8>>,
    /// The same, understood.
    pub chat: Option<ChatConfig>,
    /// MLC's name of the architecture.
    pub model_type: Option<String>,
    /// The quantisation.
    pub scheme: Option<&'static Scheme>,
    /// The hyper-parameters.
    pub config: Option<ModelConfig>,
    /// Why there are none although the parameters are known: a setting that cannot be computed. It is a fault of the
    /// folder if its family is one that runs.
    pub not_runnable: Option<FolderModelError>,
    /// What vectors it makes of texts.
    pub embeddings: Embeddings,
    /// Parameters and quantisation together; `None` if there are errors.
    pub model: Option<FolderModel>,
    /// What a user should be told: guesses, odd fields.
    pub notes: Vec<String>,
    /// Everything that is wrong.
    pub errors: Vec<FolderModelError>,
}

/// Where a folder's files and tensors come from.
pub struct Sources<'a> {
    /// The folder, for messages.
    pub root: &'a Path,
    /// The manifest's name, for messages.
    pub manifest: &'a str,
    /// A small file of the folder, `None` if it is not there.
    pub read: &'a dyn Fn(&str) -> std::io::Result<Option<Vec<u8>>>,
    /// A tensor's shape by its name.
    pub shape: &'a dyn Fn(&str) -> Option<Vec<usize>>,
    /// The quantisation that the tensors have.
    pub scheme: &'a dyn Fn() -> Result<&'static Scheme, FolderError>,
}

impl Sources<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Description {
    /// Of an opened folder.
    #[cfg(feature = "fs")]
    pub fn of_folder(folder: &Folder) -> Description {
        let root = folder.path();
        Description::of_opened(folder, &|name| files::read(&root.join(name), MAX_CONFIG))
    }

    /// Of an opened folder whose other files come from `read`.
    pub fn of_opened(
        folder: &Folder,
        read: &dyn Fn(&str) -> std::io::Result<Option<Vec<u8>>>,
    ) -> Description {
        Description::of(&Sources {
            root: folder.path(),
            manifest: folder.manifest_name(),
            read,
            shape: &|name| folder.tensor(name).map(|t| t.shape.clone()),
            scheme: &|| infer_scheme(folder),
        })
    }

    /// Of anything that has a folder's files and shapes.
    pub fn of(from: &Sources<'_>) -> Description {
        let mut all = Description::default();
        all.read_chat(from);
        let hf = all.json(from, HF_CONFIG);
        let sizes = all.sizes(from, hf.as_ref());
        all.quantisation(from);
        all.embeddings(from);
        let params = match (&all.model_type, &sizes) {
            (Some(model_type), Some(sizes)) => match arch::params(model_type, sizes) {
                Ok(params) => Some(params),
                Err(error) => {
                    all.wrong_config(from.file(CHAT_CONFIG), error.into());
                    None
                }
            },
            _ => None,
        };
        if all.errors.is_empty()
            && let (Some(model_type), Some(scheme), Some(params), Some(sizes)) =
                (all.model_type.clone(), all.scheme, params, sizes)
        {
            all.model = Some(FolderModel { model_type, scheme, params, sizes });
        }
        all
    }

    /// What is needed to run it, or the first thing that is wrong.
    pub fn into_parts(self) -> Result<(ModelConfig, &'static Scheme, Option<ChatConfig>), FolderModelError> {
        if let Some(error) = self.errors.into_iter().chain(self.not_runnable).next() {
            return Err(error);
        }
        match (self.config, self.scheme) {
            (Some(config), Some(scheme)) => Ok((config, scheme, self.chat)),
            // Without an error both are there.
            _ => Err(FolderModelError::Config {
                file: PathBuf::from(CHAT_CONFIG),
                source: ConfigError::Missing { field: "model_config".to_owned() },
            }),
        }
    }

    fn wrong_config(&mut self, file: PathBuf, source: ConfigError) {
        self.errors.push(FolderModelError::Config { file, source });
    }

    fn bytes(&mut self, from: &Sources<'_>, name: &str) -> Option<Vec<u8>> {
        (from.read)(name).unwrap_or_else(|e| {
            self.errors.push(FolderModelError::File { file: from.file(name), what: e.to_string() });
            None
        })
    }

    fn json(&mut self, from: &Sources<'_>, name: &str) -> Option<Value> {
        let bytes = self.bytes(from, name)?;
        let parsed = json::parse(&bytes);
        let what = |e| FolderModelError::File { file: from.file(name), what: format!("invalid JSON: {e}") };
        parsed.map_err(|e| self.errors.push(what(e))).ok()
    }

    fn read_chat(&mut self, from: &Sources<'_>) {
        let Some(bytes) = self.bytes(from, CHAT_CONFIG) else { return };
        match ChatConfig::parse(&bytes) {
            Ok(chat) => {
                for key in &chat.unknown {
                    self.notes.push(format!("{CHAT_CONFIG}: field {key:?} is not known and is ignored"));
                }
                if chat.model_config.is_empty() {
                    self.notes.push(format!("{CHAT_CONFIG}: no model_config (a folder of before 2023-12)"));
                }
                self.chat = Some(chat);
            }
            Err(source) => {
                self.errors.push(FolderModelError::ChatConfig { file: from.file(CHAT_CONFIG), source });
            }
        }
        self.chat_text = Some(bytes);
    }

    /// The hyper-parameters, and the sizes that decide the parameters.
    fn sizes(&mut self, from: &Sources<'_>, hf: Option<&Value>) -> Option<Sizes> {
        let chat = self.chat.as_ref().filter(|c| !c.model_config.is_empty());
        let text = self.chat_text.as_deref().filter(|_| chat.is_some());
        let mlc: Option<Value> = text.and_then(|text| serde_json::from_slice(text).ok());
        let (file, inner, found) = match (&mlc, hf) {
            (Some(mlc), _) => (CHAT_CONFIG, mlc.get("model_config"), ModelConfig::from_mlc(mlc)),
            (None, Some(hf)) => (HF_CONFIG, Some(hf), ModelConfig::from_hf(hf)),
            (None, None) => (from.manifest, None, ModelConfig::from_shapes(from.shape)),
        };
        let outer = chat.and_then(|c| c.model_type.as_deref()).filter(|_| mlc.is_some());
        let stated = outer.or_else(|| inner?.get("model_type")?.as_str());
        self.model_type =
            stated.map(str::to_owned).or_else(|| found.as_ref().ok().map(|c| c.model_type.clone()));
        let sizes = match (stated, inner) {
            (Some(model_type), Some(inner)) => Sizes::from_json(model_type, inner).ok(),
            _ => found.as_ref().ok().map(Sizes::from),
        };
        match found {
            Ok(mut config) => {
                let said = (config.qkv_bias, config.attention_bias, config.mlp_bias);
                config.see_biases(&|name| (from.shape)(name).is_some());
                let seen = (config.qkv_bias, config.attention_bias, config.mlp_bias);
                let (qkv_bias, out_bias, mlp_bias) = seen;
                let sizes = match seen == said {
                    true => sizes,
                    false => sizes.map(|sizes| Sizes { qkv_bias, out_bias, mlp_bias, ..sizes }),
                };
                // The folder's own config is enough, should the other be one that cannot be used.
                if let (CHAT_CONFIG, Some(Ok(hf))) = (file, hf.map(ModelConfig::from_hf)) {
                    compare(&config, &hf, &mut self.notes);
                }
                self.notes.extend(config.guesses.iter().cloned());
                self.config = Some(config);
                sizes
            }
            Err(source) => {
                let error = FolderModelError::Config { file: from.file(file), source };
                match sizes {
                    Some(_) => self.not_runnable = Some(error),
                    None => self.errors.push(error),
                }
                sizes
            }
        }
    }

    fn embeddings(&mut self, from: &Sources<'_>) {
        let encoder = self.config.as_ref().is_some_and(|c| c.block(Semantics::Authors).is_encoder());
        self.embeddings.encoder = encoder;
        let read = |name: &str| (from.read)(name);
        let unreadable = RefCell::new(None);
        let authors = embedding::of_modules(|name| {
            read(name).unwrap_or_else(|e| {
                let what = e.to_string();
                *unreadable.borrow_mut() = Some(FolderModelError::File { file: from.file(name), what });
                None
            })
        });
        self.errors.extend(unreadable.into_inner());
        match authors {
            Ok(authors) => self.embeddings.authors = authors,
            Err((name, what)) => self.errors.push(FolderModelError::File { file: from.file(name), what }),
        }
        let task = self.chat.as_ref().and_then(|chat| chat.model_task.as_deref());
        let metadata = self.chat.as_ref().and_then(|chat| chat.embedding_metadata.as_ref());
        match embedding::of_metadata(task, metadata) {
            Ok(mlc) => self.embeddings.mlc = mlc,
            Err(what) => self.errors.push(FolderModelError::File { file: from.file(CHAT_CONFIG), what }),
        }
        if let Embeddings { authors: Some(authors), mlc: Some(mlc), .. } = self.embeddings
            && authors != mlc
        {
            self.notes.push(format!(
                "{} says {}, {CHAT_CONFIG} {}; MLC takes the second",
                embedding::POOLING,
                authors,
                mlc
            ));
        }
    }

    fn quantisation(&mut self, from: &Sources<'_>) {
        let file = || from.file(CHAT_CONFIG);
        let Some(name) = self.chat.as_ref().and_then(|c| c.quantization.as_deref()) else {
            match (from.scheme)() {
                Ok(scheme) => {
                    let name = scheme.name;
                    self.notes.push(format!("The quantisation is assumed to be {name}, from the tensors."));
                    self.scheme = Some(scheme);
                }
                Err(error) => self.errors.push(error.into()),
            }
            return;
        };
        match Scheme::find(name) {
            Ok(stated) => {
                self.scheme = Some(stated);
                // Where the tensors do not tell, every matrix is still checked when it is read.
                if let Ok(found) = (from.scheme)()
                    && !stated.may_be(found)
                {
                    let (stated, found) = (stated.name, found.name);
                    self.errors.push(FolderModelError::OtherScheme { file: file(), stated, found });
                }
            }
            Err(source) => self.errors.push(FolderModelError::Scheme { file: file(), source }),
        }
    }
}

/// MLC's converter loses some RoPE settings; the original config beside the folder tells.
fn compare(mlc: &ModelConfig, hf: &ModelConfig, notes: &mut Vec<String>) {
    if mlc.rope_theta != hf.rope_theta {
        notes.push(format!(
            "{CHAT_CONFIG} has position_embedding_base {}, {HF_CONFIG} rope_theta {}; the first is used",
            mlc.rope_theta, hf.rope_theta
        ));
    }
    if mlc.rope_scaling != hf.rope_scaling {
        notes.push(format!(
            "{CHAT_CONFIG} has rope scaling {:?}, {HF_CONFIG} {:?}; the first is used",
            mlc.rope_scaling, hf.rope_scaling
        ));
    }
}
