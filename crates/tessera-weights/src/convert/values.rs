//! A source tensor's values as rows of the parameter that they become, in the model's dtype.

use crate::arch::Combine;
use crate::dtype::DType;
use crate::quantize::{round_bf16, round_f16, round_to};
use crate::source::Values;

/// A source tensor, seen row by row as its parameter wants it.
pub(super) struct Rows<'a> {
    pub values: &'a Values,
    pub rows: usize,
    pub cols: usize,
    pub combine: Combine,
    /// The dtype that values are rounded to.
    pub dtype: DType,
}

impl Rows<'_> {
    /// Row `row` of the parameter's part that this source fills.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        match self.values {
            Values::F32(v) => self.copy(v, row, out, |x| x, |x| x),
            Values::F16(v) => self.copy(v, row, out, half::f16::to_f32, round_f16),
            Values::BF16(v) => self.copy(v, row, out, half::bf16::to_f32, round_bf16),
        }
        if self.values.dtype() != self.dtype || self.combine == Combine::AddOneWide {
            for x in out.iter_mut() {
                *x = round_to(self.dtype, *x);
            }
        }
        if let Combine::Halved { times } = self.combine {
            let part = 0.5f32.powi(times as i32);
            out.iter_mut().for_each(|x| *x = round_to(self.dtype, *x * part));
        }
    }

    fn copy<T: Copy>(
        &self,
        values: &[T],
        row: usize,
        out: &mut [f32],
        widen: impl Fn(T) -> f32,
        round: impl Fn(f32) -> f32,
    ) {
        if self.combine == Combine::Transpose {
            for (o, &x) in out.iter_mut().zip(values[row..].iter().step_by(self.rows)) {
                *o = widen(x);
            }
            return;
        }
        if let Combine::HeadKeys { each, inputs } = self.combine {
            let at = row / inputs * each * inputs + row % inputs;
            for (o, &x) in out.iter_mut().zip(values[at..].iter().step_by(inputs)) {
                *o = widen(x);
            }
            return;
        }
        let at = source_row(self.combine, row) * self.cols;
        for (o, &x) in out.iter_mut().zip(&values[at..at + self.cols]) {
            *o = widen(x);
        }
        match self.combine {
            Combine::AddOne => out.iter_mut().for_each(|o| *o = round(*o + 1.0)),
            Combine::AddOneWide => out.iter_mut().for_each(|o| *o += 1.0),
            _ => {}
        }
    }
}

/// The source's row that becomes `row` of the parameter.
pub(crate) fn source_row(combine: Combine, row: usize) -> usize {
    match combine {
        Combine::Rows
        | Combine::Copy
        | Combine::Transpose
        | Combine::AddOne
        | Combine::AddOneWide
        | Combine::Halved { .. }
        | Combine::HeadKeys { .. } => row,
        Combine::HeadValues { each, before } => {
            let kept = each - before;
            row / kept * each + before + row % kept
        }
        Combine::PerHead { heads, head_dim } => {
            let (part, row) = (row / (heads * head_dim), row % (heads * head_dim));
            let (head, x) = (row / head_dim, row % head_dim);
            (head * 3 + part) * head_dim + x
        }
        Combine::PerGroup { groups, queries, head_dim } => {
            let (head, x) = (row / head_dim, row % head_dim);
            let (group, within) = match head.checked_sub(groups * queries) {
                None => (head / queries, head % queries),
                Some(kv) => (kv % groups, queries + kv / groups),
            };
            (group * (queries + 2) + within) * head_dim + x
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_groups_are_put_in_order() {
        let rows = |combine, n| (0..n).map(|r| source_row(combine, r)).collect::<Vec<_>>();
        // Two heads of one row each: q0 k0 v0 q1 k1 v1.
        assert_eq!(rows(Combine::PerHead { heads: 2, head_dim: 1 }, 6), [0, 3, 1, 4, 2, 5]);
        // Two groups of two queries: q0 q1 k0 v0 q2 q3 k1 v1.
        let grouped = Combine::PerGroup { groups: 2, queries: 2, head_dim: 1 };
        assert_eq!(rows(grouped, 8), [0, 1, 4, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn one_is_added_in_the_sources_own_dtype() {
        // 1 + 2^-8 is not a bf16: the sum rounds to 1 although the model is f32.
        let values = Values::BF16(vec![half::bf16::from_f32(2f32.powi(-8))]);
        let rows = Rows { values: &values, rows: 1, cols: 1, combine: Combine::AddOne, dtype: DType::F32 };
        let mut out = [0.0];
        rows.read(0, &mut out);
        assert_eq!(out, [1.0]);
    }
}
