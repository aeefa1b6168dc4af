//! A decoder as a value: matrices, vectors and a list of operations over activation slots. The model
//! builds it once; a backend runs it at every step.

use crate::rope::Rope;
use tessera_weights::config::Activation;
use tessera_weights::tensor::Matrix;

/// Which rows of a batch a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One for each token.
    All,
    /// One for each row whose logits are wanted.
    Picked,
}

/// An activation buffer `[rows, width]` of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub usize);

/// Index into [`Program::matrices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixId(pub usize);

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
}

/// One operation. `out` is overwritten unless said otherwise, and differs from every input; inputs are left as they
/// are. What is read was written before, in the same step. [`Program::check`] sees to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t] = table[token[t]]`.
    Embed {
        /// `[vocab, width]`.
        table: MatrixId,
        /// `[All, width]`.
        out: Slot,
    },
    /// Root mean square norm: `out = x / sqrt(mean(x²) + eps) * weight`.
    RmsNorm {
        /// Input.
        x: Slot,
        /// `[width]`.
        weight: VectorId,
        /// Added to the mean of squares.
        eps: f32,
        /// Same shape as `x`.
        out: Slot,
    },
    /// `out = x Wᵀ + bias`, or `out += …`.
    Linear {
        /// `[rows, cols of W]`.
        x: Slot,
        /// `[rows of W, cols of W]`.
        weight: MatrixId,
        /// `[rows of W]`.
        bias: Option<VectorId>,
        /// Whether the product is added to what `out` holds.
        accumulate: bool,
        /// `[rows, rows of W]`.
        out: Slot,
    },
    /// The query and key heads of fused rows, rotated by their positions (half-split pairs): keys and values are
    /// appended to the layer's pages, then for each row and query head `h`:
    /// `out = softmax(q k / sqrt(dim)) v` over all positions up to the row's own.
    Attend {
        /// `[All, qkv_width]`.
        qkv: Slot,
        /// Index of the layer in the KV pages.
        layer: usize,
        /// `[All, q * dim]`, or `[Picked, q * dim]`: only the picked rows attend.
        out: Slot,
    },
    /// `out = activation(x[.. width]) * x[width ..]`.
    Gate {
        /// `[rows, 2 * width]`: gate, then up.
        x: Slot,
        /// On the gate half.
        activation: Activation,
        /// `[rows, width]`.
        out: Slot,
    },
    /// `out` = the picked rows of `x`.
    Pick {
        /// `[All, width]`.
        x: Slot,
        /// `[Picked, width]`.
        out: Slot,
    },
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
    /// Weights, as they lie in the file.
    pub matrices: Vec<Matrix>,
    /// Norm weights and biases.
    pub vectors: Vec<Vec<f32>>,
    /// Activation buffers.
    pub slots: Vec<SlotShape>,
    /// In order of execution.
    pub ops: Vec<Op>,
    /// Sizes of attention, the same in every layer.
    pub heads: Heads,
    /// Rotary angles.
    pub rope: Rope,
    /// Layers that keep keys and values.
    pub layers: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// `[Picked, vocab]`: the result.
    pub logits: Slot,
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

/// What an operation does to slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The slot that is read, if there is one.
    pub input: Option<Slot>,
    /// The slot that is written.
    pub output: Slot,
    /// Whether what `output` held counts: it is read too.
    pub keeps: bool,
}

impl Io {
    /// Whether what the slot held before matters.
    pub fn reads(&self, slot: Slot) -> bool {
        self.input == Some(slot) || (self.keeps && self.output == slot)
    }

    /// Whether a slot is read while another thread writes it.
    pub fn races(&self) -> bool {
        self.input == Some(self.output)
    }
}

impl Op {
    /// What it reads and writes.
    pub const fn io(&self) -> Io {
        let (input, output, keeps) = match *self {
            Op::Embed { out, .. } => (None, out, false),
            Op::RmsNorm { x, out, .. } | Op::Gate { x, out, .. } | Op::Pick { x, out } => {
                (Some(x), out, false)
            }
            Op::Attend { qkv, out, .. } => (Some(qkv), out, false),
            Op::Linear { x, out, accumulate, .. } => (Some(x), out, accumulate),
        };
        Io { input, output, keeps }
    }

    /// The kind, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::RmsNorm { .. } => "rms norm",
            Op::Linear { .. } => "linear",
            Op::Attend { .. } => "attend",
            Op::Gate { .. } => "gate",
            Op::Pick { .. } => "pick",
        }
    }
}

impl Program {
    /// An empty program.
    pub fn new(heads: Heads, rope: Rope, layers: usize, vocab: usize) -> Program {
        let logits = SlotShape { rows: Rows::Picked, width: vocab };
        Program {
            matrices: Vec::new(),
            vectors: Vec::new(),
            slots: vec![logits],
            ops: Vec::new(),
            heads,
            rope,
            layers,
            vocab,
            logits: Slot(0),
        }
    }

    /// Adds a slot.
    pub fn slot(&mut self, rows: Rows, width: usize) -> Slot {
        self.slots.push(SlotShape { rows, width });
        Slot(self.slots.len() - 1)
    }

    /// Adds a matrix.
    pub fn matrix(&mut self, matrix: Matrix) -> MatrixId {
        self.matrices.push(matrix);
        MatrixId(self.matrices.len() - 1)
    }

    /// Adds a vector.
    pub fn vector(&mut self, vector: Vec<f32>) -> VectorId {
        self.vectors.push(vector);
        VectorId(self.vectors.len() - 1)
    }

    /// Splits the head off: its input, and the operations before it. `None` if the program does not end
    /// with the head.
    pub fn before_head(&self) -> Option<(Slot, &[Op])> {
        match self.ops.split_last() {
            Some((Op::Linear { x, out, .. }, before)) if *out == self.logits => Some((*x, before)),
            _ => None,
        }
    }

    /// Checks that every operation's shapes fit, that what it reads was written and is not written meanwhile, so
    /// that backends may index and share slots among threads without asking again.
    pub fn check(&self) -> Result<(), ProgramError> {
        let mut written = vec![false; self.slots.len()];
        for (i, op) in self.ops.iter().enumerate() {
            let checked = self.check_op(op).and_then(|()| check_order(op, &mut written));
            checked.map_err(|what| ProgramError { op: i, name: op.name(), what })?;
        }
        let head = |what: String| Err(ProgramError { op: self.ops.len(), name: "head", what });
        if self.before_head().is_none() {
            return head("the last operation does not make the logits".to_owned());
        }
        if let Some(empty) = self.slots.iter().position(|slot| slot.width == 0) {
            return head(format!("slot {empty} has no width"));
        }
        let expected = SlotShape { rows: Rows::Picked, width: self.vocab };
        if self.slots.get(self.logits.0) != Some(&expected) {
            return head(format!("the logits are not one for each of {} tokens", self.vocab));
        }
        let Heads { q, kv, dim } = self.heads;
        if q == 0 || kv == 0 || q % kv != 0 || dim == 0 || dim % 2 != 0 || self.rope.dim != dim {
            let what = format!("{q} query heads, {kv} key heads of {dim}, angles for {}", self.rope.dim);
            return Err(ProgramError { op: self.ops.len(), name: "attend", what });
        }
        Ok(())
    }

    fn check_op(&self, op: &Op) -> Result<(), String> {
        let slot = |s: Slot| self.slots.get(s.0).copied().ok_or_else(|| format!("no slot {}", s.0));
        let matrix = |m: MatrixId| {
            let m = self.matrices.get(m.0).ok_or_else(|| format!("no matrix {}", m.0))?;
            m.check().then_some(m).ok_or_else(|| "a matrix has the wrong number of bytes".to_owned())
        };
        let vector = |v: VectorId, width: usize| match self.vectors.get(v.0) {
            Some(v) if v.len() == width => Ok(()),
            Some(v) => Err(format!("a vector has {} values, needed are {width}", v.len())),
            None => Err(format!("no vector {}", v.0)),
        };
        let same = |what: &str, found: usize, expected: usize| {
            (found == expected).then_some(()).ok_or_else(|| format!("{what} is {found}, expected {expected}"))
        };
        let rows = |a: SlotShape, b: SlotShape| {
            (a.rows == b.rows).then_some(()).ok_or_else(|| "input and output rows differ".to_owned())
        };
        match *op {
            Op::Embed { table, out } => {
                let (m, o) = (matrix(table)?, slot(out)?);
                same("width", o.width, m.cols)?;
                same("vocabulary", m.rows, self.vocab)?;
                rows(o, SlotShape { rows: Rows::All, width: 0 })
            }
            Op::RmsNorm { x, weight, out, .. } => {
                let (a, o) = (slot(x)?, slot(out)?);
                same("output width", o.width, a.width)?;
                vector(weight, a.width)?;
                rows(a, o)
            }
            Op::Linear { x, weight, bias, out, .. } => {
                let (a, m, o) = (slot(x)?, matrix(weight)?, slot(out)?);
                same("input width", a.width, m.cols)?;
                same("output width", o.width, m.rows)?;
                bias.map_or(Ok(()), |b| vector(b, m.rows))?;
                rows(a, o)
            }
            Op::Attend { qkv, layer, out } => {
                let (a, o) = (slot(qkv)?, slot(out)?);
                same("fused width", a.width, self.heads.qkv_width())?;
                same("output width", o.width, self.heads.q * self.heads.dim)?;
                rows(a, SlotShape { rows: Rows::All, width: 0 })?;
                (layer < self.layers).then_some(()).ok_or_else(|| format!("no layer {layer}"))
            }
            Op::Gate { x, out, .. } => {
                let (a, o) = (slot(x)?, slot(out)?);
                same("input width", a.width, 2 * o.width)?;
                rows(a, o)
            }
            Op::Pick { x, out } => {
                let (a, o) = (slot(x)?, slot(out)?);
                same("output width", o.width, a.width)?;
                rows(a, SlotShape { rows: Rows::All, width: 0 })?;
                rows(o, SlotShape { rows: Rows::Picked, width: 0 })
            }
        }
    }
}

/// Whether the operation reads only what was written, and not what it writes.
fn check_order(op: &Op, written: &mut [bool]) -> Result<(), String> {
    let io = op.io();
    if io.races() {
        return Err(format!("slot {} is both input and output", io.output.0));
    }
    if let Some(unset) = (0..written.len()).find(|i| io.reads(Slot(*i)) && !written[*i]) {
        return Err(format!("slot {unset} is read before anything was written to it"));
    }
    // `check_op` has seen that there is such a slot.
    written[io.output.0] = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_weights::bytes::Bytes;
    use tessera_weights::config::RopeScaling;
    use tessera_weights::dtype::DType;
    use tessera_weights::tensor::MatrixData;

    /// Why a program of these operations over four slots of one shape is refused.
    fn refused(ops: impl Fn([Slot; 3], MatrixId, VectorId) -> Vec<Op>) -> Option<String> {
        let rope = Rope { dim: 2, theta: 1e4, scaling: RopeScaling::None, context: 8 };
        let mut p = Program::new(Heads { q: 1, kv: 1, dim: 2 }, rope, 1, 4);
        let bytes = Bytes::from_vec(vec![0; 64]);
        let square = Matrix { rows: 4, cols: 4, data: MatrixData::Dense { dtype: DType::F32, bytes } };
        let (matrix, vector) = (p.matrix(square), p.vector(vec![1.0; 4]));
        let slots = [(); 3].map(|()| p.slot(Rows::All, 4));
        let picked = p.slot(Rows::Picked, 4);
        p.ops.push(Op::Embed { table: matrix, out: slots[0] });
        p.ops.extend(ops(slots, matrix, vector));
        p.ops.push(Op::Pick { x: slots[0], out: picked });
        let out = p.logits;
        p.ops.push(Op::Linear { x: picked, weight: matrix, bias: None, accumulate: false, out });
        p.check().err().map(|e| e.to_string())
    }

    #[test]
    fn what_is_read_was_written_and_is_not_written_meanwhile() {
        assert_eq!(refused(|_, _, _| vec![]), None);
        let linear = |x, weight, accumulate, out| Op::Linear { x, weight, bias: None, accumulate, out };
        let found = refused(|[a, ..], m, _| vec![linear(a, m, true, a)]);
        assert_eq!(found.as_deref(), Some("operation 1 (linear): slot 1 is both input and output"));
        let found = refused(|[a, ..], _, w| vec![Op::RmsNorm { x: a, weight: w, eps: 0.0, out: a }]);
        assert_eq!(found.as_deref(), Some("operation 1 (rms norm): slot 1 is both input and output"));
        let found = refused(|[a, b, _], m, _| vec![linear(b, m, false, a)]);
        let unset = "operation 1 (linear): slot 2 is read before anything was written to it";
        assert_eq!(found.as_deref(), Some(unset));
        let found = refused(|[a, b, _], m, _| vec![linear(a, m, true, b)]);
        assert_eq!(found.as_deref(), Some(unset));
        // Each operation alone is fine.
        let fused = |[a, b, _]: [Slot; 3], m, w| {
            vec![Op::RmsNorm { x: a, weight: w, eps: 0.0, out: b }, linear(b, m, true, a)]
        };
        assert_eq!(refused(fused), None);
    }
}
