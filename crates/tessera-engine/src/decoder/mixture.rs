//! A layer's experts: a router, those that it chooses, and the one that every row goes through.

use tessera_compute::program::{Act, Op};
use tessera_weights::arch::{Experts, Role, Score};

use super::weights::Linear;
use super::{Builder, DecoderError, Work};

impl Builder<'_> {
    /// Adds what the experts make of `read` to the residual stream.
    pub(super) fn mixture(&mut self, layer: usize, read: Act, experts: Experts) -> Result<(), DecoderError> {
        let Experts { count, width, on_input, .. } = experts;
        let at = Some(layer);
        let scores = self.slot(Work::Scores, count);
        self.linear(layer, Role::Router, read, scores)?;
        let mut correction = None;
        if self.weights.has(at, Role::RouterCorrection) {
            correction = Some(self.weights.values(&mut self.p, at, Role::RouterCorrection, count)?);
        }
        let weights = self.slot(Work::Experts, count);
        self.push(Op::Route { logits: scores, experts, correction, out: weights });
        let gate_up = self.weights.experts(&mut self.p, at, Role::ExpertsGateUp)?;
        let down = self.weights.experts(&mut self.p, at, Role::ExpertsDown)?;
        let (work, out, activation) = (self.slot(Work::Expert, width), self.x, self.block.activation);
        self.push(Op::Experts { x: read, weights, gate_up, down, count, activation, on_input, work, out });
        if self.weights.has(at, Role::SharedGateUp) {
            self.shared(layer, read)?;
        }
        Ok(())
    }

    /// The expert that every row goes through: with a factor of its own it is a mixture of one.
    fn shared(&mut self, layer: usize, read: Act) -> Result<(), DecoderError> {
        let (at, activation) = (Some(layer), self.block.activation);
        let gate_up = self.weights.linear(&mut self.p, at, Role::SharedGateUp)?;
        let down = self.weights.linear(&mut self.p, at, Role::SharedDown)?;
        let wide = self.p.weights[gate_up.weight.weight].rows;
        let width = wide / 2;
        let work = self.slot(Work::Shared, width);
        let out = self.x;
        if self.weights.has(at, Role::SharedGate) {
            let (score, weights) = (self.slot(Work::SharedScore, 1), self.slot(Work::SharedGate, 1));
            self.linear(layer, Role::SharedGate, read, score)?;
            let experts = Experts {
                count: 1,
                width,
                top_k: 1,
                score: Score::Sigmoid,
                renormalise: false,
                scale: 1.0,
                groups: None,
                on_input: false,
            };
            self.push(Op::Route { logits: score, experts, correction: None, out: weights });
            let (gate_up, down) = (gate_up.weight, down.weight);
            let (count, on_input) = (1, false);
            self.push(Op::Experts {
                x: read,
                weights,
                gate_up,
                down,
                count,
                activation,
                on_input,
                work,
                out,
            });
            return Ok(());
        }
        let both = self.slot(Work::SharedWide, wide);
        let Linear { weight, bias } = gate_up;
        self.push(Op::Linear { x: read, weight, bias, accumulate: false, out: both });
        let (gate, up) = (both.part(0, width), both.part(width, width));
        self.push(Op::Gate { gate, up, activation, out: work });
        let Linear { weight, bias } = down;
        self.push(Op::Linear { x: work, weight, bias, accumulate: true, out });
        Ok(())
    }
}
