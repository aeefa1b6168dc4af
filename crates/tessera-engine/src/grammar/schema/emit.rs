//! Forms as the schema that llguidance reads: one type in each alternative, every part either plain or a
//! reference, nothing that it would have to combine.

use super::algebra::{Algebra, Found, Kind};
use super::forms::{Form, Forms, List, Number, Object, Set, Text};
use super::{MAX_DEPTH, Places};
use crate::grammar::GrammarError;
use crate::grammar::watch::{Items, Members, Shape};
use serde_json::{Map, Number as JsonNumber, Value, json};
use std::collections::{HashMap, VecDeque};

/// What is written so far.
#[derive(Default)]
pub(super) struct Writer {
    ids: HashMap<Set, usize>,
    open: VecDeque<(Set, usize, usize)>,
    definitions: Vec<Value>,
    shapes: Vec<Shape>,
    pub places: Places,
    /// The definition that is being written.
    current: usize,
    /// Definitions of whole documents.
    pub roots: Vec<usize>,
}

impl Writer {
    /// The definition of a set, written later.
    pub fn definition(&mut self, set: &Set, depth: usize) -> usize {
        if let Some(id) = self.ids.get(set) {
            return *id;
        }
        let id = self.definitions.len();
        self.definitions.push(Value::Bool(false));
        self.shapes.push(Shape::default());
        self.places.origins.push(String::new());
        self.ids.insert(set.clone(), id);
        self.open.push_back((set.clone(), id, depth));
        id
    }

    /// Writes all definitions that are asked for.
    pub fn write(&mut self, algebra: &mut Algebra<'_>) -> Found<()> {
        while let Some((set, id, depth)) = self.open.pop_front() {
            let origin = set.terms().iter().find_map(|term| {
                let source = &algebra.sources[term.source as usize];
                matches!(source.kind, Kind::Schema(_)).then(|| source.pointer.clone())
            });
            self.places.origins[id] = origin.unwrap_or_default();
            if depth > MAX_DEPTH {
                let what = format!("nesting at {}", self.places.origins[id]);
                return Err(GrammarError::TooLarge { what, found: depth, limit: MAX_DEPTH }.into());
            }
            self.current = id;
            algebra.origin.clone_from(&self.places.origins[id]);
            algebra.at_root = self.roots.contains(&id);
            let forms = algebra.finished(&set)?;
            let mut ways = Vec::with_capacity(forms.len());
            for form in &forms {
                let (way, shape) = self.form(algebra, form, depth)?;
                ways.push(way);
                self.shapes[id].join(shape);
            }
            self.definitions[id] = match ways.len() {
                0 => Value::Bool(false),
                1 => ways.remove(0),
                _ => json!({ "anyOf": ways }),
            };
        }
        Ok(())
    }

    pub fn end(self) -> (Vec<Value>, Vec<Shape>, Places) {
        (self.definitions, self.shapes, self.places)
    }

    /// A part, and its definition if it has one.
    fn part(&mut self, algebra: &mut Algebra<'_>, set: &Set, depth: usize) -> Found<(Value, Option<usize>)> {
        if set.is_any() {
            return Ok((Value::Bool(true), None));
        }
        if !algebra.can_hold(set, 6)? {
            return Ok((Value::Bool(false), None));
        }
        let forms = algebra.forms(set)?;
        if forms.iter().all(is_scalar) {
            let forms: Forms<'_> = algebra.finished(set)?;
            let mut ways = Vec::with_capacity(forms.len());
            for form in &forms {
                ways.push(self.form(algebra, form, depth)?.0);
            }
            return Ok((if ways.len() == 1 { ways.remove(0) } else { json!({ "anyOf": ways }) }, None));
        }
        let id = self.definition(set, depth + 1);
        Ok((json!({ "$ref": format!("#/$defs/d{id}") }), Some(id)))
    }

    fn form(&mut self, algebra: &mut Algebra<'_>, form: &Form<'_>, depth: usize) -> Found<(Value, Shape)> {
        let written = match form {
            Form::Null => json!({ "type": "null" }),
            Form::Bool(None) => json!({ "type": "boolean" }),
            Form::Bool(Some(only)) => json!({ "const": only }),
            Form::Literals(values) => json!({ "enum": values }),
            Form::Number(number) => number_form(number),
            Form::Text(text) => text_form(text),
            Form::List(list) => return self.list(algebra, list, depth),
            Form::Object(object) => return self.object(algebra, object, depth),
        };
        algebra.spend(1)?;
        Ok((written, Shape::default()))
    }

    fn list(&mut self, algebra: &mut Algebra<'_>, list: &List, depth: usize) -> Found<(Value, Shape)> {
        let (mut out, mut items) = (Map::new(), Items::default());
        out.insert("type".to_owned(), "array".into());
        let mut first = Vec::with_capacity(list.first.len());
        for set in &list.first {
            let (part, id) = self.part(algebra, set, depth)?;
            first.push(part);
            items.first.push(id);
        }
        if !first.is_empty() {
            out.insert("prefixItems".to_owned(), Value::Array(first));
        }
        let (rest, id) = self.part(algebra, &list.rest, depth)?;
        items.rest = id;
        if rest != Value::Bool(true) {
            out.insert("items".to_owned(), rest);
        }
        if list.min > 0 {
            out.insert("minItems".to_owned(), list.min.into());
        }
        if let Some(max) = list.max {
            out.insert("maxItems".to_owned(), max.into());
        }
        if list.unique && list.max.is_none_or(|max| max > 1) {
            items.unique = true;
            items.few = algebra.few(list)?;
        }
        Ok((Value::Object(out), Shape { lists: vec![items], ..Shape::default() }))
    }

    fn object(&mut self, algebra: &mut Algebra<'_>, object: &Object, depth: usize) -> Found<(Value, Shape)> {
        let (mut out, mut members) = (Map::new(), Members::default());
        out.insert("type".to_owned(), "object".into());
        let mut props = Map::new();
        algebra.spend(object.props.len())?;
        for (name, set) in &object.props {
            let (part, id) = self.part(algebra, set, depth)?;
            props.insert(name.clone(), part);
            members.named.insert(name.clone(), id);
        }
        let mut patterns = Map::new();
        for (pattern, set) in &object.patterns {
            let (part, id) = self.part(algebra, set, depth)?;
            patterns.insert(pattern.clone(), part);
            members.others.extend(id);
        }
        let (rest, id) = self.part(algebra, &object.rest, depth)?;
        members.others.extend(id);
        members.open = !object.rest.is_never() || !object.patterns.is_empty();
        if patterns.len() > 1 {
            let place = format!("{}/patternProperties", object.counts_pointer);
            self.places.patterns.push((self.current, place));
        }
        for (keyword, map) in [("properties", props), ("patternProperties", patterns)] {
            if !map.is_empty() {
                out.insert(keyword.to_owned(), Value::Object(map));
            }
        }
        if rest != Value::Bool(true) {
            out.insert("additionalProperties".to_owned(), rest);
        }
        if !object.required.is_empty() {
            out.insert("required".to_owned(), json!(object.required));
        }
        if object.min > object.required.len() as u64 {
            out.insert("minProperties".to_owned(), object.min.into());
        }
        if let Some(max) = object.max {
            out.insert("maxProperties".to_owned(), max.into());
        }
        Ok((Value::Object(out), Shape { objects: vec![members], ..Shape::default() }))
    }
}

fn is_scalar(form: &Form<'_>) -> bool {
    !matches!(form, Form::List(_) | Form::Object(_))
}

/// Whole numbers without a point.
fn number_of(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 9e15 {
        return (n as i64).into();
    }
    JsonNumber::from_f64(n).map_or(Value::Null, Value::Number)
}

fn number_form(number: &Number) -> Value {
    let mut out = Map::new();
    let of_type = if number.whole { "integer" } else { "number" };
    out.insert("type".to_owned(), of_type.into());
    for (bound, keyword, exclusive) in
        [(number.least, "minimum", "exclusiveMinimum"), (number.most, "maximum", "exclusiveMaximum")]
    {
        if let Some((value, open)) = bound {
            out.insert((if open { exclusive } else { keyword }).to_owned(), number_of(value));
        }
    }
    let mut multiples = number.multiples.iter();
    if let Some(first) = multiples.next() {
        out.insert("multipleOf".to_owned(), number_of(*first));
    }
    let more: Vec<Value> =
        multiples.map(|m| json!({ "type": of_type, "multipleOf": number_of(*m) })).collect();
    if !more.is_empty() {
        out.insert("allOf".to_owned(), Value::Array(more));
    }
    Value::Object(out)
}

fn text_form(text: &Text) -> Value {
    let mut out = Map::new();
    out.insert("type".to_owned(), "string".into());
    if text.min > 0 {
        out.insert("minLength".to_owned(), text.min.into());
    }
    if let Some(max) = text.max {
        out.insert("maxLength".to_owned(), max.into());
    }
    let mut patterns = text.patterns.iter();
    if let Some(first) = patterns.next() {
        out.insert("pattern".to_owned(), first.as_str().into());
    }
    let more: Vec<Value> = patterns.map(|p| json!({ "type": "string", "pattern": p })).collect();
    if !more.is_empty() {
        out.insert("allOf".to_owned(), Value::Array(more));
    }
    Value::Object(out)
}
