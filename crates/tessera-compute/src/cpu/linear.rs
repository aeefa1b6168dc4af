//! Products: the input is normed and quantised, then threads claim rows of the matrix.

use super::int4::{Int4, PANEL, Panel};
use super::pool::Worker;
use super::q8::{self, TILE};
use super::simd::LANES;
use super::stage::Linear;
use super::step::{Pointers, Prepared, Run, Scratch};
use std::ops::Range;
use tessera_weights::quantize::decode_row;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// Up to this many rows every thread prepares the input for itself, which saves a barrier, and the
/// kernel streams weights past all of them.
const FEW: usize = 4;
/// Bytes of weights in one claim of the row kernel.
const CLAIM: usize = 48 << 10;
/// Panels in one claim of the tile kernel: a tile of inputs stays in cache while they pass.
const PANELS: usize = 4;
/// Matrix rows in one claim of the f32 kernel.
const FLOAT_ROWS: usize = 16;

/// The kernel that a matrix needs.
enum Form<'a> {
    Rows(Int4<'a>),
    Tiles(Int4<'a>, Vec<u32>, [usize; LANES]),
    Floats(usize),
}

/// The 4-bit rows of a matrix, if that is what it holds.
fn int4(matrix: &Matrix) -> Option<Int4<'_>> {
    match &matrix.data {
        MatrixData::Grouped { format, layout: Layout::Nk, words, scale_dtype, scales }
            if *format == GroupFormat::INT4 =>
        {
            let groups = format.groups(matrix.cols);
            Some(Int4 { words, scales, scale_dtype: *scale_dtype, groups, rows: matrix.rows })
        }
        _ => None,
    }
}

impl Run<'_> {
    pub(super) fn linear(&self, l: &Linear, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let n = self.rows(l.x);
        let matrix = &self.model.program.matrices[l.weight.0];
        let form = match int4(matrix).filter(|_| !self.model.exact) {
            Some(w) if n <= FEW => Form::Rows(w),
            Some(w) => {
                let (order, ends) = q8::visit(w.groups);
                Form::Tiles(w, order, ends)
            }
            None => Form::Floats(matrix.cols.div_ceil(LANES) * LANES),
        };
        let own = n <= FEW;
        if own {
            let Scratch { own, row, .. } = scratch;
            reset(own, &form, n, matrix.cols);
            let pointers = own.pointers();
            for t in 0..n {
                self.prepare(l, &form, t, row, pointers);
            }
        } else {
            if worker.index == 0 {
                // SAFETY: the others wait at the barrier.
                let (shared, pointers) = unsafe { &mut *self.shared.0.get() };
                reset(shared, &form, n, matrix.cols);
                *pointers = shared.pointers();
            }
            worker.barrier();
            // SAFETY: nobody writes the pointers between the barriers.
            let pointers = unsafe { (*self.shared.0.get()).1 };
            while let Some(rows) = worker.claim(counter + 1, TILE, n) {
                for t in rows {
                    self.prepare(l, &form, t, &mut scratch.row, pointers);
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
            Form::Rows(w) => {
                let row_len = w.words.len() / w.rows;
                let fair = rows.div_ceil(4 * worker.threads());
                (CLAIM / row_len.max(1)).clamp(4, fair.max(4))
            }
            Form::Tiles(..) => (PANELS * PANEL).min(rows.div_ceil(worker.threads() * PANEL) * PANEL),
            Form::Floats(_) => FLOAT_ROWS,
        };
        while let Some(claim) = worker.claim(counter, step, rows) {
            let Scratch { own: mine, y, up, panels, weights, .. } = scratch;
            // SAFETY: after the barrier the shared inputs are only read.
            let x = if own { &*mine } else { unsafe { &*(*self.shared.0.get()).0 } };
            self.product(matrix, &form, x, claim.clone(), n, y, panels, weights);
            if l.gate.is_some() {
                let other = claim.start + rows..claim.end + rows;
                self.product(matrix, &form, x, other, n, up, panels, weights);
            }
            self.finish(l, claim, n, rows, y, up);
        }
    }

    /// Row `t` of the input, normed, in the kernel's form. Rows of one tile are prepared by one thread.
    fn prepare(&self, l: &Linear, form: &Form<'_>, t: usize, row: &mut Vec<f32>, out: Pointers) {
        let kernels = &self.model.kernels;
        let input = self.row(l.x, t);
        let input = match l.norm {
            None => input,
            Some((weight, eps)) => {
                row.resize(input.len(), 0.0);
                kernels.rms_norm(input, &self.model.program.vectors[weight.0], eps, row);
                row
            }
        };
        // SAFETY of all three: `reset` made room for every row; row or tile `t` is this thread's.
        match form {
            Form::Rows(w) => {
                let lanes = w.groups.div_ceil(LANES) * LANES;
                let x = unsafe { out.part(t * lanes, lanes, 0, 0) };
                kernels.q8_row(input, x.values, x.scales, x.offsets);
            }
            Form::Tiles(w, order, _) => {
                let slots = w.groups * TILE;
                let x = unsafe { out.part(t / TILE * slots, slots, 0, 0) };
                kernels.q8_tile_row(input, order, t % TILE, x.values, x.scales, x.offsets);
            }
            Form::Floats(width) => {
                let x = unsafe { out.part(0, 0, t * width, input.len()) };
                x.floats.copy_from_slice(input);
            }
        }
    }

    /// `y[t][i]` = row `rows.start + i` times input `t`.
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
        weights: &mut Vec<f32>,
    ) {
        let kernels = &self.model.kernels;
        let count = rows.len();
        y.resize(n * count, 0.0);
        match form {
            Form::Rows(w) => kernels.int4_rows(w, rows, &x.rows, n, y),
            Form::Tiles(w, order, ends) => {
                let number = count.div_ceil(PANEL);
                panels.resize_with(panels.len().max(number), Panel::default);
                for (i, panel) in panels[..number].iter_mut().enumerate() {
                    kernels.int4_panel(w, rows.start + i * PANEL, order, panel);
                }
                let mut tile = [0.0; TILE * PANEL];
                for first in (0..n).step_by(TILE) {
                    let view = x.tiles.tile(first / TILE);
                    for (i, panel) in panels[..number].iter().enumerate() {
                        kernels.int4_tile(panel, &view, ends, &mut tile);
                        let width = PANEL.min(count - i * PANEL);
                        for t in first..n.min(first + TILE) {
                            let from = &tile[(t - first) * PANEL..][..width];
                            y[t * count + i * PANEL..][..width].copy_from_slice(from);
                        }
                    }
                }
            }
            Form::Floats(width) => {
                weights.resize(count * width, 0.0);
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
    fn finish(&self, l: &Linear, claim: Range<usize>, n: usize, half: usize, y: &mut [f32], up: &mut [f32]) {
        let count = claim.len();
        let bias = l.bias.map(|b| &*self.model.program.vectors[b.0]);
        let add = |y: &mut [f32], from: usize| {
            if let Some(bias) = bias {
                y.iter_mut().zip(&bias[from..]).for_each(|(y, b)| *y += b);
            }
        };
        for t in 0..n {
            // SAFETY: columns of `claim` belong to this thread alone.
            let out = unsafe { self.part_mut(l.out, t, claim.start, count) };
            let y = &mut y[t * count..(t + 1) * count];
            add(y, claim.start);
            match l.gate {
                Some(activation) => {
                    let up = &mut up[t * count..(t + 1) * count];
                    add(up, half + claim.start);
                    self.gate(activation, y, up, out);
                }
                None if l.accumulate => out.iter_mut().zip(y).for_each(|(o, y)| *o += *y),
                None => out.copy_from_slice(y),
            }
        }
    }
}

/// Makes room for `n` rows in the one form, and empties the others.
fn reset(x: &mut Prepared, form: &Form<'_>, n: usize, cols: usize) {
    x.rows.reset(if matches!(form, Form::Rows(_)) { n } else { 0 }, cols);
    x.tiles.reset(if matches!(form, Form::Tiles(..)) { n } else { 0 }, cols);
    x.floats.clear();
    if let Form::Floats(width) = form {
        x.floats.resize(n * width, 0.0);
    }
}
