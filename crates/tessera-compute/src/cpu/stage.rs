//! From a program's operations to the stages that the CPU runs: neighbours that one pass over the
//! activations can do together become one stage, so that a layer has few barriers.

use crate::program::{Act, Io, MatrixId, NormKind, Op, Program, VectorId};
use tessera_weights::config::Activation;

/// Something that all threads do together, ended by a barrier.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// [`Op::Linear`], with the norm before it and the gate after it.
    Linear(Linear),
    /// An operation as it is.
    One(Op),
}

/// A norm over whole rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normed {
    /// Which.
    pub kind: NormKind,
    /// Ones where there is none.
    pub weight: Option<VectorId>,
    /// Zeros where there is none.
    pub bias: Option<VectorId>,
    /// Added to the variance.
    pub eps: f32,
}

/// A product with what can be done to its input and output on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Norm of the input.
    pub norm: Option<Normed>,
    /// Input, before the norm.
    pub x: Act,
    /// The matrix.
    pub weight: MatrixId,
    /// Added to the product.
    pub bias: Option<VectorId>,
    /// Whether the result is added to `out`.
    pub accumulate: bool,
    /// With this activation the first half of the rows gates the second half.
    pub gate: Option<Activation>,
    /// Output, after the gate.
    pub out: Act,
}

impl Stage {
    /// What it reads and writes. A stage is no operation that races: threads read its input while others write.
    pub const fn io(&self) -> Io {
        match self {
            Stage::Linear(Linear { x, out, accumulate, .. }) => Io { keeps: *accumulate, ..Io::of(*x, *out) },
            Stage::One(op) => op.io(),
        }
    }

    /// One operation as it is.
    fn of(op: &Op) -> Stage {
        match *op {
            Op::Linear { x, weight, bias, accumulate, out } => {
                Stage::Linear(Linear { norm: None, x, weight, bias, accumulate, gate: None, out })
            }
            ref op => Stage::One(op.clone()),
        }
    }
}

/// The stages of what makes the hidden state, and those of the head.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages {
    /// All, in order.
    pub all: Vec<Stage>,
    /// How many come before the head.
    pub body: usize,
}

/// Fuses norm + linear and linear + gate where nobody else reads what lies between, and where the whole does not
/// write what it reads. Nothing is fused over the border of the head: its input is asked for.
pub fn compile(program: &Program) -> Stages {
    let (ops, head) = (&program.ops, program.head);
    let mut stages: Vec<Stage> = Vec::new();
    let (mut i, mut body) = (0, 0);
    while i < ops.len() {
        if i == head {
            body = stages.len();
        }
        let next = |i: usize| ops.get(i + 1).filter(|_| i + 1 != head);
        let mut stage = Stage::of(&ops[i]);
        if let Some(Stage::Linear(linear)) = next(i).map(Stage::of)
            && let Stage::One(Op::Norm { kind, x, each, weight, bias, eps, out }) = stage
            && each == x.width
            && linear.x == out
            && only_next_reads(ops, i, out)
        {
            let norm = Some(Normed { kind, weight, bias, eps });
            let fused = Stage::Linear(Linear { norm, x, ..linear });
            if !fused.io().races() {
                stage = fused;
                i += 1;
            }
        }
        if let Some(Op::Gate { gate, up, activation, out, .. }) = next(i)
            && let Stage::Linear(linear) = &stage
            && !linear.accumulate
            && linear.out.width == 2 * out.width
            && *gate == linear.out.part(0, out.width)
            && *up == linear.out.part(out.width, out.width)
            && only_next_reads(ops, i, linear.out)
        {
            let fused = Stage::Linear(Linear { gate: Some(*activation), out: *out, ..linear.clone() });
            if !fused.io().races() {
                stage = fused;
                i += 1;
            }
        }
        stages.push(stage);
        i += 1;
    }
    // A program without logits has nothing behind its hidden state.
    let body = if head >= ops.len() { stages.len() } else { body };
    Stages { all: stages, body }
}

/// Whether what `ops[at]` wrote to `act` is read by `ops[at + 1]` and by nobody after it.
fn only_next_reads(ops: &[Op], at: usize, act: Act) -> bool {
    for (i, io) in ops.iter().map(Op::io).enumerate().skip(at + 1) {
        if io.reads(act) != (i == at + 1) {
            return false;
        }
        let out = io.output;
        let whole =
            out.slot == act.slot && out.from <= act.from && act.from + act.width <= out.from + out.width;
        if whole {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests;
