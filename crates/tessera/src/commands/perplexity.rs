//! `tessera perplexity`: not built yet.

use crate::cli::PerplexityArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: PerplexityArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera perplexity` is not built yet")
}
