//! GGUF files of the llama architecture, read as the Hugging Face checkpoint they were made from.
//!
//! [`Gguf::parse`] checks the header; [`GgufSource`] gives tensors under HF's names with the rows of q
//! and k back in HF's order; [`hf_config`] gives `config.json`; [`tokenizer_files`] rebuilds the
//! tokenizer's files. [`open`] does all four. What cannot be carried over exactly is refused by name.

mod blocks;
mod config;
mod error;
mod header;
mod llama;
mod rope;
mod types;
mod value;

pub use blocks::{SUPPORTED, dequantize};
pub use config::hf_config;
pub use error::GgufError;
pub use header::{Gguf, TensorInfo};
pub use llama::GgufSource;
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};
