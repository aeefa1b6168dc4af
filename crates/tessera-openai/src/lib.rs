//! The API that OpenAI's clients speak, apart from what carries it: from a body to requests for the engine, and from the
//! engine's events to an answer. A server and a page use the same tables of fields.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod constraint;
pub mod desk;
pub mod embeddings;
pub mod error;
pub mod fields;
pub mod format;
pub mod ids;
pub mod jobs;
pub mod json;
mod logprobs;
mod lost;
pub mod messages;
pub mod prompts;
pub mod reply;
pub mod sampling;
pub mod subject;
pub mod tools;
pub mod usage;
pub mod wanted;

use std::time::Duration;

/// Seconds since 1970.
pub fn now() -> u64 {
    since_1970().as_secs()
}

#[cfg(not(target_arch = "wasm32"))]
fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// In a page the standard library has no clock.
#[cfg(target_arch = "wasm32")]
fn since_1970() -> Duration {
    Duration::from_millis(js_sys::Date::now() as u64)
}
