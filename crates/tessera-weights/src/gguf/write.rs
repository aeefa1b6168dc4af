//! A GGUF file's header: metadata and tensor table, version 3.

use super::types::GgmlType;
use super::value::ValueType;

/// Alignment of tensors, GGUF's own where `general.alignment` is absent.
const ALIGNMENT: usize = 32;

/// Metadata and tensors of a file that is about to be written.
#[derive(Default)]
pub(crate) struct Header {
    keys: Vec<u8>,
    n_keys: u64,
    table: Vec<u8>,
    n_tensors: u64,
    data_len: u64,
}

impl Header {
    /// Adds a string.
    pub fn str(&mut self, key: &str, value: &str) {
        self.key(key, ValueType::String);
        string(&mut self.keys, value);
    }

    /// Adds an integer.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, ValueType::U32);
        self.keys.extend(value.to_le_bytes());
    }

    /// Adds a number.
    pub fn f32(&mut self, key: &str, value: f64) {
        self.key(key, ValueType::F32);
        self.keys.extend((value as f32).to_le_bytes());
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, ValueType::Bool);
        self.keys.push(value.into());
    }

    /// Adds a list of strings.
    pub fn strs<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        self.array(key, ValueType::String, values.len());
        for value in values {
            string(&mut self.keys, value);
        }
    }

    /// Adds a list of numbers.
    pub fn f32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.array(key, ValueType::F32, values.len());
        self.keys.extend(values.flat_map(f32::to_le_bytes));
    }

    /// Adds a list of integers.
    pub fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, ValueType::I32, values.len());
        self.keys.extend(values.flat_map(i32::to_le_bytes));
    }

    fn key(&mut self, key: &str, ty: ValueType) {
        string(&mut self.keys, key);
        self.keys.extend((ty as u32).to_le_bytes());
        self.n_keys += 1;
    }

    fn array(&mut self, key: &str, ty: ValueType, len: usize) {
        self.key(key, ValueType::Array);
        self.keys.extend((ty as u32).to_le_bytes());
        self.keys.extend((len as u64).to_le_bytes());
    }

    /// Adds a tensor of a shape as the rest of the crate has it, outermost axis first, and gives its length in bytes.
    /// Its rows are whole blocks.
    pub fn tensor(&mut self, name: &str, shape: &[usize], ty: GgmlType) -> u64 {
        string(&mut self.table, name);
        self.table.extend((shape.len() as u32).to_le_bytes());
        self.table.extend(shape.iter().rev().flat_map(|&d| (d as u64).to_le_bytes()));
        self.table.extend(ty.id.to_le_bytes());
        self.table.extend(self.data_len.to_le_bytes());
        self.n_tensors += 1;
        let len = (shape.iter().product::<usize>() / ty.block) as u64 * ty.bytes as u64;
        self.data_len += len + padding(len) as u64;
        len
    }

    /// Bytes of all tensors with what is between them.
    pub fn data_len(&self) -> u64 {
        self.data_len
    }

    /// The header, up to where the first tensor begins.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(self.n_tensors.to_le_bytes());
        out.extend(self.n_keys.to_le_bytes());
        out.extend(&self.keys);
        out.extend(&self.table);
        out.resize(out.len() + padding(out.len() as u64), 0);
        out
    }
}

/// Zeros that follow something of this length.
pub(crate) fn padding(len: u64) -> usize {
    (len.next_multiple_of(ALIGNMENT as u64) - len) as usize
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
