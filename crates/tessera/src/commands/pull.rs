//! `tessera pull`: fetches a model and, where it is no MLC folder yet, converts it.

use crate::cli::PullArgs;
use crate::output::{Bytes, Output};
use crate::pulling::pull;
use std::process::ExitCode;
use tessera_hub::{FetchOptions, ModelName, Source, Store};

/// Fetches, converts, installs.
pub fn run(args: PullArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let source = Source::parse(&args.source)?;
    let name = args.name.as_deref().map(ModelName::parse).transpose()?;
    let pulled = pull(&store, &source, FetchOptions { name, force: args.force }, args.quant.as_deref(), out)?;
    let entry = store.entry(&pulled.name)?;
    if out.json {
        let mut value = serde_json::to_value(&entry)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("fresh".into(), pulled.fresh.into());
        }
        out.print_json(&value)?;
    } else if pulled.fresh {
        out.line(format_args!(
            "{} is ready: {} in {}",
            entry.name,
            Bytes(entry.bytes),
            pulled.path.display()
        ))?;
    } else {
        out.line(format_args!(
            "{} is in the store already: {} (--force fetches it again)",
            entry.name,
            entry.path.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
