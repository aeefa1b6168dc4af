//! Dispatches that read matrices: rows of tables, products, experts.

use super::{Args, Bound, Count, Grid, MISSING, Pipeline, Planner, Reads, blocks};
use crate::fold::Fold;
use crate::kernels::{self, COLUMNS};
use crate::layout::{self, ZERO};
use crate::product::Product;
use std::sync::Arc;
use tessera_compute::program::{Act, Ids, MatrixId, Op, Program, VectorId};

impl Planner<'_> {
    pub(super) fn embed(&mut self, table: MatrixId, ids: Ids, scale: f32, accumulate: bool, out: Act) {
        let uploaded = &self.weights[table.weight];
        let ids = match ids {
            Ids::Tokens => layout::TOKENS,
            Ids::Positions => layout::POSITIONS,
            Ids::First => MISSING,
        };
        let stride = self.stride(out);
        for window in &uploaded.windows {
            let mut bound = vec![(1, Bound::Step), (3, Bound::Slot(out.slot.0))];
            bound.extend(window.bound());
            let args = Args::default()
                .u([
                    out.from,
                    stride,
                    uploaded.cols,
                    window.rows,
                    window.row0,
                    uploaded.words,
                    uploaded.groups,
                    ids,
                ])
                .f(scale)
                .u([usize::from(accumulate)]);
            let grid = Grid::Rows(blocks(uploaded.cols.div_ceil(8)));
            self.push("embed", kernels::embed(uploaded.form), bound, args, grid, Count::All);
            self.reads(None, Reads::Rows(window.bytes(1)));
        }
    }

    /// `(each, x_step, out_step)`: how many outputs a head has, and from one head to the next.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn product(
        &mut self,
        name: &'static str,
        [x, out]: [Act; 2],
        weight: MatrixId,
        outputs: usize,
        (bias, accumulate): (Option<VectorId>, bool),
        (each, x_step, out_step): (usize, usize, usize),
        fold: Fold,
    ) {
        let uploaded = &self.weights[weight.weight];
        // The rows of the copy, or copies, that are asked for.
        let first = weight.copy * self.program.weights[weight.weight].rows;
        let (count, word) = self.count(out);
        let stride = self.stride(x);
        let fours = [x.from, stride, x_step].iter().all(|n| n.is_multiple_of(4));
        let tail = !uploaded.cols.is_multiple_of(uploaded.group());
        let bases = [self.base(x), self.base(out)];
        for window in &uploaded.windows {
            // A gate's matrix is whole, and so are its halves.
            let from = window.row0.max(first);
            let to = (window.row0 + window.rows).min(first + outputs);
            if from >= to {
                continue;
            }
            let half = if fold.gate.is_some() { outputs } else { 0 };
            let apart = x_step > 0 || each < window.rows - half;
            let products = [0, 1, 2, 3].map(|i| {
                let columns = COLUMNS[i];
                let staged = self.staged.filter(|_| columns == 8 && x_step == 0);
                let read = if apart { 1 } else { staged.unwrap_or(self.outputs[i]) };
                Product {
                    form: uploaded.form,
                    columns,
                    rows: if half > 0 { (read / 2).max(1) } else { read },
                    fours,
                    tail,
                    norm: fold.norm.is_some(),
                    gate: fold.gate.map(|(activation, _)| activation),
                    staged: staged.is_some(),
                }
            });
            let made = products.map(|product| self.pipeline(product));
            let grid = products.map(|product| (to - from).div_ceil(4 * product.rows) as u32);
            let mut bound = vec![
                (1, Bound::Step),
                (2, Bound::Slot(x.slot.0)),
                (3, Bound::Slot(out.slot.0)),
                (4, Bound::Vectors),
            ];
            bound.extend(window.bound());
            let args = Args::default()
                .u([word, bases[0], x.from, stride, out.from, self.plan.strides[out.slot.0]])
                .u([uploaded.cols, to - from, from - first, uploaded.words, uploaded.groups])
                .u([
                    self.vector(bias),
                    usize::from(accumulate),
                    each,
                    x_step,
                    out_step,
                    bases[1],
                    from - window.row0,
                    window.rows,
                    half,
                    self.vector(fold.norm.map(|(_, weight, _)| weight)),
                ])
                .f(fold.norm.map_or(0.0, |(.., eps)| eps));
            self.push_variants(name, made.to_vec(), bound, args, Grid::Columns(grid), count);
            self.reads(Some(weight), Reads::Weights(window.bytes(to - from + half)));
        }
    }

    fn pipeline(&mut self, product: Product) -> Arc<Pipeline> {
        if let Some((_, made)) = self.products.iter().find(|(of, _)| *of == product) {
            return made.clone();
        }
        let made = Pipeline::new(product.text());
        self.products.push((product, made.clone()));
        made
    }

    pub(super) fn experts(&mut self, op: &Op) {
        let Op::Experts { x, weights, gate_up, down, count, activation, on_input, work, out } = *op else {
            return;
        };
        let top_k = top_k(self.program, weights).unwrap_or(count).min(count);
        let (rows, word) = self.count(out);
        let first = self.plan.work.len();
        let hidden = out.width;
        self.plan.work.extend(work_len(self.program, op));
        let [list, wide, narrow, results] = [0, 1, 2, 3].map(|i| Bound::Work(first + i));
        let args = Args::default().u([word, self.base(weights), weights.from, self.stride(weights)]);
        let bound = vec![(1, Bound::Step), (2, Bound::Slot(weights.slot.0)), (3, list.clone())];
        self.push("experts", kernels::experts_list(count, top_k), bound, args, Grid::Blocks, rows);
        let from = Some(x);
        self.expert(
            gate_up,
            2 * work.width,
            (from, Bound::Slot(x.slot.0)),
            on_input,
            (list.clone(), wide.clone()),
            (top_k, rows),
        );
        let bound = vec![(1, Bound::Step), (2, wide), (3, narrow.clone())];
        let args = Args::default().u([work.width, word]);
        let grid = Grid::Items(blocks(work.width), top_k as u32);
        self.push("experts", kernels::experts_gate(activation, top_k), bound, args, grid, rows);
        self.expert(down, hidden, (None, narrow), false, (list.clone(), results.clone()), (top_k, rows));
        let args = Args::default().u([
            word,
            self.base(out),
            hidden,
            out.from,
            self.stride(out),
            usize::from(!on_input),
        ]);
        let bound = vec![(1, Bound::Step), (2, results), (3, Bound::Slot(out.slot.0)), (5, list)];
        self.push("experts", kernels::experts_sum(top_k), bound, args, Grid::Rows(blocks(hidden)), rows);
    }

    fn expert(
        &mut self,
        weight: MatrixId,
        each: usize,
        (x, input): (Option<Act>, Bound),
        weigh: bool,
        (list, out): (Bound, Bound),
        (top_k, rows): (usize, Count),
    ) {
        let uploaded = &self.weights[weight.weight];
        for window in &uploaded.windows {
            let (x_from, x_stride, base) =
                x.map_or((0, uploaded.cols, ZERO), |x| (x.from, self.plan.strides[x.slot.0], self.base(x)));
            let mut bound = vec![(1, Bound::Step), (2, input.clone()), (3, out.clone()), (5, list.clone())];
            bound.extend(window.bound());
            let args = Args::default()
                .u([
                    x_from,
                    x_stride,
                    usize::from(x.is_none()),
                    base,
                    usize::from(weigh),
                    uploaded.cols,
                    each,
                ])
                .u([window.rows, window.row0, uploaded.words, uploaded.groups]);
            let grid = Grid::Items(each.div_ceil(4) as u32, top_k as u32);
            self.push("experts", kernels::expert(uploaded.form, top_k), bound, args, grid, rows);
            self.reads(Some(weight), Reads::Rows(window.bytes(each) * top_k));
        }
    }
}

/// How many experts a row of these weights has.
fn top_k(program: &Program, weights: Act) -> Option<usize> {
    program.ops.iter().find_map(|op| match op {
        Op::Route { experts, out, .. } if *out == weights => Some(experts.top_k),
        _ => None,
    })
}

/// Bytes for each row of what lies between the kernels of an operation: for each of a row's experts its id and weight,
/// gate and up, what they make, what comes down.
pub fn work_len(program: &Program, op: &Op) -> Vec<usize> {
    let Op::Experts { weights, count, work, out, .. } = op else { return Vec::new() };
    let top_k = top_k(program, *weights).unwrap_or(*count).min(*count);
    [8, 8 * work.width, 4 * work.width, 4 * out.width].map(|bytes| bytes * top_k).to_vec()
}
