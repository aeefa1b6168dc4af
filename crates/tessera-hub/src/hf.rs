//! Repositories of the Hugging Face hub, or of a mirror that speaks the same addresses.

use crate::download::{Wanted, download};
use crate::http::Client;
use crate::kind::MANIFEST_NAMES;
use crate::mlc::{Listing, Remote, SIDE_FILES, fetch_all, fetch_mlc, fetch_optional};
use crate::name::plain;
use crate::progress::{Fetched, Tally};
use crate::source::{ONE_FILE, without_secrets};
use crate::{Digest, FileRecord, HashKind, HubError, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tessera_weights::manifest::MAX_MANIFEST_LEN;
use tessera_weights::{files, json};

const LISTING_LIMIT: u64 = 32 << 20;
const SMALL_LIMIT: u64 = 256 << 20;
/// Largest single weight file that is taken.
pub(crate) const WEIGHTS_LIMIT: u64 = 1 << 40;

/// What came, and of which commit.
pub(crate) struct HubFetch {
    pub what: Fetched,
    pub records: Vec<FileRecord>,
    pub commit: Option<String>,
}

/// Fetches what a repository holds into `dir`: an MLC folder if it has a manifest, else a checkpoint,
/// else its one GGUF file (or the one that `file` names).
pub(crate) fn fetch_hub(
    client: &Client<'_>,
    (repo, revision, file): (&str, Option<&str>, Option<&str>),
    sha256: Option<Digest>,
    dir: &Path,
    tally: &Tally<'_>,
    first_retries: u32,
) -> Result<HubFetch> {
    let (mut remote, commit) = repository(client, repo, revision, first_retries)?;
    let missing = |why: String| HubError::NoModelInRepo { repo: repo.to_string(), why };
    let one_file = || HubError::BadSource {
        spec: format!("HF://{repo}"),
        why: format!("a SHA-256 is stated for a folder: {ONE_FILE}"),
    };

    if let Some(file) = file {
        if !file.ends_with(".gguf") {
            return Err(missing(format!("{file} is not a .gguf file; name the repository alone")));
        }
        let record = fetch_gguf(client, &remote, file, sha256, dir, tally)?;
        let what = Fetched::Gguf(dir.join(&record.name));
        return Ok(HubFetch { what, records: vec![record], commit });
    }
    let has = |name: &str| remote.listing.as_ref().is_none_or(|l| l.contains_key(name));
    let may_be_mlc = MANIFEST_NAMES.iter().any(|name| has(name));
    if may_be_mlc && sha256.is_some() {
        return Err(one_file());
    }
    if may_be_mlc && let Some(records) = fetch_mlc(client, &remote, dir, tally)? {
        return Ok(HubFetch { what: Fetched::Installed(dir.to_path_buf()), records, commit });
    }
    let Some(listing) = remote.listing.take() else {
        return Err(missing("no manifest, and the server does not list its files".into()));
    };
    let ggufs: Vec<String> = listing.keys().filter(|n| n.ends_with(".gguf")).cloned().collect();
    let has_weights = listing.keys().any(|n| n.ends_with(".safetensors"));
    let has_config = listing.contains_key("config.json");
    remote.listing = Some(listing);
    if has_weights && has_config {
        if sha256.is_some() {
            return Err(one_file());
        }
        let records = fetch_checkpoint(client, &remote, repo, dir, tally)?;
        return Ok(HubFetch { what: Fetched::Checkpoint(dir.to_path_buf()), records, commit });
    }
    match ggufs.as_slice() {
        [one] => {
            let record = fetch_gguf(client, &remote, one, sha256, dir, tally)?;
            let what = Fetched::Gguf(dir.join(&record.name));
            Ok(HubFetch { what, records: vec![record], commit })
        }
        [] => Err(missing("no manifest, no safetensors with config.json and no .gguf file".into())),
        many => {
            let shown = many.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(HubError::BadSource {
                spec: format!("HF://{repo}"),
                why: format!("it holds {} GGUF files; add one to the name: {shown}", many.len()),
            })
        }
    }
}

/// Where the files of a repository are, and the commit that they belong to.
pub(crate) fn repository(
    client: &Client<'_>,
    repo: &str,
    revision: Option<&str>,
    first_retries: u32,
) -> Result<(Remote<'static>, Option<String>)> {
    let (listing, commit) = list(client, repo, revision, first_retries)?;
    let at = commit.as_deref().or(revision).unwrap_or("main").to_string();
    let base = format!("{}/{repo}/resolve/{at}", client.settings.hf_endpoint.trim_end_matches('/'));
    let remote = Remote {
        address: Box::new(move |name| format!("{base}/{name}")),
        listing,
        manifest: None,
        sha256: None,
        first_retries: client.settings.retries,
    };
    Ok((remote, commit))
}

/// The files of a repository and the commit that they belong to. A mirror may have no list.
fn list(
    client: &Client<'_>,
    repo: &str,
    revision: Option<&str>,
    retries: u32,
) -> Result<(Option<Listing>, Option<String>)> {
    #[derive(Deserialize)]
    struct Info {
        sha: Option<String>,
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
        size: Option<u64>,
        lfs: Option<Lfs>,
    }
    #[derive(Deserialize)]
    struct Lfs {
        sha256: Option<String>,
        size: Option<u64>,
    }
    let endpoint = client.settings.hf_endpoint.trim_end_matches('/');
    let url = match revision {
        // The hub wants a branch name's slash escaped.
        Some(r) => format!("{endpoint}/api/models/{repo}/revision/{}?blobs=true", r.replace('/', "%2F")),
        None => format!("{endpoint}/api/models/{repo}?blobs=true"),
    };
    let Some(bytes) = client.get_small(&url, LISTING_LIMIT, retries)? else {
        return Ok((None, None));
    };
    let bad = |why: String| HubError::BadReply { url: without_secrets(&url), why };
    let info: Info = json::parse(&bytes).map_err(|e| bad(format!("not a file list: {e}")))?;
    let is_commit = |s: &String| s.len() == 40 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let mut listing = Listing::new();
    for sibling in info.siblings {
        // Files in folders and with odd names are none that we would fetch.
        if !sibling.rfilename.split('/').all(|part| plain(part).is_ok()) {
            continue;
        }
        let digest = sibling.lfs.as_ref().and_then(|l| l.sha256.as_deref());
        let digest = digest.and_then(|hex| Digest::parse(HashKind::Sha256, hex));
        let size = sibling.lfs.as_ref().and_then(|l| l.size).or(sibling.size);
        listing.insert(sibling.rfilename, (size, digest));
    }
    Ok((Some(listing), info.sha.filter(is_commit)))
}

fn fetch_gguf(
    client: &Client<'_>,
    remote: &Remote<'_>,
    file: &str,
    sha256: Option<Digest>,
    dir: &Path,
    tally: &Tally<'_>,
) -> Result<FileRecord> {
    let known = remote.wanted(dir, file, WEIGHTS_LIMIT);
    let label = file.rsplit('/').next().unwrap_or(file).to_string();
    let digest = sha256.or(known.digest.clone());
    let wanted = Wanted { dest: dir.join(&label), label, digest, ..known };
    tally.set_total(wanted.len.unwrap_or(0));
    fetch_file(client, &wanted, tally)
}

/// One large file, by itself.
pub(crate) fn fetch_file(client: &Client<'_>, wanted: &Wanted, tally: &Tally<'_>) -> Result<FileRecord> {
    Ok(download(client, wanted, &|n| tally.moved(&wanted.label, n))?.record(&wanted.label))
}

fn fetch_checkpoint(
    client: &Client<'_>,
    remote: &Remote<'_>,
    repo: &str,
    dir: &Path,
    tally: &Tally<'_>,
) -> Result<Vec<FileRecord>> {
    const INDEX: &str = "model.safetensors.index.json";
    let empty = Listing::new();
    let listing = remote.listing.as_ref().unwrap_or(&empty);
    let mut records = Vec::new();
    for name in SIDE_FILES.iter().copied().chain([INDEX]) {
        if listing.contains_key(name) {
            records.extend(fetch_optional(client, &remote.wanted(dir, name, SMALL_LIMIT), tally)?);
        }
    }
    let names: Vec<String> = if listing.contains_key(INDEX) {
        index_files(&dir.join(INDEX))?
    } else if listing.contains_key("model.safetensors") {
        vec!["model.safetensors".into()]
    } else {
        let all = listing.keys().filter(|n| n.ends_with(".safetensors") && !n.contains('/'));
        let all: Vec<String> = all.cloned().collect();
        if all.len() != 1 {
            return Err(HubError::NoModelInRepo {
                repo: repo.to_string(),
                why: format!("{} safetensors files and no {INDEX} to say which belong together", all.len()),
            });
        }
        all
    };
    let jobs: Vec<Wanted> = names.iter().map(|name| remote.wanted(dir, name, WEIGHTS_LIMIT)).collect();
    tally.set_total(jobs.iter().fold(0, |sum: u64, job| sum.saturating_add(job.len.unwrap_or(0))));
    records.extend(fetch_all(client, &jobs, tally)?);
    Ok(records)
}

/// The distinct files that a safetensors index names.
fn index_files(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |why: String| HubError::BadManifest { file: "model.safetensors.index.json".into(), why };
    let bytes = files::need(path, MAX_MANIFEST_LEN).map_err(HubError::io(path))?;
    let index: Index = json::parse(&bytes).map_err(|e| bad(e.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    for name in &names {
        plain(name).map_err(|why| bad(format!("{name:?}: {why}")))?;
        if !name.ends_with(".safetensors") {
            return Err(bad(format!("{name:?} is not a safetensors file")));
        }
    }
    Ok(names.into_iter().collect())
}
