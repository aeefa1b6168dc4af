//! Schemas as people have them: every edition, references of every kind, keywords that reduce to what a
//! grammar can say, and what a grammar cannot remember.

mod grammar_support;

use grammar_support::{BYTES, Random, accepts, allowed};
use serde_json::{Value, json};
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::{GrammarConstraint, GrammarError, JsonSpacing};
use tessera_engine::tools::{Tool, ToolChoice, ToolFormat};

fn compact(schema: &Value) -> GrammarConstraint {
    BYTES.json_schema(schema, JsonSpacing::Compact).unwrap_or_else(|e| panic!("{schema}: {e}"))
}

/// Texts that are let through, and texts that are not. The validator agrees, and takes random outputs.
fn check(schema: Value, good: &[&str], bad: &[&str]) {
    let constraint = compact(&schema);
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    for text in good {
        assert!(accepts(&constraint, text), "{schema} does not let {text} through");
        assert!(validator.is_valid(&serde_json::from_str(text).unwrap()), "{schema} forbids {text}");
    }
    for text in bad {
        assert!(!accepts(&constraint, text), "{schema} lets {text} through");
    }
    for seed in 0..8 {
        if let Some(text) = walk(&constraint, &mut Random(seed)) {
            // Numbers may be beyond f64.
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            assert!(validator.is_valid(&value), "{schema} lets {text} through");
        }
    }
}

/// A random text, if it comes to an end.
fn walk(constraint: &GrammarConstraint, random: &mut Random) -> Option<String> {
    let (mut constraint, mut ids) = (constraint.clone(), Vec::new());
    for step in 0..2_000 {
        let tokens = allowed(constraint.mask().ok()?);
        let closing: Vec<u32> =
            tokens.iter().copied().filter(|t| "\"]}".contains(&*BYTES.tokenizer().decode(&[*t]))).collect();
        let pool = if closing.is_empty() || random.below(100) > step { &tokens } else { &closing };
        let token = *pool.get(random.below(pool.len().max(1)))?;
        if token == grammar_support::END {
            return Some(BYTES.tokenizer().decode(&ids));
        }
        constraint.accept(token).ok()?;
        ids.push(token);
        if constraint.finished() {
            return Some(BYTES.tokenizer().decode(&ids));
        }
    }
    None
}

#[test]
fn alternatives_behind_references_are_told_apart() {
    let of = |kind: &str, more: &str| json!({"type": "object", "properties": {"k": {"type": "string", "const": kind}, more: {"type": "boolean"}}, "required": ["k", more]});
    check(
        json!({
            "$defs": {"A": of("a", "x"), "B": of("b", "y")},
            "type": "object", "properties": {"d": {"oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}},
            "required": ["d"], "additionalProperties": false,
        }),
        &[r#"{"d":{"k":"a","x":true}}"#, r#"{"d":{"k":"b","y":false}}"#],
        &[r#"{"d":{"k":"a","y":true}}"#, r#"{"d":{"k":"c","x":true}}"#],
    );
    // By no single member, but by two.
    let pair = |a: &str, b: &str| json!({"properties": {"a": {"const": a}, "b": {"const": b}}, "required": ["a", "b"]});
    check(
        json!({"type": "object", "oneOf": [pair("1", "1"), pair("1", "2"), pair("2", "1")]}),
        &[r#"{"a":"1","b":"1"}"#, r#"{"a":"1","b":"2"}"#, r#"{"a":"2","b":"1"}"#],
        &[r#"{"a":"2","b":"2"}"#],
    );
    // By what is there.
    check(
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "additionalProperties": false,
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        &[r#"{"a":null}"#, r#"{"b":null}"#],
        &["{}", r#"{"a":null,"b":null}"#],
    );
    // What both take is left out.
    check(
        json!({"oneOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "string", "maxLength": 1}]}),
        &[r#""c""#, r#""""#],
        &[r#""a""#, r#""b""#, r#""cc""#],
    );
    check(
        json!({"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}]}),
        &[r#""ab""#, r#""b""#],
        &[r#""c""#],
    );
}

/// What is written for a schema may be less than it allows; alternatives are apart only if what it allows is.
#[test]
fn what_is_written_narrower_tells_nothing_apart() {
    let refused = |schema: Value, keyword: &str| match BYTES.json_schema(&schema, JsonSpacing::Compact) {
        Err(GrammarError::Schema { keyword: found, message, .. }) => assert_eq!(found, keyword, "{message}"),
        Err(other) => panic!("{schema}: {other}"),
        Ok(_) => panic!("{schema} is taken"),
    };
    // To some validators a format is an annotation, and an IPv6 address may have dots.
    refused(json!({"type": "string", "oneOf": [{"format": "ipv6"}, {"pattern": "[.]"}]}), "pattern");
    refused(json!({"oneOf": [{"enum": ["2016-12-31T23:59:60Z"]}, {"format": "date-time"}]}), "format");
    check(
        json!({"oneOf": [{"type": "string", "format": "date"}, {"type": "null"}]}),
        &["null", r#""2020-02-29""#],
        &[r#""2021-02-29""#],
    );
    // Both take 1e20.
    let constraint = compact(
        &json!({"oneOf": [{"type": "number"}, {"type": "number", "maximum": 1e300}, {"type": "null"}]}),
    );
    assert!(accepts(&constraint, "null") && !accepts(&constraint, "1e20") && !accepts(&constraint, "1"));
    // Both take ["x", 1].
    let constraint = compact(&json!({"type": "array", "oneOf": [
        {"prefixItems": [{"type": "string"}], "minItems": 1}, {"not": {"items": {"type": "string"}}}, {"maxItems": 0}]}));
    assert!(!accepts(&constraint, r#"["x",1]"#) && accepts(&constraint, r#"["x","y"]"#));
}

#[test]
fn older_editions_are_enforced() {
    check(
        json!({
            "$schema": "http://json-schema.org/draft-04/schema#", "id": "http://example.com/root.json",
            "type": "object", "required": ["n", "t"], "additionalProperties": false,
            "properties": {
                "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": true, "maximum": 3, "exclusiveMaximum": false},
                "t": {"$ref": "#/definitions/pair"},
                "u": {"$ref": "other.json"},
            },
            "definitions": {
                "pair": {"type": "array", "items": [{"type": "null"}, {"type": "boolean"}], "additionalItems": false, "minItems": 2},
                "other": {"id": "other.json", "enum": ["x"]},
            },
        }),
        &[r#"{"n":1,"t":[null,true]}"#, r#"{"n":3,"t":[null,false],"u":"x"}"#],
        &[
            r#"{"n":0,"t":[null,true]}"#,
            r#"{"n":4,"t":[null,true]}"#,
            r#"{"n":1,"t":[null]}"#,
            r#"{"n":1,"t":[null,true,1]}"#,
            r#"{"n":1,"t":[null,true],"u":"y"}"#,
        ],
    );
    // An edition of its own inside.
    check(
        json!({"type": "array", "minItems": 1, "items": {"$id": "http://example.com/old", "$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"const": 1}], "additionalItems": false, "minItems": 1}}),
        &["[[1]]"],
        &["[[2]]", "[[1,1]]"],
    );
}

#[test]
fn identifiers_and_anchors_are_followed() {
    check(
        json!({
            "$id": "https://example.com/a/root", "type": "object", "required": ["x", "y", "z", "w"], "additionalProperties": false,
            "properties": {
                "x": {"$ref": "item"}, "y": {"$ref": "https://example.com/a/item#/$defs/deep"},
                "z": {"$ref": "#here"}, "w": {"$ref": "item#there"},
            },
            "$defs": {
                "i": {"$id": "item", "const": 1, "$defs": {"deep": {"$ref": "#/$defs/deeper"}, "deeper": {"const": 2}, "t": {"$anchor": "there", "const": 4}}},
                "h": {"$anchor": "here", "const": 3},
            },
        }),
        &[r#"{"x":1,"y":2,"z":3,"w":4}"#],
        &[r#"{"x":2,"y":2,"z":3,"w":4}"#, r#"{"x":1,"y":1,"z":3,"w":4}"#, r#"{"x":1,"y":2,"z":4,"w":4}"#],
    );
}

#[test]
fn words_of_others_are_annotations() {
    let schema = json!({
        "type": "object", "propertyOrder": 3, "preferredOrder": ["a"], "_format": "x", "links": [], "markdownDescription": "m",
        "additionalProperties": false, "required": ["a"], "nullable": true,
        "properties": {"a": {"type": "string", "format": "path", "maxLength": 1, "enumNames": ["x"]}, "n": {"type": "integer", "format": "int32", "example": 3}},
    });
    check(schema, &[r#"{"a":"x"}"#, r#"{"a":"x","n":4}"#], &[r#"{"a":"xx"}"#, r#"{"n":4}"#, "null"]);
    for (schema, meant) in [
        (json!({"maxLenght": 3}), "maxLength"),
        (json!({"properties": {"a": {"requried": []}}}), "required"),
        (json!({"type": "integer", "min": 3}), "minimum"),
        (json!({"type": "object", "Properties": {}}), "properties"),
    ] {
        let error = BYTES.json_schema(&schema, JsonSpacing::Compact).unwrap_err();
        assert!(error.to_string().contains(&format!("{meant:?}")), "{schema}: {error}");
    }
}

#[test]
fn opposites_and_conditions_hold() {
    check(
        json!({"not": {"type": ["object", "array", "string", "number"]}}),
        &["null", "true"],
        &["1", "{}", r#""""#],
    );
    check(
        json!({"enum": ["a", "b", 3, null], "not": {"enum": ["b", null]}}),
        &[r#""a""#, "3"],
        &[r#""b""#, "null"],
    );
    check(
        json!({"type": "string", "not": {"enum": ["", "ab", "a\"c"]}, "maxLength": 3}),
        &[r#""a""#, r#""abc""#, r#""b""#],
        &[r#""""#, r#""ab""#, r#""a\"c""#],
    );
    check(
        json!({"type": "integer", "minimum": 0, "maximum": 3, "not": {"const": 2}}),
        &["0", "1", "3"],
        &["2", "4"],
    );
    check(
        json!({"type": "number", "maximum": 1.5, "not": {"const": 1.0}}),
        &["0.5", "1.25", "-1"],
        &["1", "1.0", "1.00"],
    );
    check(
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}),
        &["0.25", "0.001"],
        &["0", "0.0", "0.5", "-0"],
    );
    check(
        json!({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}),
        &["-0.25", "-0.5"],
        &["0", "-0", "-0.0"],
    );
    check(json!({"type": "number", "minimum": -7.5, "exclusiveMaximum": -7}), &["-7.25"], &["-7", "-7.0"]);
    check(
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "additionalProperties": false, "not": {"required": ["a", "b"]}}),
        &["{}", r#"{"a":null}"#, r#"{"b":null}"#],
        &[r#"{"a":null,"b":null}"#],
    );
    check(
        json!({
            "type": "object", "required": ["kind"], "additionalProperties": false,
            "properties": {"kind": {"enum": ["file", "url"]}, "path": {"type": "boolean"}, "href": {"type": "null"}},
            "allOf": [
                {"if": {"properties": {"kind": {"const": "file"}}}, "then": {"required": ["path"]}, "else": {"properties": {"path": false}}},
                {"if": {"properties": {"kind": {"const": "url"}}, "required": ["kind"]}, "then": {"required": ["href"]}},
            ],
        }),
        &[r#"{"kind":"file","path":true}"#, r#"{"kind":"url","href":null}"#],
        &[r#"{"kind":"file"}"#, r#"{"kind":"url"}"#, r#"{"kind":"url","path":true,"href":null}"#],
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "additionalProperties": false,
            "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"b": {"properties": {"c": false}}}}),
        &["{}", r#"{"a":null,"b":null}"#, r#"{"c":null}"#],
        &[r#"{"a":null}"#, r#"{"b":null,"c":null}"#],
    );
}

#[test]
fn names_and_counts_hold() {
    check(
        json!({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "null"}}),
        &["{}", r#"{"a":null,"b":null}"#],
        &[r#"{"c":null}"#, r#"{"a":1}"#],
    );
    check(
        json!({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "properties": {"A": {}, "b": {"type": "null"}}, "maxProperties": 2}),
        &[r#"{"b":null}"#, r#"{"c":1}"#],
        &[r#"{"A":1}"#, r#"{"C":1}"#, r#"{"b":1}"#, r#"{"b":null,"c":1,"d":1}"#],
    );
    let three = json!({"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}});
    check(
        json!({"type": "object", "properties": three, "additionalProperties": false, "minProperties": 2, "maxProperties": 2}),
        &[r#"{"a":null,"b":null}"#, r#"{"a":null,"c":null}"#, r#"{"b":null,"c":null}"#],
        &["{}", r#"{"c":null}"#, r#"{"a":null,"b":null,"c":null}"#],
    );
    check(
        json!({"type": "object", "properties": three, "minProperties": 1}),
        &[r#"{"b":null}"#, r#"{"x":1}"#],
        &["{}"],
    );
    check(
        json!({"$defs": {"b": {"properties": {"b": {"type": "null"}}}}, "type": "object", "properties": {"a": {"type": "null"}}, "allOf": [{"$ref": "#/$defs/b"}], "unevaluatedProperties": false}),
        &["{}", r#"{"a":null,"b":null}"#],
        &[r#"{"c":1}"#, r#"{"b":1}"#],
    );
    check(
        json!({"type": "array", "items": {"enum": [1, 2, 3]}, "contains": {"const": 3}, "maxContains": 1, "maxItems": 3}),
        &["[3]", "[3,1,2]"],
        &["[]", "[1]", "[3,3]"],
    );
    // A member that depends on itself.
    check(
        json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "dependentRequired": {"a": ["a", "b"]}, "minProperties": 2}),
        &[r#"{"a":null,"b":null}"#],
        &["{}", r#"{"a":null}"#],
    );
    // Bounds that nobody can write exactly are kept on the safe side.
    check(
        json!({"type": "integer", "minimum": 0, "maximum": 18446744073709551615u64}),
        &["0", "9007199254740991"],
        &["-1"],
    );
}

/// No edition has both words: what a schema under `dependencies` has looked at is unevaluated.
#[test]
fn dependencies_evaluate_nothing() {
    let other = json!({"properties": {"b": {"type": "null"}}});
    for seen in [other.clone(), json!({"unevaluatedProperties": true}), json!({"additionalProperties": true})]
    {
        let schema = |keyword: &str| {
            json!({"type": "object", keyword: {"a": seen}, "properties": {"a": {"type": "null"}},
                "unevaluatedProperties": false})
        };
        check(schema("dependencies"), &["{}", r#"{"a":null}"#], &[r#"{"a":null,"b":null}"#]);
        check(schema("dependentSchemas"), &["{}", r#"{"a":null,"b":null}"#], &[r#"{"b":null}"#]);
    }
    check(
        json!({"dependencies": {"a": {"unevaluatedProperties": true, "minProperties": 1}}, "unevaluatedProperties": {"not": {}}}),
        &["{}", "6"],
        &[r#"{"a":6}"#, r#"{"b":6}"#],
    );
    // Nor does it in a schema that is pointed to, nor where a schema holds both.
    check(
        json!({"$defs": {"d": {"dependencies": {"a": other}, "dependentSchemas": {"a": {"properties": {"a": {}}}}}},
            "type": "object", "$ref": "#/$defs/d", "unevaluatedProperties": false}),
        &["{}", r#"{"a":1}"#],
        &[r#"{"a":1,"b":null}"#],
    );
}

#[test]
fn no_member_and_no_item_comes_twice() {
    check(
        json!({"type": "object", "additionalProperties": {"type": "null"}}),
        &[r#"{"a":null,"b":null,"aa":null}"#, r#"{"a\"":null,"a":null}"#],
        &[r#"{"a":null,"a":null}"#, r#"{"a":null,"b":null,"a":null}"#, r#"{"a\"":null,"a\"":null}"#],
    );
    check(
        json!({"type": "object"}),
        &[r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#],
        &[r#"{"a":{"b":1,"b":1}}"#],
    );
    let mut constraint = compact(
        &json!({"type": "array", "uniqueItems": true, "items": {"enum": ["red", "reddish", "blue"]}}),
    );
    let take = |constraint: &mut GrammarConstraint, text: &str| {
        BYTES.tokenizer().encode_ordinary(text).unwrap().into_iter().all(|t| constraint.accept(t).is_ok())
    };
    assert!(take(&mut constraint, r#"["red","#));
    // What can only become a repetition is not even begun.
    let next = |constraint: &mut GrammarConstraint| {
        let mask = constraint.mask().unwrap().to_vec();
        BYTES.tokenizer().decode(&allowed(&mask))
    };
    assert!(take(&mut constraint, r#""r"#));
    assert!(take(&mut constraint, "edd") && next(&mut constraint) == "i");
    assert!(take(&mut constraint, r#"ish","#) && next(&mut constraint) == "\"");
    assert!(take(&mut constraint, "\"") && next(&mut constraint) == "b");
    assert!(take(&mut constraint, "blue\"") && next(&mut constraint) == "]");
    check(
        json!({"type": "object", "required": ["l", "m"], "additionalProperties": false, "properties": {
            "l": {"type": "array", "uniqueItems": true, "items": {"type": ["string", "number", "object", "array"]}},
            "m": {"type": "array", "items": {"type": ["string", "number"]}}}}),
        &[r#"{"l":["a","b",1,{"a":1},{"a":2},[1],[2]],"m":["a","a",1,1]}"#],
        &[
            r#"{"l":["a","a"],"m":[]}"#,
            r#"{"l":[1,1.0],"m":[]}"#,
            r#"{"l":[{"a":1,"b":2},{"b":2,"a":1}],"m":[]}"#,
            r#"{"l":[[1],[1]],"m":[]}"#,
        ],
    );
    assert!(matches!(
        BYTES.json_schema(
            &json!({"type": "array", "uniqueItems": true, "items": {"type": "boolean"}, "minItems": 3}),
            JsonSpacing::Compact
        ),
        Err(GrammarError::Unusable(_))
    ));
}

#[test]
fn arguments_of_tools_have_no_members_that_nobody_asked_for() {
    let tool = |parameters: Value| {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let tools = Tool::parse_list(&tools).unwrap();
        ToolFormat::Generic.constraint(&BYTES, &tools, &ToolChoice::Required, false).unwrap().unwrap()
    };
    let call = |arguments: &str| format!(r#"{{"name": "f", "arguments": {arguments}}}"#);
    for (parameters, good, bad) in [
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}}}),
            &["{}", r#"{"a": null}"#][..],
            &[r#"{"type": "object"}"#, r#"{"a": null, "b": 1}"#][..],
        ),
        (json!({"type": "object"}), &["{}"], &[r#"{"type": "object"}"#]),
        (
            json!({"type": "object", "properties": {"a": {}}, "additionalProperties": true}),
            &[r#"{"b": 1}"#],
            &[r#"{"b": 1, "b": 1}"#],
        ),
        // What holds for a whole is closed once, not each of its parts.
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "allOf": [{"properties": {"b": {"type": "null"}}}]}),
            &[r#"{"a": null, "b": null}"#],
            &[r#"{"c": 1}"#],
        ),
        (
            json!({"type": "object", "properties": {"o": {"type": "object", "properties": {"x": {"type": "null"}}}, "free": {"type": "object"}}, "required": ["y"]}),
            &[r#"{"o": {"x": null}, "free": {"z": 1}, "y": 1}"#, r#"{"o": {}, "y": 1}"#],
            &[r#"{"o": {"z": 1}, "y": 1}"#, r#"{"free": {"z": 1, "z": 2}, "y": 1}"#],
        ),
    ] {
        let constraint = tool(parameters.clone());
        for text in good {
            assert!(accepts(&constraint, &call(text)), "{parameters} does not let {text} through");
        }
        for text in bad {
            assert!(!accepts(&constraint, &call(text)), "{parameters} lets {text} through");
        }
    }
}
