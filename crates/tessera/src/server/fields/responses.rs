//! `POST /v1/responses`, and the objects inside it.

use super::{Kind, Table, honoured, neutral, no_effect, refused, required};
use tessera_engine::sampler::range;

/// The request.
pub const REQUEST: Table = Table {
    title: "POST /v1/responses",
    fields: &[&[
        required("model", Kind::Text, "\"m\"", "A name of `/v1/models`."),
        required(
            "input",
            Kind::Mixed("a string or an array of items"),
            "\"Hi\"",
            "Messages, function calls and their outputs; see below.",
        ),
        honoured("instructions", Kind::Text, "\"Be brief.\"", "A system message before the input."),
        honoured(
            "max_output_tokens",
            Kind::Int(1, i64::MAX),
            "4",
            "Most tokens of the answer, reasoning included. Default: until the context is full.",
        ),
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
        honoured("stream", Kind::Bool, "false", "Server-sent events of the types `response.*`."),
        honoured("stream_options", Kind::Object, r#"{"include_obfuscation":false}"#, "Only with `stream`."),
        honoured(
            "text",
            Kind::Object,
            r#"{"format":{"type":"text"}}"#,
            "What the answer must look like; enforced.",
        ),
        honoured(
            "tools",
            Kind::List(0, 128),
            "[]",
            "Functions that the model may call; built-in tools are refused.",
        ),
        honoured(
            "tool_choice",
            Kind::Mixed("\"none\", \"auto\", \"required\" or an object that names a function"),
            "\"none\"",
            "`required` and a named function are enforced.",
        ),
        honoured("parallel_tool_calls", Kind::Bool, "true", "false: at most one call in an answer."),
        honoured(
            "include",
            Kind::List(0, 1),
            r#"["message.output_text.logprobs"]"#,
            "`message.output_text.logprobs` only.",
        ),
        honoured(
            "top_logprobs",
            Kind::Int(0, 20),
            "null",
            "So many alternatives to each token; only with `include` of logprobs.",
        ),
        honoured("metadata", Kind::Object, r#"{"a":"b"}"#, "Comes back in the response."),
        no_effect("user", Kind::Text, "\"u\"", ""),
        no_effect("safety_identifier", Kind::Text, "\"u\"", ""),
        no_effect(
            "prompt_cache_key",
            Kind::Text,
            "\"k\"",
            "Prompts that begin alike share their computation anyway.",
        ),
        neutral("store", &["false"], "false", "Nothing is stored; left out, it means false here."),
        neutral("background", &["false"], "false", ""),
        neutral("truncation", &["\"disabled\""], "\"disabled\"", "A prompt is never cut."),
        neutral("service_tier", &["\"auto\"", "\"default\""], "\"auto\"", ""),
        honoured("reasoning", Kind::Object, "{}", "See below."),
        neutral("prompt_cache_retention", &["\"in_memory\""], "\"in_memory\"", ""),
        neutral("priority", &["0"], "0", ""),
        refused("previous_response_id", "\"resp_1\"", "nothing is stored: send the conversation as input"),
        refused("conversation", "\"conv_1\"", "nothing is stored: send the conversation as input"),
        refused("context_management", "[{\"type\":\"compaction\"}]", "a prompt is never cut"),
        refused("max_tool_calls", "1", "there are no built-in tools"),
        refused("prompt", r#"{"id":"p"}"#, "there are no stored prompts"),
        refused("prompt_cache_options", "{}", ""),
        refused("moderation", r#"{"model":"m"}"#, ""),
    ]],
};

/// A message.
pub const MESSAGE: Table = Table {
    title: "a `message` item",
    fields: &[&[
        required("role", Kind::OneOf(&["user", "assistant", "system", "developer"]), "\"user\"", ""),
        required(
            "content",
            Kind::Mixed("a string or an array of text parts"),
            "\"Hi\"",
            "Parts are joined by line breaks. Images, audio and files are refused.",
        ),
        honoured("type", Kind::OneOf(&["message"]), "\"message\"", "May be left out."),
        no_effect("id", Kind::Text, "\"msg_1\"", "Clients copy it from a response."),
        no_effect(
            "status",
            Kind::OneOf(&["in_progress", "completed", "incomplete"]),
            "\"completed\"",
            "Clients copy it from a response.",
        ),
        neutral("phase", &[], "\"commentary\"", ""),
    ]],
};

/// A part of a message.
pub const TEXT_PART: Table = Table {
    title: "a part of a message",
    fields: &[&[
        required(
            "type",
            Kind::OneOf(&["input_text", "output_text"]),
            "\"input_text\"",
            "Other types are refused.",
        ),
        required("text", Kind::Text, "\"Hi\"", ""),
        no_effect("annotations", Kind::List(0, 0), "[]", "Clients copy it from a response."),
        no_effect("logprobs", Kind::List(0, usize::MAX), "[]", "Clients copy it from a response."),
        neutral("prompt_cache_breakpoint", &[], "{}", ""),
    ]],
};

/// A call that the model made.
pub const FUNCTION_CALL: Table = Table {
    title: "a `function_call` item",
    fields: &[&[
        required("type", Kind::OneOf(&["function_call"]), "\"function_call\"", ""),
        required("call_id", Kind::Text, "\"call_1\"", ""),
        required("name", Kind::Text, "\"f\"", ""),
        required("arguments", Kind::Text, "\"{}\"", "A JSON object as text."),
        no_effect("id", Kind::Text, "\"fc_1\"", "Clients copy it from a response."),
        no_effect(
            "status",
            Kind::OneOf(&["in_progress", "completed", "incomplete"]),
            "\"completed\"",
            "Clients copy it from a response.",
        ),
        neutral("caller", &[], "{}", ""),
        neutral("namespace", &[], "\"n\"", ""),
    ]],
};

/// What a call gave.
pub const FUNCTION_CALL_OUTPUT: Table = Table {
    title: "a `function_call_output` item",
    fields: &[&[
        required("type", Kind::OneOf(&["function_call_output"]), "\"function_call_output\"", ""),
        required("call_id", Kind::Text, "\"call_1\"", "The `call_id` of an earlier call."),
        required("output", Kind::Mixed("a string or an array of text parts"), "\"12\"", ""),
        no_effect("id", Kind::Text, "\"fco_1\"", "Clients copy it from a response."),
        no_effect(
            "status",
            Kind::OneOf(&["in_progress", "completed", "incomplete"]),
            "\"completed\"",
            "Clients copy it from a response.",
        ),
        honoured("name", Kind::Text, "\"f\"", "The function; must be the one of the call."),
        neutral("caller", &[], "{}", ""),
        neutral("namespace", &[], "\"n\"", ""),
    ]],
};

/// What the model thought.
pub const REASONING_ITEM: Table = Table {
    title: "a `reasoning` item",
    fields: &[&[
        required("type", Kind::OneOf(&["reasoning"]), "\"reasoning\"", ""),
        honoured(
            "content",
            Kind::List(0, 64),
            "[]",
            "Given to the chat template with the message or call that follows.",
        ),
        no_effect("id", Kind::Text, "\"rs_1\"", "Clients copy it from a response."),
        no_effect("summary", Kind::List(0, 0), "[]", "There is none."),
        no_effect(
            "status",
            Kind::OneOf(&["in_progress", "completed", "incomplete"]),
            "\"completed\"",
            "Clients copy it from a response.",
        ),
        neutral("encrypted_content", &[], "\"x\"", ""),
    ]],
};

/// `text`.
pub const TEXT: Table = Table {
    title: "`text`",
    fields: &[&[
        honoured("format", Kind::Object, r#"{"type":"text"}"#, ""),
        neutral("verbosity", &["\"medium\""], "\"medium\"", ""),
    ]],
};

/// `text.format`.
pub const TEXT_FORMAT: Table = Table {
    title: "`text.format`",
    fields: &[&[
        required("type", Kind::OneOf(&["text", "json_object", "json_schema"]), "\"text\"", ""),
        honoured("name", Kind::Text, "\"n\"", "For type `json_schema`."),
        honoured(
            "schema",
            Kind::Mixed("a JSON schema"),
            r#"{"type":"integer"}"#,
            "For type `json_schema`. A keyword that cannot be enforced is refused, with its place.",
        ),
        honoured("strict", Kind::Bool, "true", "The schema is enforced in either case."),
        no_effect("description", Kind::Text, "\"d\"", ""),
    ]],
};

/// A tool.
pub const TOOL: Table = Table {
    title: "`tools[i]` of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["function"]), "\"function\"", "Built-in tools are refused."),
        required("name", Kind::Text, "\"f\"", "Letters, digits, `_` and `-`; at most 64."),
        honoured("description", Kind::Text, "\"d\"", "Given to the model."),
        honoured(
            "parameters",
            Kind::Object,
            r#"{"type":"object","properties":{}}"#,
            "Given to the model; enforced for `required` and named calls, and where `strict`.",
        ),
        honoured("strict", Kind::Bool, "true", "The arguments follow the schema."),
        neutral("output_schema", &[], "{}", ""),
        neutral("defer_loading", &["false"], "false", ""),
        neutral("allowed_callers", &[], "[]", ""),
    ]],
};

/// A choice by name.
pub const TOOL_CHOICE: Table = Table {
    title: "`tool_choice` of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["function"]), "\"function\"", ""),
        required("name", Kind::Text, "\"f\"", "One of `tools`."),
    ]],
};

/// `reasoning`.
pub const REASONING: Table = Table {
    title: "`reasoning`",
    fields: &[&[
        neutral("effort", &["\"medium\""], "\"medium\"", ""),
        neutral("summary", &[], "\"auto\"", ""),
        neutral("generate_summary", &[], "\"auto\"", ""),
        neutral("mode", &[], "\"auto\"", ""),
        neutral("context", &["\"auto\""], "\"auto\"", ""),
    ]],
};

/// `stream_options`.
pub const STREAM_OPTIONS: Table = Table {
    title: "`stream_options` of /v1/responses",
    fields: &[&[neutral("include_obfuscation", &["false"], "false", "")]],
};
