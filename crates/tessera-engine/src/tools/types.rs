//! What type an argument has that is written as text, by the tool's schema.

use serde_json::Value;

/// References and alternatives that are followed.
const MAX_DEPTH: usize = 16;

/// The value of a parameter. It is text where the schema has strings only, or where it is no JSON of a type that
/// the schema has.
pub(super) fn of_text(text: &str, schema: Option<&Value>, key: &str) -> Value {
    let property = schema.and_then(|schema| schema.get("properties")?.get(key));
    let mut types = Vec::new();
    if let (Some(root), Some(property)) = (schema, property) {
        collect(root, property, 0, &mut types);
    }
    if types == ["string"] {
        return text.into();
    }
    let word = match text.trim() {
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        trimmed => serde_json::from_str::<Value>(trimmed).ok(),
    };
    let fits = |value: &Value| match value {
        // Without a schema, text in quotes is text.
        Value::String(_) => types.contains(&"string"),
        value => types.is_empty() || of(value).iter().any(|name| types.contains(name)),
    };
    word.filter(fits).unwrap_or_else(|| text.into())
}

/// The types that a schema names, or that its literals have; none if it does not say.
fn collect<'a>(root: &'a Value, schema: &'a Value, depth: usize, out: &mut Vec<&'a str>) {
    if depth > MAX_DEPTH {
        return;
    }
    let mut add = |name: &'a str| {
        if !out.contains(&name) {
            out.push(name);
        }
    };
    match &schema["type"] {
        Value::String(name) => return add(name),
        Value::Array(names) => return names.iter().filter_map(Value::as_str).for_each(add),
        _ => {}
    }
    let literals = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
    literals.flat_map(of).for_each(|name| add(name));
    let reference = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?));
    let alternatives = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    for inner in alternatives.chain(reference) {
        collect(root, inner, depth + 1, out);
    }
}

/// The names of a value's type.
fn of(value: &Value) -> &'static [&'static str] {
    match value {
        Value::Null => &["null"],
        Value::Bool(_) => &["boolean"],
        Value::Number(n) if n.is_f64() => &["number"],
        Value::Number(_) => &["integer", "number"],
        Value::String(_) => &["string"],
        Value::Array(_) => &["array"],
        Value::Object(_) => &["object"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_decides() {
        let schema = json!({
            "properties": {
                "s": {"type": "string"}, "n": {"type": "number"}, "m": {"type": ["string", "null"]},
                "e": {"enum": [1, "1"]}, "r": {"$ref": "#/$defs/list"}, "a": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "c": {"const": "x"},
            },
            "$defs": {"list": {"type": "array"}, "loop": {"$ref": "#/$defs/loop"}},
        });
        for (key, text, value) in [
            ("s", "12", json!("12")),
            ("s", "\"a\"", json!("\"a\"")),
            ("s", " a\n", json!(" a\n")),
            ("n", "12", json!(12)),
            ("n", "x", json!("x")),
            ("m", "null", json!(null)),
            ("m", "None", json!(null)),
            ("m", "\"a\"", json!("a")),
            ("m", "12", json!("12")),
            ("e", "1", json!(1)),
            ("r", "[1, 2]", json!([1, 2])),
            ("r", "{}", json!("{}")),
            ("a", "7", json!(7)),
            ("a", "7.5", json!("7.5")),
            ("c", "x", json!("x")),
            ("unknown", "True", json!(true)),
            ("unknown", "\"a\"", json!("\"a\"")),
        ] {
            assert_eq!(of_text(text, Some(&schema), key), value, "{key} {text}");
        }
        assert_eq!(of_text("{\"a\": 1}", None, "x"), json!({"a": 1}));
        let endless = json!({"properties": {"x": {"$ref": "#/properties/x"}}});
        assert_eq!(of_text("1", Some(&endless), "x"), json!(1));
    }
}
