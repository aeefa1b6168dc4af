//! MLC weight folders: bytes on disk to checked, named, quantised tensors, and back.
//!
//! [`manifest::Manifest`] is parsed and checked once; [`folder::Folder`] then hands out
//! [`tensor::Tensor`]s that cannot be out of range. [`quantize`] gives meaning to the packed words,
//! [`convert`] writes folders, [`verify`] reads every byte of one.

pub mod arch;
pub mod bytes;
mod changed;
pub mod chat_config;
pub mod config;
pub mod convert;
pub mod dtype;
pub mod embedding;
#[cfg(feature = "fs")]
pub mod export;
#[cfg(feature = "fs")]
pub mod files;
pub mod folder;
#[cfg_attr(not(feature = "fs"), allow(dead_code, unused_imports))] // what only the export writes
pub mod gguf;
pub mod hf;
pub mod json;
#[cfg(feature = "fs")]
pub mod lora;
pub mod manifest;
#[cfg(feature = "fs")]
pub mod mapped;
pub mod model;
pub mod pack;
pub mod quantize;
pub mod scheme;
pub mod source;
pub mod tensor;
pub mod verify;
