//! Every field of every table, against the running server; and the documentation's table of them.

use super::server::{Reply, Server};
use serde_json::{Value, json};
use tessera::server::fields::{
    Field, Kind, TABLES, Table, Treatment, chat, completions, expected, other, responses,
};

/// The least body of an endpoint.
fn endpoints() -> [(&'static str, &'static Table, Value); 6] {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    [
        (
            "/v1/chat/completions",
            &chat::REQUEST,
            json!({"model": "m", "messages": messages, "max_completion_tokens": 1}),
        ),
        ("/v1/completions", &completions::REQUEST, json!({"model": "m", "prompt": "abc", "max_tokens": 1})),
        ("/v1/embeddings", &other::EMBEDDINGS, json!({"model": "m", "input": "abc"})),
        ("/v1/responses", &responses::REQUEST, json!({"model": "m", "input": "Hi", "max_output_tokens": 1})),
        ("/tokenize", &other::TOKENIZE, json!({"model": "m", "prompt": "abc"})),
        ("/detokenize", &other::DETOKENIZE, json!({"model": "m", "tokens": [20]})),
    ]
}

/// What an example needs beside it.
fn companions(field: &Field, body: &mut Value) {
    match field.name {
        "stream_options" => body["stream"] = json!(true),
        "top_logprobs" if body.get("input").is_none() => body["logprobs"] = json!(true),
        "max_tokens" => drop(body.as_object_mut().unwrap().remove("max_completion_tokens")),
        // Of what is tokenized one of the two has to be there.
        "prompt" if body["prompt"].is_null() && body.as_object().unwrap().len() == 2 => {
            body["messages"] = json!([{"role": "user", "content": "Hi"}]);
        }
        "add_generation_prompt" if body.get("prompt").is_some() => {
            *body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        }
        _ => {}
    }
}

fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[name] = value;
    body
}

/// A value of another type.
fn wrong_type(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Bool | Kind::Int(..) | Kind::Number(..) | Kind::Object | Kind::List(..) => Some(json!("?")),
        Kind::Text | Kind::OneOf(_) => Some(json!(7)),
        Kind::Mixed(_) => None,
    }
}

/// Values of the right type outside the range.
fn out_of_range(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Int(low, high) => {
            [low.checked_sub(1), high.checked_add(1)].into_iter().flatten().map(Value::from).collect()
        }
        Kind::Number(low, high) => vec![json!(low - 0.5), json!(high + 0.5)],
        Kind::OneOf(_) => vec![json!("?")],
        Kind::List(low, high) if high < 1000 => {
            let mut lists = vec![json!(vec![0; high + 1])];
            lists.extend((low > 0).then(|| json!([])));
            lists
        }
        Kind::List(1.., _) => vec![json!([])],
        _ => Vec::new(),
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn every_field_of_every_endpoint_is_treated_as_the_table_says() {
    let server = Server::start(&["--rate-limit", "100000"]);
    for (path, table, body) in endpoints() {
        server.post(path, &body).ok();
        let post = |name: &str, value: Value| -> Reply { server.post(path, &with(&body, name, value)) };
        let accepted = |field: &Field, value: Value| {
            let mut body = with(&body, field.name, value.clone());
            companions(field, &mut body);
            body[field.name] = value;
            let reply = server.post(path, &body);
            assert_eq!(reply.status, 200, "{path} {}: {}\n{}", field.name, body[field.name], reply.body);
        };
        for field in table.all() {
            if field.required {
                let mut without = body.clone();
                without.as_object_mut().unwrap().remove(field.name);
                let error = server.post(path, &without).refused(400, Some(field.name));
                assert_eq!(error["code"], "missing_required_parameter", "{path} {}", field.name);
            } else {
                accepted(field, Value::Null);
            }
            match field.treatment {
                Treatment::Honoured | Treatment::NoEffect => {
                    accepted(field, value(field.example));
                    if let Some(wrong) = wrong_type(field.kind) {
                        let error = post(field.name, wrong).refused(400, Some(field.name));
                        assert_eq!(error["code"], "invalid_type", "{path} {}", field.name);
                    }
                    for wrong in out_of_range(field.kind) {
                        let error = post(field.name, wrong).refused(400, Some(field.name));
                        assert_eq!(error["code"], "invalid_value", "{path} {}", field.name);
                    }
                }
                Treatment::Neutral(values) => {
                    values.iter().for_each(|v| accepted(field, value(v)));
                    let error = post(field.name, json!({"other": "value"})).refused(400, Some(field.name));
                    assert_eq!(error["code"], "unsupported_value", "{path} {}", field.name);
                    if !values.contains(&field.example) && value(field.example) != Value::Null {
                        let example = value(field.example);
                        let neutral = values
                            .iter()
                            .any(|v| value(v).as_f64() == example.as_f64() && example.is_number());
                        if !neutral {
                            post(field.name, example).refused(400, Some(field.name));
                        }
                    }
                }
                Treatment::Refused => {
                    let error = post(field.name, value(field.example)).refused(400, Some(field.name));
                    assert_eq!(error["code"], "unsupported_parameter", "{path} {}", field.name);
                }
            }
        }
        let error = post("no_such_field", json!(1)).refused(400, Some("no_such_field"));
        assert_eq!(error["code"], "unknown_parameter");
        // Some clients send what they do not set, too.
        post("no_such_field", json!(null)).ok();
    }
}

#[test]
fn a_name_is_in_a_table_once_and_its_examples_are_json() {
    for table in TABLES {
        let mut names: Vec<&str> = table.all().map(|f| f.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{}", table.title);
        for field in table.all() {
            value(field.example);
            if let Treatment::Neutral(values) = field.treatment {
                values.iter().for_each(|v| drop(value(v)));
            }
        }
    }
}

/// OpenAI's own description of its API, where the machine has it: every property that it has is in a table.
#[test]
fn no_property_of_openais_description_is_forgotten() {
    let Some(path) = std::env::var_os("OPENAI_OPENAPI") else {
        eprintln!("skipped: OPENAI_OPENAPI does not name OpenAI's openapi.json");
        return;
    };
    let spec: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (path, table, _) in endpoints().into_iter().take(4) {
        let path = path.strip_prefix("/v1").unwrap();
        let schema = &spec["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let mut names = Vec::new();
        properties(&spec, schema, &mut names);
        assert!(names.len() > 4, "{path}: {names:?}");
        for name in names {
            assert!(table.all().any(|f| f.name == name), "{path}: {name}");
        }
    }
}

fn properties(spec: &Value, schema: &Value, names: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return properties(spec, spec.pointer(reference.trim_start_matches('#')).unwrap(), names);
    }
    schema["allOf"].as_array().into_iter().flatten().for_each(|part| properties(spec, part, names));
    names.extend(schema["properties"].as_object().into_iter().flat_map(|p| p.keys().cloned()));
}

const BEGIN: &str =
    "<!-- The tables below are made by `TESSERA_UPDATE_DOCS=1 cargo test -p tessera --test http docs`. -->";

#[test]
fn the_docs_have_the_tables() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (hand_written, _) = page.split_once(BEGIN).expect("docs/server.md has no place for the tables");
    let made = format!("{hand_written}{BEGIN}\n{}", tables());
    if std::env::var_os("TESSERA_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        page == made || std::env::var_os("TESSERA_UPDATE_DOCS").is_some(),
        "docs/server.md is out of date; make its tables again with TESSERA_UPDATE_DOCS=1"
    );
}

fn tables() -> String {
    let mut page = String::new();
    for table in TABLES {
        page.push_str(&format!(
            "\n### {}\n\n| field | value | what happens |\n| --- | --- | --- |\n",
            table.title
        ));
        for field in table.all() {
            page.push_str(&row(field));
        }
    }
    page
}

fn row(field: &Field) -> String {
    let code = |values: &[&str]| values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
    let (value, what) = match field.treatment {
        Treatment::Honoured if field.required => (expected(field.kind), "required"),
        Treatment::Honoured => (expected(field.kind), "honoured"),
        Treatment::NoEffect => (expected(field.kind), "accepted, no effect"),
        Treatment::Neutral([]) => ("`null`".to_owned(), "refused at any other value"),
        Treatment::Neutral(values) => (code(values), "refused at any other value"),
        Treatment::Refused => (String::new(), "refused"),
    };
    let note = field.note.trim_end_matches('.');
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    let line = format!("| `{}` | {value} | {what}{note} |\n", field.name);
    // A bar inside a cell would end it.
    let bars = line.matches('|').count();
    assert_eq!(bars, 4, "{line}");
    line
}
