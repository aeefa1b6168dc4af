//! Arguments of tools that are written one by one, each outside of JSON: what a schema in the form of
//! [`super::schema`] says about each.

use super::GrammarError;
use serde_json::{Map, Value};

/// A way in which arguments can be: their members, in order.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub members: Vec<Member>,
    /// Whether there may be any others; then none is named.
    pub open: bool,
}

/// An argument.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub name: String,
    pub required: bool,
    pub value: MemberValue,
    /// JSON pointer to the schema of the arguments that it belongs to.
    pub pointer: String,
}

/// What an argument may be.
#[derive(Clone, Debug)]
pub(crate) struct MemberValue {
    /// The schema, as it follows `%json`.
    pub json: String,
    /// Where it is text and nothing else: what the text may be.
    pub text: Option<Vec<Text>>,
}

/// One sort of text.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// One of these.
    Literals(Vec<String>),
    /// Any of a length; with a pattern, or several, it can be written as JSON only.
    Free { min: u64, max: Option<u64>, patterns: bool },
}

/// What the members of a tool's arguments can be.
pub(super) fn ways(whole: &Value, id: usize, pointer: &str) -> Result<Vec<Way>, GrammarError> {
    let root = &whole["$defs"][format!("d{id}")];
    match root["anyOf"].as_array() {
        Some(ways) => ways.iter().map(|way| of_object(whole, way, pointer)).collect(),
        None if *root == Value::Bool(false) => Ok(Vec::new()),
        None => Ok(vec![of_object(whole, root, pointer)?]),
    }
}

fn of_object(whole: &Value, object: &Value, pointer: &str) -> Result<Way, GrammarError> {
    let refused = |keyword: &str| GrammarError::Schema {
        pointer: format!("{pointer}/{keyword}"),
        keyword: keyword.to_owned(),
        message: "cannot be held to in this model's format of calls, where each argument stands for itself"
            .to_owned(),
    };
    for keyword in ["patternProperties", "minProperties", "maxProperties"] {
        if object.get(keyword).is_some() {
            return Err(refused(keyword));
        }
    }
    let none = Map::new();
    let properties = object["properties"].as_object().unwrap_or(&none);
    // Whatever is left out may be anything.
    let open = match object.get("additionalProperties") {
        Some(Value::Bool(false)) => false,
        None if properties.is_empty() => true,
        _ => return Err(refused("additionalProperties")),
    };
    let is_required = |name: &str| {
        object["required"]
            .as_array()
            .is_some_and(|list| list.iter().any(|other| other.as_str() == Some(name)))
    };
    let mut members = Vec::with_capacity(properties.len());
    for (name, schema) in properties {
        if *schema == Value::Bool(false) && !is_required(name) {
            continue;
        }
        members.push(Member {
            name: name.clone(),
            required: is_required(name),
            value: value(whole, schema),
            pointer: pointer.to_owned(),
        });
    }
    Ok(Way { members, open })
}

fn value(whole: &Value, schema: &Value) -> MemberValue {
    let mut root = Map::new();
    match schema {
        Value::Object(map) => root.extend(map.clone()),
        Value::Bool(false) => drop(root.insert("not".to_owned(), Value::Object(Map::new()))),
        _ => {}
    }
    let forms = schema["anyOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
    MemberValue { json: pruned(whole, root), text: forms.iter().map(text).collect() }
}

fn text(form: &Value) -> Option<Text> {
    if let Some(literals) = form["enum"].as_array() {
        return literals
            .iter()
            .map(|literal| literal.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Text::Literals);
    }
    (form["type"] == "string").then(|| Text::Free {
        min: form["minLength"].as_u64().unwrap_or(0),
        max: form["maxLength"].as_u64(),
        patterns: form.get("pattern").is_some() || form.get("allOf").is_some(),
    })
}

/// A schema with the definitions of `whole` that it leads to, and no others.
pub(super) fn pruned(whole: &Value, root: Map<String, Value>) -> String {
    let mut needed = Vec::new();
    let mut open = Vec::new();
    references(&Value::Object(root.clone()), &mut open);
    while let Some(name) = open.pop() {
        if !needed.contains(&name) {
            references(&whole["$defs"][&name], &mut open);
            needed.push(name);
        }
    }
    needed.sort_unstable();
    let definitions = needed.into_iter().map(|name| {
        let definition = whole["$defs"][&name].clone();
        (name, definition)
    });
    let mut out = Map::from_iter([("x-guidance".to_owned(), whole["x-guidance"].clone())]);
    out.extend(root);
    let definitions: Map<String, Value> = definitions.collect();
    if !definitions.is_empty() {
        out.insert("$defs".to_owned(), Value::Object(definitions));
    }
    Value::Object(out).to_string()
}

fn references(schema: &Value, out: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(|r| r.as_str()?.strip_prefix("#/$defs/")).map(str::to_owned));
            // Literals are no schemas; a member may have their keyword's name.
            let schemas = map.iter().filter(|(key, value)| *key != "enum" || !value.is_array());
            schemas.for_each(|(_, value)| references(value, out));
        }
        Value::Array(list) => list.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}
