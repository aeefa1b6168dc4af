//! The store's folders: `models/<name>/` whole models only, `partial/<name>/` work in progress,
//! `locks/<name>` one owner per name; and what killed processes left there. A lock ends with its process,
//! so whatever lies under a name that can be locked belongs to nobody: a model that was about to be
//! replaced is put back, temporaries are removed. Only `partial/<name>/download` stays, which the next
//! pull of that name resumes.

use crate::{HubError, ModelName, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// The root of a store.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

/// Exclusive right to change what the store holds under a name; ends when dropped.
#[derive(Debug)]
pub(crate) struct NameLock(#[allow(dead_code)] File);

impl Home {
    pub fn new(path: PathBuf) -> Home {
        Home(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// Where a model of this name is when it is installed.
    pub fn model(&self, name: &ModelName) -> PathBuf {
        self.models().join(name.as_str())
    }

    /// Where work on this name is done.
    pub fn work(&self, name: &ModelName) -> PathBuf {
        self.0.join("partial").join(name.as_str())
    }

    fn lock_file(&self, name: &ModelName) -> Result<File> {
        let dir = self.0.join("locks");
        fs::create_dir_all(&dir).map_err(HubError::io(&dir))?;
        let path = dir.join(name.as_str());
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(HubError::io(&path))
    }

    /// Takes the name, or says that another process has it.
    pub fn try_lock(&self, name: &ModelName) -> Result<NameLock> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(NameLock(file)),
            Err(TryLockError::WouldBlock) => Err(HubError::Busy { name: name.to_string() }),
            Err(TryLockError::Error(e)) => Err(HubError::io(self.0.join("locks"))(e)),
        }
    }

    /// Takes the name, waiting for another process to leave it.
    pub fn wait_lock(&self, name: &ModelName) -> Result<NameLock> {
        let file = self.lock_file(name)?;
        file.lock().map_err(HubError::io(self.0.join("locks")))?;
        Ok(NameLock(file))
    }

    /// Where the older model of this name is between the two renames of an installation.
    pub fn replaced(&self, name: &ModelName) -> PathBuf {
        self.work(name).join("replaced")
    }

    /// Puts back the older model if an installation was killed between its two renames. Nothing is
    /// written, nor locked, where that is not so.
    pub fn recover(&self, name: &ModelName) -> Result<()> {
        if self.model(name).exists() || !self.replaced(name).is_dir() {
            return Ok(());
        }
        // A process that holds the name is between its renames at this very moment.
        let _lock = self.wait_lock(name)?;
        self.recover_held(name)
    }

    /// The same, for who holds the name.
    pub fn recover_held(&self, name: &ModelName) -> Result<()> {
        let (model, old) = (self.model(name), self.replaced(name));
        if model.exists() || !old.is_dir() {
            return Ok(());
        }
        fs::rename(&old, &model).map_err(HubError::io(&model))
    }

    /// Names under which there is work in progress, or was.
    pub fn unfinished(&self) -> Vec<ModelName> {
        let Ok(entries) = fs::read_dir(self.0.join("partial")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        names.filter_map(|name| ModelName::parse(&name).ok()).collect()
    }

    /// Clears up after all killed processes. Best effort: it must not keep anybody from his own work.
    pub fn sweep(&self) {
        for name in self.unfinished() {
            if let Ok(_lock) = self.try_lock(&name) {
                let _ = self.recover_held(&name).and_then(|()| self.clean_work(&name));
            }
        }
    }

    /// Removes the temporaries of a name, for who holds it.
    pub fn clean_work(&self, name: &ModelName) -> Result<()> {
        let work = self.work(name);
        let entries = match fs::read_dir(&work) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(HubError::io(&work)(e)),
        };
        for entry in entries {
            let path = entry.map_err(HubError::io(&work))?.path();
            if path.file_name().is_none_or(|name| name != "download") {
                remove(&path)?;
            }
        }
        // Both stay if there is something to resume.
        let _ = fs::remove_dir(work.join("download"));
        let _ = fs::remove_dir(&work);
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return remove_all(path);
    }
    fs::remove_file(path).map_err(HubError::io(path))
}

pub(crate) fn remove_all(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(HubError::io(dir)(e)),
        _ => Ok(()),
    }
}
