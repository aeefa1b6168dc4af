//! `POST /v1/responses`, and the objects inside it.

use super::{Kind, Table, chat, honoured, neutral, no_effect, refused, required};
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
            "Functions and `custom` tools that the model may call; see below.",
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
            Kind::List(0, 16),
            r#"["message.output_text.logprobs","reasoning.encrypted_content"]"#,
            "`message.output_text.logprobs`. OpenAI's other words are taken: an answer has nothing that they name, and what was thought comes unencrypted.",
        ),
        honoured(
            "top_logprobs",
            Kind::Int(0, 20),
            "null",
            "So many alternatives to each token; only with `include` of logprobs.",
        ),
        honoured("metadata", Kind::Object, r#"{"a":"b"}"#, "Comes back in the response."),
        no_effect("user", Kind::Text, "\"u\"", ""),
        no_effect(
            "client_metadata",
            Kind::Object,
            r#"{"session_id":"s"}"#,
            "What the Codex command line says of itself.",
        ),
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
        no_effect("prompt_cache_retention", Kind::Text, "\"24h\"", ""),
        no_effect("prompt_cache_options", Kind::Object, "{}", ""),
        no_effect("max_tool_calls", Kind::Int(1, i64::MAX), "1", "Of built-in tools, and there are none."),
        neutral("priority", &["0"], "0", ""),
        refused("previous_response_id", "\"resp_1\"", "nothing is stored: send the conversation as input"),
        refused("conversation", "\"conv_1\"", "nothing is stored: send the conversation as input"),
        refused("context_management", "[{\"type\":\"compaction\"}]", "a prompt is never cut"),
        refused("prompt", r#"{"id":"p"}"#, "there are no stored prompts"),
        refused("moderation", r#"{"model":"m"}"#, ""),
    ]],
};

const STATUS: Kind = Kind::OneOf(&["in_progress", "completed", "incomplete"]);

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
        no_effect("status", STATUS, "\"completed\"", "Clients copy it from a response."),
        no_effect(
            "phase",
            Kind::OneOf(&["commentary", "final_answer"]),
            "\"commentary\"",
            "No model here was trained on it.",
        ),
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
        no_effect("prompt_cache_breakpoint", Kind::Object, "{}", chat::CACHED),
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
        no_effect("status", STATUS, "\"completed\"", "Clients copy it from a response."),
        neutral("caller", &[], "{}", ""),
        honoured("namespace", Kind::Text, "\"n\"", ""),
    ]],
};

/// A call of a `custom` tool.
pub const CUSTOM_TOOL_CALL: Table = Table {
    title: "a `custom_tool_call` item",
    fields: &[&[
        required("type", Kind::OneOf(&["custom_tool_call"]), "\"custom_tool_call\"", ""),
        required("call_id", Kind::Text, "\"call_1\"", ""),
        required("name", Kind::Text, "\"f\"", ""),
        required("input", Kind::Text, "\"x\"", ""),
        no_effect("id", Kind::Text, "\"ctc_1\"", "Clients copy it from a response."),
        no_effect("status", STATUS, "\"completed\"", "Clients copy it from a response."),
        neutral("caller", &[], "{}", ""),
        honoured("namespace", Kind::Text, "\"n\"", ""),
    ]],
};

/// What a call gave.
pub const CALL_OUTPUT: Table = Table {
    title: "a `function_call_output` or `custom_tool_call_output` item",
    fields: &[&[
        required(
            "type",
            Kind::OneOf(&["function_call_output", "custom_tool_call_output"]),
            "\"function_call_output\"",
            "",
        ),
        required("call_id", Kind::Text, "\"call_1\"", "The `call_id` of an earlier call."),
        required("output", Kind::Mixed("a string or an array of text parts"), "\"12\"", ""),
        no_effect("id", Kind::Text, "\"fco_1\"", "Clients copy it from a response."),
        no_effect("status", STATUS, "\"completed\"", "Clients copy it from a response."),
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
        no_effect("status", STATUS, "\"completed\"", "Clients copy it from a response."),
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

const TOOL_TYPE: &str = "See below for `custom` and `namespace`. OpenAI's other types cannot run here: with `tool_choice` `auto` or `none` such a tool is left out, which `notes` of the response says; refused otherwise.";

/// A tool.
pub const TOOL: Table = Table {
    title: "`tools[i]` of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["function"]), "\"function\"", TOOL_TYPE),
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

/// A tool that takes a text.
pub const CUSTOM_TOOL: Table = Table {
    title: "a `custom` tool of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["custom"]), "\"custom\"", ""),
        required("name", Kind::Text, "\"f\"", "Letters, digits, `_` and `-`; at most 64."),
        honoured("description", Kind::Text, "\"d\"", "Given to the model."),
        honoured("format", Kind::Object, r#"{"type":"text"}"#, "What the text must look like; enforced."),
        neutral("defer_loading", &["false"], "false", ""),
        neutral("allowed_callers", &[], "[]", ""),
    ]],
};

/// What a `custom` tool takes.
pub const CUSTOM_FORMAT: Table = Table {
    title: "`format` of a `custom` tool",
    fields: &[&[
        required("type", Kind::OneOf(&["text", "grammar"]), "\"text\"", ""),
        honoured(
            "syntax",
            Kind::OneOf(&["regex", "lark"]),
            "\"regex\"",
            "A `lark` grammar whose rules lead back to themselves, or that says what a regular expression here cannot, is treated as OpenAI's own tools.",
        ),
        honoured("definition", Kind::Text, "\"[ab]+\"", ""),
    ]],
};

/// Tools under one name.
pub const NAMESPACE: Table = Table {
    title: "a `namespace` tool of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["namespace"]), "\"namespace\"", ""),
        required("name", Kind::Text, "\"n\"", "The model sees `n.f`; a call has `namespace` and `name`."),
        required("tools", Kind::List(0, 128), "[]", "Functions and `custom` tools."),
        no_effect("description", Kind::Text, "\"d\"", "Not given to the model: those of the tools are."),
        neutral("defer_loading", &["false"], "false", ""),
    ]],
};

/// A choice by name.
pub const TOOL_CHOICE: Table = Table {
    title: "`tool_choice` of /v1/responses",
    fields: &[&[
        required("type", Kind::OneOf(&["function", "custom"]), "\"function\"", ""),
        required("name", Kind::Text, "\"f\"", "One of `tools`; `n.f` for one of a namespace."),
    ]],
};

const SUMMARIES: &[&str] = &["auto", "concise", "detailed"];

/// `reasoning`.
pub const REASONING: Table = Table {
    title: "`reasoning`",
    fields: &[&[
        neutral("effort", &["\"medium\""], "\"medium\"", ""),
        no_effect(
            "summary",
            Kind::OneOf(SUMMARIES),
            "\"auto\"",
            "There is none: what was thought comes whole. The response says `null`.",
        ),
        no_effect("generate_summary", Kind::OneOf(SUMMARIES), "\"auto\"", "Older name of `summary`."),
        neutral("mode", &[], "\"auto\"", ""),
        neutral("context", &["\"auto\""], "\"auto\"", ""),
    ]],
};

/// `stream_options`.
pub const STREAM_OPTIONS: Table = Table {
    title: "`stream_options` of /v1/responses",
    fields: &[&[neutral("include_obfuscation", &["false"], "false", "")]],
};
