//! What a server takes of the machine: memory, time, threads, files. Each number has a bound far above what is
//! measured and far below what a mistake costs.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;
#[path = "http/server.rs"]
mod server;

use serde_json::{Value, json};
use server::{Server, home, jinja};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const MIB: f64 = 1024.0 * 1024.0;
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";

/// The longest bodies that are taken, all refused: for their length, before they are encoded.
fn long_bodies() -> Vec<(&'static str, Value)> {
    let words = "word ".repeat(720 << 10);
    let many: Vec<Value> = (0..10_000)
        .map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": format!("{i} {}", "word ".repeat(70))}))
        .collect();
    vec![
        (CHAT, json!({"model": "m", "messages": [{"role": "user", "content": words}]})),
        (CHAT, json!({"model": "m", "messages": many})),
        ("/v1/completions", json!({"model": "m", "prompt": words})),
        ("/v1/embeddings", json!({"model": "m", "input": [words]})),
        ("/v1/responses", json!({"model": "m", "input": words})),
    ]
}

/// Before: encoding took a hundred times a body's length in memory and stayed resident; many messages were
/// looked for one by one in the whole prompt, 18 s each.
#[test]
fn a_body_that_is_refused_costs_little_memory_and_time() {
    let home = home(2048);
    jinja(&home, TEMPLATE);
    let server = Server::of(home, &["m"], &[]);
    let before = server.metric("tessera_resident_memory_bytes");
    let mut slowest = Duration::ZERO;
    for (path, body) in long_bodies() {
        let text = body.to_string();
        assert!(text.len() > 3_500_000 && text.len() < 4 << 20, "{}", text.len());
        std::thread::scope(|scope| {
            let ask = || {
                let begun = Instant::now();
                let reply = server.post_with(path, text.as_bytes(), &[("content-type", "application/json")]);
                assert_eq!(
                    (reply.status, &reply.json()["error"]["code"]),
                    (400, &json!("context_length_exceeded"))
                );
                begun.elapsed()
            };
            let all: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            for one in all {
                slowest = slowest.max(one.join().unwrap());
            }
        });
    }
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 300.0 * MIB, "{} MiB after bodies of 4 MiB", grown / MIB);
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
}

/// The longest text that is only counted: it is encoded whole, and nothing of that stays.
#[test]
fn the_worst_body_that_is_answered() {
    let server = Server::start(&[]);
    let text = json!({"model": "m", "prompt": "word ".repeat(720 << 10)}).to_string();
    let before = server.metric("tessera_resident_memory_bytes");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let json = [("content-type", "application/json")];
                assert_eq!(server.post_with("/tokenize", text.as_bytes(), &json).status, 200);
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    let grown = server.metric("tessera_resident_memory_bytes") - before;
    assert!(grown < 300.0 * MIB, "{} MiB after bodies of 4 MiB", grown / MIB);
}

/// Files that a thousand refused requests leave open: none.
#[test]
fn refused_requests_leave_no_file_open() {
    let server = Server::start(&[]);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let refuse = |i: usize| match i % 3 {
        0 => assert_eq!(server.post(CHAT, &json!({"model": "none", "messages": [{}]})).status, 404),
        1 => assert_eq!(server.post(CHAT, &json!({"model": "m", "messages": 1})).status, 400),
        _ => assert_eq!(server.get("/nothing").status, 404),
    };
    refuse(0);
    let before = open();
    (0..1000).for_each(refuse);
    let limit = Instant::now() + server::PATIENCE;
    while open() > before + 8 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(open() <= before + 8, "{before} files before, {} after", open());
}

#[test]
fn a_long_context_takes_no_memory_before_it_is_used() {
    // Sixteen million tokens: some 15 GB of keys and values if they are all used.
    let server = Server::of(home(1 << 24), &["m"], &[]);
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 256.0 * MIB, "{} MiB when ready\n{}", resident / MIB, server.log());
    server
        .post(CHAT, &json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}))
        .ok();
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 256.0 * MIB, "{} MiB after an answer", resident / MIB);
}

#[test]
fn a_second_model_finds_what_the_first_leaves() {
    // Either could take more than most machines have.
    let home = home(1 << 24);
    common::copy(&home.path("m"), &home.path("n"));
    let server = Server::of(home, &["m", "n"], &[]);
    for model in ["m", "n"] {
        server.post("/v1/completions", &json!({"model": model, "prompt": "Hi", "max_tokens": 1})).ok();
    }
    let resident = server.metric("tessera_resident_memory_bytes");
    assert!(resident < 1024.0 * MIB, "{} MiB\n{}", resident / MIB, server.log());
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("of keys and values for")).collect();
    assert_eq!(told.len(), 2, "{log}");
}

/// The threads of models: `tessera-1` and so on.
fn workers(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names
        .filter(|name| {
            name.strip_prefix("tessera-").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
        .count()
}

/// What a line of the process's status says, in bytes.
fn status(server: &Server, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Lets the process take so much address space more; `None` takes the limit away.
fn limit_address_space(server: &Server, more: Option<u64>) {
    let rlim_cur = more.map_or(libc::RLIM_INFINITY, |more| status(server, "VmSize") + more);
    let limit = libc::rlimit { rlim_cur, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is ours; the old limit is not asked for.
    let set = unsafe { libc::prlimit(server.id() as i32, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_load_without_threads_fails_and_leaves_none() {
    let home = home(2048);
    common::copy(&home.path("m"), &home.path("n"));
    let server = Server::of(home, &["m", "n", "--threads", "64"], &[]);
    assert_eq!(workers(&server), 63);
    // Some stacks of 2 MiB, not 63.
    limit_address_space(&server, Some(32 << 20));
    let ask = json!({"model": "n", "prompt": "Hi", "max_tokens": 1});
    let error = server.post("/v1/completions", &ask).refused(503, None);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("64 threads were asked for, the system gave "), "{message}");
    assert_eq!(workers(&server), 63);
    limit_address_space(&server, None);
    server.post("/v1/completions", &ask).ok();
    assert_eq!(workers(&server), 126);
}

/// Runs the program with so much address space, in KiB.
fn with_address_space(home: &common::Home, kib: u32, args: &str) -> common::Run {
    let script = format!("ulimit -v {kib} && exec {} {args}", env!("CARGO_BIN_EXE_tessera"));
    let output =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(home.0.path()).output().unwrap();
    common::Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_command_without_threads_says_so_or_does_with_one() {
    let home = home(2048);
    let run = with_address_space(&home, 400_000, "run m Hi --max-tokens 1 --threads 1000");
    run.fails(&["1000 threads were asked for, the system gave ", "give fewer --threads"]);
    let verify = with_address_space(&home, 400_000, "verify m --threads 1000").ok();
    assert!(verify.stderr.contains("everything runs on one thread"), "{}", verify.stderr);
}

/// A command in 400 MB of address space, a fifth of which the program takes by itself.
fn in_little_memory(home: &common::Home, args: &str) -> common::Run {
    let shell = format!("ulimit -v 400000 && exec \"$0\" {args}");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &shell, env!("CARGO_BIN_EXE_tessera")]).current_dir(home.0.path());
    command
        .env("MALLOC_ARENA_MAX", "1")
        .env("RAYON_NUM_THREADS", "1")
        .env("TESSERA_HOME", home.path("store"));
    let output = command.output().unwrap();
    common::Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Before: a value of two bytes took 32 and more, a manifest of 62 MB a gigabyte.
#[test]
fn a_file_of_zeros_takes_no_more_memory_than_its_length() {
    let home = common::Home::new();
    let fresh = |folder: &str, from: &str| {
        let _ = std::fs::remove_dir_all(home.path(folder));
        common::copy(&common::golden(from), &home.path(folder));
    };
    let zeros = |mib: usize| "0,".repeat(mib << 19);
    let list = |head: &str, mib: usize| format!("{head}{}0]}}", zeros(mib));
    let pairs =
        |head: &str, mib: usize| format!("{head}{}\"a\":\"\"}}}}", "\"a\":\"\",".repeat((mib << 20) / 7));
    let put = |name: &str, text: &str| std::fs::write(home.path(name), text).unwrap();
    let fails = |args: &str, file: &str| {
        in_little_memory(&home, args).fails(&[file, "values", "at most 2097152"]);
    };
    fresh("m", "llama-tied-bf16/q4f32_1");
    assert_eq!(in_little_memory(&home, "verify m --threads 1").code, Some(0), "the good folder fits");
    for text in [list("{\"records\":[", 62), list("{\"other\":[", 62), pairs("{\"metadata\":{", 62)] {
        put("m/tensor-cache.json", &text);
        fails("verify m --threads 1", "tensor-cache.json");
    }
    for file in ["mlc-chat-config.json", "config.json"] {
        fresh("m", "llama-tied-bf16/q4f32_1");
        put(&format!("m/{file}"), &list("{\"model_config\":[", 15));
        fails("verify m --threads 1", file);
    }
    fresh("hf", "llama-tied-bf16/hf");
    put("hf/model.safetensors.index.json", &pairs("{\"weight_map\":{", 60));
    fails("inspect hf", "model.safetensors.index.json");
    // A header of that length before no data.
    fresh("hf", "llama-tied-bf16/hf");
    let _ = std::fs::remove_file(home.path("hf/model.safetensors.index.json"));
    let header = pairs("{\"__metadata__\":{", 60);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    std::fs::write(home.path("hf/model.safetensors"), bytes).unwrap();
    fails("inspect hf", "model.safetensors");
}
