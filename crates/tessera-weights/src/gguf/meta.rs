//! Metadata by key, of the type that is expected.

use super::error::GgufError;
use super::header::Gguf;
use super::value::{Array, Value, ValueType};

impl Gguf {
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        get: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata().get(key) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| GgufError::WrongType {
            key: key.to_string(),
            found: value.describe(),
            expected,
        })
    }

    /// An integer of any width that fits; `None` where the key is absent.
    pub fn meta_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer from 0 to 4294967295", |v| v.as_u64()?.try_into().ok())
    }

    /// An f32, or an f64 narrowed to it; it must be finite.
    pub fn meta_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a finite floating-point number", |v| match *v {
            Value::F32(v) if v.is_finite() => Some(v),
            Value::F64(v) if (v as f32).is_finite() => Some(v as f32),
            _ => None,
        })
    }

    /// A boolean.
    pub fn meta_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a boolean", |v| match *v {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// A string.
    pub fn meta_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |v| match v {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn meta_strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(Array::Strings(v)) => Some(v.as_slice()),
            // An empty list has no type worth insisting on.
            Value::Array(v) if v.is_empty() => Some(&[]),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn meta_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.typed(key, "an array of 32-bit floating-point numbers", |v| match v {
            Value::Array(a @ Array::Numbers { ty: ValueType::F32, .. }) => {
                Some(a.numbers().filter_map(|v| if let Value::F32(v) = v { Some(v) } else { None }).collect())
            }
            _ => None,
        })
    }

    /// An array of integers, each of which fits an i32 and is not negative.
    pub fn meta_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.typed(key, "an array of integers from 0 to 4294967295", |v| match v {
            Value::Array(a @ Array::Numbers { .. }) => {
                a.numbers().map(|v| v.as_u64()?.try_into().ok()).collect()
            }
            _ => None,
        })
    }

    /// An integer that some files give once for all layers and others once for each layer.
    pub fn meta_u32_uniform(&self, key: &str) -> Result<Option<u32>, GgufError> {
        if !matches!(self.metadata().get(key), Some(Value::Array(_))) {
            return self.meta_u32(key);
        }
        let all = self.meta_u32s(key)?.unwrap_or_default();
        match all.first() {
            Some(&first) if all.iter().all(|&v| v == first) => Ok(Some(first)),
            _ => Err(GgufError::BadValue {
                key: key.to_string(),
                found: format!("{:?}", &all[..all.len().min(16)]),
                what: "layers that differ are not supported".to_string(),
            }),
        }
    }
}
