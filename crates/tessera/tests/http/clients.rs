//! Requests as clients send them that were shut out once: each is answered, or refused for the right reason.

use super::server::{Server, home, jinja_beside};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

/// Takes messages at any place, and shows names.
const ANY_PLACE: &str = "{% for m in messages %}<{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}>{{ m.content }}{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";

fn chat(extra: Value) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    with(json!({"model": "m", "max_tokens": 2, "temperature": 0, "messages": messages}), extra)
}

fn response(extra: Value) -> Value {
    with(json!({"model": "m", "max_output_tokens": 2, "temperature": 0, "input": "hi"}), extra)
}

fn with(mut body: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

#[test]
fn what_clients_add_is_answered() {
    let server = Server::start(&[]);
    let (hi, bye) = (json!({"role": "user", "content": "hi"}), json!({"role": "user", "content": "bye"}));
    let after = |answer: Value| json!({"messages": [hi, answer, bye]});
    let cached = json!({"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}});
    for extra in [
        json!({"messages": [{"role": "user", "name": "user", "content": "hi"}]}),
        after(json!({"role": "assistant", "name": "helper", "content": "hello"})),
        after(json!({"role": "assistant", "content": "hello", "reasoning": "I greet."})),
        after(json!({"role": "assistant", "content": "hello", "reasoning": null, "unknown": null})),
        after(
            json!({"role": "assistant", "content": "hello", "provider_specific_fields": {"refusal": null}}),
        ),
        json!({"messages": [{"role": "system", "content": [cached]}, hi]}),
        json!({"stop": []}),
    ] {
        let reply = server.post(CHAT, &chat(extra.clone()));
        assert_eq!(reply.status, 200, "{extra}: {}", reply.body);
    }
    for extra in [
        json!({"client_metadata": {"session": "s"}}),
        json!({"reasoning": {"summary": "auto"}}),
        json!({"store": false, "include": ["reasoning.encrypted_content"]}),
    ] {
        let reply = server.post(RESPONSES, &response(extra.clone()));
        assert_eq!(reply.status, 200, "{extra}: {}", reply.body);
    }
    let differ =
        after(json!({"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}));
    server.post(CHAT, &chat(differ)).refused(400, Some("messages[1].reasoning"));
}

#[test]
fn a_number_that_is_too_large_is_told_the_range() {
    let server = Server::start(&[]);
    for (name, value) in [("seed", json!(9_223_372_036_854_775_808_u64)), ("max_tokens", json!(1e19))] {
        let error = server.post(CHAT, &chat(json!({name: value}))).refused(400, Some(name));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("to 9223372036854775807"), "{message}");
    }
    let error = server
        .post(CHAT, &chat(json!({"mm_processor_kwargs": {}})))
        .refused(400, Some("mm_processor_kwargs"));
    assert!(error["message"].as_str().unwrap().ends_with("accepted: null"), "{error}");
}

#[test]
fn the_template_that_has_a_place_for_the_messages_is_used() {
    let user = json!({"role": "user", "content": "hi"});
    let two = json!([system("Be kind."), system("Be brief."), user]);
    let late = json!([user, {"role": "assistant", "content": "hello"}, system("Be brief."), user]);
    let home_with_both = home(2048);
    jinja_beside(&home_with_both, ANY_PLACE);
    let server = Server::of(home_with_both, &["m"], &[]);
    let count = |messages: &Value| {
        server.post(CHAT, &chat(json!({"messages": messages}))).ok()["usage"]["prompt_tokens"]
            .as_u64()
            .unwrap()
    };
    // A byte is a token.
    assert_eq!(count(&two), "<system>Be kind.<system>Be brief.<user>hi<assistant>".len() as u64);
    assert_eq!(count(&late), "<user>hi<assistant>hello<system>Be brief.<user>hi<assistant>".len() as u64);
    let input = json!([{"role": "developer", "content": "a"}, {"role": "developer", "content": "b"}, user]);
    let tokens =
        server.post(RESPONSES, &response(json!({"input": input}))).ok()["usage"]["input_tokens"].clone();
    assert_eq!(tokens, "<system>a<system>b<user>hi<assistant>".len());
    drop(server);
    // Where neither can, the refusal stays, and names the message.
    for beside in [None, Some("{{ messages[0].content }}{{ messages[1].content }}")] {
        let home = home(2048);
        beside.iter().for_each(|template| jinja_beside(&home, template));
        let server = Server::of(home, &["m"], &[]);
        server.post(CHAT, &chat(json!({"messages": late}))).refused(400, Some("messages[2].role"));
        server.post(CHAT, &chat(json!({"messages": [system("Be kind."), user]}))).ok();
    }
}

#[test]
fn a_tool_that_cannot_run_is_left_out_and_the_response_says_so() {
    let server = Server::start(&[]);
    let function =
        json!({"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}});
    let lark = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"(\" start? \")\""});
    let tools = json!([{"type": "web_search"}, function, {"type": "custom", "name": "p", "format": lark}]);
    let body = server.post(RESPONSES, &response(json!({"tools": tools}))).ok();
    let notes = body["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().starts_with("tools[0].type: \"web_search\""), "{body}");
    assert!(notes[1].as_str().unwrap().starts_with("tools[2].format.definition: "), "{body}");
    assert_eq!(
        (notes.len(), body["tools"].as_array().unwrap().len(), &body["tools"][0]["name"]),
        (2, 1, &json!("f"))
    );
    assert!(server.post(RESPONSES, &response(json!({"tools": [function]}))).ok().get("notes").is_none());
    let forced = json!({"tools": tools, "tool_choice": "required"});
    server.post(RESPONSES, &response(forced)).refused(400, Some("tools[0].type"));
}

/// As coding agents describe their patches: lines of a text, told by rules that do not lead back to themselves.
#[test]
fn a_custom_tool_follows_its_lark_grammar() {
    let server = Server::start(&[]);
    let definition = "start: begin file{1,2} end\nbegin: \"*** Begin\" LF\nend: \"*** \\\"End\\\"\" LF?\n\
        file: \"* \" /[a-z\\/]{1,4}/ LF line\nline: (\"+\" | \"-\") /(.{0,3})/ LF -> changed\n%import common.LF\n";
    let format = json!({"type": "grammar", "syntax": "lark", "definition": definition});
    let tools = json!([{"type": "custom", "name": "patch", "format": format}]);
    for _ in 0..8 {
        let body = response(json!({
            "tools": tools, "tool_choice": {"type": "custom", "name": "patch"}, "temperature": 2,
            "max_output_tokens": 400,
        }));
        let body = server.post(RESPONSES, &body).ok();
        let input = body["output"][0]["input"].as_str().unwrap();
        assert_eq!(body["status"], "completed", "{body}");
        let lines: Vec<&str> = input.strip_suffix('\n').unwrap_or(input).split('\n').collect();
        assert!(matches!(lines.len(), 4 | 6), "{lines:?}");
        assert_eq!((lines[0], *lines.last().unwrap()), ("*** Begin", "*** \"End\""));
        for pair in lines[1..lines.len() - 1].chunks(2) {
            let name = pair[0].strip_prefix("* ").unwrap();
            assert!(
                (1..=4).contains(&name.len()) && name.chars().all(|c| c.is_ascii_lowercase() || c == '/')
            );
            assert!(pair[1].starts_with(['+', '-']) && pair[1].chars().count() <= 4, "{pair:?}");
        }
    }
    assert!(server.post(RESPONSES, &response(json!({"tools": tools}))).ok().get("notes").is_none());
}

#[test]
fn calls_of_namespaces_and_custom_tools_come_and_go_back() {
    let server = Server::start(&[]);
    let closed = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tools = json!([
        {"type": "namespace", "name": "n", "description": "d",
         "tools": [{"type": "function", "name": "f", "strict": false, "parameters": closed}]},
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "regex", "definition": "a\"b"}},
    ]);
    for (choice, item) in [
        ("n.f", json!({"type": "function_call", "namespace": "n", "name": "f", "arguments": "{}"})),
        ("c", json!({"type": "custom_tool_call", "name": "c", "input": "a\"b"})),
    ] {
        let choice = json!({"type": "function", "name": choice});
        let body = response(json!({"tools": tools, "tool_choice": choice, "max_output_tokens": 200}));
        let body = server.post(RESPONSES, &body).ok();
        let call = &body["output"][0];
        for (name, value) in item.as_object().unwrap() {
            assert_eq!(&call[name], value, "{body}");
        }
        let kind = format!("{}_output", item["type"].as_str().unwrap());
        let output = json!({"type": kind, "call_id": call["call_id"], "output": "done"});
        let input = json!([{"role": "user", "content": "hi"}, call, output]);
        server.post(RESPONSES, &response(json!({"tools": tools, "input": input}))).ok();
    }
}

#[test]
fn a_character_that_max_tokens_cuts_is_left_out() {
    let server = Server::start(&[]);
    for (most, text) in [(4, "\u{1f999}"), (6, "\u{1f999}"), (3, "")] {
        let body = chat(json!({"regex": "\u{1f999}\u{1f999}", "max_tokens": most, "logprobs": true}));
        let whole = server.post(CHAT, &body).ok();
        assert_eq!(whole["choices"][0]["message"]["content"], text, "{most}: {whole}");
        assert!(!whole.to_string().contains('\u{fffd}'), "{whole}");
        assert_eq!(whole["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), most);
        let (chunks, _) = server.stream(CHAT, &with(body, json!({"stream": true})));
        let said =
            |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        assert_eq!(chunks.iter().map(said).collect::<String>(), text);
        let body = json!({
            "model": "m", "prompt": "x", "regex": "\u{1f999}\u{1f999}", "max_tokens": most, "logprobs": 0,
        });
        let raw = server.post("/v1/completions", &body).ok();
        assert_eq!(raw["choices"][0]["text"], text, "{raw}");
        let offsets = &raw["choices"][0]["logprobs"]["text_offset"];
        let expected: Vec<usize> = (0..most).map(|i| i / 4).collect();
        assert_eq!(offsets, &json!(expected));
        assert!(!raw.to_string().contains('\u{fffd}'), "{raw}");
    }
}
