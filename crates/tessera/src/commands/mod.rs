//! One file per command; each has `run(args, &Output) -> anyhow::Result<ExitCode>`.

pub mod bench;
pub mod convert;
#[cfg(feature = "gpu")]
pub mod devices;
pub mod doctor;
pub mod embed;
pub mod inspect;
pub mod list;
pub mod logits;
pub mod perplexity;
pub mod pull;
pub mod repair;
pub mod rm;
pub mod run;
#[cfg(feature = "gpu")]
pub mod selftest;
#[cfg(feature = "server")]
pub mod serve;
pub mod show;
pub mod tokenize;
pub mod verify;
