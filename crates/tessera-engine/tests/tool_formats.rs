//! The formats of calls that single families have: calls found in streams, and forced by grammars.

mod grammar_support;
mod tool_support;

use grammar_support::{BYTES, END, Random, accepts, allowed};
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::{GrammarConstraint, GrammarEnv, GrammarError};
use tessera_engine::template::{JinjaTemplate, Message, RenderOptions};
use tessera_engine::tokenizer::Tokenizer;
use tessera_engine::tools::{
    CallIds, Tool, ToolChoice, ToolEvent, ToolFormat, ToolListing, ToolParser, ToolSupport, conversation,
};
use tool_support::{FORMATS, run, summary, tools, written};

const KOELN: &str = r#"C0:weather {"city": "Köln"} ."#;

fn cases() -> Vec<(ToolFormat, &'static str, &'static str)> {
    use ToolFormat::{DeepSeekV3, DeepSeekV31, Llama4, MistralNamed, Phi4, Pythonic, Tagged};
    const V3: &str = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Köln\"}\n```<｜tool▁call▁end｜>";
    vec![
        (MistralNamed, "[TOOL_CALLS]weather[ARGS]{\"city\": \"Köln\"}", KOELN),
        (
            MistralNamed,
            "Ok.[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Köln\"}[TOOL_CALLS]now[ARGS]{}",
            r#"T"Ok." C0:weather {"city": "Köln"} . C1:now {} ."#,
        ),
        (MistralNamed, "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}}]", "C0:now {} ."),
        (MistralNamed, "[TOOL_CALLS]weather[ARGS]{\"ci", r#"C0:weather {"ci I"#),
        (
            Phi4,
            "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}]<|/tool_call|>",
            KOELN,
        ),
        (
            Phi4,
            "<|tool_call|>{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}<|/tool_call|><|tool_call|>{\"name\": \"now\", \"arguments\": {}}<|/tool_call|>",
            r#"C0:weather {"city": "Köln"} . C1:now {} ."#,
        ),
        (
            Phi4,
            "I look.<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}, {\"name\": \"now\", \"arguments\": {}}]",
            r#"T"I look." C0:now {} . C1:now {} ."#,
        ),
        (
            Phi4,
            "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|> so",
            r#"C0:now {} . T" so""#,
        ),
        (Phi4, "<|tool_call|>[{\"name\": \"other\"", r#"M"<|tool_call|>[{\"name\": \"other\"""#),
        (
            DeepSeekV31,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Köln\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            r#"C0:weather {"city": "Köln"} . C1:now {} ."#,
        ),
        (
            DeepSeekV31,
            "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}",
            r#"T"Let me see." C0:now {} ."#,
        ),
        (DeepSeekV3, V3, KOELN),
        (
            DeepSeekV3,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "C0:now {} . C1:now {} .",
        ),
        (
            DeepSeekV3,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>other\n```json\n{}\n```",
            r#"M"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>other\n```json\n{" T"}\n```""#,
        ),
        (DeepSeekV3, "<｜tool▁calls", r#"T"<｜tool▁calls""#),
        (DeepSeekV3, "A fence:\n```json\n{}\n```", r#"T"A fence:\n```json\n{}\n```""#),
        (
            Llama4,
            "<|python_start|>{\"name\": \"weather\", \"parameters\": {\"city\": \"Köln\"}}<|python_end|>",
            KOELN,
        ),
        (
            Llama4,
            "{\"name\": \"weather\", \"parameters\": {\"city\": \"Köln\"}}{\"name\": \"now\", \"parameters\": {}}",
            r#"C0:weather {"city": "Köln"} . C1:now {} ."#,
        ),
        (Llama4, "Hi {", r#"T"Hi {""#),
        (
            Tagged,
            "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>",
            KOELN,
        ),
        (
            Tagged,
            "I look.\n\n<tool_call>\n<function=weather>\n<parameter=city>\n\n{\"a\"} </param \n\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            r#"T"I look." C0:weather {"city": "\n{\"a\"} </param \n"} . C1:now {} ."#,
        ),
        (Tagged, "<function=weather><parameter=city>Köln</parameter></function>", KOELN),
        (Tagged, "<tool_call>\n<function=weather>\n<parameter=city>\nKö", "C0:weather I"),
        (
            Tagged,
            "<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n<parameter=city>\nb\n</parameter>",
            r#"C0:weather {"city": "a" I M"\n<parameter=city>" T"\nb\n</parameter>""#,
        ),
        (Tagged, "<tool_call>\n<function=weather>\nKöln", r#"C0:weather I M"\nK" T"öln""#),
        (Tagged, "<tool_call>\n<function=other>\n", r#"M"<tool_call>\n<function=other>" T"\n""#),
        (Tagged, "<tool_call>\n{\"name\"", r#"M"<tool_call>\n{" T"\"name\"""#),
        (Tagged, "<tool", r#"T"<tool""#),
        (Pythonic, "[weather(city='Köln')]", KOELN),
        (
            Pythonic,
            "<|python_start|>[weather(city=\"Köln\"), now()]<|python_end|>",
            r#"C0:weather {"city": "Köln"} . C1:now {} ."#,
        ),
        (
            Pythonic,
            "[ weather( city = \"K\\u00f6ln\" , days=[1, {'a': None}], x=True ) ]",
            r#"C0:weather {"city": "Köln", "days": [1,{"a":null}], "x": true} ."#,
        ),
        (Pythonic, "[1, 2]", r#"T"[1, 2]""#),
        (Pythonic, "[weather]", r#"T"[weather]""#),
        (Pythonic, "[other(a=1)]", r#"M"[other(" T"a=1)]""#),
        (Pythonic, "[weather(\"Köln\")]", r#"C0:weather I M"\"" T"Köln\")]""#),
        (Pythonic, "[weather(city=a b)]", r#"C0:weather I M"a b)" T"]""#),
        (Pythonic, "[weather(city=\"Kö", "C0:weather I"),
        (Pythonic, "[now()] done", r#"C0:now {} . T" done""#),
        (Pythonic, "Hi [now()]", r#"T"Hi [now()]""#),
    ]
}

#[test]
fn calls_are_found_whatever_the_cut() {
    for (format, text, expected) in cases() {
        let whole = run(format, &[text]);
        assert_eq!(summary(&whole), expected, "{format:?} {text:?}");
        for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            assert_eq!(run(format, &[&text[..at], &text[at..]]), whole, "{format:?} {text:?} cut at {at}");
        }
        let chars: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(run(format, &chars.iter().map(String::as_str).collect::<Vec<_>>()), whole, "{text:?}");
    }
}

/// A tool with arguments of every sort, some of which may be left out.
fn book() -> Vec<Tool> {
    Tool::parse_list(&json!([
        {"type": "function", "function": {"name": "book", "strict": true, "parameters": {
            "type": "object",
            "properties": {
                "note": {"type": "string", "maxLength": 4},
                "seats": {"type": "integer", "minimum": 1, "maximum": 9},
                "class": {"enum": ["first", "second"]},
                "days": {"type": "array", "items": {"enum": ["mo", "tu"]}, "maxItems": 2},
                "who": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
                "window": {"type": "boolean"},
            },
            "required": ["seats", "who"],
            "$defs": {"person": {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["age"]}},
        }}},
        {"type": "function", "function": {"name": "now"}},
    ]))
    .unwrap()
}

/// Text that the masks lead to, by chance.
fn walk(mut constraint: GrammarConstraint, random: &mut Random) -> String {
    let mut ids = Vec::new();
    for _ in 0..2000 {
        let choices = allowed(constraint.mask().unwrap());
        let (end, rest): (Vec<u32>, Vec<u32>) = choices.into_iter().partition(|id| *id == END);
        if !end.is_empty() && (rest.is_empty() || random.below(3) > 0) {
            return BYTES.tokenizer().decode(&ids);
        }
        // Letters are many; what ends something gets its chance.
        let letter = |id: &u32| {
            BYTES.tokenizer().token_bytes(*id).is_some_and(|b| b[0].is_ascii_alphanumeric() || b[0] > 127)
        };
        let marks: Vec<u32> = rest.iter().copied().filter(|id| !letter(id)).collect();
        let pool = if marks.is_empty() || random.below(2) == 0 { &rest } else { &marks };
        let id = pool[random.below(pool.len())];
        constraint.accept(id).unwrap();
        ids.push(id);
    }
    panic!("no end: {}", BYTES.tokenizer().decode(&ids));
}

#[test]
fn whatever_the_masks_let_through_is_valid_calls() {
    let tools = book();
    let validators: Vec<(String, jsonschema::Validator)> = tools
        .iter()
        .map(|tool| {
            let schema = tool.parameters.clone().unwrap_or(json!({"maxProperties": 0}));
            (tool.name.clone(), jsonschema::validator_for(&schema).unwrap())
        })
        .collect();
    for format in FORMATS {
        let mut random = Random(7);
        let mut seen = [0; 2];
        for (choice, parallel) in [
            (ToolChoice::Required, true),
            (ToolChoice::Required, false),
            (ToolChoice::Named("book".to_owned()), true),
        ] {
            let constraint = format.constraint(&BYTES, &tools, &choice, parallel).unwrap().unwrap();
            for _ in 0..12 {
                let text = walk(constraint.clone(), &mut random);
                let mut parser = ToolParser::new(format, tools.clone(), CallIds::new(1));
                let mut events = parser.push(&text);
                events.extend(parser.finish());
                let mut calls: Vec<(String, String)> = Vec::new();
                for event in events {
                    match event {
                        ToolEvent::Start { name, .. } => calls.push((name, String::new())),
                        ToolEvent::Arguments { text, .. } => calls.last_mut().unwrap().1.push_str(&text),
                        ToolEvent::End { complete, .. } => assert!(complete, "{format:?} {text}"),
                        ToolEvent::Text { text: piece, .. } => {
                            panic!("{format:?} {text}: {piece:?} is no call")
                        }
                    }
                }
                assert!(!calls.is_empty(), "{format:?} {text}");
                assert!(
                    calls.len() == 1 || (parallel && choice == ToolChoice::Required),
                    "{format:?} {text}"
                );
                for (name, arguments) in calls {
                    let arguments: Value =
                        serde_json::from_str(&arguments).unwrap_or_else(|e| panic!("{format:?} {text}: {e}"));
                    let at = validators.iter().position(|(other, _)| *other == name).unwrap();
                    assert!(validators[at].1.is_valid(&arguments), "{format:?} {text}: {arguments}");
                    assert!(choice != ToolChoice::Named("book".to_owned()) || name == "book");
                    seen[at] += 1;
                }
            }
        }
        assert!(seen.iter().all(|n| *n > 2), "{format:?} {seen:?}");
    }
}

#[test]
fn arguments_may_be_left_out_where_the_schema_says_so() {
    let who = json!({"age": 7});
    for format in FORMATS {
        let constraint = format.constraint(&BYTES, &book(), &ToolChoice::Required, true).unwrap().unwrap();
        for (arguments, fits) in [
            (json!({"seats": 2, "who": null}), true),
            (json!({"seats": 2, "who": who}), true),
            (json!({"note": "a {", "seats": 2, "who": who}), true),
            (json!({"note": "abcde", "seats": 2, "who": who}), false),
            (json!({"seats": 2, "class": "first", "days": ["mo"], "who": who, "window": true}), true),
            (json!({"seats": 2, "who": null, "window": false}), true),
            (json!({"seats": 0, "who": null}), false),
            (json!({"seats": 2}), false),
            (json!({"seats": 2, "class": "third", "who": null}), false),
            (json!({"seats": 2, "days": ["mo", "tu", "mo"], "who": null}), false),
        ] {
            let text = written(format, &[("book", arguments)]);
            assert_eq!(accepts(&constraint, &text), fits, "{format:?} {text}");
        }
    }
}

#[test]
fn what_a_format_cannot_hold_to_is_refused_by_name() {
    let tool = |parameters: Value| {
        Tool::parse_list(&json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": parameters}}])).unwrap()
    };
    let property = |schema: Value| json!({"type": "object", "properties": {"x": schema}});
    use ToolFormat::{Pythonic, Tagged};
    for (format, parameters, pointer) in [
        (Tagged, property(json!({"type": "string", "pattern": "^a+$"})), "/properties/x/pattern"),
        (Tagged, json!({"type": "object", "properties": {"a<b": {}}}), "/properties/a<b"),
        (
            Tagged,
            json!({"type": "object", "patternProperties": {"^a$": {}}, "additionalProperties": {"type": "null"}}),
            "/patternProperties",
        ),
        (Pythonic, json!({"type": "object", "properties": {"a-b": {}}}), "/properties/a-b"),
        (
            Pythonic,
            json!({"type": "object", "properties": {"a": {}}, "additionalProperties": true}),
            "/additionalProperties",
        ),
    ] {
        let error = format.constraint(&BYTES, &tool(parameters.clone()), &ToolChoice::Required, true);
        let Err(GrammarError::Schema { pointer: found, .. }) = error.map(|_| ()) else {
            panic!("{parameters}")
        };
        assert_eq!(found, format!("/tools/0/function/parameters{pointer}"), "{parameters}");
        // Nothing is promised of a tool that is not strict.
        let mut free = tool(parameters);
        free[0].strict = false;
        assert!(format.constraint(&BYTES, &free, &ToolChoice::Auto, true).unwrap().is_none());
        assert!(format.constraint(&BYTES, &free, &ToolChoice::Auto, false).is_ok());
    }
    assert!(Pythonic.constraint(&BYTES, &tools(), &ToolChoice::Required, true).is_ok());
}

/// Real tokenizers have the marks as single tokens, most of them special.
#[test]
fn marks_that_are_special_tokens_are_written_as_tokens() {
    let marks = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
    ];
    let mut json: Value = serde_json::from_slice(include_bytes!("data/tiny-tokenizer.json")).unwrap();
    for (i, mark) in marks.iter().enumerate() {
        let token = json!({"id": 259 + i, "content": mark, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false});
        json["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let json = json.to_string();
    let lookup = |name: &str| (name == "tokenizer.json").then(|| json.clone().into_bytes());
    let tokenizer = Arc::new(Tokenizer::from_files(lookup).unwrap());
    let env = GrammarEnv::new(tokenizer.clone(), 300, &[END]).unwrap();
    let accepts = |constraint: &GrammarConstraint, ids: &[u32]| {
        let mut constraint = constraint.clone();
        ids.iter().all(|id| {
            let fits = grammar_support::allows(constraint.mask().unwrap(), *id);
            fits && constraint.accept(*id).is_ok()
        }) && grammar_support::allows(constraint.mask().unwrap(), END)
    };
    for format in FORMATS {
        let make = |choice| format.constraint(&env, &tools(), &choice, true).unwrap().unwrap();
        let (required, auto) = (make(ToolChoice::Required), make(ToolChoice::Auto));
        let text = written(format, &[("now", json!({})), ("weather", json!({"city": "Köln"}))]);
        let ids = tokenizer.encode(&text, false).unwrap();
        let marked = ids.iter().any(|id| *id >= 259);
        let unmarked = [ToolFormat::Llama3, ToolFormat::Llama4, ToolFormat::Pythonic, ToolFormat::Generic];
        assert_eq!(marked, !unmarked.contains(&format), "{format:?}");
        assert!(accepts(&required, &ids), "{format:?} {text}");
        assert!(accepts(&auto, &ids), "{format:?} {text}");
        assert!(accepts(&auto, &tokenizer.encode("Hello", false).unwrap()), "{format:?}");
        let support = ToolSupport { format, template_knows: true, listing: ToolListing::Variable };
        assert_eq!(support.keeps_special(&tokenizer), marked, "{format:?}");
        // Spelled out, a special mark is other tokens.
        let spelled = tokenizer.encode_ordinary(&text).unwrap();
        assert!(!marked || !accepts(&required, &spelled), "{format:?}");
        if marked {
            let after = [tokenizer.encode("Hello ", false).unwrap(), ids].concat();
            assert!(accepts(&auto, &after) && !accepts(&required, &after), "{format:?}");
        }
    }
    let named =
        ToolFormat::MistralNamed.constraint(&env, &tools(), &ToolChoice::Required, true).unwrap().unwrap();
    let with_id = "[TOOL_CALLS]now[CALL_ID]abcdefgh1[ARGS]{}";
    assert!(accepts(&named, &tokenizer.encode(with_id, false).unwrap()));
}

fn dialogue() -> Vec<Message> {
    serde_json::from_value(json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Köln\"}"}},
            {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    ]))
    .unwrap()
}

#[test]
fn answers_hold_their_calls_where_the_template_would_lose_them() {
    let deepseek = "{%- for m in messages %}{%- if m['role'] == 'assistant' and m['content'] is none %}\
        {{ '<｜tool▁calls▁begin｜>' + m.tool_calls[0].function.arguments }}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}";
    let phi = "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message %}{{ message.content + '<|tool|>' + message['tools'] + '<|/tool|>' }}\
        {% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endif %}{% endfor %}";
    let calls = [("weather", json!({"city": "Köln"})), ("now", json!({}))];
    for (source, format, listing) in [
        (deepseek.to_owned(), ToolFormat::DeepSeekV31, ToolListing::Text),
        (format!("{deepseek}{{# ```json #}}"), ToolFormat::DeepSeekV3, ToolListing::Text),
        (phi.to_owned(), ToolFormat::Phi4, ToolListing::SystemMember),
    ] {
        let support = ToolSupport::detect(Some(&source), BYTES.tokenizer());
        assert_eq!(support, ToolSupport { format, template_knows: true, listing });
        let (messages, given) = conversation(support, &dialogue(), &tools()).unwrap();
        assert_eq!(given, None);
        let template = JinjaTemplate::new(&source, "", "").unwrap();
        let text = template.render(&messages, &RenderOptions::answer()).unwrap();
        let answer = format!("I look.{}", written(format, &calls));
        assert!(text.contains(&answer), "{text}");
        assert_eq!(text.matches(r#"{"type": "object", "properties": {"city""#).count(), 1, "{text}");
        assert!(text.contains("rain") && text.contains("noon"), "{text}");
        let role = if format == ToolFormat::Phi4 { "tool_response" } else { "tool" };
        assert_eq!(messages.iter().filter(|m| m.role == role).count(), 2, "{text}");
    }
    let unknown =
        ToolSupport { format: ToolFormat::DeepSeekV3, template_knows: false, listing: ToolListing::Text };
    let (messages, _) = conversation(unknown, &dialogue(), &tools()).unwrap();
    assert_eq!(messages.len(), 4);
    assert!(messages[2].content.as_deref().unwrap().ends_with("<｜tool▁calls▁end｜>"));
    assert!(messages[3].role == "user" && messages[3].content.as_deref().unwrap().contains("noon"));
}

#[test]
fn a_template_shows_its_format() {
    for (source, format, knows) in [
        ("{{ tools }}<tool_call><function=a><parameter=b>", ToolFormat::Tagged, true),
        ("{{ tools }}<tool_call>{}", ToolFormat::Hermes, true),
        ("{{ tools }}<tool_call>f<arg_key>", ToolFormat::Generic, false),
        ("{{ tools }}[TOOL_CALLS] [", ToolFormat::Mistral, true),
        ("{{ tools }}[TOOL_CALLS]f[ARGS]", ToolFormat::MistralNamed, true),
        ("{{ tools }}<|python_start|>{\"name\": f, \"parameters\": {}}", ToolFormat::Llama4, true),
        ("{{ tools }}<|python_start|>[func_name1(params_name1=params_value1)]", ToolFormat::Pythonic, true),
        ("{{ tools }}<|python_tag|>", ToolFormat::Llama3, true),
        ("{{ tools }}<|tool|><|/tool|>", ToolFormat::Phi4, true),
        ("<start_of_turn>{{ messages }}", ToolFormat::Generic, false),
    ] {
        let found = ToolSupport::detect(Some(source), BYTES.tokenizer());
        assert_eq!((found.format, found.template_knows), (format, knows), "{source}");
    }
}

/// Parts of the names of other people's templates, and the format that each shows.
const SHOWN: &[(&str, ToolFormat, bool)] = &[
    ("Qwen3-Coder", ToolFormat::Tagged, true),
    ("Qwen3.5", ToolFormat::Tagged, true),
    ("qwen3", ToolFormat::Hermes, true),
    ("Qwen3-0.6B", ToolFormat::Hermes, true),
    ("Qwen2.5", ToolFormat::Hermes, true),
    ("QwQ", ToolFormat::Hermes, true),
    ("Hermes-2-Pro", ToolFormat::Hermes, true),
    ("Mistral-Nemo", ToolFormat::Mistral, true),
    ("mistral_nemo", ToolFormat::Mistral, true),
    ("Mistral-Small-3.2", ToolFormat::MistralNamed, true),
    ("Ministral-3", ToolFormat::MistralNamed, true),
    ("Devstral", ToolFormat::MistralNamed, true),
    ("deepseek_v3", ToolFormat::DeepSeekV3, true),
    ("DeepSeek-R1-Distill", ToolFormat::DeepSeekV3, true),
    ("deepseek-r1", ToolFormat::DeepSeekV3, true),
    ("DeepSeek-V3.1", ToolFormat::DeepSeekV31, true),
    ("meta-llama-Llama-3.", ToolFormat::Llama3, true),
    ("gemma3", ToolFormat::Generic, false),
    ("gemma-2", ToolFormat::Generic, false),
    ("gpt-oss", ToolFormat::Generic, false),
    ("GLM-4.6", ToolFormat::Generic, false),
];

#[test]
#[ignore = "needs other people's templates: scripts/compare-templates fetches them and runs this"]
fn templates_of_packages_show_their_formats() {
    let path = std::env::var("TESSERA_TEMPLATES").expect("TESSERA_TEMPLATES names a golden file");
    let parts: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let options = RenderOptions { now: Some(0), ..RenderOptions::answer() };
    let (mut known, mut read_back) = (0, 0);
    for (name, source) in parts[0]["templates"].as_object().unwrap() {
        let Some((_, format, knows)) = SHOWN.iter().find(|(part, ..)| name.contains(part)) else { continue };
        known += 1;
        let source = source.as_str().unwrap();
        let support = ToolSupport::detect(Some(source), BYTES.tokenizer());
        assert_eq!((support.format, support.template_knows), (*format, *knows), "{name}");
        // Without the tools there is no example of a call, so every call in the prompt is the history's.
        let mut messages = dialogue();
        messages[1].content = None;
        let (messages, _) = conversation(support, &messages, &[]).unwrap();
        let text = match JinjaTemplate::new(source, "<s>", "</s>").unwrap().render(&messages, &options) {
            Ok(text) => text,
            // Llama's take one call in an answer.
            Err(error) if *format == ToolFormat::Llama3 && error.to_string().contains("single") => continue,
            Err(error) => panic!("{name}: {error}"),
        };
        assert!(text.contains("rain") && text.contains("noon"), "{name}: {text}");
        if [ToolFormat::Llama3, ToolFormat::Generic].contains(format) {
            continue;
        }
        let found = summary(&run(*format, &[&text]));
        assert!(found.contains(r#"C0:weather {"city": "Köln"} ."#), "{name}: {found}");
        assert!(found.contains("C1:now {} ."), "{name}: {found}");
        read_back += 1;
    }
    println!("{known} templates show the format that they should, the calls of {read_back} are read back");
    assert!(known > 0);
}
