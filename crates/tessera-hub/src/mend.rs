//! Brings single files of a folder back from where it came from: the bytes that are missing first, the whole
//! file where they were not enough. A file takes its place by rename and not before its digest is right, so
//! that a repair that is killed, or that was lied to, leaves the folder as it was.

use crate::altered::{allowed, unaccept};
use crate::damage::{Damage, Need};
use crate::download::{Wanted, download};
use crate::hf::WEIGHTS_LIMIT;
use crate::home::remove_all;
use crate::http::Client;
use crate::local;
use crate::mlc::{MANIFEST_LIMIT, Remote, fetch_optional};
use crate::origin::Origin;
use crate::part::Part;
use crate::progress::{Progress, Tally};
use crate::range::fetch_range;
use crate::source::without_secrets;
use crate::{Digest, HubError, MANIFEST_NAMES, ModelName, RECORD_FILE, Result, Source, Store};
use serde::Serialize;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tessera_weights::files;

/// Inside the folder, so that a rename is enough: what is being fetched. It stays while something is left to go
/// on with.
const WORK: &str = ".tessera-repair";

/// What follows the name of a file that is kept, because its changes may have been meant.
const OLD: &str = ".old";

/// A file that is right again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mended {
    /// Whether the parts that were missing were enough.
    pub in_part: bool,
    /// Bytes that came.
    pub fetched: u64,
    /// The name under which the file that was here is kept.
    pub kept: Option<String>,
}

/// What came of one damage.
#[derive(Debug)]
pub struct Outcome {
    /// The file.
    pub file: String,
    /// Whether it is right again.
    pub result: Result<Mended>,
}

impl Store {
    /// Mends files of a folder, which need not be in the store, from a source: each for itself, so that one
    /// that cannot be had does not keep the others from being mended. `revision` is the exact one of the
    /// source, where that is known.
    pub fn mend(
        &self,
        folder: &Path,
        damages: &[Damage],
        source: &Source,
        revision: Option<&str>,
        progress: &Progress<'_>,
    ) -> Result<Vec<Outcome>> {
        let folder = &fs::canonicalize(folder).map_err(HubError::io(folder))?;
        let _name = self.name_of(folder).map(|name| self.home.try_lock(&name)).transpose()?;
        let work = folder.join(WORK);
        fs::create_dir_all(&work).map_err(HubError::io(&work))?;
        let lock = lock(&work, folder)?;
        let tally = Tally::new(progress);
        let client = Client::new(self.settings());
        let origin = Origin::of(self, &client, source, revision, &work, &tally);
        let outcomes = origin.map(|origin| {
            tally.set_total(damages.iter().filter_map(Damage::to_fetch).fold(0, u64::saturating_add));
            let mender = Mender { folder, work: &work, client: &client, origin: &origin, tally: &tally };
            let mend = |damage: &Damage| Outcome { file: damage.file.clone(), result: mender.mend(damage) };
            damages.iter().map(mend).collect::<Vec<_>>()
        });
        drop(lock);
        if outcomes.as_ref().is_ok_and(|all| all.iter().all(|o| o.result.is_ok())) {
            remove_all(&work)?;
        } else {
            for name in ["wheel", "unpacked"] {
                remove_all(&work.join(name))?;
            }
            let _ = fs::remove_file(work.join("lock"));
            // Stays if there is something to go on with.
            let _ = fs::remove_dir(&work);
        }
        outcomes
    }

    /// The name of a folder of the store.
    fn name_of(&self, folder: &Path) -> Option<ModelName> {
        let models = fs::canonicalize(self.home.models()).ok()?;
        if folder.parent() != Some(&models) {
            return None;
        }
        ModelName::parse(folder.file_name()?.to_str()?).ok()
    }
}

/// One repair of a folder at a time.
fn lock(work: &Path, folder: &Path) -> Result<File> {
    let path = work.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(HubError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HubError::Busy { name: folder.display().to_string() }),
        Err(TryLockError::Error(e)) => Err(HubError::io(&path)(e)),
    }
}

struct Mender<'a> {
    folder: &'a Path,
    work: &'a Path,
    client: &'a Client<'a>,
    origin: &'a Origin,
    tally: &'a Tally<'a>,
}

impl Mender<'_> {
    fn mend(&self, damage: &Damage) -> Result<Mended> {
        let is_missing = |e: &HubError| match e {
            HubError::Status { status, .. } => matches!(status, 404 | 410),
            HubError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        match self.mend_file(damage) {
            // A folder without record and manifest may have had either.
            Err(e) if is_missing(&e) && damage.file == MANIFEST_NAMES[0] && damage.digest.is_none() => {
                self.mend_file(&Damage { file: MANIFEST_NAMES[1].to_string(), ..damage.clone() })
            }
            other => other,
        }
    }

    fn mend_file(&self, damage: &Damage) -> Result<Mended> {
        let name = &damage.file;
        allowed(name).map_err(|why| HubError::BadManifest { file: name.clone(), why: why.to_string() })?;
        if name == RECORD_FILE {
            let why = "it is written by this program alone";
            return Err(HubError::BadManifest { file: name.clone(), why: why.to_string() });
        }
        let fresh = self.work.join(name);
        if let Some(dir) = fresh.parent() {
            fs::create_dir_all(dir).map_err(HubError::io(dir))?;
        }
        let before = self.client.received();
        let mut copied = 0;
        let in_part = match (&damage.need, &damage.digest, damage.bytes) {
            (Need::Parts(parts), Some(digest), Some(len)) => {
                self.patch(damage, parts, digest, len, &fresh, &mut copied)?
            }
            _ => false,
        };
        if !in_part {
            self.whole(damage, &fresh, &mut copied)?;
        }
        let kept = self.take_place(damage, &fresh)?;
        Ok(Mended { in_part, fetched: self.client.received() - before + copied, kept })
    }

    /// The old file with some parts anew. False: that was not it, or there are no parts to be had.
    fn patch(
        &self,
        damage: &Damage,
        parts: &[Range<u64>],
        digest: &Digest,
        len: u64,
        fresh: &Path,
        copied: &mut u64,
    ) -> Result<bool> {
        let name = &damage.file;
        let old = self.folder.join(name);
        if let ([tail], Origin::Remote(remote)) = (parts, self.origin)
            && tail.end == len
        {
            // A broken download that lost its name; going on with it is what `pull` does.
            let wanted = self.wanted(remote, damage, fresh);
            Part::seed(fresh, &wanted.url, &old, tail.start)?;
            let before = self.client.received();
            download(self.client, &wanted, &|n| self.tally.moved(name, n))?;
            return Ok(self.client.received() - before <= tail.end - tail.start);
        }
        let candidate = self.work.join(format!("{name}.patched"));
        let mut from = files::open(&old).map_err(HubError::io(&old))?.take(len);
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&candidate)
            .map_err(HubError::io(&candidate))?;
        io::copy(&mut from, &mut file).map_err(HubError::io(&candidate))?;
        file.set_len(len).map_err(HubError::io(&candidate))?;
        for part in parts {
            let moved = |n| self.tally.moved(name, n);
            match self.origin {
                Origin::Remote(remote) => {
                    let wanted = self.wanted(remote, damage, &candidate);
                    match fetch_range(self.client, &wanted, len, part, &file, &moved) {
                        // It has its own view of parts; the whole file may come all the same.
                        Err(HubError::BadReply { .. }) => {
                            drop(file);
                            fs::remove_file(&candidate).map_err(HubError::io(&candidate))?;
                            return Ok(false);
                        }
                        other => other?,
                    }
                }
                Origin::Folder(from) => {
                    *copied += copy_part(from, name, part, len, &mut file, &candidate)?;
                    moved((part.end - part.start) as i64);
                }
            }
        }
        file.sync_all().map_err(HubError::io(&candidate))?;
        drop(file);
        if digest.check(&candidate, name).is_err() {
            fs::remove_file(&candidate).map_err(HubError::io(&candidate))?;
            return Ok(false);
        }
        fs::rename(&candidate, fresh).map_err(HubError::io(fresh))?;
        Ok(true)
    }

    fn whole(&self, damage: &Damage, fresh: &Path, copied: &mut u64) -> Result<()> {
        let name = &damage.file;
        match self.origin {
            Origin::Remote(remote) => {
                let wanted = self.wanted(remote, damage, fresh);
                if damage.shard {
                    download(self.client, &wanted, &|n| self.tally.moved(name, n))?;
                    return Ok(());
                }
                match fetch_optional(self.client, &wanted, self.tally)? {
                    Some(_) => Ok(()),
                    None => {
                        let url = without_secrets(&wanted.url);
                        Err(HubError::Status { url, status: 404, login: false, wait: None })
                    }
                }
            }
            Origin::Folder(from) => {
                let (at, len) = found_in(from, name)?;
                if let Some(expected) = damage.bytes.filter(|&bytes| bytes != len) {
                    return Err(HubError::WrongSize { file: at.display().to_string(), expected, found: len });
                }
                fs::copy(&at, fresh).map_err(|source| HubError::Copy {
                    from: at.clone(),
                    to: fresh.to_path_buf(),
                    source,
                })?;
                *copied += len;
                self.tally.moved(name, len as i64);
                crate::download::sniff(fresh, &at.display().to_string())?;
                damage.digest.as_ref().map_or(Ok(()), |digest| digest.check(fresh, &at.display().to_string()))
            }
        }
    }

    fn wanted(&self, remote: &Remote<'_>, damage: &Damage, dest: &Path) -> Wanted {
        let limit = if damage.shard { WEIGHTS_LIMIT } else { MANIFEST_LIMIT };
        let known = remote.wanted(self.work, &damage.file, limit);
        let stated = remote.sha256.clone().filter(|_| MANIFEST_NAMES.contains(&damage.file.as_str()));
        Wanted {
            dest: dest.to_path_buf(),
            // What this folder should have, not what may be there by now.
            len: damage.bytes.or(known.len),
            digest: damage.digest.clone().or(stated).or(known.digest),
            limit: damage.bytes.unwrap_or(limit),
            ..known
        }
    }

    /// By rename. What may have been changed on purpose is kept under another name.
    fn take_place(&self, damage: &Damage, fresh: &Path) -> Result<Option<String>> {
        let name = &damage.file;
        let place = self.folder.join(name);
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).map_err(HubError::io(dir))?;
        }
        let file =
            File::options().read(true).write(cfg!(windows)).open(fresh).map_err(HubError::io(fresh))?;
        file.sync_all().map_err(HubError::io(fresh))?;
        drop(file);
        let mut kept = None;
        let may_be_edited = !damage.shard && !MANIFEST_NAMES.contains(&name.as_str());
        if may_be_edited && fs::metadata(&place).is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
            let old = format!("{name}{OLD}");
            let to = self.folder.join(&old);
            fs::copy(&place, &to).map_err(|source| HubError::Copy { from: place.clone(), to, source })?;
            kept = Some(old);
        }
        fs::rename(fresh, &place).map_err(HubError::io(&place))?;
        unaccept(self.folder, name)?;
        Ok(kept)
    }
}

fn found_in(folder: &Path, name: &str) -> Result<(PathBuf, u64)> {
    let none = || HubError::io(folder.join(name))(io::ErrorKind::NotFound.into());
    local::find(folder, name)?.ok_or_else(none)
}

fn copy_part(
    from: &Path,
    name: &str,
    part: &Range<u64>,
    total: u64,
    to: &mut File,
    to_path: &Path,
) -> Result<u64> {
    let (at, len) = found_in(from, name)?;
    if len != total {
        return Err(HubError::WrongSize { file: at.display().to_string(), expected: total, found: len });
    }
    let mut file = files::open(&at).map_err(HubError::io(&at))?;
    file.seek(SeekFrom::Start(part.start)).map_err(HubError::io(&at))?;
    to.seek(SeekFrom::Start(part.start)).map_err(HubError::io(to_path))?;
    let copied = io::copy(&mut file.take(part.end - part.start), to).map_err(HubError::io(to_path))?;
    if copied != part.end - part.start {
        return Err(HubError::WrongSize {
            file: at.display().to_string(),
            expected: part.end,
            found: part.start + copied,
        });
    }
    Ok(copied)
}
