//! Tools, calls and results in a conversation, as the template at hand can take them.

use super::marks::{self, DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_END, DEEPSEEK_SEPARATOR};
use super::{Tool, ToolError, ToolFormat, ToolListing, ToolSupport, mix, push_letters};
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

/// The same in DeepSeek's formats, between the tools and a call as an example.
const DEEPSEEK: &str = "## Tools\nYou have access to the following tools:\n";
const DEEPSEEK_AFTER: &str = "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n";

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
    if support.template_knows && writes_text(support) {
        return Ok((as_marked_text(support, messages, &calls, tools), listed(support, tools)));
    }
    if support.template_knows {
        let messages =
            messages.iter().zip(&calls).map(|(m, calls)| for_template(support, m, calls)).collect();
        return Ok((messages, listed(support, tools)));
    }
    Ok((as_text(support.format, messages, &calls, tools), None))
}

/// DeepSeek's templates leave calls out where there is a text too, or cannot write arguments that are no text, and
/// Phi-4-mini's has no calls at all; in both the text of an answer stands where its calls would.
fn writes_text(support: ToolSupport) -> bool {
    support.format.is_deepseek() || support.listing == ToolListing::SystemMember
}

/// The tools that the template is given.
fn listed(support: ToolSupport, tools: &[Tool]) -> Option<Value> {
    let given = support.listing == ToolListing::Variable && !tools.is_empty();
    given.then(|| tools.iter().map(Tool::to_value).collect())
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
    let short = matches!(support.format, ToolFormat::Mistral | ToolFormat::MistralNamed);
    let id = |id: &str| if short { short_id(id) } else { id.to_owned() };
    if !calls.is_empty() {
        let list = calls.iter().map(|call| {
            json!({
                "id": id(&call.id), "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        });
        message.extra.insert("tool_calls".to_owned(), list.collect());
        // Clients send null here; many templates fail on it or write "None".
        message.content.get_or_insert_default();
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

/// Calls become texts of the answers, results stay messages.
fn as_marked_text(
    support: ToolSupport,
    messages: &[Message],
    calls: &[Vec<Call>],
    tools: &[Tool],
) -> Vec<Message> {
    let mut out: Vec<Message> =
        messages.iter().zip(calls).map(|(m, calls)| with_calls(support.format, m, calls)).collect();
    if support.listing == ToolListing::SystemMember {
        for message in out.iter_mut().filter(|message| message.role == "tool") {
            message.role = "tool_response".to_owned();
        }
        if !tools.is_empty() {
            if out.first().is_none_or(|first| first.role != "system") {
                out.insert(0, Message::new("system", ""));
            }
            let list = tools.iter().map(|tool| tool.to_value()["function"].take());
            out[0].extra.insert("tools".to_owned(), python(&list.collect()).into());
        }
    } else if support.listing == ToolListing::Text {
        add_system(&mut out, support.format, tools);
    }
    out
}

/// An answer with its calls written into its text.
fn with_calls(format: ToolFormat, message: &Message, calls: &[Call]) -> Message {
    let mut message = message.clone();
    if calls.is_empty() {
        return message;
    }
    message.extra.remove("tool_calls");
    let object = |call: &Call| {
        let mut object = Map::new();
        object.insert("name".to_owned(), call.name.as_str().into());
        object.insert("arguments".to_owned(), call.arguments.clone());
        python(&Value::Object(object))
    };
    let list = calls.iter();
    let (written, between) = match format {
        ToolFormat::Hermes => (
            list.map(|call| format!("{}\n{}\n{}", marks::HERMES, object(call), marks::HERMES_END))
                .collect::<Vec<_>>()
                .join("\n"),
            "\n",
        ),
        ToolFormat::DeepSeekV3 => {
            let call = |call: &Call| {
                let (name, arguments) = (&call.name, python(&call.arguments));
                format!(
                    "{DEEPSEEK_CALL}function{DEEPSEEK_SEPARATOR}{name}\n```json\n{arguments}\n```{DEEPSEEK_CALL_END}"
                )
            };
            let calls = list.map(call).collect::<Vec<_>>().join("\n");
            (format!("{}{calls}{DEEPSEEK_END}", marks::DEEPSEEK), "")
        }
        ToolFormat::DeepSeekV31 => {
            let call = |call: &Call| {
                let (name, arguments) = (&call.name, python(&call.arguments));
                format!("{DEEPSEEK_CALL}{name}{DEEPSEEK_SEPARATOR}{arguments}{DEEPSEEK_CALL_END}")
            };
            let calls = list.map(call).collect::<String>();
            (format!("{}{calls}{DEEPSEEK_END}", marks::DEEPSEEK), "")
        }
        ToolFormat::Phi4 => {
            let calls = list.map(object).collect::<Vec<_>>().join(", ");
            (format!("{}[{calls}]{}", marks::PHI, marks::PHI_END), "")
        }
        _ => (list.map(object).collect::<Vec<_>>().join("\n"), "\n"),
    };
    let own = message.content.take().filter(|own| !own.is_empty());
    message.content = Some(own.map_or(written.clone(), |own| format!("{own}{between}{written}")));
    message
}

/// Puts the tools after the system message.
fn add_system(out: &mut Vec<Message>, format: ToolFormat, tools: &[Tool]) {
    if tools.is_empty() {
        return;
    }
    let text = match format {
        ToolFormat::Hermes => {
            let list: String = tools.iter().map(|tool| format!("\n{}", python(&tool.to_value()))).collect();
            format!("{HERMES}{list}{HERMES_AFTER}")
        }
        ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
            let list = tools.iter().map(|tool| {
                let parameters = python(&tool.to_value()["function"]["parameters"]);
                let description = tool.description.as_deref().unwrap_or_default();
                format!("\n### {}\nDescription: {description}\n\nParameters: {parameters}\n", tool.name)
            });
            let example = match format {
                ToolFormat::DeepSeekV3 => {
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>tool_call_name\n```json\ntool_call_arguments\n\
                     ```<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>"
                }
                _ => {
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
                     {additional_tool_calls}<｜tool▁calls▁end｜>"
                }
            };
            format!("{DEEPSEEK}{}{DEEPSEEK_AFTER}{example}", list.collect::<String>())
        }
        _ => {
            let list = tools.iter().map(|tool| format!("\n{}", python(&tool.to_value()["function"])));
            format!("{GENERIC}{}", list.collect::<String>())
        }
    };
    match out.first_mut() {
        Some(first) if first.role == "system" || first.role == "developer" => {
            let own = first.content.take().unwrap_or_default();
            first.content = Some(if own.is_empty() { text } else { format!("{own}\n\n{text}") });
        }
        _ => out.insert(0, Message::new("system", text)),
    }
}

fn as_text(format: ToolFormat, messages: &[Message], calls: &[Vec<Call>], tools: &[Tool]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut results_open = false;
    for (i, message) in messages.iter().enumerate() {
        if message.role != "tool" {
            results_open = false;
            out.push(with_calls(format, message, &calls[i]));
            continue;
        }
        let content = message.content.clone().unwrap_or_default();
        let text = match format {
            ToolFormat::Hermes => format!("<tool_response>\n{content}\n</tool_response>"),
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
                format!("<｜tool▁output▁begin｜>{content}<｜tool▁output▁end｜>")
            }
            _ => {
                let id = message.extra.get("tool_call_id").and_then(Value::as_str);
                let call = calls[..i].iter().flatten().find(|call| Some(call.id.as_str()) == id);
                format!("Result of {}: {content}", call.map_or("the tool", |call| call.name.as_str()))
            }
        };
        // Results of one answer are one message: roles have to alternate in many templates.
        match out.last_mut() {
            Some(Message { content: Some(last), .. }) if results_open => *last = format!("{last}\n{text}"),
            _ => out.push(Message::new("user", text)),
        }
        results_open = true;
    }
    add_system(&mut out, format, tools);
    out
}

/// JSON as Python writes it, which is what models have seen.
fn python(value: &Value) -> String {
    to_string(value, Style { indent: None, ascii: false })
}
