//! The bodies that applications send which do not install as packages: Open WebUI and Zed's editor. The fields are
//! those that Open WebUI 0.6 (its OpenAI connection, with and without native function calling, and its task for
//! titles) and Zed 0.2xx (a provider of the kind `openai_compatible`) document; the texts are ours.

use super::server::Server;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn said(server: &Server, body: &Value) -> (String, Value) {
    let (chunks, _) = server.stream(CHAT, body);
    let text = |c: &Value| c["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    let usage = chunks.last().unwrap()["usage"].clone();
    (chunks.iter().map(text).collect(), usage)
}

#[test]
fn open_webui() {
    let server = Server::start(&[]);
    let weather = json!({"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "A city."}},
                       "required": ["city"]},
    }});
    // A chat with the settings that its panel has, a model's usage switched on.
    let chat = json!({
        "stream": true, "model": "m", "stream_options": {"include_usage": true},
        "temperature": 0.8, "top_p": 0.9, "max_tokens": 8, "frequency_penalty": 0.1, "presence_penalty": 0.0,
        "seed": 42, "stop": ["###"], "top_k": 40, "min_p": 0.05,
        "messages": [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "hi"}],
    });
    let (text, usage) = said(&server, &chat);
    assert!(!text.is_empty() && usage["completion_tokens"].as_u64().unwrap() > 0, "{usage}");
    // Native function calling: the calls come back as the stream had them, with their index.
    let called = json!({
        "stream": true, "model": "m", "max_tokens": 8, "tools": [weather],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "The weather in Rome?"}]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function",
                 "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
        ],
    });
    assert!(!said(&server, &called).0.is_empty());
    // The title of a chat.
    let title = json!({
        "model": "m", "stream": false, "max_completion_tokens": 1000, "temperature": 0.1, "stop": ["\n"],
        "messages": [{"role": "user", "content": "### Task:\nGive this chat a title.\nOutput: JSON"}],
    });
    let body = server.post(CHAT, &title).ok();
    assert!(body["choices"][0]["message"]["content"].is_string(), "{body}");
    assert_eq!(server.get("/v1/models").ok()["data"][0]["id"], "m");
}

#[test]
fn zed() {
    let server = Server::start(&[]);
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    let tool = json!({"type": "function", "function": {
        "name": "read_file", "description": "Reads a file of the project.",
        "parameters": {"$schema": "http://json-schema.org/draft-07/schema#", "title": "ReadFileToolInput",
            "type": "object", "required": ["path"], "properties": {
                "path": {"description": "The file.", "type": "string"},
                "start_line": {"default": null, "format": "uint32", "minimum": 0,
                               "type": ["integer", "null"]}}},
    }});
    let body = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 8,
        "temperature": 1.0, "tool_choice": "auto", "parallel_tool_calls": false, "tools": [tool],
        "prompt_cache_key": "7d0a4b43-6b0c-4a50-8f1e-3a5a4f5c1d11",
        "messages": [
            {"role": "system", "content": text("You edit code.")},
            {"role": "user", "content": text("What is in a.rs?")},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "read_file", "arguments": "{\"path\": \"a.rs\"}"}}]},
            {"role": "tool", "content": text("fn main() {}"), "tool_call_id": "call_1"},
            {"role": "user", "content": text("Go on.")},
        ],
    });
    let (text_of_answer, usage) = said(&server, &body);
    assert!(!text_of_answer.is_empty() && usage["prompt_tokens"].as_u64().unwrap() > 0, "{usage}");
    // Its inline assistant and the messages of commits have no tools.
    let plain = json!({
        "model": "m", "stream": true, "stop": [], "max_completion_tokens": 8, "temperature": 1.0,
        "messages": [{"role": "user", "content": text("A message for this commit?")}],
    });
    assert!(!said(&server, &plain).0.is_empty());
}
