//! Tokens in, tokens out: tokenizer, chat template, decoder, KV pages, sampler.

pub mod cache;
#[cfg(feature = "threads")]
pub mod calibrate;
pub mod constraint;
pub mod decoder;
pub mod detokenize;
pub mod embed;
#[cfg(feature = "threads")]
pub mod engine;
pub mod failure;
pub mod generate;
pub mod grammar;
pub mod kv;
pub mod limits;
pub mod lookup;
pub mod machine;
pub mod model;
pub mod open;
pub mod plan;
pub mod pool;
pub mod reasoning;
pub mod request;
pub mod sampler;
mod scheduler;
pub mod slot;
pub mod template;
pub mod text;
pub mod tokenizer;
pub mod tools;
pub mod units;
