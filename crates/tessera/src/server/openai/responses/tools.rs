//! `tools` of `/v1/responses`: functions, namespaces of functions, `custom` tools, and those that cannot run.
//!
//! To the engine all are functions. One of a namespace is called `namespace.name`: a name has no point of its
//! own. A `custom` tool takes a text, which is the only argument, `input`.

use super::super::tools::{Tools, add, name, read};
use super::lark;
use crate::server::error::{ApiError, ApiResult};
use crate::server::fields::{Fields, responses};
use serde_json::{Value, json};
use tessera_engine::tools::Tool;

/// OpenAI's tools that its servers run, or that its models alone were trained to call.
const ELSEWHERE: [&str; 16] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
];

/// The tools of a request.
#[derive(Default)]
pub struct Offer {
    /// Those that the model may call.
    pub tools: Tools,
    /// The same as they come back in the response.
    pub shown: Vec<Value>,
    /// Names of those that take a text.
    pub custom: Vec<String>,
    /// What was left out.
    pub notes: Vec<String>,
    list: Vec<Tool>,
    schemas: Vec<String>,
    /// Whether the model need not call any, so that it may do without some.
    free: bool,
}

impl Offer {
    /// Of a request.
    pub fn new(fields: &Fields<'_>) -> ApiResult<Offer> {
        let choice = fields.get("tool_choice").map_or(Some("auto"), Value::as_str);
        let free = matches!(choice, Some("auto" | "none"));
        let mut offer = Offer { free, ..Offer::default() };
        for (i, value) in fields.list("tools").unwrap_or_default().iter().enumerate() {
            let place = Place { path: format!("tools[{i}]"), pointer: format!("/tools/{i}") };
            let shown = match value.get("type").and_then(Value::as_str) {
                Some("namespace") => offer.namespace(value, &place)?,
                _ => offer.tool(value, &place, "")?,
            };
            offer.shown.extend(shown);
        }
        let named = |value: &Value| {
            let choice = Fields::check(value, &responses::TOOL_CHOICE, "tool_choice")?;
            Ok(choice.text("name").unwrap_or_default().to_owned())
        };
        let (list, schemas) = (std::mem::take(&mut offer.list), std::mem::take(&mut offer.schemas));
        offer.tools = Tools::new(fields, list, schemas, named, "tool_choice.name")?;
        Ok(offer)
    }

    /// Reads a tool; what of it comes back in the response.
    fn tool(&mut self, value: &Value, place: &Place, namespace: &str) -> ApiResult<Option<Value>> {
        match value.get("type").and_then(Value::as_str) {
            Some("custom") => self.custom(value, place, namespace),
            Some(kind) if ELSEWHERE.contains(&kind) => {
                self.cannot_run(&format!("{}.type", place.path), &format!("{kind:?} cannot run here"))
            }
            _ => {
                let fields = Fields::check(value, &responses::TOOL, &place.path)?;
                let tool = read(&fields)?;
                let shown = json!({
                    "type": "function", "name": tool.name, "description": tool.description,
                    "parameters": tool.parameters, "strict": tool.strict,
                });
                self.add(tool, place, namespace, "parameters")?;
                Ok(Some(shown))
            }
        }
    }

    fn namespace(&mut self, value: &Value, place: &Place) -> ApiResult<Option<Value>> {
        let fields = Fields::check(value, &responses::NAMESPACE, &place.path)?;
        let namespace = name(&fields)?;
        let mut tools = Vec::new();
        for (i, value) in fields.list("tools").unwrap_or_default().iter().enumerate() {
            let Place { path, pointer } = place;
            let place = Place { path: format!("{path}.tools[{i}]"), pointer: format!("{pointer}/tools/{i}") };
            tools.extend(self.tool(value, &place, namespace)?);
        }
        let description = fields.text("description");
        Ok(Some(json!({
            "type": "namespace", "name": namespace, "description": description, "tools": tools,
        })))
    }

    fn custom(&mut self, value: &Value, place: &Place, namespace: &str) -> ApiResult<Option<Value>> {
        let fields = Fields::check(value, &responses::CUSTOM_TOOL, &place.path)?;
        let mut input = json!({"type": "string"});
        if let Some(format) = fields.get("format") {
            let path = format!("{}.format", place.path);
            let format = Fields::check(format, &responses::CUSTOM_FORMAT, &path)?;
            let grammar = format.text("type") == Some("grammar");
            let (syntax, definition) = (format.text("syntax"), format.text("definition"));
            match (grammar, syntax, definition) {
                (false, None, None) => {}
                (true, Some("regex"), Some(regex)) => input["pattern"] = format!("^(?:{regex})$").into(),
                (true, Some(_), Some(grammar)) => match lark::regex(grammar) {
                    Ok(regex) => input["pattern"] = format!("^(?:{regex})$").into(),
                    Err(why) => {
                        let why = format!("a grammar that is not regular cannot be held to ({why})");
                        return self.cannot_run(&format!("{path}.definition"), &why);
                    }
                },
                (true, ..) => {
                    let message = format!("{path}: a grammar needs syntax and definition");
                    return Err(ApiError::field(path, "missing_required_parameter", message));
                }
                (false, ..) => {
                    let message = format!("{path}: syntax and definition have no meaning for type \"text\"");
                    return Err(ApiError::value(path, message));
                }
            }
        }
        let parameters = json!({
            "type": "object", "properties": {"input": input}, "required": ["input"],
            "additionalProperties": false,
        });
        let description = fields.text("description").map(str::to_owned);
        let name = name(&fields)?.to_owned();
        self.custom.push(joined(namespace, &name));
        let tool = Tool { name, description, parameters: Some(parameters), strict: true };
        self.add(tool, place, namespace, "format")?;
        Ok(Some(value.clone()))
    }

    fn add(&mut self, tool: Tool, place: &Place, namespace: &str, schema: &str) -> ApiResult<()> {
        let tool = Tool { name: joined(namespace, &tool.name), ..tool };
        add(&mut self.list, tool, &place.path)?;
        self.schemas.push(format!("{}/{schema}", place.pointer));
        Ok(())
    }

    /// A model that is free to call or not does without a tool, and the response says so.
    fn cannot_run(&mut self, param: &str, why: &str) -> ApiResult<Option<Value>> {
        if !self.free {
            let message = format!("{param}: {why}; with tool_choice \"auto\" the tool would be left out");
            return Err(ApiError::unsupported(param, message));
        }
        self.notes.push(format!("{param}: {why}: the tool was left out"));
        Ok(None)
    }
}

/// Where a tool is in the request.
struct Place {
    path: String,
    pointer: String,
}

/// What the engine calls a tool of a namespace.
pub fn joined(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Namespace and name of a tool.
pub fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once('.').map_or((None, name), |(namespace, name)| (Some(namespace), name))
}

/// The text of a `custom` call, as far as its arguments have come.
pub fn input(arguments: &str) -> String {
    // An escape that was cut, `\ud83d\ude00` at the longest, is left out.
    let cuts = arguments.char_indices().rev().map(|(at, _)| at).take(12);
    let whole = [arguments.to_owned()].into_iter();
    let parts = [arguments.len()].into_iter().chain(cuts).map(|at| format!("{}\"}}", &arguments[..at]));
    let parsed = whole.chain(parts).find_map(|text| serde_json::from_str::<Value>(&text).ok());
    parsed.and_then(|value| value["input"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_as_far_as_it_has_come() {
        let whole = r#"{"input": "a\n\"b\ud83e\udd99é"}"#;
        assert_eq!(input(whole), "a\n\"b🦙é");
        for (at, _) in whole.char_indices() {
            assert!("a\n\"b🦙é".starts_with(&input(&whole[..at])), "{at}");
        }
        assert_eq!(input(r#"{"input": "a\n\"b\ud83e\udd"#), "a\n\"b");
        assert_eq!((input(""), input("{\"input\":")), (String::new(), String::new()));
    }
}
