//! The real program on a free port, and a small client.
#![allow(dead_code)] // each test file uses its own part

use super::common::{Home, copy, golden};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub url: String,
    pub address: String,
    child: Child,
    home: Home,
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A home with a model folder `m`: a byte per token, random weights, so the text is noise but the same each
/// time. The golden's context of 64 tokens is made longer; nothing in it depends on the length.
pub fn home(context: usize) -> Home {
    let home = Home::new();
    copy(&golden("llama-tied-bf16/q4f32_1"), &home.path("m"));
    edit(&home, |config| {
        config["context_window_size"] = json!(context);
        config["model_config"]["context_window_size"] = json!(context);
    });
    home
}

/// Changes the folder's `mlc-chat-config.json`.
pub fn edit(home: &Home, change: impl FnOnce(&mut Value)) {
    let path = home.path("m/mlc-chat-config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

/// Gives the folder a Jinja template instead of MLC's.
pub fn jinja(home: &Home, template: &str) {
    edit(home, |config| drop(config.as_object_mut().unwrap().remove("conv_template")));
    jinja_beside(home, template);
}

/// Gives the folder a Jinja template beside MLC's.
pub fn jinja_beside(home: &Home, template: &str) {
    let path = home.path("m/tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = json!(template);
    std::fs::write(path, config.to_string()).unwrap();
}

impl Server {
    /// Serves `m` with a context of 2048 tokens.
    pub fn start(args: &[&str]) -> Server {
        Server::of(home(2048), &[&["m"], args].concat(), &[])
    }

    /// Serves what is said, and waits until it is ready.
    pub fn of(home: Home, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let server = Server::not_ready(home, args, environment);
        server.until("/ready answers 200", |s| s.get("/ready").status == 200);
        server
    }

    /// Serves, and returns when it listens.
    pub fn not_ready(home: Home, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.env("TESSERA_HOME", home.path("store")).env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.env_remove("TESSERA_API_KEY").envs(environment.iter().copied());
        command.current_dir(home.0.path()).args(["serve", "--port", "0", "--threads", "1"]).args(args);
        let log = std::fs::File::create(home.path("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(home.path("log")).unwrap();
        let url = line.split(' ').next().unwrap_or_default().trim().to_owned();
        let Some(address) = url.strip_prefix("http://") else { panic!("{line:?}\n{}", log()) };
        Server { address: address.to_owned(), url, child, home }
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path("log")).unwrap()
    }

    pub fn get(&self, path: &str) -> Reply {
        let request = agent().get(format!("{}{path}", self.url));
        reply(request.call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, body.to_string().as_bytes(), &[("content-type", "application/json")])
    }

    pub fn post_with(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Reply {
        let mut request = agent().post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request.send(body))
    }

    /// A stream's events: the JSON of each `data:` line, and whether `[DONE]` came last.
    pub fn stream(&self, path: &str, body: &Value) -> (Vec<Value>, bool) {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        events(&reply.body)
    }

    /// A connection on which a test writes and reads bytes itself.
    pub fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request as bytes; the answer is not read.
    pub fn send(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = self.raw();
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
        );
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream
    }

    /// A number of `/metrics`, of model `m` where there are several.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let of = |line: &&str| {
            line.starts_with(&format!("{name}{{model=\"m\"}} ")) || line.starts_with(&format!("{name} "))
        };
        let line = page.lines().find(of).unwrap_or_else(|| panic!("{name} is not in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Nothing waits, nothing runs, no page is held.
    #[track_caller]
    pub fn until_idle(&self) {
        self.until("the engine is idle", |s| {
            ["tessera_requests_waiting", "tessera_requests_running", "tessera_kv_pages_used"]
                .iter()
                .all(|name| s.metric(name) == 0.0)
        });
    }

    /// Cuts a shard of a model in the server's home.
    pub fn break_model(&self, name: &str) {
        std::fs::write(self.home.path(name).join("params_shard_0.bin"), b"short").unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// A refusal in OpenAI's shape, with this status and param.
    #[track_caller]
    pub fn refused(&self, status: u16, param: Option<&str>) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
        assert!(error["type"].is_string() && error.as_object().unwrap().contains_key("code"), "{body}");
        assert_eq!(error["param"].as_str(), param, "{body}");
        error.clone()
    }
}

pub fn events(body: &str) -> (Vec<Value>, bool) {
    let data: Vec<&str> = body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    let parse = |text: &&str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (data.iter().filter(|d| **d != "[DONE]").map(parse).collect(), done)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    ureq::Agent::new_with_config(config.build())
}

fn reply(outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut response = outcome.unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let mut body = String::new();
    response.body_mut().as_reader().read_to_string(&mut body).unwrap();
    Reply { status: response.status().as_u16(), headers, body }
}
