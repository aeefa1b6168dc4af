//! A server that lies: each pull ends, after few requests, with the right bytes or with an error that
//! names the address. Each lie is told twice: for a shard, whose length and MD5 the manifest states, and
//! for a GGUF file, of which nothing is known.

mod common;

use common::{Answer, Asked, SHARD_0, Say, World, shard_body};
use std::io::{Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tessera_hub::{Fetched, HubError};

const GGUF: &str = "/x.gguf";
/// Five beginnings, each with one continuation, and three repetitions.
const MOST_REQUESTS: usize = 13;

/// What must come of a lie.
enum End {
    /// The bytes of the file.
    Right,
    /// An error with this text.
    Error(&'static str),
    /// Either, since nobody can tell.
    Either,
}

use End::{Either, Error, Right};

/// Name, the lie, its end for a shard, its end for a file of which nothing is known.
#[rustfmt::skip]
const LIES: &[(&str, Say, End, End)] = &[
    ("the rest is refused with 416", |s, a| begin(s, a, &|s, _| say(s, "416 No", &[], b"")), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest starts at 0", |s, a| begin(s, a, &|s, _| rest(s, 0, 3999, "4000", V1, &file())), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest starts too late", |s, a| begin(s, a, &|s, n| rest(s, n + 1, 3999, "4000", V1, &file()[n + 1..])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the total grows", |s, a| begin(s, a, &|s, n| rest(s, n, 4000, "4001", V1, &[0; 2501])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the total shrinks", |s, a| begin(s, a, &|s, n| rest(s, n, 1999, "2000", V1, &[0; 500])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the tag changes", |s, a| begin(s, a, &|s, n| rest(s, n, 3999, "4000", "\"v2\"", &file()[n..])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest has no tag", |s, a| begin(s, a, &|s, n| rest(s, n, 3999, "4000", "", &file()[n..])), Right, Error("after 1500 bytes")),
    ("the rest does not say what it is", |s, a| begin(s, a, &|s, n| say(s, "206 P", &[], &file()[n..])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest ends before it starts", |s, a| begin(s, a, &|s, n| rest(s, n, n - 9, "4000", V1, &[])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest has another length than its range", |s, a| begin(s, a, &|s, n| rest(s, n, 3999, "4000", V1, &file()[n + 7..])), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest is of unknown total", |s, a| begin(s, a, &|s, n| rest(s, n, 3999, "*", V1, &file()[n..])), Right, Right),
    ("the rest is longer than it says", |s, a| begin(s, a, &|s, n| chunked(s, &format!("206 P\r\nETag: {V1}\r\nContent-Range: bytes {n}-3998/4000"), &file()[n..])), Error("more than the 3999 bytes"), Error("more than the 3999 bytes")),
    ("the rest is a number beyond numbers", |s, a| begin(s, a, &|s, n| say(s, "206 P", &[("Content-Range", &format!("bytes {n}-18446744073709551615/*"))], b"x")), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest is gone", |s, a| begin(s, a, &|s, _| say(s, "404 No", &[], b"")), Error("1500 bytes came, and for the rest it answers 404"), Error("answers 404")),
    ("the rest is a page", |s, a| begin(s, a, &|s, _| say(s, "200 OK", &[("Content-Type", "text/html")], b"log in")), Error("a web page came"), Error("a web page came")),
    ("the rest is the file, always cut", |s, a| begin(s, a, &|s, _| cut(s, V1, &file(), 1500)), Error("after 1500 bytes"), Error("after 1500 bytes")),
    ("the rest is of another version", |s, a| begin_as(s, a, V1, 0, &|s, n| rest(s, n, 3999, "4000", V1, &file()[n..])), Right, Either),
    ("a weak tag for two versions", |s, a| begin_as(s, a, "W/\"w\"", 0, &|s, n| rest(s, n, 3999, "4000", "W/\"w\"", &file()[n..])), Right, Right),
    ("no tag for two versions", |s, a| begin_as(s, a, "", 0, &|s, n| rest(s, n, 3999, "4000", "", &file()[n..])), Right, Right),
    ("a weak tag that changes", |s, a| begin_as(s, a, "W/\"w\"", 0, &|s, n| rest(s, n, 3999, "4000", "W/\"x\"", &file()[n..])), Right, Right),
    ("one byte a request", |s, a| match a.start {
        None => cut(s, V1, &file(), 1),
        Some(n) => { head(s, &format!("206 P\r\nETag: {V1}\r\nContent-Range: bytes {n}-3999/4000\r\nContent-Length: {}", 4000 - n))?; s.write_all(&file()[n..=n]) }
    }, Error("broke off after 4 bytes"), Error("broke off after 4 bytes")),
    ("ranges of one byte", |s, a| match a.start {
        None => cut(s, V1, &file(), 1),
        Some(n) => rest(s, n, n, "4000", V1, &file()[n..=n]),
    }, Error("broke off after 4 bytes"), Error("broke off after 4 bytes")),
    ("a body of drops", |s, _| { head(s, "200 OK\r\nContent-Length: 4000")?; drip(s, b"a") }, Error("at least 1024 are expected"), Error("at least 1024 are expected")),
    ("a head of drops", |s, _| drip(s, b"H"), Error("broke off after 0 bytes"), Error("broke off after 0 bytes")),
    ("a head without end", |s, _| { s.write_all(b"HTTP/1.1 200 OK\r\n")?; drip(s, b"A: b\r\n") }, Error("broke off after 0 bytes"), Error("broke off after 0 bytes")),
    ("hints for ever", |s, _| drip(s, b"HTTP/1.1 103 Early\r\n\r\n"), Error("broke off after 0 bytes"), Error("broke off after 0 bytes")),
    ("a trailer without end", |s, _| { head(s, "200 OK\r\nTransfer-Encoding: chunked")?; s.write_all(b"1\r\nx\r\n0\r\n")?; drip(s, b"A: b\r\n") }, Error("broke off after 1 bytes"), Either),
    ("chunks without end", |s, _| { head(s, "200 OK\r\nTransfer-Encoding: chunked")?; flood(s, b"3e8\r\n", &[7; 1000]) }, Error("expected 4000"), Either),
    ("a chunk whose size is none", |s, _| { head(s, "200 OK\r\nTransfer-Encoding: chunked")?; s.write_all(b"zz\r\nabc\r\n") }, Error("broke off"), Error("broke off")),
    ("a chunk size without end", |s, _| { head(s, "200 OK\r\nTransfer-Encoding: chunked")?; flood(s, b"", &[b'1'; 1000]) }, Error("broke off"), Error("broke off")),
    ("chunks that are cut", |s, _| { head(s, "200 OK\r\nTransfer-Encoding: chunked")?; s.write_all(b"fa0\r\nabc") }, Error("broke off"), Error("broke off")),
    ("a short body that ends well", |s, _| say(s, "200 OK", &[], &file()[..2000]), Error("2000 bytes, expected 4000"), Either),
    ("a long body", |s, _| say(s, "200 OK", &[], &[1; 5000]), Error("5000 bytes, expected 4000"), Either),
    ("an empty body", |s, _| say(s, "200 OK", &[], b""), Error("0 bytes, expected 4000"), Either),
    ("no length, cut", |s, _| { head(s, "200 OK")?; s.write_all(&file()[..2000]) }, Error("the file has 4000 bytes"), Error("it states no length")),
    ("no length on HTTP/1.0", |s, _| { write!(s, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?; s.write_all(&file()) }, Right, Error("it states no length")),
    ("a length beyond all disks", |s, _| head(s, "200 OK\r\nContent-Length: 9223372036854775807"), Error("9223372036854775807 bytes, expected 4000"), Error("1099511627776")),
    ("a negative length", |s, _| head(s, "200 OK\r\nContent-Length: -1"), Error("broke off"), Error("broke off")),
    ("two lengths", |s, _| { head(s, "200 OK\r\nContent-Length: 4000\r\nContent-Length: 4001")?; s.write_all(&file()) }, Error("broke off"), Error("broke off")),
    ("the file squeezed", |s, _| say(s, "200 OK", &[("Content-Encoding", "gzip")], &file()), Error("sent as \"gzip\""), Error("sent as \"gzip\"")),
    ("a page", |s, _| say(s, "200 OK", &[("Content-Type", "text/HTML; charset=utf-8")], b"hello"), Error("a web page came"), Error("a web page came")),
    ("a page that says it is none", |s, _| say(s, "200 OK", &[], b"\n <!DocType html>"), Error("a web page came"), Error("a web page came")),
    ("a pointer", |s, _| say(s, "200 OK", &[], b"version https://git-lfs.github.com/spec/v1\n"), Error("a git-LFS pointer"), Error("a git-LFS pointer")),
    ("a part that nobody asked for", |s, _| rest(s, 0, 3999, "4000", V1, &file()), Error("answered 206"), Error("answered 206")),
    ("nothing has changed", |s, _| head(s, "304 Same"), Error("answered 304"), Error("answered 304")),
    ("no content", |s, _| head(s, "204 None"), Error("answered 204"), Error("answered 204")),
    ("another protocol", |s, _| head(s, "101 Switch\r\nUpgrade: x"), Error("101"), Error("101")),
    ("an error for ever", |s, _| say(s, "500 No", &[], b""), Error("answered 500"), Error("answered 500")),
    ("no time for ever", |s, _| say(s, "429 No", &[("Retry-After", "0")], b""), Error("answered 429 and asks to wait 0 seconds"), Error("answered 429")),
    ("a redirect to itself", |s, _| say(s, "302 F", &[("Location", "")], b""), Error("more than 10 redirects"), Error("more than 10 redirects")),
    ("a redirect to nowhere", |s, _| say(s, "302 F", &[], b""), Error("a redirect without an address"), Error("a redirect without an address")),
    ("a redirect to a file", |s, _| say(s, "302 F", &[("Location", "file:///etc/passwd")], b""), Error("makes no sense"), Error("makes no sense")),
    ("silence", |_, _| Ok(()), Error("broke off"), Error("broke off")),
    ("no HTTP at all", |s, _| s.write_all(b"SSH-2.0-x\r\n\r\n"), Error("broke off"), Error("broke off")),
];

const V1: &str = "\"v1\"";

fn file() -> Vec<u8> {
    shard_body(0)
}

fn head(out: &mut TcpStream, head: &str) -> Result<()> {
    write!(out, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")
}

fn say(out: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
    head(out, &format!("{status}\r\nContent-Length: {}{headers}", body.len()))?;
    out.write_all(body)
}

/// The first `len` bytes of an answer that states all.
fn cut(out: &mut TcpStream, tag: &str, body: &[u8], len: usize) -> Result<()> {
    let tag = if tag.is_empty() { String::new() } else { format!("\r\nETag: {tag}") };
    head(out, &format!("200 OK\r\nContent-Length: {}{tag}", body.len()))?;
    out.write_all(&body[..len])
}

fn rest(out: &mut TcpStream, from: usize, to: usize, total: &str, tag: &str, body: &[u8]) -> Result<()> {
    let tag = if tag.is_empty() { String::new() } else { format!("\r\nETag: {tag}") };
    say(out, &format!("206 P\r\nContent-Range: bytes {from}-{to}/{total}{tag}"), &[], body)
}

fn chunked(out: &mut TcpStream, status: &str, body: &[u8]) -> Result<()> {
    head(out, &format!("{status}\r\nTransfer-Encoding: chunked"))?;
    write!(out, "{:x}\r\n", body.len())?;
    out.write_all(body)?;
    out.write_all(b"\r\n0\r\n\r\n")
}

type Then<'a> = &'a dyn Fn(&mut TcpStream, usize) -> Result<()>;

/// 1500 bytes of the file; `then` answers to who wants the rest.
fn begin(out: &mut TcpStream, asked: &Asked, then: Then<'_>) -> Result<()> {
    match asked.start {
        None => cut(out, V1, &file(), 1500),
        Some(start) => then(out, start),
    }
}

/// The same, the first time with bytes of another version; who asks again for all gets the file.
fn begin_as(out: &mut TcpStream, asked: &Asked, tag: &str, other: u8, then: Then<'_>) -> Result<()> {
    match asked.start {
        None if asked.earlier == 0 => cut(out, tag, &[other; 4000], 1500),
        None => cut(out, tag, &file(), 4000),
        Some(start) => then(out, start),
    }
}

/// The same few bytes again and again, until the client hangs up.
fn drip(out: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        out.write_all(bytes)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn flood(out: &mut TcpStream, before: &[u8], bytes: &[u8]) -> Result<()> {
    let end = if before.is_empty() { "" } else { "\r\n" };
    for _ in 0..2000 {
        out.write_all(&[before, bytes, end.as_bytes()].concat())?;
    }
    Ok(())
}

#[test]
fn every_lie_ends() {
    let fails: Vec<String> = std::thread::scope(|scope| {
        let tell = |told| scope.spawn(move || (judge(told, true), judge(told, false)));
        let running: Vec<_> = LIES.iter().map(tell).collect();
        let judged = running.into_iter().map(|r| r.join().unwrap());
        judged.flat_map(|(a, b)| [a, b]).filter_map(std::result::Result::err).collect()
    });
    assert!(fails.is_empty(), "{} of {}:\n{}", fails.len(), 2 * LIES.len(), fails.join("\n"));
}

fn judge(
    (name, lie, of_shard, of_gguf): &(&str, Say, End, End),
    shard: bool,
) -> std::result::Result<(), String> {
    let mut world = World::new();
    world.settings.read_timeout = Duration::from_secs(1);
    let (path, end) = if shard { (SHARD_0, of_shard) } else { (GGUF, of_gguf) };
    world.server.on(path, vec![Answer::Say(*lie)]);
    let url = format!("{}{path}", world.server.base);
    let got = world.pull(&if shard { format!("{}/m/", world.server.base) } else { url.clone() });
    let found = match &got {
        Err(error) => Err(error.to_string()),
        Ok(fetch) => Ok(match &fetch.what {
            Fetched::Installed(dir) => std::fs::read(dir.join("params_shard_0.bin")).unwrap(),
            Fetched::Gguf(path) | Fetched::Checkpoint(path) => std::fs::read(path).unwrap(),
        }),
    };
    let fail = |why: String| Err(format!("{name} ({path}): {why}"));
    let requests = world.server.seen(path).len();
    if requests > MOST_REQUESTS {
        return fail(format!("{requests} requests"));
    }
    match (end, &found) {
        (Error(text), Err(error)) if !error.contains(text) => fail(format!("{error:?} has no {text:?}")),
        (Error(_) | Either, Err(error)) if !error.starts_with(&url) => {
            fail(format!("{error:?} has no {url}"))
        }
        (Error(text), Ok(bytes)) => fail(format!("{} bytes were taken, expected {text:?}", bytes.len())),
        (Right, Err(error)) => fail(error.clone()),
        (Right, Ok(bytes)) if *bytes != file() => fail(format!("{} wrong bytes", bytes.len())),
        // Whatever came, the damage is not kept to be gone on with.
        (_, Err(_)) if matches!(got, Err(HubError::WrongHash { .. })) && world.shard_part().exists() => {
            fail("the damaged part is still there".into())
        }
        _ => Ok(()),
    }
}
