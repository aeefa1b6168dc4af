//! `tessera inspect`: not built yet.

use crate::cli::InspectArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: InspectArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera inspect` is not built yet")
}
