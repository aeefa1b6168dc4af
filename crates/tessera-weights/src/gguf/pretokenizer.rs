//! The pre-tokenizers that `tokenizer.ggml.pre` names, as data.
//!
//! Names and grouping follow llama.cpp (`src/llama-vocab.cpp`); the patterns are those of the models'
//! own `tokenizer.json`, which llama.cpp adapts to its own regex engine. A name that is not here is
//! refused: a wrong split gives wrong ids without any other sign.

use serde_json::{Value, json};

use super::error::GgufError;

/// One step of a pre-tokenizer.
#[derive(Clone, Copy, PartialEq)]
enum Step<'a> {
    /// Cuts out every match of a pattern.
    Split(&'a str),
    /// Cuts out every digit.
    Digits,
    /// GPT-2's own pattern.
    Gpt2,
}

/// How a family of byte-level BPE tokenizers prepares text.
pub(crate) struct Pre {
    names: &'static [&'static str],
    steps: &'static [Step<'static>],
    /// A word that is a token is not built from merges.
    pub ignore_merges: bool,
    /// Whether BOS is added where `tokenizer.ggml.add_bos_token` is absent.
    pub add_bos: bool,
    /// Whether text is normalised to NFC first.
    pub nfc: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const fn pre(names: &'static [&'static str], steps: &'static [Step<'static>]) -> Pre {
    Pre { names, steps, ignore_merges: false, add_bos: false, nfc: false }
}

const TABLE: &[Pre] = &[
    // llama.cpp's guess for files of before April 2024, which do not name their pre-tokenizer.
    pre(
        &["default"],
        &[
            Step::Split(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            Step::Split(r"\p{N}+"),
            Step::Split(r"[0-9][0-9][0-9]"),
        ],
    ),
    pre(&["gpt-2", "trillion", "granite-docling"], &[Step::Gpt2]),
    pre(&["smollm", "starcoder", "refact", "codeshell", "minerva-7b"], &[Step::Digits, Step::Gpt2]),
    Pre {
        ignore_merges: true,
        add_bos: true,
        ..pre(&["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"], &[Step::Split(LLAMA3)])
    },
    pre(&["smaug-bpe", "dbrx"], &[Step::Split(LLAMA3)]),
    Pre { nfc: true, ..pre(&["qwen2"], &[Step::Split(QWEN2)]) },
    pre(&["deepseek-r1-qwen", "megrez", "stablelm2"], &[Step::Split(QWEN2)]),
    pre(&["seed-coder"], &[Step::Split(SEED_CODER)]),
    Pre { ignore_merges: true, ..pre(&["minicpm5"], &[Step::Split(r"\p{N}{1,3}"), Step::Split(MINICPM5)]) },
    Pre { ignore_merges: true, add_bos: true, ..pre(&["tekken"], &[Step::Split(TEKKEN)]) },
    pre(&["gpt-4o", "llama4", "kanana2"], &[Step::Split(GPT4O)]),
    pre(
        &["deepseek-coder"],
        &[
            Step::Split(r"[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"),
            Step::Digits,
        ],
    ),
    pre(
        &["deepseek-v3"],
        &[
            Step::Split(r"\p{N}{1,3}"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+"),
            Step::Split(DEEPSEEK3),
        ],
    ),
];

impl Pre {
    /// The pre-tokenizer of this name.
    pub fn find(name: &str) -> Result<&'static Pre, GgufError> {
        TABLE.iter().find(|p| p.names.contains(&name)).ok_or_else(|| GgufError::BadValue {
            key: "tokenizer.ggml.pre".to_string(),
            found: format!("{name:?}"),
            what: format!(
                "this pre-tokenizer is not known, expected one of {}",
                TABLE.iter().flat_map(|p| p.names).copied().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// The name of what a `tokenizer.json` does: the first whose steps are its own.
    pub fn name_of(json: &Value, nfc: bool, ignore_merges: bool) -> Option<&'static str> {
        let listed = steps(json)?;
        let same = |pre: &&Pre| pre.steps == listed && (pre.nfc, pre.ignore_merges) == (nfc, ignore_merges);
        TABLE.iter().find(same).map(|pre| pre.names[0])
    }

    /// The `pre_tokenizer` of `tokenizer.json`.
    pub fn json(&self) -> Value {
        let mut steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| match step {
                Step::Split(pattern) => json!({
                    "type": "Split",
                    "pattern": { "Regex": pattern },
                    "behavior": "Isolated",
                    "invert": false,
                }),
                Step::Digits => json!({ "type": "Digits", "individual_digits": true }),
                Step::Gpt2 => byte_level(true),
            })
            .collect();
        // Bytes become letters last, also where the split was done by other patterns.
        if !self.steps.iter().any(|s| matches!(s, Step::Gpt2)) {
            steps.push(byte_level(false));
        }
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }
}

/// The steps of a `pre_tokenizer`, if all are of a kind that the table has.
fn steps(json: &Value) -> Option<Vec<Step<'_>>> {
    let flag = |name: &str, default| json[name].as_bool().unwrap_or(default);
    Some(match json["type"].as_str()? {
        "Sequence" => {
            let parts = json["pretokenizers"].as_array()?.iter();
            parts.map(steps).collect::<Option<Vec<_>>>()?.concat()
        }
        "ByteLevel" if flag("add_prefix_space", true) => return None,
        "ByteLevel" if flag("use_regex", true) => vec![Step::Gpt2],
        // Bytes become letters, which all of them do.
        "ByteLevel" => Vec::new(),
        "Digits" if flag("individual_digits", false) => vec![Step::Digits],
        "Split" => {
            let kept = match (json["behavior"].as_str()?, flag("invert", false)) {
                ("Isolated", false) => true,
                // What does not match is dropped, and these patterns match everything.
                ("Removed", true) => true,
                _ => false,
            };
            vec![Step::Split(json["pattern"]["Regex"].as_str().filter(|_| kept)?)]
        }
        _ => return None,
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}
