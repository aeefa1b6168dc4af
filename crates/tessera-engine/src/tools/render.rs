//! Tools, calls and results in a conversation, as the template at hand can take them.

use super::{Tool, ToolError, ToolFormat, ToolSupport, mix, push_letters};
use crate::template::Message;
use serde_json::{Map, Value, json};
use tessera_weights::chat_config::python_json::{Style, to_string};

/// Before the tools, in the generic format.
const GENERIC: &str = "You may call tools. To call one, answer with nothing but a JSON object \
    {\"name\": <the tool's name>, \"arguments\": <an object>}, and one on a line of its own for each further call. \
    The results come in the next message. Otherwise answer as usual.\n\nThe tools, with the JSON Schema of their \
    arguments:";
/// The same in Hermes' format, in the words of Qwen's template, which the models were trained on.
const HERMES: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const HERMES_AFTER: &str = "\n</tools>\n\nFor each function call, return a json object with function name and \
    arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
    <args-json-object>}\n</tool_call>";

/// A call of an earlier answer.
struct Call {
    id: String,
    name: String,
    arguments: Value,
}

/// The conversation and the `tools` to render. Arguments of earlier calls, which requests give as text,
/// become objects, since templates write them as JSON. Where the template does not know tools, they are
/// written into the messages: the tools after the system message, calls into the answers, results into
/// messages of the user.
pub fn conversation(
    support: ToolSupport,
    messages: &[Message],
    tools: &[Tool],
) -> Result<(Vec<Message>, Option<Value>), ToolError> {
    let calls: Vec<Vec<Call>> =
        messages.iter().enumerate().map(|(i, m)| calls_of(m, i)).collect::<Result<_, _>>()?;
    check_results(messages, &calls)?;
    if support.template_knows {
        let messages =
            messages.iter().zip(&calls).map(|(m, calls)| for_template(support, m, calls)).collect();
        let tools = tools.iter().map(Tool::to_value).collect::<Vec<_>>();
        return Ok((messages, (!tools.is_empty()).then_some(Value::Array(tools))));
    }
    Ok((as_text(support.format, messages, &calls, tools), None))
}

fn calls_of(message: &Message, index: usize) -> Result<Vec<Call>, ToolError> {
    let base = format!("/messages/{index}/tool_calls");
    let list = match message.extra.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ToolError::new(base, "not a list")),
    };
    if message.role != "assistant" {
        return Err(ToolError::new(base, format!("a message of the role {:?} makes no calls", message.role)));
    }
    let mut out = Vec::new();
    for (i, call) in list.iter().enumerate() {
        let text = |pointer: &str| call.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let missing = |what: &str| ToolError::new(format!("{base}/{i}{what}"), "missing or not a string");
        let arguments = match call.pointer("/function/arguments") {
            Some(object @ Value::Object(_)) => object.clone(),
            Some(Value::String(text)) if text.trim().is_empty() => json!({}),
            Some(Value::String(text)) => match serde_json::from_str(text) {
                Ok(object @ Value::Object(_)) => object,
                _ => {
                    return Err(ToolError::new(
                        format!("{base}/{i}/function/arguments"),
                        "not the text of a JSON object",
                    ));
                }
            },
            _ => return Err(missing("/function/arguments")),
        };
        out.push(Call {
            id: text("/id").ok_or_else(|| missing("/id"))?,
            name: text("/function/name").ok_or_else(|| missing("/function/name"))?,
            arguments,
        });
    }
    Ok(out)
}

/// A result belongs to a call that was made before it.
fn check_results(messages: &[Message], calls: &[Vec<Call>]) -> Result<(), ToolError> {
    for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "tool") {
        let pointer = format!("/messages/{i}/tool_call_id");
        let Some(id) = message.extra.get("tool_call_id").and_then(Value::as_str) else {
            return Err(ToolError::new(pointer, "missing or not a string"));
        };
        if !calls[..i].iter().flatten().any(|call| call.id == id) {
            return Err(ToolError::new(pointer, format!("no call before has the id {id:?}")));
        }
    }
    Ok(())
}

fn for_template(support: ToolSupport, message: &Message, calls: &[Call]) -> Message {
    let mut message = message.clone();
    let id = |id: &str| if support.format == ToolFormat::Mistral { short_id(id) } else { id.to_owned() };
    if !calls.is_empty() {
        let list = calls.iter().map(|call| {
            json!({
                "id": id(&call.id), "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        });
        message.extra.insert("tool_calls".to_owned(), list.collect());
    }
    if let Some(Value::String(own)) = message.extra.get_mut("tool_call_id") {
        *own = id(own);
    }
    message
}

/// Mistral's templates take ids of nine letters and digits only.
fn short_id(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    let hash = id.bytes().fold(0u64, |hash, byte| mix(hash ^ u64::from(byte)).wrapping_add(1));
    let mut out = String::new();
    push_letters(&mut out, hash, 9);
    out
}

fn as_text(format: ToolFormat, messages: &[Message], calls: &[Vec<Call>], tools: &[Tool]) -> Vec<Message> {
    let hermes = format == ToolFormat::Hermes;
    let mut out: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut results_open = false;
    for (i, message) in messages.iter().enumerate() {
        let content = message.content.clone().unwrap_or_default();
        if message.role == "tool" {
            let text = if hermes {
                format!("<tool_response>\n{content}\n</tool_response>")
            } else {
                let id = message.extra.get("tool_call_id").and_then(Value::as_str);
                let call = calls[..i].iter().flatten().find(|call| Some(call.id.as_str()) == id);
                format!("Result of {}: {content}", call.map_or("the tool", |call| call.name.as_str()))
            };
            // Results of one answer are one message: roles have to alternate in many templates.
            match out.last_mut() {
                Some(Message { content: Some(last), .. }) if results_open => {
                    *last = format!("{last}\n{text}")
                }
                _ => out.push(Message::new("user", text)),
            }
            results_open = true;
            continue;
        }
        results_open = false;
        let mut message = message.clone();
        if !calls[i].is_empty() {
            message.extra.remove("tool_calls");
            let written = calls[i].iter().map(|call| {
                let mut object = Map::new();
                object.insert("name".to_owned(), call.name.as_str().into());
                object.insert("arguments".to_owned(), call.arguments.clone());
                let json = python(&Value::Object(object));
                if hermes { format!("<tool_call>\n{json}\n</tool_call>") } else { json }
            });
            let parts = Some(content).filter(|c| !c.is_empty()).into_iter().chain(written);
            message.content = Some(parts.collect::<Vec<_>>().join("\n"));
        }
        out.push(message);
    }
    if !tools.is_empty() {
        let list = tools.iter().map(|tool| {
            let value = tool.to_value();
            python(if hermes { &value } else { value.get("function").unwrap_or(&Value::Null) })
        });
        let list: String = list.map(|tool| format!("\n{tool}")).collect();
        let text = if hermes { format!("{HERMES}{list}{HERMES_AFTER}") } else { format!("{GENERIC}{list}") };
        match out.first_mut() {
            Some(first) if first.role == "system" || first.role == "developer" => {
                let own = first.content.take().unwrap_or_default();
                first.content = Some(if own.is_empty() { text } else { format!("{own}\n\n{text}") });
            }
            _ => out.insert(0, Message::new("system", text)),
        }
    }
    out
}

/// JSON as Python writes it, which is what models have seen.
fn python(value: &Value) -> String {
    to_string(value, Style { indent: None, ascii: false })
}
