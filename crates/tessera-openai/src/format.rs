//! What the answer must look like: `response_format`, `text.format` and the fields of other servers that
//! mean the same.

use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, chat, extras, responses, wrong_type};
use crate::json::kind;
use crate::subject::Subject;
use serde_json::Value;
use tessera_engine::grammar::{GrammarConstraint, GrammarError, JsonSpacing};

/// A form, and the field that asks for it.
#[derive(Clone, Debug)]
pub struct Format {
    kind: FormatKind,
    param: String,
}

#[derive(Clone, Debug)]
enum FormatKind {
    JsonObject,
    Schema(Value),
    Regex(String),
    Lark(String),
    Choice(Vec<String>),
}

impl Format {
    /// Of a chat or completions request; `None` is plain text.
    pub fn of_request(fields: &Fields<'_>) -> ApiResult<Option<Format>> {
        let mut found: Vec<Format> = Vec::new();
        if let Some(value) = fields.get("response_format") {
            found.extend(response_format(value)?);
        }
        if let Some(value) = fields.get("structured_outputs") {
            found.extend(structured_outputs(value)?);
        }
        let mut add = |kind, param: &str| found.push(Format { kind, param: param.to_owned() });
        if let Some(value) = fields.get("guided_json") {
            add(FormatKind::Schema(schema(value, "guided_json")?), "guided_json");
        }
        for name in ["guided_regex", "regex"] {
            if let Some(text) = fields.text(name) {
                add(FormatKind::Regex(text.to_owned()), name);
            }
        }
        if let Some(text) = fields.text("guided_grammar") {
            add(FormatKind::Lark(text.to_owned()), "guided_grammar");
        }
        if let Some(list) = fields.list("guided_choice") {
            add(FormatKind::Choice(strings(list, "guided_choice")?), "guided_choice");
        }
        match &found[..] {
            [first, second, ..] => {
                let message = format!("{} and {} cannot both hold for an answer", first.param, second.param);
                Err(ApiError::value(&*second.param, message))
            }
            _ => Ok(found.pop()),
        }
    }

    /// Of `text.format`.
    pub fn of_text(value: &Value) -> ApiResult<Option<Format>> {
        let place = "text.format";
        let fields = Fields::check(value, &responses::TEXT_FORMAT, place)?;
        let of_type = fields.text("type").unwrap_or_default();
        alone(
            &fields,
            of_type,
            &[("schema", "json_schema"), ("name", "json_schema"), ("strict", "json_schema")],
        )?;
        let kind = match of_type {
            "json_object" => FormatKind::JsonObject,
            "json_schema" => {
                needed(&fields, "name")?;
                FormatKind::Schema(schema(needed(&fields, "schema")?, "text.format.schema")?)
            }
            _ => return Ok(None),
        };
        let param = if of_type == "json_schema" { "text.format.schema" } else { place };
        Ok(Some(Format { kind, param: param.to_owned() }))
    }

    /// The field that asks for it.
    pub fn param(&self) -> &str {
        &self.param
    }

    /// What enforces it.
    pub fn constraint(&self, served: &Subject) -> ApiResult<GrammarConstraint> {
        let env = served.grammar_env()?;
        let constraint = match &self.kind {
            FormatKind::JsonObject => env.json_object(),
            FormatKind::Schema(schema) => env.json_schema(schema, JsonSpacing::default()),
            FormatKind::Regex(regex) => env.regex(regex),
            FormatKind::Lark(grammar) => env.lark(grammar),
            FormatKind::Choice(choices) => {
                let words = choices.iter().map(|c| Value::from(c.as_str()).to_string());
                env.lark(&format!("start: {}\n", words.collect::<Vec<_>>().join(" | ")))
            }
        };
        constraint.map_err(|error| grammar_error(&error, &self.param))
    }
}

/// A grammar that is not taken. `param` is the field that has it; a schema's own place is in the message.
pub fn grammar_error(error: &GrammarError, param: &str) -> ApiError {
    let message = match error {
        GrammarError::Schema { pointer, keyword, .. } if !keyword.is_empty() => {
            format!("{param}: {error} (keyword {keyword:?} at {pointer:?})")
        }
        other => format!("{param}: {other}"),
    };
    let code = match error {
        GrammarError::Schema { .. } => "unsupported_schema",
        _ => "unsupported_grammar",
    };
    ApiError::field(param, code, message)
}

fn response_format(value: &Value) -> ApiResult<Option<Format>> {
    let place = "response_format";
    let fields = Fields::check(value, &chat::RESPONSE_FORMAT, place)?;
    let of_type = fields.text("type").unwrap_or_default();
    alone(&fields, of_type, &[("json_schema", "json_schema"), ("regex", "regex"), ("grammar", "grammar")])?;
    let text = |name| Ok::<_, ApiError>(needed(&fields, name)?.as_str().unwrap_or_default().to_owned());
    let (kind, inner) = match of_type {
        "json_object" => (FormatKind::JsonObject, "type"),
        "json_schema" => {
            let path = "response_format.json_schema";
            let named = Fields::check(needed(&fields, "json_schema")?, &chat::JSON_SCHEMA, path)?;
            let param = "response_format.json_schema.schema";
            let schema = schema(needed(&named, "schema")?, param)?;
            (FormatKind::Schema(schema), "json_schema.schema")
        }
        "regex" => (FormatKind::Regex(text("regex")?), "regex"),
        "grammar" => (FormatKind::Lark(text("grammar")?), "grammar"),
        _ => return Ok(None),
    };
    Ok(Some(Format { kind, param: format!("{place}.{inner}") }))
}

fn structured_outputs(value: &Value) -> ApiResult<Option<Format>> {
    let place = "structured_outputs";
    let fields = Fields::check(value, &extras::STRUCTURED_OUTPUTS, place)?;
    let mut found = Vec::new();
    if let Some(value) = fields.get("json") {
        found.push((FormatKind::Schema(schema(value, "structured_outputs.json")?), "json"));
    }
    if let Some(text) = fields.text("regex") {
        found.push((FormatKind::Regex(text.to_owned()), "regex"));
    }
    if let Some(text) = fields.text("grammar") {
        found.push((FormatKind::Lark(text.to_owned()), "grammar"));
    }
    if let Some(list) = fields.list("choice") {
        found.push((FormatKind::Choice(strings(list, "structured_outputs.choice")?), "choice"));
    }
    if found.len() > 1 {
        let message =
            format!("{place}: one of json, regex, grammar and choice is taken, found {}", found.len());
        return Err(ApiError::value(place, message));
    }
    Ok(found.pop().map(|(kind, name)| Format { kind, param: format!("{place}.{name}") }))
}

/// Fields that belong to another type would be ignored.
fn alone(fields: &Fields<'_>, of_type: &str, belong: &[(&str, &str)]) -> ApiResult<()> {
    let alien = belong.iter().find(|(name, owner)| *owner != of_type && fields.get(name).is_some());
    alien.map_or(Ok(()), |(name, _)| {
        let param = fields.param(name);
        let message = format!("{param} has no meaning for type {of_type:?}");
        Err(ApiError::value(param, message))
    })
}

fn needed<'a>(fields: &Fields<'a>, name: &str) -> ApiResult<&'a Value> {
    fields.get(name).ok_or_else(|| {
        let param = fields.param(name);
        let message = format!("{param} is missing");
        ApiError::field(param, "missing_required_parameter", message)
    })
}

/// A schema, as it is or as text.
fn schema(value: &Value, param: &str) -> ApiResult<Value> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => serde_json::from_str(text)
            .map_err(|e| ApiError::value(param, format!("{param}: expected a JSON schema as text: {e}"))),
        other => Err(wrong_type(param, "a JSON schema", kind(other))),
    }
}

fn strings(list: &[Value], param: &str) -> ApiResult<Vec<String>> {
    let text = |(i, value): (usize, &Value)| match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        other => {
            let param = format!("{param}[{i}]");
            Err(wrong_type(&param, "a string of one character or more", kind(other)))
        }
    };
    list.iter().enumerate().map(text).collect()
}
