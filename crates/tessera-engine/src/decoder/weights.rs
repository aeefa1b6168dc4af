//! A folder's tensors by the part that they play.

use std::collections::{HashMap, HashSet};

use tessera_compute::program::{MatrixId, Program, VectorId};
use tessera_weights::arch::{self, Param, ParamKind, Role, Sizes};
use tessera_weights::bytes::Bytes;
use tessera_weights::config::ModelConfig;
use tessera_weights::dtype::DType;
use tessera_weights::folder::{Folder, FolderError};
use tessera_weights::quantize::decode_row;
use tessera_weights::scheme::{Layout, Scheme};
use tessera_weights::tensor::{Matrix, MatrixData};

use super::DecoderError;

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    pub weight: MatrixId,
    pub bias: Option<VectorId>,
}

/// Scale and shift of a norm.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormWeights {
    pub weight: VectorId,
    pub bias: Option<VectorId>,
    /// Length of both.
    pub len: usize,
}

/// Puts tensors into a program, and knows which it has not been asked for.
pub(super) struct Weights<'a> {
    folder: &'a Folder,
    scheme: &'a Scheme,
    /// All parameters but biases, which go with a weight.
    params: HashMap<(Option<usize>, Role), Param>,
    used: HashSet<String>,
    /// How names begin that are no part of the decoder.
    left_out: &'static [&'static str],
}

impl<'a> Weights<'a> {
    pub fn new(folder: &'a Folder, scheme: &'a Scheme, config: &ModelConfig) -> Result<Self, DecoderError> {
        let params = arch::params(&config.model_type, &Sizes::from(config))?;
        let others = params.into_iter().filter(|p| !p.name.ends_with(".bias"));
        let params = others.map(|p| ((p.layer, p.role), p)).collect();
        let left_out = arch::left_out(&config.model_type);
        Ok(Weights { folder, scheme, params, used: HashSet::new(), left_out })
    }

    pub fn has(&self, layer: Option<usize>, role: Role) -> bool {
        self.params.contains_key(&(layer, role))
    }

    fn param(&self, layer: Option<usize>, role: Role) -> Result<&Param, DecoderError> {
        self.params.get(&(layer, role)).ok_or(DecoderError::Part { role, layer })
    }

    /// The table of one of the embeddings.
    pub fn embedding(&mut self, p: &mut Program, role: Role) -> Result<MatrixId, DecoderError> {
        let param = self.param(None, role)?.clone();
        let (base, cols) = (base(&param.name), param.cols());
        // A context that a packager chose does not change how many positions were trained.
        let lying =
            ["q_weight", "weight"].iter().find_map(|end| self.folder.tensor(&format!("{base}.{end}")));
        let rows = match (role, lying.and_then(|tensor| tensor.shape.first())) {
            (Role::Positions, Some(&rows)) => rows,
            _ => param.rows(),
        };
        Ok(self.matrix(p, base, Layout::Nk, rows, cols)?)
    }

    /// A linear layer, with a bias where the folder has one.
    pub fn linear(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
    ) -> Result<Linear, DecoderError> {
        let param = self.param(layer, role)?.clone();
        Ok(self.named(p, base(&param.name), param.rows(), param.cols())?)
    }

    /// The head that the family's table names, or the one that older converters wrote although the embedding is the
    /// head; `None` where the folder has neither.
    pub fn head(&mut self, p: &mut Program, config: &ModelConfig) -> Result<Option<Linear>, DecoderError> {
        if self.has(None, Role::Head) {
            return self.linear(p, None, Role::Head).map(Some);
        }
        let there = |end: &&str| self.folder.tensor(&format!("lm_head.{end}")).is_some();
        match ["q_weight", "weight"].iter().any(there) {
            true => Ok(Some(self.named(p, "lm_head", config.vocab_size, config.hidden_size)?)),
            false => Ok(None),
        }
    }

    /// A norm; `offset` is added to its scale.
    pub fn norm(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
        offset: f32,
    ) -> Result<NormWeights, DecoderError> {
        let param = self.param(layer, role)?.clone();
        let len = param.cols();
        let mut scale = self.folder.vector(&param.name, len)?;
        self.used.insert(param.name.clone());
        scale.iter_mut().for_each(|x| *x += offset);
        let weight = p.vector(scale);
        let bias = self.bias(p, base(&param.name), len)?;
        Ok(NormWeights { weight, bias, len })
    }

    /// The values of a parameter that is neither a matrix nor a norm, as they lie; their number must be `len`.
    pub fn values(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
        len: usize,
    ) -> Result<VectorId, DecoderError> {
        let param = self.param(layer, role)?.clone();
        if param.numel() != len {
            return Err(DecoderError::Part { role, layer });
        }
        let values = self.folder.floats(&param.name, &param.shape)?;
        self.used.insert(param.name);
        Ok(p.vector(values))
    }

    /// The matrices of a parameter `[.., inputs, outputs]` that no scheme quantises, each turned over, one after another:
    /// the first of them.
    pub fn turned(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
    ) -> Result<MatrixId, DecoderError> {
        let param = self.param(layer, role)?.clone();
        let (count, inputs, outputs) = match *param.shape {
            [count, inputs, outputs] => (Some(count), inputs, outputs),
            [inputs, outputs] => (None, inputs, outputs),
            _ => return Err(DecoderError::Part { role, layer }),
        };
        let matrices = self.folder.planes_by_input(&param.name, count, outputs, inputs)?;
        self.used.insert(param.name);
        in_a_row(p, matrices).ok_or(DecoderError::Part { role, layer })
    }

    /// The matrices `[heads, outputs, inputs]` of a parameter that no scheme quantises, one after another: the first of
    /// them. `None` where the folder lacks it.
    pub fn planes(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
    ) -> Result<Option<MatrixId>, DecoderError> {
        let param = self.param(layer, role)?.clone();
        let &[count, rows, cols] = &*param.shape else { return Err(DecoderError::Part { role, layer }) };
        if self.folder.tensor(&param.name).is_none() {
            return Ok(None);
        }
        let matrices = self.folder.planes(&param.name, count, rows, cols)?;
        self.used.insert(param.name);
        Ok(in_a_row(p, matrices))
    }

    /// Both halves of each head of a matrix `[heads * (first + second), inputs]`: the first turned over,
    /// `[heads, inputs, first]`, the second as it is, `[heads, second, inputs]`; what is quantised is decoded.
    pub fn halves(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
        (heads, first): (usize, usize),
    ) -> Result<[MatrixId; 2], DecoderError> {
        let param = self.param(layer, role)?.clone();
        let Scheme { group, layout, .. } = *self.scheme;
        let all = self.folder.matrix(base(&param.name), group, layout, param.rows(), param.cols())?;
        self.leave(layer, role)?;
        let (each, inputs) = (all.rows / heads, all.cols);
        let row = |at: usize| {
            let mut row = vec![0.0; inputs];
            decode_row(&all, at, &mut row);
            row
        };
        let dense = |rows: usize, cols: usize, values: Vec<f32>| {
            let bytes = Bytes::from_vec(values.iter().flat_map(|x| x.to_le_bytes()).collect());
            Matrix { rows, cols, data: MatrixData::Dense { dtype: DType::F32, bytes } }
        };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for head in 0..heads {
            let rows: Vec<Vec<f32>> = (0..each).map(|i| row(head * each + i)).collect();
            let (before, after) = rows.split_at(first);
            let turned = (0..inputs).flat_map(|i| before.iter().map(move |row| row[i])).collect();
            keys.push(dense(inputs, first, turned));
            values.push(dense(each - first, inputs, after.concat()));
        }
        let ids = [keys, values].map(|list| in_a_row(p, list));
        match ids {
            [Some(keys), Some(values)] => Ok([keys, values]),
            _ => Err(DecoderError::Part { role, layer }),
        }
    }

    /// Whether a matrix is quantised in this folder.
    pub fn is_quantised(&self, layer: Option<usize>, role: Role) -> Result<bool, DecoderError> {
        let name = format!("{}.q_weight", base(&self.param(layer, role)?.name));
        Ok(self.folder.tensor(&name).is_some())
    }

    /// Knows a parameter that is not read; the folder may lack it.
    pub fn leave(&mut self, layer: Option<usize>, role: Role) -> Result<(), DecoderError> {
        let name = self.param(layer, role)?.name.clone();
        self.used.extend(["q_weight", "q_scale"].map(|end| format!("{}.{end}", base(&name))));
        self.used.insert(name);
        Ok(())
    }

    /// The matrices of a layer's experts, one after another: the first of them.
    pub fn experts(
        &mut self,
        p: &mut Program,
        layer: Option<usize>,
        role: Role,
    ) -> Result<MatrixId, DecoderError> {
        let param = self.param(layer, role)?.clone();
        let &[count, rows, cols] = &*param.shape else { return Err(DecoderError::Part { role, layer }) };
        let matrices = match param.kind {
            ParamKind::ExpertsByInput => self.folder.planes_by_input(&param.name, Some(count), cols, rows)?,
            _ => self.folder.experts(base(&param.name), self.scheme.group, count, rows, cols)?,
        };
        self.used.insert(param.name.clone());
        self.used.extend(["q_weight", "q_scale"].map(|end| format!("{}.{end}", base(&param.name))));
        in_a_row(p, matrices).ok_or(DecoderError::Part { role, layer })
    }

    /// How many tensors nobody asked for, and the first of them.
    pub fn unused(&self) -> Option<(usize, String)> {
        let other = |name: &str| self.left_out.iter().any(|start| name.starts_with(start));
        let mut unused = self.folder.tensors().filter(|t| !self.used.contains(&t.name) && !other(&t.name));
        let first = unused.next()?;
        Some((1 + unused.count(), first.name.clone()))
    }

    fn named(
        &mut self,
        p: &mut Program,
        base: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear, FolderError> {
        let weight = self.matrix(p, base, self.scheme.layout, rows, cols)?;
        let bias = self.bias(p, base, rows)?;
        Ok(Linear { weight, bias })
    }

    fn matrix(
        &mut self,
        p: &mut Program,
        base: &str,
        layout: Layout,
        rows: usize,
        cols: usize,
    ) -> Result<MatrixId, FolderError> {
        let matrix = self.folder.matrix(base, self.scheme.group, layout, rows, cols)?;
        self.used.extend(["weight", "q_weight", "q_scale"].map(|end| format!("{base}.{end}")));
        Ok(p.matrix(matrix))
    }

    fn bias(&mut self, p: &mut Program, base: &str, len: usize) -> Result<Option<VectorId>, FolderError> {
        let name = format!("{base}.bias");
        if self.folder.tensor(&name).is_none() {
            return Ok(None);
        }
        let bias = self.folder.vector(&name, len)?;
        self.used.insert(name);
        Ok(Some(p.vector(bias)))
    }
}

/// Adds matrices that are named by the first of them.
fn in_a_row(p: &mut Program, matrices: Vec<Matrix>) -> Option<MatrixId> {
    let ids: Vec<MatrixId> = matrices.into_iter().map(|m| p.matrix(m)).collect();
    ids.first().copied()
}

fn base(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}
