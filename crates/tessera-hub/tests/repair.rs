//! Damaged folders: what has to come again, that no more comes, and that nothing takes its place before it is
//! right, whatever the server says.

mod common;

use common::{Answer, Asked, SHARD_0, Say, World, shard_body, write_mlc_folder};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tessera_hub::{
    Damage, FetchOptions, HubError, Need, Outcome, Source, SourceRecord, accept, altered, damage_of,
};
use tessera_weights::verify::{VerifyOptions, verify};

const SHARD: &str = "params_shard_0.bin";

/// A world with a pulled model.
fn pulled() -> (World, PathBuf) {
    let mut world = World::new();
    world.settings.read_timeout = Duration::from_secs(1);
    drop(world.pull_folder().unwrap());
    let folder = world.home.path().join("models/m");
    (world, folder)
}

fn damages(folder: &Path) -> Vec<Damage> {
    let report = verify(folder, VerifyOptions::default(), &|_| {});
    damage_of(folder, &report, SourceRecord::read(folder).as_ref()).unwrap()
}

fn mend_from(world: &World, folder: &Path, source: &str) -> Vec<Outcome> {
    let source = Source::parse(source).unwrap();
    world.store().mend(folder, &damages(folder), &source, None, &|_| {}).unwrap()
}

fn mend(world: &World, folder: &Path) -> Vec<Outcome> {
    mend_from(world, folder, &SourceRecord::read(folder).unwrap().source)
}

fn ranges(world: &World, path: &str) -> Vec<String> {
    world.server.seen(path).iter().map(|s| s.headers.get("range").cloned().unwrap_or_default()).collect()
}

/// A shard of 1 MiB whose bytes are nowhere zero, in place of the first.
fn large(world: &World) -> Vec<u8> {
    let body: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8 + 1).collect();
    let folder = tempfile::tempdir().unwrap();
    write_mlc_folder(folder.path());
    std::fs::write(folder.path().join(SHARD), &body).unwrap();
    let md5 = |path: &Path| tessera_hub::hash_file(path, tessera_hub::HashKind::Md5).unwrap().hex;
    let small = folder.path().join("small");
    std::fs::write(&small, shard_body(0)).unwrap();
    let manifest = folder.path().join("ndarray-cache.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replacen(&md5(&small), &md5(&folder.path().join(SHARD)), 1);
    let (first, second) = text.split_once("params_shard_1").unwrap();
    std::fs::write(&manifest, format!("{}params_shard_1{second}", first.replace("4000", "1048576"))).unwrap();
    std::fs::remove_file(&small).unwrap();
    world.server.serve_folder("/m", folder.path());
    body
}

#[test]
fn a_truncated_shard_needs_its_tail_only() {
    let (world, folder) = pulled();
    std::fs::write(folder.join(SHARD), &shard_body(0)[..1500]).unwrap();
    let [damage] = &damages(&folder)[..] else { panic!() };
    assert_eq!(
        (damage.file.as_str(), &damage.need),
        (SHARD, &Need::Parts(std::iter::once(1500..4000).collect()))
    );
    let outcomes = mend(&world, &folder);
    let mended = outcomes[0].result.as_ref().unwrap();
    assert_eq!((mended.in_part, mended.fetched), (true, 2500));
    assert_eq!(ranges(&world, SHARD_0), ["", "bytes=1500-"]);
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), shard_body(0));
    assert!(damages(&folder).is_empty() && !folder.join(".tessera-repair").exists());
}

#[test]
fn what_is_too_long_is_cut_and_nothing_fetched() {
    let (world, folder) = pulled();
    let mut long = shard_body(0);
    long.extend([7; 100]);
    std::fs::write(folder.join(SHARD), &long).unwrap();
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    assert_eq!((mended.in_part, mended.fetched), (true, 0));
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), shard_body(0));
    assert_eq!(world.server.seen(SHARD_0).len(), 1, "the pull's own");
}

#[test]
fn where_the_parts_do_not_fit_the_whole_shard_comes() {
    let (world, folder) = pulled();
    let mut bytes = shard_body(0)[..1500].to_vec();
    bytes[9] ^= 1;
    std::fs::write(folder.join(SHARD), &bytes).unwrap();
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    assert_eq!((mended.in_part, mended.fetched), (false, 6500));
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), shard_body(0));
    // A flipped bit says nothing about where it is.
    let mut bytes = shard_body(0);
    bytes[3000] ^= 1;
    std::fs::write(folder.join(SHARD), &bytes).unwrap();
    assert_eq!(damages(&folder)[0].need, Need::Whole);
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    assert_eq!((mended.in_part, mended.fetched), (false, 4000));
}

#[test]
fn blocks_that_never_arrived_come_and_no_others() {
    let (world, folder) = pulled();
    let body = large(&world);
    let again = FetchOptions { force: true, ..FetchOptions::default() };
    let source = Source::parse(&format!("{}/m/", world.server.base)).unwrap();
    drop(world.store().fetch(&source, &again, &|_| {}).unwrap());
    let mut holes = body.clone();
    holes[8192..16384].fill(0);
    holes[500_000..600_000].fill(0);
    std::fs::write(folder.join(SHARD), &holes).unwrap();
    let pulls = world.server.seen(SHARD_0).len();
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    // 500000..503808 and 598016..600000 are no whole blocks, so these parts are not enough.
    assert!(!mended.in_part && mended.fetched == 8192 + 94_208 + (1 << 20), "{mended:?}");
    assert_eq!(ranges(&world, SHARD_0)[pulls..], ["bytes=8192-16383", "bytes=503808-598015", ""]);
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), body);

    let mut holes = body.clone();
    holes[8192..16384].fill(0);
    holes[503_808..598_016].fill(0);
    std::fs::write(folder.join(SHARD), &holes).unwrap();
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    assert!(mended.in_part && mended.fetched == 8192 + 94_208, "{mended:?}");
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), body);
}

#[test]
fn small_files_are_known_by_their_digest_and_what_was_there_is_kept() {
    let (world, folder) = pulled();
    for (name, bytes) in [("tokenizer.json", "[]"), ("special.tok", "pieceS")] {
        std::fs::write(folder.join(name), bytes).unwrap();
        let [damage] = &damages(&folder)[..] else { panic!() };
        assert!(damage.file == name && damage.digest.is_some() && damage.need == Need::Whole, "{damage:?}");
        let mended = mend(&world, &folder).remove(0).result.unwrap();
        assert_eq!(mended.kept, Some(format!("{name}.old")));
        assert_eq!(std::fs::read_to_string(folder.join(format!("{name}.old"))).unwrap(), bytes);
        assert!(damages(&folder).is_empty());
    }
    std::fs::remove_file(folder.join("special.tok")).unwrap();
    assert_eq!(mend(&world, &folder).remove(0).result.unwrap().kept, None);
    assert_eq!(std::fs::read_to_string(folder.join("special.tok")).unwrap(), "pieces");
}

#[test]
fn an_edit_is_told_and_can_be_accepted() {
    let (world, folder) = pulled();
    let record = || SourceRecord::read(&folder).unwrap();
    let config = folder.join("mlc-chat-config.json");
    std::fs::write(&config, r#"{"quantization":"q4f32_1","temperature":0.1}"#).unwrap();
    let [found] = &altered(&folder, &record()).unwrap()[..] else { panic!() };
    assert!(
        found.message().contains("mlc-chat-config.json has 44 bytes, it was installed with 77"),
        "{}",
        found.message()
    );
    let names = ["mlc-chat-config.json".to_string()];
    accept(&folder, &names).unwrap();
    assert!(altered(&folder, &record()).unwrap().is_empty() && damages(&folder).is_empty());
    // Damage after the edit is damage; what can come is the file as it was installed.
    std::fs::write(&config, r#"{"quantization":"q4f32_1","temperature":0.2}"#).unwrap();
    let [found] = &altered(&folder, &record()).unwrap()[..] else { panic!() };
    assert!(found.was_edited && found.message().contains("was accepted as edited with SHA-256"));
    let [damage] = &damages(&folder)[..] else { panic!() };
    assert_eq!(damage.bytes, Some(77));
    mend(&world, &folder).remove(0).result.unwrap();
    assert!(record().edited.is_empty() && altered(&folder, &record()).unwrap().is_empty());
    // An edit that was undone is none, and weights are not edited.
    std::fs::write(folder.join("special.tok"), "other").unwrap();
    accept(&folder, &["special.tok".to_string()]).unwrap();
    std::fs::write(folder.join("special.tok"), "pieces").unwrap();
    assert!(altered(&folder, &record()).unwrap().is_empty());
    for (name, why) in
        [(SHARD, "not edited"), ("ndarray-cache.json", "not edited"), ("README.md", "was not installed")]
    {
        let error = accept(&folder, &[name.to_string()]).unwrap_err().to_string();
        assert!(error.contains(why) && error.starts_with(name), "{error}");
    }
}

#[test]
fn a_manifest_comes_first_and_then_what_it_says() {
    let (world, folder) = pulled();
    let manifest = folder.join("ndarray-cache.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, &text[..200]).unwrap();
    std::fs::remove_file(folder.join(SHARD)).unwrap();
    let first = damages(&folder);
    assert_eq!(first.iter().map(|d| d.file.as_str()).collect::<Vec<_>>(), ["ndarray-cache.json"]);
    mend(&world, &folder).remove(0).result.unwrap();
    let second = damages(&folder);
    assert!(second.len() == 1 && second[0].file == SHARD && second[0].need == Need::Whole);
    mend(&world, &folder).remove(0).result.unwrap();
    assert!(damages(&folder).is_empty());
    // An MD5 that was changed in the manifest is not the shard's fault.
    let mut bytes = text.clone().into_bytes();
    let at = text.find("\"md5sum\":\"").unwrap() + 10;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    std::fs::write(&manifest, bytes).unwrap();
    assert_eq!(damages(&folder)[0].file, "ndarray-cache.json");
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(damages(&folder)[0].file, "ndarray-cache.json");
    mend(&world, &folder).remove(0).result.unwrap();
    assert!(damages(&folder).is_empty());
}

#[test]
fn from_a_folder_of_this_machine() {
    let (world, folder) = pulled();
    let other = tempfile::tempdir().unwrap();
    write_mlc_folder(other.path());
    std::fs::write(folder.join(SHARD), &shard_body(0)[..1500]).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "[]").unwrap();
    let outcomes = mend_from(&world, &folder, other.path().to_str().unwrap());
    let of = |name: &str| outcomes.iter().find(|o| o.file == name).unwrap().result.as_ref().unwrap();
    assert_eq!((of(SHARD).in_part, of(SHARD).fetched, of("tokenizer.json").fetched), (true, 2500, 2));
    assert!(damages(&folder).is_empty());
    // Nor does it need a record, or a manifest of the newer name.
    let record = std::fs::read(folder.join("tessera-source.json")).unwrap();
    for name in ["tessera-source.json", "ndarray-cache.json"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    assert_eq!(damages(&folder)[0].file, "tensor-cache.json");
    mend_from(&world, &folder, other.path().to_str().unwrap()).remove(0).result.unwrap();
    std::fs::write(folder.join("tessera-source.json"), record).unwrap();
    assert!(damages(&folder).is_empty() && folder.join("ndarray-cache.json").is_file());
    // A folder of another model does no harm.
    std::fs::write(other.path().join(SHARD), vec![1; 4000]).unwrap();
    std::fs::write(folder.join(SHARD), b"x").unwrap();
    let error = mend_from(&world, &folder, other.path().to_str().unwrap()).remove(0).result.unwrap_err();
    assert!(matches!(error, HubError::WrongHash { kind: "MD5", .. }), "{error}");
    assert_eq!(std::fs::read(folder.join(SHARD)).unwrap(), b"x");
    for (source, why) in [
        ("HF://a/b/x.gguf", "no MLC folder"),
        ("https://h.example/x.gguf", "no MLC folder"),
        ("https://h.example/m/?...", "its query was not recorded"),
        ("nobody", "the catalogue does not know it"),
    ] {
        let source = Source::parse(source).unwrap();
        let error = world.store().mend(&folder, &damages(&folder), &source, None, &|_| {}).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_repair_that_was_stopped_goes_on() {
    let (mut world, folder) = pulled();
    world.settings.retries = 0;
    std::fs::remove_file(folder.join(SHARD)).unwrap();
    let cut = Answer::Cut { body: shard_body(0), etag: "\"v1\"", cut: 1500 };
    world.server.on(SHARD_0, vec![cut, Answer::File { body: shard_body(0), etag: "\"v1\"" }]);
    let error = mend(&world, &folder).remove(0).result.unwrap_err();
    assert!(matches!(error, HubError::Network { got: 1500, .. }), "{error}");
    let mended = mend(&world, &folder).remove(0).result.unwrap();
    assert_eq!(mended.fetched, 2500);
    assert!(damages(&folder).is_empty() && !folder.join(".tessera-repair").exists());
}

#[test]
fn a_record_that_leads_out_of_the_folder_is_refused() {
    let (world, folder) = pulled();
    let outside = world.home.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let path = folder.join("tessera-source.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for name in ["../../outside", "/etc/passwd", "a/b", r"a\\b", ".."] {
        std::fs::write(&path, text.replace("special.tok", name)).unwrap();
        let report = verify(&folder, VerifyOptions::default(), &|_| {});
        let error = damage_of(&folder, &report, SourceRecord::read(&folder).as_ref()).unwrap_err();
        assert!(error.to_string().contains("no file of a folder"), "{error}");
    }
    let damage =
        Damage { file: "../outside".into(), shard: false, bytes: None, digest: None, need: Need::Whole };
    let source = Source::parse(&format!("{}/m/", world.server.base)).unwrap();
    let outcomes = world.store().mend(&folder, &[damage], &source, None, &|_| {}).unwrap();
    assert!(outcomes[0].result.is_err());
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine");
}

/// What a server may say to who asks for bytes in the middle of a shard. True: the shard is whole in the end.
#[rustfmt::skip]
const LIES: &[(&str, Say, bool)] = &[
    ("all of it", |s, a| match a.end { Some(_) => say(s, "200 OK", &[], &file()), None => honest(s, a) }, true),
    ("416", |s, a| match a.end { Some(_) => say(s, "416 No", &[], b""), None => honest(s, a) }, true),
    ("another range", |s, a| match a.end { Some(_) => part(s, 0, 4096, FULL, &file()[..4096]), None => honest(s, a) }, true),
    ("more than was asked for", |s, a| match (a.start, a.end) { (Some(n), Some(_)) => part(s, n, FULL, FULL, &file()[n..]), _ => honest(s, a) }, true),
    ("another total", |s, a| match (a.start, a.end) { (Some(n), Some(e)) => part(s, n, e, FULL + 1, &file()[n..e]), _ => honest(s, a) }, true),
    ("no range named", |s, a| match a.end { Some(_) => say(s, "206 P", &[], &file()[..4096]), None => honest(s, a) }, true),
    ("wrong bytes", |s, a| match (a.start, a.end) { (Some(n), Some(e)) => part(s, n, e, FULL, &vec![9; e - n]), _ => honest(s, a) }, true),
    ("squeezed", |s, a| match a.end { Some(_) => say(s, "206 P", &[("Content-Encoding", "gzip")], b"x"), None => honest(s, a) }, true),
    ("more than it states", |s, a| match (a.start, a.end) { (Some(n), Some(e)) => endless(s, &format!("206 P\r\nContent-Range: bytes {n}-{}/{FULL}", e - 1)), _ => honest(s, a) }, true),
    ("a page", |s, _| say(s, "200 OK", &[("Content-Type", "text/html")], b"log in"), false),
    ("a body of drops", |s, a| { head(s, &format!("206 P\r\nContent-Range: bytes {}-{}/{FULL}\r\nContent-Length: 4096", a.start.unwrap_or(0), a.start.unwrap_or(0) + 4095))?; drip(s) }, false),
    ("a short body", |s, a| { head(s, &format!("206 P\r\nContent-Range: bytes {}-{}/{FULL}\r\nContent-Length: 4096", a.start.unwrap_or(0), a.start.unwrap_or(0) + 4095))?; s.write_all(b"abc") }, false),
    ("a byte at a time", |s, a| match a.start { Some(n) => part(s, n, n + 1, FULL, &file()[n..=n]), None => say(s, "500 No", &[], b"") }, false),
    ("nothing at all", |_, _| Ok(()), false),
    ("gone", |s, _| say(s, "404 No", &[], b""), false),
    ("errors", |s, _| say(s, "500 No", &[], b""), false),
    ("no end", |s, a| match a.end { Some(_) => say(s, "416 No", &[], b""), None => endless(s, "200 OK") }, false),
    ("a file squeezed", |s, a| match a.end { Some(_) => say(s, "416 No", &[], b""), None => say(s, "200 OK", &[("Content-Encoding", "gzip")], &file()) }, false),
    ("another file", |s, a| match a.end { Some(_) => say(s, "416 No", &[], b""), None => say(s, "200 OK", &[], &vec![5; FULL]) }, false),
    ("a shorter file", |s, a| match a.end { Some(_) => say(s, "416 No", &[], b""), None => say(s, "200 OK", &[], &file()[..5000]) }, false),
];

const FULL: usize = 1 << 20;

fn file() -> Vec<u8> {
    (0..FULL as u32).map(|i| (i % 251) as u8 + 1).collect()
}

fn head(out: &mut TcpStream, head: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")
}

fn say(out: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
    head(out, &format!("{status}\r\nContent-Length: {}{headers}", body.len()))?;
    out.write_all(body)
}

fn part(out: &mut TcpStream, from: usize, to: usize, total: usize, body: &[u8]) -> std::io::Result<()> {
    say(out, &format!("206 P\r\nContent-Range: bytes {from}-{}/{total}", to - 1), &[], body)
}

fn honest(out: &mut TcpStream, _: &Asked) -> std::io::Result<()> {
    say(out, "200 OK", &[], &file())
}

fn endless(out: &mut TcpStream, status: &str) -> std::io::Result<()> {
    head(out, &format!("{status}\r\nTransfer-Encoding: chunked"))?;
    for _ in 0..4000 {
        write!(out, "3e8\r\n")?;
        out.write_all(&[7; 1000])?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}

fn drip(out: &mut TcpStream) -> std::io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        out.write_all(b"a")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn every_lie_ends_with_the_shard_whole_or_untouched() {
    let fails: Vec<String> = std::thread::scope(|scope| {
        // The end of a file is asked for as a broken download is, parts of its middle are not.
        let told = LIES.iter().flat_map(|told| [(told, false), (told, true)]);
        let running: Vec<_> = told.map(|(told, cut)| scope.spawn(move || judge(told, cut))).collect();
        running.into_iter().map(|r| r.join().unwrap()).filter_map(Result::err).collect()
    });
    assert!(fails.is_empty(), "{} of {}:\n{}", fails.len(), 2 * LIES.len(), fails.join("\n"));
}

fn judge((name, lie, whole): &(&str, Say, bool), cut: bool) -> Result<(), String> {
    // Two parts with four requests each, then the whole file with five beginnings.
    const MOST_REQUESTS: usize = 30;
    let mut world = World::new();
    world.settings.read_timeout = Duration::from_secs(1);
    let body = large(&world);
    assert_eq!(body, file());
    drop(world.pull_folder().unwrap());
    let folder = world.home.path().join("models/m");
    let mut holes = body.clone();
    holes[8192..16384].fill(0);
    holes[503_808..598_016].fill(0);
    if cut {
        holes = body[..600_000].to_vec();
    }
    std::fs::write(folder.join(SHARD), &holes).unwrap();
    world.server.on(SHARD_0, vec![Answer::Say(*lie)]);
    let result = mend(&world, &folder).remove(0).result;
    let requests = world.server.seen(SHARD_0).len() - 1;
    let found = std::fs::read(folder.join(SHARD)).unwrap();
    match (whole, &result) {
        _ if requests > MOST_REQUESTS => Err(format!("{name}: {requests} requests")),
        (true, Err(error)) => Err(format!("{name}: {error}")),
        (true, Ok(_)) if found != body => Err(format!("{name}: wrong bytes took the place")),
        (false, Ok(mended)) => Err(format!("{name}: {mended:?}")),
        (false, Err(error)) if !error.to_string().contains(&world.server.base) => {
            Err(format!("{name}: {error} does not name the address"))
        }
        (false, Err(_)) if found != holes => Err(format!("{name}: the shard was touched")),
        _ => Ok(()),
    }
}
