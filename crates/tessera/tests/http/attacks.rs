//! What a hostile client sends on purpose: every one gets an answer or is cut off in time, and the server
//! answers the next.

use super::server::{PATIENCE, Server};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Instant;

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Sends bytes; what comes until the server closes the connection.
#[track_caller]
fn talk(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.raw();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    rest(stream)
}

#[track_caller]
fn rest(mut stream: std::net::TcpStream) -> String {
    let (mut all, begun) = (Vec::new(), Instant::now());
    if let Err(error) = stream.read_to_end(&mut all) {
        let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(reset, "{error} after {:?}", begun.elapsed());
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Statuses of the final responses: a client that closed its sending side may be sent an interim one first.
fn statuses(answers: &str) -> Vec<&str> {
    let all = answers.split("HTTP/1.1 ").skip(1).filter_map(|a| a.split(' ').next());
    all.filter(|status| *status != "100").collect()
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
    )
}

#[test]
fn slow_clients_are_cut_off() {
    let server = Server::start(&["--read-timeout", "1"]);
    let mut head = server.raw();
    head.write_all(b"POST /v1/chat").unwrap();
    let mut body = server.raw();
    body.write_all(post("content-length: 1000\r\n", "{").as_bytes()).unwrap();
    let silent = server.raw();
    let begun = Instant::now();
    assert_eq!(statuses(&rest(body)), ["408"]);
    let answer = rest(head);
    assert!(answer.is_empty() || statuses(&answer) == ["408"], "{answer}");
    assert_eq!(rest(silent), "");
    assert!(begun.elapsed() < PATIENCE / 2);
    // A byte now and then is as slow.
    let mut drip = server.raw();
    drip.write_all(post("content-length: 100000\r\n", "").as_bytes()).unwrap();
    let begun = Instant::now();
    while drip.write_all(b" ").is_ok() && begun.elapsed() < PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    server.get("/health").ok();
}

#[test]
fn heads_without_measure() {
    let server = Server::start(&[]);
    let long = "x".repeat(60_000);
    let many: String = (0..5000).map(|i| format!("x-{i}: 1\r\n")).collect();
    for (head, expected) in [
        (format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), "431"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: {long}{long}\r\n\r\n"), "431"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: {long}\r\n\r\n"), "403"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-request-id: {long}\r\n\r\n"), "200"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: http://{long}.com\r\n\r\n"), "403"),
        (format!("GET /v1/models/{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), "404"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400"),
        ("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n folded: 1\r\n\r\n".to_owned(), "400"),
        ("GET /v1/models HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(), "400"),
        ("GET /v1/models HTTP/1.1\nhost: localhost\n\n".to_owned(), "200"),
    ] {
        let answer = talk(&server, head.as_bytes());
        let shown: String = head.chars().take(80).collect();
        // A connection that is closed with unread bytes takes the answer back with it.
        assert!(answer.is_empty() || statuses(&answer) == [expected], "{shown:?}: {answer}");
    }
    server.get("/health").ok();
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    let server = Server::start(&[]);
    let wrong = post("content-length: 2\r\n", "[]");
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let foreign = "GET /health HTTP/1.1\r\nhost: evil.com\r\n\r\n";
    let all = format!("{health}{wrong}{foreign}{health}").repeat(50);
    let answers = talk(&server, all.as_bytes());
    assert_eq!(statuses(&answers), ["200", "400", "403", "200"].repeat(50));
}

#[test]
fn lengths_that_lie() {
    let server = Server::start(&[]);
    let chunked = "transfer-encoding: chunked\r\n";
    for (request, expected) in [
        // Longer than what comes.
        (post("content-length: 100\r\n", "{}"), vec!["400"]),
        // Shorter: what is left over is no request.
        (post("content-length: 2\r\n", "{}{}\r\n\r\n"), vec!["400", "400"]),
        (post("content-length: -1\r\n", "{}"), vec!["400"]),
        (post("content-length: 99999999999999999999999\r\n", "{}"), vec!["400"]),
        (post("content-length: 18446744073709551615\r\n", "{}"), vec!["431"]),
        (post("content-length: 2\r\ncontent-length: 3\r\n", "{} "), vec!["400"]),
        (post(chunked, "zz\r\n{}\r\n0\r\n\r\n"), vec!["400"]),
        (post(chunked, "ffffffffffffffff\r\n{}"), vec!["400"]),
        (post(chunked, "fffffffffffffffff\r\n{}"), vec!["400"]),
        (post(chunked, "2\r\n{}"), vec!["400"]),
        (post(chunked, "2\r\n{}\r\n"), vec!["400"]),
        (post(chunked, &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(100_000))), vec!["400"]),
        (post(chunked, &format!("2\r\n{{}}\r\n0\r\n{}\r\n", "x: 1\r\n".repeat(100_000))), vec!["400"]),
        (post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), vec!["400"]),
        (post("transfer-encoding: gzip\r\n", "{}"), vec!["400"]),
    ] {
        let answer = talk(&server, request.as_bytes());
        let shown: String = request.chars().skip(90).take(120).collect();
        assert!(answer.is_empty() || expected.starts_with(&statuses(&answer)), "{shown:?}: {answer}");
    }
    // Both lengths: the request ends where its chunks do, and no part of it is taken for another request.
    let smuggled = "0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let both = post(&format!("content-length: {}\r\n{chunked}", smuggled.len()), smuggled);
    let answer = talk(&server, both.as_bytes());
    assert!(statuses(&answer).len() <= 1 || !answer.contains("\"object\":\"list\""), "{answer}");
    server.get("/health").ok();
    server.until_idle();
}

fn chat(fields: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[test]
fn fields_without_measure() {
    let server = Server::start(&[]);
    let tool = |i: usize| json!({"type": "function", "function": {"name": format!("f{i}")}});
    let biases: serde_json::Map<String, Value> = (0..100_000).map(|i| (i.to_string(), json!(1))).collect();
    for (fields, param) in [
        (json!({"tools": (0..10_000).map(tool).collect::<Vec<_>>()}), "tools"),
        (json!({"stop": vec!["x"; 10_000]}), "stop"),
        (json!({"stop_token_ids": vec![1; 10_000]}), "stop_token_ids"),
        (json!({"n": 1_000_000_000}), "n"),
        (json!({"n": 1e300}), "n"),
        (json!({"logit_bias": biases}), "logit_bias"),
        (json!({"logit_bias": {"999999": 1}}), "logit_bias"),
        (json!({"logit_bias": {"4294967296": 1}}), "logit_bias.4294967296"),
        (json!({"guided_choice": vec!["x"; 10_000]}), "guided_choice"),
        (json!({"top_logprobs": 1_000_000, "logprobs": true}), "top_logprobs"),
        (json!({"messages": vec![json!({"role": "user", "content": "x"}); 10_001]}), "messages"),
    ] {
        let begun = Instant::now();
        server.post(CHAT, &chat(fields)).refused(400, Some(param));
        assert!(begun.elapsed() < PATIENCE / 4, "{param}: {:?}", begun.elapsed());
    }
    // Two spellings of one token would be a bias that is ignored.
    for key in ["01", "+1", " 1", "1.0"] {
        server
            .post(CHAT, &chat(json!({"logit_bias": {"1": 2, key: 1}})))
            .refused(400, Some(&format!("logit_bias.{key}")));
    }
    // Nesting inside of texts that are JSON themselves.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": deep}});
    let said = json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]);
    server
        .post(CHAT, &chat(json!({"messages": said})))
        .refused(400, Some("messages[1].tool_calls[0].function.arguments"));
    // A schema as deep as a body may be.
    let mut schema = json!({"type": "string"});
    for _ in 0..40 {
        schema = json!({"anyOf": [schema]});
    }
    let reply = server.post(CHAT, &chat(json!({"guided_json": schema})));
    assert!([200, 400].contains(&reply.status), "{}", reply.body);
    // Thousands of results that look for their call among thousands.
    let calls: Vec<Value> = (0..9_000)
        .map(|i| json!({"id": format!("call-{i}"), "type": "function", "function": {"name": "f", "arguments": ""}}))
        .collect();
    let mut said =
        vec![json!({"role": "user", "content": "x"}), json!({"role": "assistant", "tool_calls": calls})];
    said.extend((0..9_000).map(|_| json!({"role": "tool", "tool_call_id": "call-0", "content": "r"})));
    let begun = Instant::now();
    let reply = server.post(CHAT, &chat(json!({"messages": said})));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    // A name that is as long as a body does not fill the log.
    let long = "x".repeat(3 << 20);
    server
        .post_with(CHAT, chat(json!({ &long: 1 })).to_string().as_bytes(), &[JSON])
        .refused(400, Some(&long));
    assert!(server.log().len() < 1 << 20, "{} bytes of log", server.log().len());
    server.until_idle();
    server.post(CHAT, &chat(json!({}))).ok();
}

/// Bodies that are sent but for their last byte are held until they time out: all of them together have a bound.
#[test]
fn bodies_that_are_never_finished_have_a_bound_together() {
    let server = Server::start(&["--max-body", "1MiB", "--read-timeout", "5"]);
    let before = server.metric("tessera_resident_memory_bytes");
    let body = post(&format!("content-length: {}\r\n", 1 << 20), &" ".repeat((1 << 20) - 1));
    let held: Vec<_> = (0..80)
        .map(|_| {
            let mut stream = server.raw();
            let _ = stream.write_all(body.as_bytes());
            stream
        })
        .collect();
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 200e6, "{grown} bytes more");
    let answers: Vec<String> = held.into_iter().map(rest).collect();
    let with = |status: &str| answers.iter().filter(|a| statuses(a) == [status]).count();
    assert!(with("503") >= 1 && answers.iter().any(|a| a.contains("too_many_bodies")), "{answers:?}");
    assert!(with("408") >= 32, "{answers:?}");
    // Their room is free again.
    server.post(CHAT, &chat(json!({}))).ok();
}
