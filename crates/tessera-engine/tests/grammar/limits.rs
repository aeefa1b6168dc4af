//! Hostile schemas, expressions and grammars end: in an error, or soon.

use super::*;

fn taken(schema: &Value) -> Result<GrammarConstraint, GrammarError> {
    BYTES.json_schema(schema, JsonSpacing::Spaced)
}

#[test]
fn depth_and_size_are_limited() {
    // `json!` would copy what is inside, and so recurse.
    let object = |key: &str, value: Value| Value::Object(std::iter::once((key.to_owned(), value)).collect());
    let mut deep = json!({"type": "string"});
    for _ in 0..10_000 {
        deep = object("items", deep);
    }
    assert!(matches!(taken(&deep), Err(GrammarError::TooLarge { .. })));
    let mut literal = json!(1);
    for _ in 0..10_000 {
        literal = Value::Array(vec![literal]);
    }
    let literal = object("const", literal);
    assert!(taken(&literal).is_err());
    // Dropping values of 10,000 levels is recursive: the concern of whoever parses them.
    std::mem::forget((deep, literal));
    let values: Vec<Value> = (0..100_000).map(|i| json!(format!("value {i}"))).collect();
    assert!(matches!(taken(&json!({"enum": values})), Err(GrammarError::TooLarge { .. })));
    let values: Vec<Value> = (0..2_000).map(|i| json!(format!("value {i}"))).collect();
    assert!(accepts(&taken(&json!({"enum": values})).unwrap(), "\"value 1999\""));
    assert!(BYTES.regex(&"a".repeat(100_000)).is_err());
    assert!(BYTES.regex(&"(".repeat(5_000)).is_err());
    assert!(BYTES.lark(&format!("start: {}\"a\"{}", "(".repeat(3_000), ")".repeat(3_000))).is_err());
    assert!(BYTES.lark(&"a".repeat(100_000)).is_err());
}

#[test]
fn as_deep_as_a_schema_may_be() {
    // On the stack of an ordinary thread.
    let nested =
        |wrap: fn(Value) -> Value, levels: usize| (0..levels).fold(json!({"type": "null"}), |v, _| wrap(v));
    for wrap in [
        (|v| json!({"type": "array", "items": v})) as fn(Value) -> Value,
        |v| json!({"type": "object", "properties": {"a": v}, "required": ["a"]}),
        |v| json!({"anyOf": [{"type": "string"}, v]}),
        |v| json!({"allOf": [v, {}]}),
    ] {
        if let Err(error) = taken(&nested(wrap, 60)) {
            panic!("{error}");
        }
        assert!(taken(&nested(wrap, 70)).is_err());
    }
    let chain = |n: usize| -> Value {
        let definitions = (0..n)
            .map(|i| (format!("a{i}"), json!({"items": {"$ref": format!("#/$defs/a{}", (i + 1) % n)}})));
        json!({"$ref": "#/$defs/a0", "$defs": definitions.collect::<serde_json::Map<String, Value>>()})
    };
    taken(&chain(30)).unwrap();
    assert!(taken(&chain(3_000)).is_err());
    // All of them known to the root, each met first in the one before.
    let known = |n: usize| -> Value {
        let mut schema = chain(n);
        let all = (0..n).map(|i| (format!("p{i}"), json!({"$ref": format!("#/$defs/a{i}")})));
        schema["properties"] = all.collect::<serde_json::Map<String, Value>>().into();
        schema
    };
    taken(&known(600)).unwrap();
    assert!(taken(&known(2_500)).is_err());
    // Alternatives that meet themselves again and again.
    let again = json!({
        "items": {"additionalProperties": {"allOf": [{"format": "uuid"}, {"required": ["x"]}, {"type": ["boolean", "string"]}]}},
        "additionalProperties": {"anyOf": [{"type": "string"}, {"dependentSchemas": {"": {"$ref": "#"}, "x": {"type": ["boolean", "number"]}}}, {"multipleOf": 1, "type": ["object", "string"]}],
            "additionalProperties": {"multipleOf": 2}},
    });
    taken(&again).unwrap();
}

#[test]
fn circles_without_an_end_are_refused() {
    for schema in [
        json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["a"]}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        json!({"type": "array", "prefixItems": [{"$ref": "#/$defs/n"}], "items": {"$ref": "#"}, "minItems": 1, "$defs": {"n": {"type": "null"}}}),
    ] {
        taken(&schema).unwrap();
    }
    for schema in [
        json!({"$ref": "#"}),
        // Never ends.
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!({"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "minItems": 1}),
        json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        let error = taken(&schema).unwrap_err();
        assert!(
            matches!(&error, GrammarError::Schema { keyword, .. } if keyword == "$ref"),
            "{schema}: {error}"
        );
    }
}

#[test]
fn schemas_that_multiply_end() {
    let choice = |i: usize| json!({"anyOf": [{"properties": {format!("a{i}"): {"type": "string"}}}, {"properties": {format!("b{i}"): {"type": "null"}}}]});
    assert!(taken(&json!({"type": "object", "allOf": (0..24).map(choice).collect::<Vec<_>>()})).is_err());
    let wide = |n: usize, schema: Value| -> Value {
        let properties = (0..n).map(|i| (format!("property {i}"), schema.clone()));
        json!({"type": "object", "properties": properties.collect::<serde_json::Map<String, Value>>()})
    };
    follow(&mut taken(&wide(3_000, json!({"type": "null"}))).unwrap(), 100);
    assert!(accepts(
        &taken(&wide(3_000, json!({"type": "null"}))).unwrap(),
        r#"{"property 2": null, "property 2999": null}"#
    ));
    for schema in [
        wide(500, json!({"type": "string", "format": "email"})),
        wide(5_000, json!({"type": "string", "pattern": "a[bc]{3,40}d"})),
        json!({"type": "array", "items": {"type": "array", "minItems": 10_000, "items": {"minItems": 10_000}}, "minItems": 10_000}),
        json!({"type": "string", "minLength": 100_000, "pattern": "(a|b)*a(a|b){2000}"}),
        json!({"type": "array", "items": {"type": "string", "minLength": 50_000, "maxLength": 100_000}}),
    ] {
        // Taken or not, it ends, and then every mask ends.
        if let Ok(mut constraint) = taken(&schema) {
            follow(&mut constraint, 50);
        }
    }
}

/// Takes the first token that is allowed, again and again.
fn follow(constraint: &mut GrammarConstraint, steps: usize) {
    for _ in 0..steps {
        let Ok(mask) = constraint.mask() else { return };
        let Some(token) = allowed(mask).into_iter().find(|t| *t != END) else { return };
        match constraint.accept(token) {
            Ok(()) => {}
            // Out of its limits, and told.
            Err(ConstraintError::Failed { what }) => return assert!(!what.is_empty()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn expressions_that_explode_end() {
    for regex in [
        "(a|aa)+$",
        "(.*a){200}",
        "((a{1,200}){1,200}){1,200}",
        "(a|b)*a(a|b){5000}x",
        "(?:(?:(?:x?){50}){50}){50}y",
        "(.{0,1000}[a-f]){0,1000}(.{0,1000}[d-z]){0,1000}",
    ] {
        if let Ok(mut constraint) = BYTES.regex(regex) {
            follow(&mut constraint, 100);
        }
    }
}

/// Ambiguity costs the parser more with every token; the work is counted, so it ends at the same one.
#[test]
fn ambiguous_grammars_end_by_their_work() {
    let a = BYTES.tokenizer().encode_ordinary("a").unwrap()[0];
    let end = |grammar: &str| {
        let mut constraint = BYTES.lark(grammar).unwrap();
        for n in 0..400 {
            match constraint.mask() {
                Ok(mask) => assert!(allows(mask, a)),
                Err(ConstraintError::Failed { what }) => {
                    assert!(what.contains("more work"), "{what}");
                    return n;
                }
                Err(other) => panic!("{other}"),
            }
            constraint.accept(a).unwrap();
        }
        400
    };
    let ambiguous = "start: s\ns: s s s | s s | \"a\" |";
    let first = end(ambiguous);
    assert!((20..250).contains(&first), "{first} tokens");
    assert_eq!(end(ambiguous), first);
    // Recursion alone is none.
    assert_eq!(end("start: s\ns: \"a\" s | \"a\""), 400);
    assert_eq!(end("start: s+\ns: \"a\" t?\nt: \"b\""), 400);
}
