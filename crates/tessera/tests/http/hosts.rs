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
