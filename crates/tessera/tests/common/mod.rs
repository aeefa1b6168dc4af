//! The program in a temporary home, and the goldens.
#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Home(pub tempfile::TempDir);

pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program inside the home.
    pub fn tessera(&self, args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        // A closed port: nothing in these tests may reach a network.
        command.env("TESSERA_HOME", self.path("store")).env("HF_ENDPOINT", "http://127.0.0.1:9");
        let output = command.env_remove("HF_TOKEN").current_dir(self.0.path()).args(args).output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Copies a golden's checkpoint here as `hf`; without the index file where MLC did not see one.
    pub fn checkpoint(&self, golden_name: &str, index: bool) {
        copy(&golden(golden_name).join("hf"), &self.path("hf"));
        if !index {
            let _ = std::fs::remove_file(self.path("hf").join("model.safetensors.index.json"));
        }
    }

    /// Adds the tokenizer that goes with `llama-tied-bf16`.
    pub fn tokenizer(&self, folder: &str) {
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            std::fs::copy(data().join("chat-config").join(name), self.path(folder).join(name)).unwrap();
        }
    }
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// A failure whose message holds these words.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> Run {
        assert_eq!(self.code, Some(1), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            let all = format!("{}{}", self.stdout, self.stderr);
            assert!(all.contains(word), "{word:?} is not in {all}");
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// Test data of the weights crate, which has the goldens.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data")
}

pub fn golden(name: &str) -> PathBuf {
    data().join("golden").join(name)
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Asserts that `found` holds every file of `expected`, byte for byte.
#[track_caller]
pub fn assert_holds(found: &Path, expected: &Path, rename: impl Fn(&str) -> String) {
    for entry in std::fs::read_dir(expected).unwrap() {
        let path = entry.unwrap().path();
        let name = rename(path.file_name().unwrap().to_str().unwrap());
        let bytes = std::fs::read(found.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(bytes == std::fs::read(&path).unwrap(), "{name} differs");
    }
}
