//! A body to a JSON value, more strictly than `serde_json::Value`: no key twice, no endless nesting, no
//! more values than a request can sensibly have.

use crate::error::{ApiError, ApiResult};
use http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Most values in one body. A value takes some 70 bytes where its text may take two.
const MAX_VALUES: usize = 500_000;

/// Parses a body. Nesting ends at 128 levels, as `serde_json` has it.
pub fn parse(body: &[u8]) -> ApiResult<Value> {
    let malformed = |m: String| ApiError::request(StatusCode::BAD_REQUEST, "malformed_json", m);
    let text = std::str::from_utf8(body)
        .map_err(|e| malformed(format!("the body is not UTF-8: byte {} is wrong", e.valid_up_to())))?;
    if text.trim().is_empty() {
        return Err(malformed("the body is empty; expected a JSON object".into()));
    }
    let state = State { path: RefCell::default(), twice: Cell::default(), values: Cell::new(0) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Seed(&state).deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    match (parsed, state.twice.take()) {
        (Ok(value @ Value::Object(_)), _) => Ok(value),
        (Ok(other), _) => Err(malformed(format!("expected a JSON object, found {}", kind(&other)))),
        (Err(e), Some(path)) => Err(ApiError::field(path, "duplicate_parameter", e.to_string())),
        (Err(e), None) => Err(malformed(format!("the body is not valid JSON: {e}"))),
    }
}

/// JSON's word for the type of a value, with an article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

struct State {
    path: RefCell<Vec<String>>,
    twice: Cell<Option<String>>,
    values: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Seed<'a>(&'a State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let values = self.0.values.get() + 1;
        if values > MAX_VALUES {
            return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values")));
        }
        self.0.values.set(values);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.0.path.borrow_mut().push(format!("[{}]", values.len()));
            let value = sequence.next_element_seed(self)?;
            self.0.path.borrow_mut().pop();
            match value {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let dot = if self.0.path.borrow().is_empty() { "" } else { "." };
            self.0.path.borrow_mut().push(format!("{dot}{key}"));
            if map.contains_key(&key) {
                let path = self.0.path.borrow().concat();
                let error = A::Error::custom(format_args!("{path} is given twice"));
                self.0.twice.set(Some(path));
                return Err(error);
            }
            let value = entries.next_value_seed(self)?;
            self.0.path.borrow_mut().pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(body: &[u8]) -> ApiError {
        parse(body).expect_err("accepted")
    }

    #[test]
    fn a_value_is_what_serde_json_makes_of_it() {
        let text = r#"{"a":[1,-2,3.5,"\u00e9",null,true,{"b":{}}],"z":18446744073709551615}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(b" {} \n").unwrap(), json!({}));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert!(refused(b"{\n  \"a\": ,}").message.contains("line 2 column 8"));
        assert!(refused(b"{\"a\":1} x").message.contains("trailing characters"));
        assert!(refused(b"").message.contains("empty"));
        assert!(refused(b"[]").message.contains("found an array"));
        assert!(refused(b"{\"a\": \"\xff\"}").message.contains("byte 7"));
        assert!(refused(b"{\"a\": 1e999}").message.contains("out of range"));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(refused(deep.as_bytes()).message.contains("recursion limit"));
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(MAX_VALUES));
        assert!(refused(many.as_bytes()).message.contains("more than 500000 values"));
    }

    #[test]
    fn a_key_that_comes_twice_is_named() {
        let error = refused(br#"{"m":[{"role":"a"},{"role":"a","c":{"x":1,"x":1}}]}"#);
        assert_eq!(error.param.as_deref(), Some("m[1].c.x"));
        assert_eq!(error.code, Some("duplicate_parameter"));
    }
}
