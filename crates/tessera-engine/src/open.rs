//! A model folder: its tensors, and what says how they are to be used.

#[cfg(feature = "fs")]
use std::path::Path;
use tessera_weights::arch::Semantics;
use tessera_weights::chat_config::ChatConfig;
use tessera_weights::config::ModelConfig;
use tessera_weights::embedding::Embeddings;
#[cfg(feature = "fs")]
use tessera_weights::files;
use tessera_weights::folder::Folder;
#[cfg(feature = "fs")]
use tessera_weights::model::MAX_CONFIG;
use tessera_weights::model::{Description, FolderModelError};
use tessera_weights::scheme::Scheme;

/// A folder whose manifest, shards and config fit together.
#[derive(Debug)]
pub struct ModelFiles {
    /// Tensors.
    pub folder: Folder,
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// Quantisation.
    pub scheme: &'static Scheme,
    /// Whose meaning of the family is computed.
    pub semantics: Semantics,
    /// What vectors it makes of texts.
    pub embeddings: Embeddings,
    /// `mlc-chat-config.json`, where there is one.
    pub chat_config: Option<ChatConfig>,
    /// What a user should be told: guesses, odd fields.
    pub notes: Vec<String>,
}

impl ModelFiles {
    /// Opens a folder, or a manifest in it.
    #[cfg(feature = "fs")]
    pub fn open(path: &Path) -> Result<ModelFiles, FolderModelError> {
        let folder = Folder::open(path)?;
        let description = Description::of_folder(&folder);
        ModelFiles::of(folder, description)
    }

    /// A folder of which all is known that `description` says; an error is the first thing that is wrong with it.
    pub fn of(folder: Folder, mut description: Description) -> Result<ModelFiles, FolderModelError> {
        let mut notes: Vec<String> = folder.manifest().warnings().iter().map(|w| w.message.clone()).collect();
        notes.append(&mut description.notes);
        let embeddings = description.embeddings;
        let (config, scheme, chat_config) = description.into_parts()?;
        let semantics = Semantics::default();
        Ok(ModelFiles { folder, config, scheme, semantics, embeddings, chat_config, notes })
    }

    /// A small file of the folder, `None` if it is not there.
    #[cfg(feature = "fs")]
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, FolderModelError> {
        let file = self.folder.path().join(name);
        files::read(&file, MAX_CONFIG).map_err(|e| FolderModelError::File { file, what: e.to_string() })
    }
}
