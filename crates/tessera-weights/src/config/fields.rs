//! Fields of a JSON object, and what is said where one is not as it should be.

use super::ConfigError;
use serde_json::Value;

/// The longest context that is taken for one.
const MAX_CONTEXT: u64 = 1 << 24;

/// Fields of one JSON object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) json: &'a Value,
    /// Put before names in messages.
    pub(super) path: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn any(self, keys: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        keys.iter().find_map(|&key| Some((key, self.get(key)?)))
    }

    pub(super) fn invalid(self, key: &str, found: &Value, expected: &str) -> ConfigError {
        let mut found = found.to_string();
        if found.len() > 100 {
            found = format!("{}...", found.chars().take(100).collect::<String>());
        }
        ConfigError::Invalid { field: format!("{}{key}", self.path), found, expected: expected.to_owned() }
    }

    pub(super) fn missing(self, key: &str) -> ConfigError {
        ConfigError::Missing { field: format!("{}{key}", self.path) }
    }

    pub(super) fn text(self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| self.invalid(key, v, "a string")),
        }
    }

    pub(super) fn flag(self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v.as_bool().map(Some).ok_or_else(|| self.invalid(key, v, "true or false")),
        }
    }

    /// A finite number of at least `least`.
    pub(super) fn number(self, key: &str, least: f64) -> Result<Option<f64>, ConfigError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        match v.as_f64().filter(|x| x.is_finite() && *x >= least) {
            Some(x) => Ok(Some(x)),
            None => Err(self.invalid(key, v, &format!("a number of at least {least}"))),
        }
    }

    pub(super) fn need_number(self, key: &str, least: f64) -> Result<f64, ConfigError> {
        self.number(key, least)?.ok_or_else(|| self.missing(key))
    }

    /// A number of tokens. MLC writes -1 for none.
    pub(super) fn tokens(self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        if v.as_i64() == Some(-1) {
            return Ok(None);
        }
        match v.as_u64().filter(|n| (1..=MAX_CONTEXT).contains(n)) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(self.invalid(key, v, &format!("1 to {MAX_CONTEXT} tokens"))),
        }
    }

    pub(super) fn numbers(self, key: &str, len: usize) -> Result<Vec<f64>, ConfigError> {
        let v = self.get(key).ok_or_else(|| self.missing(key))?;
        let list: Option<Vec<f64>> = v
            .as_array()
            .and_then(|l| l.iter().map(|x| x.as_f64().filter(|x| x.is_finite() && *x > 0.0)).collect());
        match list.filter(|l| l.len() == len) {
            Some(list) => Ok(list),
            None => Err(self.invalid(key, v, &format!("{len} positive numbers, half the width that turns"))),
        }
    }
}
