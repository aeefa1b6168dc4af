//! Codes of a model's matrices that know what they are fed.
//!
//! The model runs over texts, one operation after another for all of them at once. Where a product comes, its inputs are
//! summed up ([`moments`]), its matrix is rounded so that the outputs lose least ([`Curvature`]), and the model goes on
//! with the rounded one: what comes later is rounded for what it will be fed. Only one matrix's sums are held at a time.
//!
//! A head that is the embedding, too, is rounded first, for the hidden states of the model as it was.

mod own;

pub use own::{OwnText, own_text};

use crate::decoder::{DecoderError, FolderWeights, program};
use crate::open::ModelFiles;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use tessera_compute::batch::{Batch, PAGE, PageKind, Pools, Span, StateUse, Want};
use tessera_compute::program::{Made, MatrixId, Op, Program};
use tessera_compute::reference::gemm::moments;
use tessera_compute::reference::walk::{Product, Walk, WalkError};
use tessera_compute::step::Step;
use tessera_weights::arch::Param;
use tessera_weights::bytes::Bytes;
use tessera_weights::convert::Found;
use tessera_weights::dtype::DType;
use tessera_weights::quantize::feedback::{Curvature, Rounded};
use tessera_weights::quantize::{decode, store};
use tessera_weights::scheme::{GroupFormat, Layout, Scheme};
use tessera_weights::tensor::{Matrix, MatrixData};

/// What is added to the moments of a head that is the embedding, too, as a part of their mean: its rows are not only
/// multiplied by hidden states but go into the first layer, where every direction counts.
const TIED: f64 = 0.1;

/// What is rounded, and for which texts.
#[derive(Clone, Copy)]
pub struct Calibration<'a> {
    /// The model, not quantised.
    pub files: &'a ModelFiles,
    /// The scheme that it will have, one with groups.
    pub scheme: &'static Scheme,
    /// The parameters, as the scheme's folder names them.
    pub params: &'a [Param],
    /// Tokens of the texts.
    pub texts: &'a [Vec<u32>],
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Operations that have run.
    pub done: usize,
    /// Operations in all.
    pub total: usize,
    /// What comes next, where it is a matrix to round.
    pub param: &'a str,
}

/// Codes that could not be found.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The folder is no model.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// The model cannot run.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A scheme without codes.
    #[error("{scheme} has no codes to choose")]
    Scheme {
        /// Its name.
        scheme: &'static str,
    },
    /// Nothing to run over.
    #[error("calibration needs a text of at least one token")]
    NoText,
    /// The model's numbers are none.
    #[error("{param} is fed numbers that are not finite: the model's weights are broken")]
    Broken {
        /// The parameter.
        param: String,
    },
    /// The progress callback asked to stop.
    #[error("stopped")]
    Stopped,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Codes {
    found: HashMap<String, Rounded>,
    /// Parameters that the scheme quantises and that no product reads as they lie: their codes do not know what they are
    /// fed. (Rows of an embedding are not multiplied: each is rounded for itself.)
    pub left: Vec<String>,
}

impl Found for Codes {
    fn of(&self, param: &str) -> Option<&Rounded> {
        self.found.get(param)
    }
}

/// Runs a model over texts and rounds what it multiplies by.
pub fn calibrate(
    of: Calibration<'_>,
    on: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Codes, CalibrateError> {
    let scheme = of.scheme;
    let Some(format) = scheme.group else { return Err(CalibrateError::Scheme { scheme: scheme.name }) };
    if of.texts.iter().all(Vec::is_empty) {
        return Err(CalibrateError::NoText);
    }
    let files = of.files;
    let program = program(files.folder.manifest(), &files.config, files.scheme, files.semantics)?;
    let quantised = |param: &&Param| param.layout(scheme).is_some();
    let wanted: HashSet<&str> = of.params.iter().filter(quantised).map(|param| param.name.as_str()).collect();
    let mut rounder = Rounder { program: &program, scheme, format, wanted, codes: Codes::default() };
    let tied = rounder.head().filter(|head| rounder.is_table(*head));
    let passes = 1 + usize::from(tied.is_some());
    let (total, mut done) = (passes * program.head, 0);
    let mut tell = |param: &str| {
        done += 1;
        match on(Progress { done: done - 1, total, param }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CalibrateError::Stopped),
        }
    };
    if let Some(head) = tied {
        let mut walk = begin(files, &program, of.texts)?;
        for op in walk.body() {
            tell("")?;
            walk.run(op);
        }
        let inputs = walk.hidden();
        rounder.round(&mut walk, &[Product { matrix: head, inputs }], TIED)?;
    }
    let mut walk = begin(files, &program, of.texts)?;
    if let Some(head) = tied {
        rounder.replace(&mut walk, head);
    }
    for op in walk.body() {
        tell(rounder.name(op))?;
        for round in 0..walk.rounds(op) {
            let products = walk.products(op, round);
            rounder.round(&mut walk, &products, 0.0)?;
        }
        walk.run(op);
    }
    if let Some(head) = rounder.head().filter(|_| tied.is_none()) {
        let inputs = walk.hidden();
        rounder.round(&mut walk, &[Product { matrix: head, inputs }], 0.0)?;
    }
    let Rounder { wanted, mut codes, .. } = rounder;
    let tables: HashSet<&str> =
        program.ops.iter().filter_map(table).map(|id| name_of(&program, id)).collect();
    let left = wanted.into_iter().filter(|name| !codes.found.contains_key(*name) && !tables.contains(name));
    codes.left = left.map(str::to_owned).collect();
    codes.left.sort();
    Ok(codes)
}

fn name_of(program: &Program, id: MatrixId) -> &str {
    &program.weights[id.weight].name
}

/// The matrix whose rows an operation takes as they are.
fn table(op: &Op) -> Option<MatrixId> {
    match op {
        Op::Embed { table, .. } => Some(*table),
        _ => None,
    }
}

/// A walk over all texts at once.
fn begin(files: &ModelFiles, program: &Program, texts: &[Vec<u32>]) -> Result<Walk, CalibrateError> {
    let kinds = program.page_kinds();
    let has = PageKind::EACH.map(|kind| kinds.contains(&kind));
    let mut next = 0u32;
    let pages: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| {
            let first = next;
            next += text.len().div_ceil(PAGE) as u32;
            (first..next).collect()
        })
        .collect();
    let stateful = !program.states.is_empty();
    let mut start = 0;
    let mut spans = Vec::new();
    for (i, (text, pages)) in texts.iter().zip(&pages).enumerate().filter(|(_, (text, _))| !text.is_empty()) {
        let state = stateful.then_some(StateUse { from: None, to: i as u32, save: None });
        let pages = has.map(|has| if has { pages.as_slice() } else { &[] });
        let len = text.len();
        spans.push(Span { start, len, position: 0, rope_len: len, call: Some(0), pages, state });
        start += len;
    }
    let tokens: Vec<u32> = texts.iter().flatten().copied().collect();
    let picked: Vec<u32> = (0..tokens.len() as u32).collect();
    let batch = Batch { tokens: &tokens, spans: &spans, picked: &picked, want: Want::Hidden };
    let pages = has.map(|has| if has { next as usize } else { 0 });
    let pools = Pools { pages, states: if stateful { texts.len() } else { 0 } };
    Ok(Walk::new(program.clone(), &mut FolderWeights(&files.folder), pools, Step::of(&batch))?)
}

struct Rounder<'a> {
    program: &'a Program,
    scheme: &'static Scheme,
    format: GroupFormat,
    wanted: HashSet<&'a str>,
    codes: Codes,
}

impl Rounder<'_> {
    fn param(&self, id: MatrixId) -> &str {
        name_of(self.program, id)
    }

    /// The head's matrix, if it is to be rounded.
    fn head(&self) -> Option<MatrixId> {
        let head = self.program.ops.get(self.program.head..)?.iter().find_map(|op| match op {
            Op::Linear { weight, .. } => Some(*weight),
            _ => None,
        });
        head.filter(|head| self.wanted.contains(self.param(*head)))
    }

    fn is_table(&self, id: MatrixId) -> bool {
        self.program.ops.iter().filter_map(table).any(|table| self.param(table) == self.param(id))
    }

    /// What is rounded before this operation runs.
    fn name(&self, op: usize) -> &str {
        let name = match self.program.ops[op] {
            Op::Linear { weight, .. } => self.param(weight),
            Op::Experts { gate_up, .. } => self.param(gate_up),
            _ => "",
        };
        if self.wanted.contains(name) { name } else { "" }
    }

    /// Rounds the matrices of these products, the copies of one weight, and lets the walk go on with them.
    fn round(&mut self, walk: &mut Walk, products: &[Product], damping: f64) -> Result<(), CalibrateError> {
        let Some(first) = products.first() else { return Ok(()) };
        let weight = &self.program.weights[first.matrix.weight];
        let name = weight.name.clone();
        // What is made of a parameter has not its rows.
        let lies = weight.made == Made::Stored && products.len() == weight.copies;
        if !lies || !self.wanted.contains(&*name) || self.codes.found.contains_key(&name) {
            return Ok(());
        }
        let mut all = Rounded::default();
        for Product { matrix: id, inputs } in products {
            let (cols, values) = (walk.matrix(*id).cols, decode(walk.matrix(*id)));
            let mut sums = vec![0.0f64; cols * cols];
            moments(inputs, inputs, cols, &mut sums);
            if !sums.iter().all(|x| x.is_finite()) {
                return Err(CalibrateError::Broken { param: name });
            }
            let mean = (0..cols).map(|i| sums[i * cols + i]).sum::<f64>() / cols as f64;
            (0..cols).for_each(|i| sums[i * cols + i] += damping * mean);
            let rounded = Curvature::new(self.format, cols, &sums).round(self.scheme.dtype, &values);
            drop(sums);
            walk.replace(*id, self.matrix(cols, &rounded));
            all.words.extend(rounded.words);
            all.scales.extend(rounded.scales);
        }
        self.codes.found.insert(name, all);
        Ok(())
    }

    /// Puts a matrix that was rounded before, and is one, into another walk.
    fn replace(&self, walk: &mut Walk, id: MatrixId) {
        if let Some(rounded) = self.codes.found.get(self.param(id)) {
            let cols = walk.matrix(id).cols;
            walk.replace(id, self.matrix(cols, rounded));
        }
    }

    /// As readers of the folder will see it.
    fn matrix(&self, cols: usize, rounded: &Rounded) -> Matrix {
        let mut scales = Vec::with_capacity(2 * rounded.scales.len());
        store(self.scheme.dtype, &rounded.scales, &mut scales);
        let scale_dtype = if self.scheme.dtype == DType::F16 { DType::F16 } else { DType::BF16 };
        let words = rounded.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (words, scales) = (Bytes::from_vec(words), Bytes::from_vec(scales));
        let (format, layout) = (self.format, Layout::Nk);
        let rows = rounded.scales.len() / self.format.groups(cols);
        Matrix { rows, cols, data: MatrixData::Grouped { format, layout, words, scale_dtype, scales } }
    }
}
