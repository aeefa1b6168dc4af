//! Products: the input is normed and quantised, then threads claim rows of the matrix.

use super::Activations;
use super::codes::Coded;
use super::dense::{self, Dense};
use super::kernels::Kernels;
use super::lined::Lined;
use super::panel::{PANEL, Panel};
use super::pool::Worker;
use super::q8::{TILE, grow};
use super::run::{Chosen, Pointers, Prepared, Run, Scratch};
use super::simd::LANES;
use super::stage::{Linear, Normed};
use crate::program::VectorId;
use std::ops::Range;
use tessera_weights::quantize::decode_row;
use tessera_weights::tensor::{Matrix, MatrixData};

/// Bytes of weights in one claim of the row kernel: its rows are read in step, a part of the claim apart.
const CLAIM: usize = 256 << 10;
/// Panels that are unpacked together: a tile of inputs stays in cache while they pass.
const PANELS: usize = 4;
/// Panels in one claim of the tile kernel.
const CLAIM_PANELS: usize = 8;
/// Bytes of weights in one claim of it where only one tile multiplies them: at the end of a product a thread waits
/// for the claims of the others.
const CLAIM_TILE: usize = 32 << 10;
/// Matrix rows in one claim of the f32 kernel.
const FLOAT_ROWS: usize = 16;
/// Matrix rows in one claim of the dense kernel, when many tokens reuse them from cache.
const DENSE_ROWS: usize = 32;
/// Most rows in one claim of a KN kernel, whose rows lie beside each other.
const WIDE: usize = 1024;

/// The kernel that a matrix needs.
enum Form<'a> {
    Rows(Coded<'a>),
    Tiles(Coded<'a>, Vec<u32>, [usize; LANES]),
    Dense(Dense<'a>, usize),
    Floats(usize),
}

impl<'a> Form<'a> {
    fn of(matrix: &'a Matrix, activations: Activations, kernels: &Kernels, n: usize) -> Form<'a> {
        let (rows, cols) = (matrix.rows, matrix.cols);
        if let MatrixData::Dense { dtype, bytes } = &matrix.data {
            return Form::Dense(Dense { bytes, dtype: *dtype, rows, cols }, Dense::width(cols));
        }
        match Coded::of(matrix).filter(|_| activations != Activations::F32) {
            Some(w) if n <= kernels.most_rows(&w) => Form::Rows(w),
            Some(w) => {
                let (order, ends) = w.visit();
                Form::Tiles(w, order, ends)
            }
            None => Form::Floats(Dense::width(cols)),
        }
    }
}

/// Which rows a product is for.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// The first so many.
    All(usize),
    /// These.
    Some(&'a [Chosen]),
}

impl Which<'_> {
    fn len(self) -> usize {
        match self {
            Which::All(n) => n,
            Which::Some(rows) => rows.len(),
        }
    }

    fn get(self, i: usize) -> Chosen {
        match self {
            Which::All(_) => Chosen { row: i, before: 1.0, after: 1.0 },
            Which::Some(rows) => rows[i],
        }
    }
}

impl Run<'_> {
    /// Two counters are used, from `counter` on. All threads call it with the same rows.
    pub(super) fn linear(
        &self,
        l: &Linear,
        which: Which<'_>,
        counter: usize,
        worker: &Worker<'_>,
        scratch: &mut Scratch,
    ) {
        let n = which.len();
        let matrix = &self.model.weights[l.weight];
        let form = Form::of(matrix, self.model.activations, &self.model.kernels, n);
        let planes = self.model.activations.planes();
        // Of one tile every thread prepares all: one would prepare it and the others wait.
        let own = n <= TILE;
        if own {
            let Scratch { own, row, .. } = scratch;
            reset(own, &form, n, planes);
            let pointers = own.pointers();
            for t in 0..n {
                self.prepare(l, &form, (t, which.get(t)), planes, row, pointers);
            }
        } else {
            if worker.index == 0 {
                // SAFETY: the others wait at the barrier.
                let (shared, pointers) = unsafe { &mut *self.shared.0.get() };
                reset(shared, &form, n, planes);
                *pointers = shared.pointers();
            }
            worker.barrier();
            // SAFETY: nobody writes the pointers between the barriers.
            let pointers = unsafe { (*self.shared.0.get()).1 };
            while let Some(rows) = worker.claim(counter + 1, TILE, n) {
                for t in rows {
                    let Scratch { row, .. } = scratch;
                    self.prepare(l, &form, (t, which.get(t)), planes, row, pointers);
                }
            }
            worker.barrier();
        }
        if n == 0 {
            return;
        }
        // Without a gate the claims run over all rows; with one over the first half, each claim taking
        // the matching rows of the second half along.
        let rows = if l.gate.is_some() { matrix.rows / 2 } else { matrix.rows };
        let step = match &form {
            Form::Rows(w) if w.is_nk() => claim_of(matrix, rows, worker),
            Form::Rows(_) => rows.div_ceil(2 * worker.threads() * LANES).clamp(1, WIDE / LANES) * LANES,
            Form::Dense(..) if n <= dense::FEW => claim_of(matrix, rows, worker),
            Form::Dense(..) => DENSE_ROWS,
            Form::Tiles(..) => {
                let (most, shares) =
                    if n <= TILE { (CLAIM_TILE / (PANEL * row_len(matrix)), 16) } else { (CLAIM_PANELS, 4) };
                let fair = rows.div_ceil(shares * worker.threads() * PANEL);
                fair.min(most.clamp(1, CLAIM_PANELS)) * PANEL
            }
            Form::Floats(_) => FLOAT_ROWS,
        };
        // Tiles take one claim ahead, so that it can be fetched before it is needed. The row kernel reads
        // without pause anyway, and a claim that waits behind another is a thread that others wait for.
        let ahead = matches!(form, Form::Tiles(..));
        let mut next = worker.claim(counter, step, rows);
        while let Some(claim) = next.take().or_else(|| worker.claim(counter, step, rows)) {
            next = if ahead { worker.claim(counter, step, rows) } else { None };
            let after = next.as_ref().map_or(matrix.rows, |c| c.start);
            let Scratch { own: mine, y, up, panels, weights, .. } = scratch;
            // SAFETY: after the barrier the shared inputs are only read.
            let x = if own { &*mine } else { unsafe { &*(*self.shared.0.get()).0 } };
            let first = if l.gate.is_some() { claim.start + rows } else { after };
            self.product(matrix, &form, x, claim.clone(), n, y, panels, weights, first);
            if l.gate.is_some() {
                let other = claim.start + rows..claim.end + rows;
                self.product(matrix, &form, x, other, n, up, panels, weights, after);
            }
            self.finish(l, claim, which, rows, y, up);
        }
    }

    /// A row of the input, normed, in the kernel's form, as the product's row `t`. Inputs of one tile are prepared by one
    /// thread.
    fn prepare(
        &self,
        l: &Linear,
        form: &Form<'_>,
        (t, of): (usize, Chosen),
        planes: usize,
        row: &mut Vec<f32>,
        out: Pointers,
    ) {
        let kernels = &self.model.kernels;
        let input = self.row(l.x, of.row);
        let input = match l.norm {
            None if of.before == 1.0 => input,
            None => {
                row.clear();
                row.extend(input.iter().map(|x| of.before * x));
                row
            }
            Some(Normed { kind, weight, bias, eps }) => {
                row.resize(input.len(), 0.0);
                let vector = |id: Option<VectorId>| self.model.weights.vector(id);
                self.norm(kind, input, (vector(weight), vector(bias)), eps, row);
                row
            }
        };
        match form {
            Form::Rows(w) => {
                let lanes = w.groups().div_ceil(LANES) * LANES;
                // SAFETY: `reset` made room for every row; row or tile `t` is this thread's.
                let x = unsafe { out.part(t * lanes, lanes, 0, 0) };
                kernels.input_row(w, input, planes, x.values, x.scales, x.offsets);
            }
            Form::Tiles(w, order, _) => {
                let slots = w.groups() * TILE;
                // SAFETY: `reset` made room for every row; row or tile `t` is this thread's.
                let x = unsafe { out.part(t / TILE * slots, slots, 0, 0) };
                kernels.input_tile_row(w, input, planes, order, t % TILE, x.values, x.scales, x.offsets);
            }
            Form::Dense(_, width) | Form::Floats(width) => {
                // SAFETY: `reset` made room for every row; row or tile `t` is this thread's.
                let x = unsafe { out.part(0, 0, t * width, input.len()) };
                x.floats.copy_from_slice(input);
            }
        }
    }

    /// `y[t][i]` = row `rows.start + i` times input `t`. `next` is the row that follows these.
    #[allow(clippy::too_many_arguments)]
    fn product(
        &self,
        matrix: &Matrix,
        form: &Form<'_>,
        x: &Prepared,
        rows: Range<usize>,
        n: usize,
        y: &mut Vec<f32>,
        panels: &mut Vec<Panel>,
        weights: &mut Lined<f32>,
        next: usize,
    ) {
        let kernels = &self.model.kernels;
        let count = rows.len();
        grow(y, n * count);
        let y = &mut y[..n * count];
        match form {
            Form::Rows(w) => kernels.rows(w, rows, &x.rows, n, y),
            Form::Dense(w, _) => kernels.dense(w, rows, &x.floats, n, y),
            Form::Tiles(w, order, ends) => {
                // With one tile of inputs there is no gain in keeping several panels.
                let most = if n <= TILE { 1 } else { PANELS };
                panels.resize_with(panels.len().max(most), Panel::default);
                let mut tile = [0.0; TILE * PANEL];
                for from in (0..count).step_by(most * PANEL) {
                    let number = (count - from).div_ceil(PANEL).min(most);
                    for (i, panel) in panels[..number].iter_mut().enumerate() {
                        kernels.panel(w, rows.start + from + i * PANEL, order, panel);
                    }
                    let to = from + number * PANEL;
                    let ahead = if to < count { rows.start + to } else { next };
                    for first in (0..n).step_by(TILE) {
                        let mut view = x.tiles.tile(first / TILE);
                        view.count = TILE.min(n - first);
                        for (i, panel) in panels[..number].iter().enumerate() {
                            if first + TILE >= n && w.is_nk() {
                                view.ahead = w.codes().part(ahead + i * PANEL, PANEL);
                            }
                            kernels.tile(w, panel, &view, ends, &mut tile);
                            let at = from + i * PANEL;
                            for (sums, t) in tile.chunks_exact(PANEL).zip(first..n.min(first + TILE)) {
                                let y = &mut y[t * count + at..];
                                // A length that the compiler knows needs no call.
                                match y.first_chunk_mut::<PANEL>() {
                                    Some(y) if at + PANEL <= count => y.copy_from_slice(sums),
                                    _ => y[..count - at].copy_from_slice(&sums[..count - at]),
                                }
                            }
                        }
                    }
                }
            }
            Form::Floats(width) => {
                weights.grow(count * width);
                for (i, row) in rows.enumerate() {
                    let out = &mut weights[i * width..(i + 1) * width];
                    decode_row(matrix, row, &mut out[..matrix.cols]);
                    out[matrix.cols..].fill(0.0);
                }
                kernels.products(&weights[..count * width], &x.floats[..n * width], *width, y);
            }
        }
    }

    /// Bias, gate or sum, into the output.
    fn finish(
        &self,
        l: &Linear,
        claim: Range<usize>,
        which: Which<'_>,
        half: usize,
        y: &mut [f32],
        up: &mut [f32],
    ) {
        let count = claim.len();
        let bias = self.model.weights.vector(l.bias);
        let add = |y: &mut [f32], from: usize| {
            if let Some(bias) = bias {
                y.iter_mut().zip(&bias[from..]).for_each(|(y, b)| *y += b);
            }
        };
        for t in 0..which.len() {
            let Chosen { row, after, .. } = which.get(t);
            // SAFETY: columns of `claim` belong to this thread alone.
            let out = unsafe { self.part_mut(l.out, row, claim.start, count) };
            let y = &mut y[t * count..(t + 1) * count];
            add(y, claim.start);
            match l.gate {
                Some(activation) => {
                    let up = &mut up[t * count..(t + 1) * count];
                    add(up, half + claim.start);
                    self.gate(activation, y, up, out);
                }
                None if l.accumulate => out.iter_mut().zip(y).for_each(|(o, y)| *o += after * *y),
                None => out.copy_from_slice(y),
            }
        }
    }
}

/// Rows of one claim: [`CLAIM`] bytes, fewer where threads would otherwise wait for each other.
fn claim_of(matrix: &Matrix, rows: usize, worker: &Worker<'_>) -> usize {
    let fair = rows.div_ceil(4 * worker.threads());
    (CLAIM / row_len(matrix)).clamp(4, fair.max(4))
}

/// Stored bytes of a row, at least one.
fn row_len(matrix: &Matrix) -> usize {
    (matrix.stored_len() / matrix.rows.max(1)).max(1)
}

/// Makes room for `n` rows in the one form, and empties the others.
fn reset(x: &mut Prepared, form: &Form<'_>, n: usize, planes: usize) {
    let (rows, tiles, floats) = match form {
        Form::Rows(_) => (n, 0, 0),
        Form::Tiles(..) => (0, n, 0),
        Form::Dense(_, width) | Form::Floats(width) => (0, 0, n * width),
    };
    let (groups, bytes) = match form {
        Form::Rows(w) | Form::Tiles(w, ..) => (w.groups(), w.input_bytes()),
        Form::Dense(..) | Form::Floats(_) => (0, (0, 0)),
    };
    x.rows.reset(rows, groups, bytes.0, planes);
    x.tiles.reset(tiles, if tiles > 0 { groups } else { 0 }, bytes.1, planes);
    // What lies behind a row's end must be zero.
    x.floats.zeroed(floats);
}
