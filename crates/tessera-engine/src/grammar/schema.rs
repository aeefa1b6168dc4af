//! From a JSON Schema as people write it to one that llguidance enforces exactly.
//!
//! 1. [`resources`] reads where references lead, [`dialect`] in which edition a schema is written.
//! 2. [`read`], [`objects`], [`logic`] and [`opposite`] turn each schema, and the opposite of each, into a union of
//!    [`forms`]; [`algebra`] makes the forms of several schemas that hold together, [`judge`] says which
//!    cannot be.
//! 3. [`finish`] brings what is left to what a grammar can say, or refuses it by keyword and place.
//! 4. [`emit`] writes it in one fixed form: nothing that llguidance would have to combine, and nothing that
//!    came from outside unread, so none of its lenient ways can be switched on.
//!
//! What is written may be less than the schema allows, never more.

mod algebra;
mod circles;
mod dialect;
mod emit;
mod finish;
mod forms;
mod judge;
mod logic;
mod objects;
mod opposite;
mod patterns;
mod read;
mod resources;

use super::GrammarError;
use super::watch::Shape;
use algebra::{Algebra, Stop};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Depth of a schema, references followed.
const MAX_DEPTH: usize = 64;
/// Definitions that lead to each other, each first met in the one before: llguidance reads them by recursion.
pub(super) const MAX_CHAIN: usize = if cfg!(feature = "threads") { 2_000 } else { 64 };
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

/// What arguments of tools are besides.
static OBJECT: LazyLock<Value> = LazyLock::new(|| json!({ "type": "object", "properties": {} }));

/// How schemas are read.
#[derive(Clone, Copy, Default)]
pub(super) struct Mode {
    /// Objects have no members but those that the schema lists, unless it says something about others:
    /// arguments of tools.
    pub closed: bool,
    /// Whether [`super::watch`] follows the text.
    pub watched: bool,
}

/// Collects schemas, and the definitions that they share.
pub(super) struct Normalizer<'a> {
    algebra: Algebra<'a>,
    writer: emit::Writer,
}

/// The definitions' places, to say in a request's terms what llguidance refuses.
#[derive(Default)]
pub(super) struct Places {
    /// Where each definition comes from.
    origins: Vec<String>,
    /// Where patterns of names are that may overlap.
    patterns: Vec<(usize, String)>,
}

/// A schema in the form for llguidance, and what goes with it.
pub(super) struct Written {
    pub schema: Value,
    pub places: Places,
    /// What each definition says about members and items.
    pub shapes: Vec<Shape>,
}

impl Places {
    /// The error for what llguidance says.
    pub fn explain(&self, message: &str) -> GrammarError {
        // It names the definition that it was in, if it was in one.
        let within = message.rsplit_once("#/$defs/d").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|id| id.parse::<usize>().ok())
        });
        let error = |pointer: &str, keyword: &str, message: &str| GrammarError::Schema {
            pointer: pointer.to_owned(),
            keyword: keyword.to_owned(),
            message: message.to_owned(),
        };
        if message.contains("patternProperty regexes") {
            let exact = self.patterns.iter().find(|(id, _)| Some(*id) == within).or(self.patterns.first());
            let place = exact.map_or("", |(_, place)| place);
            return error(place, "patternProperties", "a name could match two patterns");
        }
        if message.contains("multipleOf") {
            let place = within.and_then(|id| self.origins.get(id)).map_or("", String::as_str);
            return error(&format!("{place}/multipleOf"), "multipleOf", "has too many digits");
        }
        if message.contains("Unsatisfiable") {
            let what = message.rsplit("Unsatisfiable schema: ").next().unwrap_or_default();
            return GrammarError::Unusable(format!("nothing satisfies the schema: {}", what.trim()));
        }
        GrammarError::Unusable(message.lines().next().unwrap_or_default().to_owned())
    }
}

impl<'a> Normalizer<'a> {
    pub fn new(mode: Mode) -> Normalizer<'a> {
        Normalizer { algebra: Algebra::new(mode), writer: emit::Writer::default() }
    }

    /// Adds a document; the result is its definition, to which [`reference`] refers. `base` is a JSON
    /// pointer to the document in the request; `arguments` are objects.
    pub fn add(&mut self, root: &'a Value, base: &str, arguments: bool) -> Result<usize, GrammarError> {
        if !matches!(root, Value::Object(_) | Value::Bool(_)) {
            let message = format!("a schema is an object or a boolean, not {}", kind(root));
            return Err(unsupported(base, "", message));
        }
        let number = self.algebra.documents.len();
        self.algebra.documents.push(resources::Document::new(root, base, number)?);
        let home = self.algebra.documents[number].root();
        let set = self.algebra.schema(root, home, || base.to_owned()).map_err(refused)?;
        let object = self.algebra.schema(&OBJECT, home, || base.to_owned()).map_err(refused)?;
        let set = if arguments { set.and(&object) } else { set };
        let id = self.writer.definition(&set, 0);
        self.writer.roots.push(id);
        Ok(id)
    }

    /// Puts the definitions under a schema that refers to them.
    pub fn finish(mut self, mut root: Map<String, Value>) -> Result<Written, GrammarError> {
        self.writer.write(&mut self.algebra).map_err(refused)?;
        let (definitions, shapes, places) = self.writer.end();
        circles::refuse_endless(&definitions, &places.origins)?;
        let found = circles::longest_chain(&definitions);
        if found > MAX_CHAIN {
            let what = "chain of references".to_owned();
            return Err(GrammarError::TooLarge { what, found, limit: MAX_CHAIN });
        }
        let definitions = definitions.into_iter().enumerate();
        let definitions: Map<String, Value> = definitions.map(|(i, d)| (format!("d{i}"), d)).collect();
        root.insert("$defs".to_owned(), Value::Object(definitions));
        Ok(Written { schema: Value::Object(root), places, shapes })
    }
}

/// What refers to a definition.
pub(super) fn reference(id: usize) -> Map<String, Value> {
    Map::from_iter([("$ref".to_owned(), format!("#/$defs/d{id}").into())])
}

fn refused(stop: Stop) -> GrammarError {
    match stop {
        Stop::Refused(error) => error,
        Stop::Unknown => GrammarError::Unusable("the schema asks about itself".to_owned()),
    }
}

fn unsupported(pointer: &str, keyword: &str, message: impl Into<String>) -> GrammarError {
    let pointer = match (pointer, keyword) {
        (pointer, "") => pointer.to_owned(),
        (pointer, keyword) => format!("{pointer}/{keyword}"),
    };
    GrammarError::Schema { pointer, keyword: keyword.to_owned(), message: message.into() }
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
