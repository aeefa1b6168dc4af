//! Quantisation schemes as data: one table that encode, decode, kernels and `inspect` read.

use crate::dtype::DType;

/// Which way a quantised matrix lies in its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `q_weight [rows, words]`, `q_scale [rows, groups]`: a row is a contiguous stream.
    Nk,
    /// The transposes: `q_weight [words, rows]`, `q_scale [groups, rows]`.
    Kn,
}

/// How a group of weights is packed. A word is a `u32`; four words make one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupFormat {
    /// Bits of a code: 3 or 4.
    pub bits: u32,
    /// Weights that share a scale, along the input axis: 40 or 32.
    pub group: usize,
    /// Codes in a word, lowest bits first: 10 or 8.
    pub per_word: usize,
}

impl GroupFormat {
    /// 4 bits, groups of 32, 8 codes a word.
    pub const INT4: GroupFormat = GroupFormat { bits: 4, group: 32, per_word: 8 };
    /// 3 bits, groups of 40, 10 codes a word; bits 30 and 31 of a word are zero.
    pub const INT3: GroupFormat = GroupFormat { bits: 3, group: 40, per_word: 10 };

    /// Words of one group.
    pub const fn words_per_group(self) -> usize {
        self.group / self.per_word
    }

    /// Groups of a row of `cols` weights; the last one may be short.
    pub const fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.group)
    }

    /// Words of a row of `cols` weights.
    pub const fn words(self, cols: usize) -> usize {
        self.groups(cols) * self.words_per_group()
    }

    /// The code that stands for zero: a weight is `(code - zero) * scale`.
    pub const fn zero(self) -> i32 {
        (1 << (self.bits - 1)) - 1
    }

    /// The largest code that a converter writes: `2 * zero`.
    pub const fn max_code(self) -> i32 {
        2 * self.zero()
    }
}

/// A scheme by its MLC name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// MLC's name, for example `q4f32_1`.
    pub name: &'static str,
    /// The model's dtype: of scales and of every tensor that is not quantised.
    pub dtype: DType,
    /// `None` for the `q0*` schemes.
    pub group: Option<GroupFormat>,
    /// Layout of linear weights. Embeddings and experts are always [`Layout::Nk`].
    pub layout: Layout,
    /// Whether embeddings are quantised.
    pub embedding: bool,
    /// Whether the final layer (`lm_head` and its like) is quantised.
    pub head: bool,
}

const fn plain(name: &'static str, dtype: DType) -> Scheme {
    Scheme { name, dtype, group: None, layout: Layout::Nk, embedding: false, head: false }
}

const fn grouped(name: &'static str, dtype: DType, group: GroupFormat, layout: Layout, all: bool) -> Scheme {
    Scheme { name, dtype, group: Some(group), layout, embedding: all, head: all }
}

/// Every scheme that can be read, run and written.
pub const SCHEMES: &[Scheme] = &[
    plain("q0f16", DType::F16),
    plain("q0bf16", DType::BF16),
    plain("q0f32", DType::F32),
    grouped("q3f16_0", DType::F16, GroupFormat::INT3, Layout::Kn, true),
    grouped("q3f16_1", DType::F16, GroupFormat::INT3, Layout::Nk, true),
    grouped("q4f16_0", DType::F16, GroupFormat::INT4, Layout::Kn, true),
    grouped("q4f16_1", DType::F16, GroupFormat::INT4, Layout::Nk, true),
    grouped("q4f16_2", DType::F16, GroupFormat::INT4, Layout::Nk, false),
    grouped("q4bf16_0", DType::BF16, GroupFormat::INT4, Layout::Kn, true),
    grouped("q4bf16_1", DType::BF16, GroupFormat::INT4, Layout::Nk, true),
    grouped("q4f32_1", DType::F32, GroupFormat::INT4, Layout::Nk, true),
];

/// Schemes that MLC has and tessera refuses, each with the reason.
pub const REFUSED: &[(&str, &str)] = &[
    (
        "q4f32_0",
        "the asymmetric scheme of the converter before 2024-03; convert the original checkpoint again",
    ),
    ("q8f16_1", "an 8-bit scheme of the converter before 2024-03; convert the original checkpoint again"),
    ("q4f16_autoawq", "AWQ packing is not supported"),
    ("q4f16_ft", "its bytes are permuted for one GPU generation and cannot be decoded elsewhere"),
    ("e4m3_e4m3_f16", "fp8 weights are not supported"),
    ("e4m3_e4m3_f16_max_calibrate", "fp8 weights are not supported"),
    ("e5m2_e5m2_f16", "fp8 weights are not supported"),
    ("fp8_e4m3fn_bf16_block_scale", "fp8 weights are not supported"),
    ("fp8_e4m3fn_bf16_block_scale_static_activation", "fp8 weights are not supported"),
];

/// A scheme's name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// Known, but refused.
    #[error("quantisation {name} is refused: {why}")]
    Refused {
        /// The scheme's name.
        name: String,
        /// Why it is refused.
        why: &'static str,
    },
    /// Not a name that MLC has.
    #[error("unknown quantisation {name:?}; known are {}", known_names())]
    Unknown {
        /// The name as given.
        name: String,
    },
}

fn known_names() -> String {
    SCHEMES.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")
}

impl Scheme {
    /// Whether tensors that look like those of `found` can be this scheme's: the same groups, laid out alike, with
    /// scales of the same type. What is f32 may be stored as bf16.
    pub fn may_be(&self, found: &Scheme) -> bool {
        let dtype = self.group.is_none()
            || self.dtype == found.dtype
            || (self.dtype, found.dtype) == (DType::F32, DType::BF16);
        (self.group, self.layout) == (found.group, found.layout) && dtype
    }

    /// By MLC's name.
    pub fn find(name: &str) -> Result<&'static Scheme, SchemeError> {
        if let Some(scheme) = SCHEMES.iter().find(|s| s.name == name) {
            return Ok(scheme);
        }
        match REFUSED.iter().find(|(n, _)| *n == name) {
            Some((_, why)) => Err(SchemeError::Refused { name: name.to_owned(), why }),
            None => Err(SchemeError::Unknown { name: name.to_owned() }),
        }
    }
}
