//! Hyper-parameters of a config, and what is said where one is missing or cannot be.

use super::ArchError;
use serde_json::Value;

pub(super) struct Reader<'a> {
    pub model_type: &'a str,
    pub config: &'a Value,
}

impl Reader<'_> {
    pub fn missing(&self, field: &'static str) -> ArchError {
        ArchError::Missing { model_type: self.model_type.to_owned(), field }
    }

    /// `found`, if it is at least 1 and at most `limit`.
    pub fn within(&self, field: &'static str, found: usize, limit: usize) -> Result<usize, ArchError> {
        match (1..=limit).contains(&found) {
            true => Ok(found),
            false => Err(self.invalid(field, found, format!("1 to {limit}"))),
        }
    }

    pub fn invalid(&self, field: &'static str, found: impl ToString, expected: String) -> ArchError {
        let model_type = self.model_type.to_owned();
        ArchError::Invalid { model_type, field, found: found.to_string(), expected }
    }

    pub fn find(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().filter_map(|key| self.config.get(key)).find(|value| !value.is_null())
    }

    pub fn size(&self, field: &'static str, keys: &[&str]) -> Result<Option<usize>, ArchError> {
        match self.find(keys) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(self.invalid(field, value, "a positive whole number".to_owned())),
            },
        }
    }

    pub fn need(&self, field: &'static str, keys: &[&str]) -> Result<usize, ArchError> {
        self.size(field, keys)?.ok_or_else(|| self.missing(field))
    }

    pub fn flag(&self, field: &'static str, keys: &[&str], default: bool) -> Result<bool, ArchError> {
        match self.find(keys) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.invalid(field, value, "true or false".to_owned()))
            }
        }
    }
}
