//! Any schema: compiling it ends without a panic, soon, and a validator takes what random walks through the
//! masks write.
//!
//! `mkdir -p fuzz/corpus/schemas && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none schemas fuzz/corpus/schemas --
//! -runs=1000000 -max_len=128 -timeout=30 -entropic=0 -len_control=0 -reduce_inputs=0`
//!
//! An input that begins with `{` is a schema as it is; any other says, byte by byte, what one is made of.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::{GrammarConstraint, GrammarEnv, JsonSpacing};
use tessera_engine::tokenizer::Tokenizer;

const END: u32 = 2;
/// Few, so that a million inputs are an hour's work.
const STEPS: usize = 100;
const NAMES: [&str; 6] = ["a", "b", "ab", "x-1", "é\"", ""];
const PATTERNS: [&str; 8] = ["^a", "b$", "^[a-z]+$", "^x-", "a|b", ".*", "^(ab){1,3}$", "\\d"];
const FORMATS: [&str; 6] = ["date", "uuid", "uri", "path", "ipv4", "regex"];
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];

static BYTES: LazyLock<GrammarEnv> = LazyLock::new(|| {
    let json = include_bytes!("../../crates/tessera-engine/tests/data/tiny-tokenizer.json");
    let lookup = |name: &str| (name == "tokenizer.json").then(|| json.to_vec());
    let tokenizer = Arc::new(Tokenizer::from_files(lookup).expect("the tests' tokenizer"));
    GrammarEnv::new(tokenizer, 300, &[END]).expect("the tests' vocabulary")
});

/// Tokens that lead to an end.
static CLOSING: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let closes = |t: u32| t == END || matches!(BYTES.tokenizer().decode(&[t]).as_str(), "\"" | "}" | "]");
    (0..320).map(closes).collect()
});

fuzz_target!(|data: &[u8]| {
    let mut stream = Stream(data, 0x9e37_79b9);
    let schema = match data.first() {
        Some(b'{') => match serde_json::from_slice(data) {
            Ok(schema) => schema,
            Err(_) => return,
        },
        _ => root(&mut stream),
    };
    let Ok(constraint) = BYTES.json_schema(&schema, JsonSpacing::Compact) else { return };
    let Some(text) = walk(constraint, &mut stream) else { return };
    // Numbers may be beyond f64, or have more digits than it: the validator rounds them, and judges others.
    let digits = |part: &str| part.bytes().filter(u8::is_ascii_digit).count();
    if text.split(|c: char| !c.is_ascii_digit() && c != '.').any(|number| digits(number) > 15) {
        return;
    }
    let Ok(value) = serde_json::from_str::<Value>(&text) else { return };
    // Read as a float, which is no integer in draft-04.
    if text.contains("-0") {
        return;
    }
    // What the validator calls no schema, it cannot judge.
    let Ok(validator) = jsonschema::options().should_validate_formats(true).build(&schema) else { return };
    assert!(validator.is_valid(&value), "{schema} lets {text} through");
});

/// The bytes of the input, and after them a sequence of its own.
struct Stream<'a>(&'a [u8], u64);

impl Stream<'_> {
    fn below(&mut self, n: usize) -> usize {
        if let [first, rest @ ..] = self.0 {
            self.0 = rest;
            self.1 = self.1.wrapping_mul(31).wrapping_add(u64::from(*first));
            return usize::from(*first) % n;
        }
        self.1 = self.1.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.1 >> 33) as usize % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

fn root(stream: &mut Stream<'_>) -> Value {
    let drafts = [
        None,
        Some("https://json-schema.org/draft/2020-12/schema"),
        Some("https://json-schema.org/draft/2019-09/schema"),
        Some("http://json-schema.org/draft-07/schema#"),
        Some("http://json-schema.org/draft-04/schema#"),
    ];
    let draft = stream.of(&drafts);
    let mut root = schema(stream, 3);
    if let Value::Object(map) = &mut root {
        if let Some(draft) = draft {
            map.insert("$schema".to_owned(), draft.into());
        }
        let defs: Map<String, Value> =
            ["a", "b"].iter().map(|name| ((*name).to_owned(), schema(stream, 2))).collect();
        map.insert("definitions".to_owned(), Value::Object(defs));
    }
    root
}

fn literal(stream: &mut Stream<'_>) -> Value {
    match stream.below(8) {
        0 => Value::Null,
        1 => (stream.below(2) == 1).into(),
        2 => (stream.below(5) as i64 - 2).into(),
        3 => json!(0.5 * stream.below(5) as f64),
        4 => json!([stream.below(3)]),
        5 => json!({"a": stream.below(2)}),
        _ => stream.of(&NAMES).into(),
    }
}

fn schemas(stream: &mut Stream<'_>, depth: usize) -> Value {
    let n = 1 + stream.below(3);
    Value::Array((0..n).map(|_| schema(stream, depth)).collect())
}

fn members(stream: &mut Stream<'_>, depth: usize, names: &[&str]) -> Value {
    let n = stream.below(4);
    Value::Object((0..n).map(|_| (stream.of(names).to_owned(), schema(stream, depth))).collect())
}

fn names(stream: &mut Stream<'_>) -> Value {
    let mut names: Vec<&str> = (0..stream.below(3)).map(|_| stream.of(&NAMES)).collect();
    names.sort_unstable();
    names.dedup();
    json!(names)
}

fn schema(stream: &mut Stream<'_>, depth: usize) -> Value {
    if stream.below(12) == 0 {
        return (stream.below(3) > 0).into();
    }
    let mut map = Map::new();
    for _ in 0..1 + stream.below(4) {
        let simple = depth == 0;
        let pick = stream.below(if simple { 18 } else { 38 });
        let mut set = |keyword: &str, value: Value| drop(map.insert(keyword.to_owned(), value));
        let small = stream.below(4);
        match pick {
            0..=4 => set("type", stream.of(&TYPES).into()),
            5 => set("type", json!([stream.of(&TYPES[..3]), stream.of(&TYPES[3..])])),
            6 => set("const", literal(stream)),
            7 => set("enum", (0..1 + small).map(|_| literal(stream)).collect()),
            8 => set("minimum", (small as i64 - 2).into()),
            9 => set("maximum", json!(small as f64 * 0.5)),
            10 => set("multipleOf", json!([0.5, 1.0, 2.0, 3.0][small])),
            11 => set(stream.of(&["minLength", "minItems", "minProperties"]), small.into()),
            12 => set(stream.of(&["maxLength", "maxItems", "maxProperties"]), small.into()),
            13 => set("pattern", stream.of(&PATTERNS).into()),
            14 => set("format", stream.of(&FORMATS).into()),
            15 => set("required", names(stream)),
            16 => set("uniqueItems", (small > 0).into()),
            17 => set("$ref", stream.of(&["#", "#/definitions/a", "#/definitions/b"]).into()),
            18..=21 => set("properties", members(stream, depth - 1, &NAMES)),
            22 => set("patternProperties", members(stream, depth - 1, &PATTERNS)),
            23 | 24 => set("additionalProperties", schema(stream, depth - 1)),
            25 => set("propertyNames", schema(stream, 0)),
            26 | 27 => set("items", schema(stream, depth - 1)),
            28 => set("contains", schema(stream, depth - 1)),
            29 => set(stream.of(&["dependentSchemas", "dependencies"]), members(stream, depth - 1, &NAMES)),
            30 => set("dependentRequired", json!({stream.of(&NAMES): names(stream)})),
            31 => set("allOf", schemas(stream, depth - 1)),
            32 => set("anyOf", schemas(stream, depth - 1)),
            33 | 34 => set("oneOf", schemas(stream, depth - 1)),
            35 => set("not", schema(stream, depth - 1)),
            36 => {
                set("if", schema(stream, depth - 1));
                set("then", schema(stream, depth - 1));
                set("else", schema(stream, depth - 1));
            }
            _ => set(stream.of(&["unevaluatedProperties", "unevaluatedItems"]), schema(stream, 0)),
        }
    }
    Value::Object(map)
}

/// A random text, if it comes to an end.
fn walk(mut constraint: GrammarConstraint, stream: &mut Stream<'_>) -> Option<String> {
    let mut ids = Vec::new();
    for step in 0..STEPS {
        let mask = constraint.mask().ok()?;
        let allowed: Vec<u32> =
            (0..mask.len() as u32 * 32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
        let closing: Vec<u32> = match stream.below(STEPS) < 20 + 2 * step {
            true => allowed.iter().copied().filter(|t| CLOSING[*t as usize]).collect(),
            false => Vec::new(),
        };
        let pool = if closing.is_empty() { &allowed } else { &closing };
        let token = *pool.get(stream.below(pool.len().max(1)))?;
        if token == END {
            return Some(BYTES.tokenizer().decode(&ids));
        }
        constraint.accept(token).ok()?;
        ids.push(token);
    }
    None
}
