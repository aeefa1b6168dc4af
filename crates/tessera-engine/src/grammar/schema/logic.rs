//! What satisfies a schema and what violates it.

use super::algebra::{Algebra, Found, Home};
use super::forms::{Among, DoubtKind, Form, Forms, List, Need, Number, Object, Seen, Set, Text, everything};
use super::objects::Dependent;
use super::read::Reader;
use super::{MAX_ENUM, kind, unsupported};
use crate::grammar::GrammarError;
use serde_json::Value;
use std::collections::BTreeSet;

/// Most alternatives of a `oneOf` whose opposite is made.
const MAX_PAIRS: usize = 16;

/// Adds a form to a union, unless it is there already.
fn unite<'a>(out: &mut Forms<'a>, form: Form<'a>) {
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

fn unite_all<'a>(out: &mut Forms<'a>, forms: impl IntoIterator<Item = Form<'a>>) {
    forms.into_iter().for_each(|form| unite(out, form));
}

/// Everything but objects.
fn no_objects<'a>() -> Forms<'a> {
    everything().into_iter().filter(|form| !matches!(form, Form::Object(_))).collect()
}

fn with_member<'a>(name: &str, set: Set, present: bool) -> Form<'a> {
    let required = if present { vec![name.to_owned()] } else { Vec::new() };
    Form::Object(Object { props: vec![(name.to_owned(), set)], required, ..Object::default() })
}

impl<'a> Algebra<'a> {
    fn reader<'r>(&self, value: &'a Value, home: Home, pointer: &'r str) -> Found<Reader<'r, 'a>> {
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
        for (_, name, dependent) in reader.dependents(self)? {
            let mut ways = no_objects();
            ways.push(with_member(name, Set::never(), false));
            let present = with_member(name, Set::default(), true);
            match dependent {
                Dependent::Names(names) => {
                    let mut object = Object { required: vec![name.to_owned()], ..Object::default() };
                    object.required.extend(names.iter().map(|name| (*name).to_owned()));
                    ways.push(Form::Object(object));
                }
                Dependent::Schema(set) => {
                    let forms = self.forms(&set)?;
                    ways.extend(self.meet(&vec![present], &forms)?);
                }
            }
            all = self.meet(&all, &ways)?;
        }
        for literals in self.literals(&reader)? {
            all = self.meet(&all, &vec![Form::Literals(literals)])?;
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

    fn meet_set(&mut self, forms: Forms<'a>, set: &Set) -> Found<Forms<'a>> {
        if set.is_any() {
            return Ok(forms);
        }
        let other = self.forms(set)?;
        self.meet(&forms, &other)
    }

    /// The values of `const` and `enum`, each as a union.
    fn literals(&mut self, reader: &Reader<'_, 'a>) -> Found<Vec<Vec<&'a Value>>> {
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
    fn references(&mut self, reader: &Reader<'_, 'a>) -> Found<Vec<Set>> {
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
    fn conditions(&mut self, reader: &Reader<'_, 'a>) -> Found<Option<(Set, Set, Set)>> {
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
                    if self.meet(&one, other)?.is_empty() {
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

    /// What violates one keyword or another.
    pub fn violating(&mut self, value: &'a Value, source: u32, home: Home) -> Found<Forms<'a>> {
        let pointer = self.sources[source as usize].pointer.clone();
        let reader = self.reader(value, home, &pointer)?;
        reader.check_words()?;
        reader.check_edition()?;
        let mut out = Vec::new();
        for set in self.references(&reader)? {
            unite_all(&mut out, self.forms(&Algebra::not(&set))?.iter().cloned());
        }
        if home.draft.only_ref() && reader.map.contains_key("$ref") {
            return Ok(out);
        }
        for keyword in ["unevaluatedProperties", "unevaluatedItems", "contentEncoding"] {
            if reader.map.contains_key(keyword)
                && (keyword != "contentEncoding" || home.draft == super::dialect::Draft::Seven)
            {
                return Err(reader
                    .error(keyword, "cannot be enforced under \"not\", \"if\" and the like")
                    .into());
            }
        }
        if let Some(types) = reader.types()? {
            for form in everything() {
                let name = match form {
                    Form::Null => "null",
                    Form::Bool(_) => "boolean",
                    Form::Number(_) if types.contains(&"integer") && !types.contains(&"number") => {
                        let doubt = reader.doubt(
                            DoubtKind::NotWhole,
                            "type",
                            "numbers that are not whole cannot be told from others",
                        );
                        unite(&mut out, Form::Number(Number { doubts: vec![doubt], ..Number::default() }));
                        continue;
                    }
                    Form::Number(_) => "number",
                    Form::Text(_) => "string",
                    Form::List(_) => "array",
                    _ => "object",
                };
                if !types.contains(&name) {
                    unite(&mut out, form);
                }
            }
        }
        unite_all(&mut out, self.not_numbers(&reader)?);
        unite_all(&mut out, self.not_texts(&reader)?);
        unite_all(&mut out, self.not_lists(&reader)?);
        unite_all(&mut out, self.not_objects(&reader)?);
        for literals in self.literals(&reader)? {
            unite_all(&mut out, self.other_than(&literals, home, source)?);
        }
        for set in reader.sets(self, "allOf")?.unwrap_or_default() {
            unite_all(&mut out, self.forms(&Algebra::not(&set))?.iter().cloned());
        }
        if let Some(sets) = reader.sets(self, "anyOf")? {
            unite_all(&mut out, self.none_of(&sets)?);
        }
        if let Some(sets) = reader.sets(self, "oneOf")? {
            unite_all(&mut out, self.none_of(&sets)?);
            if sets.len() > MAX_PAIRS {
                return Err(reader
                    .error("oneOf", format!("the opposite of more than {MAX_PAIRS} alternatives"))
                    .into());
            }
            for (i, one) in sets.iter().enumerate() {
                for other in &sets[i + 1..] {
                    unite_all(&mut out, self.forms(&one.and(other))?.iter().cloned());
                }
            }
        }
        if let Some(value) = reader.get("not") {
            let set = reader.part(self, "not", value)?;
            unite_all(&mut out, self.forms(&set)?.iter().cloned());
        }
        if let Some((first, then, otherwise)) = self.conditions(&reader)? {
            unite_all(&mut out, self.forms(&first.and(&Algebra::not(&then)))?.iter().cloned());
            unite_all(
                &mut out,
                self.forms(&Algebra::not(&first).and(&Algebra::not(&otherwise)))?.iter().cloned(),
            );
        }
        // What a violated schema has looked at counts for nothing.
        for form in &mut out {
            match form {
                Form::List(list) => list.seen = Seen::default(),
                Form::Object(object) => object.seen = Seen::default(),
                _ => {}
            }
        }
        Ok(out)
    }

    fn none_of(&mut self, sets: &[Set]) -> Found<Forms<'a>> {
        let mut all = everything();
        for set in sets {
            all = self.meet_set(all, &Algebra::not(set))?;
        }
        Ok(all)
    }

    fn not_numbers(&mut self, reader: &Reader<'_, 'a>) -> Found<Forms<'a>> {
        let number = reader.numbers()?;
        let mut out = Vec::new();
        let mut other = |number: Number| out.push(Form::Number(number));
        if let Some((least, open)) = number.least {
            other(Number { most: Some((least, !open)), ..Number::default() });
        }
        if let Some((most, end)) = number.most {
            other(Number { least: Some((most, !end)), ..Number::default() });
        }
        for multiple in number.multiples {
            let message = "numbers that are no multiple cannot be told from others";
            let doubt = reader.doubt(DoubtKind::NotMultiple(multiple), "multipleOf", message);
            other(Number { doubts: vec![doubt], ..Number::default() });
        }
        Ok(out)
    }

    fn not_texts(&mut self, reader: &Reader<'_, 'a>) -> Found<Forms<'a>> {
        let text = reader.texts(self)?;
        let mut out = Vec::new();
        let mut other = |text: Text| out.push(Form::Text(text));
        if text.min > 0 {
            other(Text { max: Some(text.min - 1), ..Text::default() });
        }
        if let Some(max) = text.max {
            other(Text { min: max + 1, ..Text::default() });
        }
        if reader.map.contains_key("format") && !text.patterns.is_empty() {
            let doubt = reader.doubt(
                DoubtKind::Unknown,
                "format",
                "cannot be enforced under \"not\", \"if\" and the like",
            );
            other(Text { doubts: vec![doubt], ..Text::default() });
        } else {
            for pattern in &text.patterns {
                let message = "strings that the pattern does not match cannot be told from others";
                let doubt = reader.doubt(DoubtKind::NotPattern(pattern.clone()), "pattern", message);
                other(Text { doubts: vec![doubt], ..Text::default() });
            }
        }
        for doubt in text.doubts {
            other(Text { doubts: vec![doubt], ..Text::default() });
        }
        Ok(out)
    }

    fn not_lists(&mut self, reader: &Reader<'_, 'a>) -> Found<Forms<'a>> {
        let list = reader.lists(self)?;
        let mut out = Vec::new();
        let mut other = |list: List| out.push(Form::List(list));
        if list.min > 0 {
            other(List { max: Some(list.min - 1), ..List::default() });
        }
        if let Some(max) = list.max {
            other(List { min: max + 1, ..List::default() });
        }
        // One item is wrong: one of the first ones, or, of the others, the first.
        let len = list.first.len() + usize::from(!list.rest.is_any());
        for i in (0..len).filter(|i| !list.item(*i).is_any()) {
            let mut first = vec![Set::default(); i];
            first.push(Algebra::not(list.item(i)));
            other(List { first, min: i as u64 + 1, ..List::default() });
        }
        if list.unique {
            let doubt = reader.doubt(DoubtKind::NotUnique, "uniqueItems", "equal items cannot be asked for");
            other(List { min: 2, doubts: vec![doubt], ..List::default() });
        }
        for contains in list.contains {
            if contains.min == 1 {
                other(List { rest: contains.without.clone(), ..List::default() });
            } else if contains.min > 1 {
                let (min, max) = (0, Some(contains.min - 1));
                other(List {
                    contains: vec![super::forms::Contains { min, max, ..contains.clone() }],
                    ..List::default()
                });
            }
            if let Some(max) = contains.max {
                let more = super::forms::Contains { min: max + 1, max: None, ..contains };
                other(List { contains: vec![more], ..List::default() });
            }
        }
        Ok(out)
    }

    fn not_objects(&mut self, reader: &Reader<'_, 'a>) -> Found<Forms<'a>> {
        let object = reader.objects(self)?;
        let mut out = Vec::new();
        for name in &object.required {
            out.push(with_member(name, Set::never(), false));
        }
        for (name, set) in &object.props {
            if !set.is_any() {
                // Its patterns count as well; a set of several has no opposite, its parts have.
                for term in set.terms() {
                    out.push(with_member(name, Algebra::not(&Set::one(*term)), true));
                }
            }
        }
        let mut other = |object: Object| out.push(Form::Object(object));
        if object.min > 0 {
            other(Object { max: Some(object.min - 1), ..Object::default() });
        }
        if let Some(max) = object.max {
            other(Object {
                min: max + 1,
                counts_pointer: object.counts_pointer.clone(),
                ..Object::default()
            });
        }
        let names: BTreeSet<String> = object.props.iter().map(|(name, _)| name.clone()).collect();
        let patterns: BTreeSet<String> = object.patterns.keys().cloned().collect();
        let mut needs = Vec::new();
        for (pattern, set) in &object.patterns {
            needs.extend(set.terms().iter().map(|t| (Among::Pattern(pattern.clone()), Set::one(*t))));
        }
        for term in object.rest.terms() {
            needs.push((Among::Others(names.clone(), patterns.clone()), Set::one(*term)));
        }
        if !object.names.is_any() {
            needs.push((Among::Names, object.names.clone()));
        }
        for (among, set) in needs {
            let need = Need { among, set: Algebra::not(&set) };
            other(Object { needs: vec![need], ..Object::default() });
        }
        for (_, name, dependent) in reader.dependents(self)? {
            match dependent {
                Dependent::Names(names) => {
                    for missing in names {
                        let present = with_member(name, Set::default(), true);
                        out.extend(
                            self.meet(&vec![present], &vec![with_member(missing, Set::never(), false)])?,
                        );
                    }
                }
                Dependent::Schema(set) => {
                    let present = vec![with_member(name, Set::default(), true)];
                    out.extend(self.meet_set(present, &Algebra::not(&set))?);
                }
            }
        }
        Ok(out)
    }
}
