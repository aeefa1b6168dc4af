//! What hostile and unlucky clients do: each request ends in a clear error or a clean cancellation, and the
//! server goes on.

use super::server::{PATIENCE, Server, home};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

fn endless() -> Value {
    json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true, "temperature": 0,
        "max_completion_tokens": 100_000,
    })
}

fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

#[test]
fn bodies_that_are_no_requests() {
    let server = Server::start(&[]);
    let post = |body: &[u8]| server.post_with(CHAT, body, &[JSON]);
    for (body, words) in [
        (&b"{\"model\": \"m\",\n  \"messages\": [,]}"[..], "line 2 column"),
        (b"{\"model\": \"m\"", "EOF"),
        (b"", "empty"),
        (b"[1]", "an array"),
        (b"{\"model\": \"\xff\xfe\"}", "UTF-8"),
        (b"{} {}", "trailing"),
        (b"{\"temperature\": NaN}", "line 1"),
        (b"{\"temperature\": 1e400}", "out of range"),
    ] {
        let error = post(body).refused(400, None);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    post(br#"{"model": "m", "model": "m"}"#).refused(400, Some("model"));
    post(br#"{"model": "m", "messages": [{"role": "user", "role": "user"}]}"#)
        .refused(400, Some("messages[0].role"));
    let deep = format!("{{\"tools\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(
        post(deep.as_bytes()).refused(400, None)["message"].as_str().unwrap().contains("recursion limit")
    );
    let body = streaming(endless()).to_string();
    let wrong_type = server.post_with(CHAT, body.as_bytes(), &[("content-type", "text/plain")]);
    wrong_type.refused(415, None);
    server.post_with(CHAT, body.as_bytes(), &[]).refused(415, None);
    server.post_with(CHAT, body.as_bytes(), &[JSON, ("content-encoding", "gzip")]).refused(415, None);
    server.get("/v1/nothing").refused(404, None);
    server.get(CHAT).refused(405, None);
    server.post("/v1/models", &json!({})).refused(405, None);
    server.until_idle();
}

#[test]
fn a_body_of_64_mib_is_refused_and_not_kept() {
    let server = Server::start(&[]);
    server.get("/health").ok();
    let before = server.metric("tessera_resident_memory_bytes");
    let long = format!("{{\"model\": \"{}\"}}", "x".repeat(64 << 20));
    for _ in 0..2 {
        let error = server.post_with(CHAT, long.as_bytes(), &[JSON]).refused(413, None);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&long.len().to_string()) && message.contains("4194304"), "{message}");
    }
    // The same without a stated length.
    let mut stream = server.raw();
    write!(stream, "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = "x".repeat(1 << 20);
    for _ in 0..8 {
        write!(stream, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
    }
    write!(stream, "0\r\n\r\n").unwrap();
    assert!(answer(stream).starts_with("HTTP/1.1 413"));
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 32.0 * 1024.0 * 1024.0, "{grown} bytes more");
}

/// What comes until the other side has nothing more to say.
fn answer(mut stream: std::net::TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let begun = Instant::now();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(_) if !text.is_empty() || begun.elapsed() > PATIENCE => break,
            Err(_) => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn heads_that_are_no_http() {
    let server = Server::start(&[]);
    for head in ["hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET \0 HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = server.raw();
        stream.write_all(head.as_bytes()).unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 400"), "{head:?}");
    }
    let mut stream = server.raw();
    let _ = write!(stream, "GET /health HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n", "x".repeat(1 << 20));
    let reply = answer(stream);
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    server.get("/health").ok();
}

#[test]
fn a_client_that_goes_away_at_any_point_is_cancelled() {
    let server = Server::of(home(8192), &["m", "--max-sequences", "2"], &[]);
    // In the head, in the body.
    let mut stream = server.raw();
    stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost").unwrap();
    drop(stream);
    let mut stream = server.raw();
    write!(
        stream,
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    )
    .unwrap();
    drop(stream);
    for (body, count) in [(endless(), 1.0), (streaming(endless()), 1.0)] {
        // While it is decoded; before a byte was read, and after.
        let before = server.metric("tessera_generations_cancelled_total");
        let stream = server.send(CHAT, &body);
        server.until("it runs", |s| s.metric("tessera_requests_running") == count);
        stream.shutdown(Shutdown::Both).unwrap();
        drop(stream);
        server.until_idle();
        assert_eq!(server.metric("tessera_generations_cancelled_total"), before + 1.0);
    }
    let mut stream = server.send(CHAT, &streaming(endless()));
    let mut buffer = [0; 300];
    stream.read_exact(&mut buffer).unwrap();
    drop(stream);
    server.until_idle();
    // While it waits in the queue behind two others.
    let first = [server.send(CHAT, &endless()), server.send(CHAT, &streaming(endless()))];
    server.until("two run", |s| s.metric("tessera_requests_running") == 2.0);
    let queued = [server.send(CHAT, &endless()), server.send(CHAT, &streaming(endless()))];
    server.until("two wait", |s| s.metric("tessera_requests_waiting") == 2.0);
    drop(queued);
    server.until("none waits", |s| s.metric("tessera_requests_waiting") == 0.0);
    drop(first);
    server.until_idle();
    // All n of one request.
    let mut many = streaming(endless());
    many["n"] = json!(4);
    let stream = server.send(CHAT, &many);
    server.until("two of four run", |s| s.metric("tessera_requests_running") == 2.0);
    drop(stream);
    server.until_idle();
    server
        .post(CHAT, &json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}))
        .ok();
}

#[test]
fn a_client_that_never_reads_holds_nothing_for_ever() {
    let server = Server::of(home(32768), &["m", "--write-timeout", "1"], &[]);
    let mut body = streaming(endless());
    // Many bytes for each token, so that the system's buffers fill.
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(20);
    let stream = server.send(CHAT, &body);
    server.until("it runs", |s| s.metric("tessera_requests_running") == 1.0);
    server.until_idle();
    assert!(server.metric("tessera_generated_tokens_total") < 32000.0, "it was not cancelled, it finished");
    drop(stream);
}

#[test]
fn a_thousand_requests_over_a_queue_of_64() {
    let server = Server::of(
        home(512),
        &["m", "--max-sequences", "4", "--queue", "64", "--max-connections", "2000"],
        &[],
    );
    let mut body = endless();
    body["max_completion_tokens"] = json!(4);
    let streams: Vec<_> = (0..1000).map(|_| server.send(CHAT, &body)).collect();
    let (mut answered, mut refused) = (0, 0);
    for stream in streams {
        let reply = answer(stream);
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply:?}"));
        let body: Value = serde_json::from_str(body).unwrap();
        if head.starts_with("HTTP/1.1 200") {
            assert_eq!(body["usage"]["completion_tokens"], 4);
            answered += 1;
        } else {
            assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: "), "{head}");
            assert_eq!(body["error"]["code"], "queue_full");
            refused += 1;
        }
    }
    assert!(answered >= 64 && answered + refused == 1000, "{answered} {refused}");
    server.until_idle();
    server.post(CHAT, &body).ok();
}

#[test]
fn memory_does_not_grow_with_requests() {
    let server = Server::of(home(512), &["m"], &[]);
    let (mut at_10, mut last) = (0.0, 0.0);
    for i in 1..=500 {
        let mut body = endless();
        body["max_completion_tokens"] = json!(2);
        match i % 5 {
            0 => body["stream"] = json!(true),
            1 => body["guided_regex"] = json!("[ab]{2}"),
            2 => body["no_such_field"] = json!(1),
            3 => body["messages"] = json!([{"role": "user", "content": format!("Hi {i}")}]),
            _ => body["n"] = json!(2),
        }
        let expected = if i % 5 == 2 { 400 } else { 200 };
        assert_eq!(server.post(CHAT, &body).status, expected);
        if i == 10 || i == 500 {
            server.until_idle();
            last = server.metric("tessera_resident_memory_bytes");
            at_10 = if i == 10 { last } else { at_10 };
        }
    }
    assert!(last < at_10 * 1.02 + 2e6, "{at_10} bytes after 10 requests, {last} after 500");
}

#[test]
fn too_many_connections_are_told_so() {
    let server = Server::start(&["--max-connections", "3"]);
    server.until("the connections of the start are closed", |s| s.get("/health").status == 200);
    let held: Vec<_> = (0..3).map(|_| server.raw()).collect();
    server.until("the next is refused", |s| {
        let mut stream = s.raw();
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let reply = answer(stream);
        reply.starts_with("HTTP/1.1 503") && reply.contains("too_many_connections")
    });
    drop(held);
    server.until("there is room again", |s| {
        let mut stream = s.raw();
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        answer(stream).starts_with("HTTP/1.1 200")
    });
}
