//! Rows of a source as f32, a block at a time.

use super::{ExportError, ExportSource, Resolved, Transform};
use crate::bytes::Changed;
use crate::folder::{Folder, FolderError};
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::{Matrix, MatrixData, Tensor, widen};
use std::ops::Range;

/// Elements decoded at once where rows can be decoded apart.
const BLOCK: usize = 1 << 20;

pub(super) enum Source {
    Matrix(Matrix),
    Tensor(Tensor),
}

impl Source {
    pub(super) fn find(
        folder: &Folder,
        from: &ExportSource,
        group: Option<GroupFormat>,
    ) -> Result<Source, FolderError> {
        match from {
            ExportSource::Matrix { base, rows, cols, layout } => {
                folder.matrix(base, group, *layout, *rows, *cols).map(Source::Matrix)
            }
            ExportSource::Tensor { name } => {
                let tensor =
                    folder.tensor(name).ok_or_else(|| FolderError::MissingTensor { tensor: name.clone() })?;
                if !tensor.dtype.is_float() {
                    return Err(FolderError::WrongDType {
                        tensor: name.clone(),
                        expected: "float32, float16 or bfloat16".to_owned(),
                        found: tensor.dtype.to_string(),
                    });
                }
                Ok(Source::Tensor(tensor.clone()))
            }
        }
    }

    /// At least one axis, outermost first.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Source::Matrix(m) => vec![m.rows, m.cols],
            Source::Tensor(t) => t.shape.clone(),
        }
    }

    /// Whether the file is still what was opened.
    pub(super) fn unchanged(&self) -> Result<(), Changed> {
        match self {
            Source::Matrix(m) => m.unchanged(),
            Source::Tensor(t) => t.bytes.check(),
        }
    }

    fn row_len(&self) -> usize {
        self.shape()[1..].iter().product()
    }
}

/// Calls `emit` with every value of a tensor in order, in blocks. Only a transposed tensor and codes
/// that lie KN are decoded whole.
pub(super) fn for_each_block<E: From<ExportError>>(
    tensor: &Resolved<'_>,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    emit: &mut dyn FnMut(&mut [f32]) -> Result<(), E>,
) -> Result<(), E> {
    let row_len = tensor.source.row_len();
    if tensor.plan.transform == Transform::Transpose {
        let mut values = Vec::with_capacity(tensor.numel());
        read_blocks::<E>(tensor, decode, &mut |block| {
            values.extend_from_slice(block);
            Ok(())
        })?;
        let rows = values.len() / row_len;
        let mut line = vec![0.0; rows];
        for col in 0..row_len {
            for (out, row) in line.iter_mut().zip(values.chunks_exact(row_len)) {
                *out = row[col];
            }
            emit(&mut line)?;
        }
        return Ok(());
    }
    read_blocks(tensor, decode, &mut |block: &mut [f32]| {
        if let Transform::Add(term) = tensor.plan.transform {
            block.iter_mut().for_each(|x| *x += term);
        }
        emit(block)
    })
}

fn read_blocks<E: From<ExportError>>(
    tensor: &Resolved<'_>,
    decode: &dyn Fn(&Matrix) -> Vec<f32>,
    emit: &mut dyn FnMut(&mut [f32]) -> Result<(), E>,
) -> Result<(), E> {
    let row_len = tensor.source.row_len();
    let decode = |matrix: &Matrix| -> Result<Vec<f32>, E> {
        let values = decode(matrix);
        let expected = matrix.rows * matrix.cols;
        if values.len() == expected {
            return Ok(values);
        }
        let name = tensor.plan.name.clone();
        Err(ExportError::Decode { name, expected, found: values.len() }.into())
    };
    let step = (BLOCK / row_len).max(1);
    let mut whole: Option<Vec<f32>> = None;
    for range in &tensor.rows {
        for start in range.clone().step_by(step) {
            let rows = start..(start + step).min(range.end);
            let mut block = match &tensor.source {
                Source::Tensor(t) => dense_rows(t, &rows, row_len),
                Source::Matrix(m) => match slice_rows(m, &rows) {
                    Some(part) => decode(&part)?,
                    None => {
                        let all = match whole.take() {
                            Some(all) => all,
                            None => decode(m)?,
                        };
                        let part = all[rows.start * row_len..rows.end * row_len].to_vec();
                        whole = Some(all);
                        part
                    }
                },
            };
            emit(&mut block)?;
        }
    }
    Ok(())
}

/// Rows of a tensor that is stored row after row and whose length was checked.
fn dense_rows(tensor: &Tensor, rows: &Range<usize>, row_len: usize) -> Vec<f32> {
    let size = tensor.stored().size();
    let mut out = vec![0.0; rows.len() * row_len];
    let bytes = &tensor.bytes[rows.start * row_len * size..rows.end * row_len * size];
    let widened = widen(tensor.stored(), bytes, &mut out);
    assert!(widened, "the source was checked to be a float tensor");
    out
}

/// A matrix of some rows of another, without copying; `None` if its rows are not contiguous.
fn slice_rows(matrix: &Matrix, rows: &Range<usize>) -> Option<Matrix> {
    let cut = |bytes: &crate::bytes::Bytes, row_len: usize| {
        bytes.slice(rows.start.checked_mul(row_len)?..rows.end.checked_mul(row_len)?)
    };
    let data = match &matrix.data {
        MatrixData::Dense { dtype, bytes } => {
            MatrixData::Dense { dtype: *dtype, bytes: cut(bytes, matrix.cols * dtype.size())? }
        }
        MatrixData::Grouped { layout: Layout::Kn, .. } => return None,
        MatrixData::Grouped { format, layout, words, scale_dtype, scales } => MatrixData::Grouped {
            format: *format,
            layout: *layout,
            words: cut(words, format.words(matrix.cols) * 4)?,
            scale_dtype: *scale_dtype,
            scales: cut(scales, format.groups(matrix.cols) * scale_dtype.size())?,
        },
    };
    Some(Matrix { rows: rows.len(), cols: matrix.cols, data })
}
