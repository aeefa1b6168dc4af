//! Any bytes as the small files around a tokenizer: the first byte says which tokenizer, the rest, cut at bytes of
//! zero, is `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `generation_config.json`.
//!
//! ```text
//! mkdir -p fuzz/corpus/tokenizer_config && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none tokenizer_config \
//!     fuzz/corpus/tokenizer_config fuzz/seeds/tokenizer_config -- -runs=1000000 \
//!     -dict=fuzz/tokenizer_config.dict -max_len=1024
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tessera_engine::template::stop_token_ids;
use tessera_engine::template::{ChatTemplate, JinjaTemplate, Message, RenderOptions, TemplateError};
use tessera_engine::tokenizer::Tokenizer;

const NAMES: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"];
const JSON: &[u8] = include_bytes!("../../crates/tessera-engine/tests/data/tiny-tokenizer.json");
/// A template that prints what the files name.
const PRINTS: &str = "{{ bos_token }}\u{1}{{ eos_token }}\u{1}{{ messages[0].content }}";

/// The tests' tokenizer in GPT-2's files, with a token for each byte: their settings become tokens.
static VOCAB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let json: Value = serde_json::from_slice(JSON).expect("the tests' tokenizer");
    json["model"]["vocab"].to_string().into_bytes()
});

/// SentencePiece's model with a piece for each byte, its unknown, first and last.
static MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let piece = |text: &str, kind: u8| {
        // piece = 1, score = 2, type = 3, inside of a message of field 1.
        let mut inner = vec![0x0a, text.len() as u8];
        inner.extend(text.bytes());
        inner.push(0x15);
        inner.extend((-1.0f32).to_le_bytes());
        inner.extend([0x18, kind]);
        let mut out = vec![0x0a, inner.len() as u8];
        out.extend(inner);
        out
    };
    let mut model: Vec<u8> = Vec::new();
    for (text, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
        model.extend(piece(text, kind));
    }
    for byte in 0..=255u8 {
        model.extend(piece(&format!("<0x{byte:02X}>"), 6));
    }
    for text in ["▁", "a", "b", "▁a", "ab"] {
        model.extend(piece(text, 1));
    }
    // trainer_spec = 2: byte_fallback = 35, model_type = 3 (BPE = 2).
    model.extend([0x12, 5, 0x18, 2, 0x98, 0x02, 1]);
    // normalizer_spec = 3: name = 1, add_dummy_prefix = 3, remove_extra_whitespaces = 4, escape_whitespaces = 5.
    model.extend([0x1a, 16, 0x0a, 8]);
    model.extend(b"identity");
    model.extend([0x18, 1, 0x20, 0, 0x28, 1]);
    model
});

fn of_kind(kind: u8, name: &str) -> Option<Vec<u8>> {
    match (name, kind) {
        ("tokenizer.json", 0) => Some(JSON.to_vec()),
        ("tokenizer.model", 1) => Some(MODEL.clone()),
        ("vocab.json", 2) => Some(VOCAB.clone()),
        ("merges.txt", 2) => Some(b"#version: 0.2\n".to_vec()),
        _ => None,
    }
}

/// Without any of the small files all three open.
static OPEN: LazyLock<()> = LazyLock::new(|| {
    for kind in 0..3 {
        let opened = Tokenizer::from_files(|name| of_kind(kind, name));
        assert!(opened.is_ok(), "{kind}: {:?}", opened.err());
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let parts: Vec<&[u8]> = rest.splitn(NAMES.len(), |b| *b == 0).collect();
    let file = |name: &str| {
        let at = NAMES.iter().position(|n| *n == name)?;
        parts.get(at).filter(|part| !part.is_empty()).map(|part| part.to_vec())
    };
    let kind = kind % 3;
    LazyLock::force(&OPEN);
    let tokenizer = Tokenizer::from_files(|name| of_kind(kind, name).or_else(|| file(name)));
    let own = JinjaTemplate::from_files(file);
    if let Err(error) = &own {
        assert!(matches!(error, TemplateError::Jinja { .. } | TemplateError::File { .. }), "{error:?}");
    }
    let Ok(tokenizer) = tokenizer else { return };
    check(&tokenizer, kind == 2);
    let printing = |name: &str| match name {
        "chat_template.jinja" => Some(PRINTS.as_bytes().to_vec()),
        name => file(name),
    };
    let Ok(Some(template)) = JinjaTemplate::from_files(printing) else { return };
    let (bos, eos) = (template.bos_token().to_owned(), template.eos_token().to_owned());
    let prompt = template.render(&[Message::new("user", "x")], &RenderOptions::answer()).expect("it prints");
    assert_eq!(prompt, format!("{bos}\u{1}{eos}\u{1}x"));
    let generation: Option<Value> =
        file("generation_config.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let ends =
        stop_token_ids(&ChatTemplate::Jinja(Box::new(template)), None, generation.as_ref(), &tokenizer);
    assert!(ends.is_sorted() && tokenizer.eos().is_none_or(|eos| ends.contains(&eos)));
});

/// Every id that the tokenizer gives is one of its own; where no text is changed, its bytes are the text's.
fn check(tokenizer: &Tokenizer, exact: bool) {
    let rows = tokenizer.vocab_size();
    for end in [tokenizer.bos(), tokenizer.eos()].into_iter().flatten() {
        assert!(tokenizer.token_bytes(end).is_some());
    }
    let texts: Vec<&str> = (0..rows as u32).rev().take(4).filter_map(|id| tokenizer.token_text(id)).collect();
    for text in &texts {
        let id = tokenizer.id_of(text).expect("a text of the table");
        assert_eq!(tokenizer.token_text(id), Some(*text));
    }
    let text = format!("<s>ab a {}</s>\u{e9}", texts.concat());
    for add in [false, true] {
        let Ok(ids) = tokenizer.encode(&text, add) else { continue };
        assert!(ids.iter().all(|id| tokenizer.token_bytes(*id).is_some()), "{ids:?} of {text:?}");
        assert!(tokenizer.least_tokens(&text) <= ids.len());
        if exact && !add {
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap_or_default()).copied().collect();
            assert_eq!(String::from_utf8_lossy(&bytes), text);
        }
    }
    if let Ok(ids) = tokenizer.encode_ordinary(&text) {
        assert!(ids.iter().all(|id| tokenizer.token_bytes(*id).is_some()), "{ids:?} of {text:?}");
    }
    let _ = json!(tokenizer.notes());
}
