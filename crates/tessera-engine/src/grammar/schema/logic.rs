//! What satisfies a schema.

use super::algebra::{Algebra, Found};
use super::forms::{Form, Forms, List, Object, Seen, Set, everything};
use super::objects::{Dependent, require};
use super::read::Reader;
use super::resources::Home;
use super::{MAX_ENUM, kind, unsupported};
use crate::grammar::GrammarError;
use serde_json::Value;

/// Adds a form to a union, unless it is there already.
pub(super) fn unite<'a>(out: &mut Forms<'a>, form: Form<'a>) {
    let whole = everything();
    let is_whole = whole.contains(&form);
    let same_type = |a: &Form, b: &Form| std::mem::discriminant(a) == std::mem::discriminant(b);
    if is_whole {
        out.retain(|other| !same_type(other, &form));
    } else if out.iter().any(|other| *other == form || (same_type(other, &form) && whole.contains(other))) {
        return;
    }
    out.push(form);
}

pub(super) fn unite_all<'a>(out: &mut Forms<'a>, forms: impl IntoIterator<Item = Form<'a>>) {
    forms.into_iter().for_each(|form| unite(out, form));
}

/// What these forms have looked at counts for nothing.
pub(super) fn forget_seen(forms: &mut Forms) {
    for form in forms {
        match form {
            Form::List(list) => list.seen = Seen::default(),
            Form::Object(object) => object.seen = Seen::default(),
            _ => {}
        }
    }
}

/// Everything but objects.
fn no_objects<'a>() -> Forms<'a> {
    everything().into_iter().filter(|form| !matches!(form, Form::Object(_))).collect()
}

pub(super) fn with_member<'a>(name: &str, set: Set, present: bool) -> Form<'a> {
    let required = if present { vec![name.to_owned()] } else { Vec::new() };
    Form::Object(Object { props: vec![(name.to_owned(), set)], required, ..Object::default() })
}

impl<'a> Algebra<'a> {
    pub(super) fn reader<'r>(&self, value: &'a Value, home: Home, pointer: &'r str) -> Found<Reader<'r, 'a>> {
        match value {
            Value::Object(map) => Ok(Reader { map, home, pointer }),
            other => {
                let message = format!("a schema is an object or a boolean, not {}", kind(other));
                Err(unsupported(pointer, "", message).into())
            }
        }
    }

    pub fn satisfying(&mut self, value: &'a Value, source: u32, home: Home) -> Found<Forms<'a>> {
        let pointer = self.sources[source as usize].pointer.clone();
        let reader = self.reader(value, home, &pointer)?;
        reader.check_words()?;
        self.loosened |= reader.says_less();
        let mut all = Vec::new();
        let types = reader.types()?;
        let takes = |name: &str| types.as_ref().is_none_or(|types| types.contains(&name));
        // Everything is read, also of types that are not taken: what is wrong is told.
        let mut number = reader.numbers()?;
        let text = reader.texts(self)?;
        let list = reader.lists(self)?;
        let object = reader.objects(self)?;
        number.whole = !takes("number");
        let plain = [
            (takes("null"), Form::Null),
            (takes("boolean"), Form::Bool(None)),
            (takes("number") || takes("integer"), Form::Number(number)),
            (takes("string"), Form::Text(text)),
            (takes("array"), Form::List(list)),
            (takes("object"), Form::Object(object)),
        ];
        for (taken, form) in plain {
            if taken && self.can_be(&form, 6)? {
                all.push(form);
            }
        }
        for (keyword, name, dependent) in reader.dependents(self)? {
            let mut ways = no_objects();
            ways.push(with_member(name, Set::never(), false));
            let present = with_member(name, Set::default(), true);
            match dependent {
                Dependent::Names(names) => {
                    let mut object = Object { required: vec![name.to_owned()], ..Object::default() };
                    names.iter().for_each(|name| require(&mut object, name));
                    ways.push(Form::Object(object));
                }
                Dependent::Schema(set) => {
                    let mut forms = self.meet_set(vec![present], &set)?;
                    if keyword == "dependencies" {
                        // No edition that has this word has `unevaluatedProperties`, and the other way round.
                        forget_seen(&mut forms);
                    }
                    ways.extend(forms);
                }
            }
            all = self.meet(&all, &ways)?;
        }
        for literals in self.literals(&reader)? {
            // Lists and objects are written out: what has looked at their parts must stay known.
            let (parts, scalars): (Vec<_>, Vec<_>) =
                literals.into_iter().partition(|value| value.is_array() || value.is_object());
            let mut ways = Vec::new();
            if !scalars.is_empty() {
                ways.push(Form::Literals(scalars));
            }
            for value in parts {
                ways.extend(self.equal(value, home)?);
            }
            all = self.meet(&all, &ways)?;
        }
        for set in self.references(&reader)? {
            all = self.meet_set(all, &set)?;
        }
        for set in reader.sets(self, "allOf")?.unwrap_or_default() {
            all = self.meet_set(all, &set)?;
        }
        if let Some(sets) = reader.sets(self, "anyOf")? {
            let mut any = Vec::new();
            for set in sets {
                unite_all(&mut any, self.forms(&set)?.iter().cloned());
            }
            all = self.meet(&all, &any)?;
        }
        if let Some(value) = reader.get("not") {
            let set = reader.part(self, "not", value)?;
            all = self.meet_set(all, &Algebra::not(&set))?;
        }
        if let Some((first, then, otherwise)) = self.conditions(&reader)? {
            let yes = self.meet_set(all.clone(), &first)?;
            let mut ways = self.meet_set(yes, &then)?;
            let no = self.meet_set(all, &Algebra::not(&first))?;
            unite_all(&mut ways, self.meet_set(no, &otherwise)?);
            all = ways;
        }
        if let Some(sets) = reader.sets(self, "oneOf")? {
            all = self.exactly_one(&all, &sets)?;
        }
        self.unevaluated(&reader, all)
    }

    pub(super) fn meet_set(&mut self, forms: Forms<'a>, set: &Set) -> Found<Forms<'a>> {
        if set.is_any() {
            return Ok(forms);
        }
        let other = self.forms(set)?;
        self.meet(&forms, &other)
    }

    /// The values of `const` and `enum`, each as a union.
    pub(super) fn literals(&mut self, reader: &Reader<'_, 'a>) -> Found<Vec<Vec<&'a Value>>> {
        let mut out = Vec::new();
        if let Some(value) = reader.get("const") {
            self.literal_fits(reader, "const", value, 0)?;
            out.push(vec![value]);
        }
        if let Some(value) = reader.get("enum") {
            let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
                return Err(reader.error("enum", "not a list with at least one value").into());
            };
            if list.len() > MAX_ENUM {
                let what = format!("number of values at {}/enum", reader.pointer);
                return Err(GrammarError::TooLarge { what, found: list.len(), limit: MAX_ENUM }.into());
            }
            for value in list {
                self.literal_fits(reader, "enum", value, 0)?;
            }
            out.push(list.iter().collect());
        }
        Ok(out)
    }

    /// What `$ref` and its kin lead to.
    pub(super) fn references(&mut self, reader: &Reader<'_, 'a>) -> Found<Vec<Set>> {
        let mut out = Vec::new();
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(value) = reader.get(keyword) else { continue };
            let Some(text) = value.as_str() else { return Err(reader.error(keyword, "not a string").into()) };
            let document = &self.documents[reader.home.document];
            let name = text.split_once('#').map_or("", |(_, name)| name);
            if keyword != "$ref" && !document.is_static(name) {
                let message = "cannot be followed while text is generated: several anchors have this name";
                return Err(reader.error(keyword, message).into());
            }
            let found = document.resolve(text, reader.home);
            let (value, home, pointer) = found.map_err(|message| reader.error(keyword, message))?;
            let pointer = format!("{}{pointer}", document.base);
            if !matches!(value, Value::Object(_) | Value::Bool(_)) {
                let message = format!("{text:?} leads to {}, which is no schema", kind(value));
                return Err(reader.error(keyword, message).into());
            }
            out.push(self.schema(value, home, || pointer)?);
        }
        Ok(out)
    }

    /// `if`, `then` and `else`, where they say something.
    pub(super) fn conditions(&mut self, reader: &Reader<'_, 'a>) -> Found<Option<(Set, Set, Set)>> {
        let mut part = |keyword: &str| match reader.get(keyword) {
            Some(value) => reader.part(self, keyword, value),
            None => Ok(Set::default()),
        };
        let (first, then, otherwise) = (part("if")?, part("then")?, part("else")?);
        let says = reader.get("if").is_some() && !(then.is_any() && otherwise.is_any());
        Ok(says.then_some((first, then, otherwise)))
    }

    /// Each alternative without what others take, too.
    fn exactly_one(&mut self, all: &Forms<'a>, sets: &[Set]) -> Found<Forms<'a>> {
        let mut ways = Vec::new();
        let mut alternatives = Vec::with_capacity(sets.len());
        for set in sets {
            let forms = self.forms(set)?;
            alternatives.push(self.meet(all, &forms)?);
        }
        for (i, alternative) in alternatives.iter().enumerate() {
            let mut left = alternative.clone();
            for (j, other) in alternatives.iter().enumerate() {
                if i == j {
                    continue;
                }
                let mut next = Vec::new();
                for form in left {
                    let one = vec![form];
                    if !self.is_loose(&sets[j]) && self.meet(&one, other)?.is_empty() {
                        next.extend(one);
                    } else {
                        next.extend(self.meet_set(one, &Algebra::not(&sets[j]))?);
                    }
                }
                left = next;
            }
            unite_all(&mut ways, left);
        }
        Ok(ways)
    }

    fn unevaluated(&mut self, reader: &Reader<'_, 'a>, mut all: Forms<'a>) -> Found<Forms<'a>> {
        if let Some(value) = reader.get("unevaluatedProperties") {
            let rest = reader.part(self, "unevaluatedProperties", value)?;
            let mut out = Vec::new();
            for form in all {
                let Form::Object(object) = &form else {
                    out.push(form);
                    continue;
                };
                let Seen::Some((names, patterns)) = &object.seen else {
                    out.push(form);
                    continue;
                };
                let limit = Object {
                    props: names.iter().map(|name| (name.clone(), Set::default())).collect(),
                    patterns: patterns.iter().map(|pattern| (pattern.clone(), Set::default())).collect(),
                    rest: rest.clone(),
                    seen: Seen::All,
                    asked: true,
                    ..Object::default()
                };
                out.extend(self.meet(&vec![form], &vec![Form::Object(limit)])?);
            }
            all = out;
        }
        if let Some(value) = reader.get("unevaluatedItems") {
            let rest = reader.part(self, "unevaluatedItems", value)?;
            let mut out = Vec::new();
            for form in all {
                match &form {
                    Form::List(List { seen: Seen::Some(n), .. }) => {
                        let first = vec![Set::default(); *n];
                        let limit = List { first, rest: rest.clone(), seen: Seen::All, ..List::default() };
                        out.extend(self.meet(&vec![form], &vec![Form::List(limit)])?);
                    }
                    _ => out.push(form),
                }
            }
            all = out;
        }
        Ok(all)
    }
}
