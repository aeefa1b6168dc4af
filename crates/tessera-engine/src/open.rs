//! A model folder on disk: its tensors, and what says how they are to be used.

#[cfg(feature = "fs")]
use serde_json::Value;
#[cfg(feature = "fs")]
use std::path::Path;
use std::path::PathBuf;
use tessera_weights::chat_config::{ChatConfig, ChatConfigError};
use tessera_weights::config::{ConfigError, ModelConfig};
#[cfg(feature = "fs")]
use tessera_weights::files;
#[cfg(feature = "fs")]
use tessera_weights::folder::infer_scheme;
use tessera_weights::folder::{Folder, FolderError};
use tessera_weights::scheme::{Scheme, SchemeError};

/// Longest config file that is read.
#[cfg(feature = "fs")]
const MAX_CONFIG: u64 = 16 << 20;

/// A folder whose manifest, shards and config fit together.
#[derive(Debug)]
pub struct ModelFiles {
    /// Tensors.
    pub folder: Folder,
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// Quantisation.
    pub scheme: &'static Scheme,
    /// `mlc-chat-config.json`, where there is one.
    pub chat_config: Option<ChatConfig>,
    /// What a user should be told: guesses, odd fields.
    pub notes: Vec<String>,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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

#[cfg(feature = "fs")]
impl ModelFiles {
    /// Opens a folder, or a manifest in it.
    pub fn open(path: &Path) -> Result<ModelFiles, OpenError> {
        let folder = Folder::open(path)?;
        let mut notes: Vec<String> = folder.manifest().warnings().iter().map(|w| w.message.clone()).collect();
        let root = folder.path().to_owned();
        let (mlc, hf) = (root.join("mlc-chat-config.json"), root.join("config.json"));
        let mut chat_config = None;
        let mut config = None;
        if let Some(bytes) = read(&mlc)? {
            let parsed = ChatConfig::parse(&bytes)
                .map_err(|source| OpenError::ChatConfig { file: mlc.clone(), source })?;
            for key in &parsed.unknown {
                notes.push(format!("mlc-chat-config.json: field {key:?} is not known and is ignored"));
            }
            if parsed.model_config.is_empty() {
                notes.push("mlc-chat-config.json: no model_config (a folder of before 2023-12)".to_owned());
            } else {
                let c = ModelConfig::from_mlc(&json(&mlc, &bytes)?);
                config = Some(c.map_err(|source| OpenError::Config { file: mlc.clone(), source })?);
            }
            chat_config = Some(parsed);
        }
        if let Some(bytes) = read(&hf)? {
            match (&config, ModelConfig::from_hf(&json(&hf, &bytes)?)) {
                (None, c) => {
                    config = Some(c.map_err(|source| OpenError::Config { file: hf.clone(), source })?);
                }
                (Some(a), Ok(b)) => compare(a, &b, &mut notes),
                // The folder's own config is enough.
                (Some(_), Err(_)) => {}
            }
        }
        let mut config = match config {
            Some(config) => config,
            None => {
                let shape = |name: &str| folder.tensor(name).map(|t| t.shape.clone());
                let file = root.join(folder.manifest_name());
                ModelConfig::from_shapes(&shape).map_err(|source| OpenError::Config { file, source })?
            }
        };
        config.see_biases(&|name| folder.tensor(name).is_some());
        notes.extend(config.guesses.iter().cloned());

        let stated = chat_config.as_ref().and_then(|c| c.quantization.as_deref());
        let scheme = match stated {
            Some(name) => {
                let scheme =
                    Scheme::find(name).map_err(|source| OpenError::Scheme { file: mlc.clone(), source })?;
                match infer_scheme(&folder) {
                    Ok(found) if !scheme.may_be(found) => {
                        let (stated, found) = (scheme.name, found.name);
                        return Err(OpenError::OtherScheme { file: mlc, stated, found });
                    }
                    // Where the tensors do not tell, every matrix is still checked when it is read.
                    _ => scheme,
                }
            }
            None => {
                let found = infer_scheme(&folder)?;
                notes.push(format!(
                    "no config names the quantisation; the tensors are those of {}",
                    found.name
                ));
                found
            }
        };
        Ok(ModelFiles { folder, config, scheme, chat_config, notes })
    }

    /// A small file of the folder, `None` if it is not there.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, OpenError> {
        read(&self.folder.path().join(name))
    }
}

/// MLC's converter loses some RoPE settings; the original config beside the folder tells.
#[cfg(feature = "fs")]
fn compare(mlc: &ModelConfig, hf: &ModelConfig, notes: &mut Vec<String>) {
    if mlc.rope_theta != hf.rope_theta {
        notes.push(format!(
            "mlc-chat-config.json has position_embedding_base {}, config.json rope_theta {}; the first is used",
            mlc.rope_theta, hf.rope_theta
        ));
    }
    if mlc.rope_scaling != hf.rope_scaling {
        notes.push(format!(
            "mlc-chat-config.json has rope scaling {:?}, config.json {:?}; the first is used",
            mlc.rope_scaling, hf.rope_scaling
        ));
    }
}

#[cfg(feature = "fs")]
fn read(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let wrong = |what: String| OpenError::File { file: path.to_owned(), what };
    files::read(path, MAX_CONFIG).map_err(|e| wrong(e.to_string()))
}

#[cfg(feature = "fs")]
fn json(path: &Path, bytes: &[u8]) -> Result<Value, OpenError> {
    serde_json::from_slice(bytes)
        .map_err(|e| OpenError::File { file: path.to_owned(), what: format!("invalid JSON: {e}") })
}
