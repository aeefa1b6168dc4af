//! An MLC folder over HTTP: the manifest first, then the small files, then its shards, two at a time.

use crate::download::{Done, Wanted, download, sniff};
use crate::http::Client;
use crate::kind::MANIFEST_NAMES;
use crate::name::plain;
use crate::part::is_reserved;
use crate::progress::Tally;
use crate::{Digest, FileRecord, HashKind, HubError, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tessera_weights::embedding::POOLING;
use tessera_weights::manifest::{MAX_MANIFEST_LEN, Manifest, Shard};
use tessera_weights::model::MAX_CONFIG;
use tessera_weights::{files, json};

/// Files that may stand beside the manifest and matter to a reader.
pub(crate) const SIDE_FILES: [&str; 16] = [
    "mlc-chat-config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "tensor-cache-b16.json",
    "ndarray-cache-b16.json",
    "modules.json",
    POOLING,
];

pub(crate) const MANIFEST_LIMIT: u64 = MAX_MANIFEST_LEN;
const SIDE_FILE_LIMIT: u64 = 256 << 20;
const PARALLEL: usize = 2;

/// A shard as the manifest states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFile {
    /// Plain file name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// MD5; manifests from before November 2023 state none.
    pub md5: Option<Digest>,
}

/// The shards of a manifest that was parsed and checked in full: what could not be opened later is not
/// fetched now. `file` is the manifest's name for messages.
pub fn shards_of(file: &str, manifest: &[u8]) -> Result<Vec<ShardFile>> {
    let bad = |why: String| HubError::BadManifest { file: file.to_string(), why };
    let manifest = Manifest::parse(manifest).map_err(|e| bad(e.to_string()))?;
    let shard = |shard: &Shard| {
        let name = shard.path.clone();
        // The store is stricter than the format: names that are plain on every platform, and none that
        // would overwrite a file that stands beside the shards.
        plain(&name).map_err(|why| bad(format!("dataPath {name:?}: {why}")))?;
        if SIDE_FILES.contains(&name.as_str()) || name.ends_with(".json") || is_reserved(&name) {
            return Err(bad(format!("dataPath {name:?}: not a name for a shard")));
        }
        let digest = |text: &String| {
            Digest::parse(HashKind::Md5, text)
                .ok_or_else(|| bad(format!("{name}: md5sum {text:?} is not an MD5")))
        };
        let md5 = shard.md5sum.as_ref().map(digest).transpose()?;
        Ok(ShardFile { name, bytes: shard.nbytes, md5 })
    };
    manifest.shards().iter().map(shard).collect()
}

/// The files of a source, each with its length and digest where the source states them.
pub(crate) type Listing = BTreeMap<String, (Option<u64>, Option<Digest>)>;

/// Where a folder's files are on the network and what is known of them beforehand.
pub(crate) struct Remote<'a> {
    /// The address of a file of the folder.
    pub address: Box<dyn Fn(&str) -> String + Sync + 'a>,
    /// All files, where the source lists them, with length and SHA-256 where it states them.
    pub listing: Option<Listing>,
    /// The manifest's name, where the user gave it.
    pub manifest: Option<String>,
    /// Its SHA-256, where the user gave that too.
    pub sha256: Option<Digest>,
    /// Repetitions of the very first request.
    pub first_retries: u32,
}

impl<'a> Remote<'a> {
    /// A folder of a web server, by its address or by that of its manifest.
    pub fn at(url: &str, manifest: Option<String>) -> Remote<'a> {
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (url, String::new()),
        };
        let base = manifest.as_deref().and_then(|name| path.strip_suffix(name)).unwrap_or(path);
        let base = base.trim_end_matches('/').to_string();
        let address = Box::new(move |name: &str| format!("{base}/{name}{query}"));
        Remote { address, listing: None, manifest, sha256: None, first_retries: 0 }
    }

    fn may_have(&self, name: &str) -> bool {
        self.listing.as_ref().is_none_or(|files| files.contains_key(name))
    }

    pub fn wanted(&self, dir: &Path, name: &str, limit: u64) -> Wanted {
        let (len, digest) = self.listing.as_ref().and_then(|l| l.get(name)).cloned().unwrap_or_default();
        Wanted {
            url: (self.address)(name),
            label: name.to_string(),
            dest: dir.join(name),
            len,
            digest,
            limit,
            retries: None,
        }
    }
}

/// Fetches a whole folder into `dir`. `Ok(None)`: there is no manifest at this place.
pub(crate) fn fetch_mlc(
    client: &Client<'_>,
    remote: &Remote<'_>,
    dir: &Path,
    tally: &Tally<'_>,
) -> Result<Option<Vec<FileRecord>>> {
    let Some((manifest_name, done)) = fetch_manifest(client, remote, dir, tally)? else { return Ok(None) };
    let path = dir.join(manifest_name);
    let manifest = files::need(&path, MANIFEST_LIMIT).map_err(HubError::io(&path))?;
    let shards = shards_of(manifest_name, &manifest)?;
    if shards.iter().any(|s| s.md5.is_none()) {
        tally.note(&format!(
            "{manifest_name} states no MD5 for some shards: only their length can be checked"
        ));
    }
    let mut records = vec![done.record(manifest_name)];

    let total = shards.iter().fold(0u64, |sum, s| sum.saturating_add(s.bytes));
    tally.set_total(total);
    records.extend(fetch_side_files(client, remote, dir, tally)?);

    let jobs: Vec<Wanted> = shards
        .iter()
        .map(|shard| {
            let known = remote.wanted(dir, &shard.name, shard.bytes);
            // The manifest's MD5 decides; the hub's SHA-256 is compared as well when it is sent.
            let digest = shard.md5.clone().or(known.digest);
            Wanted { len: Some(shard.bytes), digest, ..known }
        })
        .collect();
    records.extend(fetch_all(client, &jobs, tally)?);
    Ok(Some(records))
}

fn fetch_manifest<'a>(
    client: &Client<'_>,
    remote: &'a Remote<'_>,
    dir: &Path,
    tally: &Tally<'_>,
) -> Result<Option<(&'a str, Done)>> {
    let given = remote.manifest.as_deref();
    let names: Vec<&str> = given.map_or_else(|| MANIFEST_NAMES.to_vec(), |name| vec![name]);
    for (i, name) in names.into_iter().enumerate() {
        if !remote.may_have(name) {
            continue;
        }
        let known = remote.wanted(dir, name, MANIFEST_LIMIT);
        let digest = remote.sha256.clone().or(known.digest);
        let wanted = Wanted { digest, retries: (i == 0).then_some(remote.first_retries), ..known };
        match download(client, &wanted, &|n| tally.extra(name, n)) {
            Ok(done) => return Ok(Some((name, done))),
            Err(HubError::Status { status: 404 | 410, .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

fn fetch_side_files(
    client: &Client<'_>,
    remote: &Remote<'_>,
    dir: &Path,
    tally: &Tally<'_>,
) -> Result<Vec<FileRecord>> {
    let mut names: Vec<String> =
        SIDE_FILES.iter().filter(|n| remote.may_have(n)).map(|n| n.to_string()).collect();
    let mut records = Vec::new();
    let mut next = 0;
    while next < names.len() {
        let name = names[next].clone();
        next += 1;
        let Some(record) = fetch_optional(client, &remote.wanted(dir, &name, SIDE_FILE_LIMIT), tally)? else {
            if !SIDE_FILES.contains(&name.as_str()) {
                tally.note(&format!("{name}: named by mlc-chat-config.json, but not there"));
            }
            continue;
        };
        records.push(record);
        if name == "mlc-chat-config.json" {
            for extra in tokenizer_files(&dir.join(&name))? {
                if names.contains(&extra) {
                    continue;
                }
                if remote.may_have(&extra) {
                    names.push(extra);
                } else {
                    tally.note(&format!("{extra}: named by mlc-chat-config.json, but not there"));
                }
            }
        }
    }
    Ok(records)
}

/// A small file that may be missing; JSON must at least be JSON.
pub(crate) fn fetch_optional(
    client: &Client<'_>,
    wanted: &Wanted,
    tally: &Tally<'_>,
) -> Result<Option<FileRecord>> {
    let label = &wanted.label;
    // The one file that lies in a folder of the folder.
    let nested = wanted.dest.parent().filter(|_| label == POOLING);
    if let Some(folder) = nested {
        std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
    }
    let done = match download(client, wanted, &|n| tally.extra(label, n)) {
        Ok(done) => done,
        Err(HubError::Status { status: 404 | 410, .. }) => {
            // Goes if nothing came into it.
            let _ = nested.map(std::fs::remove_dir);
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    sniff(&wanted.dest, label)?;
    if label.ends_with(".json") {
        let bytes = files::need(&wanted.dest, SIDE_FILE_LIMIT).map_err(HubError::io(&wanted.dest))?;
        if let Err(e) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
            let _ = std::fs::remove_file(&wanted.dest);
            return Err(HubError::BadManifest { file: label.clone(), why: e.to_string() });
        }
    }
    Ok(Some(done.record(label)))
}

/// Names in `tokenizer_files` of the chat config that are not among the usual ones.
pub(crate) fn tokenizer_files(config: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        tokenizer_files: Vec<String>,
    }
    let label = "mlc-chat-config.json";
    let bad = |why: String| HubError::BadManifest { file: label.to_string(), why };
    let bytes = files::need(config, MAX_CONFIG).map_err(HubError::io(config))?;
    let config: Config = json::parse(&bytes).map_err(|e| bad(e.to_string()))?;
    for name in &config.tokenizer_files {
        plain(name).map_err(|why| bad(format!("tokenizer_files: {name:?}: {why}")))?;
        if name == crate::RECORD_FILE || MANIFEST_NAMES.contains(&name.as_str()) || is_reserved(name) {
            return Err(bad(format!("tokenizer_files: {name:?} is not a tokenizer")));
        }
    }
    Ok(config.tokenizer_files.into_iter().take(64).collect())
}

/// Fetches all files, a few at a time; the first failure stops the rest.
pub(crate) fn fetch_all(client: &Client<'_>, jobs: &[Wanted], tally: &Tally<'_>) -> Result<Vec<FileRecord>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let outcome: Mutex<Vec<(usize, Result<FileRecord>)>> = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { break };
            let result =
                download(client, job, &|n| tally.moved(&job.label, n)).map(|done| done.record(&job.label));
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of them, so that all is fetched where the system refuses more.
        for _ in 1..PARALLEL.min(jobs.len()) {
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    outcome.sort_by_key(|(index, _)| *index);
    outcome.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest with one shard of seven bytes, of which `field` is replaced by `with`.
    fn one(field: &str, with: &str) -> Result<Vec<ShardFile>> {
        let text = concat!(
            r#"{"metadata":{},"records":[{"dataPath":"params_shard_0.bin","format":"raw-shard","nbytes":7,"#,
            r#""records":[{"name":"w","shape":[7],"dtype":"uint8","format":"raw","nbytes":7,"byteOffset":0}],"#,
            r#""md5sum":"0123456789abcdef0123456789abcdef"}]}"#
        );
        assert!(text.contains(field));
        shards_of("m.json", text.replacen(field, with, 1).as_bytes())
    }

    #[test]
    fn shards_are_read() {
        let list = one("{}", "{}").unwrap();
        assert_eq!((list[0].name.as_str(), list[0].bytes), ("params_shard_0.bin", 7));
        assert_eq!(list[0].md5.as_ref().unwrap().hex, "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn hostile_manifests_are_refused() {
        for (field, with) in [
            ("params_shard_0.bin", "../x.bin"),
            ("params_shard_0.bin", "/etc/x"),
            ("params_shard_0.bin", r"a\\b"),
            ("params_shard_0.bin", "tokenizer.json"),
            ("params_shard_0.bin", "con.bin"),
            ("\"nbytes\":7", "\"nbytes\":-1"),
            ("\"nbytes\":7", "\"nbytes\":0"),
            ("\"nbytes\":7", "\"nbytes\":18446744073709551615"),
            ("\"byteOffset\":0", "\"byteOffset\":1"),
            ("0123456789abcdef0123456789abcdef", "zz"),
            ("\"w\"", "\"param_0\""),
        ] {
            let refused = one(field, with);
            assert!(matches!(refused, Err(HubError::BadManifest { .. })), "{field} as {with}");
        }
    }
}
