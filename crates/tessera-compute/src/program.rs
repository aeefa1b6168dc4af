//! A decoder as a value: descriptions of weights, and a list of operations over activations. The model builds it once,
//! before any weight is there: it can be checked, planned with and printed. A backend asks for the weights when it loads
//! it ([`crate::weights`]) and runs it at every step.

use crate::batch::{Limits, PageKind, Pools, Want};
use crate::rope::Rope;
use std::ops::Range;

pub use op::{Attend, DeltaHeads, Factor, Function, Ids, Io, Op, WkvHeads};
pub use tessera_weights::arch::{Mask, NormKind};
pub use weight::{Made, Parameter, Vector, Weight};

/// Which rows of a batch a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One for each token.
    All,
    /// One for each row whose logits are wanted.
    Picked,
}

/// Index of an activation buffer `[rows, width]` of f32 in [`Program::slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub usize);

/// An activation: some columns of every row of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// The buffer.
    pub slot: Slot,
    /// First column.
    pub from: usize,
    /// Number of columns.
    pub width: usize,
}

impl Act {
    /// `width` of its columns, from `from` on.
    pub const fn part(self, from: usize, width: usize) -> Act {
        Act { slot: self.slot, from: self.from + from, width }
    }

    /// The columns.
    pub const fn columns(self) -> Range<usize> {
        self.from..self.from + self.width
    }

    /// Whether both have a value in common.
    pub const fn overlaps(self, other: Act) -> bool {
        let apart = self.from + self.width <= other.from || other.from + other.width <= self.from;
        self.slot.0 == other.slot.0 && !apart
    }
}

/// One matrix of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixId {
    /// Index into [`Program::weights`].
    pub weight: usize,
    /// Which of its copies.
    pub copy: usize,
}

impl MatrixId {
    /// The `i`-th after it.
    pub const fn after(self, i: usize) -> MatrixId {
        MatrixId { weight: self.weight, copy: self.copy + i }
    }
}

/// Index into [`Program::vectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorId(pub usize);

/// Sizes of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub q: usize,
    /// Key and value heads; divides `q`, query head `h` reads key head `h / (q / kv)`.
    pub kv: usize,
    /// Width of a head, even.
    pub dim: usize,
}

impl Heads {
    /// Width of a fused row: all query heads, then all key heads, then all value heads.
    pub const fn qkv_width(self) -> usize {
        (self.q + 2 * self.kv) * self.dim
    }

    /// The three parts of a fused row.
    pub const fn split(self, qkv: Act) -> [Act; 3] {
        let (q, kv) = (self.q * self.dim, self.kv * self.dim);
        [qkv.part(0, q), qkv.part(q, kv), qkv.part(q + kv, kv)]
    }
}

/// Keys and values that one layer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kv {
    /// Heads of each.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
}

/// A slot's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotShape {
    /// Which rows it holds.
    pub rows: Rows,
    /// Values in a row.
    pub width: usize,
}

/// A whole decoder.
#[derive(Clone, Debug)]
pub struct Program {
    /// Matrices, each described once.
    pub weights: Vec<Weight>,
    /// Norm weights and biases.
    pub vectors: Vec<Vector>,
    /// Activation buffers.
    pub slots: Vec<SlotShape>,
    /// In order of execution.
    pub ops: Vec<Op>,
    /// Keys and values of each layer that keeps some.
    pub kv: Vec<Kv>,
    /// Rotary angles that operations name by index.
    pub ropes: Vec<Rope>,
    /// Number of f32 values of each state that operations name by index, of one sequence.
    pub states: Vec<usize>,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The first operation of the head: what comes before makes `hidden`, it and what follows the logits.
    pub head: usize,
    /// `[Picked, width]`: what the head reads.
    pub hidden: Act,
    /// `[Picked, vocab]`: the result; `None` where the hidden state is (encoders).
    pub logits: Option<Act>,
}

/// A program that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {op} ({name}): {what}")]
pub struct ProgramError {
    /// Index of the operation.
    pub op: usize,
    /// Its kind.
    pub name: &'static str,
    /// What does not fit, with both values.
    pub what: String,
}

impl Program {
    /// An empty program that will end in logits.
    pub fn new(vocab: usize) -> Program {
        let mut program = Program::without_logits(vocab);
        program.logits = Some(program.slot(Rows::Picked, vocab));
        program
    }

    /// An empty program whose result will be the hidden state.
    pub fn without_logits(vocab: usize) -> Program {
        Program {
            weights: Vec::new(),
            vectors: Vec::new(),
            slots: Vec::new(),
            ops: Vec::new(),
            kv: Vec::new(),
            ropes: Vec::new(),
            states: Vec::new(),
            vocab,
            head: 0,
            hidden: Act { slot: Slot(0), from: 0, width: 0 },
            logits: None,
        }
    }

    /// Adds a slot.
    pub fn slot(&mut self, rows: Rows, width: usize) -> Act {
        self.slots.push(SlotShape { rows, width });
        Act { slot: Slot(self.slots.len() - 1), from: 0, width }
    }

    /// Adds a weight: the first of its copies.
    pub fn weight(&mut self, weight: Weight) -> MatrixId {
        self.weights.push(weight);
        MatrixId { weight: self.weights.len() - 1, copy: 0 }
    }

    /// Adds a vector.
    pub fn vector(&mut self, vector: Vector) -> VectorId {
        self.vectors.push(vector);
        VectorId(self.vectors.len() - 1)
    }

    /// Says that what follows is the head, which reads `hidden`; nothing follows in a program without logits.
    pub fn begin_head(&mut self, hidden: Act) {
        (self.head, self.hidden) = (self.ops.len(), hidden);
    }

    /// How many positions a sequence may have: as many as the shortest table of learned ones has rows.
    pub fn positions(&self) -> usize {
        let limits = self.ops.iter().filter_map(|op| match op {
            Op::Embed { table, ids: Ids::Positions, .. } => self.weights.get(table.weight).map(|w| w.rows),
            _ => None,
        });
        limits.min().unwrap_or(usize::MAX)
    }

    /// The mask of attention in a cache that forgets, which is that of every layer.
    pub fn cache(&self) -> Option<Mask> {
        self.ops.iter().find_map(|op| match op {
            Op::Attend(Attend { mask: mask @ Mask::Cache { .. }, .. }) => Some(*mask),
            _ => None,
        })
    }

    /// The kind of each layer's pages: [`PageKind::All`] where any of its queries looks behind a window.
    pub fn page_kinds(&self) -> Vec<PageKind> {
        let of = |layer: usize| {
            let masks = self.ops.iter().filter_map(move |op| match op {
                Op::Attend(a) if a.layer == layer => Some(a.mask),
                _ => None,
            });
            let windows = masks.map(|mask| matches!(mask, Mask::Window(_)));
            if windows.reduce(|a, b| a && b).unwrap_or(false) { PageKind::Window } else { PageKind::All }
        };
        (0..self.kv.len()).map(of).collect()
    }

    /// How many positions the layers of [`PageKind::Window`] see at most.
    pub fn window(&self) -> usize {
        let windows = self.ops.iter().filter_map(|op| match op {
            Op::Attend(Attend { mask: Mask::Window(n), .. }) => Some(*n),
            _ => None,
        });
        windows.max().unwrap_or(usize::MAX)
    }

    /// Whether some of its queries see what comes after them, so that a sequence must be one span.
    pub fn is_encoder(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Attend(Attend { mask: Mask::Full, .. })))
    }

    /// f32 values of all states of a sequence.
    pub fn state_len(&self) -> usize {
        self.states.iter().sum()
    }

    /// Where a state begins among all of a sequence.
    pub fn state_at(&self, state: usize) -> Range<usize> {
        let from = self.states[..state].iter().sum();
        from..from + self.states[state]
    }

    /// What a step returns rows of: the hidden state, or the logits. [`Batch::check`] lets nobody ask for logits where
    /// there are none.
    ///
    /// [`Batch::check`]: crate::batch::Batch::check
    pub fn result(&self, want: Want) -> Act {
        match (want, self.logits) {
            (Want::Logits | Want::Greedy, Some(logits)) => logits,
            _ => self.hidden,
        }
    }

    /// What a batch may ask for.
    pub fn limits(&self, pools: Pools) -> Limits {
        let kinds = self.page_kinds();
        Limits {
            vocab: self.vocab,
            pages: PageKind::EACH.map(|kind| kinds.contains(&kind).then_some(pools.pages[kind as usize])),
            window: self.window(),
            positions: self.positions(),
            states: (!self.states.is_empty()).then_some(pools.states),
            logits: self.logits.is_some(),
            whole: self.is_encoder(),
        }
    }

    /// Which rows an activation has.
    pub fn rows(&self, act: Act) -> Rows {
        self.slots[act.slot.0].rows
    }

    /// Checks that every operation's shapes fit, that what it reads was written and is not written meanwhile, so
    /// that backends may index and share slots among threads without asking again.
    pub fn check(&self) -> Result<(), ProgramError> {
        let head = |what: String| Err(ProgramError { op: self.ops.len(), name: "head", what });
        if let Some(empty) = self.slots.iter().position(|slot| slot.width == 0) {
            return head(format!("slot {empty} has no width"));
        }
        self.weights.iter().try_for_each(Weight::check).or_else(head)?;
        let mut written: Vec<Vec<bool>> = self.slots.iter().map(|slot| vec![false; slot.width]).collect();
        for (i, op) in self.ops.iter().enumerate() {
            if i == self.head {
                self.check_hidden(&written).or_else(head)?;
            }
            let checked = check::op(self, op).and_then(|()| check_order(op, &self.weights, &mut written));
            checked.map_err(|what| ProgramError { op: i, name: op.name(), what })?;
        }
        for state in 0..self.states.len() {
            let of = |op: &&Op| match op {
                Op::Conv { state: s, .. } | Op::Delta { state: s, .. } | Op::Wkv { state: s, .. } => {
                    *s == state
                }
                _ => false,
            };
            let users = self.ops.iter().filter(of).count();
            if users != 1 {
                return head(format!("state {state} is that of {users} operations"));
            }
        }
        let Some(logits) = self.logits else {
            if self.head != self.ops.len() {
                return head("operations follow the hidden state, which is the result".to_owned());
            }
            return self.check_hidden(&written).or_else(head);
        };
        if self.head >= self.ops.len() {
            return head("no operation makes logits of the hidden state".to_owned());
        }
        let mut after = self.ops[self.head..].iter().map(Op::io);
        if let Some(outside) = after.find(|io| io.output.slot != logits.slot) {
            return head(format!("slot {} is written behind the hidden state", outside.output.slot.0));
        }
        let expected = SlotShape { rows: Rows::Picked, width: self.vocab };
        if self.shape(logits) != Ok(expected) || was_written(logits, &written).is_err() {
            return head(format!("the logits are not one for each of {} tokens", self.vocab));
        }
        Ok(())
    }

    /// Whether the hidden state is there when it is asked for.
    fn check_hidden(&self, written: &[Vec<bool>]) -> Result<(), String> {
        match self.shape(self.hidden)?.rows {
            Rows::Picked => was_written(self.hidden, written),
            Rows::All => Err("the hidden state is not that of the picked rows".to_owned()),
        }
    }

    /// An activation's shape.
    fn shape(&self, act: Act) -> Result<SlotShape, String> {
        let slot = self.slots.get(act.slot.0).ok_or_else(|| format!("no slot {}", act.slot.0))?;
        let end = act.from.checked_add(act.width).filter(|end| *end <= slot.width && act.width > 0);
        end.ok_or_else(|| format!("columns {:?} of slot {} of {}", act.from, act.slot.0, slot.width))?;
        Ok(SlotShape { rows: slot.rows, width: act.width })
    }
}

fn was_written(act: Act, written: &[Vec<bool>]) -> Result<(), String> {
    match written[act.slot.0][act.columns()].iter().all(|w| *w) {
        true => Ok(()),
        false => Err(format!("slot {} is read before anything was written to it", act.slot.0)),
    }
}

/// Whether the operation reads only what was written, and not what it writes. Its shapes were checked.
fn check_order(op: &Op, weights: &[Weight], written: &mut [Vec<bool>]) -> Result<(), String> {
    let io = op.io();
    if io.races() {
        return Err(format!("slot {} is both input and output", io.output.slot.0));
    }
    let columns = match *op {
        Op::Columns { x, each, count, to, out, .. } => Some((x, each, count, to, out)),
        Op::PerHead { x, weight, count, to, out, .. } => {
            Some((x, weights[weight.weight].rows, count, to, out))
        }
        _ => None,
    };
    if let Some((x, each, count, to, out)) = columns {
        was_written(x, written)?;
        for i in 0..count {
            written[out.slot.0][out.part(i * to, each).columns()].fill(true);
        }
        return Ok(());
    }
    io.read().try_for_each(|x| was_written(x, written))?;
    written[io.output.slot.0][io.output.columns()].fill(true);
    if let Some(work) = io.work {
        written[work.slot.0][work.columns()].fill(false);
    }
    Ok(())
}

mod check;
mod op;
mod print;
mod weight;

#[cfg(test)]
mod tests;
