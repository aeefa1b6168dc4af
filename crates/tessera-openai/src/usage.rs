//! Tokens of a request, over all its choices.

use serde_json::{Value, json};
use tessera_engine::request::Usage;

/// Tokens. A prompt counts once, however many answers it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    prompt: usize,
    cached: usize,
    completion: usize,
    reasoning: usize,
}

impl Totals {
    /// Adds a choice that has ended. `first` of the choices of its prompt.
    pub fn add(&mut self, usage: &Usage, first: bool, reasoning: usize) {
        if first {
            self.prompt += usage.prompt_tokens;
            self.cached += usage.cached_tokens;
        }
        self.completion += usage.completion_tokens;
        self.reasoning += reasoning;
    }

    /// As chat and completions have it.
    pub fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }

    /// As `/v1/embeddings` has it.
    pub fn embeddings(&self) -> Value {
        json!({"prompt_tokens": self.prompt, "total_tokens": self.prompt})
    }

    /// As `/v1/responses` has it.
    pub fn responses(&self) -> Value {
        json!({
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.completion,
        })
    }
}
