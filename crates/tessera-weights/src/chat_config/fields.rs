//! Typed reading of a JSON object whose every field may be wrong or missing.

use super::ChatConfigError;
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// An object's fields, with a note of those that were asked for.
pub(super) struct Fields<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    /// `place` names the object in messages.
    pub fn new(place: &'a str, map: &'a Map<String, Value>) -> Fields<'a> {
        Fields { place, map, asked: RefCell::default() }
    }

    /// The value of a field; null counts as missing.
    pub fn get(&self, key: &'a str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Keys that nobody asked for, in the file's order.
    pub fn unknown(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        self.map.keys().filter(|k| !asked.contains(k.as_str())).cloned().collect()
    }

    pub fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> ChatConfigError {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(60) {
            found.truncate(cut);
            found.push('…');
        }
        ChatConfigError::Field { field: format!("{}{key}", self.place), expected, found }
    }

    fn typed<T>(
        &self,
        key: &'a str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ChatConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected, value)),
        }
    }

    pub fn string(&self, key: &'a str) -> Result<Option<String>, ChatConfigError> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    pub fn bool(&self, key: &'a str) -> Result<Option<bool>, ChatConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A whole number; a float without a fraction is one too.
    pub fn integer(&self, key: &'a str) -> Result<Option<i64>, ChatConfigError> {
        self.typed(key, "a whole number", |v| {
            let whole = |f: &f64| f.fract() == 0.0 && f.abs() < 9e15;
            v.as_i64().or_else(|| v.as_f64().filter(whole).map(|f| f as i64))
        })
    }

    pub fn number(&self, key: &'a str) -> Result<Option<Number>, ChatConfigError> {
        self.typed(key, "a number", |v| v.as_number().cloned())
    }

    pub fn object(&self, key: &'a str) -> Result<Option<&'a Map<String, Value>>, ChatConfigError> {
        self.typed(key, "an object", Value::as_object)
    }

    pub fn array(&self, key: &'a str) -> Result<Option<&'a Vec<Value>>, ChatConfigError> {
        self.typed(key, "a list", Value::as_array)
    }

    /// A list of strings; a single string counts as a list of one.
    pub fn strings(&self, key: &'a str) -> Result<Option<Vec<String>>, ChatConfigError> {
        self.typed(key, "a list of strings", |v| match v {
            Value::String(s) => Some(vec![s.clone()]),
            Value::Array(a) => a.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
    }

    /// A list of token ids; a single id counts as a list of one.
    pub fn ids(&self, key: &'a str) -> Result<Option<Vec<u32>>, ChatConfigError> {
        self.typed(key, "a list of token ids", |v| match v {
            Value::Array(a) => a.iter().map(token_id).collect(),
            _ => token_id(v).map(|id| vec![id]),
        })
    }

    /// An object of strings, in the file's order.
    pub fn texts(&self, key: &'a str) -> Result<Option<Vec<(String, String)>>, ChatConfigError> {
        self.typed(key, "an object of strings", |v| {
            let entries = v.as_object()?.iter().filter(|(_, t)| !t.is_null());
            entries.map(|(k, t)| Some((k.clone(), t.as_str()?.to_owned()))).collect()
        })
    }
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
