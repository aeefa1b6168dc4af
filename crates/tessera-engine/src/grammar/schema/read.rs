//! Keywords of one schema object: their values, checked, and what they say about numbers, strings, lists.

use super::algebra::{Algebra, Found};
use super::dialect::{ASSERTIONS, Draft, slip_of};
use super::forms::{Contains, Doubt, DoubtKind, List, Number, Seen, Set, Text};
use super::resources::Home;
use super::{MAX_COUNT, MAX_LENGTH, kind, unsupported};
use crate::grammar::{GrammarError, formats, pattern};
use serde_json::{Map, Value};

/// Numbers below this are exact as f64 and small enough for the digit ranges that bounds turn into.
pub(super) const MAX_NUMBER: f64 = 9_007_199_254_740_992.0;
/// Most digits after the point of a bound.
const MAX_DECIMALS: usize = 15;
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
/// A string in base64.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";

/// A schema object and where it is.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r, 'a> {
    pub map: &'a Map<String, Value>,
    pub home: Home,
    /// In the request.
    pub pointer: &'r str,
}

impl<'a> Reader<'_, 'a> {
    pub fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.map.get(keyword)
    }

    pub fn error(&self, keyword: &str, message: impl Into<String>) -> GrammarError {
        unsupported(self.pointer, keyword, message)
    }

    pub fn doubt(&self, kind: DoubtKind, keyword: &'static str, message: impl Into<String>) -> Doubt {
        Doubt { kind, pointer: format!("{}/{keyword}", self.pointer), keyword, message: message.into() }
    }

    /// Refuses words that are no keywords but look as if they were meant to be.
    pub fn check_words(&self) -> Result<(), GrammarError> {
        for (word, value) in self.map {
            match word.as_str() {
                "x-guidance" => {
                    return Err(self.error(word, "cannot be set from outside"));
                }
                "prefixItems" if self.home.draft < Draft::Unsaid => {
                    return Err(self
                        .error(word, "not a keyword of the schema's edition (there: a list in \"items\")"));
                }
                "additionalItems"
                    if self.home.draft == Draft::Twenty
                        || (self.home.draft == Draft::Unsaid && self.map.contains_key("prefixItems")) =>
                {
                    let message = "not a keyword of 2020-12 (there: \"items\" beside \"prefixItems\")";
                    return Err(self.error(word, message));
                }
                // Later editions make it an annotation; here a validator may look at it.
                "contentMediaType" if self.home.draft == Draft::Seven && *value == "application/json" => {
                    return Err(self.error(word, "JSON in a string cannot be enforced"));
                }
                _ => {}
            }
            if let Some(meant) = slip_of(word) {
                return Err(self.error(word, format!("not a keyword; was {meant:?} meant?")));
            }
        }
        Ok(())
    }

    /// Refuses keywords that the schema's edition does not have: they are enforced all the same, but what
    /// they exclude may be valid.
    pub fn check_edition(&self) -> Result<(), GrammarError> {
        for (word, since) in ASSERTIONS {
            let late = since.max(Draft::Four) > self.home.draft && self.home.draft != Draft::Unsaid;
            let gone = word == "dependencies"
                && self.home.draft >= Draft::Nineteen
                && self.home.draft != Draft::Unsaid;
            if (late || gone) && !word.starts_with('$') && self.map.contains_key(word) {
                return Err(self.error(word, "not a keyword of the schema's edition"));
            }
        }
        Ok(())
    }

    /// Whether what is enforced may be less than what the schema allows: formats are, by some validators,
    /// taken for annotations; the rest is made narrower here.
    pub fn says_less(&self) -> bool {
        let beyond = |keywords: &[&str], limit: f64| {
            let far =
                |keyword: &&str| self.get(keyword).and_then(Value::as_f64).is_some_and(|n| n.abs() >= limit);
            keywords.iter().any(far)
        };
        let hidden = self.home.draft.only_ref()
            && self.map.contains_key("$ref")
            && ASSERTIONS.iter().any(|(word, _)| !word.starts_with('$') && self.map.contains_key(*word));
        let known = self.get("format").and_then(Value::as_str).is_some_and(|f| formats::pattern(f).is_some());
        known
            || hidden
            || self.check_edition().is_err()
            || ["unevaluatedProperties", "unevaluatedItems", "contentEncoding"]
                .iter()
                .any(|k| self.map.contains_key(*k))
            || beyond(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], MAX_NUMBER - 1.0)
            || beyond(&["maxLength"], MAX_LENGTH as f64)
            || beyond(&["maxItems", "maxProperties", "maxContains"], MAX_COUNT as f64)
    }

    /// The types that are taken; none: all.
    pub fn types(&self) -> Result<Option<Vec<&'a str>>, GrammarError> {
        let Some(value) = self.get("type") else { return Ok(None) };
        let list = match value {
            Value::Array(list) if !list.is_empty() && list.len() <= 20 => {
                list.iter().map(Value::as_str).collect()
            }
            Value::String(one) => Some(vec![one.as_str()]),
            _ => None,
        };
        match list {
            Some(list) if list.iter().all(|t| TYPES.contains(t)) => Ok(Some(list)),
            _ => Err(self.error("type", format!("expected one or a list of {}", TYPES.join(", ")))),
        }
    }

    fn number_of(&self, keyword: &str) -> Result<Option<f64>, GrammarError> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        let Some(number) = value.as_f64() else {
            return Err(self.error(keyword, format!("expected a number, found {}", kind(value))));
        };
        let text = number.to_string();
        let decimals = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        if decimals > MAX_DECIMALS {
            let message =
                format!("{text} has {decimals} digits after the point, at most {MAX_DECIMALS} are taken");
            return Err(self.error(keyword, message));
        }
        Ok(Some(number))
    }

    pub fn numbers(&self) -> Result<Number, GrammarError> {
        let mut number = Number::default();
        for (keyword, exclusive, sign) in
            [("minimum", "exclusiveMinimum", -1.0), ("maximum", "exclusiveMaximum", 1.0)]
        {
            let bound = |value: f64, open: bool| {
                // What is beyond cannot be written exactly, so it is not written at all.
                let far = sign * value >= MAX_NUMBER;
                let bound = if far { (sign * (MAX_NUMBER - 1.0), false) } else { (value, open) };
                let mut one = Number::default();
                *(if sign < 0.0 { &mut one.least } else { &mut one.most }) = Some(bound);
                one
            };
            let plain = self.number_of(keyword)?;
            let open = match self.get(exclusive) {
                Some(Value::Bool(open)) if matches!(self.home.draft, Draft::Four | Draft::Unsaid) => *open,
                Some(_) => {
                    if let Some(value) = self.number_of(exclusive)? {
                        number = number.and(&bound(value, true));
                    }
                    false
                }
                None => false,
            };
            if let Some(value) = plain {
                number = number.and(&bound(value, open));
            }
        }
        if let Some(multiple) = self.number_of("multipleOf")? {
            if multiple <= 0.0 || multiple >= MAX_NUMBER {
                let found = &self.map["multipleOf"];
                return Err(self
                    .error("multipleOf", format!("expected more than 0 and less than 2^53, found {found}")));
            }
            number.multiples.push(multiple);
        }
        Ok(number)
    }

    /// A whole number from 0 on; `2.0` is one too.
    pub fn count_of(&self, keyword: &str) -> Result<Option<f64>, GrammarError> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        match value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.error(keyword, format!("expected a whole number from 0 on, found {value}"))),
        }
    }

    /// The least and the most of something that has to be counted. More than the limit is not written.
    pub fn counts(&self, least: &str, most: &str, limit: u64) -> Result<(u64, Option<u64>), GrammarError> {
        let min = self.count_of(least)?.unwrap_or(0.0);
        if min > limit as f64 {
            let found = &self.map[least];
            return Err(self.error(least, format!("{found} is too large, at most {limit} can be counted")));
        }
        Ok((min as u64, self.count_of(most)?.map(|n| n.min(limit as f64) as u64)))
    }

    pub fn texts(&self, algebra: &mut Algebra<'a>) -> Found<Text> {
        let (min, max) = self.counts("minLength", "maxLength", MAX_LENGTH)?;
        let mut text = Text { min, max, ..Text::default() };
        if let Some(value) = self.get("pattern") {
            let Some(given) = value.as_str() else {
                return Err(self.error("pattern", "not a string").into());
            };
            algebra.count_text(given)?;
            match pattern::whole(given) {
                Ok(pattern) => drop(text.patterns.insert(pattern)),
                Err(e) => {
                    text.doubts.push(self.doubt(DoubtKind::Unknown, "pattern", format!("{given:?}: {e}")))
                }
            }
        }
        if let Some(value) = self.get("format") {
            let Some(format) = value.as_str() else {
                return Err(self.error("format", "not a string").into());
            };
            // A format that no edition of JSON Schema knows is an annotation.
            if let Some(pattern) = formats::pattern(format) {
                text.patterns.insert(pattern::whole(&pattern).map_err(|e| self.error("format", e))?);
            }
        }
        if self.home.draft == Draft::Seven && self.get("contentEncoding").is_some_and(|v| *v == "base64") {
            text.patterns.insert(pattern::whole(BASE64).map_err(|e| self.error("contentEncoding", e))?);
        }
        Ok(text)
    }

    /// The set of a sub-schema.
    pub fn part(&self, algebra: &mut Algebra<'a>, step: &str, value: &'a Value) -> Found<Set> {
        let home = algebra.documents[self.home.document].home(value, self.home);
        if !matches!(value, Value::Object(_) | Value::Bool(_)) {
            let message = format!("a schema is an object or a boolean, not {}", kind(value));
            return Err(unsupported(&format!("{}/{step}", self.pointer), "", message).into());
        }
        algebra.schema(value, home, || format!("{}/{step}", self.pointer))
    }

    /// The sets of the schemas of `allOf`, `anyOf` or `oneOf`.
    pub fn sets(&self, algebra: &mut Algebra<'a>, keyword: &str) -> Found<Option<Vec<Set>>> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        let list = value.as_array().filter(|list| !list.is_empty());
        let Some(list) = list else {
            return Err(self.error(keyword, "not a list with at least one schema").into());
        };
        let sets = list.iter().enumerate();
        sets.map(|(i, value)| self.part(algebra, &format!("{keyword}/{i}"), value))
            .collect::<Found<Vec<Set>>>()
            .map(Some)
    }

    pub fn lists(&self, algebra: &mut Algebra<'a>) -> Found<List> {
        let (min, max) = self.counts("minItems", "maxItems", MAX_COUNT)?;
        let mut list = List { min, max, ..List::default() };
        let items = self.get("items");
        let (first, rest) = match items {
            Some(Value::Array(_)) if self.home.draft.items_may_be_a_list() => {
                (items.map(|v| ("items", v)), self.get("additionalItems").map(|v| ("additionalItems", v)))
            }
            Some(Value::Array(_)) => {
                return Err(self
                    .error("items", "a list is not taken in 2020-12 (there: \"prefixItems\")")
                    .into());
            }
            // Without a list in `items`, `additionalItems` says nothing.
            _ => (self.get("prefixItems").map(|v| ("prefixItems", v)), items.map(|v| ("items", v))),
        };
        if let Some((keyword, value)) = first {
            let Some(values) = value.as_array() else { return Err(self.error(keyword, "not a list").into()) };
            algebra.count(values.len())?;
            for (i, value) in values.iter().enumerate() {
                list.first.push(self.part(algebra, &format!("{keyword}/{i}"), value)?);
            }
            list.seen = Seen::Some(values.len());
        }
        if let Some((keyword, value)) = rest {
            list.rest = self.part(algebra, keyword, value)?;
            list.seen = Seen::All;
        }
        match self.get("uniqueItems") {
            None => {}
            Some(Value::Bool(unique)) => {
                list.unique = *unique;
                list.unique_pointer = if *unique { self.pointer.to_owned() } else { String::new() };
            }
            Some(_) => return Err(self.error("uniqueItems", "not a boolean").into()),
        }
        if let Some(contains) = self.contains(algebra)? {
            list.contains.push(contains);
        }
        Ok(list)
    }

    pub fn contains(&self, algebra: &mut Algebra<'a>) -> Found<Option<Contains>> {
        let (min, max) = self.counts("minContains", "maxContains", MAX_COUNT)?;
        let Some(value) = self.get("contains") else { return Ok(None) };
        let set = self.part(algebra, "contains", value)?;
        let min = if self.map.contains_key("minContains") { min } else { 1 };
        let without = Algebra::not(&set);
        Ok(Some(Contains { set, without, min, max, pointer: format!("{}/contains", self.pointer) }))
    }
}
