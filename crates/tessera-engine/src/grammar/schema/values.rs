//! Keywords about single values: types, numbers, strings, literals.

use super::{MAX_ENUM, MAX_LENGTH, Walk, formats, kind, pattern};
use crate::grammar::GrammarError;
use serde_json::{Map, Value};

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
/// Depth of a literal object or list.
const MAX_LITERAL_DEPTH: usize = 32;
/// Numbers below this are exact as f64 and small enough for the digit ranges that bounds turn into.
const MAX_NUMBER: f64 = 9_007_199_254_740_992.0;
/// Most digits after the point of a bound.
const MAX_DECIMALS: usize = 15;

impl Walk<'_, '_, '_> {
    pub(super) fn types(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        let Some(value) = self.map.get("type") else { return Ok(()) };
        let known = |v: &Value| v.as_str().is_some_and(|t| TYPES.contains(&t));
        let fine = match value {
            Value::Array(list) => !list.is_empty() && list.len() <= TYPES.len() && list.iter().all(known),
            one => known(one),
        };
        if !fine {
            return Err(self.error("type", format!("expected one or a list of {}", TYPES.join(", "))));
        }
        out.insert("type".to_owned(), value.clone());
        Ok(())
    }

    pub(super) fn numbers(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
            let Some(value) = self.map.get(keyword) else { continue };
            let Some(number) = value.as_f64() else {
                return Err(self.error(keyword, format!("expected a number, found {}", kind(value))));
            };
            if keyword == "multipleOf" && number <= 0.0 {
                return Err(self.error(keyword, format!("expected more than 0, found {value}")));
            }
            if let Err(message) = exact(number) {
                return Err(self.error(keyword, message));
            }
            out.insert(keyword.to_owned(), value.clone());
        }
        Ok(())
    }

    /// Gives the pattern that has to hold besides the one that is written to `out`.
    pub(super) fn strings(&mut self, out: &mut Map<String, Value>) -> Result<Option<String>, GrammarError> {
        self.counts(out, &["minLength", "maxLength"], MAX_LENGTH)?;
        let mut patterns = Vec::new();
        if let Some(value) = self.map.get("pattern") {
            let Some(text) = value.as_str() else { return Err(self.error("pattern", "not a string")) };
            self.normalizer.count_text(text)?;
            let whole = pattern::whole(text);
            patterns.push(whole.map_err(|e| self.error("pattern", format!("{text:?}: {e}")))?);
        }
        if let Some(value) = self.map.get("format") {
            let Some(format) = value.as_str() else { return Err(self.error("format", "not a string")) };
            let Some(text) = formats::pattern(format) else {
                let message = format!("{format:?} cannot be enforced; these can: {}", formats::KNOWN);
                return Err(self.error("format", message));
            };
            patterns.push(pattern::whole(&text).map_err(|e| self.error("format", e))?);
        }
        let mut patterns = patterns.into_iter();
        if let Some(first) = patterns.next() {
            out.insert("pattern".to_owned(), first.into());
        }
        Ok(patterns.next())
    }

    pub(super) fn literals(&mut self, out: &mut Map<String, Value>) -> Result<(), GrammarError> {
        if let Some(value) = self.map.get("const") {
            self.literal("const", value, 0)?;
            out.insert("const".to_owned(), value.clone());
        }
        if let Some(value) = self.map.get("enum") {
            let list = value.as_array().filter(|list| !list.is_empty());
            let Some(list) = list else {
                return Err(self.error("enum", "not a list with at least one value"));
            };
            if list.len() > MAX_ENUM {
                let what = format!(
                    "number of values at {}",
                    super::shown(self.document, &format!("{}/enum", self.place.pointer))
                );
                return Err(GrammarError::TooLarge { what, found: list.len(), limit: MAX_ENUM });
            }
            for value in list {
                self.literal("enum", value, 0)?;
            }
            out.insert("enum".to_owned(), value.clone());
        }
        Ok(())
    }

    fn literal(&mut self, keyword: &str, value: &Value, depth: usize) -> Result<(), GrammarError> {
        self.normalizer.count(self.document, self.place, 1)?;
        if depth > MAX_LITERAL_DEPTH {
            return Err(self.error(keyword, format!("a value more than {MAX_LITERAL_DEPTH} deep")));
        }
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) => {
                match number.as_f64().ok_or_else(|| "not finite".to_owned()).and_then(exact) {
                    Ok(()) => Ok(()),
                    Err(message) => Err(self.error(keyword, message)),
                }
            }
            Value::String(text) => {
                self.normalizer.count_text(text)?;
                if pattern::is_writable(text) {
                    return Ok(());
                }
                Err(self.error(
                    keyword,
                    format!("{text:?} has a control character that only \\u00XX could write"),
                ))
            }
            Value::Array(list) => list.iter().try_for_each(|v| self.literal(keyword, v, depth + 1)),
            Value::Object(map) => map.iter().try_for_each(|(name, v)| {
                self.normalizer.count_text(name)?;
                self.literal(keyword, v, depth + 1)
            }),
        }
    }

    /// Whole numbers from 0; `2.0` is one too.
    pub(super) fn counts(
        &mut self,
        out: &mut Map<String, Value>,
        keywords: &[&str],
        limit: u64,
    ) -> Result<(), GrammarError> {
        for keyword in keywords {
            let Some(value) = self.map.get(*keyword) else { continue };
            let whole = value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0);
            let Some(number) = whole else {
                return Err(self.error(keyword, format!("expected a whole number from 0 on, found {value}")));
            };
            if number > limit as f64 {
                return Err(
                    self.error(keyword, format!("{value} is too large, at most {limit} can be counted"))
                );
            }
            out.insert((*keyword).to_owned(), (number as u64).into());
        }
        Ok(())
    }
}

/// Whether a number of the schema means the same to everyone: numbers become ranges of digits.
fn exact(number: f64) -> Result<(), String> {
    if number.abs() >= MAX_NUMBER {
        return Err(format!("{number} is too large: only numbers below {MAX_NUMBER} are exact"));
    }
    let text = number.to_string();
    let decimals = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    if decimals > MAX_DECIMALS {
        return Err(format!(
            "{text} has {decimals} digits after the point, at most {MAX_DECIMALS} are taken"
        ));
    }
    Ok(())
}
