//! From `input` to messages.

use super::super::messages::{Conversation, arguments, called, content};
use super::tools::{joined, split};
use crate::server::error::{ApiError, ApiResult};
use crate::server::fields::{Fields, responses, short, wrong_type};
use crate::server::json::kind;
use serde_json::{Map, Value, json};
use tessera_engine::template::Message;

/// The conversation of a request: instructions, then the input.
pub fn parse(fields: &Fields<'_>) -> ApiResult<Conversation> {
    let mut reader = Reader::default();
    if let Some(text) = fields.text("instructions") {
        reader.conversation.push(Message::new("system", text), "instructions");
    }
    match fields.get("input") {
        Some(Value::String(text)) => reader.conversation.push(Message::new("user", text.clone()), "input"),
        Some(Value::Array(items)) if items.is_empty() => {
            return Err(ApiError::value("input", "input is empty: there is nothing to answer"));
        }
        Some(Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                reader.item(item, &format!("input[{i}]"))?;
            }
        }
        Some(other) => return Err(wrong_type("input", "a string or an array of items", kind(other))),
        None => {}
    }
    Ok(reader.conversation)
}

#[derive(Default)]
struct Reader {
    conversation: Conversation,
    /// Calls so far: id and function.
    calls: Vec<(String, String)>,
    /// What was thought before the message or call that follows.
    thought: Option<String>,
}

impl Reader {
    fn item(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let Value::Object(map) = item else { return Err(wrong_type(path, "an object", kind(item))) };
        match map.get("type").filter(|t| !t.is_null()) {
            None => self.message(item, path),
            Some(Value::String(kind)) => match kind.as_str() {
                "message" => self.message(item, path),
                "function_call" => self.function_call(item, path),
                "custom_tool_call" => self.custom_call(item, path),
                "function_call_output" | "custom_tool_call_output" => self.output(item, path),
                "reasoning" => self.reasoning(item, path),
                other => {
                    let param = format!("{path}.type");
                    let message = format!("{param}: items of type {other:?} are not implemented");
                    Err(ApiError::unsupported(param, message))
                }
            },
            Some(other) => Err(wrong_type(&format!("{path}.type"), "a string", kind(other))),
        }
    }

    fn message(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let fields = Fields::check(item, &responses::MESSAGE, path)?;
        let text = fields.get("content").unwrap_or(&Value::Null);
        let text = content(text, &fields.param("content"), &responses::TEXT_PART)?;
        let role = match fields.text("role") {
            Some("developer") => "system",
            other => other.unwrap_or_default(),
        };
        let mut message = Message::new(role, text);
        if role == "assistant" {
            self.think(&mut message);
        }
        self.conversation.push(message, path);
        Ok(())
    }

    fn function_call(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let fields = Fields::check(item, &responses::FUNCTION_CALL, path)?;
        let text = fields.text("arguments").unwrap_or_default();
        self.call(&fields, arguments(text, &fields.param("arguments"))?, path);
        Ok(())
    }

    fn custom_call(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let fields = Fields::check(item, &responses::CUSTOM_TOOL_CALL, path)?;
        self.call(&fields, json!({"input": fields.text("input")}), path);
        Ok(())
    }

    /// Calls belong to the assistant's message before them, where there is one.
    fn call(&mut self, fields: &Fields<'_>, arguments: Value, path: &str) {
        let text = |name| fields.text(name).unwrap_or_default();
        let (id, name) = (text("call_id").to_owned(), joined(text("namespace"), text("name")));
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        self.calls.push((id, name));
        let last = self.conversation.messages.last_mut().filter(|m| m.role == "assistant");
        if let (Some(message), None) = (last, &self.thought) {
            let calls = message.extra.entry("tool_calls").or_insert_with(|| json!([]));
            if let Value::Array(calls) = calls {
                calls.push(call);
            }
            return;
        }
        let mut message = Message { role: "assistant".to_owned(), content: None, extra: Map::new() };
        message.extra.insert("tool_calls".to_owned(), json!([call]));
        self.think(&mut message);
        self.conversation.push(message, path);
    }

    fn output(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let fields = Fields::check(item, &responses::CALL_OUTPUT, path)?;
        let id = fields.text("call_id").unwrap_or_default();
        let function = called(&self.calls, id, &fields.param("call_id"))?;
        if let Some(name) = fields.text("name").filter(|name| *name != function && *name != split(function).1)
        {
            let param = fields.param("name");
            let text = format!("{param}: the call {id:?} was of {function:?}, found {name:?}");
            return Err(ApiError::value(param, text));
        }
        let text = fields.get("output").unwrap_or(&Value::Null);
        let text = content(text, &fields.param("output"), &responses::TEXT_PART)?;
        let mut message = Message::new("tool", text);
        message.extra.insert("tool_call_id".to_owned(), id.into());
        message.extra.insert("name".to_owned(), function.into());
        self.conversation.push(message, path);
        Ok(())
    }

    fn reasoning(&mut self, item: &Value, path: &str) -> ApiResult<()> {
        let fields = Fields::check(item, &responses::REASONING_ITEM, path)?;
        for (i, part) in fields.list("content").unwrap_or_default().iter().enumerate() {
            let text = part.get("text").and_then(Value::as_str);
            let known = |map: &Map<String, Value>| map.keys().all(|k| k == "type" || k == "text");
            match text.filter(|_| part["type"] == "reasoning_text" && part.as_object().is_some_and(known)) {
                Some(text) => self.thought.get_or_insert_default().push_str(text),
                None => {
                    let param = format!("{path}.content[{i}]");
                    let message = format!("{param}: expected a reasoning_text, found {}", short(part));
                    return Err(ApiError::value(param, message));
                }
            }
        }
        Ok(())
    }

    fn think(&mut self, message: &mut Message) {
        if let Some(thought) = self.thought.take() {
            message.extra.insert("reasoning_content".to_owned(), thought.into());
        }
    }
}
