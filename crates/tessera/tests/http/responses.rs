//! `/v1/responses`.

use super::server::{Server, home, jinja};
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";

fn request(extra: Value) -> Value {
    let mut body = json!({"model": "m", "input": "Hi", "max_output_tokens": 8, "temperature": 0});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

/// The events of a stream: each has its name twice, and numbers from 0.
fn events(server: &Server, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let reply = server.post(PATH, &body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut events: Vec<Value> = Vec::new();
    for block in reply.body.split("\n\n").filter(|b| !b.is_empty()) {
        let (name, data) = block.split_once('\n').unwrap();
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(Some(event["type"].as_str().unwrap()), name.strip_prefix("event: "));
        assert_eq!(event["sequence_number"], events.len());
        events.push(event);
    }
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    names.dedup();
    names
}

#[test]
fn a_response_has_openais_shape() {
    let server = Server::start(&[]);
    let response = server
        .post(
            PATH,
            &request(json!({
                "instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.7, "top_p": 0.9,
            })),
        )
        .ok();
    for (name, value) in [
        ("object", json!("response")),
        ("model", json!("m")),
        ("instructions", json!("Be brief.")),
        ("metadata", json!({"a": "b"})),
        ("temperature", json!(0.7)),
        ("top_p", json!(0.9)),
        ("store", json!(false)),
        ("error", Value::Null),
        ("tools", json!([])),
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(true)),
        ("text", json!({"format": {"type": "text"}})),
        ("max_output_tokens", json!(8)),
        ("previous_response_id", Value::Null),
        ("truncation", json!("disabled")),
    ] {
        assert_eq!(response[name], value, "{name}");
    }
    let item = &response["output"][0];
    assert_eq!((&item["type"], &item["role"]), (&json!("message"), &json!("assistant")));
    let part = &item["content"][0];
    assert_eq!(
        (&part["type"], &part["annotations"], &part["logprobs"]),
        (&json!("output_text"), &json!([]), &json!([]))
    );
    let usage = &response["usage"];
    let (input, output) = (usage["input_tokens"].as_u64().unwrap(), usage["output_tokens"].as_u64().unwrap());
    assert_eq!(usage["total_tokens"], input + output);
    let cut = server.post(PATH, &request(json!({"max_output_tokens": 1}))).ok();
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let whole = server
        .post(
            PATH,
            &request(
                json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"enum": ["x"]}}}}),
            ),
        )
        .ok();
    assert_eq!((&whole["status"], text(&whole)), (&json!("completed"), "\"x\""));
}

#[test]
fn chat_gives_the_same_text() {
    let server = Server::start(&[]);
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let chat = json!({"model": "m", "messages": messages, "max_tokens": 8, "temperature": 0});
    let chat = server.post("/v1/chat/completions", &chat).ok();
    for extra in [
        json!({"instructions": "Be brief."}),
        json!({"input": [{"role": "developer", "content": "Be brief."}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}),
    ] {
        let response = server.post(PATH, &request(extra)).ok();
        assert_eq!(text(&response), chat["choices"][0]["message"]["content"].as_str().unwrap());
        assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    }
}

#[test]
fn a_stream_tells_of_every_part() {
    let server = Server::start(&[]);
    let body = request(json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2}));
    let whole = server.post(PATH, &body).ok();
    let events = events(&server, body);
    let end = if whole["status"] == "completed" { "response.completed" } else { "response.incomplete" };
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            end,
        ]
    );
    let of = |name: &str| events.iter().filter(|e| e["type"] == name).cloned().collect::<Vec<_>>();
    let deltas = of("response.output_text.delta");
    let streamed: String = deltas.iter().map(|e| e["delta"].as_str().unwrap()).collect();
    assert_eq!(streamed, text(&whole));
    let logprobs: Vec<&Value> = deltas.iter().flat_map(|e| e["logprobs"].as_array().unwrap()).collect();
    let expected: Vec<&Value> =
        whole["output"][0]["content"][0]["logprobs"].as_array().unwrap().iter().collect();
    assert!(!logprobs.is_empty());
    assert_eq!(logprobs, expected);
    let last = &events.last().unwrap()["response"];
    assert_eq!(text(last), text(&whole));
    assert_eq!(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    assert_eq!(of("response.output_item.done")[0]["item"], last["output"][0]);
    assert_eq!(last["id"], events[0]["response"]["id"]);
}

#[test]
fn calls_and_their_outputs_are_items() {
    let server = Server::start(&[]);
    let tools = json!([{
        "type": "function", "name": "weather", "strict": true,
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": false},
    }]);
    let body = request(json!({
        "tools": tools, "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 200,
    }));
    let response = server.post(PATH, &body).ok();
    let call = &response["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (&json!("function_call"), &json!("weather"), &json!("completed")),
        "{response}"
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Rome"}));
    let events = events(&server, body);
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    // Items of a response go back as they came.
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny"});
    let input = json!([{"role": "user", "content": "How is Rome?"}, call, output]);
    server.post(PATH, &request(json!({"input": input, "tools": tools}))).ok();
}

#[test]
fn reasoning_is_an_item_of_its_own() {
    let home = home(2048);
    jinja(
        &home,
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}",
    );
    let server = Server::of(home, &["m"], &[]);
    let response = server.post(PATH, &request(json!({}))).ok();
    let item = &response["output"][0];
    assert_eq!((&item["type"], &item["content"][0]["type"]), (&json!("reasoning"), &json!("reasoning_text")));
    let events = events(&server, request(json!({})));
    assert!(names(&events).contains(&"response.reasoning_text.delta"));
    let input = json!([{"role": "user", "content": "Hi"}, item, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "So?"}]);
    server.post(PATH, &request(json!({"input": input}))).ok();
}

#[test]
fn what_is_not_implemented_is_named() {
    let server = Server::start(&[]);
    let user = json!({"role": "user", "content": "Hi"});
    for (extra, param) in [
        (json!({"store": true}), "store"),
        (json!({"input": []}), "input"),
        (json!({"input": 7}), "input"),
        (json!({"input": [user, {"type": "item_reference", "id": "x"}]}), "input[1].type"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}),
            "input[0].content[0].type",
        ),
        (json!({"input": [{"role": "wizard", "content": "x"}]}), "input[0].role"),
        (
            json!({"input": [user, {"type": "function_call_output", "call_id": "c", "output": "x"}]}),
            "input[1].call_id",
        ),
        (
            json!({"input": [user, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}]}),
            "input[1].arguments",
        ),
        (json!({"input": [user, {"role": "system", "content": "Be brief."}]}), "input[1].role"),
        (json!({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}), "tools[0].type"),
        (json!({"tools": [{"type": "web_serach"}]}), "tools[0].type"),
        (json!({"include": ["reasoning.encrypted"]}), "include[0]"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"text": {"verbosity": "high"}}), "text.verbosity"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format.schema"),
        (json!({"reasoning": {"effort": "high"}}), "reasoning.effort"),
        (json!({"input": "x".repeat(3000)}), "input"),
    ] {
        server.post(PATH, &request(extra)).refused(400, Some(param));
    }
}
