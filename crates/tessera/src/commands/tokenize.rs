//! `tessera tokenize`: not built yet.

use crate::cli::TokenizeArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: TokenizeArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera tokenize` is not built yet")
}
