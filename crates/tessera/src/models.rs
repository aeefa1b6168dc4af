//! What a MODEL or PATH argument means: a folder on this machine, a name of the store, or a catalogue
//! name that is pulled on first use.

use crate::output::{Output, hinted};
use crate::pulling::pull;
use std::path::PathBuf;
use tessera_hub::{Catalogue, FetchOptions, HubError, Kind, Source, Store, kind_of};
use tessera_weights::arch::Semantics;

/// The MLC folder that `name` means. A catalogue name that is not in the store is pulled first; what is
/// not an MLC folder yet is an error that says how to make it one.
pub fn resolve(name: &str, out: &Output) -> anyhow::Result<PathBuf> {
    let store = Store::open_default()?;
    let path = match store.resolve(name) {
        Ok(found) => found.path,
        Err(HubError::NotInStore { known: true, .. }) => {
            out.note(format_args!("{name} is not in the store yet; pulling it"));
            let source = Source::parse(name)?;
            return Ok(pull(&store, &source, FetchOptions::default(), None, out)?.path);
        }
        Err(error) => return Err(error.into()),
    };
    // A file that is not GGUF may be a manifest; whoever opens it says what is wrong with it otherwise.
    let (what, from) = match kind_of(&path) {
        Ok(Kind::Checkpoint) => ("a Hugging Face checkpoint", path),
        Ok(Kind::Gguf(file)) => ("a GGUF file", file),
        Ok(Kind::Mlc(_)) | Err(_) => return Ok(path),
    };
    Err(hinted(
        format!("{}: {what}, not an MLC folder", from.display()),
        format!("convert it first: tessera convert {} OUT --quant q4f16_1", from.display()),
    ))
}

/// Whose meaning the catalogue asks for under this name.
pub fn semantics(name: &str) -> anyhow::Result<Semantics> {
    let store = Store::open_default()?;
    // A folder somewhere else has no entry.
    let Some(name) = store.resolve(name)?.name else { return Ok(Semantics::default()) };
    let catalogue = Catalogue::load(store.home())?;
    Ok(catalogue.get(name.as_str()).and_then(|entry| entry.semantics).unwrap_or_default())
}

/// The path that `name` means, whatever kind of model lies there. Nothing is pulled.
pub fn locate(name: &str) -> anyhow::Result<PathBuf> {
    Ok(Store::open_default()?.resolve(name)?.path)
}
