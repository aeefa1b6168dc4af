//! Parameters whose source stores them as the scheme does: codes and scales are taken as they are.

use super::ConvertError;
use super::values::source_row;
use crate::arch::{Combine, Param};
use crate::dtype::DType;
use crate::scheme::{GroupFormat, Scheme};
use crate::source::{SourceError, TensorSource};

/// Words, and scales as f32.
type Groups = (Vec<u32>, Vec<f32>);

/// Words and scales of the rows that source tensor `at` fills, in the parameter's order and not yet transposed;
/// `None` where the tensor has no codes that `scheme` can hold without loss.
pub(super) fn codes(
    source: &dyn TensorSource,
    at: usize,
    param: &Param,
    scheme: &Scheme,
) -> Result<Option<Groups>, ConvertError> {
    let (format, cols) = (GroupFormat::INT4, param.cols());
    let whole_rows = matches!(
        param.combine,
        Combine::Rows
            | Combine::Copy
            | Combine::Transpose
            | Combine::PerHead { .. }
            | Combine::PerGroup { .. }
    );
    if scheme.group != Some(format) || !whole_rows || cols == 0 || !cols.is_multiple_of(format.group) {
        return Ok(None);
    }
    let Some(codes) = source.read_codes(at)? else { return Ok(None) };
    let tensor = &source.tensors()[at];
    let rows = tensor.shape.iter().product::<usize>() / cols;
    let (row_words, row_groups) = (format.words(cols), format.groups(cols));
    if (codes.words.len(), codes.scales.len()) != (rows * row_words, rows * row_groups) {
        let what = format!(
            "{} words and {} scales, expected {} and {} for shape {:?}",
            codes.words.len(),
            codes.scales.len(),
            rows * row_words,
            rows * row_groups,
            tensor.shape
        );
        let (file, tensor) = (source.file(at).to_owned(), tensor.name.clone());
        return Err(SourceError { file, tensor, what }.into());
    }
    let scales: Vec<f32> = codes.scales.iter().map(|scale| scale.to_f32()).collect();
    // What is float32 is stored as bfloat16 (format page, Writing), which has three bits less than an f16.
    if scheme.dtype != DType::F16 && scales.iter().any(|scale| scale.to_bits() & 0xffff != 0) {
        return Ok(None);
    }
    if matches!(param.combine, Combine::Rows | Combine::Copy | Combine::Transpose) {
        return Ok(Some((codes.words, scales)));
    }
    let order = |row| source_row(param.combine, row);
    let words = (0..rows).flat_map(|row| &codes.words[order(row) * row_words..][..row_words]).copied();
    let ordered = (0..rows).flat_map(|row| &scales[order(row) * row_groups..][..row_groups]).copied();
    Ok(Some((words.collect(), ordered.collect())))
}
