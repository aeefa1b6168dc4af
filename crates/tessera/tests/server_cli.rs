//! `chat --server` and `bench --server` against a server of a few lines, which says exactly what a test needs: how
//! requests look on the wire, and what becomes of every kind of failure.

mod common;

use common::{Home, Run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    key: Option<String>,
    body: Value,
}

struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// Answers each request with what `reply` makes of it and of the number of those before; then hangs up.
    fn start(reply: impl Fn(&Asked, usize) -> String + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (reply, seen) = (Arc::new(reply), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, seen) = (reply.clone(), seen.clone());
                std::thread::spawn(move || {
                    let Some((stream, asked)) = stream.ok().and_then(read) else { return };
                    let before = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(asked.clone());
                        seen.iter().filter(|a| a.path == asked.path).count() - 1
                    };
                    let _ = (&stream).write_all(reply(&asked, before).as_bytes());
                });
            }
        });
        Stub { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Asked)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut key, mut len) = (None, 0);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => key = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => len = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some((stream, Asked { path, key, body }))
}

fn http(status: u16, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: {kind}\r\n\r\n{body}")
}

fn refused(status: u16, message: &str, param: Option<&str>) -> String {
    http(status, "application/json", &json!({ "error": { "message": message, "param": param } }).to_string())
}

/// The events of a stream without its end.
fn events(deltas: &[Value], usage: Value) -> String {
    let event =
        |choices: Value, usage: Value| format!("data: {}\n\n", json!({ "choices": choices, "usage": usage }));
    let mut text = event(json!([{ "index": 0, "delta": { "role": "assistant" } }]), Value::Null);
    for delta in deltas {
        text += &event(json!([{ "index": 0, "delta": delta }]), Value::Null);
    }
    text += &event(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null);
    text + &event(json!([]), usage)
}

fn answer(deltas: &[Value], usage: Value) -> String {
    http(200, "text/event-stream", &(events(deltas, usage) + "data: [DONE]\n\n"))
}

fn usage(prompt: usize, cached: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached },
    })
}

fn models(names: &[&str]) -> String {
    let data: Vec<_> = names.iter().map(|n| json!({ "id": n, "object": "model" })).collect();
    http(200, "application/json", &json!({ "object": "list", "data": data }).to_string())
}

fn tessera(args: &[&str], key: &str) -> Run {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tessera")).env("TESSERA_API_KEY", key).args(args).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn an_answer_is_streamed_and_only_what_was_typed_is_sent() {
    let stub = Stub::start(|_, _| {
        answer(&[json!({ "content": "Hel" }), json!({ "content": "lo." })], usage(9, 4, 3))
    });
    let plain = tessera(&["chat", "--server", &stub.url, "m", "Hi"], "").ok();
    assert_eq!(plain.stdout, "Hello.\n");
    let all = [
        "run",
        "--server",
        &format!("{}/v1/", stub.url),
        "m",
        "Hi",
        "--json",
        "--system",
        "Be brief.",
        "--temperature",
        "0.7",
        "--top-k",
        "40",
        "--top-p",
        "0.9",
        "--min-p",
        "0.1",
        "--repetition-penalty",
        "1.1",
        "--frequency-penalty",
        "-0.5",
        "--presence-penalty",
        "0.3",
        "--seed",
        "18446744073709551615",
        "-n",
        "5",
        "--stop",
        "a",
        "--stop",
        "b",
        "--logit-bias",
        "7=-1.5",
    ];
    let full = tessera(&all, "secret").ok().json();
    assert_eq!((&full["text"], &full["finish_reason"]), (&json!("Hello."), &json!("stop")));
    assert_eq!(full["usage"], usage(9, 4, 3));
    assert!(full["timings"]["ttft_ms"].as_f64().is_some_and(|t| t > 0.0), "{full}");

    let asked = stub.asked();
    assert!(asked.iter().all(|a| a.path == "/v1/chat/completions"), "{asked:?}");
    assert_eq!([&asked[0].key, &asked[1].key], [&None, &Some("Bearer secret".into())]);
    let stream = json!({ "include_usage": true });
    let user = json!({ "role": "user", "content": "Hi" });
    assert_eq!(
        asked[0].body,
        json!({ "model": "m", "messages": [user], "stream": true, "stream_options": stream })
    );
    let expected = json!({
        "model": "m", "messages": [{ "role": "system", "content": "Be brief." }, user], "stream": true, "stream_options": stream,
        "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1, "frequency_penalty": -0.5,
        "presence_penalty": 0.3, "seed": u64::MAX, "max_completion_tokens": 5, "stop": ["a", "b"], "logit_bias": { "7": -1.5 },
    });
    assert_eq!(asked[1].body, expected);
}

#[test]
fn what_is_thought_goes_to_stderr() {
    let stub = Stub::start(|_, _| {
        answer(&[json!({ "reasoning_content": "hmm" }), json!({ "content": "Four." })], usage(9, 0, 3))
    });
    let run = tessera(&["chat", "--server", &stub.url, "m", "2 + 2"], "").ok();
    assert_eq!(run.stdout, "Four.\n");
    assert!(run.stderr.contains("hmm"), "{}", run.stderr);
    let json = tessera(&["chat", "--server", &stub.url, "m", "2 + 2", "--json"], "").ok().json();
    assert_eq!((&json["text"], &json["reasoning"]), (&json!("Four."), &json!("hmm")));
}

#[test]
fn every_failure_is_told_in_the_servers_words() {
    let ask = |reply: String| {
        let stub = Stub::start(move |_, _| reply.clone());
        tessera(&["chat", "--server", &stub.url, "m", "Hi"], "")
    };
    ask(refused(400, "top_k is not a whole number", Some("top_k"))).fails(&[
        "400",
        "top_k is not a whole",
        "field top_k",
    ]);
    ask(refused(401, "no key", None)).fails(&["API key", "no key", "TESSERA_API_KEY"]);
    ask(refused(503, "the queue is full", None)).fails(&["503", "the queue is full"]);
    ask(http(502, "text/html", "<h1>Bad gateway</h1>")).fails(&["502", "Bad gateway"]);
    ask(http(200, "text/html", "<h1>hello</h1>")).fails(&["text/html", "text/event-stream"]);
    let moved = "HTTP/1.1 301 X\r\nlocation: http://h.example/\r\ncontent-length: 0\r\n\r\n".to_owned();
    ask(moved).fails(&["301", "redirects to http://h.example/"]);
    // An answer without its end is no answer, though what came is shown.
    let cut = ask(http(200, "text/event-stream", &events(&[json!({ "content": "Hel" })], usage(1, 0, 1))));
    assert_eq!(cut.stdout, "Hel");
    cut.fails(&["ended before the answer was complete"]);
    let broken = json!({ "error": { "message": "out of pages", "param": null } });
    ask(http(200, "text/event-stream", &format!("data: {broken}\n\n"))).fails(&["out of pages"]);
    ask(http(200, "text/event-stream", "data: {\n\n")).fails(&["no JSON"]);
    ask(String::new()).fails(&["127.0.0.1"]);
    tessera(&["chat", "--server", "http://127.0.0.1:9", "m", "Hi"], "")
        .fails(&["http://127.0.0.1:9", "tessera serve"]);
    tessera(&["chat", "--server", "127.0.0.1:9", "m", "Hi"], "")
        .fails(&["must begin with http", "http://127.0.0.1:8080"]);
    tessera(&["chat", "--server", "http://127.0.0.1:9", "m", "Hi"], "two words").fails(&["TESSERA_API_KEY"]);
}

#[test]
fn options_that_a_server_would_ignore_are_refused() {
    let home = Home::new();
    let url = "http://127.0.0.1:9";
    for args in [
        &["run", "--server", url, "m", "Hi", "--threads", "2"][..],
        &["run", "--server", url, "m", "Hi", "--backend", "cpu"],
        &["run", "--server", url, "m", "Hi", "--raw"],
        &["run", "--server", url, "m", "Hi", "--template", "jinja"],
        &["bench", "--server", url, "--batch", "2"],
        &["bench", "--server", url, "--depth", "2"],
        &["bench", "--server", url, "--kernels", "avx2"],
        &["bench", "m", "--concurrency", "2"],
        &["bench", "m", "--requests", "2"],
        &["bench"],
    ] {
        let run = home.tessera(args);
        assert_eq!(run.code, Some(2), "{args:?}: {}{}", run.stdout, run.stderr);
    }
}

/// A server on which a word is 1.5 tokens and the template ten.
fn counting(asked: &Asked, completion: usize) -> String {
    let words = asked.body["messages"][0]["content"].as_str().unwrap().split(' ').count();
    let deltas = vec![json!({ "content": "x" }); completion];
    answer(&deltas, usage(10 + words * 3 / 2, 5, completion))
}

#[test]
fn a_bench_counts_what_was_answered_and_what_was_not() {
    let stub = Stub::start(|asked, before| match (asked.path.as_str(), before) {
        ("/v1/models", _) => models(&["only"]),
        // The first two find out how long a word is.
        (_, 0 | 1) => counting(asked, 1),
        (_, n) if n % 5 == 0 => refused(503, "the queue is full", None),
        (_, _) => counting(asked, 8),
    });
    let args =
        ["bench", "--server", &stub.url, "--concurrency", "3", "--requests", "20", "--prompt-tokens", "100"];
    let args = [&args[..], &["--gen-tokens", "8", "--shared-prefix", "40"]].concat();
    let run = tessera(&[&args[..], &["--json"]].concat(), "");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let json = run.json();
    // Requests 5, 10, 15 and 20 of 2 to 21.
    assert_eq!(
        (&json["model"], &json["completed"], &json["failed"]),
        (&json!("only"), &json!(16), &json!(4))
    );
    assert_eq!(json["failures"][0]["count"], 4);
    assert!(json["failures"][0]["message"].as_str().unwrap().contains("the queue is full"));
    assert_eq!((&json["completion_tokens"], &json["cached_tokens"]), (&json!(16 * 8), &json!(16 * 5)));
    let prompt = json["prompt_tokens"].as_f64().unwrap() / 16.0;
    assert!((95.0..105.0).contains(&prompt), "100 prompt tokens were asked for, {prompt} were sent");
    for name in ["ttft_ms", "time_per_token_ms", "total_ms"] {
        let at = |p: &str| json[name][p].as_f64().unwrap();
        assert!(at("min") <= at("p50") && at("p50") <= at("p90") && at("p99") <= at("max"), "{json}");
        assert_eq!(json[name]["n"], 16);
    }
    assert_eq!(json["gap_ms"]["n"], 16 * 7);

    let asked: Vec<_> = stub.asked().into_iter().filter(|a| a.path != "/v1/models").skip(2).collect();
    let prompts: Vec<&str> =
        asked.iter().map(|a| a.body["messages"][0]["content"].as_str().unwrap()).collect();
    let shared = prompts[0].bytes().zip(prompts[1].bytes()).take_while(|(a, b)| a == b).count();
    // 40 tokens less the template's ten are 20 words of 4 letters and more.
    assert!(shared >= 20 * 4 && prompts.iter().all(|p| p[..shared.min(80)] == prompts[0][..shared.min(80)]));
    let mut different = prompts.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), prompts.len());
    assert!(asked.iter().all(|a| a.body["max_completion_tokens"] == 8 && a.body["ignore_eos"] == true));
}

#[test]
fn a_bench_is_shown_as_a_table_and_histograms() {
    let stub = Stub::start(|asked, _| counting(asked, 4));
    let home = Home::new();
    std::fs::write(home.path("schema.json"), r#"{"type":"object"}"#).unwrap();
    let schema = home.path("schema.json");
    let args =
        ["bench", "m", "--server", &stub.url, "--prompt-tokens", "50", "--schema", schema.to_str().unwrap()];
    let run = tessera(&args, "").ok();
    for words in ["4 of 4 requests", "first token", "time per token", "p99", "█", "tokens/s out"] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    let last = stub.asked().pop().unwrap().body;
    assert_eq!(last["response_format"]["json_schema"]["schema"], json!({ "type": "object" }));
    assert_eq!(last["ignore_eos"], Value::Null);
}

#[test]
fn a_bench_that_cannot_be_made_says_why() {
    let several = Stub::start(|_, _| models(&["a", "b"]));
    tessera(&["bench", "--server", &several.url], "").fails(&["serves 2 models: a, b", "name one"]);
    let silent = Stub::start(|_, _| answer(&[json!({ "content": "x" })], Value::Null));
    tessera(&["bench", "m", "--server", &silent.url], "").fails(&["no usage"]);
    let short = Stub::start(|asked, _| counting(asked, 1));
    tessera(&["bench", "m", "--server", &short.url, "--prompt-tokens", "5"], "")
        .fails(&["--prompt-tokens 5", "12 tokens"]);
    // A server of another make may not know the field that makes answers equally long.
    let strange = Stub::start(|asked, _| match asked.body.get("ignore_eos") {
        Some(_) => refused(400, "unknown field", Some("ignore_eos")),
        None => counting(asked, 2),
    });
    let run = tessera(&["bench", "m", "--server", &strange.url, "--prompt-tokens", "50", "--json"], "").ok();
    assert!(run.stderr.contains("ignore_eos"), "{}", run.stderr);
    assert_eq!(run.json()["ignore_eos"], false);
}
