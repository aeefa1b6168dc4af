//! `tessera rm`: removes models from the store.

use crate::cli::RmArgs;
use crate::output::{Bytes, Output};
use std::process::ExitCode;
use tessera_hub::{ModelName, Store};

/// Removes each; one that fails does not keep the others.
pub fn run(args: RmArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let mut removed = Vec::new();
    let mut failed = false;
    for name in &args.names {
        let freed = ModelName::parse(name).and_then(|n| store.remove(&n).map(|bytes| (n, bytes)));
        match freed {
            Ok((name, bytes)) => {
                if !out.json {
                    out.line(format_args!("removed {name} ({})", Bytes(bytes)))?;
                }
                removed.push(serde_json::json!({ "name": name.as_str(), "bytes": bytes }));
            }
            Err(error) => {
                out.report(&error.into());
                failed = true;
            }
        }
    }
    if out.json {
        out.print_json(&serde_json::json!({ "removed": removed }))?;
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
