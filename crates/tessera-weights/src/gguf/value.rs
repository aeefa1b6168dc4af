//! Metadata values, and typed look-ups that say which key is wrong.

use super::error::GgufError;

/// The type of a metadata value, as numbered in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type with this number.
    pub fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// Bytes of one value; 0 for strings and arrays, whose length varies.
    pub const fn size(self) -> usize {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String | ValueType::Array => 0,
        }
    }
}

/// An array of metadata.
#[derive(Clone, Debug)]
pub enum Array {
    /// Numbers or booleans, kept as the file's bytes: an array of a million takes no more memory
    /// than the file gives it.
    Numbers {
        /// Type of the elements.
        ty: ValueType,
        /// Little-endian elements.
        bytes: Vec<u8>,
    },
    /// Strings.
    Strings(Vec<String>),
    /// Arrays of arrays.
    Arrays(Vec<Array>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::Numbers { ty, bytes } => bytes.len() / ty.size().max(1),
            Array::Strings(v) => v.len(),
            Array::Arrays(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements as values of their own; nothing for strings and arrays.
    pub fn numbers(&self) -> impl Iterator<Item = Value> + '_ {
        let (ty, bytes) = match self {
            Array::Numbers { ty, bytes } => (*ty, bytes.as_slice()),
            _ => (ValueType::U8, [].as_slice()),
        };
        bytes.chunks_exact(ty.size().max(1)).map(move |b| {
            let mut wide = [0; 8];
            wide[..b.len()].copy_from_slice(b);
            let raw = u64::from_le_bytes(wide);
            match ty {
                ValueType::I8 => Value::I8(raw as i8),
                ValueType::U16 => Value::U16(raw as u16),
                ValueType::I16 => Value::I16(raw as i16),
                ValueType::U32 => Value::U32(raw as u32),
                ValueType::I32 => Value::I32(raw as i32),
                ValueType::F32 => Value::F32(f32::from_bits(raw as u32)),
                ValueType::Bool => Value::Bool(raw != 0),
                ValueType::U64 => Value::U64(raw),
                ValueType::I64 => Value::I64(raw as i64),
                ValueType::F64 => Value::F64(f64::from_bits(raw)),
                ValueType::U8 | ValueType::String | ValueType::Array => Value::U8(raw as u8),
            }
        })
    }
}

/// A metadata value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// A short text for error messages.
    pub fn describe(&self) -> String {
        match self {
            Value::U8(v) => v.to_string(),
            Value::I8(v) => v.to_string(),
            Value::U16(v) => v.to_string(),
            Value::I16(v) => v.to_string(),
            Value::U32(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::F32(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::U64(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
            Value::String(v) if v.chars().count() > 60 => {
                format!("{:?}...", v.chars().take(60).collect::<String>())
            }
            Value::String(v) => format!("{v:?}"),
            Value::Array(v) => format!("an array of {}", v.len()),
        }
    }
}

/// The value, or an error that names the missing key.
pub fn required<T>(value: Option<T>, key: &str) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::MissingKey { key: key.to_string() })
}
