//! The chat page of the real server in a real Chromium: `page/page.mjs` does what a person does. Chromium and Node
//! are Debian packages, playwright-core is one of npm; what is missing is installed. Where that cannot be, the test
//! fails, unless TESSERA_TEST_OFFLINE says that it is to be skipped.
#![cfg(feature = "server")]

mod common;
#[path = "http/server.rs"]
mod server;

use server::{Server, home};
use std::path::{Path, PathBuf};
use std::process::Command;

const PLAYWRIGHT: &str = "playwright-core@1.65.1";

#[test]
fn the_page_in_chromium() {
    let (chromium, node) = (program(&["chromium", "chromium-browser"]), program(&["node", "nodejs"]));
    let playwright = tools().join("node_modules/playwright-core");
    if chromium.is_none() || node.is_none() || !playwright.exists() {
        if std::env::var_os("TESSERA_TEST_OFFLINE").is_some_and(|v| !v.is_empty()) {
            eprintln!(
                "SKIPPED: the page is not tested. Chromium, Node or {PLAYWRIGHT} is not here, and TESSERA_TEST_OFFLINE is set"
            );
            return;
        }
        // Only what is not there: Debian's Node cannot stand beside one from elsewhere.
        let mut packages = Vec::new();
        if chromium.is_none() {
            packages.extend(["chromium", "fonts-dejavu-core"]);
        }
        if node.is_none() {
            packages.push("nodejs");
        }
        if program(&["npm"]).is_none() {
            packages.push("npm");
        }
        install(&packages);
    }
    let chromium = chromium.or_else(|| program(&["chromium"])).expect("chromium was installed");
    let node = node.or_else(|| program(&["node"])).expect("node was installed");

    // Long enough that an answer is still being made when the test stops it.
    let server = Server::of(home(1 << 15), &["m"], &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let output = Command::new(node)
        .arg(script)
        .args([&server.url, "m"])
        .args([chromium, playwright])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}\nserver:\n{}", server.log());
    // A script that ends early by itself has not passed.
    assert!(stdout.contains("\nall passed"), "{stdout}\n{stderr}");
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

fn install(packages: &[&str]) {
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let output = command.env("DEBIAN_FRONTEND", "noninteractive").args(args).output();
        let output = output
            .unwrap_or_else(|e| panic!("{program}: {e}; the test of the page needs Chromium, Node and npm"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {}: {text}", args.join(" "));
    };
    if !packages.is_empty() {
        run("apt-get", &["update", "-qq"]);
        let install = ["install", "-y", "-qq", "--no-install-recommends"];
        run("apt-get", &[&install, packages].concat());
    }
    let folder = tools();
    std::fs::create_dir_all(&folder).unwrap();
    run(
        "npm",
        &[
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
            folder.to_str().unwrap(),
            PLAYWRIGHT,
        ],
    );
}
