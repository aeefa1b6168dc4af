//! `tools` and `tool_choice` of chat and responses.

use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, chat, wrong_type};
use crate::format::grammar_error;
use crate::json::kind;
use crate::subject::Subject;
use serde_json::Value;
use tessera_engine::grammar::{GrammarConstraint, GrammarError};
use tessera_engine::tools::{Tool, ToolChoice};

/// Longest name of a function.
const MAX_NAME: usize = 64;

/// Functions and how they may be called.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// The functions.
    pub list: Vec<Tool>,
    /// Where the schema of each is in the request, as a JSON pointer.
    pub schemas: Vec<String>,
    /// Which is called.
    pub choice: ToolChoice,
    /// Whether several may be called in an answer.
    pub parallel: bool,
}

impl Tools {
    /// Of a chat request.
    pub fn chat(fields: &Fields<'_>) -> ApiResult<Tools> {
        let (mut list, mut schemas) = (Vec::new(), Vec::new());
        for (i, value) in fields.list("tools").unwrap_or_default().iter().enumerate() {
            let path = format!("tools[{i}]");
            let tool = Fields::check(value, &chat::TOOL, &path)?;
            let path = format!("{path}.function");
            let function = tool.get("function").unwrap_or(&Value::Null);
            add(&mut list, read(&Fields::check(function, &chat::FUNCTION, &path)?)?, &path)?;
            schemas.push(format!("/tools/{i}/function/parameters"));
        }
        let named = |value: &Value| {
            let choice = Fields::check(value, &chat::TOOL_CHOICE, "tool_choice")?;
            let function = choice.get("function").unwrap_or(&Value::Null);
            let function = Fields::check(function, &chat::CHOSEN_FUNCTION, "tool_choice.function")?;
            Ok(function.text("name").unwrap_or_default().to_owned())
        };
        Tools::new(fields, list, schemas, named, "tool_choice.function.name")
    }

    /// Tools that were read, with the request's choice among them.
    pub fn new(
        fields: &Fields<'_>,
        list: Vec<Tool>,
        schemas: Vec<String>,
        named: impl Fn(&Value) -> ApiResult<String>,
        name_param: &str,
    ) -> ApiResult<Tools> {
        let choice = choice(fields, &list, named, name_param)?;
        let parallel = fields.bool("parallel_tool_calls") != Some(false);
        Ok(Tools { list, schemas, choice, parallel })
    }

    /// Whether the model is told of them.
    pub fn active(&self) -> bool {
        !self.list.is_empty() && self.choice != ToolChoice::None
    }

    /// Whether an answer may be text.
    pub fn may_answer(&self) -> bool {
        !self.active() || self.choice == ToolChoice::Auto
    }

    /// What holds for the calls, if anything does.
    pub fn constraint(&self, served: &Subject) -> ApiResult<Option<GrammarConstraint>> {
        let free = self.parallel && !self.list.iter().any(|tool| tool.strict);
        if !self.active() || (self.choice == ToolChoice::Auto && free) {
            return Ok(None);
        }
        let env = served.grammar_env()?;
        let constraint = served.tool_support.format.constraint(env, &self.list, &self.choice, self.parallel);
        constraint.map_err(|error| grammar_error(&self.placed(error), "tools"))
    }

    /// The engine counts tools, which may lie elsewhere in the request.
    fn placed(&self, error: GrammarError) -> GrammarError {
        let GrammarError::Schema { pointer, keyword, message } = error else { return error };
        let own = self.schemas.iter().enumerate().find_map(|(i, place)| {
            let rest = pointer.strip_prefix(&format!("/tools/{i}/function/parameters"))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{place}{rest}"))
        });
        GrammarError::Schema { pointer: own.unwrap_or(pointer), keyword, message }
    }
}

/// Adds a tool; `place` is where it is in the request.
pub fn add(list: &mut Vec<Tool>, tool: Tool, place: &str) -> ApiResult<()> {
    if list.iter().any(|other| other.name == tool.name) {
        let place = place.trim_end_matches(".function");
        let message = format!("{place}: there are two functions of the name {:?}", tool.name);
        return Err(ApiError::value(place, message));
    }
    list.push(tool);
    Ok(())
}

/// Reads a function.
pub fn read(fields: &Fields<'_>) -> ApiResult<Tool> {
    Ok(Tool {
        name: name(fields)?.to_owned(),
        description: fields.text("description").map(str::to_owned),
        parameters: fields.get("parameters").cloned(),
        strict: fields.bool("strict") == Some(true),
    })
}

/// The name of a tool.
pub fn name<'a>(fields: &Fields<'a>) -> ApiResult<&'a str> {
    let name = fields.text("name").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        let param = fields.param("name");
        let message =
            format!("{param}: expected 1 to {MAX_NAME} of letters, digits, _ and -, found {name:?}");
        return Err(ApiError::value(param, message));
    }
    Ok(name)
}

fn choice(
    fields: &Fields<'_>,
    list: &[Tool],
    named: impl Fn(&Value) -> ApiResult<String>,
    name_param: &str,
) -> ApiResult<ToolChoice> {
    const WORDS: &str = "\"none\", \"auto\", \"required\" or an object that names a function";
    let choice = match fields.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                let message = format!("tool_choice: expected {WORDS}, found {other:?}");
                return Err(ApiError::value("tool_choice", message));
            }
        },
        Some(value @ Value::Object(_)) => {
            let name = named(value)?;
            if !list.iter().any(|tool| tool.name == name) {
                let message = format!("{name_param}: there is no tool {name:?}");
                return Err(ApiError::value(name_param, message));
            }
            ToolChoice::Named(name)
        }
        Some(other) => return Err(wrong_type("tool_choice", WORDS, kind(other))),
    };
    if choice == ToolChoice::Required && list.is_empty() {
        return Err(ApiError::value("tool_choice", "tool_choice: \"required\" without tools"));
    }
    Ok(choice)
}
