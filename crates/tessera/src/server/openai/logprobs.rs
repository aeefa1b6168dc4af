//! Log-probabilities in the two shapes that OpenAI has for them.

use serde_json::{Map, Value, json};
use tessera_engine::engine::TokenLogprob;
use tessera_engine::tokenizer::Tokenizer;

/// JSON has no infinity; this is OpenAI's number for "as good as impossible".
const IMPOSSIBLE: f32 = -9999.0;

fn number(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An entry of chat's `logprobs.content`.
pub fn chat_entry(logprob: &TokenLogprob, tokenizer: &Tokenizer) -> Value {
    let alternatives = logprob.top.iter().map(|(id, value)| {
        let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
        json!({"token": text(bytes), "logprob": number(*value), "bytes": bytes})
    });
    json!({
        "token": text(&logprob.bytes),
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

impl Lists {
    /// A token that nothing predicts: the first of a prompt.
    pub fn push_first(&mut self, token: u32, tokenizer: &Tokenizer, offset: &mut usize) {
        let spelt = text(tokenizer.token_bytes(token).unwrap_or_default());
        self.offsets.push(*offset);
        *offset += spelt.chars().count();
        self.tokens.push(spelt.into());
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    /// A token, and where its text begins, in characters.
    pub fn push(&mut self, logprob: &TokenLogprob, tokenizer: &Tokenizer, offset: &mut usize) {
        let spelt = text(&logprob.bytes);
        let mut top = Map::new();
        for (id, value) in &logprob.top {
            let spelt = text(tokenizer.token_bytes(*id).unwrap_or_default());
            // Tokens of the same spelling (parts of characters): the likelier one comes first and stays.
            top.entry(spelt).or_insert_with(|| json!(number(*value)));
        }
        self.offsets.push(*offset);
        *offset += spelt.chars().count();
        self.tokens.push(spelt.into());
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
