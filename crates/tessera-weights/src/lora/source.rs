//! A source with the changes of adapters in it.

use super::LoraError;
use super::adapter::{Adapter, Product, What, plain};
use super::place::{Places, Spot};
use crate::arch::Param;
use crate::convert::SourceNames;
use crate::dtype::DType;
use crate::source::{Codes, SourceError, SourceTensor, TensorSource, Values};
use rayon::prelude::*;
use std::collections::HashMap;

/// A checkpoint whose tensors are read with the changes of adapters, in the adapters' order. What is changed is
/// read as f32, whatever its own type.
pub struct LoraSource<'a> {
    inner: &'a dyn TensorSource,
    tensors: Vec<SourceTensor>,
    changes: HashMap<usize, Vec<(What, Spot)>>,
}

impl<'a> LoraSource<'a> {
    /// Finds the place of everything that adapters change; the first that has none, or another shape, is an error.
    /// `params` are the architecture's, `names` says whose names the tensors of `inner` have.
    pub fn new(
        inner: &'a dyn TensorSource,
        params: &[Param],
        names: SourceNames,
        adapters: &[Adapter],
    ) -> Result<LoraSource<'a>, LoraError> {
        let places = Places::new(inner, params, names);
        let mut changes: HashMap<usize, Vec<(What, Spot)>> = HashMap::new();
        for adapter in adapters {
            for change in &adapter.changes {
                for spot in places.of(&adapter.file, change)? {
                    changes.entry(spot.index).or_default().push((change.what.clone(), spot));
                }
            }
        }
        let mut tensors = inner.tensors().to_vec();
        for &index in changes.keys() {
            tensors[index].dtype = DType::F32;
        }
        Ok(LoraSource { inner, tensors, changes })
    }
}

impl TensorSource for LoraSource<'_> {
    fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    fn read(&self, index: usize) -> Result<Values, SourceError> {
        let values = self.inner.read(index)?;
        let Some(changes) = self.changes.get(&index) else { return Ok(values) };
        let SourceTensor { name, shape, .. } = &self.tensors[index];
        let (mut values, rows) = (plain(values), shape.first().copied().unwrap_or(0));
        let (found, expected) = (values.len(), shape.iter().product::<usize>());
        let refused = |what: String| SourceError {
            file: self.inner.file(index).to_owned(),
            tensor: name.clone(),
            what,
        };
        if found != expected {
            return Err(refused(format!("{found} values, expected {expected} for shape {shape:?}")));
        }
        // Experts lie one after the other.
        let cols = if shape.len() < 2 { 1 } else { shape.last().copied().unwrap_or(1) };
        let all = if shape.len() < 2 { rows } else { expected / cols.max(1) };
        for (what, spot) in changes {
            if spot.first.checked_add(spot.rows).is_none_or(|end| end > all) {
                return Err(refused(format!("shape is {shape:?}, expected one of the architecture")));
            }
            let part = &mut values[spot.first * cols..(spot.first + spot.rows) * cols];
            apply(what, spot, part, cols).map_err(refused)?;
        }
        Ok(Values::F32(values))
    }

    fn read_codes(&self, index: usize) -> Result<Option<Codes>, SourceError> {
        match self.changes.contains_key(&index) {
            true => Ok(None),
            false => self.inner.read_codes(index),
        }
    }

    fn file(&self, index: usize) -> &str {
        self.inner.file(index)
    }
}

fn apply(what: &What, spot: &Spot, part: &mut [f32], cols: usize) -> Result<(), String> {
    let fits = |len: usize| match len == part.len() {
        true => Ok(()),
        false => Err(format!("{} values, the adapter has {len}", part.len())),
    };
    match what {
        What::Product(product) => {
            fits(product.inputs * product.outputs)?;
            add_product(product, spot, part, cols);
        }
        What::Sum { values, scale, .. } => {
            fits(values.len())?;
            for (row, out) in part.chunks_exact_mut(cols).enumerate() {
                let from = spot.source_row(row) * cols;
                for (o, &x) in out.iter_mut().zip(&values[from..from + cols]) {
                    *o = (f64::from(*o) + scale * f64::from(x)) as f32;
                }
            }
        }
        What::Instead { values, .. } => {
            fits(values.len())?;
            for (row, out) in part.chunks_exact_mut(cols).enumerate() {
                let from = spot.source_row(row) * cols;
                out.copy_from_slice(&values[from..from + cols]);
            }
        }
    }
    Ok(())
}

/// Adds B A, or A' B' where inputs are rows: a row of the one, times a matrix of `rank` rows.
fn add_product(product: &Product, spot: &Spot, part: &mut [f32], cols: usize) {
    let Product { a, b, rank, inputs, outputs, scale, .. } = product;
    let inputs_are_rows = spot.transposed || product.embedding;
    let turned: Vec<f32>;
    let right = if inputs_are_rows {
        turned = (0..rank * outputs).map(|i| b[i % outputs * rank + i / outputs]).collect();
        &turned
    } else {
        a
    };
    part.par_chunks_exact_mut(cols).enumerate().for_each_init(
        || vec![0f64; cols],
        |sum, (row, out)| {
            let row = spot.source_row(row);
            sum.fill(0.0);
            for k in 0..*rank {
                let left = f64::from(if inputs_are_rows { a[k * inputs + row] } else { b[row * rank + k] });
                for (s, &x) in sum.iter_mut().zip(&right[k * cols..(k + 1) * cols]) {
                    *s += left * f64::from(x);
                }
            }
            for (o, s) in out.iter_mut().zip(sum.iter()) {
                *o = (f64::from(*o) + scale * s) as f32;
            }
        },
    );
}
