//! Structured output, tools and reasoning. The model's weights are random, so whatever fits was enforced.

use super::server::{Server, home, jinja, jinja_beside};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

fn request(extra: Value) -> Value {
    let mut body = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 200,
        "temperature": 1, "seed": 3,
    });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
        "required": ["ok", "colour"], "additionalProperties": false,
    })
}

fn assert_fits(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(value.as_object().unwrap().len(), 2, "{text}");
    assert!(
        value["ok"].is_boolean() && ["red", "green"].contains(&value["colour"].as_str().unwrap()),
        "{text}"
    );
}

fn content(reply: &Value) -> &str {
    assert_eq!(reply["choices"][0]["finish_reason"], "stop", "{reply}");
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn a_schema_holds_however_it_is_asked_for() {
    let server = Server::start(&[]);
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema()}});
    for extra in [
        json!({"response_format": format}),
        json!({"guided_json": schema()}),
        json!({"guided_json": schema().to_string()}),
        json!({"structured_outputs": {"json": schema()}}),
    ] {
        assert_fits(content(&server.post(PATH, &request(extra)).ok()));
    }
    let three = server.post(PATH, &request(json!({"response_format": format, "n": 3}))).ok();
    for choice in three["choices"].as_array().unwrap() {
        assert_fits(choice["message"]["content"].as_str().unwrap());
    }
    let body = json!({"model": "m", "prompt": "abc", "max_tokens": 200, "response_format": format});
    assert_fits(server.post("/v1/completions", &body).ok()["choices"][0]["text"].as_str().unwrap());
    let mut streamed = request(json!({"response_format": format}));
    let whole = server.post(PATH, &streamed).ok();
    streamed["stream"] = json!(true);
    let (chunks, done) = server.stream(PATH, &streamed);
    let pieces = chunks.iter().map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    assert!(done);
    assert_eq!(pieces.collect::<String>(), content(&whole));
}

#[test]
fn grammars_of_other_kinds_hold_too() {
    let server = Server::start(&[]);
    let ask = |extra: Value| content(&server.post(PATH, &request(extra)).ok()).to_owned();
    for extra in [
        json!({"response_format": {"type": "regex", "regex": "[ab]{3}c"}}),
        json!({"guided_regex": "[ab]{3}c"}),
        json!({"regex": "[ab]{3}c"}),
        json!({"structured_outputs": {"regex": "[ab]{3}c"}}),
    ] {
        let text = ask(extra);
        assert!(
            text.len() == 4 && text.ends_with('c') && text[..3].bytes().all(|b| b"ab".contains(&b)),
            "{text}"
        );
    }
    let lark = "start: \"yes\" | \"no\"\n";
    for extra in [
        json!({"response_format": {"type": "grammar", "grammar": lark}}),
        json!({"guided_grammar": lark}),
        json!({"structured_outputs": {"grammar": lark}}),
        json!({"guided_choice": ["yes", "no"]}),
        json!({"structured_outputs": {"choice": ["yes", "no"]}}),
    ] {
        let text = ask(extra);
        assert!(["yes", "no"].contains(&text.as_str()), "{text}");
    }
    let body = request(json!({"response_format": {"type": "json_object"}, "max_completion_tokens": 40}));
    let text = server.post(PATH, &body).ok()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.trim_start().starts_with('{'), "{text}");
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let server = Server::start(&[]);
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    let unenforceable =
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)b"}}});
    let error = server
        .post(PATH, &request(format(unenforceable)))
        .refused(400, Some("response_format.json_schema.schema"));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("look-around") && message.contains("/properties/a/pattern"), "{message}");
    for (extra, param) in [
        (format(json!({"type": "strin"})), "response_format.json_schema.schema"),
        (format(json!(7)), "response_format.json_schema.schema"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "text", "regex": "a"}}), "response_format.regex"),
        (json!({"response_format": {"type": "regex", "regex": "("}}), "response_format.regex"),
        (
            json!({"response_format": {"type": "grammar", "grammar": "start: nowhere"}}),
            "response_format.grammar",
        ),
        (json!({"guided_regex": "a", "guided_choice": ["a"]}), "guided_choice"),
        (json!({"guided_regex": "a", "response_format": {"type": "json_object"}}), "guided_regex"),
        (json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}), "structured_outputs"),
        (json!({"guided_choice": ["a", ""]}), "guided_choice[1]"),
        (json!({"guided_json": "{"}), "guided_json"),
    ] {
        server.post(PATH, &request(extra)).refused(400, Some(param));
    }
}

fn tools() -> Value {
    let parameters = json!({
        "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
        "additionalProperties": false,
    });
    json!([
        {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": parameters}},
        {"type": "function", "function": {"name": "time"}},
    ])
}

fn assert_weather(call: &Value) {
    assert_eq!(call["function"]["name"], "weather", "{call}");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments == json!({"city": "Rome"}) || arguments == json!({"city": "Oslo"}), "{call}");
}

#[test]
fn a_call_that_is_required_is_made_and_its_result_comes_back() {
    let server = Server::start(&[]);
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let body = request(json!({"tools": tools(), "tool_choice": named}));
    let reply = server.post(PATH, &body).ok();
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
    assert!(choice["message"]["content"].is_null(), "{reply}");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1);
    assert_weather(&calls[0]);
    assert_eq!(calls[0]["type"], "function");

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let (chunks, done) = server.stream(PATH, &streamed);
    assert!(done);
    let deltas: Vec<&Value> =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"].get("tool_calls")).map(|c| &c[0]).collect();
    assert!(deltas[0]["id"].as_str().unwrap().starts_with("call_"));
    assert!(deltas[1..].iter().all(|d| d.get("id").is_none() && d["index"] == 0), "{deltas:?}");
    let arguments: String = deltas.iter().map(|d| d["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, calls[0]["function"]["arguments"].as_str().unwrap());
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    let required = server
        .post(
            PATH,
            &request(json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": false})),
        )
        .ok();
    let made = required["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(made.len(), 1);
    if made[0]["function"]["name"] == "weather" {
        assert_weather(&made[0]);
    }
    // The answer to the result.
    let messages = json!([
        {"role": "user", "content": "How is Rome?"}, choice["message"],
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "Sunny"},
    ]);
    server
        .post(PATH, &request(json!({"messages": messages, "tools": tools(), "max_completion_tokens": 3})))
        .ok();
}

#[test]
fn tools_are_in_the_prompt_unless_none_is_to_be_called() {
    let server = Server::start(&[]);
    let count = |extra: Value| {
        let mut body = request(extra);
        body["max_completion_tokens"] = json!(1);
        server.post(PATH, &body).ok()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = count(json!({}));
    assert_eq!(count(json!({"tools": tools(), "tool_choice": "none"})), plain);
    assert_eq!(count(json!({"tools": []})), plain);
    assert!(count(json!({"tools": tools()})) > plain + 100);
    for (extra, param) in [
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": "always", "tools": tools()}), "tool_choice"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": tools()}),
            "tool_choice.function.name",
        ),
        (json!({"tool_choice": {"type": "allowed_tools"}, "tools": tools()}), "tool_choice.type"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
        (json!({"tools": [tools()[0], tools()[0]]}), "tools[1]"),
        (json!({"tools": tools(), "response_format": {"type": "json_object"}}), "response_format.type"),
    ] {
        server.post(PATH, &request(extra)).refused(400, Some(param));
    }
}

#[test]
fn a_template_that_knows_tools_is_used_for_them_beside_one_that_does_not() {
    let home = home(2048);
    jinja_beside(
        &home,
        "{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}({{ m.content }}){% endfor %}\
         {% if false %}<tool_call>{% endif %}",
    );
    let server = Server::of(home, &["m"], &[]);
    let count = |extra: Value| {
        let mut body = request(extra);
        body["max_completion_tokens"] = json!(1);
        server.post(PATH, &body).ok()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let user = json!([{"role": "user", "content": "Hi"}]);
    let names: String = tools()
        .as_array()
        .unwrap()
        .iter()
        .map(|t| format!("[{}]", t["function"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(count(json!({"messages": user, "tools": tools()})), format!("{names}(Hi)").len() as u64);
    // Without tools it is MLC's, which has more to say.
    assert!(count(json!({"messages": user})) > "(Hi)".len() as u64 + 10);
}

#[test]
fn what_is_thought_is_told_apart() {
    let home = home(2048);
    jinja(
        &home,
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}",
    );
    let server = Server::of(home, &["m"], &[]);
    let ask = |extra: Value| {
        let mut body = request(extra);
        body["max_completion_tokens"] = json!(12);
        body["ignore_eos"] = json!(true);
        server.post(PATH, &body).ok()
    };
    let message = |reply: &Value| reply["choices"][0]["message"].clone();
    let apart = ask(json!({}));
    let thought = message(&apart)["reasoning_content"].as_str().unwrap().to_owned();
    assert!(!thought.is_empty());
    assert_eq!(message(&apart)["content"], "");
    let details = &apart["usage"]["completion_tokens_details"];
    assert_eq!(details["reasoning_tokens"], 12);
    let together = message(&ask(json!({"separate_reasoning": false})));
    assert!(
        together["content"].as_str().unwrap().contains(&thought)
            && together.get("reasoning_content").is_none()
    );
    let hidden = message(&ask(json!({"include_reasoning": false})));
    assert!(hidden["content"] == "" && hidden.get("reasoning_content").is_none());
    let mut body = request(json!({"stream": true, "max_completion_tokens": 12, "ignore_eos": true}));
    let (chunks, _) = server.stream(PATH, &body);
    let pieces =
        chunks.iter().map(|c| c["choices"][0]["delta"]["reasoning_content"].as_str().unwrap_or_default());
    assert_eq!(pieces.collect::<String>(), thought);
    // The grammar holds for the answer after the thought, and this model never gets there.
    body["stream"] = json!(false);
    body["guided_regex"] = json!("[ab]{3}");
    let reply = server.post(PATH, &body).ok();
    assert_eq!(
        (&message(&reply)["content"], &reply["choices"][0]["finish_reason"]),
        (&json!(""), &json!("length"))
    );
}
