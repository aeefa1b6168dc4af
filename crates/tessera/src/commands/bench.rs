//! `tessera bench`: not built yet.

use crate::cli::BenchArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: BenchArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera bench` is not built yet")
}
