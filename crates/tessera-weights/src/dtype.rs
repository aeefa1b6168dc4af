//! Element types of tensors, and how a record's bytes encode them.

use std::fmt;

/// Element type of a tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    BF16,
    U32,
    I32,
    U16,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::F16 | DType::BF16 | DType::U16 => 2,
            DType::U8 | DType::I8 | DType::F8E4M3 | DType::F8E5M2 => 1,
        }
    }

    /// The spelling that a manifest uses today.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::U32 => "uint32",
            DType::I32 => "int32",
            DType::U16 => "uint16",
            DType::U8 => "uint8",
            DType::I8 => "int8",
            DType::F8E4M3 => "float8_e4m3fn",
            DType::F8E5M2 => "float8_e5m2",
        }
    }

    /// From a manifest's spelling; the two fp8 spellings of before 2025-03 are known too.
    pub fn parse(name: &str) -> Option<DType> {
        Some(match name {
            "float32" => DType::F32,
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            "uint32" => DType::U32,
            "int32" => DType::I32,
            "uint16" => DType::U16,
            "uint8" => DType::U8,
            "int8" => DType::I8,
            "float8_e4m3fn" | "e4m3_float8" => DType::F8E4M3,
            "float8_e5m2" | "e5m2_float8" => DType::F8E5M2,
            _ => return None,
        })
    }

    /// Whether this is one of the three types that a model computes in.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a record's bytes stand for its elements: the `format` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes are the elements, little endian, C order.
    Raw,
    /// `f32-to-bf16`: float32 elements are stored as bfloat16. On every other dtype the label means
    /// nothing and the bytes are raw, though MLC writes it on all tensors.
    F32ToBf16,
}

impl Encoding {
    /// The `format` field's text.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Raw => "raw",
            Encoding::F32ToBf16 => "f32-to-bf16",
        }
    }

    /// From the `format` field. MLC's loaders take any other label as raw; here it is refused.
    pub fn parse(name: &str) -> Option<Encoding> {
        match name {
            "raw" => Some(Encoding::Raw),
            "f32-to-bf16" => Some(Encoding::F32ToBf16),
            _ => None,
        }
    }

    /// The element type that the stored bytes really have.
    pub const fn stored(self, dtype: DType) -> DType {
        match (self, dtype) {
            (Encoding::F32ToBf16, DType::F32) => DType::BF16,
            _ => dtype,
        }
    }
}
