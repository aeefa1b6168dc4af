//! From a JSON Schema as people write it to one that llguidance enforces exactly.
//!
//! The whole schema is walked. What the mask can promise is written out again in one fixed form (draft
//! 2020-12, a fixed order of keywords, every `$ref` target in `$defs`, every pattern and format in plain
//! character classes); anything else ends the walk with the keyword and where it is. Nothing that this
//! file does not know reaches llguidance, so none of its lenient ways can be switched on from outside.

mod circles;
mod values;

use super::GrammarError;
use super::{formats, pattern};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Depth of a schema, references followed.
const MAX_DEPTH: usize = 64;
/// Sub-schemas, literals and property names together.
const MAX_NODES: usize = 20_000;
/// Bytes of strings (names, patterns, literals).
const MAX_TEXT: usize = 1 << 20;
/// Values of one `enum`.
const MAX_ENUM: usize = 5_000;
/// Largest `minItems` and the like: repetitions that have to be counted.
const MAX_COUNT: u64 = 10_000;
/// Largest `minLength` or `maxLength`.
const MAX_LENGTH: u64 = 100_000;

/// Keywords that say something to people and nothing about which values are valid.
const ANNOTATIONS: [&str; 20] = [
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "externalDocs",
    "xml",
    "discriminator",
    "$anchor",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$defs",
    "definitions",
];

/// The edition of JSON Schema that a document is written in, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Draft {
    /// Drafts 6 and 7: `items` may be a list.
    Seven,
    /// 2019-09: the same.
    Nineteen,
    /// 2020-12: `prefixItems`.
    Twenty,
}

/// Collects schemas, and the definitions that they share.
#[derive(Default)]
pub(super) struct Normalizer {
    definitions: Vec<Option<Value>>,
    /// Where each of them comes from.
    origins: Vec<String>,
    /// Definitions that a definition refers to without reading anything first: a circle of these would
    /// never end.
    in_place: Vec<Vec<usize>>,
    /// Where the keywords are that llguidance may still refuse: the definition, the keyword, its place.
    judged_later: Vec<(usize, &'static str, String)>,
    nodes: usize,
    text: usize,
}

/// Keywords that llguidance may refuse, with what it says then and what is said here.
const JUDGED_LATER: [(&str, &str, &str); 6] = [
    (
        "oneOf",
        "oneOf constraints",
        "the alternatives cannot be told apart while text is generated; anyOf lets any of them through",
    ),
    ("patternProperties", "patternProperty regexes", "a name could match two patterns"),
    (
        "minProperties",
        "min/maxProperties",
        "is enforced only where all listed properties are required, or none besides them is allowed",
    ),
    (
        "maxProperties",
        "min/maxProperties",
        "is enforced only where all listed properties are required, or none besides them is allowed",
    ),
    ("multipleOf", "multipleOf", "has too many digits"),
    ("$ref", "circular references", "a circle of references with other keywords beside them"),
];

/// The definitions' places, to say in a request's terms what llguidance refuses.
pub(super) struct Places(Vec<(usize, &'static str, String)>);

impl Places {
    /// The error for what llguidance says.
    pub fn explain(&self, message: &str) -> GrammarError {
        // It names the definition that it was in, if it was in one.
        let within = message.rsplit_once("#/$defs/d").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|id| id.parse::<usize>().ok())
        });
        let known = JUDGED_LATER.iter().filter(|(_, says, _)| message.contains(says));
        let found = known.flat_map(|(keyword, _, why)| {
            self.0
                .iter()
                .filter(move |(_, k, _)| k == keyword)
                .map(move |(id, k, place)| (*id, *k, place, *why))
        });
        let found: Vec<_> = found.collect();
        let exact = found.iter().find(|(id, ..)| Some(*id) == within).or(found.first());
        match exact {
            Some((_, keyword, place, why)) => GrammarError::Schema {
                pointer: (*place).clone(),
                keyword: (*keyword).to_owned(),
                message: (*why).to_owned(),
            },
            None if message.contains("Unsatisfiable") => {
                let what = message.rsplit("Unsatisfiable schema: ").next().unwrap_or_default();
                GrammarError::Unusable(format!("nothing satisfies the schema: {}", what.trim()))
            }
            None => GrammarError::Unusable(message.lines().next().unwrap_or_default().to_owned()),
        }
    }
}

/// One document while it is walked.
struct Document<'a> {
    root: &'a Value,
    /// Where the document lies in the request, for messages.
    base: &'a str,
    draft: Draft,
    targets: HashMap<String, usize>,
}

/// A place in a document.
#[derive(Clone)]
struct Place {
    pointer: String,
    depth: usize,
    /// The definition that this is in.
    home: usize,
    /// The same, if nothing is read before this.
    owner: Option<usize>,
}

impl Place {
    fn child(&self, keyword: &str, in_place: bool) -> Place {
        Place {
            pointer: format!("{}/{keyword}", self.pointer),
            depth: self.depth + 1,
            home: self.home,
            owner: self.owner.filter(|_| in_place),
        }
    }

    /// A sub-schema that is about a part of the value.
    fn part(&self, keyword: &str, name: &str) -> Place {
        self.child(&format!("{keyword}/{}", name.replace('~', "~0").replace('/', "~1")), false)
    }
}

impl Normalizer {
    /// Adds a document; the result stands for it in the schema given to [`Normalizer::finish`].
    /// `base` is a JSON pointer to the document in the request.
    pub fn add(&mut self, root: &Value, base: &str) -> Result<Value, GrammarError> {
        let draft = match root.get("$schema") {
            None => Draft::Twenty,
            Some(uri) => draft_of(uri).ok_or_else(|| {
                let known = "draft-06, draft-07, 2019-09, 2020-12";
                unsupported(base, "$schema", format!("{uri} is not a known edition (known: {known})"))
            })?,
        };
        let mut document = Document { root, base, draft, targets: HashMap::new() };
        // The root is a definition like any other: references to `#` are common.
        let place = Place { pointer: String::new(), depth: 0, home: 0, owner: None };
        let id = self.target(&mut document, "", root, &place)?;
        Ok(reference(id))
    }

    /// Puts the definitions under a schema made of what [`Normalizer::add`] gave.
    pub fn finish(self, root: Map<String, Value>) -> Result<(Value, Places), GrammarError> {
        self.refuse_circles()?;
        self.refuse_endless()?;
        let mut root = root;
        let definitions = self.definitions.into_iter().enumerate();
        let definitions: Map<String, Value> =
            definitions.filter_map(|(i, d)| Some((format!("d{i}"), d?))).collect();
        root.insert("$defs".to_owned(), Value::Object(definitions));
        Ok((Value::Object(root), Places(self.judged_later)))
    }

    /// The definition for a place in a document, made on first use.
    fn target(
        &mut self,
        document: &mut Document<'_>,
        pointer: &str,
        value: &Value,
        from: &Place,
    ) -> Result<usize, GrammarError> {
        if let Some(id) = document.targets.get(pointer) {
            return Ok(*id);
        }
        let id = self.definitions.len();
        self.definitions.push(None);
        self.in_place.push(Vec::new());
        self.origins.push(shown(document, pointer));
        document.targets.insert(pointer.to_owned(), id);
        let place = Place { pointer: pointer.to_owned(), depth: from.depth + 1, home: id, owner: Some(id) };
        let schema = self.schema(document, value, &place)?;
        self.definitions[id] = Some(schema);
        Ok(id)
    }

    fn schema(
        &mut self,
        document: &mut Document<'_>,
        value: &Value,
        place: &Place,
    ) -> Result<Value, GrammarError> {
        self.count(document, place, 1)?;
        if place.depth > MAX_DEPTH {
            return Err(GrammarError::TooLarge {
                what: format!("nesting at {}", shown(document, &place.pointer)),
                found: place.depth,
                limit: MAX_DEPTH,
            });
        }
        match value {
            Value::Bool(_) => Ok(value.clone()),
            Value::Object(map) => Walk { normalizer: self, document, map, place }.run(),
            other => Err(unsupported(
                &shown(document, &place.pointer),
                "",
                format!("a schema is an object or a boolean, not {}", kind(other)),
            )),
        }
    }

    fn count(&mut self, document: &Document<'_>, place: &Place, nodes: usize) -> Result<(), GrammarError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let what =
                format!("number of sub-schemas, names and values up to {}", shown(document, &place.pointer));
            return Err(GrammarError::TooLarge { what, found: self.nodes, limit: MAX_NODES });
        }
        Ok(())
    }

    fn count_text(&mut self, text: &str) -> Result<(), GrammarError> {
        self.text = self.text.saturating_add(text.len());
        if self.text > MAX_TEXT {
            let what = "bytes of names, patterns and values".to_owned();
            return Err(GrammarError::TooLarge { what, found: self.text, limit: MAX_TEXT });
        }
        Ok(())
    }
}

/// The walk over one schema object.
struct Walk<'n, 'd, 'v> {
    normalizer: &'n mut Normalizer,
    document: &'n mut Document<'d>,
    map: &'v Map<String, Value>,
    place: &'n Place,
}

impl Walk<'_, '_, '_> {
    fn run(mut self) -> Result<Value, GrammarError> {
        for (keyword, value) in self.map {
            self.check(keyword, value)?;
            if let Some((known, ..)) = JUDGED_LATER.iter().find(|(known, ..)| known == keyword) {
                let place = format!("{}/{known}", shown(self.document, &self.place.pointer));
                self.normalizer.judged_later.push((self.place.home, known, place));
            }
        }
        let mut out = Map::new();
        // The order is fixed: llguidance reads keywords in order and looks at neighbours only.
        self.types(&mut out)?;
        self.numbers(&mut out)?;
        let further_pattern = self.strings(&mut out)?;
        self.arrays(&mut out)?;
        self.objects(&mut out)?;
        self.literals(&mut out)?;
        self.reference(&mut out)?;
        let mut all = self.list("allOf")?.unwrap_or_default();
        if let Some(pattern) = further_pattern {
            let mut schema = Map::new();
            if let Some(types) = out.get("type") {
                schema.insert("type".to_owned(), types.clone());
            }
            schema.insert("pattern".to_owned(), pattern.into());
            all.push(Value::Object(schema));
        }
        if !all.is_empty() {
            out.insert("allOf".to_owned(), Value::Array(all));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(list) = self.list(keyword)? {
                out.insert(keyword.to_owned(), Value::Array(list));
            }
        }
        // `not: {}` is how some tools write "nothing".
        Ok(if self.map.contains_key("not") { Value::Bool(false) } else { Value::Object(out) })
    }

    fn error(&self, keyword: &str, message: impl Into<String>) -> GrammarError {
        unsupported(&shown(self.document, &self.place.pointer), keyword, message)
    }

    /// Refuses keywords that are not enforced. Those that are enforced are read later.
    fn check(&self, keyword: &str, value: &Value) -> Result<(), GrammarError> {
        let root = self.place.pointer.is_empty();
        let old = self.document.draft != Draft::Twenty;
        let empty = |v: &Value| *v == Value::Bool(true) || v.as_object().is_some_and(Map::is_empty);
        let fine = match keyword {
            "type"
            | "enum"
            | "const"
            | "minimum"
            | "maximum"
            | "exclusiveMinimum"
            | "exclusiveMaximum"
            | "multipleOf"
            | "minLength"
            | "maxLength"
            | "pattern"
            | "format"
            | "items"
            | "minItems"
            | "maxItems"
            | "properties"
            | "patternProperties"
            | "additionalProperties"
            | "required"
            | "minProperties"
            | "maxProperties"
            | "allOf"
            | "anyOf"
            | "oneOf"
            | "$ref" => true,
            "prefixItems" if old => return Err(self.error(keyword, "not a keyword of the schema's edition")),
            "prefixItems" => true,
            "additionalItems" if old => true,
            "additionalItems" => {
                return Err(
                    self.error(keyword, "not a keyword of 2020-12 (there: \"items\" beside \"prefixItems\")")
                );
            }
            "$schema" if root => true,
            "$schema" => return Err(self.error(keyword, "is taken at the root of a schema only")),
            // References are taken from the root only, so that the name of the root makes no difference.
            "$id" if root && value.is_string() => true,
            "$id" => return Err(self.error(keyword, "a sub-schema with a name of its own is not supported")),
            "uniqueItems" if *value == Value::Bool(false) => true,
            "uniqueItems" if self.map.get("maxItems").and_then(Value::as_u64).is_some_and(|n| n <= 1) => true,
            "propertyNames" if empty(value) || *value == serde_json::json!({"type": "string"}) => true,
            "not" if empty(value) => true,
            "$dynamicRef"
            | "$recursiveRef"
            | "$vocabulary"
            | "uniqueItems"
            | "propertyNames"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "minContains"
            | "maxContains"
            | "dependentRequired"
            | "dependentSchemas"
            | "dependencies"
            | "unevaluatedItems"
            | "unevaluatedProperties" => false,
            "x-guidance" => false,
            // Annotations since 2019-09; before, a validator may check them.
            "contentEncoding" | "contentMediaType" if self.document.draft == Draft::Seven => false,
            _ if ANNOTATIONS.contains(&keyword) || keyword.starts_with("x-") => true,
            _ => return Err(self.error(keyword, "not a known keyword, so it cannot be enforced")),
        };
        if fine { Ok(()) } else { Err(self.error(keyword, "cannot be enforced while text is generated")) }
    }

    fn reference(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        let Some(value) = self.map.get("$ref") else { return Ok(()) };
        let Some(text) = value.as_str() else { return Err(self.error("$ref", "not a string")) };
        let Some(fragment) = text.strip_prefix('#') else {
            let message =
                format!("{text:?} is outside of the schema; only references that begin with # are followed");
            return Err(self.error("$ref", message));
        };
        let pointer = percent_decoded(fragment).filter(|p| p.is_empty() || p.starts_with('/'));
        let Some(pointer) = pointer else {
            return Err(
                self.error("$ref", format!("{text:?} is not a JSON pointer; named anchors are not followed"))
            );
        };
        let root = self.document.root;
        let Some(target) = root.pointer(&pointer) else {
            return Err(self.error("$ref", format!("{text:?} leads nowhere")));
        };
        let id = self.normalizer.target(self.document, &pointer, target, self.place)?;
        if let Some(owner) = self.place.owner {
            self.normalizer.in_place[owner].push(id);
        }
        out.insert("$ref".to_owned(), format!("#/$defs/d{id}").into());
        Ok(())
    }

    /// The schemas of `allOf`, `anyOf` or `oneOf`.
    fn list(&mut self, keyword: &str) -> Result<Option<Vec<Value>>, GrammarError> {
        let Some(value) = self.map.get(keyword) else { return Ok(None) };
        let list = value.as_array().filter(|list| !list.is_empty());
        let Some(list) = list else { return Err(self.error(keyword, "not a list with at least one schema")) };
        let mut out = Vec::with_capacity(list.len());
        for (i, schema) in list.iter().enumerate() {
            let place = self.place.child(&format!("{keyword}/{i}"), true);
            out.push(self.normalizer.schema(self.document, schema, &place)?);
        }
        Ok(Some(out))
    }

    fn part(&mut self, keyword: &str, name: Option<&str>, value: &Value) -> Result<Value, GrammarError> {
        let place = match name {
            Some(name) => self.place.part(keyword, name),
            None => self.place.child(keyword, false),
        };
        self.normalizer.schema(self.document, value, &place)
    }

    fn arrays(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        let old = self.document.draft != Draft::Twenty;
        let items = self.map.get("items");
        let (first, rest) = match items {
            Some(Value::Array(_)) if old => {
                (Some(("items", items)), self.map.get("additionalItems").map(|v| ("additionalItems", v)))
            }
            Some(Value::Array(_)) => {
                return Err(self.error("items", "a list is not taken in 2020-12 (there: \"prefixItems\")"));
            }
            // Without a list in `items`, `additionalItems` says nothing.
            _ => (self.map.get("prefixItems").map(|v| ("prefixItems", Some(v))), items.map(|v| ("items", v))),
        };
        if let Some((keyword, Some(value))) = first {
            let Some(list) = value.as_array() else { return Err(self.error(keyword, "not a list")) };
            let mut schemas = Vec::with_capacity(list.len());
            for (i, schema) in list.iter().enumerate() {
                schemas.push(self.part(keyword, Some(&i.to_string()), schema)?);
            }
            out.insert("prefixItems".to_owned(), Value::Array(schemas));
        }
        if let Some((keyword, value)) = rest {
            let schema = self.part(keyword, None, value)?;
            out.insert("items".to_owned(), schema);
        }
        self.counts(out, &["minItems", "maxItems"], MAX_COUNT)
    }

    fn objects(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        for keyword in ["properties", "patternProperties"] {
            let Some(value) = self.map.get(keyword) else { continue };
            let Some(map) = value.as_object() else { return Err(self.error(keyword, "not an object")) };
            let mut schemas = Map::new();
            for (name, schema) in map {
                self.normalizer.count_text(name)?;
                let key = match keyword {
                    "properties" => name.clone(),
                    _ => pattern::whole(name)
                        .map_err(|e| self.error(keyword, format!("the pattern {name:?}: {e}")))?,
                };
                let schema = self.part(keyword, Some(name), schema)?;
                if schemas.insert(key, schema).is_some() {
                    return Err(self.error(keyword, format!("two patterns like {name:?}")));
                }
            }
            out.insert(keyword.to_owned(), Value::Object(schemas));
        }
        if let Some(value) = self.map.get("additionalProperties") {
            let schema = self.part("additionalProperties", None, value)?;
            out.insert("additionalProperties".to_owned(), schema);
        }
        let mut required = 0;
        if let Some(value) = self.map.get("required") {
            let names = value.as_array().filter(|list| list.iter().all(Value::is_string));
            let Some(names) = names else { return Err(self.error("required", "not a list of strings")) };
            self.normalizer.count(self.document, self.place, names.len())?;
            let mut distinct: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            for name in &distinct {
                self.normalizer.count_text(name)?;
            }
            distinct.sort_unstable();
            distinct.dedup();
            required = distinct.len() as u64;
            out.insert("required".to_owned(), value.clone());
        }
        self.counts(out, &["minProperties", "maxProperties"], MAX_COUNT)?;
        // Names that are not listed may come twice, and count once.
        let closed = self.map.get("additionalProperties") == Some(&Value::Bool(false))
            && !self.map.contains_key("patternProperties");
        match out.get("minProperties").and_then(Value::as_u64) {
            Some(min) if min > required + 1 && !closed => Err(self.error(
                "minProperties",
                format!("{min} is enforced only with \"additionalProperties\": false and without \"patternProperties\", or with at least {} required properties", min - 1),
            )),
            _ => Ok(()),
        }
    }
}

fn draft_of(uri: &Value) -> Option<Draft> {
    let uri = uri.as_str()?.trim_end_matches('#');
    let path = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))?;
    match path.strip_prefix("json-schema.org/")? {
        "draft-06/schema" | "draft-07/schema" => Some(Draft::Seven),
        "draft/2019-09/schema" => Some(Draft::Nineteen),
        "draft/2020-12/schema" => Some(Draft::Twenty),
        _ => None,
    }
}

fn reference(id: usize) -> Value {
    serde_json::json!({ "$ref": format!("#/$defs/d{id}") })
}

fn unsupported(pointer: &str, keyword: &str, message: impl Into<String>) -> GrammarError {
    let pointer = match (pointer, keyword) {
        (pointer, "") => pointer.to_owned(),
        (pointer, keyword) => format!("{pointer}/{keyword}"),
    };
    GrammarError::Schema { pointer, keyword: keyword.to_owned(), message: message.into() }
}

fn shown(document: &Document<'_>, pointer: &str) -> String {
    format!("{}{pointer}", document.base)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A URI fragment without its `%NN`; `None` if it is broken.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}
