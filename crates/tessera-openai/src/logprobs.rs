//! Log-probabilities in the two shapes that OpenAI has for them.

use serde_json::{Map, Value, json};
use tessera_engine::detokenize::Utf8Stream;
use tessera_engine::request::TokenLogprob;
use tessera_engine::tokenizer::Tokenizer;

/// JSON has no infinity; this is OpenAI's number for "as good as impossible".
const IMPOSSIBLE: f32 = -9999.0;

fn number(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// A token that is no text by itself, because it is a part of a character, is spelt by its bytes, as OpenAI
/// does: `\xf0\x9f` in chat, `bytes:\xf0\x9f` in completions.
fn spelt(bytes: &[u8], before: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(before.to_owned(), |out, byte| out + &format!("\\x{byte:02x}")),
    }
}

/// An entry of chat's `logprobs.content`.
pub fn chat_entry(logprob: &TokenLogprob, tokenizer: &Tokenizer) -> Value {
    let alternatives = logprob.top.iter().map(|(id, value)| {
        let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
        json!({"token": spelt(bytes, ""), "logprob": number(*value), "bytes": bytes})
    });
    json!({
        "token": spelt(&logprob.bytes, ""),
        "logprob": number(logprob.logprob),
        "bytes": logprob.bytes,
        "top_logprobs": alternatives.collect::<Vec<_>>(),
    })
}

/// The lists of `/v1/completions`.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    tokens: Vec<Value>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

/// Where the next token begins in the text.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    characters: usize,
    /// A character may be made of several tokens; they begin where it does.
    unfinished: Utf8Stream,
}

impl Offset {
    /// After a text that no list has the tokens of.
    pub fn after(text: &str) -> Offset {
        Offset { characters: text.chars().count(), unfinished: Utf8Stream::default() }
    }

    /// Where a token begins; the next one begins behind it.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let at = self.characters;
        self.characters += self.unfinished.push(bytes).chars().count();
        at
    }
}

impl Lists {
    const BYTES: &str = "bytes:";

    /// A token that nothing predicts: the first of a prompt.
    pub fn push_first(&mut self, token: u32, tokenizer: &Tokenizer, offset: &mut Offset) {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default();
        self.offsets.push(offset.pass(bytes));
        self.tokens.push(spelt(bytes, Lists::BYTES).into());
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    /// A token, and where its text begins, in characters.
    pub fn push(&mut self, logprob: &TokenLogprob, tokenizer: &Tokenizer, offset: &mut Offset) {
        let mut top = Map::new();
        for (id, value) in &logprob.top {
            let spelt = spelt(tokenizer.token_bytes(*id).unwrap_or_default(), Lists::BYTES);
            // Tokens of the same spelling (special ones and text): the likelier comes first and stays.
            top.entry(spelt).or_insert_with(|| json!(number(*value)));
        }
        self.offsets.push(offset.pass(&logprob.bytes));
        self.tokens.push(spelt(&logprob.bytes, Lists::BYTES).into());
        self.logprobs.push(json!(number(logprob.logprob)));
        self.top.push(Value::Object(top));
    }

    /// Appends another's tokens.
    pub fn append(&mut self, mut other: Lists) {
        self.tokens.append(&mut other.tokens);
        self.logprobs.append(&mut other.logprobs);
        self.top.append(&mut other.top);
        self.offsets.append(&mut other.offsets);
    }

    /// As the response has it.
    pub fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}
