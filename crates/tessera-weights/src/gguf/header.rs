//! A GGUF file's header: metadata and tensor table, checked before any of it is used.
//!
//! The layout is `GGUF`, version, counts, key-value pairs, tensor table, padding, tensor data
//! (`docs/gguf.md` of ggml). Every count is hostile: nothing is allocated by a count from the file,
//! only by what was really read, so memory stays within a small multiple of the file's length.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::error::GgufError;
use super::types::GgmlType;
use super::value::{Array, Value, ValueType};
use crate::bytes::Bytes;

/// Most key-value pairs of a file.
const MAX_KEYS: u64 = 1 << 16;
/// Most tensors of a file.
const MAX_TENSORS: u64 = 1 << 18;
/// Longest key or tensor name, in bytes. The format allows 65,535 for keys and 64 for names.
const MAX_NAME: u64 = 65_535;
/// Longest string value, in bytes.
const MAX_STRING: u64 = 1 << 24;
/// Most elements of all arrays together.
const MAX_ELEMENTS: u64 = 1 << 26;
/// Deepest nesting of arrays.
const MAX_DEPTH: u32 = 4;
/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Largest alignment.
const MAX_ALIGNMENT: u64 = 1 << 24;
/// Alignment of tensors where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A tensor of the file. Its bytes are known to be there.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// GGUF's name.
    pub name: String,
    /// Sizes in GGUF's order: innermost first.
    pub dims: Vec<u64>,
    /// Element type.
    pub ty: GgmlType,
    /// Number of elements: the product of `dims`.
    pub numel: usize,
    /// Which of the files it is in.
    part: usize,
    range: Range<usize>,
}

/// A GGUF file whose header is known to be sound and whose tensors are known to be inside the file.
#[derive(Clone, Debug)]
pub struct Gguf {
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    /// One file, or all parts of a model that was cut.
    parts: Vec<Bytes>,
}

impl Gguf {
    /// Reads and checks the header and the ranges of all tensors. No tensor data are read.
    pub fn parse(bytes: Bytes) -> Result<Gguf, GgufError> {
        let mut reader = Reader { bytes: &bytes, at: 0, elements: 0 };
        let magic = &bytes[..bytes.len().min(4)];
        if magic != b"GGUF" {
            return Err(GgufError::Magic { found: magic.to_vec() });
        }
        reader.at = 4;
        let version = reader.u32("the version")?;
        if version != 0 && version & 0xffff == 0 {
            return Err(GgufError::BigEndian { found: version });
        }
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let n_tensors = limit("the number of tensors", reader.u64("the tensor count")?, MAX_TENSORS)?;
        let n_keys = limit("the number of metadata keys", reader.u64("the metadata count")?, MAX_KEYS)?;

        let mut metadata = BTreeMap::new();
        for i in 0..n_keys {
            let key = reader.string(MAX_NAME, || format!("metadata key {i}"))?;
            let ty = reader.value_type(&key)?;
            let value = reader.value(&key, ty, 0)?;
            if metadata.contains_key(&key) {
                return Err(GgufError::DuplicateKey { key });
            }
            metadata.insert(key, value);
        }
        let mut heads = Vec::new();
        let mut index = HashMap::new();
        for i in 0..n_tensors {
            let head = reader.tensor(i)?;
            if index.insert(head.name.clone(), heads.len()).is_some() {
                return Err(GgufError::DuplicateTensor { tensor: head.name });
            }
            heads.push(head);
        }
        let header_len = reader.at as u64;

        let alignment = alignment(&metadata)?;
        // Without tensors the padding after the header may be missing.
        let data_start = header_len.next_multiple_of(alignment).min(bytes.len() as u64);
        let tensors = place(heads, data_start, bytes.len() as u64, alignment)?;
        Ok(Gguf { version, metadata, tensors, index, parts: vec![bytes] })
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(self.position(name)?)
    }

    /// Where in [`Gguf::tensors`] the tensor of this name is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The files: one, or all parts of a model that was cut.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Which of [`Gguf::parts`] the tensor is in.
    pub(super) fn part(&self, tensor: &TensorInfo) -> usize {
        tensor.part
    }

    /// Adds the tensors of another part. No name may be in both.
    pub(super) fn append(&mut self, part: Gguf) {
        let shift = self.parts.len();
        self.parts.extend(part.parts);
        for mut tensor in part.tensors {
            tensor.part += shift;
            self.index.insert(tensor.name.clone(), self.tensors.len());
            self.tensors.push(tensor);
        }
    }

    /// The tensor's bytes.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // A `TensorInfo` of another file is the caller's mistake; it gets no bytes rather than a panic.
        self.parts.get(tensor.part).and_then(|part| part.get(tensor.range.clone())).unwrap_or(&[])
    }
}

fn limit(what: &str, found: u64, limit: u64) -> Result<u64, GgufError> {
    if found > limit {
        return Err(GgufError::Limit { what: what.to_string(), found, limit });
    }
    Ok(found)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, GgufError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let found = value.as_u64().ok_or_else(|| GgufError::WrongType {
        key: "general.alignment".to_string(),
        found: value.describe(),
        expected: "an unsigned integer",
    })?;
    if !found.is_power_of_two() || found > MAX_ALIGNMENT {
        return Err(GgufError::Alignment { found, limit: MAX_ALIGNMENT });
    }
    Ok(found)
}

/// A row of the tensor table, before its place in the file is known.
struct TensorHead {
    name: String,
    dims: Vec<u64>,
    ty: GgmlType,
    numel: u64,
    len: u64,
    offset: u64,
}

/// Checks that all tensors lie inside the data section and apart from each other.
fn place(
    heads: Vec<TensorHead>,
    data_start: u64,
    file_len: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo>, GgufError> {
    let data_len = file_len - data_start;
    for h in &heads {
        if h.offset % alignment != 0 {
            return Err(GgufError::Unaligned { tensor: h.name.clone(), offset: h.offset, alignment });
        }
        if h.offset.checked_add(h.len).is_none_or(|end| end > data_len) {
            return Err(GgufError::PastEnd {
                tensor: h.name.clone(),
                offset: h.offset,
                len: h.len,
                data_len,
            });
        }
    }
    let mut by_offset: Vec<&TensorHead> = heads.iter().collect();
    by_offset.sort_by_key(|h| h.offset);
    for pair in by_offset.windows(2) {
        let end = pair[0].offset + pair[0].len;
        if pair[1].offset < end {
            return Err(GgufError::Overlap {
                tensor: pair[1].name.clone(),
                offset: pair[1].offset,
                other: pair[0].name.clone(),
                end,
            });
        }
    }
    // The casts keep their values: all ranges are inside `bytes`, whose length is a usize, and no
    // type has more than a few elements to the byte. On 32-bit machines that is checked.
    heads
        .into_iter()
        .map(|h| {
            let numel = usize::try_from(h.numel).map_err(|_| GgufError::Shape {
                tensor: h.name.clone(),
                dims: h.dims.clone(),
                what: "more elements than this machine can address".to_string(),
            })?;
            let start = (data_start + h.offset) as usize;
            Ok(TensorInfo {
                name: h.name,
                dims: h.dims,
                ty: h.ty,
                numel,
                part: 0,
                range: start..start + h.len as usize,
            })
        })
        .collect()
}

/// Reads the header from front to back.
struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// Array elements read so far.
    elements: u64,
}

impl Reader<'_> {
    fn take(&mut self, len: u64, what: impl Fn() -> String) -> Result<Range<usize>, GgufError> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let start = self.at;
                self.at += len;
                Ok(start..self.at)
            }
            _ => {
                Err(GgufError::Truncated { what: what(), at: self.at as u64, needed: len, left: left as u64 })
            }
        }
    }

    fn array<const N: usize>(&mut self, what: impl Fn() -> String) -> Result<[u8; N], GgufError> {
        let range = self.take(N as u64, what)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[range]);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(|| what.to_string())?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(|| what.to_string())?))
    }

    fn string(&mut self, max: u64, what: impl Fn() -> String) -> Result<String, GgufError> {
        let len = u64::from_le_bytes(self.array(&what)?);
        if len > max {
            return Err(GgufError::Limit {
                what: format!("the length of {}", what()),
                found: len,
                limit: max,
            });
        }
        let range = self.take(len, &what)?;
        match std::str::from_utf8(&self.bytes[range]) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(GgufError::NotUtf8 { what: what() }),
        }
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, GgufError> {
        let found = u32::from_le_bytes(self.array(|| format!("metadata key {key}"))?);
        ValueType::from_id(found).ok_or_else(|| GgufError::ValueType { key: key.to_string(), found })
    }

    fn value(&mut self, key: &str, ty: ValueType, depth: u32) -> Result<Value, GgufError> {
        let what = || format!("metadata key {key}");
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            ValueType::Bool => match self.array(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [found] => return Err(GgufError::Bool { key: key.to_string(), found }),
            },
            ValueType::String => Value::String(self.string(MAX_STRING, what)?),
            ValueType::Array => Value::Array(self.array_value(key, depth + 1)?),
        })
    }

    fn array_value(&mut self, key: &str, depth: u32) -> Result<Array, GgufError> {
        let what = || format!("metadata key {key}");
        if depth > MAX_DEPTH {
            return Err(GgufError::Limit {
                what: format!("the nesting of {}", what()),
                found: u64::from(depth),
                limit: u64::from(MAX_DEPTH),
            });
        }
        let ty = self.value_type(key)?;
        let n = u64::from_le_bytes(self.array(what)?);
        self.elements = self.elements.saturating_add(n);
        if self.elements > MAX_ELEMENTS {
            return Err(GgufError::Limit {
                what: format!("the number of array elements up to {}", what()),
                found: self.elements,
                limit: MAX_ELEMENTS,
            });
        }
        Ok(match ty {
            ValueType::String => {
                let mut strings = Vec::new();
                for i in 0..n {
                    strings.push(self.string(MAX_STRING, || format!("metadata key {key}, element {i}"))?);
                }
                Array::Strings(strings)
            }
            ValueType::Array => {
                let mut arrays = Vec::new();
                for _ in 0..n {
                    arrays.push(self.array_value(key, depth + 1)?);
                }
                Array::Arrays(arrays)
            }
            number => {
                // Cannot overflow: n is at most MAX_ELEMENTS.
                let range = self.take(n * number.size() as u64, what)?;
                if number == ValueType::Bool
                    && let Some(&found) = self.bytes[range.clone()].iter().find(|&&b| b > 1)
                {
                    return Err(GgufError::Bool { key: key.to_string(), found });
                }
                let bytes = self.bytes[range].to_vec();
                Array::Numbers { ty: number, bytes }
            }
        })
    }

    fn tensor(&mut self, index: u64) -> Result<TensorHead, GgufError> {
        let name = self.string(MAX_NAME, || format!("the name of tensor {index}"))?;
        let what = || format!("the table entry of tensor {name}");
        let n_dims = u32::from_le_bytes(self.array(what)?);
        if n_dims > MAX_DIMS {
            return Err(GgufError::Limit {
                what: format!("the number of dimensions of tensor {name}"),
                found: u64::from(n_dims),
                limit: u64::from(MAX_DIMS),
            });
        }
        let mut dims = Vec::new();
        for _ in 0..n_dims {
            dims.push(u64::from_le_bytes(self.array(what)?));
        }
        let id = u32::from_le_bytes(self.array(what)?);
        let offset = u64::from_le_bytes(self.array(what)?);
        let Some(ty) = GgmlType::from_id(id) else {
            return Err(GgufError::TensorType { tensor: name, found: id });
        };
        let wrong = |what: &str| GgufError::Shape {
            tensor: name.clone(),
            dims: dims.clone(),
            what: what.to_string(),
        };
        if dims.contains(&0) {
            return Err(wrong("a dimension is zero"));
        }
        let row = dims.first().copied().unwrap_or(1);
        if row % ty.block as u64 != 0 {
            return Err(wrong(&format!(
                "a row is not a whole number of {} blocks of {} elements",
                ty.name, ty.block
            )));
        }
        let numel = dims
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
            .ok_or_else(|| wrong("the number of elements overflows"))?;
        let len = (numel / ty.block as u64)
            .checked_mul(ty.bytes as u64)
            .ok_or_else(|| wrong("the number of bytes overflows"))?;
        Ok(TensorHead { name, dims, ty, numel, len, offset })
    }
}
