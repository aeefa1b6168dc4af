//! `tools` and `tool_choice` as requests have them.

use serde_json::{Map, Value, json};

/// Most tools of a request.
const MAX_TOOLS: usize = 128;
/// Longest name.
const MAX_NAME: usize = 64;

/// Tools, a choice or messages that are wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct ToolError {
    /// JSON pointer in the request.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl ToolError {
    pub(super) fn new(pointer: impl Into<String>, message: impl Into<String>) -> ToolError {
        ToolError { pointer: pointer.into(), message: message.into() }
    }
}

/// A tool that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments; none means that it takes none.
    pub parameters: Option<Value>,
    /// Whether calls have to follow the schema even where the model is free to call or not.
    pub strict: bool,
}

impl Tool {
    /// Reads a list of `{"type": "function", "function": {...}}`. Unknown members are refused.
    pub fn parse_list(tools: &Value) -> Result<Vec<Tool>, ToolError> {
        let list = tools.as_array().ok_or_else(|| ToolError::new("/tools", "not a list"))?;
        if list.len() > MAX_TOOLS {
            let message = format!("{} tools, at most {MAX_TOOLS} are taken", list.len());
            return Err(ToolError::new("/tools", message));
        }
        let mut out: Vec<Tool> = Vec::with_capacity(list.len());
        for (i, tool) in list.iter().enumerate() {
            let base = format!("/tools/{i}");
            let tool = Tool::parse(tool, &base)?;
            if out.iter().any(|other| other.name == tool.name) {
                let message = format!("a second tool is named {:?}", tool.name);
                return Err(ToolError::new(format!("{base}/function/name"), message));
            }
            out.push(tool);
        }
        Ok(out)
    }

    fn parse(tool: &Value, base: &str) -> Result<Tool, ToolError> {
        let object = tool.as_object().ok_or_else(|| ToolError::new(base, "not an object"))?;
        only(object, &["type", "function"], base)?;
        if object.get("type").and_then(Value::as_str) != Some("function") {
            return Err(ToolError::new(format!("{base}/type"), "only \"function\" is known"));
        }
        let base = format!("{base}/function");
        let function = object.get("function").and_then(Value::as_object);
        let function = function.ok_or_else(|| ToolError::new(&base, "missing or not an object"))?;
        only(function, &["name", "description", "parameters", "strict"], &base)?;
        let at = |key: &str, message: &str| ToolError::new(format!("{base}/{key}"), message);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return Err(at("name", "expected 1 to 64 letters, digits, _ or -"));
        }
        let description = match function.get("description") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => return Err(at("description", "not a string")),
        };
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => None,
            Some(schema @ Value::Object(_)) => Some(schema.clone()),
            Some(_) => return Err(at("parameters", "a JSON Schema is an object")),
        };
        let strict = match function.get("strict") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(strict)) => *strict,
            Some(_) => return Err(at("strict", "not a boolean")),
        };
        Ok(Tool { name: name.to_owned(), description, parameters, strict })
    }

    /// The schema of the arguments.
    pub(super) fn schema(&self) -> Value {
        // Without parameters a tool takes no arguments.
        self.parameters.clone().unwrap_or_else(|| json!({ "additionalProperties": false }))
    }

    /// The tool in OpenAI's form, as templates expect it.
    pub fn to_value(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".to_owned(), self.name.as_str().into());
        if let Some(description) = &self.description {
            function.insert("description".to_owned(), description.as_str().into());
        }
        let parameters = self.parameters.clone();
        let parameters = parameters.unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        function.insert("parameters".to_owned(), parameters);
        json!({ "type": "function", "function": function })
    }
}

/// Whether, and which, tools are to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

impl ToolChoice {
    /// Reads `"auto"`, `"none"`, `"required"` or `{"type": "function", "function": {"name": ...}}`.
    pub fn parse(choice: &Value, tools: &[Tool]) -> Result<ToolChoice, ToolError> {
        let at = "/tool_choice";
        let choice = match choice {
            Value::String(word) => match word.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                other => {
                    return Err(ToolError::new(
                        at,
                        format!("{other:?}: expected auto, none, required or a function"),
                    ));
                }
            },
            Value::Object(object) => {
                only(object, &["type", "function"], at)?;
                let function = object.get("function").and_then(Value::as_object);
                let (Some("function"), Some(function)) =
                    (object.get("type").and_then(Value::as_str), function)
                else {
                    return Err(ToolError::new(
                        at,
                        "expected {\"type\": \"function\", \"function\": {\"name\": ...}}",
                    ));
                };
                only(function, &["name"], "/tool_choice/function")?;
                let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
                if !tools.iter().any(|tool| tool.name == name) {
                    let message = format!("{name:?} is none of the request's tools");
                    return Err(ToolError::new("/tool_choice/function/name", message));
                }
                ToolChoice::Named(name.to_owned())
            }
            _ => return Err(ToolError::new(at, "expected a string or an object")),
        };
        if choice == ToolChoice::Required && tools.is_empty() {
            return Err(ToolError::new(at, "\"required\" without tools"));
        }
        Ok(choice)
    }
}

fn only(object: &Map<String, Value>, known: &[&str], base: &str) -> Result<(), ToolError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ToolError::new(format!("{base}/{key}"), "unknown field")),
        None => Ok(()),
    }
}
