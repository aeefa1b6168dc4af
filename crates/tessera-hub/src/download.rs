//! One large file, resumable, from a server that may do anything: it ends with the right bytes or with
//! an error after a bounded number of requests, and `NAME` appears by rename once length and digest are
//! right.

use crate::http::{Ask, Client, Reply, Which, is_transient, no_end, status_error};
use crate::part::{Part, PartNote};
use crate::source::without_secrets;
use crate::{Digest, FileRecord, HashKind, HubError, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tessera_weights::files;
use ureq::http::header;

/// The least that a request must bring for the next one not to count as a repetition, and the share
/// of a large file that is asked for instead.
const PROGRESS: u64 = 1 << 20;
const PROGRESS_SHARE: u64 = 1000;

/// What is known of a file before it is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub url: String,
    /// Name for progress, and for the record.
    pub label: String,
    pub dest: PathBuf,
    pub len: Option<u64>,
    pub digest: Option<Digest>,
    /// Most bytes that are accepted when the length is not known.
    pub limit: u64,
    /// Repetitions, if not as many as the settings say.
    pub retries: Option<u32>,
}

impl Wanted {
    /// The address as errors show it.
    fn at(&self) -> String {
        without_secrets(&self.url)
    }

    fn bad(&self, why: String) -> HubError {
        HubError::BadReply { url: self.at(), why }
    }

    fn broke(&self, got: u64, why: String) -> HubError {
        HubError::Network { url: self.at(), got, why }
    }
}

/// Where a fetched file's digest came from.
pub(crate) struct Done {
    pub bytes: u64,
    pub digest: Digest,
    pub checked: bool,
}

impl Done {
    /// As it is recorded.
    pub fn record(self, name: &str) -> FileRecord {
        FileRecord { name: name.to_string(), bytes: self.bytes, digest: self.digest, checked: self.checked }
    }
}

/// How a request ended that was no failure.
enum Step {
    /// All bytes are here.
    Whole,
    /// What was here had to be thrown away.
    Again,
}

/// Fetches a file unless it is there already with the right digest. `moved` hears of every change of
/// the number of bytes that are here (negative when a part had to be thrown away).
pub(crate) fn download(client: &Client<'_>, want: &Wanted, moved: &dyn Fn(i64)) -> Result<Done> {
    if want.len.is_some_and(|len| len > want.limit) {
        return Err(HubError::TooLarge { file: want.at(), limit: want.limit });
    }
    let retries = want.retries.unwrap_or(client.settings.retries);
    if let Some(done) = already_there(client, want, retries)? {
        moved(done.bytes as i64);
        return Ok(done);
    }
    let mut part = Part::open(&want.dest, &want.url, want.len, want.digest.is_some())?;
    moved(part.len as i64);
    // Progress is what lies beyond the furthest length that was ever reached, and is worth a request.
    let (mut tried, mut furthest) = (0, part.len);
    loop {
        let resumed = part.len > 0;
        match transfer(client, want, &mut part, moved) {
            Ok(Step::Again) => {}
            Ok(Step::Whole) => match finish(want, &mut part) {
                // Bytes of two versions may have met in one part.
                Err(e @ HubError::WrongHash { .. }) if resumed => part.restart(e, moved)?,
                Err(e) => {
                    moved(-(part.len as i64));
                    part.clear()?;
                    return Err(e);
                }
                Ok(done) => return Ok(done),
            },
            Err(e) if is_transient(&e) => {
                let total = want.len.or(part.note.total).unwrap_or(0);
                if part.len.saturating_sub(furthest) >= PROGRESS.max(total / PROGRESS_SHARE) {
                    (tried, furthest) = (0, part.len);
                }
                if tried >= retries {
                    return Err(e);
                }
                client.pause(tried, &e);
                tried += 1;
                if part.len > 0 && !part.can_be_joined() {
                    part.restart(e, moved)?;
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// What is here under its final name: right by its digest or, where nobody states one, by the server's word that
/// it has still the same file. A pull that was stopped once all of it had come has nothing to fetch again.
fn already_there(client: &Client<'_>, want: &Wanted, retries: u32) -> Result<Option<Done>> {
    let Ok(meta) = fs::metadata(&want.dest) else { return Ok(None) };
    let bytes = meta.len();
    if want.len.is_none_or(|len| len == bytes) {
        if let Some(digest) = &want.digest
            && digest.check(&want.dest, &want.label).is_ok()
        {
            return Ok(Some(Done { bytes, digest: digest.clone(), checked: true }));
        }
        if want.digest.is_none()
            && let Some(note) = PartNote::of_finished(&want.dest, &want.url, bytes)
            && note.digest().is_none_or(|digest| digest.check(&want.dest, &want.label).is_ok())
            && unchanged(client, want, &note, retries)?
        {
            let checked = note.digest().is_some();
            let digest = crate::hash_file(&want.dest, HashKind::Sha256)?;
            return Ok(Some(Done { bytes, digest, checked }));
        }
    }
    fs::remove_file(&want.dest).map_err(HubError::io(&want.dest))?;
    Ok(None)
}

/// Whether the server has still the file with this strong entity tag.
fn unchanged(client: &Client<'_>, want: &Wanted, note: &PartNote, retries: u32) -> Result<bool> {
    let Some(tag) = note.strong_tag() else { return Ok(false) };
    let ask = Ask { which: Which::Unless(tag), most: 0 };
    let mut tried = 0;
    loop {
        let answer = client.get(&want.url, ask).and_then(|reply| match reply.status() {
            304 => Ok(true),
            // Not every server knows the condition; the body is left where it is.
            200 => Ok(etag(&reply).as_deref() == Some(tag)),
            _ => Err(status_error(&want.url, &reply)),
        });
        match answer {
            Err(e) if is_transient(&e) && tried < retries => client.pause(tried, &e),
            other => return other,
        }
        tried += 1;
    }
}

/// One request: appends to the part, or starts it anew where the server says that it must.
fn transfer(client: &Client<'_>, want: &Wanted, part: &mut Part, moved: &dyn Fn(i64)) -> Result<Step> {
    let known = want.len.or(part.note.total);
    if part.len > 0 && known == Some(part.len) {
        return Ok(Step::Whole);
    }
    let most = want.len.map_or(want.limit, |len| len.max(SNIFF_LEN));
    let resuming = part.len > 0;
    let which = if resuming { Which::From(part.len, part.note.strong_tag()) } else { Which::All };
    let reply = client.get(&want.url, Ask { which, most: most.saturating_sub(part.len) })?;
    if matches!(reply.status(), 200 | 206) && is_html(&reply) && !want.label.ends_with(".html") {
        return Err(HubError::Html { file: want.at() });
    }
    let mut reaches = None;
    let total = match reply.status() {
        206 if resuming => match rest_of(want, part, known, &reply) {
            Ok((end, total)) => {
                reaches = Some(end);
                Some(total)
            }
            Err(why) => {
                part.restart(want.bad(why), moved)?;
                return Ok(Step::Again);
            }
        },
        200 => {
            if resuming {
                let why =
                    format!("asked for the bytes from {} on, it sends the file from its start", part.len);
                part.restart(want.bad(why), moved)?;
            }
            reply.stated_len()
        }
        416 if resuming => {
            let why = format!("it has no bytes from {} on (416)", part.len);
            part.restart(want.bad(why), moved)?;
            return Ok(Step::Again);
        }
        // It is not a file that is missing.
        status @ (404 | 410) if resuming => {
            let why = format!("{} bytes came, and for the rest it answers {status}", part.len);
            part.clear()?;
            return Err(want.bad(why));
        }
        _ => return Err(status_error(&want.url, &reply)),
    };
    check_total(want, total)?;
    let has_end = reply.has_end();
    if !has_end && want.len.is_none() && want.digest.is_none() {
        return Err(no_end(&want.url));
    }
    let sha256 = reply.linked_sha256.clone().or(part.note.sha256.take());
    part.remember(PartNote { url: want.at(), etag: etag(&reply), sha256, total })?;
    append(want, part, reply, reaches.or(total), most, moved)?;
    match total.or(want.len.filter(|_| !has_end)) {
        Some(total) if part.len < total => {
            Err(want.broke(part.len, format!("the answer ended, the file has {total} bytes")))
        }
        _ => Ok(Step::Whole),
    }
}

/// Where a 206 ends and the length of the file, if it is the rest of what is here; else why not.
fn rest_of(want: &Wanted, part: &Part, known: Option<u64>, reply: &Reply) -> Result<(u64, u64), String> {
    let text = reply.header(header::CONTENT_RANGE).unwrap_or("nothing");
    let (start, end, total) = content_range(text)
        .ok_or_else(|| format!("its Content-Range is {text:?}, expected \"bytes {}-…/…\"", part.len))?;
    if start != part.len {
        return Err(format!("asked for the bytes from {} on, it sends those from {start} on", part.len));
    }
    let total = total.or(known).ok_or_else(|| format!("{text:?} does not say how long the file is"))?;
    if end > total || known.is_some_and(|known| known != total) {
        return Err(format!("the file had {} bytes, now it says {text:?}", known.unwrap_or(total)));
    }
    if reply.stated_len().is_some_and(|n| n != end - start) {
        let stated = reply.stated_len().unwrap_or(0);
        return Err(format!("{text:?} is of {} bytes, its Content-Length is {stated}", end - start));
    }
    let (old, new) = (part.note.etag.as_deref(), reply.header(header::ETAG));
    // What a digest proves in the end needs no tag now; but a tag that changed is no use to go on with.
    let proven = want.digest.is_some() || part.note.digest().is_some();
    if old != new && (old.and(new).is_some() || !proven) {
        let show = |tag: Option<&str>| tag.map_or("none".to_string(), str::to_string);
        return Err(format!("its ETag was {}, now it is {}", show(old), show(new)));
    }
    match (&part.note.sha256, &reply.linked_sha256) {
        (Some(old), Some(new)) if old != new => Err(format!("its SHA-256 was {old}, now it is {new}")),
        _ => Ok((end, total)),
    }
}

fn check_total(want: &Wanted, total: Option<u64>) -> Result<()> {
    let Some(found) = total else { return Ok(()) };
    if want.len.is_none() && found > want.limit {
        return Err(HubError::TooLarge { file: want.at(), limit: want.limit });
    }
    // A pointer or a web page is shorter than the shard; saying which is worth reading it.
    match want.len {
        Some(expected) if expected != found && found > SNIFF_LEN => {
            Err(HubError::WrongSize { file: want.at(), expected, found })
        }
        _ => Ok(()),
    }
}

/// Takes a body into the part. `reaches`: the length of the part that the server says it leads to.
fn append(
    want: &Wanted,
    part: &mut Part,
    reply: Reply,
    reaches: Option<u64>,
    most: u64,
    moved: &dyn Fn(i64),
) -> Result<()> {
    let mut file = part.append()?;
    let mut body = reply.into_body();
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(want.broke(part.len, e.to_string())),
        };
        let found = part.len + n as u64;
        if let Some(stated) = reaches.filter(|&stated| found > stated) {
            part.clear()?;
            return Err(want.bad(format!("it sends more than the {stated} bytes that it states")));
        }
        if found > most {
            return Err(match want.len {
                Some(expected) => HubError::WrongSize { file: want.at(), expected, found },
                None => HubError::TooLarge { file: want.at(), limit: want.limit },
            });
        }
        file.write_all(&buffer[..n]).map_err(HubError::io(&part.path))?;
        part.len = found;
        moved(n as i64);
    }
    file.sync_all().map_err(HubError::io(&part.path))
}

/// Length, kind and digest of a complete part, then its final name.
fn finish(want: &Wanted, part: &mut Part) -> Result<Done> {
    if !part.path.exists() {
        File::create(&part.path).map_err(HubError::io(&part.path))?;
    }
    sniff(&part.path, &want.at())?;
    if let Some(expected) = want.len.filter(|&len| len != part.len) {
        return Err(HubError::WrongSize { file: want.at(), expected, found: part.len });
    }
    let linked = part.note.digest();
    for digest in [&want.digest, &linked].into_iter().flatten() {
        digest.check(&part.path, &want.at())?;
    }
    let stated = want.digest.clone().or(linked);
    let checked = stated.is_some();
    let digest = match stated {
        Some(digest) => digest,
        None => crate::hash_file(&part.path, HashKind::Sha256)?,
    };
    part.publish(&want.dest)?;
    Ok(Done { bytes: part.len, digest, checked })
}

/// How much of a file's beginning decides whether it is a page or a pointer.
const SNIFF_LEN: u64 = 1024;

/// Refuses web pages and git-LFS pointers, the two things that come instead of a file.
pub(crate) fn sniff(path: &Path, label: &str) -> Result<()> {
    let mut head = Vec::new();
    let file = files::open(path).map_err(HubError::io(path))?;
    file.take(SNIFF_LEN).read_to_end(&mut head).map_err(HubError::io(path))?;
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

pub(crate) fn is_html(reply: &Reply) -> bool {
    reply.header(header::CONTENT_TYPE).is_some_and(|t| t.to_ascii_lowercase().starts_with("text/html"))
}

fn etag(reply: &Reply) -> Option<String> {
    reply.header(header::ETAG).map(str::to_string)
}

/// `bytes 100-199/200` as (100, 200, Some(200)): the second number is the first byte after the range.
pub(crate) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last): (u64, u64) = (start.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (start <= last).then_some((start, last.checked_add(1)?, total))
}
