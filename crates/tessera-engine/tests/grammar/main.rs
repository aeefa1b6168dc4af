//! Masks of JSON schemas, regular expressions and grammars: what they let through, and what is refused.

#[path = "../grammar_support/mod.rs"]
mod grammar_support;
mod limits;

use grammar_support::{BYTES, END, ROWS, Random, accepts, allowed, allows};
use serde_json::{Value, json};
use std::sync::Arc;
use tessera_engine::constraint::{Constraint, ConstraintError};
use tessera_engine::grammar::{GrammarConstraint, GrammarEnv, GrammarError, JsonSpacing};
use tessera_engine::reasoning::AfterReasoning;
use tessera_engine::tokenizer::Tokenizer;

fn compact(schema: Value) -> GrammarConstraint {
    BYTES.json_schema(&schema, JsonSpacing::Compact).unwrap_or_else(|e| panic!("{schema}: {e}"))
}

fn check(schema: Value, good: &[&str], bad: &[&str]) {
    let constraint = compact(schema.clone());
    for text in good {
        assert!(accepts(&constraint, text), "{schema} does not let {text} through");
    }
    for text in bad {
        assert!(!accepts(&constraint, text), "{schema} lets {text} through");
    }
}

#[test]
fn what_cannot_be_enforced_is_named_with_its_place() {
    let cases = [
        (
            json!({"properties": {"a/b": {"not": {"multipleOf": 3}}}}),
            "/properties/a~1b/not/multipleOf",
            "multipleOf",
        ),
        (json!({"$dynamicRef": "#x"}), "/$dynamicRef", "$dynamicRef"),
        (json!({"$ref": "https://example.com/s"}), "/$ref", "$ref"),
        (json!({"$ref": "other.json#/a"}), "/$ref", "$ref"),
        (json!({"$ref": "#anchor"}), "/$ref", "$ref"),
        (json!({"$ref": "#/$defs/none"}), "/$ref", "$ref"),
        (json!({"$schema": "https://example.com/mine"}), "/$schema", "$schema"),
        (json!({"x-guidance": {"lenient": true}}), "/x-guidance", "x-guidance"),
        (
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "additionalItems": false}),
            "/additionalItems",
            "additionalItems",
        ),
        (
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "items": [true]}),
            "/items",
            "items",
        ),
        (json!({"pattern": "(?=a)b"}), "/pattern", "pattern"),
        (json!({"pattern": "(a)\\1"}), "/pattern", "pattern"),
        (json!({"pattern": "\\bx"}), "/pattern", "pattern"),
        (json!({"pattern": "\\p{L}"}), "/pattern", "pattern"),
        (json!({"pattern": "a^b"}), "/pattern", "pattern"),
        (json!({"pattern": "(^a)*"}), "/pattern", "pattern"),
        (json!({"pattern": "(^a|b)c?"}), "/pattern", "pattern"),
        (json!({"pattern": "("}), "/pattern", "pattern"),
        (json!({"patternProperties": {"[": {}}}), "/patternProperties", "patternProperties"),
        (json!({"type": "int"}), "/type", "type"),
        (json!({"type": []}), "/type", "type"),
        (json!({"minimum": "3"}), "/minimum", "minimum"),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "exclusiveMinimum": true}),
            "/exclusiveMinimum",
            "exclusiveMinimum",
        ),
        (json!({"minimum": 9007199254740993u64}), "/minimum", "minimum"),
        (json!({"multipleOf": 0}), "/multipleOf", "multipleOf"),
        (json!({"maxLength": -1}), "/maxLength", "maxLength"),
        (json!({"minItems": 1000000}), "/minItems", "minItems"),
        (json!({"required": "a"}), "/required", "required"),
        (json!({"enum": []}), "/enum", "enum"),
        (json!({"const": "a\u{1}"}), "/const", "const"),
        (json!({"allOf": []}), "/allOf", "allOf"),
        (
            json!({"$defs": {"a": {"not": {"pattern": "a"}}}, "anyOf": [{"$ref": "#/$defs/a"}]}),
            "/$defs/a/not/pattern",
            "pattern",
        ),
        (json!({"properties": {"a": 3}}), "/properties/a", ""),
        (json!({"definitons": {}}), "/definitons", "definitons"),
        // Overlapping alternatives: exactly one of them is more than a mask can promise.
        (
            json!({"items": {"oneOf": [{"type": "string"}, {"pattern": "x"}]}}),
            "/items/oneOf/1/pattern",
            "pattern",
        ),
        (json!({"$schema": "http://json-schema.org/draft-03/schema#"}), "/$schema", "$schema"),
        (json!({"divisibleBy": 2}), "/divisibleBy", "divisibleBy"),
        (json!({"maxLenght": 2}), "/maxLenght", "maxLenght"),
        (json!({"items": {"requried": ["a"]}}), "/items/requried", "requried"),
        (json!({"min": 2}), "/min", "min"),
        (json!({"not": {"format": "date"}}), "/not/format", "format"),
        (
            json!({"patternProperties": {"^a": {"type": "string"}, "b$": {"type": "null"}}}),
            "/patternProperties",
            "patternProperties",
        ),
    ];
    for (schema, place, name) in cases {
        match BYTES.json_schema(&schema, JsonSpacing::Compact) {
            Err(GrammarError::Schema { pointer, keyword, message }) => {
                assert_eq!((pointer.as_str(), keyword.as_str()), (place, name), "{schema}: {message}");
                assert!(!message.is_empty());
            }
            Err(other) => panic!("{schema}: {other}"),
            Ok(_) => panic!("{schema} is taken"),
        }
    }
    for schema in [
        json!(false),
        json!({"type": "object", "properties": {"a": {"allOf": [{"type": "null"}, {"type": "string"}]}}, "required": ["a"]}),
        json!({"type": "string", "enum": [1]}),
        json!({"oneOf": [{}, {}]}),
    ] {
        let error = BYTES.json_schema(&schema, JsonSpacing::Compact).unwrap_err();
        assert!(matches!(error, GrammarError::Unusable(_)), "{schema}: {error}");
    }
}

#[test]
fn annotations_change_nothing() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/s",
        "$comment": "c", "title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": true,
        "readOnly": true, "writeOnly": true, "x-order": 3, "$defs": {"unused": {"not": {"type": "null"}}},
        "type": "string", "contentEncoding": "base64", "uniqueItems": false, "propertyNames": {"type": "string"},
        "minLength": 1, "maxLength": 2.0,
    });
    check(schema, &[r#""a""#, r#""éé""#, r#""\n\"""#], &[r#""""#, r#""abc""#, "1"]);
}

#[test]
fn keywords_hold() {
    check(
        json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": -3, "maximum": 12}, "b": {"type": ["string", "null"]}}, "required": ["a"], "additionalProperties": false}),
        &[r#"{"a":12}"#, r#"{"a":-3,"b":null}"#, r#"{"a":0,"b":"x"}"#],
        &[r#"{"a":13}"#, r#"{"b":null}"#, r#"{"a":1,"c":1}"#, r#"{"a":1.5}"#, r#"{"a":01}"#, "{}"],
    );
    check(
        json!({"type": "array", "prefixItems": [{"const": 1}, {"enum": ["a", [null], {"k": 2}]}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}),
        &[r#"[1,"a"]"#, r#"[1,[null],true]"#, r#"[1,{"k":2}]"#],
        &[r#"[1]"#, r#"[1,"a",true,true]"#, r#"[1,"a","b"]"#, r#"[2,"a"]"#],
    );
    check(
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}], "additionalItems": false, "type": "array"}),
        &["[null]", "[]"],
        &["[null,1]", "[1]"],
    );
    check(
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "number"}, "kids": {"type": "array", "items": {"$ref": "#/%24defs/tree"}}}, "additionalProperties": false}}}),
        &[r#"{"v":1,"kids":[{"kids":[{}]},{"v":2.5e3}]}"#, "{}"],
        &[r#"{"v":1,"kids":[{"kids":[1]}]}"#],
    );
    check(
        json!({"anyOf": [{"type": "string", "maxLength": 1}, {"type": "number", "multipleOf": 0.5}], "allOf": [true]}),
        &["\"a\"", "1.5", "-2"],
        &["\"ab\"", "1.25", "null"],
    );
    check(
        json!({"oneOf": [{"properties": {"kind": {"const": "a"}, "x": {"type": "null"}}, "required": ["kind"], "type": "object"}, {"properties": {"kind": {"const": "b"}}, "required": ["kind"], "type": "object"}]}),
        &[r#"{"kind":"a","x":null}"#, r#"{"kind":"b","x":1}"#],
        &[r#"{"kind":"a","x":1}"#, r#"{"kind":"c"}"#, "{}"],
    );
    check(
        json!({"type": "object", "patternProperties": {"^n_": {"type": "number"}}, "additionalProperties": {"type": "string"}, "maxProperties": 2}),
        &[r#"{"n_a":1,"b":"x"}"#, "{}"],
        &[r#"{"n_a":"x"}"#, r#"{"b":1}"#, r#"{"a":"","b":"","c":""}"#],
    );
}

/// Ways in which a name or a character can be written that a check of the usual one would miss.
#[test]
fn there_is_no_second_spelling() {
    check(
        json!({"type": "object", "properties": {"foo": {"type": "integer"}}}),
        &[r#"{"foo":1}"#, r#"{"fo":"x"}"#],
        &[r#"{"f\u006fo":"x"}"#, r#"{"foo":"x"}"#, r#"{"foo":1,"foo":"x"}"#],
    );
    check(
        json!({"type": "object", "patternProperties": {"^a\"?$": {"type": "integer"}}}),
        &[r#"{"a\"":1}"#, r#"{"b":"x"}"#],
        &[r#"{"a\"":"x"}"#, r#"{"a\u0022":"x"}"#, r#"{"\u0061":"x"}"#],
    );
    check(json!({"type": "string", "pattern": "^[^\"]*$"}), &[r#""a\n""#], &[r#""\"""#, r#""\u0022""#]);
    check(json!({"type": "string", "pattern": "^[^\\\\]*$"}), &[r#""\"""#], &[r#""\\""#]);
    check(json!({"type": "string", "pattern": "^[^\\n]$"}), &[r#""\t""#], &[r#""\n""#, r#""\u000a""#]);
    check(
        json!({"type": "string", "pattern": "^.$"}),
        &[r#""\t""#, "\"\u{1F432}\""],
        &[r#""\r""#, "\"\u{2028}\""],
    );
    check(json!({"type": "string", "pattern": "^\\s$"}), &["\"\u{feff}\""], &["\"\u{85}\""]);
    check(json!({"type": "string", "pattern": "^\\d$"}), &["\"7\""], &["\"٧\""]);
    check(json!({"enum": ["a\nb", "\u{8}"]}), &[r#""a\nb""#, r#""\b""#], &[r#""a\u000ab""#]);
    // Two members of one name count once.
    check(json!({"type": "object", "minProperties": 1}), &[r#"{"a":1}"#], &["{}"]);
}

#[test]
fn patterns_are_searched_for() {
    for (pattern, good, bad) in [
        ("b", &["abc", "b"][..], &["ac"][..]),
        ("^a|b$", &["ax", "xb"], &["xa", "bx"]),
        ("^(a|b)$", &["a", "b"], &["ab", ""]),
        ("(^a|b)", &["ax", "xbx"], &["xa"]),
        ("^(?:(?<y>[0-9]{2,3})-){2}x*?$", &["12-345-xx", "00-00-"], &["1-22-", "12-34"]),
        ("^[\\w.-]+@[a-c\\]]$", &["a.b-c@]", "_@c"], &["@a", "a@d"]),
        ("^\\u{1F600}\\uD83D\\uDE00\\x41\\cJ?$", &["😀😀A"], &["😀A"]),
        ("^$", &[""], &["a"]),
        ("", &["", "a"], &[]),
        ("^a{2}$", &["aa"], &["a", "aaa"]),
        ("\\/", &["a/b"], &["ab"]),
    ] {
        let constraint = compact(json!({"type": "string", "pattern": pattern}));
        for text in good {
            assert!(accepts(&constraint, &Value::from(*text).to_string()), "{pattern} {text}");
        }
        for text in bad {
            assert!(!accepts(&constraint, &Value::from(*text).to_string()), "{pattern} {text}");
        }
    }
}

/// Whether a decimal text is within the bounds, by exact arithmetic on tenths of thousandths.
fn scaled(text: &str) -> i64 {
    let (whole, fraction) =
        text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
    let value = whole.parse::<i64>().unwrap() * 10_000 + format!("{fraction:0<4}").parse::<i64>().unwrap();
    if text.starts_with('-') { -value } else { value }
}

#[test]
fn bounds_of_numbers_hold() {
    let mut random = Random(7);
    let mut number = |places: usize| {
        let digits = random.below(5);
        let whole = random.below(10usize.pow(digits as u32));
        let sign = if random.below(2) == 0 { "-" } else { "" };
        match random.below(places + 1) {
            0 => format!("{sign}{whole}"),
            n => format!("{sign}{whole}.{:0n$}", random.below(10usize.pow(n as u32))),
        }
    };
    for round in 0..150 {
        let (low, high) = (number(3), number(3));
        let (low, high) = if scaled(&low) <= scaled(&high) { (low, high) } else { (high, low) };
        let exclusive = round % 3 == 0;
        let names = if exclusive { ("exclusiveMinimum", "exclusiveMaximum") } else { ("minimum", "maximum") };
        let mut schema = json!({"type": if round % 4 == 1 { "integer" } else { "number" }});
        let multiple = [None, Some("0.25"), Some("3")][round % 5 % 3];
        if round % 7 != 0 {
            schema[names.0] = low.parse::<f64>().unwrap().into();
        }
        if round % 7 != 1 {
            schema[names.1] = high.parse::<f64>().unwrap().into();
        }
        if let Some(multiple) = multiple {
            schema["multipleOf"] = multiple.parse::<f64>().unwrap().into();
        }
        let Ok(constraint) = BYTES.json_schema(&schema, JsonSpacing::Compact) else { continue };
        let near =
            [low.clone(), high.clone(), format!("{low}1"), format!("{high}01"), "0".into(), "-0".into()];
        let texts: Vec<String> = near.into_iter().chain((0..40).map(|_| number(4))).collect();
        for text in texts.iter().filter(|t| t.split_once('.').is_none_or(|(_, f)| f.len() <= 4)) {
            if !accepts(&constraint, text) {
                continue;
            }
            let value = scaled(text);
            let above = |bound: &str| value > scaled(bound) || (!exclusive && value == scaled(bound));
            let below = |bound: &str| value < scaled(bound) || (!exclusive && value == scaled(bound));
            let fits = (round % 7 == 0 || above(&low)) && (round % 7 == 1 || below(&high));
            let whole = round % 4 != 1 || value % 10_000 == 0;
            let multiple = multiple.is_none_or(|m| value % scaled(m) == 0);
            assert!(fits && whole && multiple, "{schema} lets {text} through");
        }
    }
}

/// Schemas for random walks.
fn schemas() -> Vec<Value> {
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null]}, "maxItems": 3},
            "more": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        },
        "required": ["name", "age"],
    });
    let mut all = vec![
        person,
        json!({"type": "object"}),
        json!({"type": "array", "items": {"type": "number", "exclusiveMinimum": -2.5, "maximum": 7}, "minItems": 2}),
        json!({"type": "number", "multipleOf": 0.05}),
        json!({"type": "integer", "multipleOf": 7, "minimum": -100}),
        json!({"type": "string", "pattern": "^[^\"\\\\a-y]{2,5}$"}),
        json!({"type": "string", "pattern": "[xy]z", "maxLength": 6}),
        json!({"type": "object", "patternProperties": {"^[a-c]+$": {"type": "boolean"}}, "additionalProperties": {"type": "integer"}, "maxProperties": 3}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": false}, "additionalProperties": {"type": "boolean"}}),
        json!({"type": "object", "properties": {"a": true, "b": true}, "minProperties": 1, "additionalProperties": false}),
        json!({"allOf": [{"properties": {"x": {"minimum": 3}}}, {"properties": {"x": {"type": "integer", "maximum": 9}}, "required": ["x"]}], "type": "object", "maxProperties": 2}),
        json!({"oneOf": [{"type": "string", "maxLength": 2}, {"type": "array", "items": {"type": "boolean"}}, {"type": "null"}]}),
        json!({"prefixItems": [{"type": "string", "maxLength": 2}, {"type": "boolean"}], "items": {"type": "null"}, "type": "array"}),
        json!({"enum": ["é\n\"", 1.5, -3, [1, "a"], {"k": [true]}, null]}),
        json!({"properties": {"a": {"const": 1}}, "required": ["a", "z"], "type": "object"}),
        json!({"type": ["integer", "string"], "minimum": 5, "maxLength": 1}),
    ];
    for format in [
        "date",
        "time",
        "date-time",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
        "uri",
        "json-pointer",
    ] {
        all.push(json!({"type": "string", "format": format}));
    }
    all
}

#[test]
fn random_walks_end_in_valid_json() {
    let mut random = Random(1);
    let (mut walks, mut ended) = (0, 0);
    for schema in schemas() {
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for spacing in [JsonSpacing::Compact, JsonSpacing::Spaced, JsonSpacing::Free] {
            let start = BYTES.json_schema(&schema, spacing).unwrap_or_else(|e| panic!("{schema}: {e}"));
            for _ in 0..20 {
                walks += 1;
                let Some(text) = walk(&mut start.clone(), &mut random) else { continue };
                // The judge reads longer numbers as f64.
                if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 14) {
                    continue;
                }
                ended += 1;
                let value: Value =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text}: {e}"));
                assert!(validator.is_valid(&value), "{schema} lets {text} through");
            }
        }
    }
    eprintln!("{ended} of {walks} walks ended");
    assert!(ended * 10 > walks * 8, "{ended} of {walks}");
}

/// One random answer; `None` if it does not end soon.
fn walk(constraint: &mut GrammarConstraint, random: &mut Random) -> Option<String> {
    let tokenizer = BYTES.tokenizer();
    let mut ids = Vec::new();
    for step in 0..600 {
        let choices = allowed(constraint.mask().unwrap());
        assert!(!choices.is_empty());
        let ends = choices.contains(&END);
        if ends && (choices.len() == 1 || step > 40 || random.below(3) == 0) {
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap().to_vec()).collect();
            return Some(String::from_utf8(bytes).expect("no broken characters"));
        }
        let plain: Vec<u32> = choices.into_iter().filter(|id| *id != END).collect();
        let closing: Vec<u32> = plain
            .iter()
            .copied()
            // Exponents of random length leave the range of f64.
            .filter(|id| !matches!(tokenizer.token_bytes(*id), Some(b"e" | b"E")) || plain.len() > 40)
            .filter(|id| step < 60 || matches!(tokenizer.token_bytes(*id), Some(b"\"" | b"}" | b"]")))
            .collect();
        let from = if closing.is_empty() { &plain } else { &closing };
        let token = from[random.below(from.len())];
        constraint.accept(token).unwrap();
        ids.push(token);
    }
    None
}

#[test]
fn regular_expressions_and_grammars() {
    let regex = BYTES.regex("(yes|no){1,2} [0-9/]+").unwrap();
    assert!(accepts(&regex, "yesno 1/2") && !accepts(&regex, "maybe") && !accepts(&regex, "yes "));
    for wrong in ["(", "a\\", "(?=a)", "\\bx", "a(?P<stop>b)"] {
        let error = BYTES.regex(wrong).unwrap_err();
        assert!(matches!(&error, GrammarError::Invalid { what: "regex", .. }), "{wrong}: {error}");
        assert!(!error.to_string().contains("state>"), "{error}");
    }
    let lark =
        BYTES.lark("start: greeting \" \" NAME\ngreeting: \"hi\" | \"hello\"\nNAME: /[A-Z][a-z]*/").unwrap();
    assert!(accepts(&lark, "hello Bob") && !accepts(&lark, "hello bob"));
    let lark = BYTES
        .lark("start: \"x=\" %json {\"type\": \"integer\", \"maximum\": 9, \"minimum\": 0} \";\"")
        .unwrap();
    assert!(accepts(&lark, "x=7;") && !accepts(&lark, "x=17;"));
    for wrong in [
        "",
        "start: undefined_rule",
        "start: text\ntext[temperature=0.5]: /a/",
        "start: text\ntext[stop=\"b\"]: /a*/",
        "%llguidance {\"allow_invalid_utf8\": true}\nstart: /a/",
        "start: %json {\"uniqueItems\": true}",
        "start: %json {\"x-guidance\": {\"lenient\": true}}",
    ] {
        assert!(BYTES.lark(wrong).is_err(), "{wrong}");
    }
    assert!(accepts(&BYTES.json_object().unwrap(), "{ \"a\" : [ 1 ,\n 2 ] }"));
    assert!(!accepts(&BYTES.json_object().unwrap(), "[1]"));
}

#[test]
fn only_text_tokens_and_the_end_are_in_masks() {
    let mut constraint = compact(json!({"type": "string"}));
    let quote = BYTES.tokenizer().encode_ordinary("\"").unwrap()[0];
    assert_eq!(allowed(constraint.mask().unwrap()), [quote]);
    constraint.accept(quote).unwrap();
    let inside = allowed(constraint.mask().unwrap());
    assert!(inside.iter().all(|t| *t > 2 && *t < 259), "{inside:?}");
    assert!(!allows(constraint.mask().unwrap(), END) && !constraint.finished());
    for wrong in [0, 1, END, 299, ROWS as u32 + 40, u32::MAX] {
        assert_eq!(constraint.accept(wrong), Err(ConstraintError::NotAllowed { token: wrong }));
    }
    // A refused token leaves the constraint as it was; a clone goes its own way.
    let mut other = constraint.clone();
    constraint.accept(quote).unwrap();
    assert!(constraint.finished() && constraint.can_stop());
    assert_eq!(allowed(constraint.mask().unwrap()), [END]);
    assert!(constraint.accept(quote).is_err());
    constraint.accept(END).unwrap();
    assert!(constraint.finished());
    assert!(!other.finished() && other.accept(3).is_ok());
    assert!(GrammarEnv::new(BYTES.tokenizer().clone(), 258, &[END]).is_err());
}

#[test]
fn what_must_come_is_forced() {
    let schema = json!({"type": "object", "properties": {"first name": {"type": "boolean"}, "b": {"const": "only"}}, "required": ["first name", "b"], "additionalProperties": false});
    let mut constraint = BYTES.json_schema(&schema, JsonSpacing::Spaced).unwrap();
    let tokenizer = BYTES.tokenizer();
    let text = |ids: &[u32]| tokenizer.decode(ids);
    let mut out = String::new();
    let mut chosen = 0;
    while !constraint.finished() {
        let forced = constraint.forced();
        if let Some(first) = forced.first() {
            assert_eq!(allowed(constraint.mask().unwrap()), [*first]);
        }
        out.push_str(&text(&forced));
        for token in &forced {
            constraint.accept(*token).unwrap();
        }
        if constraint.finished() {
            break;
        }
        let token = allowed(constraint.mask().unwrap())[0];
        chosen += 1;
        out.push_str(&text(&[token]));
        constraint.accept(token).unwrap();
    }
    assert_eq!(out, r#"{"first name": false, "b": "only"}"#);
    assert!(chosen <= 3, "{chosen} tokens were chosen");
}

#[test]
#[ignore = "needs ../shared/data/chinese-llama-2, which is too large for the repository"]
fn forced_tokens_are_those_that_the_tokenizer_gives() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/chinese-llama-2");
    let tokenizer = Arc::new(Tokenizer::from_folder(&folder).unwrap());
    let env = GrammarEnv::new(tokenizer.clone(), tokenizer.vocab_size(), &[2]).unwrap();
    let text = "{\"temperature_in_celsius\": \"今天天气很好\", \"unit\": 0}";
    let schema = json!({"const": {"temperature_in_celsius": "今天天气很好", "unit": 0}});
    let mut constraint = env.json_schema(&schema, JsonSpacing::Spaced).unwrap();
    let mut ids = Vec::new();
    while !constraint.finished() {
        let mut next = constraint.forced();
        if next.is_empty() {
            next.push(allowed(constraint.mask().unwrap()).into_iter().find(|t| *t != 2).unwrap());
        }
        for token in next {
            constraint.accept(token).unwrap();
            ids.push(token);
        }
    }
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap().to_vec()).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    // SentencePiece puts a space before a text; the forced tokens have none, and are else the same.
    let whole = tokenizer.encode_ordinary(&format!("\u{2}{text}")).unwrap();
    let tail = |ids: &[u32]| ids[ids.len().saturating_sub(12)..].to_vec();
    assert_eq!(tail(&ids), tail(&whole));
}

#[test]
fn reasoning_before_a_constrained_answer_is_free() {
    let tokenizer = BYTES.tokenizer().clone();
    let inner = compact(json!({"type": "boolean"}));
    let mut constraint = AfterReasoning::new(inner, tokenizer.clone(), &[END]);
    for token in tokenizer.encode_ordinary("Is {it}? </thin </think>").unwrap() {
        let mask = constraint.mask().unwrap();
        assert!(allows(mask, token) && !allows(mask, END) && !allows(mask, 0));
        assert!(constraint.forced().is_empty());
        constraint.accept(token).unwrap();
    }
    let id = |text: &str| tokenizer.encode_ordinary(text).unwrap()[0];
    assert_eq!(allowed(constraint.mask().unwrap()).len(), 3);
    constraint.accept(id("\n")).unwrap();
    assert!(constraint.accept(id("x")).is_err());
    for token in tokenizer.encode_ordinary("true").unwrap() {
        assert!(allows(constraint.mask().unwrap(), token) && !constraint.finished());
        constraint.accept(token).unwrap();
    }
    assert!(constraint.finished());
}
