//! Tools: requests read, conversations rendered, calls found in streams, calls forced by grammars.

mod grammar_support;
mod tool_support;

use grammar_support::{BYTES, accepts};
use serde_json::{Value, json};
use tessera_engine::grammar::GrammarError;
use tessera_engine::template::{JinjaTemplate, Message, RenderOptions};
use tessera_engine::tools::{
    CallIds, Tool, ToolChoice, ToolEvent, ToolFormat, ToolListing, ToolParser, ToolSupport, conversation,
};
use tool_support::{FORMATS, run, summary, tools, written};

const CALL: &str = r#"{"name": "weather", "arguments": {"city": "Köln"}}"#;

fn cases() -> Vec<(ToolFormat, String, &'static str)> {
    use ToolFormat::{Generic, Hermes, Llama3, Mistral};
    vec![
        (Hermes, "Just text < and <tool".into(), r#"T"Just text < and <tool""#),
        (Hermes, format!("<tool_call>\n{CALL}\n</tool_call>"), r#"C0:weather {"city": "Köln"} ."#),
        (Hermes, format!("I look.\n\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{{\"arguments\": {{}}, \"name\": \"now\"}}</tool_call>\n"),
            r#"T"I look." C0:weather {"city": "Köln"} . C1:now {} ."#),
        (Hermes, format!("<tool_call>{CALL}"), r#"C0:weather {"city": "Köln"} ."#),
        (Hermes, format!("<tool_call>{CALL}</tool_"), r#"C0:weather {"city": "Köln"} ."#),
        (Hermes, format!("<tool_call>{CALL}</tool_call> after"), r#"C0:weather {"city": "Köln"} . T" after""#),
        (Hermes, format!("<tool_call>{CALL}, what"), r#"C0:weather {"city": "Köln"} . M"," T" what""#),
        (Hermes, "<tool_call>\nno JSON".into(), r#"M"<tool_call>\nn" T"o JSON""#),
        (Hermes, "a <tool_call>{\"name\": \"nope\", \"arguments\": {}}</tool_call>".into(),
            r#"T"a" M" <tool_call>{\"name\": \"nope\"" T", \"arguments\": {}}</tool_call>""#),
        (Hermes, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": tru!}}".into(),
            r#"C0:weather {"city": tru I M"!" T"}}""#),
        (Hermes, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"ci".into(), r#"C0:weather {"ci I"#),
        (Hermes, "<tool_call>{\"name\": \"weather\"".into(), r#"M"<tool_call>{\"name\": \"weather\"""#),
        (Hermes, "<tool_call>{\"name\": \"now\"}</tool_call>".into(), "C0:now {} ."),
        (Llama3, r#"{"name": "weather", "parameters": {"city": "a"}}"#.into(), r#"C0:weather {"city": "a"} ."#),
        (Llama3, r#"<|python_tag|>{"name": "weather", "parameters": {"city": "a"}}; {"name": "now", "parameters": {}}"#.into(),
            r#"C0:weather {"city": "a"} . C1:now {} ."#),
        (Llama3, r#"{"type": "function", "name": "now", "parameters": {}}"#.into(), "C0:now {} ."),
        (Llama3, r#"{"answer": 42, "name": "x"}"#.into(), r#"T"{\"answer\": 42, \"name\": \"x\"}""#),
        (Llama3, "<|python_tag|>print(1)".into(), r#"M"<|python_tag|>p" T"rint(1)""#),
        (Llama3, "Hello {\"name\": 1}".into(), r#"T"Hello {\"name\": 1}""#),
        (Generic, format!("\n{CALL}\n{{\"name\": \"now\", \"arguments\": {{}}}}\n"), r#"C0:weather {"city": "Köln"} . C1:now {} ."#),
        (Generic, "[1, 2]".into(), r#"T"[1, 2]""#),
        (Generic, "{\"name\": \"other\"}".into(), r#"M"{\"name\": \"other\"" T"}""#),
        (Generic, format!("{CALL} and so on"), r#"C0:weather {"city": "Köln"} . M" a" T"nd so on""#),
        (Generic, "".into(), ""),
        (Generic, "  ".into(), r#"T"  ""#),
        (Mistral, format!("[TOOL_CALLS][{CALL}, {{\"name\": \"now\", \"arguments\": {{}}}}]"), r#"C0:weather {"city": "Köln"} . C1:now {} ."#),
        (Mistral, format!("Ok. [TOOL_CALLS] [{CALL}]"), r#"T"Ok." C0:weather {"city": "Köln"} ."#),
        (Mistral, "[TOOL_CALLS]weather[ARGS]{\"city\": {\"x\": []}}[TOOL_CALLS]now[CALL_ID]abc[ARGS]{}".into(),
            r#"C0:weather {"city": {"x": []}} . C1:now {} ."#),
        (Mistral, "[TOOL_CALLS]other[ARGS]{}".into(), r#"M"[TOOL_CALLS]other[ARGS]{" T"}""#),
        (Mistral, "[TOOL".into(), r#"T"[TOOL""#),
        (Mistral, "[TOOL_CALLS]wea".into(), r#"M"[TOOL_CALLS]wea""#),
    ]
}

#[test]
fn calls_are_found_whatever_the_cut() {
    for (format, text, expected) in cases() {
        let whole = run(format, &[&text]);
        assert_eq!(summary(&whole), expected, "{format:?} {text:?}");
        for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            assert_eq!(run(format, &[&text[..at], &text[at..]]), whole, "{format:?} {text:?} cut at {at}");
        }
        let chars: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(run(format, &chars.iter().map(String::as_str).collect::<Vec<_>>()), whole, "{text:?}");
    }
}

#[test]
fn arguments_are_handed_on_while_they_are_written() {
    let mut parser = ToolParser::new(ToolFormat::Hermes, tools(), CallIds::new(3));
    assert_eq!(parser.push("<tool_call>{\"name\": \"weather\", \"arguments\": "), []);
    let events = parser.push("{\"ci");
    assert!(
        matches!(&events[..], [ToolEvent::Start { index: 0, .. }, ToolEvent::Arguments { text, .. }] if text == "{\"ci")
    );
    assert_eq!(parser.push("ty\""), [ToolEvent::Arguments { index: 0, text: "ty\"".into() }]);
    assert_eq!(parser.calls(), 1);
    let mut ids = CallIds::new(3);
    assert_ne!(ids.next_id(), ids.next_id());
    assert_eq!(CallIds::new(3).next_id(), CallIds::new(3).next_id());
}

#[test]
fn forced_calls_follow_the_schemas() {
    let one = || ("weather", json!({"city": "a"}));
    let none = || ("now", json!({}));
    let wrap = written;
    for format in FORMATS {
        let make = |choice: &ToolChoice, parallel: bool| {
            format.constraint(&BYTES, &tools(), choice, parallel).unwrap().unwrap()
        };
        let required = make(&ToolChoice::Required, true);
        for calls in [vec![one()], vec![none()], vec![none(), one(), one()]] {
            let text = wrap(format, &calls);
            assert!(accepts(&required, &text), "{format:?} {text}");
            // What the grammar lets through, the parser reads.
            let found = run(format, &[&text]);
            let complete =
                found.iter().filter(|e| matches!(e, ToolEvent::End { complete: true, .. })).count();
            assert_eq!(complete, calls.len(), "{found:?}");
            assert!(!found.iter().any(|e| matches!(e, ToolEvent::Text { .. })), "{found:?}");
            // No beginning of it is a whole one.
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end) && calls.len() == 1) {
                assert!(!accepts(&required, &text[..end]), "{format:?} {}", &text[..end]);
            }
        }
        for (name, arguments) in [
            ("weather", json!({})),
            ("weather", json!({"city": 1})),
            ("weather", json!({"city": "a", "b": "c"})),
            ("weather", json!({"town": "a"})),
            ("other", json!({})),
            ("now", json!({"a": 1})),
        ] {
            // Between tags every value is a text.
            if format == ToolFormat::Tagged && arguments["city"] == 1 {
                continue;
            }
            let text = wrap(format, &[(name, arguments)]);
            assert!(!accepts(&required, &text), "{format:?} {text}");
        }
        assert!(!accepts(&required, "Hello") && !accepts(&required, ""));
        assert!(!accepts(&make(&ToolChoice::Required, false), &wrap(format, &[one(), one()])));
        let named = make(&ToolChoice::Named("now".into()), true);
        assert!(accepts(&named, &wrap(format, &[none()])) && !accepts(&named, &wrap(format, &[one()])));
        // `weather` is strict, so calls of it hold to the schema, and text is still free.
        let auto = make(&ToolChoice::Auto, true);
        for text in ["Hello <there> [x]", "", &wrap(format, &[one()]), &wrap(format, &[none(), one()])] {
            assert!(accepts(&auto, text), "{format:?} {text:?}");
        }
        assert!(accepts(&auto, &wrap(format, &[("now", json!({"a": 1}))])));
        assert!(!accepts(&auto, &wrap(format, &[("weather", json!({"town": "a"}))])), "{format:?}");
        let single = make(&ToolChoice::Auto, false);
        assert!(
            accepts(&single, &wrap(format, &[one()])) && !accepts(&single, &wrap(format, &[one(), one()])),
            "{format:?}"
        );
        assert!(format.constraint(&BYTES, &tools(), &ToolChoice::None, true).unwrap().is_none());
        assert!(format.constraint(&BYTES, &tools()[1..], &ToolChoice::Auto, true).unwrap().is_none());
    }
}

#[test]
fn a_schema_that_cannot_be_enforced_is_named_where_it_matters() {
    let tools = Tool::parse_list(&json!([
        {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "b", "parameters": {"type": "object", "properties": {"x": {"pattern": "(?=a)b"}}}}},
    ]))
    .unwrap();
    let error = ToolFormat::Hermes.constraint(&BYTES, &tools, &ToolChoice::Required, true).unwrap_err();
    let GrammarError::Schema { pointer, keyword, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (pointer.as_str(), keyword.as_str()),
        ("/tools/1/function/parameters/properties/x/pattern", "pattern")
    );
    assert!(ToolFormat::Hermes.constraint(&BYTES, &tools, &ToolChoice::Named("a".into()), true).is_ok());
    assert!(ToolFormat::Hermes.constraint(&BYTES, &tools, &ToolChoice::Auto, true).unwrap().is_none());
    // Definitions are found inside of each tool's own schema.
    let node = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["next"],
        "additionalProperties": false, "$defs": {"n": {"const": name}}}}})
    };
    let tools = Tool::parse_list(&json!([node("a"), node("b")])).unwrap();
    let constraint =
        ToolFormat::Generic.constraint(&BYTES, &tools, &ToolChoice::Required, true).unwrap().unwrap();
    assert!(accepts(&constraint, r#"{"name": "b", "arguments": {"next": "b"}}"#));
    assert!(!accepts(&constraint, r#"{"name": "b", "arguments": {"next": "a"}}"#));
}

#[test]
fn requests_are_read_strictly() {
    for (value, pointer) in [
        (json!({}), "/tools"),
        (json!([1]), "/tools/0"),
        (json!([{"type": "code"}]), "/tools/0/type"),
        (json!([{"type": "function"}]), "/tools/0/function"),
        (json!([{"type": "function", "function": {"name": ""}}]), "/tools/0/function/name"),
        (json!([{"type": "function", "function": {"name": "a b"}}]), "/tools/0/function/name"),
        (
            json!([{"type": "function", "function": {"name": "a", "parameters": []}}]),
            "/tools/0/function/parameters",
        ),
        (json!([{"type": "function", "function": {"name": "a", "extra": 1}}]), "/tools/0/function/extra"),
        (
            json!([{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "a"}}]),
            "/tools/1/function/name",
        ),
    ] {
        assert_eq!(Tool::parse_list(&value).unwrap_err().pointer, pointer, "{value}");
    }
    let named = json!({"type": "function", "function": {"name": "now"}});
    assert_eq!(ToolChoice::parse(&named, &tools()), Ok(ToolChoice::Named("now".into())));
    assert_eq!(ToolChoice::parse(&json!("required"), &tools()), Ok(ToolChoice::Required));
    assert_eq!(ToolChoice::parse(&named, &[]).unwrap_err().pointer, "/tool_choice/function/name");
    assert!(
        ToolChoice::parse(&json!("any"), &tools()).is_err()
            && ToolChoice::parse(&json!("required"), &[]).is_err()
    );
}

fn knowing(format: ToolFormat) -> ToolSupport {
    ToolSupport { format, template_knows: true, listing: ToolListing::Variable }
}

fn unknowing(format: ToolFormat) -> ToolSupport {
    ToolSupport { format, template_knows: false, listing: ToolListing::Text }
}

fn dialogue() -> Vec<Message> {
    serde_json::from_value(json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Köln\"}"}},
            {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    ]))
    .unwrap()
}

#[test]
fn templates_that_know_tools_get_objects() {
    let source = "{%- if tools %}{{ tools[0].function.name }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }} {{ c.id }}</tool_call>{% endfor %}{{ m.content or '' }}{% endfor %}";
    let template = JinjaTemplate::new(source, "", "").unwrap();
    let support = ToolSupport::detect(Some(source), BYTES.tokenizer());
    assert_eq!(support, knowing(ToolFormat::Hermes));
    let (messages, value) = conversation(support, &dialogue(), &tools()).unwrap();
    let options = RenderOptions { tools: value, ..RenderOptions::answer() };
    let text = template.render(&messages, &options).unwrap();
    assert!(text.starts_with("weather"), "{text}");
    assert!(
        text.contains("<tool_call>{\"city\": \"Köln\"} call_1</tool_call><tool_call>{} call_2</tool_call>"),
        "{text}"
    );
    // Many templates fail on a null.
    assert_eq!(messages[2].content.as_deref(), Some(""));
    let mistral = knowing(ToolFormat::Mistral);
    let (messages, _) = conversation(mistral, &dialogue(), &[]).unwrap();
    let id = messages[2].extra["tool_calls"][0]["id"].as_str().unwrap();
    assert_eq!((id.len(), messages[3].extra["tool_call_id"].as_str()), (9, Some(id)));
    for (source, format) in [
        ("{{ tools }} [TOOL_CALLS]", ToolFormat::Mistral),
        ("{{ tools }} <|python_tag|>", ToolFormat::Llama3),
        ("{{ tools }}", ToolFormat::Generic),
        ("{{ messages }}", ToolFormat::Generic),
    ] {
        assert_eq!(ToolSupport::detect(Some(source), BYTES.tokenizer()).format, format, "{source}");
    }
}

#[test]
fn templates_that_do_not_know_tools_get_text() {
    let generic = unknowing(ToolFormat::Generic);
    let (messages, value) = conversation(generic, &dialogue(), &tools()).unwrap();
    assert_eq!(value, None);
    let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    let content = |i: usize| messages[i].content.as_deref().unwrap();
    assert!(content(0).starts_with("Be brief.\n\nYou may call tools."), "{}", content(0));
    assert!(
        content(0).contains("\n{\"name\": \"weather\", \"description\": \"The weather\", \"parameters\": {")
    );
    assert_eq!(
        content(2),
        "{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n{\"name\": \"now\", \"arguments\": {}}"
    );
    assert_eq!(content(3), "Result of weather: rain\nResult of now: noon");
    assert!(messages[2].extra.is_empty());
    // What the model is shown as its own calls is what the parser reads.
    assert_eq!(
        summary(&run(ToolFormat::Generic, &[content(2)])),
        r#"C0:weather {"city": "Köln"} . C1:now {} ."#
    );
    let hermes = unknowing(ToolFormat::Hermes);
    let (messages, _) = conversation(hermes, &dialogue()[1..], &tools()).unwrap();
    assert!(
        messages[0].role == "system"
            && messages[0].content.as_deref().unwrap().contains("<tools>\n{\"type\": \"function\"")
    );
    assert_eq!(
        messages[3].content.as_deref(),
        Some("<tool_response>\nrain\n</tool_response>\n<tool_response>\nnoon\n</tool_response>")
    );
    let plain = [Message::new("user", "Hi")];
    assert_eq!(conversation(generic, &plain, &[]).unwrap(), (plain.to_vec(), None));
}

#[test]
fn broken_loops_are_refused() {
    let generic = unknowing(ToolFormat::Generic);
    let check = |messages: Value, pointer: &str| {
        let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
        assert_eq!(conversation(generic, &messages, &[]).unwrap_err().pointer, pointer);
    };
    check(json!([{"role": "tool", "content": "x"}]), "/messages/0/tool_call_id");
    check(json!([{"role": "tool", "content": "x", "tool_call_id": "y"}]), "/messages/0/tool_call_id");
    check(json!([{"role": "user", "tool_calls": [{}]}]), "/messages/0/tool_calls");
    check(
        json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}]),
        "/messages/0/tool_calls/0/function/arguments",
    );
    check(
        json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
        "/messages/0/tool_calls/0/id",
    );
}
