//! Cases made of a program: each kind of operation that it has, with its own widths, heads and forms of weights, but
//! random weights and few outputs, so that a whole model is tested in a second or two.

use super::{Case, Inputs, Random, matrix, table};
use std::collections::HashSet;
use tessera_compute::batch::PAGE;
use tessera_compute::program::{
    Act, Attend, Factor, Heads, Ids, Kv, Op, Program, Rows, Slot, SlotShape, Vector, VectorId,
};
use tessera_compute::weights::InMemory;
use tessera_weights::tensor::Form;

/// Rows of the input: eight, four, two and one at once when they come in pieces.
const ROWS: usize = 15;
/// Positions where some are attended to in parts.
const POSITIONS: usize = 8 * PAGE + ROWS;
/// Outputs of a product that are tested.
const OUTPUTS: usize = 65;

/// Each kind of operation of a program, alone and with those that may be made with it.
pub fn of(program: &Program) -> Vec<Case> {
    let mut seen = HashSet::new();
    let ops = &program.ops;
    let runs = (0..ops.len()).flat_map(|i| [1, 2, 3].map(|n| (i, ops.get(i..i + n))));
    runs.filter_map(|(i, run)| own(program, i, together(run?)?))
        .filter(|case| seen.insert(case.key()))
        .collect()
}

/// Whether each reads what the one before wrote, and is made with it.
fn together(run: &[Op]) -> Option<&[Op]> {
    let made = run.windows(2).all(|pair| match (&pair[0], &pair[1]) {
        (Op::Norm { out, .. }, Op::Linear { x, .. }) => x == out,
        (Op::Route { out, .. }, Op::Experts { weights, .. }) => out == weights,
        (Op::Linear { out, .. }, Op::Gate { gate, up, .. }) => {
            let half = out.width / 2;
            out.width == 2 * half && *gate == out.part(0, half) && *up == out.part(half, half)
        }
        _ => false,
    });
    made.then_some(run)
}

/// These operations, after embeddings that write what they read.
fn own(program: &Program, at: usize, run: &[Op]) -> Option<Case> {
    let rows = if matches!(run[0], Op::Attend(_)) { POSITIONS } else { ROWS };
    let mut made = Program { vocab: rows, ..Program::without_logits(rows) };
    made.slots = vec![SlotShape { rows: Rows::All, width: 1 }; program.slots.len()];
    let (mut weights, mut ops) = (InMemory::default(), Vec::new());
    let mut last: Option<Act> = None;
    for op in run {
        let op = fewer(program, &mut made, &mut weights, last, op)?;
        last = Some(op.io().output);
        ops.push(op);
    }
    let scale = match run[0] {
        // States stay small.
        Op::Delta { .. } | Op::Wkv { .. } => 0.1,
        _ => 1.0,
    };
    // What is used of each slot. All of it is written before, outputs too: one that is not made would be seen.
    for op in &ops {
        let io = op.io();
        for act in io.read().chain([io.output]).chain(io.work) {
            let slot = &mut made.slots[act.slot.0];
            slot.width = slot.width.max(act.columns().end);
        }
    }
    for slot in (0..made.slots.len()).map(Slot) {
        let whole = Act { slot, from: 0, width: made.slots[slot.0].width };
        let table = weights.matrix(&mut made, table(rows, whole.width, Inputs::Uniform, slot.0 as u64));
        made.ops.push(Op::Embed { table, ids: Ids::Tokens, scale, accumulate: false, out: whole });
    }
    made.ops.extend(ops);
    let x = last?;
    let hidden = made.slot(Rows::Picked, x.width);
    made.ops.push(Op::Pick { x, out: hidden });
    made.begin_head(hidden);
    let names: Vec<&str> = run.iter().map(Op::name).collect();
    let name = format!("{} (operation {at} of the model)", names.join(", "));
    Some(Case { name, program: made, weights, rows })
}

/// The operation with weights of its own, and fewer outputs where they do not matter. `before`: what the one before
/// writes now.
fn fewer(
    program: &Program,
    made: &mut Program,
    weights: &mut InMemory,
    before: Option<Act>,
    op: &Op,
) -> Option<Op> {
    let mut op = op.clone();
    match &mut op {
        // Both are in every case.
        Op::Pick { .. } => return None,
        Op::Embed { table, .. } => {
            let weight = &program.weights[table.weight];
            *table = weights.matrix(made, matrix(weight.form, [made.vocab, weight.cols]));
        }
        Op::Linear { x, weight, bias, out, .. } => {
            let found = &program.weights[weight.weight];
            if before.is_some_and(|before| before != *x) {
                return None;
            }
            // Gate and up, if that is what they are.
            let rows = found.rows.min(2 * OUTPUTS);
            *out = out.part(0, rows);
            // One of several is read from among others.
            let (copies, copy) = (found.copies.min(2), weight.copy.min(1));
            let all = matrix(found.form, [rows * copies, found.cols]);
            *weight = weights.copies(made, all, copies).after(copy);
            *bias = bias.map(|_| vector(made, rows));
        }
        Op::Gate { gate, up, out, .. } => {
            if let Some(both) = before {
                let half = both.width / 2;
                (*gate, *up, *out) = (both.part(0, half), both.part(half, half), out.part(0, half));
            }
        }
        Op::Attend(attend) => few_heads(program, made, attend)?,
        Op::Norm { weight, bias, .. } => {
            for id in [weight, bias] {
                *id = id.map(|id| vector(made, program.vectors[id.0].len()));
            }
        }
        Op::Conv { weight, state, .. } => {
            renew(program, made, [weight]);
            *state = keep(program, made, *state);
        }
        Op::Blend { factor: Factor::Columns(factor), .. } => renew(program, made, [factor]),
        Op::Wkv { bonus, state, .. } => {
            renew(program, made, [bonus]);
            *state = keep(program, made, *state);
        }
        Op::Delta { a_log, dt_bias, state, .. } => {
            renew(program, made, [a_log, dt_bias]);
            *state = keep(program, made, *state);
        }
        Op::Route { correction, .. } => {
            *correction = correction.map(|id| vector(made, program.vectors[id.0].len()))
        }
        Op::PerHead { weight, count, .. } => {
            let found = &program.weights[weight.weight];
            let all = matrix(found.form, [found.rows * *count, found.cols]);
            *weight = weights.copies(made, all, *count);
        }
        // Without its router it would go through more experts than there may be.
        Op::Experts { .. } if before.is_none() => return None,
        Op::Experts { gate_up, down, count, work, .. } => {
            let [both, last] = [*gate_up, *down].map(|id| &program.weights[id.weight]);
            let group = match last.form {
                Form::Grouped { format, .. } => format.group,
                Form::Dense(_) => 32,
            };
            // Narrower experts, but groups are as full as before.
            let width = last.cols.min(2 * group + last.cols % group);
            *work = work.part(0, width);
            let mut copies =
                |form, rows, cols| weights.copies(made, matrix(form, [rows * *count, cols]), *count);
            *gate_up = copies(both.form, 2 * width, both.cols);
            *down = copies(last.form, last.rows, width);
        }
        _ => {}
    }
    Some(op)
}

/// Query heads of two key heads at most.
fn few_heads(program: &Program, made: &mut Program, attend: &mut Attend) -> Option<()> {
    let Heads { q, kv, dim } = attend.heads;
    let heads = Heads { q: q / kv * kv.min(2), kv: kv.min(2), dim };
    let Kv { dim: kept, .. } = *program.kv.get(attend.layer)?;
    let width = |act: Act, of: usize, n: usize| act.part(0, act.width / of * n);
    (attend.q, attend.out) = (width(attend.q, q, heads.q), width(attend.out, q, heads.q));
    (attend.k, attend.v) = (width(attend.k, kv, heads.kv), width(attend.v, kv, heads.kv));
    (attend.heads, attend.layer) = (heads, 0);
    made.kv.push(Kv { heads: heads.kv, dim: kept });
    if let Some(rope) = &mut attend.rope {
        made.ropes.push(program.ropes.get(*rope)?.clone());
        *rope = 0;
    }
    Some(())
}

fn vector(made: &mut Program, len: usize) -> VectorId {
    let mut random = Random(len as u64 + 11);
    made.vector(Vector::Constant((0..len).map(|_| random.float()).collect()))
}

fn renew<const N: usize>(program: &Program, made: &mut Program, ids: [&mut VectorId; N]) {
    for id in ids {
        *id = vector(made, program.vectors[id.0].len());
    }
}

/// The state of this index, where it is now.
fn keep(program: &Program, made: &mut Program, state: usize) -> usize {
    made.states.push(program.states[state]);
    made.states.len() - 1
}
