//! Whether a value is taken by a form, and whether a form takes any value at all.

use super::algebra::{Algebra, Found};
use super::forms::{
    Among, Doubt, DoubtKind, Form, Forms, List, Need, Number, Object, Set, Text, everything, is_multiple,
    same,
};
use super::read::{MAX_NUMBER, Reader};
use super::resources::Home;
use super::unsupported;
use crate::grammar::canonical::canonical;
use crate::grammar::pattern;
use serde_json::Value;
use std::collections::BTreeSet;

/// Depth of a literal object or list.
const MAX_LITERAL_DEPTH: usize = 32;

impl<'a> Algebra<'a> {
    /// Refuses literals that could not be written, or not so that everybody reads them alike.
    pub fn literal_fits(
        &mut self,
        reader: &Reader<'_, 'a>,
        keyword: &str,
        value: &Value,
        depth: usize,
    ) -> Found<()> {
        self.count(1)?;
        if depth > MAX_LITERAL_DEPTH {
            return Err(reader.error(keyword, format!("a value more than {MAX_LITERAL_DEPTH} deep")).into());
        }
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::INFINITY);
                if number.abs() >= MAX_NUMBER {
                    let message = format!("{number} is too large: only numbers below {MAX_NUMBER} are exact");
                    return Err(reader.error(keyword, message).into());
                }
                let decimals = number.to_string().split_once('.').map_or(0, |(_, digits)| digits.len());
                if decimals > 15 {
                    let message =
                        format!("{number} has {decimals} digits after the point, at most 15 are taken");
                    return Err(reader.error(keyword, message).into());
                }
                Ok(())
            }
            Value::String(text) => {
                self.count_text(text)?;
                if pattern::is_writable(text) {
                    return Ok(());
                }
                let message = format!("{text:?} has a control character that only \\u00XX could write");
                Err(reader.error(keyword, message).into())
            }
            Value::Array(list) => {
                list.iter().try_for_each(|v| self.literal_fits(reader, keyword, v, depth + 1))
            }
            Value::Object(map) => map.iter().try_for_each(|(name, v)| {
                self.count_text(name)?;
                self.literal_fits(reader, keyword, v, depth + 1)
            }),
        }
    }

    /// Exactly one value.
    pub fn equal(&mut self, value: &'a Value, home: Home) -> Found<Forms<'a>> {
        // Lists and objects are written out, so that they can meet others.
        Ok(vec![match value {
            Value::Array(values) => {
                let first = values.iter().map(|v| self.literal(v, home)).collect::<Found<Vec<Set>>>()?;
                let len = first.len() as u64;
                Form::List(List { first, min: len, max: Some(len), rest: Set::never(), ..List::default() })
            }
            Value::Object(map) => Form::Object(self.exactly(map, home)?),
            _ => Form::Literals(vec![value]),
        }])
    }

    /// All values but some.
    pub fn other_than(&mut self, values: &[&'a Value], home: Home, source: u32) -> Found<Forms<'a>> {
        let mut out = Vec::new();
        let has = |value: &Value| values.iter().any(|v| same(v, value));
        for form in everything() {
            match form {
                Form::Null if has(&Value::Null) => {}
                Form::Bool(_) => match (has(&Value::Bool(false)), has(&Value::Bool(true))) {
                    (true, true) => {}
                    (true, false) => out.push(Form::Bool(Some(true))),
                    (false, true) => out.push(Form::Bool(Some(false))),
                    (false, false) => out.push(form),
                },
                Form::Number(_) => {
                    let excluded = values.iter().filter_map(|v| v.as_f64()).collect();
                    out.push(Form::Number(Number { excluded, ..Number::default() }));
                }
                Form::Text(_) => {
                    let excluded = values.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect();
                    out.push(Form::Text(Text { excluded, ..Text::default() }));
                }
                Form::List(_) | Form::Object(_) => {
                    let is_list = matches!(form, Form::List(_));
                    let of_type = |v: &&&'a Value| if is_list { v.is_array() } else { v.is_object() };
                    let mut all = vec![form];
                    for value in values.iter().filter(of_type) {
                        let ways = self.unlike(value, home, source)?;
                        all = self.meet(&all, &ways)?;
                    }
                    out.extend(all);
                }
                other => out.push(other),
            }
        }
        Ok(out)
    }

    /// Lists or objects that are not this one.
    fn unlike(&mut self, value: &'a Value, home: Home, source: u32) -> Found<Forms<'a>> {
        let mut out = Vec::new();
        match value {
            Value::Array(values) => {
                let len = values.len() as u64;
                if len > 0 {
                    out.push(Form::List(List { max: Some(len - 1), ..List::default() }));
                }
                out.push(Form::List(List { min: len + 1, ..List::default() }));
                for (i, value) in values.iter().enumerate() {
                    let mut first = vec![Set::default(); i];
                    first.push(Algebra::not(&self.literal(value, home)?));
                    out.push(Form::List(List { first, min: i as u64 + 1, ..List::default() }));
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let other = Algebra::not(&self.literal(value, home)?);
                    for (set, required) in [(Set::never(), Vec::new()), (other, vec![name.clone()])] {
                        let props = vec![(name.clone(), set)];
                        out.push(Form::Object(Object { props, required, ..Object::default() }));
                    }
                }
                let pointer = self.sources[source as usize].pointer.clone();
                let min = map.len() as u64 + 1;
                out.push(Form::Object(Object { min, counts_pointer: pointer, ..Object::default() }));
            }
            _ => {}
        }
        Ok(out)
    }

    /// Whether a form takes a value.
    pub fn takes(&mut self, form: &Form<'a>, value: &Value) -> Found<bool> {
        match (form, value) {
            (Form::Null, Value::Null) => Ok(true),
            (Form::Bool(only), Value::Bool(b)) => Ok(only.is_none_or(|only| only == *b)),
            (Form::Literals(values), value) => Ok(values.iter().any(|v| same(v, value))),
            (Form::Number(number), Value::Number(n)) => {
                let n = n.as_f64().unwrap_or(f64::INFINITY);
                Ok(number.takes(n) && self.doubts_take(&number.doubts, value)?)
            }
            (Form::Text(text), Value::String(s)) => {
                let len = s.chars().count() as u64;
                if len < text.min || text.max.is_some_and(|max| len > max) || text.excluded.contains(s) {
                    return Ok(false);
                }
                for pattern in &text.patterns {
                    if !self.matches(pattern, s)? {
                        return Ok(false);
                    }
                }
                self.doubts_take(&text.doubts, value)
            }
            (Form::List(list), Value::Array(values)) => self.list_takes(list, values, value),
            (Form::Object(object), Value::Object(map)) => {
                let len = map.len() as u64;
                let counts = len >= object.min && object.max.is_none_or(|max| len <= max);
                if !counts || object.required.iter().any(|name| !map.contains_key(name)) {
                    return Ok(false);
                }
                for (name, value) in map {
                    let set = self.member(object, name)?;
                    let named = Value::String(name.clone());
                    if !self.set_takes(&object.names, &named)? || !self.set_takes(&set, value)? {
                        return Ok(false);
                    }
                }
                for need in &object.needs {
                    let mut met = false;
                    for (name, value) in map {
                        met = met || self.meets(need, name, value)?;
                    }
                    if !met {
                        return Ok(false);
                    }
                }
                self.doubts_take(&object.doubts, value)
            }
            _ => Ok(false),
        }
    }

    fn list_takes(&mut self, list: &List, values: &[Value], value: &Value) -> Found<bool> {
        let len = values.len() as u64;
        if len < list.min || list.max.is_some_and(|max| len > max) {
            return Ok(false);
        }
        for (i, value) in values.iter().enumerate() {
            if !self.set_takes(list.item(i), value)? {
                return Ok(false);
            }
        }
        if list.unique && has_equals(values) {
            return Ok(false);
        }
        for contains in &list.contains {
            let mut n = 0;
            for value in values {
                n += u64::from(self.set_takes(&contains.set, value)?);
            }
            if n < contains.min || contains.max.is_some_and(|max| n > max) {
                return Ok(false);
            }
        }
        self.doubts_take(&list.doubts, value)
    }

    fn meets(&mut self, need: &Need, name: &str, value: &Value) -> Found<bool> {
        let about = match &need.among {
            Among::Names => return self.set_takes(&need.set, &Value::String(name.to_owned())),
            among => self.is_among(among, name)?,
        };
        Ok(about && self.set_takes(&need.set, value)?)
    }

    /// Whether a need is about the member of this name.
    pub fn is_among(&mut self, among: &Among, name: &str) -> Found<bool> {
        match among {
            Among::Names => Ok(true),
            Among::Pattern(pattern) => self.matches(pattern, name),
            Among::Others(names, patterns) => {
                let mut listed = names.contains(name);
                for pattern in patterns {
                    listed = listed || self.matches(pattern, name)?;
                }
                Ok(!listed)
            }
        }
    }

    fn matches(&mut self, pattern: &str, text: &str) -> Found<bool> {
        match self.patterns.is_match(pattern, text) {
            Some(found) => Ok(found),
            None => {
                let message = format!("it takes too much work to say whether it matches {text:?}");
                Err(unsupported(&self.origin, "pattern", message).into())
            }
        }
    }

    /// Whether a set takes a value.
    pub fn set_takes(&mut self, set: &Set, value: &Value) -> Found<bool> {
        if set.is_any() {
            return Ok(true);
        }
        let forms = self.aside(|algebra| algebra.forms(set))?;
        for form in forms.iter() {
            self.spend(1)?;
            if self.takes(form, value)? {
                return Ok(true);
            }
        }
        if self.is_loose(set) {
            let message =
                format!("it cannot be said for certain whether {value} satisfies a part of the schema");
            return Err(unsupported(&self.origin, "enum", message).into());
        }
        Ok(false)
    }

    fn doubts_take(&mut self, doubts: &[Doubt], value: &Value) -> Found<bool> {
        for doubt in doubts {
            let fine = match (&doubt.kind, value) {
                (DoubtKind::NotPattern(pattern), Value::String(text)) => !self.matches(pattern, text)?,
                (DoubtKind::NotWhole, Value::Number(n)) => n.as_f64().is_some_and(|n| n.fract() != 0.0),
                (DoubtKind::NotMultiple(of), Value::Number(n)) => {
                    n.as_f64().is_some_and(|n| !is_multiple(n, *of))
                }
                (DoubtKind::NotUnique, Value::Array(values)) => has_equals(values),
                _ => return Err(doubt.error().into()),
            };
            if !fine {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a form may take a value. False is certain, true is not.
    pub fn can_be(&mut self, form: &Form<'a>, look: usize) -> Found<bool> {
        match form {
            Form::Null | Form::Bool(_) => Ok(true),
            Form::Literals(values) => Ok(!values.is_empty()),
            Form::Number(number) => {
                let never = number.doubts.iter().any(|d| match &d.kind {
                    DoubtKind::NotWhole => number.whole,
                    DoubtKind::NotMultiple(of) => number.multiples.contains(of),
                    _ => false,
                });
                Ok(!number.is_empty() && !never)
            }
            Form::Text(text) => {
                if text.max.is_some_and(|max| text.min > max) {
                    return Ok(false);
                }
                // Two patterns may exclude each other.
                let not = text.doubts.iter().filter_map(|d| match &d.kind {
                    DoubtKind::NotPattern(pattern) => Some(pattern.as_str()),
                    _ => None,
                });
                let not: Vec<&str> = not.collect();
                let asks = !text.patterns.is_empty() && (text.patterns.len() > 1 || !not.is_empty());
                Ok(!(asks && self.patterns.is_empty(&text.patterns, &not)))
            }
            Form::List(list) => {
                if list.max.is_some_and(|max| list.min > max) {
                    return Ok(false);
                }
                let asked = (list.min as usize).min(list.first.len() + 1);
                for i in 0..asked {
                    if !self.can_hold(&list.item(i).clone(), look)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Form::Object(object) => {
                let asked = object.required.len() as u64;
                let max = object.max.unwrap_or(u64::MAX);
                if asked > max || object.min > max {
                    return Ok(false);
                }
                for name in &object.required {
                    let set = self.member(object, name)?;
                    if !self.can_hold(&set, look)? {
                        return Ok(false);
                    }
                    if !object.names.is_any() {
                        let named = Value::String(name.clone());
                        if !self.set_takes(&object.names.clone(), &named)? {
                            return Ok(false);
                        }
                    }
                }
                if object.rest.is_never() && object.patterns.is_empty() && !object.needs.is_empty() {
                    return self.needs_can_be_met(object, look);
                }
                Ok(true)
            }
        }
    }

    fn needs_can_be_met(&mut self, object: &Object, look: usize) -> Found<bool> {
        for need in &object.needs {
            let mut met = false;
            for (name, set) in &object.props {
                if met || set.is_never() {
                    continue;
                }
                met = match &need.among {
                    Among::Names => self.set_takes(&need.set, &Value::String(name.clone()))?,
                    among => self.is_among(among, name)? && self.can_hold(&set.and(&need.set), look)?,
                };
            }
            if !met {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn has_equals(values: &[Value]) -> bool {
    let mut known: BTreeSet<String> = BTreeSet::new();
    values.iter().any(|value| !known.insert(canonical(value)))
}

impl Doubt {
    pub fn error(&self) -> crate::grammar::GrammarError {
        crate::grammar::GrammarError::Schema {
            pointer: self.pointer.clone(),
            keyword: self.keyword.to_owned(),
            message: self.message.clone(),
        }
    }
}
