//! Products of many matrices one after another: experts, each with the rows that go through it, so that a row's sum has
//! one order, and heads.

use super::linear::Which;
use super::pool::Worker;
use super::q8::TILE;
use super::run::{Chosen, Run, Scratch};
use super::stage::Linear;
use crate::program::{MatrixId, Op};
use tessera_weights::config::Activation;

impl Run<'_> {
    /// [`Op::PerHead`]. Two counters are used for each head, from `counter` on.
    pub(super) fn per_head(&self, op: &Op, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let Op::PerHead { x, from, weight, count, to, out } = *op else { return };
        let rows = self.rows(x.slot);
        for i in 0..count {
            let weight = weight.after(i);
            let matrix = &self.model.weights[weight];
            let (x, out) = (x.part(i * from, matrix.cols), out.part(i * to, matrix.rows));
            let linear = Linear { norm: None, x, weight, bias: None, accumulate: false, gate: None, out };
            self.linear(&linear, Which::All(rows), counter + 2 * i, worker, scratch);
            // The next head's input takes the place of this one's, where threads share it.
            if rows > TILE && i + 1 < count {
                worker.barrier();
            }
        }
    }

    /// [`Op::Experts`]. Four counters are used for each expert, from `counter` on.
    pub(super) fn experts(&self, op: &Op, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let Op::Experts { x, weights, gate_up, down, count, activation, on_input, work, out } = *op else {
            return;
        };
        let mut chosen = std::mem::take(&mut scratch.chosen);
        for e in 0..count {
            chosen.clear();
            // Every thread finds the same.
            chosen.extend((0..self.rows(x.slot)).filter_map(|row| {
                let weight = self.row(weights, row)[e];
                let (before, after) = if on_input { (weight, 1.0) } else { (1.0, weight) };
                (weight != 0.0).then_some(Chosen { row, before, after })
            }));
            if chosen.is_empty() {
                continue;
            }
            let linear = |x, weight: MatrixId, gate: Option<Activation>, out| Linear {
                norm: None,
                x,
                weight: weight.after(e),
                bias: None,
                accumulate: gate.is_none(),
                gate,
                out,
            };
            let counter = counter + 4 * e;
            let first = linear(x, gate_up, Some(activation), work);
            self.linear(&first, Which::Some(&chosen), counter, worker, scratch);
            worker.barrier();
            // The weight on the input is in what lies between.
            chosen.iter_mut().for_each(|c| c.before = 1.0);
            let second = linear(work, down, None, out);
            self.linear(&second, Which::Some(&chosen), counter + 2, worker, scratch);
            worker.barrier();
        }
        scratch.chosen = chosen;
    }
}
