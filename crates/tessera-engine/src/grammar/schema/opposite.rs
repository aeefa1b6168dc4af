//! What violates a schema: the opposite of each of its keywords.

use super::algebra::{Algebra, Found};
use super::forms::{
    Among, Contains, DoubtKind, Form, Forms, List, Need, Number, Object, Set, Text, everything,
};
use super::logic::{forget_seen, unite, unite_all, with_member};
use super::objects::Dependent;
use super::read::{MAX_NUMBER, Reader};
use super::resources::Home;
use super::{MAX_COUNT, MAX_LENGTH};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most alternatives of a `oneOf` whose opposite is made.
const MAX_PAIRS: usize = 16;

impl<'a> Algebra<'a> {
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
        forget_seen(&mut out);
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
        // Bounds that stand for ones further out leave nothing that is certain beyond them.
        let near = |bound: &(f64, bool)| bound.0.abs() < MAX_NUMBER - 1.0;
        if let Some((least, open)) = number.least.filter(near) {
            other(Number { most: Some((least, !open)), ..Number::default() });
        }
        if let Some((most, end)) = number.most.filter(near) {
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
        if let Some(max) = text.max.filter(|max| *max < MAX_LENGTH) {
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
        if let Some(max) = list.max.filter(|max| *max < MAX_COUNT) {
            other(List { min: max + 1, ..List::default() });
        }
        // One item is wrong: one of the first ones, or, of the others, the first.
        let len = list.first.len() + usize::from(!list.rest.is_any());
        self.loosened |= !list.rest.is_any();
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
                other(List { contains: vec![Contains { min, max, ..contains.clone() }], ..List::default() });
            }
            if let Some(max) = contains.max.filter(|max| *max < MAX_COUNT) {
                let more = Contains { min: max + 1, max: None, ..contains };
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
        if let Some(max) = object.max.filter(|max| *max < MAX_COUNT) {
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
