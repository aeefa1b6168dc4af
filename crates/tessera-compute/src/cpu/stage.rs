//! From a program's operations to the stages that the CPU runs: neighbours that one pass over the
//! activations can do together become one stage, so that a layer has few barriers.

use crate::program::{MatrixId, Op, Program, Slot, VectorId};
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
    /// The slots that it reads or writes.
    pub fn slots(&self) -> [Option<Slot>; 2] {
        match *self {
            Stage::Embed { out, .. } => [None, Some(out)],
            Stage::Linear(Linear { x, out, .. })
            | Stage::Norm { x, out, .. }
            | Stage::Gate { x, out, .. }
            | Stage::Pick { x, out } => [Some(x), Some(out)],
            Stage::Attend { qkv, out, .. } => [Some(qkv), Some(out)],
        }
    }
}

/// Fuses norm + linear and linear + gate where nobody else reads what lies between.
pub fn compile(program: &Program) -> Vec<Stage> {
    let ops = &program.ops;
    let mut stages = Vec::new();
    let mut i = 0;
    while i < ops.len() {
        let (norm, first) = match ops[i] {
            Op::RmsNorm { x, weight, eps, out } if only_next_reads(ops, i, out) => match ops.get(i + 1) {
                Some(Op::Linear { .. }) => (Some((x, (weight, eps))), i + 1),
                _ => (None, i),
            },
            _ => (None, i),
        };
        i = first + 1;
        stages.push(match ops[first] {
            Op::Embed { table, out } => Stage::Embed { table, out },
            Op::RmsNorm { x, weight, eps, out } => Stage::Norm { x, weight, eps, out },
            Op::Attend { qkv, layer, out } => Stage::Attend { qkv, layer, out },
            Op::Gate { x, activation, out } => Stage::Gate { x, activation, out },
            Op::Pick { x, out } => Stage::Pick { x, out },
            Op::Linear { x, weight, bias, accumulate, out } => {
                let mut linear = Linear {
                    norm: norm.map(|(_, n)| n),
                    x: norm.map_or(x, |(x, _)| x),
                    weight,
                    bias,
                    accumulate,
                    gate: None,
                    out,
                };
                if let Some(Op::Gate { x, activation, out: gated }) = ops.get(first + 1)
                    && *x == out
                    && !accumulate
                    && only_next_reads(ops, first, out)
                {
                    (linear.gate, linear.out) = (Some(*activation), *gated);
                    i += 1;
                }
                Stage::Linear(linear)
            }
        });
    }
    stages
}

/// Whether what `ops[at]` wrote to `slot` is read by `ops[at + 1]` and by nobody after it.
fn only_next_reads(ops: &[Op], at: usize, slot: Slot) -> bool {
    for (i, op) in ops.iter().enumerate().skip(at + 1) {
        let (x, out, keeps) = match *op {
            Op::Embed { out, .. } => (None, out, false),
            Op::RmsNorm { x, out, .. } | Op::Gate { x, out, .. } | Op::Pick { x, out } => {
                (Some(x), out, false)
            }
            Op::Attend { qkv, out, .. } => (Some(qkv), out, false),
            Op::Linear { x, out, accumulate, .. } => (Some(x), out, accumulate),
        };
        let reads = x == Some(slot) || (keeps && out == slot);
        if reads != (i == at + 1) && (reads || i == at + 1) {
            return false;
        }
        if out == slot {
            return true;
        }
    }
    true
}
