//! Where a request was sent to, and who is still there: hosts, half-closed connections, schemes.

use super::server::{Server, home};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;

fn short() -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": "m", "messages": messages, "max_completion_tokens": 3, "temperature": 0}).to_string()
}

/// Sends a head and a body as they are; the whole answer.
fn talk(server: &Server, head: &str, body: &str) -> String {
    let mut stream = server.raw();
    write!(stream, "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

/// A page whose name was made to resolve to this machine is refused by the name that its browser sends.
#[test]
fn requests_to_a_foreign_host_are_refused() {
    let server = Server::of(home(256), &["m", "--allow-host", "llm.example.org"], &[]);
    let port = server.address.split(':').next_back().unwrap();
    let post = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\n";
    for host in ["evil.com:8080", "evil.com", "127.0.0.1.evil.com", "localhost.evil.com:80"] {
        let answer = talk(&server, &format!("{post}host: {host}\r\norigin: http://{host}\r\n"), &short());
        assert_eq!(status(&answer), 403, "{host}: {answer}");
        assert!(answer.contains("host_not_allowed") && answer.contains("--allow-host"), "{answer}");
    }
    for path in ["/", "/health", "/v1/models", "/metrics"] {
        let answer = talk(&server, &format!("GET {path} HTTP/1.1\r\nhost: evil.com\r\n"), "");
        assert_eq!(status(&answer), 403, "{path}");
    }
    // What the request itself names comes before the header.
    let answer = talk(&server, "GET http://evil.com/health HTTP/1.1\r\nhost: localhost\r\n", "");
    assert_eq!(status(&answer), 403);
    for host in [
        "localhost",
        &format!("localhost:{port}"),
        "127.0.0.1",
        "[::1]:80",
        "10.0.0.7",
        "LLM.example.org:443",
    ] {
        let answer = talk(&server, &format!("{post}host: {host}\r\n"), &short());
        assert_eq!(status(&answer), 200, "{host}: {answer}");
    }
    drop(server);
    home(64)
        .tessera(&["serve", "m", "--port", "0", "--allow-host", "http://a"])
        .fails(&["--allow-host", "http://a"]);
}

/// A proxy that puts its own `Host` leaves the page's origin.
#[test]
fn pages_of_foreign_origins_are_refused_wherever_they_were_sent() {
    let server =
        Server::of(home(256), &["m", "--cors", "https://a.example", "--allow-host", "b.example"], &[]);
    let post = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n";
    let asked = |origin: &str| status(&talk(&server, &format!("{post}origin: {origin}\r\n"), &short()));
    for origin in ["http://evil.com:8080", "https://evil.com", "http://a.example"] {
        assert_eq!(asked(origin), 403, "{origin}");
    }
    for origin in [
        "https://a.example",
        "https://b.example:444",
        "http://127.0.0.1:8080",
        "http://localhost:3000",
        "null",
    ] {
        assert_eq!(asked(origin), 200, "{origin}");
    }
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\naccess-control-request-method: POST\r\n\
        access-control-request-headers: authorization,x-stainless-os,x-stainless-retry-count\r\norigin: ";
    let answer = talk(&server, &format!("{preflight}https://a.example\r\n"), "");
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("x-stainless-retry-count"), "{answer}");
    let answer = talk(&server, &format!("{preflight}https://evil.com\r\n"), "");
    assert_eq!(status(&answer), 403);
    assert!(answer.contains("origin_not_allowed") && answer.contains("--cors https://evil.com"), "{answer}");
}

/// A stream that waits in silence: nothing would be sent to who has gone, or listens still, for a while.
#[test]
fn a_stream_that_waits_is_given_up_at_once_when_its_client_goes() {
    let server = Server::of(home(65536), &["m", "--max-sequences", "1"], &[]);
    let endless = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true,
        "max_completion_tokens": 60000, "stream": true,
    });
    let first = server.send("/v1/chat/completions", &endless);
    server.until("it runs", |s| s.metric("tessera_requests_running") == 1.0);
    let second = server.send("/v1/chat/completions", &endless);
    server.until("the next waits", |s| s.metric("tessera_requests_waiting") == 1.0);
    let begun = std::time::Instant::now();
    drop(second);
    server.until("none waits", |s| s.metric("tessera_requests_waiting") == 0.0);
    assert!(begun.elapsed().as_secs() < 12, "it took a comment of the usual kind: {:?}", begun.elapsed());
    drop(first);
    server.until_idle();
}

#[test]
fn a_request_of_http_1_1_names_its_host_once() {
    let server = Server::start(&[]);
    let get = "GET /v1/models HTTP/1.1\r\n";
    for head in [
        get.to_owned(),
        format!("{get}host: a b\r\n"),
        format!("{get}host: localhost\r\nhost: localhost\r\n"),
    ] {
        let answer = talk(&server, &head, "");
        assert_eq!(status(&answer), 400, "{head:?}: {answer}");
        assert!(answer.contains("bad_host"), "{answer}");
    }
    assert_eq!(status(&talk(&server, "GET /v1/models HTTP/1.0\r\n", "")), 200);
}

/// `nc -N`, and clients that shut their sending side down: they still listen.
#[test]
fn a_client_that_closes_its_side_gets_its_answer() {
    let server = Server::start(&[]);
    for stream in [false, true] {
        let mut body: Value = serde_json::from_str(&short()).unwrap();
        body["stream"] = json!(stream);
        let mut connection = server.send("/v1/chat/completions", &body);
        connection.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"finish_reason\":"), "stream {stream}: {answer}");
        let last = if stream { "data: [DONE]" } else { "HTTP/1.1 200" };
        assert!(answer.contains(last), "stream {stream}: {answer}");
    }
    server.until_idle();
}

/// A client that is gone is not one that listens: its request ends, though no byte was written to it.
#[test]
fn a_client_that_goes_away_ends_its_request() {
    let server = Server::of(home(65536), &["m"], &[]);
    let body = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true,
        "max_completion_tokens": 60000,
    });
    let connection = server.send("/v1/chat/completions", &body);
    server.until("it runs", |s| s.metric("tessera_requests_running") == 1.0);
    drop(connection);
    server.until_idle();
    assert!(server.metric("tessera_generated_tokens_total") < 60000.0);
}
