//! Keywords about the members of objects.

use super::algebra::{Algebra, Found};
use super::forms::{Object, Seen, Set};
use super::read::Reader;
use super::resources::Home;
use super::resources::escaped;
use super::{MAX_COUNT, unsupported};
use crate::grammar::pattern;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What another member's presence asks for.
pub(super) enum Dependent<'a> {
    Names(Vec<&'a str>),
    Schema(Set),
}

impl<'a> Reader<'_, 'a> {
    pub fn objects(&self, algebra: &mut Algebra<'a>) -> Found<Object> {
        let (min, max) = self.counts("minProperties", "maxProperties", MAX_COUNT)?;
        let mut object = Object { min, max, counts_pointer: self.pointer.to_owned(), ..Object::default() };
        let (mut names, mut patterns) = (BTreeSet::new(), BTreeSet::new());
        for (name, schema) in self.members("patternProperties")? {
            algebra.count_text(name)?;
            let whole = pattern::whole(name)
                .map_err(|e| self.error("patternProperties", format!("the pattern {name:?}: {e}")))?;
            let set = self.part(algebra, &format!("patternProperties/{}", escaped(name)), schema)?;
            let both = object.patterns.get(&whole).map_or(set.clone(), |other| other.and(&set));
            object.patterns.insert(whole.clone(), both);
            patterns.insert(whole);
            object.asked = true;
        }
        if let Some(value) = self.get("additionalProperties") {
            object.rest = self.part(algebra, "additionalProperties", value)?;
            object.asked = true;
            object.seen = Seen::All;
        }
        // A pattern that every name matches: `additionalProperties` means nothing beside it.
        let open = !self.map.contains_key("additionalProperties");
        let every = object.patterns.keys().find(|p| is_universal(p, open)).cloned();
        let every = every.and_then(|pattern| object.patterns.remove(&pattern));
        if let Some(set) = &every {
            object.patterns.values_mut().for_each(|other| *other = other.and(set));
            object.rest = set.clone();
            object.seen = Seen::All;
        }
        let listed = self.members("properties")?;
        algebra.count(listed.len())?;
        object.lists = self.map.contains_key("properties");
        for (name, schema) in listed {
            algebra.count_text(name)?;
            let mut set = self.part(algebra, &format!("properties/{}", escaped(name)), schema)?;
            set = every.iter().fold(set, |set, every| set.and(every));
            for other in algebra.matching(&object, name)? {
                set = set.and(&other);
            }
            names.insert(name.to_owned());
            object.props.push((name.to_owned(), set));
        }
        if object.seen != Seen::All {
            object.seen = Seen::Some((names, patterns));
        }
        object.required = self.names("required", self.get("required"))?;
        algebra.count(object.required.len())?;
        object.required.iter().try_for_each(|name| algebra.count_text(name))?;
        if let Some(value) = self.get("propertyNames") {
            object.names = self.part(algebra, "propertyNames", value)?;
            object.names_pointer = format!("{}/propertyNames", self.pointer);
        }
        Ok(object)
    }

    fn members(&self, keyword: &str) -> Found<Vec<(&'a str, &'a Value)>> {
        match self.get(keyword) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => Ok(map.iter().map(|(name, value)| (name.as_str(), value)).collect()),
            Some(_) => Err(self.error(keyword, "not an object").into()),
        }
    }

    /// A list of names, each once.
    fn names(&self, keyword: &str, value: Option<&'a Value>) -> Found<Vec<String>> {
        let mut out: Vec<String> = Vec::new();
        let Some(value) = value else { return Ok(out) };
        let list = value.as_array().filter(|list| list.iter().all(Value::is_string));
        let Some(list) = list else { return Err(self.error(keyword, "not a list of strings").into()) };
        let mut known = BTreeSet::new();
        for name in list.iter().filter_map(Value::as_str) {
            if known.insert(name) {
                out.push(name.to_owned());
            }
        }
        Ok(out)
    }

    /// What members ask for when they are there.
    pub fn dependents(
        &self,
        algebra: &mut Algebra<'a>,
    ) -> Found<Vec<(&'static str, &'a str, Dependent<'a>)>> {
        let mut out = Vec::new();
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            for (name, value) in self.members(keyword)? {
                let names = match value {
                    Value::Array(list) if keyword != "dependentSchemas" => {
                        list.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()
                    }
                    Value::Object(_) | Value::Bool(_) if keyword != "dependentRequired" => {
                        let set = self.part(algebra, &format!("{keyword}/{}", escaped(name)), value)?;
                        out.push((keyword, name, Dependent::Schema(set)));
                        continue;
                    }
                    _ => None,
                };
                let Some(names) = names else {
                    let at = format!("{}/{keyword}/{}", self.pointer, escaped(name));
                    return Err(unsupported(&at, "", "not what this keyword takes").into());
                };
                if !names.is_empty() {
                    out.push((keyword, name, Dependent::Names(names)));
                }
            }
        }
        Ok(out)
    }
}

/// A member that has to be there; once.
pub(super) fn require(object: &mut Object, name: &str) {
    if !object.required.iter().any(|known| known == name) {
        object.required.push(name.to_owned());
    }
}

/// Whether a pattern is found in every name. `^.*$` is not found in names of several lines, which makes no
/// difference where nothing else is said about them.
fn is_universal(pattern: &str, open: bool) -> bool {
    let line = pattern::whole("^.*$").unwrap_or_default();
    let Some(line) = line.strip_prefix("^(?:").and_then(|p| p.strip_suffix(")$")) else { return false };
    let Some(inner) = pattern.strip_prefix("^(?:").and_then(|p| p.strip_suffix(")$")) else { return false };
    let without = inner.replace("(?s:.*)", "");
    (inner != without && (without.is_empty() || without == line)) || (open && inner == line)
}

impl<'a> Algebra<'a> {
    /// The sets of the patterns that match a name.
    pub fn matching(&mut self, object: &Object, name: &str) -> Found<Vec<Set>> {
        let mut out = Vec::new();
        for (pattern, set) in &object.patterns {
            match self.patterns.is_match(pattern, name) {
                Some(true) => out.push(set.clone()),
                Some(false) => {}
                None => {
                    let message = format!("it takes too much work to say whether {name:?} matches");
                    return Err(unsupported(&object.counts_pointer, "patternProperties", message).into());
                }
            }
        }
        Ok(out)
    }

    /// What a member has to be.
    pub fn member(&mut self, object: &Object, name: &str) -> Found<Set> {
        if let Some((_, set)) = object.props.iter().find(|(known, _)| known == name) {
            return Ok(set.clone());
        }
        let matching = self.matching(object, name)?;
        match matching.is_empty() {
            true => Ok(object.rest.clone()),
            false => Ok(matching.iter().fold(Set::default(), |all, set| all.and(set))),
        }
    }

    pub fn both_objects(&mut self, a: &Object, b: &Object) -> Found<Object> {
        let mut out = a.clone();
        let index = |object: &Object| -> BTreeMap<String, Set> { object.props.iter().cloned().collect() };
        let (in_a, in_b) = (index(a), index(b));
        for (name, set) in &mut out.props {
            let other = match in_b.get(name) {
                Some(other) => other.clone(),
                None => self.member_unlisted(b, name)?,
            };
            *set = set.and(&other);
        }
        for (name, set) in &b.props {
            if !in_a.contains_key(name) {
                let other = self.member_unlisted(a, name)?;
                out.props.push((name.clone(), other.and(set)));
            }
        }
        // Patterns of both that overlap are refused in the end, so names that match one match no other.
        for (pattern, set) in &mut out.patterns {
            *set = set.and(b.patterns.get(pattern).unwrap_or(&b.rest));
        }
        for (pattern, set) in &b.patterns {
            out.patterns.entry(pattern.clone()).or_insert_with(|| a.rest.and(set));
        }
        out.rest = a.rest.and(&b.rest);
        for name in &b.required {
            if !out.required.contains(name) {
                out.required.push(name.clone());
            }
        }
        out.min = a.min.max(b.min);
        out.max = a.max.into_iter().chain(b.max).min();
        if out.names.is_any() {
            out.names_pointer.clone_from(&b.names_pointer);
        }
        if (a.min == 0 && a.max.is_none()) || a.counts_pointer.is_empty() {
            out.counts_pointer.clone_from(&b.counts_pointer);
        }
        out.names = a.names.and(&b.names);
        out.needs.extend(b.needs.iter().cloned());
        out.doubts.extend(b.doubts.iter().cloned());
        out.asked |= b.asked;
        out.lists |= b.lists;
        out.seen = match (&a.seen, &b.seen) {
            (Seen::Some((names, patterns)), Seen::Some((more_names, more_patterns))) => {
                Seen::Some((names | more_names, patterns | more_patterns))
            }
            _ => Seen::All,
        };
        Ok(out)
    }

    fn member_unlisted(&mut self, object: &Object, name: &str) -> Found<Set> {
        let matching = self.matching(object, name)?;
        match matching.is_empty() {
            true => Ok(object.rest.clone()),
            false => Ok(matching.iter().fold(Set::default(), |all, set| all.and(set))),
        }
    }

    /// A value that is exactly this object.
    pub fn exactly(&mut self, map: &'a serde_json::Map<String, Value>, home: Home) -> Found<Object> {
        let mut object = Object { rest: Set::never(), asked: true, ..Object::default() };
        for (name, value) in map {
            object.props.push((name.clone(), self.literal(value, home)?));
            object.required.push(name.clone());
        }
        Ok(object)
    }
}
