//! A folder's tensors by the part that they play: what a program says of them, told from the manifest.

use std::collections::{HashMap, HashSet};

use tessera_compute::program::{Made, MatrixId, Parameter, Program, Vector, VectorId, Weight};
use tessera_weights::arch::{self, Param, ParamKind, Role, Sizes};
use tessera_weights::config::ModelConfig;
use tessera_weights::dtype::DType;
use tessera_weights::folder::{FolderError, Shape};
use tessera_weights::manifest::Manifest;
use tessera_weights::scheme::{Layout, Scheme};
use tessera_weights::tensor::Form;

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

/// Puts descriptions of tensors into a program, and knows which it has not been asked for.
pub(super) struct Weights<'a> {
    manifest: &'a Manifest,
    scheme: &'a Scheme,
    /// All parameters but biases, which go with a weight.
    params: HashMap<(Option<usize>, Role), Param>,
    used: HashSet<String>,
    /// How names begin that are no part of the decoder.
    left_out: &'static [&'static str],
}

impl<'a> Weights<'a> {
    pub fn new(
        manifest: &'a Manifest,
        scheme: &'a Scheme,
        config: &ModelConfig,
    ) -> Result<Self, DecoderError> {
        let params = arch::params(&config.model_type, &Sizes::from(config))?;
        let others = params.into_iter().filter(|p| !p.name.ends_with(".bias"));
        let params = others.map(|p| ((p.layer, p.role), p)).collect();
        let left_out = arch::left_out(&config.model_type);
        Ok(Weights { manifest, scheme, params, used: HashSet::new(), left_out })
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
            ["q_weight", "weight"].iter().find_map(|end| self.manifest.record(&format!("{base}.{end}")));
        let rows = match (role, lying.and_then(|tensor| tensor.shape.first())) {
            (Role::Positions, Some(&rows)) => rows,
            _ => param.rows(),
        };
        Ok(self.matrix(p, base, Layout::Nk, Shape::one(rows, cols))?)
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
        let there = |end: &&str| self.manifest.record(&format!("lm_head.{end}")).is_some();
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
        let weight = self.floats(p, param.name.clone(), vec![len], offset)?;
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
        Ok(self.floats(p, param.name, param.shape, 0.0)?)
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
        Ok(self.by_input(p, param.name, count, outputs, inputs)?)
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
        if self.manifest.record(&param.name).is_none() {
            return Ok(None);
        }
        let dtype = self.manifest.planes(&param.name, Shape { stack: Some(count), rows, cols })?;
        self.used.insert(param.name.clone());
        let weight = Weight::stored(param.name, rows, cols, Form::Dense(dtype));
        Ok(Some(p.weight(Weight { copies: count, ..weight })))
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
        let (base, rows, inputs) = (base(&param.name), param.rows(), param.cols());
        let stored = self.manifest.form(base, group, layout, Shape::one(rows, inputs))?;
        self.leave(layer, role)?;
        let each = rows / heads.max(1);
        let second = each.checked_sub(first).filter(|second| *second > 0);
        let second = second.ok_or(DecoderError::Part { role, layer })?;
        let mut half = |rows, cols, from, turned| {
            let made = Made::Head { stored, each, from, turned };
            let (name, form) = (format!("{base}.weight"), Form::Dense(DType::F32));
            p.weight(Weight { name, rows, cols, copies: heads, form, made })
        };
        Ok([half(inputs, first, 0, true), half(second, inputs, first, false)])
    }

    /// Whether a matrix is quantised in this folder.
    pub fn is_quantised(&self, layer: Option<usize>, role: Role) -> Result<bool, DecoderError> {
        let name = format!("{}.q_weight", base(&self.param(layer, role)?.name));
        Ok(self.manifest.record(&name).is_some())
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
        if param.kind == ParamKind::ExpertsByInput {
            return Ok(self.by_input(p, param.name, Some(count), cols, rows)?);
        }
        let shape = Shape { stack: Some(count), rows, cols };
        Ok(self.matrix(p, base(&param.name), Layout::Nk, shape)?)
    }

    /// How many tensors nobody asked for, and the first of them.
    pub fn unused(&self) -> Option<(usize, String)> {
        let other = |name: &str| self.left_out.iter().any(|start| name.starts_with(start));
        let records = self.manifest.records().iter();
        let mut unused = records.filter(|r| !self.used.contains(&r.name) && !other(&r.name));
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
        let weight = self.matrix(p, base, self.scheme.layout, Shape::one(rows, cols))?;
        let bias = self.bias(p, base, rows)?;
        Ok(Linear { weight, bias })
    }

    /// What lies under this name, dense or quantised.
    fn matrix(
        &mut self,
        p: &mut Program,
        base: &str,
        layout: Layout,
        shape: Shape,
    ) -> Result<MatrixId, FolderError> {
        let form = self.manifest.form(base, self.scheme.group, layout, shape)?;
        self.used.extend(["weight", "q_weight", "q_scale"].map(|end| format!("{base}.{end}")));
        let weight = Weight::stored(format!("{base}.weight"), shape.rows, shape.cols, form);
        Ok(p.weight(Weight { copies: shape.stack.unwrap_or(1), ..weight }))
    }

    /// Matrices that lie `[count, cols, rows]`, turned over.
    fn by_input(
        &mut self,
        p: &mut Program,
        name: String,
        count: Option<usize>,
        rows: usize,
        cols: usize,
    ) -> Result<MatrixId, FolderError> {
        let dtype =
            self.manifest.floats(&name, &count.into_iter().chain([cols, rows]).collect::<Vec<_>>())?;
        self.used.insert(name.clone());
        let (copies, form) = (count.unwrap_or(1), Form::Dense(dtype));
        Ok(p.weight(Weight { name, rows, cols, copies, form, made: Made::Turned }))
    }

    fn bias(&mut self, p: &mut Program, base: &str, len: usize) -> Result<Option<VectorId>, FolderError> {
        let name = format!("{base}.bias");
        match self.manifest.record(&name) {
            None => Ok(None),
            Some(_) => self.floats(p, name, vec![len], 0.0).map(Some),
        }
    }

    fn floats(
        &mut self,
        p: &mut Program,
        name: String,
        shape: Vec<usize>,
        plus: f32,
    ) -> Result<VectorId, FolderError> {
        self.manifest.floats(&name, &shape)?;
        self.used.insert(name.clone());
        Ok(p.vector(Vector::Parameter(Parameter { name, shape, plus })))
    }
}

fn base(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}
