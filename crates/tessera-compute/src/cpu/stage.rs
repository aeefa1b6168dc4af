//! From a program's operations to the stages that the CPU runs: neighbours that one pass over the
//! activations can do together become one stage, so that a layer has few barriers.

use crate::program::{Io, MatrixId, Op, Program, Slot, VectorId};
use tessera_weights::config::Activation;

/// Something that all threads do together, ended by a barrier.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// See [`Op::Embed`].
    Embed { table: MatrixId, out: Slot },
    /// See [`Op::RmsNorm`]; only where it could not be fused.
    Norm { x: Slot, weight: VectorId, eps: f32, out: Slot },
    /// [`Op::Linear`], with the norm before it and the gate after it.
    Linear(Linear),
    /// See [`Op::Attend`].
    Attend { qkv: Slot, layer: usize, out: Slot },
    /// See [`Op::Gate`]; only where it could not be fused.
    Gate { x: Slot, activation: Activation, out: Slot },
    /// See [`Op::Pick`].
    Pick { x: Slot, out: Slot },
}

/// A product with what can be done to its input and output on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Norm of the input: weight and epsilon.
    pub norm: Option<(VectorId, f32)>,
    /// Input, before the norm.
    pub x: Slot,
    /// The matrix.
    pub weight: MatrixId,
    /// Added to the product.
    pub bias: Option<VectorId>,
    /// Whether the result is added to `out`.
    pub accumulate: bool,
    /// With this activation the first half of the rows gates the second half.
    pub gate: Option<Activation>,
    /// Output, after the gate.
    pub out: Slot,
}

impl Stage {
    /// What it reads and writes. A stage is no operation that races: threads read its input while others write.
    pub const fn io(&self) -> Io {
        let (input, output, keeps) = match *self {
            Stage::Embed { out, .. } => (None, out, false),
            Stage::Linear(Linear { x, out, accumulate, .. }) => (Some(x), out, accumulate),
            Stage::Norm { x, out, .. } | Stage::Gate { x, out, .. } | Stage::Pick { x, out } => {
                (Some(x), out, false)
            }
            Stage::Attend { qkv, out, .. } => (Some(qkv), out, false),
        };
        Io { input, output, keeps }
    }

    /// One operation as it is.
    fn of(op: &Op) -> Stage {
        match *op {
            Op::Embed { table, out } => Stage::Embed { table, out },
            Op::RmsNorm { x, weight, eps, out } => Stage::Norm { x, weight, eps, out },
            Op::Attend { qkv, layer, out } => Stage::Attend { qkv, layer, out },
            Op::Gate { x, activation, out } => Stage::Gate { x, activation, out },
            Op::Pick { x, out } => Stage::Pick { x, out },
            Op::Linear { x, weight, bias, accumulate, out } => {
                Stage::Linear(Linear { norm: None, x, weight, bias, accumulate, gate: None, out })
            }
        }
    }
}

/// Fuses norm + linear and linear + gate where nobody else reads what lies between, and where the whole does not
/// write what it reads.
pub fn compile(program: &Program) -> Vec<Stage> {
    let ops = &program.ops;
    let mut stages: Vec<Stage> = Vec::new();
    let mut i = 0;
    while i < ops.len() {
        let mut stage = Stage::of(&ops[i]);
        if let Some(Stage::Linear(linear)) = ops.get(i + 1).map(Stage::of)
            && let Stage::Norm { x, weight, eps, out } = stage
            && linear.x == out
            && only_next_reads(ops, i, out)
        {
            let fused = Stage::Linear(Linear { norm: Some((weight, eps)), x, ..linear });
            if !fused.io().races() {
                stage = fused;
                i += 1;
            }
        }
        if let Some(Op::Gate { activation, out, .. }) = ops.get(i + 1)
            && let Stage::Linear(linear) = &stage
            && !linear.accumulate
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
    stages
}

/// Whether what `ops[at]` wrote to `slot` is read by `ops[at + 1]` and by nobody after it.
fn only_next_reads(ops: &[Op], at: usize, slot: Slot) -> bool {
    for (i, io) in ops.iter().map(Op::io).enumerate().skip(at + 1) {
        if io.reads(slot) != (i == at + 1) {
            return false;
        }
        if io.output == slot {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests;
