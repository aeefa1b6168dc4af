//! From the name of a module to the rows of a source's tensor that hold its weight: in a checkpoint a tensor of its
//! own, in an MLC folder often a part of one.

use super::adapter::{Change, What};
use super::{LoraError, Misfit};
use crate::arch::{Combine, Param};
use crate::convert::{SourceNames, source_row};
use crate::source::TensorSource;
use std::collections::HashMap;

/// Where a change lands.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Position in [`TensorSource::tensors`].
    pub index: usize,
    /// Rows of that tensor: the first, and how many.
    pub first: usize,
    pub rows: usize,
    /// How they lie there.
    pub combine: Combine,
    /// Whether the tensor is `[inputs, outputs]` (GPT-2's Conv1D).
    pub transposed: bool,
}

impl Spot {
    /// The row of the checkpoint's tensor that is this one's `row`.
    pub fn source_row(&self, row: usize) -> usize {
        source_row(self.combine, row)
    }
}

/// Finds places in a source.
pub(super) struct Places<'a> {
    names: SourceNames,
    params: &'a [Param],
    tensors: HashMap<&'a str, usize>,
    /// Parameters that are made from a tensor of the checkpoint, each with the number of the source.
    users: HashMap<&'a str, Vec<(usize, usize)>>,
}

/// The head that a tied model leaves out, where a checkpoint has it all the same.
const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];
const EMBEDDINGS: [&str; 4] =
    ["embed_tokens.weight", "wte.weight", "embed_in.weight", "tok_embeddings.weight"];

impl<'a> Places<'a> {
    pub fn new(source: &'a dyn TensorSource, params: &'a [Param], names: SourceNames) -> Places<'a> {
        let tensors = source.tensors().iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut users: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
        for (p, param) in params.iter().enumerate() {
            for (s, source) in param.sources.iter().enumerate() {
                for name in std::iter::once(&source.name).chain(&source.alone) {
                    users.entry(name).or_default().push((p, s));
                }
            }
        }
        Places { names, params, tensors, users }
    }

    /// Every place of a change; at least one.
    pub fn of(&self, file: &str, change: &Change) -> Result<Vec<Spot>, LoraError> {
        let tensor = format!("{}.{}", change.module, change.leaf);
        let no_place =
            || LoraError::NoPlace { file: file.to_owned(), key: change.key.clone(), tensor: tensor.clone() };
        // An adapter of the model without its head calls the layers `layers`, not `model.layers`.
        let candidates = [tensor.clone(), format!("model.{tensor}"), format!("transformer.{tensor}")];
        let (name, users) = candidates
            .iter()
            .find_map(|name| self.users.get_key_value(name.as_str()))
            .ok_or_else(no_place)?;
        let (param, source) = users.first().copied().ok_or_else(no_place)?;
        self.check_shape(file, change, name, &self.params[param], source)?;
        let spots = match self.names {
            SourceNames::Hf => self.in_checkpoint(name, param, source),
            SourceNames::Mlc => self.in_folder(file, change, name, users)?,
        };
        if spots.is_empty() { Err(no_place()) } else { Ok(spots) }
    }

    fn check_shape(
        &self,
        file: &str,
        change: &Change,
        name: &str,
        param: &Param,
        source: usize,
    ) -> Result<(), LoraError> {
        let expected = &param.sources[source].shape;
        let (found, whole) = match &change.what {
            What::Product(p) => {
                let turned = p.embedding || param.combine == Combine::Transpose;
                let whole = if turned { vec![p.inputs, p.outputs] } else { vec![p.outputs, p.inputs] };
                (vec![p.outputs, p.rank], whole)
            }
            What::Sum { shape, .. } | What::Instead { shape, .. } => (shape.clone(), shape.clone()),
        };
        if whole == *expected {
            return Ok(());
        }
        let what = match &change.what {
            What::Product(p) => format!("with {} {:?} it makes {whole:?}", p.a_key, [p.rank, p.inputs]),
            _ => "they must be the same".to_owned(),
        };
        Err(LoraError::from(Box::new(Misfit {
            file: file.to_owned(),
            key: change.key.clone(),
            found,
            other: name.to_owned(),
            other_shape: expected.clone(),
            what,
        })))
    }

    fn in_checkpoint(&self, name: &str, param: usize, source: usize) -> Vec<Spot> {
        let need = &self.params[param].sources[source];
        let names = [Some(need.name.as_str()), need.alone.as_deref()];
        let mut all: Vec<usize> =
            names.into_iter().flatten().filter_map(|name| self.tensors.get(name)).copied().take(1).collect();
        // A copy of the embedding that is not read, but compared.
        if EMBEDDINGS.iter().any(|end| name.ends_with(end)) {
            let copies = HEADS.iter().filter(|head| !self.users.contains_key(**head));
            all.extend(copies.filter_map(|head| self.tensors.get(head)));
        }
        let spot = |index| Spot {
            index,
            first: 0,
            rows: need.shape.first().copied().unwrap_or(0),
            combine: Combine::Rows,
            transposed: self.params[param].combine == Combine::Transpose,
        };
        all.into_iter().map(spot).collect()
    }

    fn in_folder(
        &self,
        file: &str,
        change: &Change,
        name: &str,
        users: &[(usize, usize)],
    ) -> Result<Vec<Spot>, LoraError> {
        let mut spots = Vec::new();
        for &(p, s) in users {
            let param = &self.params[p];
            let Some(&index) = self.tensors.get(param.name.as_str()) else { continue };
            let is_product = matches!(change.what, What::Product(_));
            let rows_of = |i: usize| {
                let shape = &param.sources[i].shape;
                if param.combine == Combine::Transpose { shape.get(1) } else { shape.first() }
                    .copied()
                    .unwrap_or(0)
            };
            let (combine, rows) = match param.combine {
                // The folder has turned it over, so that it is like any other.
                Combine::Transpose if is_product => (Combine::Rows, rows_of(s)),
                Combine::Rows | Combine::Copy | Combine::PerHead { .. } | Combine::PerGroup { .. } => {
                    (param.combine, rows_of(s))
                }
                _ => {
                    return Err(LoraError::OtherForm {
                        file: file.to_owned(),
                        key: change.key.clone(),
                        tensor: name.to_owned(),
                        param: param.name.clone(),
                    });
                }
            };
            let first = (0..s).map(rows_of).sum();
            spots.push(Spot { index, first, rows, combine, transposed: false });
        }
        Ok(spots)
    }
}
