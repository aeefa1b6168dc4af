//! What a server takes of the machine: memory, time, threads, files. Each number has a bound far above what is
//! measured and far below what a mistake costs.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;
#[path = "http/server.rs"]
mod server;

use serde_json::{Value, json};
use server::{Server, home, jinja};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const MIB: f64 = 1024.0 * 1024.0;
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";

/// The longest bodies that are taken, all refused: for their length, before they are encoded.
fn long_bodies() -> Vec<(&'static str, Value)> {
    let words = "word ".repeat(720 << 10);
    let many: Vec<Value> = (0..10_000)
        .map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": format!("{i} {}", "word ".repeat(70))}))
        .collect();
    vec![
        (CHAT, json!({"model": "m", "messages": [{"role": "user", "content": words}]})),
        (CHAT, json!({"model": "m", "messages": many})),
        ("/v1/completions", json!({"model": "m", "prompt": words})),
        ("/v1/embeddings", json!({"model": "m", "input": [words]})),
        ("/v1/responses", json!({"model": "m", "input": words})),
    ]
}

/// Before: encoding took a hundred times a body's length in memory and stayed resident; many messages were
/// looked for one by one in the whole prompt, 18 s each.
#[test]
fn a_body_that_is_refused_costs_little_memory_and_time() {
    let home = home(2048);
    jinja(&home, TEMPLATE);
    let server = Server::of(home, &["m"], &[]);
    let before = server.metric("tessera_resident_memory_bytes");
    let mut slowest = Duration::ZERO;
    for (path, body) in long_bodies() {
        let text = body.to_string();
        assert!(text.len() > 3_500_000 && text.len() < 4 << 20, "{}", text.len());
        std::thread::scope(|scope| {
            let ask = || {
                let begun = Instant::now();
                let reply = server.post_with(path, text.as_bytes(), &[("content-type", "application/json")]);
                assert_eq!(
                    (reply.status, &reply.json()["error"]["code"]),
                    (400, &json!("context_length_exceeded"))
                );
                begun.elapsed()
            };
            let all: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            for one in all {
                slowest = slowest.max(one.join().unwrap());
            }
        });
    }
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 300.0 * MIB, "{} MiB after bodies of 4 MiB", grown / MIB);
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
}

/// Files that a thousand refused requests leave open: none.
#[test]
fn refused_requests_leave_no_file_open() {
    let server = Server::start(&[]);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let refuse = |i: usize| match i % 3 {
        0 => assert_eq!(server.post(CHAT, &json!({"model": "none", "messages": [{}]})).status, 404),
        1 => assert_eq!(server.post(CHAT, &json!({"model": "m", "messages": 1})).status, 400),
        _ => assert_eq!(server.get("/nothing").status, 404),
    };
    refuse(0);
    let before = open();
    (0..1000).for_each(refuse);
    let limit = Instant::now() + server::PATIENCE;
    while open() > before + 8 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(open() <= before + 8, "{before} files before, {} after", open());
}
