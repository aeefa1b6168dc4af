//! The model store: what is in it, what a name means, and how a finished folder gets its name.

use crate::check::beside_shards;
use crate::home::{Home, remove_all};
use crate::kind::{Kind, MANIFEST_NAMES, file_names, kind_of};
use crate::part::noted_file;
use crate::{Catalogue, HubError, ModelName, RECORD_FILE, Result, Settings, SourceRecord};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use tessera_weights::model::MAX_CONFIG;
use tessera_weights::{files, json};

/// A store at some folder. Opening it writes nothing; looking into it only puts back a model that a killed
/// installation had moved away.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) home: Home,
    settings: Settings,
}

/// An installed model.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name in the store.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// Length of all its files together.
    pub bytes: u64,
    /// Quantisation, as its chat config states it.
    pub quantization: Option<String>,
    /// Where it came from; absent if the folder was not put here by tessera.
    pub source: Option<SourceRecord>,
}

/// What a model argument of the command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name, if it is a model of the store.
    pub name: Option<ModelName>,
    /// The folder (or the manifest or GGUF file, if the user named one).
    pub path: PathBuf,
}

/// `TESSERA_HOME`, or `tessera` in the platform's cache folder.
pub fn default_home() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(home) = var("TESSERA_HOME") {
        return Ok(home);
    }
    let cache = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        // The XDG specification says that a relative path is to be ignored.
        var("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| var("HOME").map(|h| h.join(".cache")))
    };
    cache.map(|c| c.join("tessera")).ok_or_else(|| HubError::BadSource {
        spec: "the model store".into(),
        why: "neither TESSERA_HOME nor a cache folder is known".into(),
    })
}

impl Store {
    /// The user's store, with the environment's settings.
    pub fn open_default() -> Result<Store> {
        Ok(Store::open(default_home()?, Settings::from_env()))
    }

    /// A store at a given place.
    pub fn open(home: impl Into<PathBuf>, settings: Settings) -> Store {
        Store { home: Home::new(home.into()), settings }
    }

    /// The store's root folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// How its sources are reached.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Known names.
    pub fn catalogue(&self) -> Result<Catalogue> {
        Catalogue::load(self.home.path())
    }

    /// Where a model of this name is when it is installed.
    pub fn model_path(&self, name: &ModelName) -> PathBuf {
        self.home.model(name)
    }

    /// The folder in which a model is to be built before [`Store::install`]; its parent exists after a
    /// fetch, it itself does not.
    pub fn staging(&self, name: &ModelName) -> PathBuf {
        self.home.work(name).join("ready")
    }

    /// Installed models, by name.
    pub fn list(&self) -> Result<Vec<Entry>> {
        for name in self.home.unfinished() {
            self.home.recover(&name)?;
        }
        let models = self.home.models();
        let entries = match fs::read_dir(&models) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(HubError::io(&models)(e)),
        };
        let mut list = Vec::new();
        for entry in entries {
            let path = entry.map_err(HubError::io(&models))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| ModelName::parse(n).ok());
            if let (Some(name), true) = (name, path.is_dir()) {
                list.push(self.entry_at(name, path)?);
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// One installed model.
    pub fn entry(&self, name: &ModelName) -> Result<Entry> {
        self.home.recover(name)?;
        let path = self.model_path(name);
        if !path.is_dir() {
            return Err(self.not_here(name.as_str()));
        }
        self.entry_at(name.clone(), path)
    }

    fn entry_at(&self, name: ModelName, path: PathBuf) -> Result<Entry> {
        let bytes = files_with_sizes(&path)?.iter().map(|(_, bytes)| bytes).sum();
        let quantization = quantization_of(&path);
        let source = SourceRecord::read(&path);
        Ok(Entry { name: name.to_string(), path, bytes, quantization, source })
    }

    fn not_here(&self, name: &str) -> HubError {
        let known = self.catalogue().is_ok_and(|c| c.get(name).is_some());
        HubError::NotInStore { name: name.to_string(), known }
    }

    /// Finds the model that `spec` means: an installed name (or `org/repo` that was pulled), else a
    /// folder, manifest or GGUF file. A text that is written like a path (`./x`) is only ever a path.
    pub fn resolve(&self, spec: &str) -> Result<Resolved> {
        let path = Path::new(spec);
        let is_path =
            spec.starts_with('.') || path.is_absolute() || spec.ends_with('/') || spec.contains('\\');
        let plain_spec = spec.strip_prefix("HF://").unwrap_or(spec);
        if !is_path && let Ok(name) = ModelName::parse(plain_spec) {
            self.home.recover(&name)?;
            let installed = self.model_path(&name);
            if installed.is_dir() {
                return Ok(Resolved { name: Some(name), path: installed });
            }
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                kind_of(path)?;
                Ok(Resolved { name: None, path: path.to_path_buf() })
            }
            Ok(_) => Ok(Resolved { name: None, path: path.to_path_buf() }),
            Err(e) if is_path => Err(HubError::io(path)(e)),
            Err(_) => Err(self.not_here(spec)),
        }
    }

    /// Deletes an installed model and what an unfinished pull of it left. Returns the bytes freed.
    pub fn remove(&self, name: &ModelName) -> Result<u64> {
        let (model, work) = (self.model_path(name), self.home.work(name));
        if !model.is_dir() && !work.is_dir() {
            return Err(self.not_here(name.as_str()));
        }
        let _lock = self.home.try_lock(name)?;
        if model.is_dir() {
            // First out of sight, so that a killed removal leaves no half model.
            let gone = work.join("removed");
            remove_all(&gone)?;
            fs::create_dir_all(&work).map_err(HubError::io(&work))?;
            fs::rename(&model, &gone).map_err(HubError::io(&model))?;
        }
        let freed = folder_bytes(&work);
        remove_all(&work)?;
        self.home.sweep();
        Ok(freed)
    }

    /// Gives a finished folder its final name, with its record beside the files. An older model of the
    /// same name is replaced. The caller holds the name through the [`crate::Fetch`] that it got.
    pub fn install(&self, name: &ModelName, ready: &Path, source: &SourceRecord) -> Result<PathBuf> {
        if !MANIFEST_NAMES.iter().any(|m| ready.join(m).is_file()) {
            return Err(HubError::NotAModel { path: ready.to_path_buf() });
        }
        let mut record = source.clone();
        if record.converted.is_some() {
            record.made = beside_shards(ready)?;
        }
        record.write(ready)?;
        for note in file_names(ready)?.iter().filter(|name| noted_file(name).is_some()) {
            let path = ready.join(note);
            fs::remove_file(&path).map_err(HubError::io(&path))?;
        }
        sync_folder(ready)?;
        let models = self.home.models();
        fs::create_dir_all(&models).map_err(HubError::io(&models))?;
        let target = self.model_path(name);
        let old = self.home.replaced(name);
        self.home.recover_held(name)?;
        remove_all(&old)?;
        if target.exists() {
            let work = self.home.work(name);
            fs::create_dir_all(&work).map_err(HubError::io(&work))?;
            // Killed between the two renames, this one is put back by who looks next (`recover`).
            fs::rename(&target, &old).map_err(HubError::io(&target))?;
        }
        if let Err(e) = fs::rename(ready, &target) {
            if old.exists() {
                // Best effort: the old model is better than none.
                let _ = fs::rename(&old, &target);
            }
            return Err(HubError::io(&target)(e));
        }
        sync_dir(&models);
        remove_all(&self.home.work(name))?;
        Ok(target)
    }
}

/// The files of an installed folder with their lengths, the record included.
pub(crate) fn files_with_sizes(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut names = file_names(dir)?;
    if dir.join(RECORD_FILE).is_file() {
        names.push(RECORD_FILE.to_string());
    }
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let path = dir.join(&name);
        files.push((name, fs::metadata(&path).map_err(HubError::io(&path))?.len()));
    }
    Ok(files)
}

impl Entry {
    /// Its files with their lengths, by name.
    pub fn files(&self) -> Result<Vec<(String, u64)>> {
        files_with_sizes(&self.path)
    }

    /// What the folder holds.
    pub fn kind(&self) -> Result<Kind> {
        kind_of(&self.path)
    }
}

fn quantization_of(dir: &Path) -> Option<String> {
    let path = dir.join("mlc-chat-config.json");
    let config: serde_json::Value = json::parse(&files::need(&path, MAX_CONFIG).ok()?).ok()?;
    Some(config.get("quantization")?.as_str()?.to_string())
}

fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .fold(0, u64::saturating_add)
}

/// The name must not become visible before the bytes are on the disk.
fn sync_folder(dir: &Path) -> Result<()> {
    for name in file_names(dir)?.iter().map(String::as_str).chain([RECORD_FILE]) {
        let path = dir.join(name);
        let file =
            OpenOptions::new().read(true).write(cfg!(windows)).open(&path).map_err(HubError::io(&path))?;
        file.sync_all().map_err(HubError::io(&path))?;
    }
    sync_dir(dir);
    Ok(())
}

/// Best effort: some platforms and file systems cannot sync a folder.
fn sync_dir(dir: &Path) {
    if let Ok(file) = File::open(dir) {
        let _ = file.sync_all();
    }
}
