//! Running a server: keys, limits, several models, the end.

use super::common::copy;
use super::server::{PATIENCE, Server, edit, events, home};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Instant;

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

fn short() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 1})
}

fn endless() -> Value {
    json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": true, "stream": true,
        "temperature": 0, "max_completion_tokens": 100_000,
    })
}

#[test]
fn keys_from_a_file_and_the_environment() {
    let home = home(256);
    std::fs::write(home.path("keys"), "# for tests\nalpha\nbeta\n").unwrap();
    let server = Server::of(home, &["m", "--api-key-file", "keys"], &[("TESSERA_API_KEY", "gamma")]);
    let body = short().to_string();
    let ask = |key: &str| server.post_with(CHAT, body.as_bytes(), &[JSON, ("authorization", key)]);
    for key in ["Bearer alpha", "Bearer beta", "Bearer gamma"] {
        ask(key).ok();
    }
    for key in ["Bearer delta", "Bearer alph", "alpha", "Basic alpha", "Bearer "] {
        let reply = ask(key);
        assert_eq!(reply.refused(401, None)["code"], "invalid_api_key");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    server.post(CHAT, &short()).refused(401, None);
    server.get("/v1/models").refused(401, None);
    server.post("/tokenize", &json!({})).refused(401, None);
    for open in ["/health", "/ready", "/metrics", "/version"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    assert!(!server.log().contains("alpha"), "a key is in the log");
}

#[test]
fn a_rate_is_kept_by_key() {
    let home = home(256);
    std::fs::write(home.path("keys"), "alpha\nbeta\n").unwrap();
    let server = Server::of(home, &["m", "--api-key-file", "keys", "--rate-limit", "2"], &[]);
    let body = short().to_string();
    let ask = |key: &str| server.post_with(CHAT, body.as_bytes(), &[JSON, ("authorization", key)]);
    ask("Bearer alpha").ok();
    ask("Bearer alpha").ok();
    let third = ask("Bearer alpha");
    assert_eq!(third.refused(429, None)["code"], "rate_limit_exceeded");
    let wait: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    ask("Bearer beta").ok();
}

#[test]
fn request_ids_go_through() {
    let server = Server::start(&["--log", "json"]);
    let body = short().to_string();
    let ask = |id: &str| server.post_with(CHAT, body.as_bytes(), &[JSON, ("x-request-id", id)]);
    assert_eq!(ask("my-id-7").header("x-request-id"), Some("my-id-7"));
    // One that would break a log line is replaced.
    assert!(ask("my id").header("x-request-id").unwrap().starts_with("req_"));
    assert!(ask(&"x".repeat(300)).header("x-request-id").unwrap().starts_with("req_"));
    server.until("the log tells of it", |s| {
        let lines: Vec<Value> = s.log().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let of =
            |message: &str| lines.iter().any(|l| l["message"] == message && l["request_id"] == "my-id-7");
        of("request") && of("generation")
    });
    assert!(!server.log().contains("Hi"), "a prompt is in the log");
}

#[test]
fn pages_of_other_origins_are_let_in_by_name_only() {
    let ask = |server: &Server, origin: &str| {
        let body = short().to_string();
        let reply = server.post_with(CHAT, body.as_bytes(), &[JSON, ("origin", origin)]);
        reply.header("access-control-allow-origin").map(str::to_owned)
    };
    let closed = Server::start(&[]);
    assert_eq!(ask(&closed, "https://a.example"), None);
    drop(closed);
    let server = Server::start(&["--cors", "https://a.example"]);
    assert_eq!(ask(&server, "https://a.example").as_deref(), Some("https://a.example"));
    assert_eq!(ask(&server, "https://b.example"), None);
    drop(server);
    home(64).tessera(&["serve", "m", "--port", "0", "--cors", "a.example"]).fails(&["--cors", "a.example"]);
}

#[test]
fn a_request_may_take_so_long() {
    let server = Server::of(home(32768), &["m", "--timeout", "0.3"], &[]);
    let mut body = endless();
    let (chunks, done) = server.stream(CHAT, &body);
    assert!(!done);
    let error = &chunks.last().unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("timeout"), &json!("server_error")));
    body["stream"] = json!(false);
    server.post(CHAT, &body).refused(504, None);
    server.until_idle();
}

#[test]
fn running_streams_finish_when_the_server_ends_and_new_requests_are_refused() {
    let mut server = Server::of(home(32768), &["m", "--grace", "60"], &[]);
    let mut body = endless();
    body["max_completion_tokens"] = json!(3000);
    let mut stream = server.send(CHAT, &body);
    server.until("it runs", |s| s.metric("tessera_requests_running") == 1.0);
    server.signal("-TERM");
    server.until("it drains", |s| s.get("/ready").status == 503);
    assert_eq!(server.get("/health").json()["status"], "draining");
    assert_eq!(server.post(CHAT, &short()).refused(503, None)["code"], "shutting_down");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("data: [DONE]") && text.contains("\"finish_reason\":\"length\""), "{text}");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_stream_that_outlives_the_grace_is_ended_with_an_error() {
    let mut server = Server::of(home(32768), &["m", "--grace", "0.2"], &[]);
    let mut stream = server.send(CHAT, &endless());
    server.until("it runs", |s| s.metric("tessera_requests_running") == 1.0);
    server.signal("-INT");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let body: String = text.lines().filter(|l| l.starts_with("data: ")).map(|l| format!("{l}\n")).collect();
    let (chunks, done) = events(&body);
    assert_eq!((done, &chunks.last().unwrap()["error"]["code"]), (false, &json!("shutting_down")));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_model_that_nobody_uses_is_unloaded_and_comes_back() {
    let home = home(256);
    copy(&home.path("m"), &home.path("other"));
    let server = Server::of(home, &["m", "other", "--idle-unload", "0.3"], &[]);
    server.post(CHAT, &short()).ok();
    let tokens = server.metric("tessera_generated_tokens_total");
    assert!(tokens >= 1.0);
    server.until("it is unloaded", |s| s.get("/v1/models/m").ok()["loaded"] == false);
    assert_eq!(server.metric("tessera_generated_tokens_total"), tokens, "counts are kept");
    assert_eq!(server.get("/ready").status, 200, "it can be loaded again");
    server.post(CHAT, &short()).ok();
    server.until("it counts on", |s| s.metric("tessera_generated_tokens_total") > tokens);
}

#[test]
fn a_model_that_cannot_be_loaded_is_an_error_of_its_requests_only() {
    let home = home(256);
    copy(&home.path("m"), &home.path("broken"));
    let server = Server::of(home, &["m", "broken"], &[]);
    // Broken after the start: the start looks for the folders only.
    server.break_model("broken");
    let mut body = short();
    body["model"] = json!("broken");
    let error = server.post(CHAT, &body).refused(503, None);
    assert_eq!(error["code"], "model_not_loaded");
    server.post(CHAT, &short()).ok();
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let home = home(256);
    home.tessera(&["serve", "nothing"]).fails(&["nothing"]);
    home.tessera(&["serve", "m", "./m"]).fails(&["two models", "NAME=MODEL"]);
    home.tessera(&["serve", "m", "--host", "192.0.2.1", "--port", "1"])
        .fails(&["cannot listen on 192.0.2.1:1"]);
    std::fs::write(home.path("keys"), "# none\n").unwrap();
    home.tessera(&["serve", "m", "--api-key-file", "keys"]).fails(&["keys", "no key"]);
    edit(&home, |config| config["model_config"]["num_hidden_layers"] = json!(99));
    home.tessera(&["serve", "m", "--port", "0"]).fails(&["m cannot be loaded"]);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let server = Server::start(&[]);
    let mut body = short();
    body["max_completion_tokens"] = json!(5);
    body["ignore_eos"] = json!(true);
    server.post(CHAT, &body).ok();
    server.post(CHAT, &body).ok();
    server.until_idle();
    let reply = server.get("/metrics");
    assert!(reply.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(reply.body.ends_with("# EOF\n"));
    // One token of the start.
    assert_eq!(server.metric("tessera_generated_tokens_total"), 11.0);
    assert!(server.metric("tessera_cached_prompt_tokens_total") > 0.0);
    assert!(server.metric("tessera_kv_pages") > 0.0 && server.metric("tessera_kv_page_tokens") == 64.0);
    assert_eq!(server.metric("tessera_time_to_first_token_seconds_count"), 2.0);
    assert_eq!(server.metric("tessera_inter_token_seconds_count"), 8.0);
    assert_eq!(server.metric("tessera_request_seconds_count"), 2.0);
    assert_eq!(server.metric("tessera_request_queue_seconds_count"), 2.0);
    let line = "tessera_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 2";
    assert!(reply.body.contains(line), "{}", reply.body);
}

#[test]
fn idle_connections_cost_little() {
    let server = Server::start(&[]);
    server.get("/health").ok();
    let before = server.metric("tessera_resident_memory_bytes");
    let begun = Instant::now();
    let held: Vec<_> = (0..500).map(|_| server.raw()).collect();
    server.get("/health").ok();
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 50.0 * 1024.0 * 1024.0, "{grown} bytes for {} connections", held.len());
    assert!(begun.elapsed() < PATIENCE);
}
