//! `POST /v1/completions`.

use super::{Kind, Table, chat, extras, honoured, neutral, no_effect, refused, required};

/// The request.
pub const REQUEST: Table = Table {
    title: "POST /v1/completions",
    fields: &[
        &[
            required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
            required(
                "prompt",
                Kind::Mixed(
                    "a string, an array of strings, an array of token ids or an array of such arrays",
                ),
                "\"abc\"",
                "Each prompt is continued. At most 128 at once.",
            ),
            honoured(
                "max_tokens",
                Kind::Int(0, i64::MAX),
                "4",
                "Most tokens of the answer, 16 by default. 0 only with `echo`.",
            ),
            honoured("echo", Kind::Bool, "true", "The prompt is part of the text, and of `logprobs`."),
            honoured(
                "logprobs",
                Kind::Int(0, 20),
                "2",
                "Log-probabilities of the tokens, with so many alternatives. OpenAI ends at 5.",
            ),
            honoured("best_of", Kind::Int(0, 128), "1", "Must be `n`: the answers are not ranked."),
            honoured(
                "add_special_tokens",
                Kind::Bool,
                "true",
                "false: the tokenizer's own first token is left out. For prompts given as text.",
            ),
            no_effect("user", Kind::Text, "\"u\"", ""),
            neutral("suffix", &["\"\""], "\"\"", "No model here has an infill template."),
            refused("prompt_embeds", "\"AAAA\"", ""),
            honoured("response_format", Kind::Object, r#"{"type":"text"}"#, "As for chat."),
        ],
        chat::SAMPLING,
        extras::SAMPLING,
        extras::GRAMMAR,
        extras::NEUTRAL,
        &[
            neutral("continue_final_message", &["false"], "false", "Sent by routers with every request."),
            neutral("separate_reasoning", &["true"], "true", "Sent by routers with every request."),
            neutral("stream_reasoning", &["true"], "true", "Sent by routers with every request."),
            neutral("include_reasoning", &["true"], "true", "Sent by routers with every request."),
        ],
    ],
};
