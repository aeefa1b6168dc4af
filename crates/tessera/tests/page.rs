//! The chat page of the real server in a real Chromium: `page/page.mjs` does what a person does, and
//! `page/sdk.mjs` what OpenAI's JavaScript client does on a page of another origin. Chromium and Node are Debian
//! packages, playwright-core and openai are npm's. What is missing is installed if TESSERA_TEST_INSTALL says so;
//! without it the tests are skipped where something is missing, and say what.
#![cfg(feature = "server")]

mod common;
#[path = "http/server.rs"]
mod server;

use server::{Server, home};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const CHROMIUM: &[&str] = &["chromium", "chromium-browser"];
const NODE: &[&str] = &["node", "nodejs"];
/// Packages of npm, and their folders.
const OF_NPM: [(&str, &str); 2] =
    [("playwright-core@1.65.1", "playwright-core"), ("openai@7.57.0", "openai")];
/// Says that what is missing may be installed.
const INSTALL: &str = "TESSERA_TEST_INSTALL";

#[test]
fn the_page_in_chromium() {
    let Some(browser) = Browser::find() else { return };
    // Long enough that an answer is still being made when the test stops it.
    let server = Server::of(home(1 << 15), &["m"], &[]);
    browser.run("page.mjs", &server, &[]);
}

/// A page of another origin: its browser asks first whether it may send the client's own headers.
#[test]
fn the_javascript_client_in_chromium() {
    let Some(browser) = Browser::find() else { return };
    let port = std::net::TcpListener::bind("localhost:0").unwrap().local_addr().unwrap().port().to_string();
    let origin = format!("http://localhost:{port}");
    let server = Server::of(home(2048), &["m", "--cors", &origin], &[("TESSERA_API_KEY", "secret")]);
    let sdk = tools().join("node_modules/openai");
    browser.run("sdk.mjs", &server, &[port.as_ref(), sdk.as_ref()]);
}

/// The programs that these tests need.
struct Browser {
    chromium: PathBuf,
    node: PathBuf,
    playwright: PathBuf,
}

impl Browser {
    /// Finds them; `None` where something is missing and nothing may be installed.
    fn find() -> Option<Browser> {
        // One test installs, the other waits for it.
        static ONCE: OnceLock<Vec<&'static str>> = OnceLock::new();
        let missing = ONCE.get_or_init(|| {
            let missing = missing();
            if !missing.is_empty() && std::env::var_os(INSTALL).is_some_and(|v| !v.is_empty()) {
                install(&missing);
                return self::missing();
            }
            missing
        });
        if !missing.is_empty() {
            let missing = missing.join(", ");
            eprintln!("SKIPPED: {missing} is not here, and {INSTALL} does not say that it may be installed");
            return None;
        }
        Some(Browser {
            chromium: program(CHROMIUM).unwrap(),
            node: program(NODE).unwrap(),
            playwright: tools().join("node_modules/playwright-core"),
        })
    }

    #[track_caller]
    fn run(&self, script: &str, server: &Server, more: &[&OsStr]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page").join(script);
        let mut command = Command::new(&self.node);
        command.arg(script).args([&server.url, "m"]).args([&self.chromium, &self.playwright]).args(more);
        let output = command.output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}\n{stderr}\nserver:\n{}", server.log());
        // A script that ends early by itself has not passed.
        assert!(stdout.contains("\nall passed"), "{stdout}\n{stderr}");
    }
}

/// What is needed and not here, by the names of its packages.
fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if program(CHROMIUM).is_none() {
        missing.extend(["chromium", "fonts-dejavu-core"]);
    }
    // Debian's Node cannot stand beside one from elsewhere.
    if program(NODE).is_none() {
        missing.push("nodejs");
    }
    for (package, folder) in OF_NPM {
        if !tools().join("node_modules").join(folder).exists() {
            missing.push(package);
        }
    }
    missing
}

#[test]
fn the_page_is_for_everyone_and_the_api_is_not() {
    let server = Server::of(home(2048), &["m"], &[("TESSERA_API_KEY", "secret")]);
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("<title>tessera</title>"));
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'self'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let script = server.get("/page/main.js");
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert!(script.header("etag").is_some());
    assert_eq!(server.get("/page/none.js").status, 404);
    assert_eq!(server.get("/v1/models").status, 401);
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-tools")
}

/// The first of these names that is a file on PATH.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|file| file.is_file())
}

fn install(missing: &[&str]) {
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let output = command.env("DEBIAN_FRONTEND", "noninteractive").args(args).output();
        let output = output
            .unwrap_or_else(|e| panic!("{program}: {e}; the test of the page needs Chromium, Node and npm"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {}: {text}", args.join(" "));
    };
    let (of_npm, mut debian): (Vec<&str>, Vec<&str>) = missing.iter().partition(|name| name.contains('@'));
    if !of_npm.is_empty() && program(&["npm"]).is_none() {
        debian.push("npm");
    }
    if !debian.is_empty() {
        run("apt-get", &["update", "-qq"]);
        run("apt-get", &[&["install", "-y", "-qq", "--no-install-recommends"], &debian[..]].concat());
    }
    if !of_npm.is_empty() {
        let folder = tools();
        std::fs::create_dir_all(&folder).unwrap();
        let into = ["install", "--no-save", "--no-audit", "--no-fund", "--prefix", folder.to_str().unwrap()];
        // All of them: npm removes what a command does not name and no file lists.
        run("npm", &[&into[..], &OF_NPM.map(|(package, _)| package)].concat());
    }
}
