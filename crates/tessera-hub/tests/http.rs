//! Fetching over HTTP from a server that does what servers do.

mod common;

use common::{Answer, SHARD_0, Server, World, installed, shard_body, write_mlc_folder};
use std::sync::Mutex;
use tessera_hub::{Event, FetchOptions, Fetched, HubError, Source};

#[test]
fn a_folder_arrives_whole_with_its_record() {
    let world = World::new();
    let got = world.pull_folder().unwrap();
    let Fetched::Installed(path) = &got.what else { panic!("{:?}", got.what) };
    assert_eq!(std::fs::read(path.join("params_shard_1.bin")).unwrap(), shard_body(1));
    // Named by the chat config only.
    assert!(path.join("special.tok").is_file());
    let entry = world.store().list().unwrap().remove(0);
    assert_eq!((entry.name.as_str(), entry.quantization.as_deref()), ("m", Some("q4f32_1")));
    let record = entry.source.unwrap();
    assert!(record.files.iter().any(|f| f.name == "params_shard_0.bin" && f.checked));
    assert!(!world.home.path().join("partial/m").exists());
    // Again: nothing is asked of the server.
    drop(got);
    let before = world.server.seen(SHARD_0).len();
    assert!(!world.pull_folder().unwrap().fresh);
    assert_eq!(world.server.seen(SHARD_0).len(), before);
}

#[test]
fn a_manifest_address_means_its_folder() {
    let world = World::new();
    let got = world.pull(&format!("{}/m/ndarray-cache.json", world.server.base)).unwrap();
    assert_eq!(got.name.as_str(), "m");
    drop(got);
    let world = World::new();
    assert!(world.pull(&format!("{}/m/other.json", world.server.base)).is_err());
}

#[test]
fn a_cut_connection_is_resumed() {
    let world = World::new();
    let cut = Answer::Cut { body: shard_body(0), etag: "\"v1\"", cut: 1500 };
    world.server.on(SHARD_0, vec![cut, Answer::File { body: shard_body(0), etag: "\"v1\"" }]);
    world.pull_folder().unwrap();
    let seen = world.server.seen(SHARD_0);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].headers["range"], "bytes=1500-");
    assert_eq!(seen[1].headers["if-range"], "\"v1\"");
}

#[test]
fn the_next_process_resumes_what_this_one_left() {
    let mut world = World::new();
    world.settings.retries = 0;
    let cut = Answer::Cut { body: shard_body(0), etag: "\"v1\"", cut: 1500 };
    world.server.on(SHARD_0, vec![cut, Answer::File { body: shard_body(0), etag: "\"v1\"" }]);
    let error = world.pull_folder().unwrap_err();
    assert!(matches!(error, HubError::Network { got: 1500, .. }), "{error}");
    assert!(installed(world.home.path()).is_empty());
    assert_eq!(std::fs::metadata(world.shard_part()).unwrap().len(), 1500);
    world.pull_folder().unwrap();
    assert_eq!(world.server.seen(SHARD_0)[1].headers["range"], "bytes=1500-");
    assert_eq!(installed(world.home.path()), ["m"]);
}

#[test]
fn another_etag_starts_the_file_again() {
    let world = World::new();
    let mut old = shard_body(0);
    old[..1500].fill(0xEE);
    let cut = Answer::Cut { body: old, etag: "\"old\"", cut: 1500 };
    world.server.on(SHARD_0, vec![cut, Answer::File { body: shard_body(0), etag: "\"new\"" }]);
    let got = world.pull_folder().unwrap();
    let Fetched::Installed(path) = &got.what else { panic!() };
    assert_eq!(std::fs::read(path.join("params_shard_0.bin")).unwrap(), shard_body(0));
}

#[test]
fn without_etag_a_bad_join_is_noticed_and_fetched_again() {
    let mut world = World::new();
    world.settings.retries = 0;
    let mut old = shard_body(0);
    old[0] ^= 1;
    world.server.on(
        SHARD_0,
        vec![
            Answer::Cut { body: old, etag: "W/\"weak\"", cut: 1500 },
            Answer::File { body: shard_body(0), etag: "W/\"weak\"" },
        ],
    );
    world.pull_folder().unwrap_err();
    let got = world.pull_folder().unwrap();
    let Fetched::Installed(path) = &got.what else { panic!() };
    assert_eq!(std::fs::read(path.join("params_shard_0.bin")).unwrap(), shard_body(0));
}

#[test]
fn a_wrong_md5_never_gets_its_name() {
    let world = World::new();
    let mut body = shard_body(0);
    body[7] ^= 0x10;
    world.server.on(SHARD_0, vec![Answer::File { body, etag: "\"v1\"" }]);
    let error = world.pull_folder().unwrap_err();
    assert!(matches!(&error, HubError::WrongHash { file, kind: "MD5", .. } if file.ends_with(SHARD_0)));
    assert!(installed(world.home.path()).is_empty());
    assert!(!world.home.path().join("partial/m/download/params_shard_0.bin").exists());
    assert!(!world.shard_part().exists());
}

#[test]
fn a_wrong_length_is_named() {
    let world = World::new();
    world.server.on(SHARD_0, vec![Answer::File { body: vec![1; 5000], etag: "\"v1\"" }]);
    let error = world.pull_folder().unwrap_err();
    assert!(matches!(error, HubError::WrongSize { expected: 4000, found: 5000, .. }), "{error}");
}

#[test]
fn a_missing_shard_and_a_missing_manifest() {
    let world = World::new();
    world.server.on(SHARD_0, vec![Answer::Status(404)]);
    let error = world.pull_folder().unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 404, url, .. } if url.ends_with(SHARD_0)));
    assert_eq!(world.server.seen(SHARD_0).len(), 1, "404 is not worth repeating");
    let error = world.pull(&format!("{}/nothing/", world.server.base)).unwrap_err();
    assert!(matches!(error, HubError::Status { status: 404, .. }), "{error}");
}

#[test]
fn a_server_error_is_repeated_and_then_given_up() {
    let world = World::new();
    let good = Answer::File { body: shard_body(0), etag: "\"v1\"" };
    world.server.on(SHARD_0, vec![Answer::Status(500), Answer::Status(503), good]);
    world.pull_folder().unwrap();
    assert_eq!(world.server.seen(SHARD_0).len(), 3);

    let world = World::new();
    world.server.on(SHARD_0, vec![Answer::Status(500)]);
    let error = world.pull_folder().unwrap_err();
    assert!(matches!(error, HubError::Status { status: 500, .. }));
    assert_eq!(world.server.seen(SHARD_0).len(), 4, "one request and three repetitions");
}

#[test]
fn pages_and_pointers_are_not_shards() {
    let world = World::new();
    let page = b"\n<!DOCTYPE html><html>log in</html>".to_vec();
    let typed = vec![("Content-Type".to_string(), "text/html; charset=utf-8".to_string())];
    world.server.on(SHARD_0, vec![Answer::Raw(200, typed, page.clone())]);
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::Html { .. }));

    world.server.on(SHARD_0, vec![Answer::File { body: page.clone(), etag: "\"p\"" }]);
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::Html { .. }));

    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4000\n".to_vec();
    world.server.on(SHARD_0, vec![Answer::File { body: pointer, etag: "\"p\"" }]);
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::LfsPointer { .. }));

    world.server.on("/m/ndarray-cache.json", vec![Answer::File { body: page, etag: "\"p\"" }]);
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::Html { .. }));
    assert!(installed(world.home.path()).is_empty());
}

#[test]
fn the_hub_token_goes_to_the_hub_only() {
    let mut world = World::new();
    let cdn = Server::start();
    cdn.on("/blob", vec![Answer::File { body: b"GGUF....".to_vec(), etag: "\"c\"" }]);
    world.settings.hf_token = Some("hf_secret".into());
    let sha = "1".repeat(40);
    let listing = format!(r#"{{"sha":"{sha}","siblings":[{{"rfilename":"x.gguf","size":8}}]}}"#);
    world.server.on("/api/models/o/r?blobs=true", vec![Answer::Raw(200, vec![], listing.into_bytes())]);
    let file = format!("/o/r/resolve/{sha}/x.gguf");
    let location = ("Location".to_string(), format!("{}/blob", cdn.base));
    let linked = ("X-Linked-Etag".to_string(), format!("\"{}\"", "0".repeat(64)));
    world.server.on(&file, vec![Answer::Raw(302, vec![location.clone(), linked], vec![])]);

    // The SHA-256 that the hub states is compared even though another host sent the bytes.
    let error = world.pull("o/r").unwrap_err();
    assert!(matches!(error, HubError::WrongHash { kind: "SHA-256", .. }), "{error}");
    assert!(!format!("{error} {:?}", world.settings).contains("hf_secret"));

    world.server.on(&file, vec![Answer::Raw(302, vec![location], vec![])]);
    let got = world.pull("o/r").unwrap();
    assert!(matches!(&got.what, Fetched::Gguf(path) if std::fs::read(path).unwrap() == b"GGUF...."));
    assert_eq!(got.record.revision.as_deref(), Some(sha.as_str()));
    assert_eq!(world.server.seen(&file)[0].headers["authorization"], "Bearer hf_secret");
    assert!(cdn.seen("/blob").iter().all(|s| !s.headers.contains_key("authorization")));
}

#[test]
fn a_hub_repository_with_a_manifest_and_one_with_a_checkpoint() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    write_mlc_folder(folder.path());
    let sha = "2".repeat(40);
    world.server.serve_folder(&format!("/o/mlc/resolve/{sha}"), folder.path());
    let names = ["ndarray-cache.json", "mlc-chat-config.json", "tokenizer.json", "README.md"];
    let siblings: Vec<String> = names.iter().map(|n| format!(r#"{{"rfilename":"{n}"}}"#)).collect();
    let listing = format!(r#"{{"sha":"{sha}","siblings":[{}]}}"#, siblings.join(","));
    world.server.on("/api/models/o/mlc?blobs=true", vec![Answer::Raw(200, vec![], listing.into_bytes())]);
    let got = world.pull("HF://o/mlc").unwrap();
    assert!(matches!(&got.what, Fetched::Installed(p) if p.ends_with("models/o--mlc")));
    assert!(world.server.seen(&format!("/o/mlc/resolve/{sha}/README.md")).is_empty());
    assert_eq!(world.store().resolve("o/mlc").unwrap().name.unwrap().as_str(), "o--mlc");

    let index = r#"{"weight_map":{"a":"model-1.safetensors"}}"#;
    let base = "/o/st/resolve/main";
    let file = |body: &str| vec![Answer::File { body: body.as_bytes().to_vec(), etag: "\"v\"" }];
    world.server.on(&format!("{base}/config.json"), file("{}"));
    world.server.on(&format!("{base}/model.safetensors.index.json"), file(index));
    world.server.on(&format!("{base}/model-1.safetensors"), file("weights"));
    let names = ["config.json", "model.safetensors.index.json", "model-1.safetensors", "other.safetensors"];
    let siblings: Vec<String> = names.iter().map(|n| format!(r#"{{"rfilename":"{n}"}}"#)).collect();
    let listing = format!(r#"{{"siblings":[{}]}}"#, siblings.join(","));
    world.server.on(
        "/api/models/o/st/revision/main?blobs=true",
        vec![Answer::Raw(200, vec![], listing.into_bytes())],
    );
    let got = world.pull("HF://o/st@main").unwrap();
    let Fetched::Checkpoint(path) = &got.what else { panic!("{:?}", got.what) };
    assert!(path.join("model-1.safetensors").is_file() && !path.join("other.safetensors").exists());
}

#[test]
fn a_login_is_asked_for() {
    let world = World::new();
    world.server.on("/api/models/o/private?blobs=true", vec![Answer::Status(401)]);
    let error = world.pull("o/private").unwrap_err();
    assert!(error.hint().unwrap().contains("HF_TOKEN"), "{error}");
}

#[test]
fn an_unreachable_hub_is_said_in_one_line_and_the_next_source_taken() {
    let mut world = World::new();
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.settings.hf_endpoint = format!("http://127.0.0.1:{port}");
    let catalogue = format!(
        r#"{{"two":{{"title":"t","sources":[{{"source":"o/r"}},{{"source":"{}/m"}}]}}}}"#,
        world.server.base
    );
    std::fs::write(world.home.path().join("catalogue.json"), catalogue).unwrap();
    let notes = Mutex::new(Vec::new());
    let got = world
        .store()
        .fetch(&Source::parse("two").unwrap(), &FetchOptions::default(), &|event| {
            if let Event::Note(text) = event {
                notes.lock().unwrap().push(text.to_string());
            }
        })
        .unwrap();
    assert_eq!(got.name.as_str(), "two");
    let notes = notes.into_inner().unwrap();
    assert!(notes.len() == 1 && notes[0].contains("cannot be reached"), "{notes:?}");
}

#[test]
fn redirects_in_a_circle_and_to_strange_places_end() {
    let world = World::new();
    let to = |t: &str| vec![Answer::Raw(302, vec![("Location".into(), t.into())], vec![])];
    world.server.on(SHARD_0, to(SHARD_0));
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::BadReply { .. }));
    world.server.on(SHARD_0, to("file:///etc/passwd"));
    assert!(matches!(world.pull_folder().unwrap_err(), HubError::BadReply { .. }));
}

#[test]
fn the_digest_of_a_manifest_is_compared() {
    let world = World::new();
    let served = world.server.base.clone();
    let at = |sha: &str| format!("{served}/m/ndarray-cache.json#sha256={sha}");
    let error = world.pull(&at(&"0".repeat(64))).unwrap_err();
    let HubError::WrongHash { file, kind: "SHA-256", expected, found } = &error else { panic!("{error}") };
    assert!(file.ends_with("/m/ndarray-cache.json") && *expected == "0".repeat(64), "{error}");
    assert!(installed(world.home.path()).is_empty() && world.server.seen(SHARD_0).is_empty());
    let got = world.pull(&at(found)).unwrap();
    assert!(got.record.files.iter().any(|f| f.name == "ndarray-cache.json" && f.checked));

    for folder in ["/m", "/m/", "/m/other.json"] {
        let error = world.pull(&format!("{served}{folder}#sha256={}", "0".repeat(64))).unwrap_err();
        assert!(matches!(&error, HubError::BadSource { why, .. } if why.contains("one file")), "{error}");
    }
}

#[test]
fn a_listing_and_a_catalogue_are_held_to_their_digests() {
    let world = World::new();
    let (zeros, sha) = ("0".repeat(64), "3".repeat(40));
    let folder = tempfile::tempdir().unwrap();
    write_mlc_folder(folder.path());
    world.server.serve_folder(&format!("/o/r/resolve/{sha}"), folder.path());
    let list = |of_manifest: &str| {
        let listing =
            format!(r#"{{"sha":"{sha}","siblings":[{{"rfilename":"ndarray-cache.json"{of_manifest}}}]}}"#);
        world.server.on("/api/models/o/r?blobs=true", vec![Answer::Raw(200, vec![], listing.into_bytes())]);
    };
    list(&format!(r#","lfs":{{"sha256":"{zeros}"}}"#));
    assert!(matches!(world.pull("o/r").unwrap_err(), HubError::WrongHash { .. }));
    list(r#","size":9"#);
    assert!(matches!(world.pull("o/r").unwrap_err(), HubError::WrongSize { expected: 9, .. }));
    list("");
    let text = format!(r#"{{"c":{{"title":"t","sources":[{{"source":"o/r","sha256":"{zeros}"}}]}}}}"#);
    std::fs::write(world.home.path().join("catalogue.json"), text).unwrap();
    let error = world.pull("c").unwrap_err();
    assert!(matches!(&error, HubError::BadSource { why, .. } if why.contains("folder")), "{error}");
    world.pull("o/r").unwrap();
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    let world = World::new();
    let wait = vec![("Retry-After".to_string(), "1".to_string())];
    let good = Answer::File { body: shard_body(0), etag: "\"v1\"" };
    world.server.on(SHARD_0, vec![Answer::Raw(503, wait, vec![]), good]);
    let start = std::time::Instant::now();
    world.pull_folder().unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_query_and_a_password_are_used_and_kept_nowhere() {
    let mut world = World::new();
    world.settings.retries = 0;
    let secret = "/x.gguf?token=s3cret&sig=s3cret";
    let cut = Answer::Cut { body: shard_body(0), etag: "\"v1\"", cut: 1500 };
    world
        .server
        .on(secret, vec![Answer::Status(403), cut, Answer::File { body: shard_body(0), etag: "\"v1\"" }]);
    let source = format!("{}{secret}", world.server.base.replace("://", "://user:s3cret@"));
    for _ in 0..2 {
        let error = world.pull(&source).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{}/x.gguf?...: ", world.server.base)), "{error}");
    }
    let got = world.pull(&source).unwrap();
    assert_eq!(
        world.server.seen(secret)[2].headers["range"],
        "bytes=1500-",
        "resumed under the shown address"
    );
    assert_eq!(got.record.source, format!("{}/x.gguf?...", world.server.base));
    let mut folders = vec![world.home.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                assert!(!text.contains("s3cret"), "{}", path.display());
            }
        }
    }
    world.settings.hf_endpoint = "https://user:s3cret@h.example".into();
    world.settings.pip = vec!["pip".into(), "--index-url=https://user:s3cret@h.example/simple".into()];
    assert!(!format!("{:?}", world.settings).contains("s3cret"));
}

#[test]
fn a_tokenizer_that_the_config_names_and_nobody_has_is_said() {
    let world = World::new();
    world.server.on("/m/special.tok", vec![Answer::Status(404)]);
    let notes = Mutex::new(Vec::new());
    let source = Source::parse(&format!("{}/m/", world.server.base)).unwrap();
    let tell = |event: Event<'_>| {
        if let Event::Note(text) = event {
            notes.lock().unwrap().push(text.to_string());
        }
    };
    world.store().fetch(&source, &FetchOptions::default(), &tell).unwrap();
    assert_eq!(*notes.lock().unwrap(), ["special.tok: named by mlc-chat-config.json, but not there"]);
}
