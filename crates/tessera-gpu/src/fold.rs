//! Which operations are made by the product before or behind them: a norm by the products that read it, a gate by the
//! product that makes its two halves. A step has three dispatches a layer less so, and activations are not written twice.

use tessera_compute::program::{Act, MatrixId, NormKind, Op, Program, VectorId};
use tessera_weights::config::Activation;

/// What a product makes besides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fold {
    /// Of this activation the RMS norm with this weight is its input.
    pub norm: Option<(Act, VectorId, f32)>,
    /// Its outputs are gate and up of what is written here.
    pub gate: Option<(Activation, Act)>,
    /// Nothing is to be done: another operation makes it.
    pub made: bool,
}

/// For each operation. `whole`: whether a matrix is bound as one, and has no group that it fills in part.
pub fn folds(program: &Program, whole: impl Fn(MatrixId) -> bool) -> Vec<Fold> {
    let mut out = vec![Fold::default(); program.ops.len()];
    for i in 0..program.ops.len() {
        if let Some((norm, products)) = norm(program, i, &whole) {
            out[i].made = true;
            products.into_iter().for_each(|j| out[j].norm = Some(norm));
        }
        if let Some(gate) = gate(program, i, &whole) {
            out[i].gate = Some(gate);
            out[i + 1].made = true;
        }
    }
    out
}

/// What the products that read a norm need of it, and which they are, if nobody else reads it.
fn norm(
    program: &Program,
    i: usize,
    whole: impl Fn(MatrixId) -> bool,
) -> Option<((Act, VectorId, f32), Vec<usize>)> {
    let Op::Norm { kind: NormKind::Rms, x, each, weight: Some(weight), bias: None, eps, out } =
        program.ops[i]
    else {
        return None;
    };
    let rows = |act: Act| program.slots[act.slot.0].rows;
    if each != x.width
        || program.vectors[weight.0].len() != each
        || rows(x) != rows(out)
        || x.slot == out.slot
    {
        return None;
    }
    let (mut products, mut changed) = (Vec::new(), false);
    for j in readers(program, i, out)? {
        let Op::Linear { x: input, weight, out: into, .. } = program.ops[j] else { return None };
        // What the norm read must still be there.
        changed |= program.ops[i + 1..j].iter().any(|op| writes(op, x));
        let apart = (i < program.head) == (j < program.head) && into.slot != x.slot;
        if changed || input != out || !apart || !whole(weight) {
            return None;
        }
        products.push(j);
    }
    Some(((x, weight, eps), products))
}

/// What the gate behind a product makes, if nobody else reads the product.
fn gate(program: &Program, i: usize, whole: impl Fn(MatrixId) -> bool) -> Option<(Activation, Act)> {
    let Op::Linear { weight, bias: None, accumulate: false, out: both, .. } = program.ops[i] else {
        return None;
    };
    let Some(&Op::Gate { gate, up, activation, out }) = program.ops.get(i + 1) else { return None };
    let width = both.width / 2;
    let halves = both.width == 2 * width && gate == both.part(0, width) && up == both.part(width, width);
    let alone = readers(program, i, both)? == [i + 1] && i + 1 != program.head;
    let rows = |act: Act| program.slots[act.slot.0].rows;
    (halves
        && alone
        && out.width == width
        && whole(weight)
        && rows(out) == rows(both)
        && out.slot != both.slot)
        .then_some((activation, out))
}

/// The operations that read what operation `i` wrote; `None` where it is what a step gives.
fn readers(program: &Program, i: usize, act: Act) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for (j, op) in program.ops.iter().enumerate().skip(i + 1) {
        let io = op.io();
        if io.reads(act) {
            out.push(j);
        }
        let covers = io.output.slot == act.slot
            && io.output.from <= act.from
            && io.output.from + io.output.width >= act.from + act.width;
        if covers && !io.keeps {
            return Some(out);
        }
    }
    let given = program.hidden.overlaps(act) || program.logits.is_some_and(|logits| logits.overlaps(act));
    (!given).then_some(out)
}

fn writes(op: &Op, act: Act) -> bool {
    let io = op.io();
    io.output.overlaps(act) || io.work.is_some_and(|work| work.overlaps(act))
}
