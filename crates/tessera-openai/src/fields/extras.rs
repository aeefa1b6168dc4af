//! Fields that are not OpenAI's: routers send them with every request, other servers' clients know them.

use super::{Field, Kind, Table, honoured, neutral, refused};
use tessera_engine::sampler::range;

/// Sampling, for everything that generates.
pub const SAMPLING: &[Field] = &[
    honoured(
        "top_k",
        Kind::Int(-1, u32::MAX as i64),
        "40",
        "Keep the K likeliest tokens; 0 and -1 keep all.",
    ),
    honoured(
        "min_p",
        Kind::of(range::MIN_P),
        "0.05",
        "Drop tokens less likely than this share of the likeliest.",
    ),
    honoured(
        "repetition_penalty",
        Kind::of(range::REPETITION_PENALTY),
        "1.1",
        "Divide the logits of tokens seen before. Default: the model's.",
    ),
    honoured(
        "stop_token_ids",
        Kind::List(0, 64),
        "[2]",
        "Token ids that end the answer, besides the model's own.",
    ),
    honoured(
        "ignore_eos",
        Kind::Bool,
        "false",
        "true: the model's own stop tokens and stop strings do not end the answer.",
    ),
    honoured(
        "include_stop_str_in_output",
        Kind::Bool,
        "false",
        "true: what ended the answer is part of its text.",
    ),
    honoured("no_stop_trim", Kind::Bool, "false", "Another name of `include_stop_str_in_output`."),
    honoured("skip_special_tokens", Kind::Bool, "true", "false: special tokens leave their text."),
];

/// Grammars, for everything that generates text.
pub const GRAMMAR: &[Field] = &[
    honoured(
        "structured_outputs",
        Kind::Object,
        r#"{"regex":"[ab]+"}"#,
        "A grammar for the answer, as vLLM has it.",
    ),
    honoured(
        "guided_json",
        Kind::Mixed("a JSON schema"),
        r#"{"type":"integer"}"#,
        "The same as a `json_schema` that is strict.",
    ),
    honoured("guided_regex", Kind::Text, "\"[ab]+\"", "The same as `response_format` of type `regex`."),
    honoured(
        "guided_grammar",
        Kind::Text,
        r#""start: \"a\" | \"b\"""#,
        "The same as `response_format` of type `grammar`.",
    ),
    honoured("guided_choice", Kind::List(1, 1000), r#"["a","b"]"#, "The answer is one of these strings."),
    honoured("regex", Kind::Text, "\"[ab]+\"", "As SGLang has it: the same as `guided_regex`."),
    neutral("ebnf", &[], "\"root ::= x\"", "GBNF; write Lark in `guided_grammar`."),
    neutral("json_schema", &[], r#""{}""#, "As SGLang has it; use `response_format`."),
    neutral("guided_decoding_backend", &[], "\"xgrammar\"", "There is one."),
    neutral("guided_whitespace_pattern", &[], "\"[ ]?\"", ""),
    neutral("structural_tag", &[], "\"{}\"", ""),
];

/// vLLM's `structured_outputs`.
pub const STRUCTURED_OUTPUTS: Table = Table {
    title: "structured_outputs",
    fields: &[&[
        honoured(
            "json",
            Kind::Mixed("a JSON schema, as an object or a string"),
            r#"{"type":"integer"}"#,
            "A schema that is enforced.",
        ),
        honoured("regex", Kind::Text, "\"[ab]+\"", "A regular expression that the whole answer matches."),
        honoured("grammar", Kind::Text, r#""start: \"a\" | \"b\"""#, "A Lark grammar."),
        honoured("choice", Kind::List(1, 1000), r#"["a","b"]"#, "The answer is one of these strings."),
        neutral("json_object", &["false"], "false", "Use `response_format`."),
        neutral("disable_fallback", &["false", "true"], "true", "There is none."),
        neutral("disable_any_whitespace", &["false"], "false", ""),
        neutral("disable_additional_properties", &["false"], "false", ""),
        neutral("whitespace_pattern", &[], "\"[ ]?\"", ""),
        neutral("structural_tag", &[], "\"{}\"", ""),
    ]],
};

/// Fields at whose neutral value nothing happens, for everything that generates.
pub const NEUTRAL: &[Field] = &[
    neutral("min_tokens", &["0"], "0", ""),
    neutral("priority", &["0"], "0", "Requests of all keys take turns."),
    neutral("return_hidden_states", &["false"], "false", ""),
    neutral("return_token_ids", &["false"], "false", ""),
    neutral("return_tokens_as_token_ids", &["false"], "false", ""),
    neutral("spaces_between_special_tokens", &["true"], "true", ""),
    neutral("use_beam_search", &["false"], "false", ""),
    neutral("length_penalty", &["1"], "1.0", "For beam search."),
    neutral("early_stopping", &["false"], "false", "For beam search."),
    neutral("truncate_prompt_tokens", &[], "100", "A prompt is never cut."),
    neutral("prompt_logprobs", &[], "1", "Use `echo` with `logprobs` of `/v1/completions`."),
    neutral("allowed_token_ids", &[], "[1]", "Use a grammar or `logit_bias`."),
    neutral("bad_words", &["[]"], "[]", "Use `logit_bias`."),
    neutral("logits_processors", &["[]"], "[]", ""),
    neutral("lora_path", &[], "\"x\"", ""),
    neutral("session_params", &[], "{}", ""),
    neutral("rid", &[], "\"x\"", "Use the header `x-request-id`."),
    neutral("request_id", &[], "\"x\"", "Use the header `x-request-id`."),
    neutral("cache_salt", &[], "\"x\"", ""),
    neutral("kv_transfer_params", &[], "{}", ""),
    neutral("vllm_xargs", &[], "{}", ""),
    neutral("custom_params", &[], "{}", ""),
    neutral("cache_prompt", &["true"], "true", "As llama.cpp has it."),
];

/// Chat only.
pub const CHAT: &[Field] = &[
    honoured("add_generation_prompt", Kind::Bool, "true", "false: the prompt ends with the last message."),
    honoured(
        "continue_final_message",
        Kind::Bool,
        "false",
        "true: the answer continues the last message, which must be the assistant's.",
    ),
    honoured(
        "chat_template_kwargs",
        Kind::Object,
        "{}",
        "Variables of a Jinja chat template, such as `enable_thinking`; one that the template does not mention is refused.",
    ),
    honoured("separate_reasoning", Kind::Bool, "true", "false: what the model thinks stays in `content`."),
    honoured(
        "include_reasoning",
        Kind::Bool,
        "true",
        "false: what the model thinks is left out of the response.",
    ),
    neutral("stream_reasoning", &["true"], "true", ""),
    neutral("add_special_tokens", &["false"], "false", "The chat template has them all."),
    neutral("echo", &["false"], "false", ""),
    neutral("best_of", &["1"], "1", ""),
    neutral("documents", &[], "[]", ""),
    neutral("chat_template", &[], "\"{{ messages }}\"", "The model's own is used."),
    neutral("chat_template_content_format", &["\"auto\"", "\"string\""], "\"auto\"", ""),
    neutral("mm_processor_kwargs", &[], "{}", ""),
    refused("input_ids", "[1]", "use /v1/completions"),
];
