//! `POST /v1/chat/completions`, and the objects inside it.

use super::{Field, Kind, Table, extras, honoured, neutral, no_effect, refused, required};
use tessera_engine::sampler::range;

/// Most stop strings.
pub const MAX_STOPS: usize = 16;

/// Sampling as OpenAI has it, for chat and completions.
pub const SAMPLING: &[Field] = &[
    honoured(
        "temperature",
        Kind::of(range::TEMPERATURE),
        "0.7",
        "0 takes the likeliest token every time. Default: the model's.",
    ),
    honoured(
        "top_p",
        Kind::of(range::TOP_P),
        "0.9",
        "Keep the likeliest tokens that together have this probability. Default: the model's.",
    ),
    honoured(
        "frequency_penalty",
        Kind::of(range::FREQUENCY_PENALTY),
        "0.5",
        "Subtracted from a token's logit for each time it was generated. Default: the model's.",
    ),
    honoured(
        "presence_penalty",
        Kind::of(range::PRESENCE_PENALTY),
        "0.5",
        "Subtracted once from the logits of tokens that were generated. Default: the model's.",
    ),
    honoured(
        "logit_bias",
        Kind::Object,
        r#"{"5":-100}"#,
        "Added to the logits of token ids; from -100 to 100.",
    ),
    honoured(
        "seed",
        Kind::Int(i64::MIN, i64::MAX),
        "7",
        "The same seed gives the same answer. Choice `i` of `n` has `seed + i`.",
    ),
    honoured(
        "stop",
        Kind::Mixed("a string or an array of up to 16 strings"),
        "[\"\\n\\n\"]",
        "Texts that end the answer and are no part of it.",
    ),
    honoured("n", Kind::Int(1, 128), "1", "So many answers to one prompt, which is computed once."),
    honoured("stream", Kind::Bool, "false", "Server-sent events, a chunk for each token."),
    honoured("stream_options", Kind::Object, r#"{"include_usage":true}"#, "Only with `stream`."),
];

/// The request.
pub const REQUEST: Table = Table {
    title: "POST /v1/chat/completions",
    fields: &[
        &[
            required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
            required(
                "messages",
                Kind::List(1, 10_000),
                r#"[{"role":"user","content":"Hi"}]"#,
                "The conversation; see below.",
            ),
            honoured(
                "max_completion_tokens",
                Kind::Int(1, i64::MAX),
                "4",
                "Most tokens of the answer. Default: until the context is full.",
            ),
            honoured(
                "max_tokens",
                Kind::Int(1, i64::MAX),
                "4",
                "Older name of `max_completion_tokens`; both at different values are refused.",
            ),
            honoured(
                "logprobs",
                Kind::Bool,
                "true",
                "Log-probabilities of the answer's tokens, by the model's raw logits.",
            ),
            honoured(
                "top_logprobs",
                Kind::Int(0, 20),
                "2",
                "So many alternatives to each token; only with `logprobs`.",
            ),
            honoured(
                "response_format",
                Kind::Object,
                r#"{"type":"text"}"#,
                "`text`, `json_object`, `json_schema`, `regex`, `grammar`; enforced while the answer is made.",
            ),
            honoured("tools", Kind::List(0, 128), "[]", "Functions that the model may call; see below."),
            honoured(
                "tool_choice",
                Kind::Mixed("\"none\", \"auto\", \"required\" or an object that names a function"),
                "\"none\"",
                "`required` and a named function are enforced.",
            ),
            honoured("parallel_tool_calls", Kind::Bool, "true", "false: at most one call in an answer."),
            no_effect("user", Kind::Text, "\"u\"", ""),
            no_effect("safety_identifier", Kind::Text, "\"u\"", ""),
            no_effect(
                "prompt_cache_key",
                Kind::Text,
                "\"k\"",
                "Prompts that begin alike share their computation anyway.",
            ),
            no_effect("metadata", Kind::Object, r#"{"a":"b"}"#, "For stored answers, and nothing is stored."),
            no_effect("prompt_cache_retention", Kind::Text, "\"24h\"", ""),
            no_effect("prompt_cache_options", Kind::Object, "{}", ""),
            neutral("store", &["false"], "false", "Nothing is stored."),
            neutral("service_tier", &["\"auto\"", "\"default\""], "\"auto\"", ""),
            neutral("modalities", &["[\"text\"]"], "[\"text\"]", ""),
            neutral("verbosity", &["\"medium\""], "\"medium\"", ""),
            neutral(
                "reasoning_effort",
                &["\"medium\""],
                "\"medium\"",
                "Models with such a setting take it in `chat_template_kwargs`.",
            ),
            neutral("function_call", &["\"none\""], "\"none\"", "Use `tool_choice`."),
            refused("functions", r#"[{"name":"f"}]"#, "use tools"),
            refused("audio", "{}", "only text is generated"),
            refused("prediction", r#"{"type":"content","content":"x"}"#, ""),
            refused("web_search_options", "{}", ""),
            refused("moderation", r#"{"model":"m"}"#, ""),
        ],
        SAMPLING,
        extras::SAMPLING,
        extras::GRAMMAR,
        extras::CHAT,
        extras::NEUTRAL,
    ],
};

/// Of fields that ask for a cache.
pub const CACHED: &str = "Prompts that begin alike share their computation anyway.";
const CACHE_CONTROL: Field = no_effect("cache_control", Kind::Object, r#"{"type":"ephemeral"}"#, CACHED);
const CONTENT: Kind = Kind::Mixed("a string or an array of text parts");
const NAME: Field = honoured(
    "name",
    Kind::Text,
    "\"Ann\"",
    "Given to the chat template; most have no place for it and leave it out.",
);

/// Instructions.
pub const SYSTEM_MESSAGE: Table = Table {
    title: "a `system` or `developer` message",
    fields: &[&[
        required(
            "role",
            Kind::OneOf(&["system", "developer"]),
            "\"system\"",
            "`developer` is the same as `system`. At any place that the chat template allows.",
        ),
        required("content", CONTENT, "\"Be brief.\"", "Parts are joined by line breaks."),
        NAME,
        CACHE_CONTROL,
    ]],
};

/// A question.
pub const USER_MESSAGE: Table = Table {
    title: "a `user` message",
    fields: &[&[
        required("role", Kind::OneOf(&["user"]), "\"user\"", ""),
        required(
            "content",
            CONTENT,
            "\"Hi\"",
            "Parts are joined by line breaks. Images, audio and files are refused.",
        ),
        NAME,
        CACHE_CONTROL,
    ]],
};

/// An answer.
pub const ASSISTANT_MESSAGE: Table = Table {
    title: "an `assistant` message",
    fields: &[&[
        required("role", Kind::OneOf(&["assistant"]), "\"assistant\"", ""),
        honoured("content", CONTENT, "\"Hello.\"", "May be left out where there are `tool_calls`."),
        honoured("tool_calls", Kind::List(0, 128), "[]", "Calls that the model made."),
        honoured(
            "reasoning_content",
            Kind::Text,
            "\"Hm.\"",
            "Given to the chat template; many leave out what was thought in earlier turns.",
        ),
        honoured("reasoning", Kind::Text, "\"Hm.\"", "Another name of `reasoning_content`."),
        NAME,
        CACHE_CONTROL,
        no_effect("provider_specific_fields", Kind::Object, "{}", "Clients copy it from a response."),
        neutral("refusal", &[], "\"No.\"", ""),
        neutral("annotations", &["[]"], "[]", ""),
        no_effect("parsed", Kind::Mixed("anything"), "{}", "OpenAI's client adds it to a response."),
        neutral("audio", &[], r#"{"id":"x"}"#, ""),
        neutral("function_call", &[], r#"{"name":"f","arguments":"{}"}"#, "Use `tool_calls`."),
    ]],
};

/// The result of a call.
pub const TOOL_MESSAGE: Table = Table {
    title: "a `tool` message",
    fields: &[&[
        required("role", Kind::OneOf(&["tool"]), "\"tool\"", ""),
        required("content", CONTENT, "\"12 degrees\"", "Parts are joined by line breaks."),
        required("tool_call_id", Kind::Text, "\"call_1\"", "The `id` of a call in an earlier message."),
        honoured("name", Kind::Text, "\"f\"", "The function; must be the one of the call."),
        CACHE_CONTROL,
    ]],
};

/// A part of a content.
pub const TEXT_PART: Table = Table {
    title: "a content part",
    fields: &[&[
        required("type", Kind::OneOf(&["text"]), "\"text\"", "Other types are refused."),
        required("text", Kind::Text, "\"Hi\"", ""),
        CACHE_CONTROL,
        no_effect("prompt_cache_breakpoint", Kind::Object, "{}", CACHED),
    ]],
};

/// A call in an assistant message.
pub const TOOL_CALL: Table = Table {
    title: "`tool_calls[i]`",
    fields: &[&[
        required("id", Kind::Text, "\"call_1\"", ""),
        required("type", Kind::OneOf(&["function"]), "\"function\"", ""),
        required("function", Kind::Object, r#"{"name":"f","arguments":"{}"}"#, ""),
        no_effect("index", Kind::Int(0, i64::MAX), "0", "Clients copy it from a stream."),
        no_effect("provider_specific_fields", Kind::Object, "{}", "Clients copy it from a response."),
    ]],
};

/// The function of a call.
pub const CALLED_FUNCTION: Table = Table {
    title: "`tool_calls[i].function`",
    fields: &[&[
        required("name", Kind::Text, "\"f\"", ""),
        required("arguments", Kind::Text, "\"{}\"", "A JSON object as text."),
        no_effect(
            "parsed_arguments",
            Kind::Mixed("anything"),
            "{}",
            "OpenAI's client adds it to a response.",
        ),
        no_effect("provider_specific_fields", Kind::Object, "{}", "Clients copy it from a response."),
    ]],
};

/// Options of a stream.
pub const STREAM_OPTIONS: Table = Table {
    title: "`stream_options`",
    fields: &[&[
        honoured("include_usage", Kind::Bool, "true", "A last chunk with the usage."),
        neutral("include_obfuscation", &["false"], "false", ""),
        neutral("continuous_usage_stats", &["false"], "false", ""),
    ]],
};

/// What the answer must look like.
pub const RESPONSE_FORMAT: Table = Table {
    title: "`response_format`",
    fields: &[&[
        required(
            "type",
            Kind::OneOf(&["text", "json_object", "json_schema", "regex", "grammar"]),
            "\"text\"",
            "",
        ),
        honoured(
            "json_schema",
            Kind::Object,
            r#"{"name":"n","schema":{"type":"integer"}}"#,
            "For type `json_schema`.",
        ),
        honoured("regex", Kind::Text, "\"[ab]+\"", "For type `regex`."),
        honoured("grammar", Kind::Text, r#""start: \"a\"""#, "For type `grammar`: a Lark grammar."),
    ]],
};

/// A schema with its name.
pub const JSON_SCHEMA: Table = Table {
    title: "`response_format.json_schema`",
    fields: &[&[
        required("name", Kind::Text, "\"n\"", ""),
        required(
            "schema",
            Kind::Mixed("a JSON schema"),
            r#"{"type":"integer"}"#,
            "A keyword that cannot be enforced is refused, with its place.",
        ),
        honoured("strict", Kind::Bool, "true", "The schema is enforced in either case."),
        no_effect("description", Kind::Text, "\"d\"", ""),
    ]],
};

/// A tool.
pub const TOOL: Table = Table {
    title: "`tools[i]`",
    fields: &[&[
        required("type", Kind::OneOf(&["function"]), "\"function\"", ""),
        required("function", Kind::Object, r#"{"name":"f"}"#, ""),
        CACHE_CONTROL,
    ]],
};

/// A function that may be called.
pub const FUNCTION: Table = Table {
    title: "`tools[i].function`",
    fields: &[&[
        required("name", Kind::Text, "\"f\"", "Letters, digits, `_` and `-`; at most 64."),
        honoured("description", Kind::Text, "\"d\"", "Given to the model."),
        honoured(
            "parameters",
            Kind::Object,
            r#"{"type":"object","properties":{}}"#,
            "Given to the model; enforced for `required` and named calls, and where `strict`.",
        ),
        honoured("strict", Kind::Bool, "true", "The arguments follow the schema."),
        CACHE_CONTROL,
    ]],
};

/// A choice by name.
pub const TOOL_CHOICE: Table = Table {
    title: "`tool_choice`",
    fields: &[&[
        required("type", Kind::OneOf(&["function"]), "\"function\"", ""),
        required("function", Kind::Object, r#"{"name":"f"}"#, ""),
    ]],
};

/// The function that is chosen.
pub const CHOSEN_FUNCTION: Table = Table {
    title: "`tool_choice.function`",
    fields: &[&[required("name", Kind::Text, "\"f\"", "One of `tools`.")]],
};
