//! Where a conversion reads from: named tensors of ordinary numbers, one at a time.

use crate::dtype::DType;
use half::{bf16, f16};

/// A tensor that a source can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// Name in the checkpoint, in Hugging Face's spelling.
    pub name: String,
    /// Type of the values that [`TensorSource::read`] gives: f32, f16 or bf16 (for block-quantised
    /// sources, f32: what the blocks decode to).
    pub dtype: DType,
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
}

/// The values of one tensor, in the checkpoint's own type.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F16(v) => v.len(),
            Values::BF16(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::BF16(_) => DType::BF16,
        }
    }
}

/// Weights in groups of 32 that share a scale, as `q4f16_1` has them, for they are stored so already. A weight is
/// `(code - 7) * scale`. Rows are in the order of [`TensorSource::read`], and always outputs: where the checkpoint has
/// the transpose, these are not transposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Four words a group, each with eight codes, the first in the lowest bits.
    pub words: Vec<u32>,
    /// One scale a group; none is infinite or NaN.
    pub scales: Vec<f16>,
}

/// A checkpoint that can be read tensor by tensor. Reading one tensor takes memory for that tensor
/// only; several threads may read at once.
pub trait TensorSource: Sync {
    /// What there is, in the checkpoint's own order (which decides the order of the shards).
    fn tensors(&self) -> &[SourceTensor];

    /// The values of `tensors()[index]`.
    fn read(&self, index: usize) -> Result<Values, SourceError>;

    /// The codes of `tensors()[index]`, if the source stores it in codes that mean exactly the values that
    /// [`TensorSource::read`] gives. To quantise those values again would lose some of them.
    fn read_codes(&self, _index: usize) -> Result<Option<Codes>, SourceError> {
        Ok(None)
    }

    /// The file that holds `tensors()[index]`, as a user would name it. MLC counts parameters file by
    /// file, so tensors of one file must give the same name.
    fn file(&self, _index: usize) -> &str {
        "the checkpoint"
    }
}

/// A checkpoint's tensor that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: tensor {tensor}: {what}")]
pub struct SourceError {
    /// The file that holds the tensor.
    pub file: String,
    /// The tensor's name.
    pub tensor: String,
    /// What is wrong, with the values found and expected.
    pub what: String,
}
