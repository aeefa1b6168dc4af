//! What the program takes of the machine: memory, threads, open files. Numbers with room to spare, since what they
//! guard against is not a fifth more but a hundred times as much.
#![cfg(target_os = "linux")]

mod common;
#[allow(dead_code)] // what other tests need of it
#[path = "http/server.rs"]
mod server;

use serde_json::json;
use server::{Server, home};
use std::io::{Read, Write};

const CHAT: &str = "/v1/chat/completions";
const MIB: f64 = (1u64 << 20) as f64;

/// Entries of a folder of the server's process: `task` for threads, `fd` for open files.
fn count(server: &Server, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap().count()
}

#[test]
fn a_long_context_takes_no_memory_before_it_is_used() {
    // Sixteen million tokens: some 15 GB of keys and values if they are all used.
    let server = Server::of(home(1 << 24), &["m"], &[]);
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 256.0 * MIB, "{} MiB when ready\n{}", resident / MIB, server.log());
    server
        .post(CHAT, &json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}))
        .ok();
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 256.0 * MIB, "{} MiB after an answer", resident / MIB);
}

#[test]
fn a_second_model_finds_what_the_first_leaves() {
    // Either could take more than most machines have.
    let home = home(1 << 28);
    common::copy(&home.path("m"), &home.path("n"));
    let server = Server::of(home, &["m", "n"], &[]);
    for model in ["m", "n"] {
        server.post("/v1/completions", &json!({"model": model, "prompt": "Hi", "max_tokens": 1})).ok();
    }
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 1024.0 * MIB, "{} MiB\n{}", resident / MIB, server.log());
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("of keys and values for")).collect();
    assert_eq!(told.len(), 2, "{log}");
}

#[test]
fn a_thousand_refused_requests_leave_no_file_open() {
    let server = Server::start(&[]);
    server.get("/health").ok();
    let before = count(&server, "fd");
    let body = json!({"model": "m", "messages": "none"}).to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for i in 0..1000 {
        let mut stream = server.raw();
        match i % 4 {
            0 => write!(stream, "GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
            1 => write!(stream, "no http\r\n\r\n"),
            _ => write!(
                stream,
                "{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        }
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 4"), "{reply}");
    }
    // The last connections may still be closing.
    server.until("files are closed", |s| count(s, "fd") <= before + 4);
}

/// The threads of models: `tessera-1` and so on.
fn workers(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names
        .filter(|name| {
            name.strip_prefix("tessera-").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
        .count()
}

/// What a line of the process's status says, in bytes.
fn status(server: &Server, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Lets the process take so much address space more; `None` takes the limit away.
fn limit_address_space(server: &Server, more: Option<u64>) {
    let rlim_cur = more.map_or(libc::RLIM_INFINITY, |more| status(server, "VmSize") + more);
    let limit = libc::rlimit { rlim_cur, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is ours; the old limit is not asked for.
    let set = unsafe { libc::prlimit(server.pid() as i32, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_load_without_threads_fails_and_leaves_none() {
    let home = home(2048);
    common::copy(&home.path("m"), &home.path("n"));
    let server = Server::of(home, &["m", "n", "--threads", "64"], &[]);
    assert_eq!(workers(&server), 63);
    // Some stacks of 2 MiB, not 63.
    limit_address_space(&server, Some(32 << 20));
    let ask = json!({"model": "n", "prompt": "Hi", "max_tokens": 1});
    let error = server.post("/v1/completions", &ask).refused(503, None);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("64 threads were asked for, the system gave "), "{message}");
    assert_eq!(workers(&server), 63);
    limit_address_space(&server, None);
    server.post("/v1/completions", &ask).ok();
    assert_eq!(workers(&server), 126);
}

/// Runs the program with so much address space, in KiB.
fn with_address_space(home: &common::Home, kib: u32, args: &str) -> common::Run {
    let script = format!("ulimit -v {kib} && exec {} {args}", env!("CARGO_BIN_EXE_tessera"));
    let output =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(home.0.path()).output().unwrap();
    common::Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_command_without_threads_says_so_or_does_with_one() {
    let home = home(2048);
    let run = with_address_space(&home, 400_000, "run m Hi --max-tokens 1 --threads 1000");
    run.fails(&["1000 threads were asked for, the system gave ", "give fewer --threads"]);
    let verify = with_address_space(&home, 400_000, "verify m --threads 1000").ok();
    assert!(verify.stderr.contains("everything runs on one thread"), "{}", verify.stderr);
}
