//! A pull that is killed again and again fetches no byte twice, beyond what was under way when it died.

mod common;

use common::{Answer, World, quick, write_mlc_folder};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tessera_hub::{FetchOptions, Fetched, HashKind, Source, Store, hash_file};

const KILLS: u64 = 20;
/// What a kill may cost; 1 MiB is promised, for lines of any speed.
const ALLOWED: u64 = 1 << 18;
/// How far a connection runs ahead of what the client has stored, as on a line that is slower than a disk: without,
/// the sockets of this machine would swallow whole files that nobody has read.
const AHEAD: u64 = 64 << 10;
const CHUNK: usize = 16 << 10;

/// Files of a folder, sent no faster than they are stored, and a word whenever it is time to kill.
struct Paced {
    files: HashMap<String, Vec<u8>>,
    /// Where the client keeps what came.
    download: PathBuf,
    sent: AtomicU64,
    /// How many bytes are stored before each kill, the next one last.
    points: Mutex<Vec<u64>>,
    /// How many processes have died.
    died: AtomicU64,
    kill: Mutex<Sender<()>>,
}

impl Paced {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let lives = self.died.load(Ordering::SeqCst);
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap_or(Ok(String::new()))?;
        let name = request.split(' ').nth(1).unwrap_or("").trim_start_matches("/m/").to_string();
        let (mut start, mut tag) = (0, String::new());
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                start = range.trim_end_matches('-').parse().unwrap();
            }
            if let Some(value) = line.strip_prefix("if-none-match: ") {
                tag = value.to_string();
            }
        }
        let Some(body) = self.files.get(&name) else {
            return write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let etag = format!("\"{name}\"");
        let end = format!("ETag: {etag}\r\nConnection: close\r\n\r\n");
        if tag == etag {
            return write!(stream, "HTTP/1.1 304 Same\r\n{end}");
        }
        let (len, total) = (body.len() - start, body.len());
        let status = match start {
            0 => "200 OK".to_string(),
            _ => format!("206 P\r\nContent-Range: bytes {start}-{}/{total}", total - 1),
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{end}")?;
        let mut at = start as u64;
        for chunk in body[start..].chunks(CHUNK) {
            self.wait_for(&name, at, lives);
            stream.write_all(chunk)?;
            at += chunk.len() as u64;
            self.sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            let mut points = self.points.lock().unwrap();
            let is_alive = self.died.load(Ordering::SeqCst) == lives;
            if is_alive && points.last().is_some_and(|point| self.stored() >= *point) {
                points.pop();
                self.kill.lock().unwrap().send(()).unwrap();
            }
        }
        Ok(())
    }

    /// Bytes that the client has.
    fn stored(&self) -> u64 {
        let here = std::fs::read_dir(&self.download).into_iter().flatten().flatten();
        here.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Until the client has stored most of the first `sent` bytes, or is dead.
    fn wait_for(&self, name: &str, sent: u64, lives: u64) {
        let len = |path: PathBuf| std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
        let begun = Instant::now();
        while self.died.load(Ordering::SeqCst) == lives && begun.elapsed() < Duration::from_secs(60) {
            let here = len(self.download.join(format!("{name}.part"))).max(len(self.download.join(name)));
            if here + AHEAD > sent {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn write_large_folder(dir: &Path) {
    write_mlc_folder(dir);
    let mut manifest =
        std::fs::read_to_string(dir.join("ndarray-cache.json")).unwrap().replace("4000", "3000000");
    for index in 0..2u8 {
        let path = dir.join(format!("params_shard_{index}.bin"));
        let small = hash_file(&path, HashKind::Md5).unwrap().hex;
        let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 249) as u8 ^ index).collect();
        std::fs::write(&path, body).unwrap();
        manifest = manifest.replace(&small, &hash_file(&path, HashKind::Md5).unwrap().hex);
    }
    std::fs::write(dir.join("ndarray-cache.json"), manifest).unwrap();
    // No digest is known of these.
    std::fs::write(dir.join("tokenizer.json"), format!("\"{}\"", "t".repeat(4_000_000))).unwrap();
    std::fs::write(dir.join("special.tok"), vec![b's'; 2_000_000]).unwrap();
}

#[test]
fn killed_at_twenty_points_it_fetches_no_byte_twice() {
    const HOME: &str = "TESSERA_TEST_KILLED_HOME";
    const URL: &str = "TESSERA_TEST_KILLED_URL";
    if let (Some(home), Ok(url)) = (std::env::var_os(HOME), std::env::var(URL)) {
        let store = Store::open(home, quick("http://127.0.0.1:9"));
        drop(store.fetch(&Source::parse(&url).unwrap(), &FetchOptions::default(), &|_| {}).unwrap());
        return;
    }
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_large_folder(folder.path());
    let read = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    let files: HashMap<_, _> = std::fs::read_dir(folder.path()).unwrap().map(|e| read(e.unwrap())).collect();
    let size: u64 = files.values().map(|body| body.len() as u64).sum();
    // Any points will do; these are the same in each run.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % (size - (1 << 20))
    };
    let mut points: Vec<u64> = (0..KILLS).map(|_| next()).collect();
    points.sort_unstable_by(|a, b| b.cmp(a));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m/", listener.local_addr().unwrap());
    let (kill, killed) = channel();
    let paced = Arc::new(Paced {
        files,
        download: home.path().join("partial/m/download"),
        sent: AtomicU64::new(0),
        points: Mutex::new(points),
        died: AtomicU64::new(0),
        kill: Mutex::new(kill),
    });
    let server = paced.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            // Whoever is killed hangs up.
            std::thread::spawn(move || drop(server.serve(stream)));
        }
    });
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_at_twenty_points_it_fetches_no_byte_twice"])
            .env(HOME, home.path())
            .env(URL, &url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let status = loop {
            if killed.try_recv().is_ok() {
                child.kill().unwrap();
                kills += 1;
                break child.wait().unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        paced.died.fetch_add(1, Ordering::SeqCst);
        if status.success() {
            break;
        }
        assert!(kills <= KILLS, "it failed without having been killed: {status}");
    }
    let sent = paced.sent.load(Ordering::SeqCst);
    assert_eq!(kills, KILLS);
    assert!(sent <= size + kills * ALLOWED, "{sent} bytes sent for {size}, {kills} kills");
    for (name, body) in &paced.files {
        let path = home.path().join("models/m").join(name);
        assert!(std::fs::read(&path).unwrap() == *body, "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(home.path().join("models/m")).unwrap().flatten().collect();
    assert_eq!(left.len(), paced.files.len() + 1, "the files and their record: {left:?}");
}

#[test]
fn a_file_without_a_digest_that_came_whole_is_asked_for_by_its_tag() {
    let world = World::new();
    let url = format!("{}/x.gguf", world.server.base);
    let one = Answer::File { body: b"GGUF one".to_vec(), etag: "\"1\"" };
    world.server.on("/x.gguf", vec![one]);
    let first = world.pull(&url).unwrap();
    let Fetched::Gguf(path) = &first.what else { panic!() };
    let (path, record) = (path.clone(), first.record.files.clone());
    drop(first);
    // Killed during the conversion.
    let again = world.pull(&url).unwrap();
    assert_eq!((again.record.files.clone(), std::fs::read(&path).unwrap()), (record, b"GGUF one".to_vec()));
    let seen = world.server.seen("/x.gguf");
    assert!(seen.len() == 2 && seen[1].headers["if-none-match"] == "\"1\"", "{seen:?}");
    drop(again);
    // Another version is another file.
    world.server.on("/x.gguf", vec![Answer::File { body: b"GGUF two".to_vec(), etag: "\"2\"" }]);
    drop(world.pull(&url).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"GGUF two");
    // What was changed here is not what the tag stands for, as far as its length tells.
    std::fs::write(&path, "GGUF two and more").unwrap();
    drop(world.pull(&url).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"GGUF two");
}
