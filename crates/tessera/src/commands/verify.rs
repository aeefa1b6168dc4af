//! `tessera verify`: not built yet.

use crate::cli::VerifyArgs;
use crate::output::Output;
use std::process::ExitCode;

/// Refuses: the command is not built yet.
pub fn run(_args: VerifyArgs, _out: &Output) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`tessera verify` is not built yet")
}
