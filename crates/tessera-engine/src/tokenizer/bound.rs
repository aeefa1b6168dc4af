//! How few tokens a text can have: what says that a prompt is too long before it is encoded, which takes a
//! hundred times its length in memory.

use super::steps::steps;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer as Inner;

/// The most that a text may lose before it is cut into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shrink {
    /// A normalised text has at least its length divided by this.
    pub factor: usize,
    /// White space may be swallowed by the tokens around it.
    pub spaces: bool,
}

impl Shrink {
    /// Bytes that certainly reach the model's own pieces.
    pub fn least(self, text: &str) -> usize {
        let len = match self.spaces {
            false => text.len(),
            true => text.chars().filter(|c| !c.is_whitespace()).map(char::len_utf8).sum(),
        };
        len / self.factor
    }
}

/// The parts of `tokenizer.json` that decide it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Shape {
    normalizer: Value,
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Model {
    #[serde(rename = "type")]
    kind: Value,
    unk_token: Value,
    fuse_unk: bool,
    byte_fallback: bool,
}

/// What a `tokenizer.json` may lose of a text; `None` where that cannot be said: unknown characters that
/// become one token, normalisers that drop some.
pub(super) fn of_json(json: &[u8], inner: &Inner) -> Option<Shrink> {
    let shape: Shape = serde_json::from_slice(json).ok()?;
    let unknown = !shape.model.unk_token.is_null() && !shape.model.byte_fallback;
    if shape.model.kind != "BPE" || shape.model.fuse_unk && unknown {
        return None;
    }
    let factor = normalizer(&shape.normalizer)?;
    let mut cuts = Vec::new();
    steps(&shape.pre_tokenizer, &mut cuts);
    let keeps = |step: &Value| match step["type"].as_str() {
        Some("ByteLevel" | "Metaspace" | "Digits") => true,
        Some("Split") => step["behavior"] != "Removed",
        _ => false,
    };
    if !cuts.iter().all(|step| keeps(step)) {
        return None;
    }
    let spaces = inner.get_added_tokens_decoder().values().any(|token| token.lstrip || token.rstrip);
    Some(Shrink { factor, spaces })
}

fn normalizer(value: &Value) -> Option<usize> {
    if value.is_null() {
        return Some(1);
    }
    match value["type"].as_str()? {
        "Prepend" | "ByteLevel" => Some(1),
        // A space becomes a longer sign.
        "Replace" => {
            let (from, to) = (value["pattern"]["String"].as_str()?, value["content"].as_str()?);
            (to.len() >= from.len()).then_some(1)
        }
        // Three Hangul letters of three bytes become one; four is the most that any composition saves.
        "NFC" => Some(4),
        "Sequence" => {
            let steps = value["normalizers"].as_array()?;
            steps.iter().try_fold(1usize, |all, step| all.checked_mul(normalizer(step)?))
        }
        _ => None,
    }
}
