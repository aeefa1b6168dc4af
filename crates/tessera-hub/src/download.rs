//! One large file, resumable: `NAME.part` grows beside `NAME.part.json`, which remembers the entity
//! tag; `NAME` appears by rename once length and digest are right.

use crate::http::{Ask, Client, Reply, is_transient, status_error};
use crate::source::without_password;
use crate::{Digest, HashKind, HubError, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use ureq::http::header;

/// What is known of a file before it is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub url: String,
    /// Name for messages.
    pub label: String,
    pub dest: PathBuf,
    pub len: Option<u64>,
    pub digest: Option<Digest>,
    /// Most bytes that are accepted when the length is not known.
    pub limit: u64,
}

/// Where a fetched file's digest came from.
pub(crate) struct Done {
    pub bytes: u64,
    pub digest: Digest,
    pub checked: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct PartNote {
    url: String,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    total: Option<u64>,
}

/// Fetches a file unless it is there already with the right digest. `moved` hears of every change of
/// the number of bytes that are here (negative when a part had to be thrown away).
pub(crate) fn download(client: &Client<'_>, want: &Wanted, moved: &dyn Fn(i64)) -> Result<Done> {
    if want.len.is_some_and(|len| len > want.limit) {
        return Err(HubError::TooLarge { file: want.label.clone(), limit: want.limit });
    }
    if let Some(done) = already_there(want)? {
        moved(done.bytes as i64);
        return Ok(done);
    }
    let mut part = Part::open(want)?;
    moved(part.len as i64);
    let (mut tried, mut restarted) = (0, false);
    loop {
        let before = part.len;
        let resumed = part.len > 0;
        match transfer(client, want, &mut part, moved) {
            Ok(()) => match finish(want, &part) {
                // Bytes of two versions may have met in one part: once more, from nothing.
                Err(HubError::WrongHash { .. }) if resumed && !restarted => {
                    restarted = true;
                    moved(-(part.len as i64));
                    part.clear()?;
                }
                Err(e) => {
                    moved(-(part.len as i64));
                    part.clear()?;
                    return Err(e);
                }
                done => return done,
            },
            Err(e) if is_transient(&e) => {
                if part.len > before {
                    tried = 0;
                }
                if tried >= client.settings.retries {
                    return Err(e);
                }
                client.pause(tried);
                tried += 1;
            }
            Err(e) => return Err(e),
        }
    }
}

fn already_there(want: &Wanted) -> Result<Option<Done>> {
    let Ok(meta) = fs::metadata(&want.dest) else { return Ok(None) };
    let right_len = want.len.is_none_or(|len| len == meta.len());
    if let (Some(digest), true) = (&want.digest, right_len)
        && digest.check(&want.dest, &want.label).is_ok()
    {
        return Ok(Some(Done { bytes: meta.len(), digest: digest.clone(), checked: true }));
    }
    fs::remove_file(&want.dest).map_err(HubError::io(&want.dest))?;
    Ok(None)
}

struct Part {
    path: PathBuf,
    note_path: PathBuf,
    note: PartNote,
    len: u64,
}

impl Part {
    fn open(want: &Wanted) -> Result<Part> {
        let path = with_suffix(&want.dest, ".part");
        let note_path = with_suffix(&want.dest, ".part.json");
        let note: Option<PartNote> = fs::read(&note_path).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let len = fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
        let mut part = Part { path, note_path, note: PartNote::default(), len };
        match note {
            // Without a tag only a digest can show that old and new bytes belong together.
            Some(note)
                if note.url == want.url
                    && len > 0
                    && want.len.is_none_or(|total| len <= total)
                    && (note.etag.is_some() || note.sha256.is_some() || want.digest.is_some()) =>
            {
                part.note = note;
            }
            _ => part.clear()?,
        }
        Ok(part)
    }

    fn clear(&mut self) -> Result<()> {
        for path in [&self.path, &self.note_path] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(path)(e)),
                _ => {}
            }
        }
        self.len = 0;
        self.note = PartNote::default();
        Ok(())
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// One request: appends to the part, or starts it anew where the server says that it must.
fn transfer(client: &Client<'_>, want: &Wanted, part: &mut Part, moved: &dyn Fn(i64)) -> Result<()> {
    let known = want.len.or(part.note.total);
    if part.len > 0 && known == Some(part.len) {
        return Ok(());
    }
    // A weak tag may not be used with If-Range.
    let tag = part.note.etag.clone().filter(|t| !t.starts_with("W/"));
    let resume = (part.len > 0).then_some((part.len, tag.as_deref()));
    let reply = client.get(&want.url, Ask { resume })?;
    let url = || without_password(&want.url);
    let bad = |why: String| HubError::BadReply { url: url(), why };
    let rest = match reply.status() {
        206 if resume.is_some() => {
            let (start, total) =
                content_range(&reply).ok_or_else(|| bad("no usable Content-Range".into()))?;
            let other_tag = matches!((&tag, etag(&reply)), (Some(a), Some(b)) if *a != b);
            if start != part.len || other_tag || known.zip(total).is_some_and(|(a, b)| a != b) {
                moved(-(part.len as i64));
                part.clear()?;
                return transfer_again(want, "the file changed on the server");
            }
            total.and_then(|t| t.checked_sub(start))
        }
        200 => {
            moved(-(part.len as i64));
            part.clear()?;
            reply.response.body().content_length()
        }
        416 if resume.is_some() => {
            moved(-(part.len as i64));
            part.clear()?;
            return transfer_again(want, "the server no longer has the rest of the part");
        }
        _ => return Err(status_error(&want.url, &reply)),
    };
    let total = rest.and_then(|n| n.checked_add(part.len));
    if is_html(&reply) && !want.label.ends_with(".html") {
        return Err(HubError::Html { file: want.label.clone() });
    }
    check_total(want, total)?;
    part.note = PartNote {
        url: want.url.clone(),
        etag: etag(&reply),
        sha256: reply.linked_sha256.clone().or(part.note.sha256.take()),
        total,
    };
    let note = serde_json::to_vec(&part.note).map_err(|e| bad(e.to_string()))?;
    fs::write(&part.note_path, note).map_err(HubError::io(&part.note_path))?;
    append(want, part, reply, total, moved)
}

/// Makes the caller's loop ask once more, now from the first byte.
fn transfer_again(want: &Wanted, why: &str) -> Result<()> {
    Err(HubError::Network { url: without_password(&want.url), got: 0, why: why.into() })
}

fn check_total(want: &Wanted, total: Option<u64>) -> Result<()> {
    let Some(found) = total else { return Ok(()) };
    if want.len.is_none() && found > want.limit {
        return Err(HubError::TooLarge { file: want.label.clone(), limit: want.limit });
    }
    // A pointer or a web page is shorter than the shard; saying which is worth reading it.
    match want.len {
        Some(expected) if expected != found && found > SNIFF_LEN => {
            Err(HubError::WrongSize { file: want.label.clone(), expected, found })
        }
        _ => Ok(()),
    }
}

fn append(
    want: &Wanted,
    part: &mut Part,
    reply: Reply,
    total: Option<u64>,
    moved: &dyn Fn(i64),
) -> Result<()> {
    let io = |e| HubError::Io { path: part.path.clone(), source: e };
    let mut file = OpenOptions::new().create(true).append(true).open(&part.path).map_err(io)?;
    let mut body = reply.response.into_body().into_with_config().limit(u64::MAX).reader();
    let most = want.len.map_or(want.limit, |len| len.max(SNIFF_LEN));
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        let broke = |why: String, got| HubError::Network { url: without_password(&want.url), got, why };
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broke(e.to_string(), part.len)),
        };
        if part.len + n as u64 > most {
            return Err(match want.len {
                Some(expected) => {
                    HubError::WrongSize { file: want.label.clone(), expected, found: part.len + n as u64 }
                }
                None => HubError::TooLarge { file: want.label.clone(), limit: want.limit },
            });
        }
        file.write_all(&buffer[..n]).map_err(|e| HubError::Io { path: part.path.clone(), source: e })?;
        part.len += n as u64;
        moved(n as i64);
    }
    file.sync_all().map_err(|e| HubError::Io { path: part.path.clone(), source: e })?;
    if total.is_some_and(|t| part.len < t) {
        let why = "the connection closed early".to_string();
        return Err(HubError::Network { url: without_password(&want.url), got: part.len, why });
    }
    Ok(())
}

/// Length, kind and digest of a complete part, then its final name.
fn finish(want: &Wanted, part: &Part) -> Result<Done> {
    if !part.path.exists() {
        File::create(&part.path).map_err(HubError::io(&part.path))?;
    }
    sniff(&part.path, &want.label)?;
    if let Some(expected) = want.len.filter(|&len| len != part.len) {
        return Err(HubError::WrongSize { file: want.label.clone(), expected, found: part.len });
    }
    let linked = part.note.sha256.as_deref().and_then(|hex| Digest::parse(HashKind::Sha256, hex));
    for digest in [&want.digest, &linked].into_iter().flatten() {
        digest.check(&part.path, &want.label)?;
    }
    let stated = want.digest.clone().or(linked);
    let checked = stated.is_some();
    let digest = match stated {
        Some(digest) => digest,
        None => crate::hash_file(&part.path, HashKind::Sha256)?,
    };
    fs::rename(&part.path, &want.dest).map_err(HubError::io(&want.dest))?;
    // The note has no meaning without its part; a leftover is harmless.
    let _ = fs::remove_file(&part.note_path);
    Ok(Done { bytes: part.len, digest, checked })
}

/// How much of a file's beginning decides whether it is a page or a pointer.
const SNIFF_LEN: u64 = 1024;

/// Refuses web pages and git-LFS pointers, the two things that come instead of a file.
pub(crate) fn sniff(path: &Path, label: &str) -> Result<()> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(HubError::io(path))?;
    file.take(SNIFF_LEN).read_to_end(&mut head).map_err(HubError::io(path))?;
    sniff_bytes(&head, label)
}

pub(crate) fn sniff_bytes(head: &[u8], label: &str) -> Result<()> {
    if head.starts_with(b"version https://git-lfs") {
        return Err(HubError::LfsPointer { file: label.to_string() });
    }
    let text = head.trim_ascii_start();
    let starts = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
    if starts(b"<!doctype") || starts(b"<html") {
        return Err(HubError::Html { file: label.to_string() });
    }
    Ok(())
}

fn is_html(reply: &Reply) -> bool {
    reply.header(header::CONTENT_TYPE).is_some_and(|t| t.to_ascii_lowercase().starts_with("text/html"))
}

fn etag(reply: &Reply) -> Option<String> {
    reply.header(header::ETAG).map(str::to_string)
}

/// `bytes 100-199/200` as (100, Some(200)).
fn content_range(reply: &Reply) -> Option<(u64, Option<u64>)> {
    let text = reply.header(header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}
