//! A folder opened from bytes, as a page does, against what the package's tests expect of the wasm module.

use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tessera_engine::generate::GenerateError;
use tessera_openai::desk::{Desk, Endpoint, News};
use tessera_openai::error::ApiError;
use tessera_web::opening::{FILES, Fault, Opening, cpu};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tessera-weights/tests/data/golden/llama-tied-bf16/q4f32_1")
}

fn opening(free: u64) -> Result<(Opening, Vec<String>), Fault> {
    let mut opening = Opening::default();
    for name in FILES {
        if let Ok(mut bytes) = std::fs::read(golden().join(name)) {
            if *name == "mlc-chat-config.json" {
                // Room for a conversation.
                let text = String::from_utf8(bytes).unwrap();
                let longer = text.replace("\"context_window_size\": 64", "\"context_window_size\": 512");
                bytes = longer.into_bytes();
            }
            opening.file(name, bytes);
        }
    }
    let manifest = std::fs::read(golden().join("tensor-cache.json")).unwrap();
    let shards = opening.manifest(manifest, free)?.into_iter().map(|shard| shard.path).collect();
    Ok((opening, shards))
}

fn fill(opening: &mut Opening, index: usize, bytes: &[u8]) -> Result<(), Fault> {
    opening.begin(index)?;
    for part in bytes.chunks(1000) {
        opening.push(index, part)?;
    }
    opening.end(index)
}

fn desk(sequences: usize) -> Desk {
    let (mut opening, shards) = opening(1 << 30).unwrap();
    for (index, path) in shards.iter().enumerate() {
        fill(&mut opening, index, &std::fs::read(golden().join(path)).unwrap()).unwrap();
    }
    let read = opening.read().unwrap();
    let model = read.model(&cpu(1), sequences).unwrap();
    read.desk(model, "tiny", sequences).unwrap().0
}

fn now() -> Duration {
    Duration::ZERO
}

fn turn(desk: &mut Desk) {
    assert!(desk.turn(&mut Context::from_waker(Waker::noop()), &now).is_ready());
}

fn logits(desk: &mut Desk, ids: &[u32]) -> Result<Vec<f32>, GenerateError> {
    desk.machine().ask_logits(ids)?;
    match desk.machine().poll_logits(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(logits) => logits,
        Poll::Pending => panic!("the CPU needs nobody to wait"),
    }
}

/// Everything that happens until all is done.
fn run(desk: &mut Desk) -> Vec<(u64, News)> {
    let mut all = Vec::new();
    while !desk.is_idle() {
        turn(desk);
        all.extend(desk.news());
    }
    all
}

fn chat(desk: &mut Desk, body: Value) -> Result<u64, ApiError> {
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]})
        .as_object()
        .unwrap()
        .clone()
        .into_iter()
        .chain(body.as_object().unwrap().clone())
        .collect::<serde_json::Map<_, _>>();
    desk.ask(Endpoint::Chat, Value::Object(body).to_string().as_bytes(), now())
}

fn wholes(news: &[(u64, News)]) -> Vec<(u64, String)> {
    let text = |(id, news): &(u64, News)| match news {
        News::Whole(whole) => {
            Some((*id, whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned()))
        }
        _ => None,
    };
    let mut all: Vec<_> = news.iter().filter_map(text).collect();
    all.sort();
    all
}

#[test]
fn the_logits_are_those_that_the_module_has_to_give() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packages/tessera-web/test/bits.json");
    let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut desk = desk(4);
    let mut wrong = Vec::new();
    for case in expected.as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let logits = logits(&mut desk, &ids).unwrap();
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let md5: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        wrong.extend((md5 != case["md5"]).then(|| format!("{ids:?}: {md5}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn requests_at_once_get_the_answers_that_each_gets_alone() {
    let body = |seed: u64| json!({"max_tokens": 12, "seed": seed, "temperature": 1.0});
    let alone: Vec<String> = (0..3)
        .map(|seed| {
            let mut desk = desk(4);
            chat(&mut desk, body(seed)).unwrap();
            wholes(&run(&mut desk)).remove(0).1
        })
        .collect();
    let mut desk = desk(2);
    for seed in 0..3 {
        chat(&mut desk, body(seed)).unwrap();
    }
    let together: Vec<String> = wholes(&run(&mut desk)).into_iter().map(|(_, text)| text).collect();
    assert_eq!(together, alone);
}

#[test]
fn parts_make_the_whole_and_the_end_comes_last() {
    let mut desk = desk(4);
    let whole = chat(&mut desk, json!({"max_tokens": 9, "n": 2, "seed": 3})).unwrap();
    let streamed = chat(
        &mut desk,
        json!({"max_tokens": 9, "seed": 3, "stream": true, "stream_options": {"include_usage": true}}),
    )
    .unwrap();
    let news = run(&mut desk);
    let of = |id: u64| news.iter().filter(move |(one, _)| *one == id).map(|(_, news)| news);
    let parts: Vec<&Value> =
        of(streamed).filter_map(|news| if let News::Part(part) = news { Some(part) } else { None }).collect();
    let text: String = parts.iter().filter_map(|p| p["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, wholes(&news)[0].1);
    assert_eq!(parts.last().unwrap()["usage"]["completion_tokens"], 9);
    for id in [whole, streamed] {
        assert!(matches!(of(id).next_back(), Some(News::End { .. })));
    }
}

#[test]
fn what_is_broken_off_ends_with_abort_and_the_desk_goes_on() {
    let mut desk = desk(1);
    let first = chat(&mut desk, json!({"n": 3})).unwrap();
    turn(&mut desk);
    desk.cancel(first);
    let waits = chat(&mut desk, json!({"max_tokens": 2})).unwrap();
    let news = run(&mut desk);
    let whole = news.iter().find_map(|(id, news)| match news {
        News::Whole(whole) if *id == first => Some(whole),
        _ => None,
    });
    for choice in whole.unwrap()["choices"].as_array().unwrap() {
        assert_eq!(choice["finish_reason"], "abort");
    }
    assert_eq!(wholes(&news)[1].0, waits);
    // One that has ended stays as it is.
    desk.cancel(waits);
    assert!(desk.is_idle());
}

#[test]
fn a_refused_request_names_its_field_and_leaves_nothing() {
    let mut desk = desk(1);
    let error = chat(&mut desk, json!({"temprature": 1})).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("temprature"));
    let error = desk
        .ask(Endpoint::Completions, br#"{"model": "tiny", "prompt": "Hi", "max_tokens": 0}"#, now())
        .unwrap_err();
    assert_eq!(error.param.as_deref(), Some("max_tokens"));
    assert!(logits(&mut desk, &[]).is_err());
    assert!(logits(&mut desk, &[9999]).is_err());
    assert!(desk.is_idle());
    // One runs, and so many wait.
    let queue = desk.machine().options().queue;
    for _ in 0..=queue {
        chat(&mut desk, json!({"max_tokens": 1})).unwrap();
    }
    assert_eq!(chat(&mut desk, json!({"max_tokens": 1})).unwrap_err().status.as_u16(), 503);
    assert_eq!(wholes(&run(&mut desk)).len(), queue + 1);
}

#[test]
fn shards_are_held_to_the_manifest() {
    let (mut opening, shards) = opening(1 << 30).unwrap();
    let good = std::fs::read(golden().join(&shards[0])).unwrap();
    let mut flipped = good.clone();
    flipped[7] ^= 1;
    let fault = fill(&mut opening, 0, &flipped).unwrap_err();
    assert_eq!(fault.code, "checksum");
    assert!(fault.message.starts_with("params_shard_0.bin: its md5 is "), "{}", fault.message);
    assert_eq!(fill(&mut opening, 0, &good[1..]).unwrap_err().code, "length");
    let long: Vec<u8> = good.iter().chain(&good).copied().collect();
    assert_eq!(fill(&mut opening, 0, &long).unwrap_err().code, "length");
    assert_eq!(opening.push(1, &good).unwrap_err().code, "order");
    assert_eq!(opening.begin(99).unwrap_err().code, "order");
    // It may come again.
    fill(&mut opening, 0, &good).unwrap();
    let Err(fault) = opening.read() else { panic!("shards are missing") };
    assert_eq!(fault.code, "folder");
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_both_numbers() {
    let Err(fault) = opening(1000) else { panic!("it fits into nothing") };
    assert_eq!(fault.code, "memory");
    assert!(fault.message.contains("1 MiB"), "{}", fault.message);
}
