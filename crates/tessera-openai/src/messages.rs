//! From `messages` to a prompt.

use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, Table, chat, wrong_type};
use crate::json::kind;
use crate::lost::{self, Lost};
use crate::subject::Subject;
use crate::tools::Tools;
use crate::wanted::still_wanted;
use crate::{now, prompts};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tessera_engine::template::{ChatTemplate, Message, Prompt, RenderOptions, TemplateError};
use tessera_engine::text::TextError;
use tessera_engine::{reasoning, tools};

/// How a conversation becomes a prompt.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// For the template.
    pub options: RenderOptions,
    /// The answer goes on with the last message.
    pub continues: bool,
}

/// Messages, and where each is in the request.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// For the template.
    pub messages: Vec<Message>,
    /// Such as `messages[2]`.
    pub places: Vec<String>,
}

impl Conversation {
    /// Adds a message.
    pub fn push(&mut self, message: Message, place: impl Into<String>) {
        self.messages.push(message);
        self.places.push(place.into());
    }
}

/// Reads the messages of a chat request.
pub fn parse(list: &[Value], served: &Subject) -> ApiResult<Conversation> {
    let mut conversation = Conversation::default();
    // Calls that were made, with the function of each.
    let mut calls: Vec<(String, String)> = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let path = format!("messages[{i}]");
        let Value::Object(map) = value else {
            return Err(wrong_type(&path, "an object", kind(value)));
        };
        let message = match map.get("role") {
            Some(Value::String(role)) => match role.as_str() {
                "system" | "developer" => instructions(value, &path, served)?,
                "user" => user(value, &path)?,
                "assistant" => assistant(value, &path, &mut calls)?,
                "tool" => tool(value, &path, &calls)?,
                other => {
                    let param = format!("{path}.role");
                    let message = format!(
                        "{param}: expected \"system\", \"developer\", \"user\", \"assistant\" or \"tool\", found {other:?}"
                    );
                    return Err(ApiError::value(param, message));
                }
            },
            Some(other) => return Err(wrong_type(&format!("{path}.role"), "a string", kind(other))),
            None => {
                let param = format!("{path}.role");
                let message = format!("{param} is missing: expected a string");
                return Err(ApiError::field(param, "missing_required_parameter", message));
            }
        };
        conversation.push(message, path);
    }
    Ok(conversation)
}

fn instructions(value: &Value, path: &str, served: &Subject) -> ApiResult<Message> {
    let fields = Fields::check(value, &chat::SYSTEM_MESSAGE, path)?;
    let developer = fields.text("role") == Some("developer") && served.template_mentions("developer");
    let mut message = Message::new(if developer { "developer" } else { "system" }, required_text(&fields)?);
    name(&fields, &mut message);
    Ok(message)
}

fn user(value: &Value, path: &str) -> ApiResult<Message> {
    let fields = Fields::check(value, &chat::USER_MESSAGE, path)?;
    let mut message = Message::new("user", required_text(&fields)?);
    name(&fields, &mut message);
    Ok(message)
}

fn assistant(value: &Value, path: &str, calls: &mut Vec<(String, String)>) -> ApiResult<Message> {
    let fields = Fields::check(value, &chat::ASSISTANT_MESSAGE, path)?;
    let content = match fields.get("content") {
        Some(value) => Some(content(value, &fields.param("content"), &chat::TEXT_PART)?),
        None => None,
    };
    let mut message = Message { role: "assistant".to_owned(), content, extra: Map::new() };
    name(&fields, &mut message);
    if let Some(thought) = thought(&fields)? {
        message.extra.insert("reasoning_content".to_owned(), thought.into());
    }
    let list = fields.list("tool_calls").unwrap_or_default();
    if list.is_empty() {
        if message.content.is_none() {
            let param = fields.param("content");
            let message = format!("{param} is missing: the message has no tool_calls either");
            return Err(ApiError::field(param, "missing_required_parameter", message));
        }
        return Ok(message);
    }
    let mut rendered = Vec::new();
    for (i, call) in list.iter().enumerate() {
        let path = format!("{path}.tool_calls[{i}]");
        let call = Fields::check(call, &chat::TOOL_CALL, &path)?;
        let path = format!("{path}.function");
        let function = call.get("function").unwrap_or(&Value::Null);
        let function = Fields::check(function, &chat::CALLED_FUNCTION, &path)?;
        let (id, name) = (call.text("id").unwrap_or_default(), function.text("name").unwrap_or_default());
        let arguments =
            arguments(function.text("arguments").unwrap_or_default(), &function.param("arguments"))?;
        rendered.push(json!({
            "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
        }));
        calls.push((id.to_owned(), name.to_owned()));
    }
    message.extra.insert("tool_calls".to_owned(), Value::Array(rendered));
    Ok(message)
}

/// What the assistant thought, by either of its names.
fn thought<'a>(fields: &Fields<'a>) -> ApiResult<Option<&'a str>> {
    match (fields.text("reasoning_content"), fields.text("reasoning")) {
        (Some(one), Some(other)) if one != other => {
            let param = fields.param("reasoning");
            let message = format!("{param} and reasoning_content are two names of one text, and differ");
            Err(ApiError::value(param, message))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The arguments of a call: templates take an object, the API a text.
pub fn arguments(text: &str, param: &str) -> ApiResult<Value> {
    // A call without arguments is often sent as an empty text.
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(ApiError::value(
            param,
            format!("{param}: expected a JSON object as text, found {}", kind(&other)),
        )),
        Err(e) => Err(ApiError::value(param, format!("{param}: expected a JSON object as text: {e}"))),
    }
}

fn tool(value: &Value, path: &str, calls: &[(String, String)]) -> ApiResult<Message> {
    let fields = Fields::check(value, &chat::TOOL_MESSAGE, path)?;
    let id = fields.text("tool_call_id").unwrap_or_default();
    let mut message = Message::new("tool", required_text(&fields)?);
    let function = called(calls, id, &fields.param("tool_call_id"))?;
    if let Some(name) = fields.text("name").filter(|name| *name != function) {
        let param = fields.param("name");
        let text = format!("{param}: the call {id:?} was of {function:?}, found {name:?}");
        return Err(ApiError::value(param, text));
    }
    message.extra.insert("tool_call_id".to_owned(), id.into());
    message.extra.insert("name".to_owned(), function.into());
    Ok(message)
}

/// The function of an earlier call.
pub fn called<'a>(calls: &'a [(String, String)], id: &str, param: &str) -> ApiResult<&'a str> {
    let call = calls.iter().rev().find(|(known, _)| known == id);
    call.map(|(_, name)| name.as_str()).ok_or_else(|| {
        ApiError::value(param, format!("{param}: no earlier message has a call with the id {id:?}"))
    })
}

fn required_text(fields: &Fields<'_>) -> ApiResult<String> {
    content(fields.get("content").unwrap_or(&Value::Null), &fields.param("content"), &chat::TEXT_PART)
}

/// A content: a text, or parts of text, which are joined by line breaks.
pub fn content(value: &Value, param: &str, part_table: &'static Table) -> ApiResult<String> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return Err(wrong_type(param, "a string or an array of text parts", kind(other))),
    };
    if parts.is_empty() {
        return Err(ApiError::value(param, format!("{param}: expected at least one part, found none")));
    }
    let mut texts = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let path = format!("{param}[{i}]");
        // What kind of part it is comes before what is in it.
        if let Some(Value::String(other)) = part.get("type")
            && Fields::check(&json!({"type": other, "text": ""}), part_table, &path).is_err()
        {
            let param = format!("{path}.type");
            let message = format!("{param}: only text is taken, found {other:?}");
            return Err(ApiError::unsupported(param, message));
        }
        let fields = Fields::check(part, part_table, &path)?;
        texts.push(fields.text("text").unwrap_or_default().to_owned());
    }
    Ok(texts.join("\n"))
}

/// Templates without a place for a name leave it out, as the models were trained that have them.
fn name(fields: &Fields<'_>, message: &mut Message) {
    if let Some(name) = fields.text("name") {
        message.extra.insert("name".to_owned(), name.into());
    }
}

/// `chat_template_kwargs`: variables that the template mentions.
pub fn template_variables(fields: &Fields<'_>, served: &Subject) -> ApiResult<Map<String, Value>> {
    const OURS: [&str; 6] =
        ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"];
    let Some(Value::Object(variables)) = fields.get("chat_template_kwargs") else { return Ok(Map::new()) };
    for name in variables.keys() {
        let param = format!("{}.{name}", fields.param("chat_template_kwargs"));
        if OURS.contains(&name.as_str()) {
            let message = format!("{param}: this variable is made from the request");
            return Err(ApiError::value(param, message));
        }
        if name.is_empty() || !served.template_mentions(name) {
            let message = format!("{param}: the chat template of {} does not mention it", served.name);
            return Err(ApiError::unsupported(param, message));
        }
    }
    Ok(variables.clone())
}

/// Whether the prompt ends where the assistant begins, and whether the last message is continued.
pub fn rendering(fields: &Fields<'_>, conversation: &Conversation) -> ApiResult<Rendering> {
    let continues = fields.bool("continue_final_message") == Some(true);
    let add = fields.bool("add_generation_prompt");
    if continues {
        let param = "continue_final_message";
        if add == Some(true) {
            let message = "continue_final_message and add_generation_prompt cannot both be true";
            return Err(ApiError::value(param, message));
        }
        let last = conversation.messages.last();
        if last.is_none_or(|m| {
            m.role != "assistant" || m.content.is_none() || m.extra.contains_key("tool_calls")
        }) {
            let found = last.map_or("nothing", |m| m.role.as_str());
            let message = format!("{param}: the last message must be the assistant's text, found {found:?}");
            return Err(ApiError::value(param, message));
        }
    }
    let options = RenderOptions {
        add_generation_prompt: continues || add != Some(false),
        now: i64::try_from(now()).ok(),
        ..RenderOptions::default()
    };
    Ok(Rendering { options, continues })
}

/// A prompt, and whether it ends inside of what the model thinks.
pub struct ChatPrompt {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The answer begins inside of reasoning.
    pub thinks: bool,
}

/// The prompt of a conversation, with the tools that the model may call.
pub fn prompt(
    served: &Subject,
    conversation: &Conversation,
    rendering: &Rendering,
    called_tools: &Tools,
) -> ApiResult<ChatPrompt> {
    let place = conversation.places.last().map_or("messages", |p| p.split('[').next().unwrap_or(p));
    let template = served.text.template.as_ref().map_err(|why| {
        let message = format!("{} has no chat template ({why}); use /v1/completions", served.name);
        let error = ApiError::request(StatusCode::BAD_REQUEST, "no_chat_template", message);
        ApiError { param: Some(place.into()), ..error }
    })?;
    let has_calls = |m: &Message| m.role == "tool" || m.extra.contains_key("tool_calls");
    let (with_tools, mut options) = (called_tools.active(), rendering.options.clone());
    let as_given =
        Conversation { messages: conversation.messages.clone(), places: conversation.places.clone() };
    let about_tools = with_tools || conversation.messages.iter().any(has_calls);
    // The folder's other template, where only that one may have a place for something; and a second try.
    let other = served.text.other_template.as_ref();
    let needs_other = (about_tools && served.tool_support.template_knows) || !options.variables.is_empty();
    let (template, second) = if needs_other { (other.unwrap_or(template), None) } else { (template, other) };
    let conversation = if about_tools {
        let list = if with_tools { &called_tools.list[..] } else { &[] };
        let (messages, shown) = tools::conversation(served.tool_support, &conversation.messages, list)
            .map_err(|e| ApiError::value(place, e.to_string()))?;
        options.tools = shown;
        // Messages that were written anew have no place of their own.
        let same = messages.len() == conversation.messages.len();
        let places = if same { as_given.places } else { vec![place.to_owned(); messages.len()] };
        Conversation { messages, places }
    } else {
        as_given
    };
    let messages = &conversation.messages;
    let continued = if rendering.continues { messages.last() } else { None };
    let rendered = &messages[..messages.len() - usize::from(continued.is_some())];
    // Every text of a message is a part of the prompt, so that the longest says enough before any is rendered.
    for (message, path) in messages.iter().zip(&conversation.places) {
        prompts::may_fit(served, message.content.as_deref().unwrap_or_default(), path)?;
    }
    still_wanted()?;
    let render = |template: &ChatTemplate| {
        let prompt = template.render(rendered, &options).map_err(|error| {
            let param = match blamed(&error, rendered) {
                Some(Blame::Message(i)) => format!("{}.role", conversation.places[i]),
                Some(Blame::Tools) => "tools".to_owned(),
                None => place.to_owned(),
            };
            (error.is_about_place(), ApiError::unsupported(param, error.to_string()))
        })?;
        prompts::may_fit(served, &prompt.text, place).map_err(|error| (false, error))?;
        let kept = nothing_lost(template, &conversation, rendered.len(), &prompt);
        kept.map_err(|error| (true, error))?;
        Ok(prompt)
    };
    let mut prompt = render(template).or_else(|(about_place, error)| match second {
        Some(second) if about_place => {
            // Where neither has a place, the first says what is wrong.
            render(second).map_err(|(about_place, other)| if about_place { error } else { other })
        }
        _ => Err(error),
    })?;
    if let Some(text) = continued.and_then(|m| m.content.as_deref()) {
        prompt.text.push_str(text);
    }
    let thinks = options.add_generation_prompt && reasoning::is_open(&prompt.text);
    still_wanted()?;
    let tokens = prompt.encode(&served.text.tokenizer).map_err(|e| text_error(&e.into()))?;
    Ok(ChatPrompt { tokens, thinks })
}

/// Some Jinja templates skip messages that they have no place for, mostly instructions in the middle.
fn nothing_lost(
    template: &ChatTemplate,
    conversation: &Conversation,
    rendered: usize,
    prompt: &Prompt,
) -> ApiResult<()> {
    if !matches!(template, ChatTemplate::Jinja(_)) {
        return Ok(());
    }
    let (i, what) = match lost::find(&prompt.text, &conversation.messages[..rendered]) {
        None => return Ok(()),
        Some(Lost::Left(i)) => (i, "leaves out this"),
        Some(Lost::Unordered(i)) => (i, "moves so many messages that it cannot be said whether it has this"),
    };
    let param = format!("{}.role", conversation.places[i]);
    let role = &conversation.messages[i].role;
    let text = format!("{param}: the chat template {what} {role} message");
    Err(ApiError::unsupported(param, text))
}

/// What a template has no place for.
enum Blame {
    Message(usize),
    Tools,
}

fn blamed(error: &TemplateError, messages: &[Message]) -> Option<Blame> {
    let instructions = |m: &Message| m.role == "system" || m.role == "developer";
    let index = match error {
        TemplateError::SystemPlace { index, .. } => Some(*index).filter(|i| *i < messages.len()),
        TemplateError::Role { role, .. } => messages.iter().position(|m| m.role == *role),
        TemplateError::NoPlace { what, .. } if what.contains("system") => {
            messages.iter().position(instructions)
        }
        TemplateError::NoPlace { what, .. } if what.contains("tool") => return Some(Blame::Tools),
        TemplateError::NoPlace { .. } => messages.iter().position(|m| m.content.is_none()),
        // The template's own words: most are about instructions, or about turns that do not alternate.
        TemplateError::Raised(text) if text.to_lowercase().contains("system") => {
            let later = messages.iter().skip(1).position(instructions).map(|i| i + 1);
            later.or_else(|| messages.iter().position(instructions))
        }
        _ => None,
    };
    index.map(Blame::Message)
}

/// A text that cannot be made tokens.
pub fn text_error(error: &TextError) -> ApiError {
    ApiError::request(StatusCode::BAD_REQUEST, "invalid_value", error.to_string())
}
