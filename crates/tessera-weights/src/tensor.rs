//! A named tensor whose bytes are known to be there, and a weight matrix made of one or two of them.

use crate::bytes::{Bytes, Changed};
use crate::dtype::{DType, Encoding};
use crate::scheme::{GroupFormat, Layout};

/// A tensor of a folder. Its byte length was checked against shape, dtype and encoding.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The record's name.
    pub name: String,
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Element type in memory.
    pub dtype: DType,
    /// How [`Tensor::bytes`] encode the elements.
    pub encoding: Encoding,
    /// The record's bytes, at any alignment.
    pub bytes: Bytes,
}

impl Tensor {
    /// The element type that the bytes have.
    pub fn stored(&self) -> DType {
        self.encoding.stored(self.dtype)
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements as f32; `None` unless the tensor holds f32, f16 or bf16.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let mut out = vec![0.0; self.numel()];
        widen(self.stored(), &self.bytes, &mut out).then_some(out)
    }
}

/// Widens little-endian f32, f16 or bf16 elements into `out`; `false` for another type or a length
/// that does not fit.
pub fn widen(stored: DType, bytes: &[u8], out: &mut [f32]) -> bool {
    if bytes.len() != out.len() * stored.size() {
        return false;
    }
    match stored {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *o = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            }
        }
        _ => return false,
    }
    true
}

/// A weight matrix `W [rows, cols]` of `y = x Wᵀ`: `rows` outputs, `cols` inputs. The bytes are those
/// of the file; every length was checked by [`Matrix::check`] when the matrix was made.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Output size N.
    pub rows: usize,
    /// Input size K.
    pub cols: usize,
    /// The elements.
    pub data: MatrixData,
}

/// What a [`Matrix`] is made of.
#[derive(Clone, Debug)]
pub enum MatrixData {
    /// Elements of `dtype` (f32, f16 or bf16, as stored), row after row.
    Dense {
        /// Stored element type.
        dtype: DType,
        /// `rows * cols` elements.
        bytes: Bytes,
    },
    /// Codes in groups along the input axis, each group with a scale.
    Grouped {
        /// Bits, group size, codes a word.
        format: GroupFormat,
        /// Which way both tensors lie.
        layout: Layout,
        /// Codes: `[rows, words]` of u32 for [`Layout::Nk`], `[words, rows]` for [`Layout::Kn`].
        words: Bytes,
        /// Stored element type of the scales (f32, f16 or bf16).
        scale_dtype: DType,
        /// Scales: `[rows, groups]`, or `[groups, rows]`.
        scales: Bytes,
    },
}

/// How the elements of a [`Matrix`] are stored: what there is to know of [`MatrixData`] but the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Elements of this type.
    Dense(DType),
    /// Codes in groups with scales.
    Grouped {
        /// Bits, group size, codes a word.
        format: GroupFormat,
        /// Which way both tensors lie.
        layout: Layout,
        /// Stored element type of the scales.
        scale: DType,
    },
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Form::Dense(dtype) => write!(f, "{dtype}"),
            Form::Grouped { format, layout, scale } => {
                let GroupFormat { bits, group, .. } = format;
                let turned = if *layout == Layout::Kn { ", transposed" } else { "" };
                write!(f, "int{bits} in groups of {group}{turned}, {scale} scales")
            }
        }
    }
}

impl Matrix {
    /// How its elements are stored.
    pub const fn form(&self) -> Form {
        match self.data {
            MatrixData::Dense { dtype, .. } => Form::Dense(dtype),
            MatrixData::Grouped { format, layout, scale_dtype, .. } => {
                Form::Grouped { format, layout, scale: scale_dtype }
            }
        }
    }

    /// Whether every byte length is what the shape needs.
    pub fn check(&self) -> bool {
        let dense = |dtype: DType, elements: Option<usize>, bytes: &Bytes| {
            dtype.is_float() && elements.and_then(|n| n.checked_mul(dtype.size())) == Some(bytes.len())
        };
        match &self.data {
            MatrixData::Dense { dtype, bytes } => dense(*dtype, self.rows.checked_mul(self.cols), bytes),
            MatrixData::Grouped { format, words, scale_dtype, scales, .. } => {
                let n = format.words(self.cols).checked_mul(4).and_then(|w| w.checked_mul(self.rows));
                n == Some(words.len())
                    && dense(*scale_dtype, format.groups(self.cols).checked_mul(self.rows), scales)
            }
        }
    }

    /// Rows `from..from + rows` as a matrix of their own; `None` where they are not there, or where a row's bytes do not
    /// lie together.
    pub fn part(&self, from: usize, rows: usize) -> Option<Matrix> {
        let cut =
            |bytes: &Bytes, row: usize| bytes.slice(from.checked_mul(row)?..(from + rows).checked_mul(row)?);
        from.checked_add(rows).filter(|end| *end <= self.rows)?;
        let data = match &self.data {
            MatrixData::Dense { dtype, bytes } => {
                MatrixData::Dense { dtype: *dtype, bytes: cut(bytes, self.cols * dtype.size())? }
            }
            MatrixData::Grouped { layout: Layout::Kn, .. } => return None,
            MatrixData::Grouped { format, layout, words, scale_dtype, scales } => MatrixData::Grouped {
                format: *format,
                layout: *layout,
                words: cut(words, format.words(self.cols) * 4)?,
                scale_dtype: *scale_dtype,
                scales: cut(scales, format.groups(self.cols) * scale_dtype.size())?,
            },
        };
        Some(Matrix { rows, cols: self.cols, data })
    }

    /// Whether its bytes are still those that were opened; see [`Bytes::check`].
    pub fn unchanged(&self) -> Result<(), Changed> {
        match &self.data {
            MatrixData::Dense { bytes, .. } => bytes.check(),
            MatrixData::Grouped { words, scales, .. } => words.check().and_then(|()| scales.check()),
        }
    }

    /// Bytes of the file that the matrix occupies.
    pub fn stored_len(&self) -> usize {
        match &self.data {
            MatrixData::Dense { bytes, .. } => bytes.len(),
            MatrixData::Grouped { words, scales, .. } => words.len() + scales.len(),
        }
    }
}
