//! `tessera run`: not built yet.

use crate::cli::RunArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: RunArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera run` is not built yet")
}
