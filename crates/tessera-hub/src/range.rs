//! Some bytes of a large file, from a server that may do anything: they come, or an error does after a bounded
//! number of requests. Whether they are the right ones is for the digest of the whole file to say.

use crate::download::{Wanted, content_range, is_html};
use crate::http::{Ask, Client, Reply, Which, is_transient, status_error};
use crate::source::without_secrets;
use crate::{HubError, Result};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use ureq::http::header;

/// What a request must bring for the next one not to count as a repetition.
const PROGRESS: u64 = 1 << 20;

/// Brings `range` of a file that has `total` bytes to its place in `out`.
pub(crate) fn fetch_range(
    client: &Client<'_>,
    want: &Wanted,
    total: u64,
    range: &Range<u64>,
    out: &File,
    moved: &dyn Fn(i64),
) -> Result<()> {
    let retries = want.retries.unwrap_or(client.settings.retries);
    let (mut at, mut tried, mut furthest) = (range.start, 0, range.start);
    while at < range.end {
        let before = at;
        match transfer(client, want, total, &mut at, range.end, out, moved) {
            Ok(()) if at > before => {}
            Ok(()) => return Err(bad(want, format!("it sends none of the bytes {at}-{}", range.end - 1))),
            Err(e) if is_transient(&e) => {
                if at - furthest >= PROGRESS {
                    (tried, furthest) = (0, at);
                }
                if tried >= retries {
                    return Err(e);
                }
                client.pause(tried, &e);
                tried += 1;
                continue;
            }
            Err(e) => return Err(e),
        }
        // A shorter answer than was asked for is allowed, and is no reason to go on for ever.
        if at < range.end {
            if at - before < PROGRESS {
                tried += 1;
            }
            if tried > retries {
                return Err(bad(
                    want,
                    format!("asked for {} bytes, it sends a few at a time", range.end - before),
                ));
            }
        }
    }
    Ok(())
}

fn bad(want: &Wanted, why: String) -> HubError {
    HubError::BadReply { url: without_secrets(&want.url), why }
}

fn transfer(
    client: &Client<'_>,
    want: &Wanted,
    total: u64,
    at: &mut u64,
    end: u64,
    out: &File,
    moved: &dyn Fn(i64),
) -> Result<()> {
    let reply = client.get(&want.url, Ask { which: Which::Between(*at, end), most: end - *at })?;
    match reply.status() {
        206 => {}
        200 if is_html(&reply) => return Err(HubError::Html { file: without_secrets(&want.url) }),
        200 => {
            return Err(bad(want, format!("asked for the bytes {at}-{}, it sends the whole file", end - 1)));
        }
        416 => return Err(bad(want, format!("it has no bytes {at}-{} (416)", end - 1))),
        _ => return Err(status_error(&want.url, &reply)),
    }
    let until = end_of(&reply, *at, end, total).map_err(|why| bad(want, why))?;
    let mut body = reply.into_body();
    let mut buffer = vec![0u8; 1 << 17];
    let mut out = out;
    out.seek(SeekFrom::Start(*at)).map_err(HubError::io(&want.dest))?;
    let broke = |at: u64, why: String| HubError::Network { url: without_secrets(&want.url), got: at, why };
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(broke(*at, e.to_string())),
        };
        if n > until - *at {
            return Err(bad(want, format!("it sends more than the bytes up to {until} that it states")));
        }
        out.write_all(&buffer[..n as usize]).map_err(HubError::io(&want.dest))?;
        *at += n;
        moved(n as i64);
    }
    if *at < until {
        return Err(broke(*at, format!("the answer ended, it states the bytes up to {until}")));
    }
    Ok(())
}

/// The first byte after those that an answer brings, if they are of those that were asked for.
fn end_of(reply: &Reply, at: u64, end: u64, total: u64) -> Result<u64, String> {
    let text = reply.header(header::CONTENT_RANGE).unwrap_or("nothing");
    let (start, until, of) = content_range(text).ok_or_else(|| {
        format!("its Content-Range is {text:?}, expected \"bytes {at}-{}/{total}\"", end - 1)
    })?;
    if start != at || until > end {
        return Err(format!("asked for the bytes {at}-{}, it sends {text:?}", end - 1));
    }
    if of.is_some_and(|of| of != total) {
        return Err(format!("the file has {total} bytes, it says {text:?}"));
    }
    match reply.stated_len() {
        Some(n) if n != until - start => {
            Err(format!("{text:?} is of {} bytes, its Content-Length is {n}", until - start))
        }
        _ => Ok(until),
    }
}
