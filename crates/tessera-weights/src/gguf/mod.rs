//! GGUF files of the families in `family.rs`, read as the Hugging Face checkpoint they were made from.
//!
//! [`Gguf::parse`] checks the header; [`GgufSource`] gives tensors under HF's names with the rows of q
//! and k back in HF's order; [`hf_config`] gives `config.json`; [`tokenizer_files`] rebuilds the
//! tokenizer's files. [`open`] does all four. What cannot be carried over exactly is refused by name.

mod blocks;
mod codes;
mod config;
mod error;
mod family;
mod header;
mod keys;
mod meta;
mod pretokenizer;
mod rope;
mod settings;
mod source;
mod split;
mod spm;
mod spm_model;
mod tokenizer;
mod types;
mod value;
mod vocab;
mod write;

pub use blocks::{SUPPORTED, dequantize};
pub use codes::{block_of, group_of};
pub use config::hf_config;
pub use error::GgufError;
pub use header::{Gguf, TensorInfo};
pub use settings::{generation_config, unknown_keys};
pub use source::GgufSource;
pub use tokenizer::tokenizer_files;
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};

pub(crate) use family::Family;
pub(crate) use pretokenizer::Pre;
pub(crate) use rope::{ROPE_FREQS, llama3_divisors};
pub(crate) use spm_model::SpmModel;
pub(crate) use vocab::TokenType;
pub(crate) use write::{Header, padding};

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
        let wrap = |error| GgufError::File { file: file.to_string(), error: Box::new(error) };
        let gguf = Gguf::parse(bytes).map_err(wrap)?;
        GgufModel::of(gguf, vec![file.to_string()]).map_err(wrap)
    }

    /// From headers; `files` are the names of all parts.
    fn of(gguf: Gguf, files: Vec<String>) -> Result<GgufModel, GgufError> {
        let config = hf_config(&gguf)?;
        let tokenizer_files = tokenizer_files(&gguf)?;
        let (generation_config, unknown) = (generation_config(&gguf)?, unknown_keys(&gguf));
        let source = GgufSource::of_parts(gguf, files)?;
        Ok(GgufModel { source, config, generation_config, tokenizer_files, unknown })
    }
}

/// Maps a GGUF file and checks all of its header; tensors are read later, one at a time. Of a model in several files
/// the first is given, and the others lie beside it.
#[cfg(feature = "fs")]
pub fn open(path: impl AsRef<std::path::Path>) -> Result<GgufModel, GgufError> {
    let path = path.as_ref();
    let name = |path: &std::path::Path| path.display().to_string();
    let wrap = |file: &str, error| GgufError::File { file: file.to_string(), error: Box::new(error) };
    let map = |path: &std::path::Path| {
        let io = |error| GgufError::Io { file: name(path), error };
        crate::files::open(path).and_then(|f| Bytes::map(&f, path)).map_err(io)
    };
    let mut files = vec![name(path)];
    let read = |bytes: &mut Vec<Bytes>, files: &mut Vec<String>| {
        let first = Gguf::parse(bytes[0].clone()).map_err(|e| wrap(&files[0], e))?;
        let mut rest = Vec::new();
        if let Some((no, count)) = split::part_of(&first).map_err(|e| wrap(&files[0], e))? {
            let stated = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            for other in 1..count {
                let Some(other) = split::name_of(stated, other, count).filter(|_| no == 0) else {
                    let what = format!(
                        "it is part {} of {count}; open the first, called ...-00001-of-{count:05}.gguf",
                        no + 1
                    );
                    return Err(GgufError::Part { file: files[0].clone(), what });
                };
                let other = path.with_file_name(other);
                files.push(name(&other));
                bytes.push(map(&other)?);
                let part = Gguf::parse(bytes[bytes.len() - 1].clone());
                rest.push((part.map_err(|e| wrap(&name(&other), e))?, name(&other)));
            }
        }
        let whole = split::join(first, rest).map_err(|e| match e {
            part @ GgufError::Part { .. } => part,
            other => wrap(&files[0], other),
        })?;
        GgufModel::of(whole, files.clone()).map_err(|e| wrap(&files[0], e))
    };
    let mut bytes = vec![map(path)?];
    let model = read(&mut bytes, &mut files);
    // What else is wrong may come of it.
    for (bytes, file) in bytes.iter().zip(&files) {
        let changed = |error| GgufError::Io { file: file.clone(), error };
        bytes.check().map_err(|e| changed(std::io::Error::other(e.what)))?;
    }
    model
}
