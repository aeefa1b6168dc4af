//! Which adapter computes, by what was asked for, and what is known of it.

use crate::cli::Kv;
use crate::output::{Output, hinted};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tessera_gpu::verified::{Record, Verified, build};
use tessera_gpu::{Adapter, Config, Description, Gpu};
use tessera_hub::Store;

/// What is known of adapters: a file in the store's home.
const KNOWN: &str = "adapters.json";

/// All adapters, hardware first.
pub fn adapters() -> Vec<Adapter> {
    pollster::block_on(Adapter::all())
}

/// Why there is no need to ask for hardware: drivers take their time to say that there is none.
pub fn none() -> Option<&'static str> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let in_folder = |folder: &str, begin: &str| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(begin))
    };
    let found = in_folder("/dev/dri", "renderD") || in_folder("/dev", "nvidia") || in_folder("/dev", "dxg");
    (!found).then_some("the system has no GPU (/dev/dri/renderD*, /dev/nvidia* or /dev/dxg)")
}

/// The adapter that is taken where none is named; why there is none otherwise.
pub fn hardware() -> Result<Description, String> {
    match none() {
        Some(why) => Err(why.to_owned()),
        None => adapter(None).map(|adapter| adapter.describe()).map_err(|error| error.to_string()),
    }
}

/// An adapter that is open, with what is known of it.
pub struct Opened {
    /// Tests what it has not been tested for.
    pub backend: Verified,
    record: Arc<Mutex<Record>>,
    before: Record,
    name: String,
    path: PathBuf,
}

impl Opened {
    /// The adapter that has this in its name, or the first that is hardware.
    /// `kernels`: which of them, if not the fastest.
    pub fn new(
        kv: Option<Kv>,
        name: Option<&str>,
        kernels: Option<&str>,
        out: &Output,
    ) -> anyhow::Result<Opened> {
        let halves = match kv {
            Some(Kv::F32) => false,
            Some(Kv::Q8) => {
                anyhow::bail!("--kv q8 is for --backend cpu; a GPU keeps keys and values as f16 or f32")
            }
            Some(Kv::F16) | None => true,
        };
        let config = match kernels {
            None => Config::default(),
            Some("plain") => Config::PLAIN,
            Some(rows) => {
                Config::default().with(rows.parse().map_err(|e: String| anyhow::anyhow!("--kernels: {e}"))?)
            }
        };
        let adapter = adapter(name)?;
        let name = key(&adapter.describe());
        let path = Store::open_default()?.home().join(KNOWN);
        let before = known(&path, out).remove(&name).unwrap_or_default();
        let record = Arc::new(Mutex::new(before.clone()));
        let gpu = pollster::block_on(adapter.open(false))?;
        let (config, out) = (Config { halves, ..config }, out.clone());
        let say = move |what: &str| out.note(format_args!("note: {what}"));
        let backend = Verified::new(gpu, config, record.clone(), say);
        // What was asked for is not searched for.
        let backend = if kernels.is_some() { backend.tuning(None) } else { backend };
        Ok(Opened { backend, record, before, name, path })
    }

    /// Forgets what is known of it.
    pub fn forget(&self) {
        *self.record.lock().unwrap_or_else(|e| e.into_inner()) = Record::default();
    }

    /// What it was found to compute wrongly.
    pub fn wrong(&self) -> Vec<String> {
        let record = self.record.lock().unwrap_or_else(|e| e.into_inner());
        record.cases.values().flatten().cloned().collect()
    }

    /// Keeps what was found.
    pub fn keep(&self, out: &Output) {
        let record = self.record.lock().unwrap_or_else(|e| e.into_inner()).clone();
        if record == self.before {
            return;
        }
        let mut all = known(&self.path, out);
        // What other builds found is of no use.
        let end = end();
        all.retain(|name, _| name.ends_with(&end));
        all.insert(self.name.clone(), record);
        if let Err(error) = write(&self.path, &all) {
            let path = self.path.display();
            out.note(format_args!("note: {path}: {error}; the adapter will be tested again"));
        }
    }
}

/// An adapter without what is known of it, for tests of everything: its buffers hold NaN at first.
pub fn untested(name: Option<&str>) -> anyhow::Result<Gpu> {
    Ok(pollster::block_on(adapter(name)?.open(false))?.poisoned())
}

fn adapter(name: Option<&str>) -> anyhow::Result<Adapter> {
    let mut adapters = adapters();
    let all: Vec<Description> = adapters.iter().map(Adapter::describe).collect();
    if let Some(i) = choose(&all, name) {
        return Ok(adapters.swap_remove(i));
    }
    let known: Vec<&str> = all.iter().map(|a| a.name.as_str()).collect();
    let message = match (name, known.as_slice()) {
        (_, []) => "there is no adapter: no driver for Vulkan, Metal or DX12 was found".to_owned(),
        (Some(name), known) => {
            format!("no adapter has {name:?} in its name; there are: {}", known.join(", "))
        }
        (None, known) => format!("no adapter is hardware; there are: {}", known.join(", ")),
    };
    Err(hinted(
        message,
        "`tessera devices` lists adapters; --adapter NAME takes one of them; --backend cpu needs none",
    ))
}

/// The first whose name has this in it, whatever the case; without one the first that is hardware.
fn choose(all: &[Description], name: Option<&str>) -> Option<usize> {
    match name {
        Some(name) => all.iter().position(|a| a.name.to_lowercase().contains(&name.to_lowercase())),
        None => all.iter().position(|a| !a.software),
    }
}

fn key(adapter: &Description) -> String {
    format!("{}, {}, {}{}", adapter.name, adapter.api, adapter.driver, end())
}

fn end() -> String {
    format!(", build {:016x}", build())
}

/// What is known of all adapters; nothing where the file cannot be read, as they are tested again then.
fn known(path: &Path, out: &Output) -> BTreeMap<String, Record> {
    let read = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| e.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|why| {
        out.note(format_args!("note: {}: {why}; adapters are tested again", path.display()));
        BTreeMap::new()
    })
}

fn write(path: &Path, all: &BTreeMap<String, Record>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("json.{}", std::process::id()));
    std::fs::write(&new, serde_json::to_vec_pretty(all)?)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_taken_only_by_name() {
        let adapter = |name: &str, software| Description {
            name: name.to_owned(),
            api: "vulkan".to_owned(),
            kind: "other",
            driver: String::new(),
            software,
            binding: 1 << 27,
            buffer: 1 << 28,
            memory: None,
        };
        let all = [adapter("llvmpipe (LLVM 15)", true), adapter("Some Card", false)];
        assert_eq!(choose(&all, None), Some(1));
        assert_eq!(choose(&all[..1], None), None);
        assert_eq!(choose(&all, Some("LLVMpipe")), Some(0));
        assert_eq!(choose(&all, Some("other card")), None);
    }
}
