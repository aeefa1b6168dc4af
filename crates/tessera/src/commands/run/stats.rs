//! How long an answer took.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tessera_engine::request::{EngineEvent, Usage};

/// Times of one answer.
pub struct Stats {
    start: Instant,
    first: Option<Instant>,
    last: Instant,
    prompt_tokens: usize,
    cached_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    tokens: usize,
}

impl Stats {
    /// The request is made now.
    pub fn start(prompt_tokens: usize) -> Stats {
        let now = Instant::now();
        Stats {
            start: now,
            first: None,
            last: now,
            prompt_tokens,
            cached_tokens: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            tokens: 0,
        }
    }

    /// Notes when a token came.
    pub fn note(&mut self, event: &EngineEvent) {
        if let EngineEvent::Token { .. } = event {
            self.last = Instant::now();
            self.first.get_or_insert(self.last);
            self.tokens += 1;
        }
    }

    /// The answer is there.
    pub fn finish(&mut self, usage: &Usage) {
        self.cached_tokens = usage.cached_tokens;
        (self.drafted_tokens, self.accepted_tokens) = (usage.drafted_tokens, usage.accepted_tokens);
    }

    fn ttft(&self) -> Option<Duration> {
        Some(self.first? - self.start)
    }

    fn prefill_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.ttft()?)
    }

    /// Of the tokens after the first, which belongs to the prefill.
    fn decode_rate(&self) -> Option<f64> {
        rate(self.tokens.checked_sub(1)?, self.last - self.first?)
    }

    /// For `--json`.
    pub fn json(&self, load: Duration) -> Value {
        let ms = |d: Duration| (d.as_secs_f64() * 1e5).round() / 1e2;
        json!({
            "load_ms": ms(load),
            "ttft_ms": self.ttft().map(ms),
            "prefill_tokens_per_s": self.prefill_rate(),
            "decode_tokens_per_s": self.decode_rate(),
            "drafted_tokens": self.drafted_tokens,
            "accepted_tokens": self.accepted_tokens,
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        let number = |r: Option<f64>| r.map_or("-".to_owned(), |r| format!("{r:.1}"));
        let drafts = match self.drafted_tokens {
            0 => String::new(),
            n => format!(" ({} of {n} drafted ones accepted)", self.accepted_tokens),
        };
        format!(
            "prompt {} tokens ({} from the cache), {} tokens/s; answer {} tokens{drafts}, {} tokens/s; first token after {}",
            self.prompt_tokens,
            self.cached_tokens,
            number(self.prefill_rate()),
            self.tokens,
            number(self.decode_rate()),
            self.ttft().map_or("-".to_owned(), |t| format!("{:.0} ms", t.as_secs_f64() * 1e3)),
        )
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}
