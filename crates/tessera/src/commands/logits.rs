//! `tessera logits`: not built yet.

use crate::cli::LogitsArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: LogitsArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera logits` is not built yet")
}
