//! What the server does with each field of a request: tables that the checker, the tests and the
//! documentation read.
//!
//! A field is honoured, accepted at listed values only, accepted because it cannot change the answer, or
//! refused. A field that is in no table is refused too. `null` is the same as leaving a field out, whatever
//! its name.

pub mod chat;
pub mod completions;
pub mod extras;
pub mod other;
pub mod responses;

use crate::error::{ApiError, ApiResult};
use crate::json::kind;
use serde_json::{Map, Value};
use tessera_engine::sampler::range::Range;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    /// A whole number, from and to.
    Int(i64, i64),
    /// A number, from and to.
    Number(f64, f64),
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// At least and at most so many values.
    List(usize, usize),
    Object,
    /// More than one type; whoever reads it checks.
    Mixed(&'static str),
}

impl Kind {
    /// A sampling setting, as far as OpenAI's interface goes.
    pub const fn of(range: Range) -> Kind {
        Kind::Number(range.openai.0, range.openai.1)
    }
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// It does what its documentation says.
    Honoured,
    /// Accepted at these values (as JSON), which ask for what happens anyway; refused at any other.
    Neutral(&'static [&'static str]),
    /// Accepted: it cannot change the answer.
    NoEffect,
    /// Refused.
    Refused,
}

/// One field of a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// What is done with it.
    pub treatment: Treatment,
    /// Whether it must be given.
    pub required: bool,
    /// A value that is accepted (as JSON); for refused fields one that a client might send.
    pub example: &'static str,
    /// What the documentation says.
    pub note: &'static str,
}

/// The fields of one kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What the object is: `POST /v1/completions`, or a part of a request.
    pub title: &'static str,
    /// The lists that make it up; a field is in one of them.
    pub fields: &'static [&'static [Field]],
}

/// A field that does what its documentation says.
pub const fn honoured(name: &'static str, kind: Kind, example: &'static str, note: &'static str) -> Field {
    Field { name, kind, treatment: Treatment::Honoured, required: false, example, note }
}

/// A field that has to be there.
pub const fn required(name: &'static str, kind: Kind, example: &'static str, note: &'static str) -> Field {
    Field { name, kind, treatment: Treatment::Honoured, required: true, example, note }
}

/// A field that is accepted at values which ask for nothing; `example` is one that does.
pub const fn neutral(
    name: &'static str,
    values: &'static [&'static str],
    example: &'static str,
    note: &'static str,
) -> Field {
    let (kind, treatment) = (Kind::Mixed("a neutral value"), Treatment::Neutral(values));
    Field { name, kind, treatment, required: false, example, note }
}

/// A field that cannot change the answer.
pub const fn no_effect(name: &'static str, kind: Kind, example: &'static str, note: &'static str) -> Field {
    Field { name, kind, treatment: Treatment::NoEffect, required: false, example, note }
}

/// A field that is not implemented.
pub const fn refused(name: &'static str, example: &'static str, note: &'static str) -> Field {
    let kind = Kind::Mixed("nothing");
    Field { name, kind, treatment: Treatment::Refused, required: false, example, note }
}

/// Every table, in the order of the documentation.
pub const TABLES: &[&Table] = &[
    &chat::REQUEST,
    &chat::SYSTEM_MESSAGE,
    &chat::USER_MESSAGE,
    &chat::ASSISTANT_MESSAGE,
    &chat::TOOL_MESSAGE,
    &chat::TEXT_PART,
    &chat::TOOL_CALL,
    &chat::CALLED_FUNCTION,
    &chat::STREAM_OPTIONS,
    &chat::RESPONSE_FORMAT,
    &chat::JSON_SCHEMA,
    &chat::TOOL,
    &chat::FUNCTION,
    &chat::TOOL_CHOICE,
    &chat::CHOSEN_FUNCTION,
    &extras::STRUCTURED_OUTPUTS,
    &completions::REQUEST,
    &other::EMBEDDINGS,
    &responses::REQUEST,
    &responses::MESSAGE,
    &responses::TEXT_PART,
    &responses::FUNCTION_CALL,
    &responses::CUSTOM_TOOL_CALL,
    &responses::CALL_OUTPUT,
    &responses::REASONING_ITEM,
    &responses::TEXT,
    &responses::TEXT_FORMAT,
    &responses::TOOL,
    &responses::CUSTOM_TOOL,
    &responses::CUSTOM_FORMAT,
    &responses::NAMESPACE,
    &responses::TOOL_CHOICE,
    &responses::REASONING,
    &responses::STREAM_OPTIONS,
    &other::TOKENIZE,
    &other::DETOKENIZE,
];

impl Table {
    /// All fields.
    pub fn all(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.fields.iter().flat_map(|list| list.iter())
    }

    fn field(&self, name: &str) -> Option<&'static Field> {
        self.all().find(|field| field.name == name)
    }
}

/// An object of a request whose fields were checked against a table.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    table: &'static Table,
    path: &'a str,
}

impl<'a> Fields<'a> {
    /// Checks every field of an object that lies at `path` of the request ("" for the request itself).
    pub fn check(value: &'a Value, table: &'static Table, path: &'a str) -> ApiResult<Fields<'a>> {
        let Value::Object(map) = value else {
            let found = kind(value);
            return Err(wrong_type(path, "an object", found));
        };
        let fields = Fields { map, table, path };
        for (name, value) in map {
            let param = fields.param(name);
            match table.field(name) {
                _ if value.is_null() => {}
                None => {
                    let message = format!("{param} is not a known field of {}", table.title);
                    return Err(ApiError::field(param, "unknown_parameter", message));
                }
                Some(field) => check_value(field, value, param)?,
            }
        }
        if let Some(field) = table.all().find(|f| f.required && fields.get(f.name).is_none()) {
            let param = fields.param(field.name);
            let message = format!("{param} is missing: expected {}", expected(field.kind));
            return Err(ApiError::field(param, "missing_required_parameter", message));
        }
        Ok(fields)
    }

    /// Path of a field from the request's root.
    pub fn param(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a field, if it was given and is not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        debug_assert!(self.table.field(name).is_some(), "{name} is in no list of {}", self.table.title);
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// A boolean.
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(Value::as_bool)
    }

    /// A whole number. `2.0` is one, as JSON Schema has it.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(whole)
    }

    /// A whole number that the table says is not negative.
    pub fn size(&self, name: &str) -> Option<usize> {
        self.int(name).and_then(|n| usize::try_from(n).ok())
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f32> {
        self.get(name).and_then(Value::as_f64).map(|n| n as f32)
    }

    /// A string.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }

    /// An array.
    pub fn list(&self, name: &str) -> Option<&'a [Value]> {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice)
    }
}

/// A wrong type: what was expected and found.
pub fn wrong_type(param: &str, expected: &str, found: &str) -> ApiError {
    let place = if param.is_empty() { "the body" } else { param };
    let message = format!("{place}: expected {expected}, found {found}");
    let error = ApiError::field(param, "invalid_type", message);
    if param.is_empty() { ApiError { param: None, ..error } } else { error }
}

/// A number without a fraction, as far as it is exact.
pub fn whole(value: &Value) -> Option<i64> {
    let whole = |n: &f64| n.fract() == 0.0 && n.abs() < 9e15;
    value.as_i64().or_else(|| value.as_f64().filter(whole).map(|n| n as i64))
}

/// Whether a number has no fraction, however large it is.
fn has_no_fraction(value: &Value) -> bool {
    value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn check_value(field: &Field, value: &Value, param: String) -> ApiResult<()> {
    match field.treatment {
        Treatment::Refused => {
            let why = if field.note.is_empty() { String::new() } else { format!(": {}", field.note) };
            let message = format!("{param} is not implemented{why}");
            Err(ApiError::field(param, "unsupported_parameter", message))
        }
        Treatment::Neutral(values) if values.iter().any(|v| same(v, value)) => Ok(()),
        Treatment::Neutral(values) => {
            let accepted = match values {
                [] => "null".to_owned(),
                some => format!("{} or null", some.join(", ")),
            };
            let message = format!("{param}: {} is not implemented; accepted: {accepted}", short(value));
            Err(ApiError::unsupported(param, message))
        }
        Treatment::Honoured | Treatment::NoEffect => check_kind(field.kind, value, param),
    }
}

/// Whether a value is the one that `text` spells; 1 and 1.0 are the same number.
fn same(text: &str, value: &Value) -> bool {
    let spelt: Option<Value> = serde_json::from_str(text).ok();
    match (spelt, value) {
        (Some(Value::Number(a)), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (spelt, value) => spelt.as_ref() == Some(value),
    }
}

fn check_kind(kind_of: Kind, value: &Value, param: String) -> ApiResult<()> {
    let right_type = match kind_of {
        Kind::Bool => value.is_boolean(),
        Kind::Int(..) => has_no_fraction(value),
        Kind::Number(..) => value.is_number(),
        Kind::Text | Kind::OneOf(_) => value.is_string(),
        Kind::List(..) => value.is_array(),
        Kind::Object => value.is_object(),
        Kind::Mixed(_) => true,
    };
    if !right_type {
        return Err(wrong_type(&param, &expected(kind_of), kind(value)));
    }
    let within = match (kind_of, value) {
        (Kind::Int(low, high), _) => whole(value).is_some_and(|n| (low..=high).contains(&n)),
        (Kind::Number(low, high), _) => value.as_f64().is_some_and(|n| (low..=high).contains(&n)),
        (Kind::OneOf(words), Value::String(s)) => words.contains(&s.as_str()),
        (Kind::List(low, high), Value::Array(list)) => (low..=high).contains(&list.len()),
        _ => true,
    };
    if within {
        return Ok(());
    }
    let found = match value {
        Value::Array(list) => format!("{} values", list.len()),
        other => short(other),
    };
    let expected = match (kind_of, whole(value)) {
        // Too large for any field, also for one without a limit of its own.
        (Kind::Int(low, high), None) => format!("an integer from {low} to {high}"),
        _ => expected(kind_of),
    };
    let message = format!("{param}: expected {expected}, found {found}");
    Err(ApiError::value(param, message))
}

/// A value for a message: its first characters.
pub fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A kind in words, for messages and the documentation.
pub fn expected(kind: Kind) -> String {
    match kind {
        Kind::Bool => "a boolean".into(),
        Kind::Int(i64::MIN, i64::MAX) => "an integer".into(),
        Kind::Int(low, i64::MAX) => format!("an integer, {low} or more"),
        Kind::Int(low, high) => format!("an integer from {low} to {high}"),
        Kind::Number(low, high) => format!("a number from {low} to {high}"),
        Kind::Text => "a string".into(),
        Kind::OneOf(words) => format!("\"{}\"", words.join("\" or \"")),
        Kind::List(0, usize::MAX) => "an array".into(),
        Kind::List(low, usize::MAX) => format!("an array of {low} or more"),
        Kind::List(low, high) => format!("an array of {low} to {high}"),
        Kind::Object => "an object".into(),
        Kind::Mixed(what) => what.into(),
    }
}
