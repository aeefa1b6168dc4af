//! MLC folder to safetensors: tensors under a checkpoint's own names, in plain floats.
//!
//! The caller says which tensors there are and what each is made of ([`ExportTensor`]); everything is
//! resolved and checked before the first byte is written. Rows are then decoded block by block, so the
//! memory needed does not grow with the model.

mod config;
mod file;
mod gguf;
mod plan;
mod rows;

pub use config::hf_config;
pub use file::export_safetensors;
pub use gguf::{GgufExportError, GgufInputs, GgufReport, export_gguf};
pub use plan::{PlanError, plan_export};

use crate::dtype::DType;
use crate::folder::{Folder, FolderError};
use crate::scheme::{GroupFormat, Layout};
use rows::Source;
use std::collections::HashSet;
use std::ops::Range;

/// A tensor to write, and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape in the checkpoint; compared with what rows and transform give.
    pub shape: Vec<usize>,
    /// What it is made of.
    pub from: ExportSource,
    /// Rows of the source to take (outermost axis), one range after the other; none means all. Takes
    /// fused weights apart and undoes reorderings.
    pub rows: Vec<Range<usize>>,
    /// What to do with the rows.
    pub transform: Transform,
}

/// Where a tensor's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportSource {
    /// A weight by its base name, quantised or dense; see [`Folder::matrix`].
    Matrix {
        /// Name without `.weight` or `.q_weight`.
        base: String,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// How its codes lie.
        layout: Layout,
    },
    /// A float tensor by its full name: norms, biases.
    Tensor {
        /// The name.
        name: String,
    },
}

/// What to do with the rows of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transform {
    /// Nothing.
    None,
    /// Exchange the two axes (gpt2's Conv1D).
    Transpose,
    /// Add to every element (gemma's norms, which have 1 added in the folder: `Add(-1.0)`).
    Add(f32),
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// Element type of every tensor: f32, f16 or bf16.
    pub dtype: DType,
    /// The scheme's format.
    pub group: Option<GroupFormat>,
    /// Bytes of tensors in one file; a larger tensor gets a file of its own.
    pub max_file_len: u64,
}

impl ExportOptions {
    /// Files of at most 5 GB, as Hugging Face's.
    pub fn new(dtype: DType, group: Option<GroupFormat>) -> ExportOptions {
        ExportOptions { dtype, group, max_file_len: 5_000_000_000 }
    }
}

/// An export that failed. Nothing was left under a final name, unless renaming itself failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A source is missing or is not as expected.
    #[error("export of {name}: {source}")]
    Source {
        /// The tensor that was to be written.
        name: String,
        /// What is wrong with its source.
        source: Box<FolderError>,
    },
    /// A file changed while it was read.
    #[error(transparent)]
    Changed(#[from] crate::bytes::Changed),
    /// The plan lists a name twice.
    #[error("export: {name} is planned twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Rows that the source does not have.
    #[error("export of {name}: rows {start}..{end} are not in its source of {rows} rows")]
    NoSuchRows {
        /// The tensor.
        name: String,
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// The shape in the plan is not what comes out.
    #[error("export of {name}: expected shape {expected:?}, its source gives {found:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// The plan's shape.
        expected: Vec<usize>,
        /// What rows and transform give.
        found: Vec<usize>,
    },
    /// An output type that is not a float.
    #[error("export: tensors are written as float32, float16 or bfloat16, not as {dtype}")]
    NotAFloat {
        /// The type asked for.
        dtype: DType,
    },
    /// `decode` gave another number of values than the matrix has.
    #[error("export of {name}: decoding gave {found} values for {expected}")]
    Decode {
        /// The tensor.
        name: String,
        /// Values that the matrix has.
        expected: usize,
        /// Values that came.
        found: usize,
    },
    /// A finite value that the output type cannot hold.
    #[error("export of {name}: {value} is beyond {dtype}; write float32 or bfloat16")]
    Overflow {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// The output type.
        dtype: DType,
    },
    /// The progress function asked to stop.
    #[error("export stopped in {name}; nothing was written")]
    Stopped {
        /// The tensor that was being written.
        name: String,
    },
    /// A checkpoint is there already.
    #[error("{file} exists already; export to a place of its own")]
    Exists {
        /// The file in the way.
        file: String,
    },
    /// A file could not be written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A planned tensor whose source was found and checked.
struct Resolved<'a> {
    plan: &'a ExportTensor,
    source: Source,
    /// Rows to take: `plan.rows`, or all.
    rows: Vec<Range<usize>>,
}

impl Resolved<'_> {
    fn numel(&self) -> usize {
        self.plan.shape.iter().product()
    }
}

fn resolve<'a>(
    folder: &Folder,
    plan: &'a [ExportTensor],
    options: &ExportOptions,
) -> Result<Vec<Resolved<'a>>, ExportError> {
    if !options.dtype.is_float() {
        return Err(ExportError::NotAFloat { dtype: options.dtype });
    }
    let mut names = HashSet::new();
    plan.iter()
        .map(|tensor| {
            if !names.insert(tensor.name.as_str()) {
                return Err(ExportError::DuplicateName { name: tensor.name.clone() });
            }
            resolve_one(folder, tensor, options)
        })
        .collect()
}

fn resolve_one<'a>(
    folder: &Folder,
    plan: &'a ExportTensor,
    options: &ExportOptions,
) -> Result<Resolved<'a>, ExportError> {
    let name = || plan.name.clone();
    let source = Source::find(folder, &plan.from, options.group)
        .map_err(|source| ExportError::Source { name: name(), source: Box::new(source) })?;
    let shape = source.shape();
    let all = shape[0];
    let mut taken = 0usize;
    for range in &plan.rows {
        if range.start > range.end || range.end > all {
            let (start, end) = (range.start, range.end);
            return Err(ExportError::NoSuchRows { name: name(), start, end, rows: all });
        }
        // Ranges may repeat, so their sum has no bound but the shape's, which is compared below.
        taken = taken.saturating_add(range.len());
    }
    let rows = if plan.rows.is_empty() { std::iter::once(0..all).collect() } else { plan.rows.clone() };
    let mut found = shape;
    found[0] = if plan.rows.is_empty() { all } else { taken };
    if plan.transform == Transform::Transpose {
        found.reverse();
        if found.len() != 2 {
            return Err(ExportError::WrongShape { name: name(), expected: plan.shape.clone(), found });
        }
    }
    let addressable = found.iter().try_fold(4usize, |n, &size| n.checked_mul(size)).is_some();
    if plan.shape != found || !addressable {
        return Err(ExportError::WrongShape { name: name(), expected: plan.shape.clone(), found });
    }
    Ok(Resolved { plan, source, rows })
}

#[cfg(test)]
mod tests;
