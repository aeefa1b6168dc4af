//! The program's frame and its store commands, from outside.

use std::path::Path;
use std::process::{Command, Stdio};

const TESSERA: &str = env!("CARGO_BIN_EXE_tessera");

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn tessera(&self, args: &[&str]) -> Run {
        let mut command = Command::new(TESSERA);
        // A closed port: nothing in these tests may reach a network.
        command.env("TESSERA_HOME", self.0.path().join("store")).env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.env_remove("HF_TOKEN").args(args);
        let output = command.output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// A folder that the store takes: a manifest with one shard and its MD5.
    fn model(&self, name: &str) -> String {
        let dir = self.0.path().join(name);
        write_model(&dir);
        dir.to_str().unwrap().to_string()
    }
}

fn write_model(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("params_shard_0.bin"), b"abc").unwrap();
    let manifest = r#"{"metadata":{},"records":[{"dataPath":"params_shard_0.bin","format":"raw-shard","nbytes":3,"records":[{"name":"w","shape":[3],"dtype":"uint8","format":"raw","nbytes":3,"byteOffset":0}],"md5sum":"900150983cd24fb0d6963f7d28e17f72"}]}"#;
    std::fs::write(dir.join("tensor-cache.json"), manifest).unwrap();
    std::fs::write(dir.join("mlc-chat-config.json"), r#"{"quantization":"q4f32_1"}"#).unwrap();
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

#[test]
fn no_arguments_give_the_help_page() {
    let run = Home::new().tessera(&[]).ok();
    for word in ["Usage:", "pull", "run smollm2", "TESSERA_HOME", "Exit status"] {
        assert!(run.stdout.contains(word), "{word} is not in {}", run.stdout);
    }
    assert!(run.stderr.is_empty());
}

#[test]
fn wrong_usage_is_exit_2() {
    let home = Home::new();
    let run = home.tessera(&["pull"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.starts_with("error:"), "{}", run.stderr);
    let run = home.tessera(&["--json", "nonsense"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("nonsense"));
}

#[test]
fn pull_list_show_rm() {
    let home = Home::new();
    let folder = home.model("tiny");
    let run = home.tessera(&["pull", &folder]).ok();
    assert!(run.stdout.starts_with("tiny is ready: "), "{}", run.stdout);
    assert!(home.tessera(&["pull", &folder]).ok().stdout.contains("already"));
    home.tessera(&["pull", "--force", "--name", "other", &folder]).ok();

    let list = home.tessera(&["list", "--json"]).ok().json();
    let names: Vec<&str> =
        list["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["other", "tiny"]);
    let text = home.tessera(&["list"]).ok().stdout;
    assert!(text.starts_with("NAME") && text.contains("q4f32_1"), "{text}");

    let shown = home.tessera(&["show", "tiny", "--json"]).ok().json();
    assert_eq!(shown["source"]["files"][0]["checked"], true);
    assert!(
        shown["files"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["name"] == "params_shard_0.bin" && f["bytes"] == 3)
    );
    let text = home.tessera(&["show", "tiny"]).ok().stdout;
    assert!(text.contains("MD5 900150983cd24fb0d6963f7d28e17f72"), "{text}");

    let run = home.tessera(&["rm", "absent", "tiny"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("removed tiny") && run.stderr.contains("absent: not in the store"));
    assert_eq!(home.tessera(&["list", "--json"]).ok().json()["models"].as_array().unwrap().len(), 1);
}

#[test]
fn a_damaged_folder_is_refused_with_both_values() {
    let home = Home::new();
    let folder = home.model("tiny");
    std::fs::write(Path::new(&folder).join("params_shard_0.bin"), b"abd").unwrap();
    let run = home.tessera(&["pull", &folder]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("params_shard_0.bin: MD5 is 4911e516"), "{}", run.stderr);
    assert!(run.stderr.contains("expected 90015098") && run.stderr.contains("\nhint: "), "{}", run.stderr);
    let models = home.0.path().join("store/models");
    assert!(!models.exists() || std::fs::read_dir(models).unwrap().count() == 0);
}

#[test]
fn errors_are_json_too() {
    let run = Home::new().tessera(&["show", "smollm2", "--json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["message"], "smollm2: not in the store");
    assert_eq!(error["error"]["hint"], "run `tessera pull smollm2`");
}

#[test]
fn an_empty_store_says_what_can_be_had() {
    let home = Home::new();
    let run = home.tessera(&["list"]).ok();
    assert!(run.stdout.contains("No models") && run.stdout.contains("smollm2"), "{}", run.stdout);
    assert!(!home.0.path().join("store").exists(), "looking writes nothing");
}

#[test]
fn doctor_tells_what_is_here() {
    let report = Home::new().tessera(&["doctor", "--json"]).ok().json();
    assert!(report["threads"].as_u64().unwrap() >= 1);
    assert_eq!(report["store"]["because"], "TESSERA_HOME");
    assert!(report["use"]["kernels"].is_string());
    if cfg!(target_os = "linux") {
        assert!(report["memory"]["total_bytes"].as_u64().unwrap() > 1 << 20);
    }
    assert!(Home::new().tessera(&["doctor"]).ok().stdout.contains("kernels"));
}

/// A reader that has gone away is no failure: the pipe's reading end is closed before the program
/// writes.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_success() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(TESSERA)
        .env("TESSERA_HOME", home.0.path())
        .arg("doctor")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

/// A server that gives the manifest, says 404 to the small files, and stops in the middle of the shard.
fn stalling_server() -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/tiny/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let manifest = r#"{"records":[{"dataPath":"params_shard_0.bin","format":"raw-shard","nbytes":100000,"records":[{"name":"w","shape":[100000],"dtype":"uint8","format":"raw","nbytes":100000,"byteOffset":0}]}]}"#;
                let sent = if first.contains("tensor-cache.json") {
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{manifest}",
                        manifest.len()
                    )
                } else if first.contains("params_shard_0.bin") {
                    let half = "x".repeat(50_000);
                    let sent = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{half}");
                    std::thread::sleep(std::time::Duration::from_secs(60));
                    sent
                } else {
                    write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                };
                // The client is killed; a failed write is what is expected.
                let _ = sent;
            });
        }
    });
    base
}

#[test]
fn a_killed_pull_leaves_nothing_that_looks_finished() {
    let home = Home::new();
    let store = home.0.path().join("store");
    let mut child = Command::new(TESSERA)
        .env("TESSERA_HOME", &store)
        .args(["pull", "--quiet", &stalling_server()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let part = store.join("partial/tiny/download/params_shard_0.bin.part");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::fs::metadata(&part).map(|m| m.len()).unwrap_or(0) == 0 {
        assert!(std::time::Instant::now() < deadline, "the download did not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!store.join("models").exists());
    assert!(!part.with_extension("").exists(), "the shard got its name before it was whole");
    assert_eq!(home.tessera(&["show", "tiny"]).code, Some(1));
    // The lock went with the process, and what is left can be removed.
    home.tessera(&["rm", "tiny"]).ok();
    assert!(!part.exists());
}
