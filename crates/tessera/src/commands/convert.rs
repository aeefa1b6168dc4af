//! `tessera convert`: not built yet.

use crate::cli::ConvertArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: ConvertArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera convert` is not built yet")
}
