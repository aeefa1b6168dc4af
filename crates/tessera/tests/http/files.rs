//! Files that change under a running server: its requests end with an error that names the file, the server and its
//! other models go on, and the model is loaded again when the folder is whole.

use super::common::copy;
use super::server::{Server, home};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{Seek, Write};

fn ask(model: &str) -> Value {
    json!({"model": model, "prompt": "Hi", "max_tokens": 8, "temperature": 0, "ignore_eos": true})
}

fn text(server: &Server, model: &str) -> String {
    server.post("/v1/completions", &ask(model)).ok()["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// Two models, `m` and `n`, both loaded.
fn two() -> (Server, String) {
    let home = home(2048);
    copy(&home.path("m"), &home.path("n"));
    let server = Server::of(home, &["m", "n"], &[]);
    let (m, n) = (text(&server, "m"), text(&server, "n"));
    assert_eq!(m, n);
    (server, m)
}

#[test]
fn a_shard_that_is_truncated() {
    // All of it, so that touching it would end the process; the last byte, which reads as a zero and says nothing.
    for keep in [|_| 0, |len| len - 1] {
        let (mut server, expected) = two();
        let shard = server.file("m/params_shard_0.bin");
        let whole = std::fs::read(&shard).unwrap();
        let left = keep(whole.len() as u64);
        OpenOptions::new().write(true).open(&shard).unwrap().set_len(left).unwrap();
        let error = server.post("/v1/completions", &ask("m")).refused(503, None);
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["code"], "model_files_changed", "{error}");
        assert!(message.contains("m/params_shard_0.bin: the file changed while it was in use"), "{message}");
        assert!(message.contains(&whole.len().to_string()), "{message}");
        // The other model is not touched by it, and the page says which one is.
        assert_eq!(text(&server, "n"), expected);
        let health = server.get("/health").ok();
        assert_eq!(health["status"], "ok");
        assert!(
            health["failed"]["m"].is_string() && health["failed"].as_object().unwrap().len() == 1,
            "{health}"
        );
        // Loaded again, it is found to be short.
        let error = server.post("/v1/completions", &ask("m")).refused(503, None);
        assert_eq!(error["code"], "model_not_loaded", "{error}");
        let health = server.get("/health").ok();
        let why = health["failed"]["m"].as_str().unwrap();
        assert!(why.contains("params_shard_0.bin") && why.contains(&whole.len().to_string()), "{why}");
        // And when it is whole again it answers again.
        std::fs::write(&shard, whole).unwrap();
        assert_eq!(text(&server, "m"), expected);
        let health = server.get("/health").ok();
        assert_eq!((&health["status"], &health["failed"]), (&json!("ok"), &Value::Null), "{health}");
        let devices = health["devices"].as_object().unwrap();
        assert!(devices.keys().eq(["m", "n"]), "{health}");
        assert!(devices.values().all(|device| device.as_str().unwrap().starts_with("cpu")), "{health}");
        server.signal("-TERM");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_shard_that_is_truncated_while_an_answer_streams() {
    let (server, expected) = two();
    let mut body = ask("m");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(2000);
    let stream = server.send("/v1/completions", &body);
    server.until("it runs", |s| s.metric("tessera_requests_running") >= 1.0);
    let shard = OpenOptions::new().write(true).open(server.file("m/params_shard_0.bin")).unwrap();
    shard.set_len(0).unwrap();
    let reply = std::io::read_to_string(stream).unwrap();
    assert!(reply.contains("\"error\"") && reply.contains("params_shard_0.bin"), "{reply}");
    assert!(!reply.contains("[DONE]"), "{reply}");
    assert_eq!(text(&server, "n"), expected);
}

#[test]
fn a_shard_that_is_written_over() {
    let (server, expected) = two();
    let path = server.file("m/params_shard_0.bin");
    let bytes = std::fs::read(&path).unwrap();
    let mut shard = OpenOptions::new().write(true).open(&path).unwrap();
    shard.seek(std::io::SeekFrom::Start(bytes.len() as u64 / 2)).unwrap();
    shard.write_all(&[7; 64]).unwrap();
    drop(shard);
    let error = server.post("/v1/completions", &ask("m")).refused(503, None);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("m/params_shard_0.bin") && message.contains("written to"), "{message}");
    // A file that takes the name of another leaves the one that is mapped as it is.
    let path = server.file("n/params_shard_0.bin");
    std::fs::write(server.file("n/new"), &bytes[..100]).unwrap();
    std::fs::rename(server.file("n/new"), path).unwrap();
    assert_eq!(text(&server, "n"), expected);
}
