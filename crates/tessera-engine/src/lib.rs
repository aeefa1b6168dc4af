//! Tokens in, tokens out: tokenizer, chat template, decoder, KV pages, sampler.

pub mod decoder;
pub mod detokenize;
pub mod generate;
pub mod kv;
pub mod model;
pub mod open;
pub mod sampler;
pub mod template;
pub mod text;
pub mod tokenizer;
