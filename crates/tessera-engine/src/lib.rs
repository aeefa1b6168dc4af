//! Tokens in, tokens out: tokenizer, chat template, decoder, KV pages, sampler.

pub mod detokenize;
pub mod sampler;
pub mod template;
pub mod tokenizer;
