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
