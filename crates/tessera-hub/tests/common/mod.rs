//! A small HTTP server on the loopback interface that misbehaves on request, and a tiny MLC folder.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tessera_hub::{Fetch, FetchOptions, HashKind, Result, Settings, Source, Store, hash_file};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// What to answer.
#[derive(Clone)]
pub enum Answer {
    /// The body, honouring Range and If-Range.
    File {
        body: Vec<u8>,
        etag: &'static str,
    },
    /// The first `cut` bytes of the full answer, then the connection closes.
    Cut {
        body: Vec<u8>,
        etag: &'static str,
        cut: usize,
    },
    Status(u16),
    /// Status, extra headers, body.
    Raw(u16, Vec<(String, String)>, Vec<u8>),
    /// Whatever this writes.
    Say(Say),
}

/// A server's own words.
pub type Say = fn(&mut TcpStream, &Asked) -> std::io::Result<()>;

/// What `Say` may answer to.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How many requests for this path came before.
    pub earlier: usize,
    /// The first byte that is wanted, if not all are.
    pub start: Option<usize>,
    /// The first byte after those that are wanted, where that was said.
    pub end: Option<usize>,
}

type Routes = Arc<Mutex<HashMap<String, Vec<Answer>>>>;

pub struct Server {
    pub base: String,
    routes: Routes,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (routes, seen) = (Routes::default(), Arc::new(Mutex::new(Vec::new())));
        let server = Server { base, routes: routes.clone(), seen: seen.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (routes, seen) = (routes.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, &routes, &seen));
            }
        });
        server
    }

    /// Answers in turn; the last one stays.
    pub fn on(&self, path: &str, answers: Vec<Answer>) {
        self.routes.lock().unwrap().insert(path.to_string(), answers);
    }

    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|s| s.path == path).cloned().collect()
    }

    /// Serves every file of a folder under `prefix`.
    pub fn serve_folder(&self, prefix: &str, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let body = std::fs::read(entry.path()).unwrap();
            self.on(&format!("{prefix}/{name}"), vec![Answer::File { body, etag: "\"v1\"" }]);
        }
    }
}

fn serve(mut stream: TcpStream, routes: &Routes, seen: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or("").to_string();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
    }
    let earlier = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen { path: path.clone(), headers: headers.clone() });
        seen.iter().filter(|s| s.path == path).count() - 1
    };
    let answer = {
        let mut routes = routes.lock().unwrap();
        match routes.get_mut(&path) {
            None => Answer::Status(404),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
        }
    };
    // The client may hang up early; that is its right.
    let _ = reply(&mut stream, &headers, earlier, answer);
}

fn reply(
    stream: &mut TcpStream,
    headers: &HashMap<String, String>,
    earlier: usize,
    answer: Answer,
) -> std::io::Result<()> {
    let range = headers.get("range").and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.split_once('-'));
    let end = range.and_then(|(_, last)| last.parse::<usize>().ok()).map(|last| last + 1);
    let range = range.and_then(|(start, _)| start.parse::<usize>().ok());
    match answer {
        Answer::Say(say) => say(stream, &Asked { earlier, start: range, end }),
        Answer::Status(status) => {
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        Answer::Raw(status, extra, body) => {
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
            for (name, value) in extra {
                write!(stream, "{name}: {value}\r\n")?;
            }
            stream.write_all(b"\r\n")?;
            stream.write_all(&body)
        }
        Answer::Cut { body, etag, cut } => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: {etag}\r\nConnection: close\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body[..cut])
        }
        Answer::File { etag, .. } if headers.get("if-none-match").is_some_and(|tag| tag == etag) => {
            write!(stream, "HTTP/1.1 304 X\r\nETag: {etag}\r\nConnection: close\r\n\r\n")
        }
        Answer::File { body, etag } => {
            let start = range.filter(|_| headers.get("if-range").is_none_or(|tag| tag == etag));
            match start {
                Some(start) => {
                    let end = end.unwrap_or(body.len()).min(body.len());
                    write!(
                        stream,
                        "HTTP/1.1 206 X\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n",
                        end - 1,
                        body.len(),
                        end - start
                    )?;
                    write!(stream, "ETag: {etag}\r\nConnection: close\r\n\r\n")?;
                    stream.write_all(&body[start..end])
                }
                None => {
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: {etag}\r\nConnection: close\r\n\r\n",
                        body.len()
                    )?;
                    stream.write_all(&body)
                }
            }
        }
    }
}

/// Settings that do not make a test wait.
pub fn quick(endpoint: &str) -> Settings {
    Settings {
        hf_endpoint: endpoint.to_string(),
        backoff: Duration::from_millis(1),
        read_timeout: Duration::from_secs(5),
        retries: 3,
        ..Settings::default()
    }
}

pub fn shard_body(index: u8) -> Vec<u8> {
    (0..4000u32).map(|i| (i % 251) as u8 ^ index).collect()
}

/// A folder with two shards, each of one tensor.
pub fn write_mlc_folder(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let mut records = Vec::new();
    for index in 0..2u8 {
        let name = format!("params_shard_{index}.bin");
        std::fs::write(dir.join(&name), shard_body(index)).unwrap();
        let md5 = hash_file(&dir.join(&name), HashKind::Md5).unwrap().hex;
        records.push(format!(
            concat!(
                r#"{{"dataPath":"{name}","format":"raw-shard","nbytes":4000,"records":[{{"name":"w{index}","#,
                r#""shape":[4000],"dtype":"uint8","format":"raw","nbytes":4000,"byteOffset":0}}],"md5sum":"{md5}"}}"#
            ),
            name = name,
            index = index,
            md5 = md5,
        ));
    }
    let manifest = format!(r#"{{"metadata":{{}},"records":[{}]}}"#, records.join(","));
    std::fs::write(dir.join("ndarray-cache.json"), manifest).unwrap();
    let config = r#"{"quantization":"q4f32_1","tokenizer_files":["tokenizer.json","special.tok"]}"#;
    std::fs::write(dir.join("mlc-chat-config.json"), config).unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    std::fs::write(dir.join("special.tok"), "pieces").unwrap();
}

/// Names under `models/`, the folder that must hold whole models only.
pub fn installed(home: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(home.join("models")) else { return Vec::new() };
    entries.flatten().map(|e| e.file_name().into_string().unwrap()).collect()
}

pub const SHARD_0: &str = "/m/params_shard_0.bin";

/// A server with a folder at `/m/`, and a store.
pub struct World {
    pub server: Server,
    pub home: tempfile::TempDir,
    pub settings: Settings,
}

impl World {
    pub fn new() -> World {
        let server = Server::start();
        let folder = tempfile::tempdir().unwrap();
        write_mlc_folder(folder.path());
        server.serve_folder("/m", folder.path());
        let settings = quick(&server.base);
        World { server, home: tempfile::tempdir().unwrap(), settings }
    }

    pub fn store(&self) -> Store {
        Store::open(self.home.path(), self.settings.clone())
    }

    pub fn pull(&self, source: &str) -> Result<Fetch> {
        self.store().fetch(&Source::parse(source)?, &FetchOptions::default(), &|_| {})
    }

    pub fn pull_folder(&self) -> Result<Fetch> {
        self.pull(&format!("{}/m/", self.server.base))
    }

    pub fn shard_part(&self) -> PathBuf {
        self.home.path().join("partial/m/download/params_shard_0.bin.part")
    }
}
