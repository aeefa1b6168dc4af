//! Which checkpoint tensors a folder gives back: the inverse of what conversion did to each parameter.

use super::{ExportSource, ExportTensor, Transform};
use crate::arch::{Combine, Param, ParamKind};
use crate::convert::source_row;
use crate::scheme::{Layout, Scheme};
use std::collections::HashSet;
use std::ops::Range;

/// A model whose checkpoint cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model type {model_type:?}: {param} cannot be taken apart into {tensor} again")]
pub struct PlanError {
    /// The model type.
    pub model_type: String,
    /// The parameter.
    pub param: String,
    /// The checkpoint's tensor.
    pub tensor: String,
}

/// The checkpoint's tensors, in module order: fused rows taken apart, transposes, additions and
/// reorderings undone. A copied parameter (a tied head that the folder holds twice) is left out.
pub fn plan_export(
    model_type: &str,
    params: &[Param],
    scheme: &Scheme,
) -> Result<Vec<ExportTensor>, PlanError> {
    let mut plan = Vec::new();
    let mut written = HashSet::new();
    let refuse = |param: &Param, tensor: &str| PlanError {
        model_type: model_type.to_owned(),
        param: param.name.clone(),
        tensor: tensor.to_owned(),
    };
    for param in params.iter().filter(|p| !p.combine.copies()) {
        // Stacks of matrices are taken apart nowhere yet.
        if matches!(param.kind, ParamKind::Experts | ParamKind::ExpertsByInput) {
            return Err(refuse(param, param.sources.first().map_or("", |source| &source.name)));
        }
        let plain = matches!(param.kind, ParamKind::Plain | ParamKind::VectorF32);
        let from = match *param.shape.as_slice() {
            [rows, cols] if !plain => ExportSource::Matrix {
                base: param.name.strip_suffix(".weight").unwrap_or(&param.name).to_owned(),
                rows,
                cols,
                layout: param.layout(scheme).unwrap_or(Layout::Nk),
            },
            _ => ExportSource::Tensor { name: param.name.clone() },
        };
        let mut start = 0usize;
        for source in &param.sources {
            let (rows, transform) = match (param.combine, param.sources.len()) {
                (Combine::Transpose, 1) => (Vec::new(), Transform::Transpose),
                (Combine::AddOne | Combine::AddOneWide, 1) => (Vec::new(), Transform::Add(-1.0)),
                (Combine::PerHead { .. } | Combine::PerGroup { .. }, 1) => {
                    (inverse(param.combine, param.shape[0]), Transform::None)
                }
                (Combine::Rows, 1) => (Vec::new(), Transform::None),
                (Combine::Rows, _) => {
                    let end = start + source.shape.first().copied().unwrap_or(0);
                    (std::iter::once(start..end).collect(), Transform::None)
                }
                _ => return Err(refuse(param, &source.name)),
            };
            start += source.shape.first().copied().unwrap_or(0);
            // The config that goes with it is that of the language model alone.
            let name = source.alone.as_ref().unwrap_or(&source.name).clone();
            if !written.insert(name.clone()) {
                return Err(refuse(param, &name));
            }
            let shape = source.shape.clone();
            plan.push(ExportTensor { name, shape, from: from.clone(), rows, transform });
        }
    }
    // What was copied must have come from something that is written.
    for param in params.iter().filter(|p| p.combine.copies()) {
        if let Some(source) =
            param.sources.iter().find(|s| !written.contains(s.alone.as_ref().unwrap_or(&s.name)))
        {
            return Err(refuse(param, &source.name));
        }
    }
    Ok(plan)
}

/// The parameter's rows in the checkpoint's order, as ranges.
fn inverse(combine: Combine, rows: usize) -> Vec<Range<usize>> {
    let mut at = vec![0; rows];
    for row in 0..rows {
        at[source_row(combine, row)] = row;
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in at {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end = row + 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reordering_is_undone() {
        // q0 q1 k0 k1 v0 v1 in the folder; q0 k0 v0 q1 k1 v1 in the checkpoint; two rows each.
        let heads = Combine::PerHead { heads: 2, head_dim: 2 };
        assert_eq!(inverse(heads, 12), [0..2, 4..6, 8..10, 2..4, 6..8, 10..12]);
    }
}
