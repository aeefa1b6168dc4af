//! `tokenizer.json` by Hugging Face's own library; `vocab.json` with `merges.txt` is first written
//! as one.

use super::bytes::Spelling;
use super::settings::Settings;
use super::steps::steps;
use super::{Backend, Entry, Opened, TokenizerError, bound, contained};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::OnceLock;
use tessera_weights::json::MAX_TOKENIZER_VALUES;
use tokenizers::Tokenizer as Inner;

pub(super) struct HfTokenizer {
    pub file: &'static str,
    inner: Inner,
    /// The same tokenizer, blind to special tokens; made when first asked for.
    ordinary: OnceLock<Inner>,
}

/// The parts of `tokenizer.json` that say how bytes are spelled.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

impl Shape {
    /// How bytes are spelled, and whether the first space of a decoded text is dropped.
    fn spelling(&self, file: &'static str) -> Result<(Spelling, bool), TokenizerError> {
        let mut all = Vec::new();
        steps(&self.decoder, &mut all);
        let decoder_steps = all.len();
        steps(&self.pre_tokenizer, &mut all);
        let kind = |step: &Value| step["type"].as_str().unwrap_or_default().to_owned();
        let any = |name: &str| all.iter().any(|step| kind(step) == name);
        let unsupported = all[..decoder_steps]
            .iter()
            .map(|step| kind(step))
            .find(|k| ["CTC", "BPEDecoder"].contains(&k.as_str()));
        if let Some(kind) = unsupported {
            return Err(TokenizerError::invalid(file, format!("the decoder {kind} is not supported")));
        }
        let replaces_space = all.iter().any(|s| kind(s) == "Replace" && s["pattern"]["String"] == "▁");
        let strip = all[..decoder_steps].iter().any(|step| match kind(step).as_str() {
            "Strip" => step["content"] == " " && step["start"].as_u64() > Some(0),
            "Metaspace" => step["prepend_scheme"] != "never" && step["add_prefix_space"] != false,
            _ => false,
        });
        let word_piece = all[..decoder_steps].iter().find(|step| kind(step) == "WordPiece");
        if let Some(decoder) = word_piece {
            let prefix = &decoder["prefix"];
            if decoder_steps > 1 || *prefix != "##" {
                return Err(TokenizerError::invalid(
                    file,
                    format!(
                        "a decoder WordPiece with prefix {prefix} among {decoder_steps} is not supported"
                    ),
                ));
            }
            Ok((Spelling::WordPiece { cleanup: decoder["cleanup"] != false }, true))
        } else if any("ByteLevel") {
            Ok((Spelling::ByteLevel, strip))
        } else if replaces_space || any("ByteFallback") || any("Metaspace") {
            Ok((Spelling::ByteFallback, strip))
        } else {
            Ok((Spelling::Plain, strip))
        }
    }
}

pub(super) fn open(text: &[u8], file: &'static str) -> Result<Opened, TokenizerError> {
    let shape: Shape = tessera_weights::json::check(text, MAX_TOKENIZER_VALUES)
        .and_then(|()| serde_json::from_slice(text))
        .map_err(|e| TokenizerError::invalid(file, format!("not a tokenizer: {e}")))?;
    let (spelling, strip_space_in_decode) = shape.spelling(file)?;
    let inner = contained(|| {
        let mut inner = Inner::from_bytes(text)?;
        // A saved limit would cut long prompts without a word.
        inner.with_truncation(None)?;
        inner.with_padding(None);
        Ok(inner)
    })
    .and_then(|result: tokenizers::Result<Inner>| result.map_err(|e| e.to_string()))
    .map_err(|what| TokenizerError::invalid(file, what))?;

    let mut notes = Vec::new();
    if spelling == Spelling::Plain {
        notes.push(format!("{file} names no byte spelling; tokens are taken as they are written"));
    }
    let mut entries: Vec<(u32, Entry)> = inner
        .get_vocab(false)
        .into_iter()
        .map(|(text, id)| (id, Entry { bytes: spelling.bytes(&text), text, special: false }))
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.text.cmp(&b.1.text)));
    // Added tokens come last: they replace the vocabulary's word for the same id.
    let mut added: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    entries.extend(added.into_iter().map(|(id, token)| {
        let bytes = match spelling {
            Spelling::ByteFallback => spelling.bytes(&token.content),
            _ => token.content.as_bytes().to_vec(),
        };
        (id, Entry { text: token.content, bytes, special: token.special })
    }));
    let shrink = bound::of_json(text, &inner);
    let backend = Backend::Hf(Box::new(HfTokenizer { file, inner, ordinary: OnceLock::new() }));
    Ok(Opened { backend, entries, strip_space_in_decode, shrink, bos: None, eos: None, notes })
}

/// How Qwen2 cuts a text into words; the other byte-level families of that age use GPT-2's way.
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn open_vocab_and_merges(
    vocab: &[u8],
    merges: &[u8],
    settings: &Settings,
) -> Result<Opened, TokenizerError> {
    let vocab: Value = tessera_weights::json::parse(vocab)
        .map_err(|e| TokenizerError::invalid("vocab.json", format!("invalid JSON: {e}")))?;
    let merges = std::str::from_utf8(merges)
        .map_err(|e| TokenizerError::invalid("merges.txt", format!("not UTF-8: {e}")))?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let added: Vec<Value> = settings
        .added
        .iter()
        .map(|(id, added)| {
            json!({"id": id, "content": added.content, "special": added.special, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let byte_level = |regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let qwen2 = settings.class.as_deref().is_some_and(|c| c.starts_with("Qwen2Tokenizer"));
    let (normalizer, pre_tokenizer) = if qwen2 {
        let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": false});
        let steps = json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]});
        (json!({"type": "NFC"}), steps)
    } else {
        (Value::Null, byte_level(true))
    };
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocab, "merges": merges},
    });
    let mut opened = open(whole.to_string().as_bytes(), "vocab.json with merges.txt")?;
    if !qwen2 {
        opened.notes.push(
            "vocab.json and merges.txt do not say how words are cut; GPT-2's way is assumed".to_owned(),
        );
    }
    Ok(opened)
}

impl HfTokenizer {
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        encode_by(&self.inner, text, add_special)
    }

    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let blind = self.ordinary.get_or_init(|| {
            let mut inner = self.inner.clone();
            inner.set_encode_special_tokens(true);
            inner
        });
        encode_by(blind, text, false)
    }
}

fn encode_by(inner: &Inner, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
    contained(|| inner.encode_fast(text, add_special))
        .and_then(|result| result.map_err(|e| e.to_string()))
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|what| TokenizerError::Encode { len: text.len(), what })
}
