//! GGUF files of the llama architecture, read as the Hugging Face checkpoint they were made from.
//!
//! [`Gguf::parse`] checks the header; [`GgufSource`] gives tensors under HF's names with the rows of q
//! and k back in HF's order; [`hf_config`] gives `config.json`; [`tokenizer_files`] rebuilds the
//! tokenizer's files. [`open`] does all four. What cannot be carried over exactly is refused by name.

mod blocks;
mod codes;
mod config;
mod error;
mod header;
mod llama;
mod meta;
mod pretokenizer;
mod rope;
mod settings;
mod spm;
mod tokenizer;
mod types;
mod value;
mod vocab;

pub use blocks::{SUPPORTED, dequantize};
pub use codes::{block_of, group_of};
pub use config::hf_config;
pub use error::GgufError;
pub use header::{Gguf, TensorInfo};
pub use llama::GgufSource;
pub use settings::{generation_config, unknown_keys};
pub use tokenizer::tokenizer_files;
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};

use crate::bytes::Bytes;

/// A GGUF model as the parts of a Hugging Face folder.
pub struct GgufModel {
    /// The tensors.
    pub source: GgufSource,
    /// `config.json`.
    pub config: serde_json::Value,
    /// `generation_config.json`, if the file has sampling settings.
    pub generation_config: Option<serde_json::Value>,
    /// Names and contents of the tokenizer's files.
    pub tokenizer_files: Vec<(String, Vec<u8>)>,
    /// Keys about the tokenizer that are not read.
    pub unknown: Vec<String>,
}

impl GgufModel {
    /// From a file's bytes; `file` is the name used in errors.
    pub fn from_bytes(bytes: Bytes, file: &str) -> Result<GgufModel, GgufError> {
        let read = || {
            let gguf = Gguf::parse(bytes)?;
            let config = hf_config(&gguf)?;
            let tokenizer_files = tokenizer_files(&gguf)?;
            let (generation_config, unknown) = (generation_config(&gguf)?, unknown_keys(&gguf));
            let source = GgufSource::new(gguf, file)?;
            Ok(GgufModel { source, config, generation_config, tokenizer_files, unknown })
        };
        read().map_err(|error| GgufError::File { file: file.to_string(), error: Box::new(error) })
    }
}

/// Maps a GGUF file and checks all of its header; tensors are read later, one at a time.
#[cfg(feature = "fs")]
pub fn open(path: impl AsRef<std::path::Path>) -> Result<GgufModel, GgufError> {
    let path = path.as_ref();
    let file = path.display().to_string();
    let io = |error| GgufError::Io { file: file.clone(), error };
    let bytes = crate::files::open(path).and_then(|f| Bytes::map(&f, path)).map_err(io)?;
    let model = GgufModel::from_bytes(bytes.clone(), &file);
    // What else is wrong may come of it.
    bytes.check().map_err(|changed| io(std::io::Error::other(changed.what)))?;
    model
}
