//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`) as `tokenizer.model` and `tokenizer.json`.
//!
//! SentencePiece joins the neighbours that make the piece of the highest score, the leftmost first
//! where scores are equal. HF's BPE joins by the rank of a *pair*, and no two pairs share a rank. Both
//! agree where all scores differ, as trainers make them. They agree too on pieces of equal score that
//! are runs of one character (Llama 2 gives all its runs of spaces -1e9): with the longer left part
//! first, either way grows the leftmost run. Other vocabularies that were extended by hand
//! (Chinese-LLaMA gives its 23,000 new pieces the score 0) cannot be written as a `tokenizer.json`
//! without changing ids. `tokenizer.model` is exact always; `tokenizer.json` is made only where it is.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::error::GgufError;
use super::header::Gguf;
use super::value::required;
use super::vocab::{TokenType, Vocab, same_len, tokenizer};

const SPACE: char = '\u{2581}';

/// A SentencePiece BPE vocabulary.
pub(super) struct Spm<'a> {
    vocab: &'a Vocab,
    scores: Vec<f32>,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl Spm<'_> {
    pub fn parse<'a>(gguf: &Gguf, vocab: &'a Vocab) -> Result<Spm<'a>, GgufError> {
        for key in ["tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.merges"] {
            if let Some(v) = gguf.metadata().get(key) {
                return Err(GgufError::UnknownKey { key: key.to_string(), found: v.describe() });
            }
        }
        let key = "tokenizer.ggml.token_type";
        if !gguf.metadata().contains_key(key) {
            return Err(GgufError::MissingKey { key: key.to_string() });
        }
        let key = "tokenizer.ggml.scores";
        let scores = required(gguf.meta_f32s(key)?, key)?;
        same_len(key, scores.len(), vocab.tokens.len())?;
        if let Some(i) = scores.iter().position(|s| !s.is_finite()) {
            return Err(tokenizer(format!("the score of token {i} is {}, expected a number", scores[i])));
        }
        let unknown = vocab.types.iter().filter(|t| **t == TokenType::Unknown).count();
        if unknown != 1 {
            return Err(tokenizer(format!("{unknown} tokens are of type unknown, expected 1")));
        }
        let flag = |name: &str, default| -> Result<bool, GgufError> {
            Ok(gguf.meta_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
        };
        Ok(Spm {
            vocab,
            scores,
            add_space_prefix: flag("add_space_prefix", true)?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces", false)?,
        })
    }

    fn byte_fallback(&self) -> bool {
        self.vocab.types.iter().filter(|t| **t == TokenType::Byte).count() == 256
            && (0..=255).all(|b| self.vocab.ids.contains_key(&format!("<0x{b:02X}>")))
    }

    fn normal(&self) -> impl Iterator<Item = (&str, f32)> {
        let types = self.vocab.types.iter().zip(&self.scores);
        self.vocab
            .tokens
            .iter()
            .zip(types)
            .filter_map(|(piece, (ty, &score))| (*ty == TokenType::Normal).then_some((piece.as_str(), score)))
    }

    /// The pairs that make a piece, the best first; `None` where no such order gives SentencePiece's
    /// results. Within a piece the longer left part goes first, as HF's converter has it.
    fn merges(&self) -> Option<Vec<(&str, &str)>> {
        if self.remove_extra_whitespaces || self.vocab.types.contains(&TokenType::Unused) {
            return None;
        }
        let normal: HashSet<&str> = self.normal().map(|(piece, _)| piece).collect();
        let mut scores: HashMap<u32, Option<char>> = HashMap::new();
        let mut merges = Vec::new();
        for (piece, score) in self.normal() {
            let before = merges.len();
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if normal.contains(left) && normal.contains(right) {
                    merges.push((score, left, right));
                }
            }
            if merges.len() > before {
                let run = run_of(piece);
                // `+ 0.0` makes -0 and 0 the same.
                let tied = scores.insert((score + 0.0).to_bits(), run);
                if tied.is_some_and(|other| other.is_none() || other != run) {
                    return None;
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())));
        Some(merges.into_iter().map(|(_, left, right)| (left, right)).collect())
    }

    /// The model, normalizer and decoder of `tokenizer.json`, or `None` where it cannot be exact.
    pub fn json(&self) -> Option<SpmJson> {
        let merges = self.merges()?;
        // Pairs are written as one string, as all readers know it, unless a piece holds a space.
        let spaces = merges.iter().any(|(l, r)| l.contains(' ') || r.contains(' '));
        let merges: Vec<Value> = merges
            .into_iter()
            .map(|(l, r)| if spaces { json!([l, r]) } else { json!(format!("{l} {r}")) })
            .collect();
        let vocab: Map<String, Value> =
            self.vocab.tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), json!(id))).collect();
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        let normalizer = if self.add_space_prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
            json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": SPACE }, replace] })
        } else {
            replace
        };
        let model = json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": self.vocab.unknown().map(|id| self.vocab.text(id)),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": self.byte_fallback(),
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        });
        Some(SpmJson { normalizer, decoder: json!({ "type": "Sequence", "decoders": decoders }), model })
    }

    /// `tokenizer.model`: SentencePiece's `ModelProto` (`sentencepiece_model.proto`).
    pub fn proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (piece, (ty, score)) in self.vocab.tokens.iter().zip(self.vocab.types.iter().zip(&self.scores)) {
            let mut message = Vec::new();
            put_bytes(&mut message, 1, piece.as_bytes());
            varint(&mut message, 2 << 3 | 5);
            message.extend(score.to_le_bytes());
            put_int(&mut message, 3, *ty as i64);
            put_bytes(&mut out, 1, &message);
        }
        const BPE: i64 = 2;
        let mut trainer = Vec::new();
        put_int(&mut trainer, 3, BPE);
        put_int(&mut trainer, 4, self.vocab.tokens.len() as i64);
        put_int(&mut trainer, 35, self.byte_fallback().into());
        let roles =
            [(40, self.vocab.unknown()), (41, self.vocab.bos), (42, self.vocab.eos), (43, self.vocab.pad)];
        for (field, id) in roles {
            put_int(&mut trainer, field, id.map_or(-1, i64::from));
        }
        for (field, id) in roles {
            // Fields 45 to 48 are the pieces of the ids in 40 to 43.
            if let Some(id) = id {
                put_bytes(&mut trainer, field + 5, self.vocab.text(id).as_bytes());
            }
        }
        put_bytes(&mut out, 2, &trainer);
        let mut normalizer = Vec::new();
        put_bytes(&mut normalizer, 1, b"identity");
        put_int(&mut normalizer, 3, self.add_space_prefix.into());
        put_int(&mut normalizer, 4, self.remove_extra_whitespaces.into());
        put_int(&mut normalizer, 5, 1);
        put_bytes(&mut out, 3, &normalizer);
        out
    }
}

/// The character of which the piece is a run.
fn run_of(piece: &str) -> Option<char> {
    let first = piece.chars().next()?;
    piece.chars().all(|c| c == first).then_some(first)
}

/// The parts of `tokenizer.json` that are SentencePiece's own.
pub(super) struct SpmJson {
    pub normalizer: Value,
    pub decoder: Value,
    pub model: Value,
}

// Protocol buffers: a field is a varint `number << 3 | wire type`, then its value. Wire type 0 is a
// varint, 2 a length and bytes, 5 four bytes.

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_int(out: &mut Vec<u8>, field: u64, v: i64) {
    varint(out, field << 3);
    varint(out, v as u64);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}
