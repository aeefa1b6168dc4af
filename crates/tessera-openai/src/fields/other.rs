//! `POST /v1/embeddings`, `/tokenize`, `/detokenize`.

use super::{Kind, Table, honoured, neutral, no_effect, required};

/// `POST /v1/embeddings`.
pub const EMBEDDINGS: Table = Table {
    title: "POST /v1/embeddings",
    fields: &[&[
        required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
        required(
            "input",
            Kind::Mixed("a string, an array of strings, an array of token ids or an array of such arrays"),
            "\"abc\"",
            "At most 2048 at once. Nothing is cut.",
        ),
        honoured(
            "encoding_format",
            Kind::OneOf(&["float", "base64"]),
            "\"float\"",
            "`base64`: little-endian f32.",
        ),
        honoured("dimensions", Kind::Int(1, i64::MAX), "null", "Must be what the model has: nothing is cut."),
        honoured(
            "add_special_tokens",
            Kind::Bool,
            "true",
            "false: the tokenizer's own first token is left out.",
        ),
        no_effect("user", Kind::Text, "\"u\"", ""),
        neutral("priority", &["0"], "0", ""),
        neutral("truncate_prompt_tokens", &[], "100", "A text is never cut."),
    ]],
};

/// `POST /tokenize`.
pub const TOKENIZE: Table = Table {
    title: "POST /tokenize",
    fields: &[&[
        required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
        honoured("prompt", Kind::Text, "\"abc\"", "A text; this or `messages`."),
        honoured(
            "messages",
            Kind::List(1, 10_000),
            "null",
            "A conversation, made a prompt by the chat template.",
        ),
        honoured(
            "add_special_tokens",
            Kind::Bool,
            "true",
            "false: the tokenizer's own first token is left out. For `prompt`.",
        ),
        honoured(
            "add_generation_prompt",
            Kind::Bool,
            "true",
            "false: the prompt ends with the last message. For `messages`.",
        ),
        honoured("return_token_strs", Kind::Bool, "true", "Also the tokens as the vocabulary spells them."),
    ]],
};

/// `POST /detokenize`.
pub const DETOKENIZE: Table = Table {
    title: "POST /detokenize",
    fields: &[&[
        required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
        required("tokens", Kind::List(0, usize::MAX), "[20,21]", "Token ids."),
    ]],
};
