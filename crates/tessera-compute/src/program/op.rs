//! The operations of a program, and what each reads and writes.

use super::{Act, Heads, Mask, MatrixId, NormKind, VectorId};
use tessera_weights::arch::{Experts, PositionScale};
use tessera_weights::config::Activation;

/// Which row of a table a token reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// That of its id.
    Tokens,
    /// That of its position in the sequence.
    Positions,
    /// The first, whatever the token is.
    First,
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// An activation.
    Activation(Activation),
    /// `x * factor`.
    Scale(f32),
    /// `cap * tanh(x / cap)`.
    Cap(f32),
    /// Limited to plus and minus this.
    Clip(f32),
}

/// Sizes of the delta rule. Value head `h` goes with key head `h / (values / keys)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHeads {
    /// Key heads, and query heads.
    pub keys: usize,
    /// Value heads.
    pub values: usize,
    /// Width of a key head.
    pub key: usize,
    /// Width of a value head.
    pub value: usize,
}

/// Heads of [`Op::Wkv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WkvHeads {
    /// How many.
    pub count: usize,
    /// Width of a head's keys, and of its values.
    pub dim: usize,
}

/// What an [`Op::Blend`] multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// One value for each column.
    Columns(VectorId),
    /// One for each row and column.
    Each(Act),
}

/// See [`Op::Attend`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attend {
    /// `[All, q * dim]`.
    pub q: Act,
    /// `[All, kv * dim]`.
    pub k: Act,
    /// `[All, kv * dim]`.
    pub v: Act,
    /// Sizes.
    pub heads: Heads,
    /// Index into [`super::Program::kv`].
    pub layer: usize,
    /// Index into [`super::Program::ropes`]; `None`: nothing is rotated.
    pub rope: Option<usize>,
    /// What a query sees.
    pub mask: Mask,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub cap: Option<f32>,
    /// `[All, q * dim]`, or `[Picked, q * dim]`: only the picked rows attend.
    pub out: Act,
}

/// One operation. `out` is overwritten unless said otherwise, and has no value in common with an input, except that
/// [`Op::Norm`], [`Op::Map`] and [`Op::ByPosition`] may write the very activation that they read; other inputs are left as they are. What
/// is read was written before, in the same step. [`super::Program::check`] sees to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t] = scale * table[ids[t]]`, or `out[t] += …`.
    Embed {
        /// `[entries, width]`.
        table: MatrixId,
        /// Which row.
        ids: Ids,
        /// Factor.
        scale: f32,
        /// Whether the row is added to what `out` holds.
        accumulate: bool,
        /// `[All, width]`.
        out: Act,
    },
    /// Each `each` columns on their own, with one weight and bias for all of these parts, or with those of each column:
    /// `out = x / sqrt(mean(x²) + eps) * weight + bias`, or `(x - mean) / sqrt(variance + eps) * weight + bias`.
    Norm {
        /// Which of the two.
        kind: NormKind,
        /// Input.
        x: Act,
        /// Columns of a part; divides the width.
        each: usize,
        /// `[each]`, or one value for each column of `x`; ones where there is none.
        weight: Option<VectorId>,
        /// As `weight`; zeros where there is none.
        bias: Option<VectorId>,
        /// Added to the mean of squares, or to the variance.
        eps: f32,
        /// Same shape as `x`.
        out: Act,
    },
    /// `out = x Wᵀ + bias`, or `out += …`.
    Linear {
        /// `[rows, cols of W]`.
        x: Act,
        /// `[rows of W, cols of W]`.
        weight: MatrixId,
        /// `[rows of W]`.
        bias: Option<VectorId>,
        /// Whether the product is added to what `out` holds.
        accumulate: bool,
        /// `[rows, rows of W]`.
        out: Act,
    },
    /// `out += scale * x`.
    Add {
        /// Input.
        x: Act,
        /// Factor.
        scale: f32,
        /// Same shape.
        out: Act,
    },
    /// `out = f(x)`.
    Map {
        /// Input.
        x: Act,
        /// Of each value.
        f: Function,
        /// Same shape.
        out: Act,
    },
    /// `out = activation(gate) * up`.
    Gate {
        /// Input of the activation.
        gate: Act,
        /// Same shape.
        up: Act,
        /// On the gate.
        activation: Activation,
        /// Same shape.
        out: Act,
    },
    /// Query and key heads are rotated by their positions, keys and values appended to the layer's pages, then for
    /// each row and query head: `out = softmax(cap(scale * q k)) v` over the positions that the mask lets it see.
    Attend(Attend),
    /// `out = x * (1 + beta * ln(1 + floor((position + offset) / floor)))`.
    ByPosition {
        /// Input, `[All, width]`.
        x: Act,
        /// The factor.
        scale: PositionScale,
        /// Same shape.
        out: Act,
    },
    /// A causal convolution of each column over time: with `u` the columns of the sequence's rows, earlier ones from the
    /// state, `out[t] = activation(Σ_j weight[column][j] * u[t - kernel + 1 + j])`, `j` ascending. The state is the last
    /// `kernel - 1` rows, oldest first.
    Conv {
        /// `[All, columns]`.
        x: Act,
        /// `[columns, kernel]`.
        weight: VectorId,
        /// How many rows a result sees, at least 2.
        kernel: usize,
        /// Index into [`super::Program::states`]: `[kernel - 1, columns]`.
        state: usize,
        /// Of the sum; `None`: the sum itself.
        activation: Option<Activation>,
        /// Same shape.
        out: Act,
    },
    /// `out = x + factor * towards`.
    Blend {
        /// Input.
        x: Act,
        /// Same shape.
        towards: Act,
        /// Of as many columns.
        factor: Factor,
        /// Same shape.
        out: Act,
    },
    /// The recurrence of RWKV 6. For each head with its state `S [key, value]`, row after row, `w = exp(-exp(decay))`:
    /// `out = Σ_j r[j] (bonus[j] k[j] v + S[j])`, then `S[j] = k[j] v + w[j] S[j]`.
    Wkv {
        /// `[All, heads.count * heads.dim]`.
        r: Act,
        /// Same shape.
        k: Act,
        /// Same shape.
        v: Act,
        /// Same shape.
        decay: Act,
        /// `[heads.count * heads.dim]`.
        bonus: VectorId,
        /// Sizes.
        heads: WkvHeads,
        /// Index into [`super::Program::states`]: `[head, key, value]`.
        state: usize,
        /// Same shape.
        out: Act,
    },
    /// The gated delta rule. For value head `h` with its key head and state `S [key, value]`, row after row:
    /// `S *= exp(-exp(a_log) softplus(a + dt_bias))`, `S += k ⊗ sigmoid(b) (v - Sᵀ k)`, `out = Sᵀ q / √key`.
    Delta {
        /// `[All, heads.keys * heads.key]`.
        q: Act,
        /// `[All, heads.keys * heads.key]`.
        k: Act,
        /// `[All, heads.values * heads.value]`.
        v: Act,
        /// `[All, heads.values]`.
        a: Act,
        /// `[All, heads.values]`.
        b: Act,
        /// `[heads.values]`.
        a_log: VectorId,
        /// `[heads.values]`.
        dt_bias: VectorId,
        /// Sizes.
        heads: DeltaHeads,
        /// Index into [`super::Program::states`]: `[value head, key, value]`.
        state: usize,
        /// `[All, heads.values * heads.value]`.
        out: Act,
    },
    /// For `i` in `0..count`: `each` columns of `out` from `i * to` on become those of `x` from `i * from` on. The other
    /// columns of `out` stay as they are, written or not.
    Columns {
        /// Input; not in the slot of `out`.
        x: Act,
        /// From one part of it to the next; 0 repeats the first.
        from: usize,
        /// Columns of a part.
        each: usize,
        /// Number of parts.
        count: usize,
        /// From one part of the output to the next, at least `each`.
        to: usize,
        /// Output, of as many rows.
        out: Act,
    },
    /// For `i` in `0..count`: the columns of `out` from `i * to` on become `weight[i]` times those of `x` from `i * from`
    /// on. The other columns of `out` stay as they are, written or not.
    PerHead {
        /// Input; not in the slot of `out`.
        x: Act,
        /// From one head of it to the next.
        from: usize,
        /// `[outputs, inputs]` of head 0; those of the others follow.
        weight: MatrixId,
        /// Number of heads.
        count: usize,
        /// From one head of the output to the next, at least `outputs`.
        to: usize,
        /// Output, of as many rows.
        out: Act,
    },
    /// `out = x`, or `single` for rows that each are a call of their own: see [`crate::batch::Span::call`].
    ByCall {
        /// `[All, width]`.
        x: Act,
        /// Same shape.
        single: Act,
        /// Same shape, or `[Picked, width]` if the others are.
        out: Act,
    },
    /// For each row the weights of all experts, 0 for those that it does not go through: see [`crate::route`].
    Route {
        /// The router's logits `[rows, count]`.
        logits: Act,
        /// How they become weights.
        experts: Experts,
        /// Added to the scores where experts are chosen, not to their weights; `[count]`.
        correction: Option<VectorId>,
        /// Same shape.
        out: Act,
    },
    /// `out += Σ weight[e] * down[e] (activation(gate[e] x) * up[e] x)` over the experts of each row, in ascending order;
    /// or, where the weight is on the input, `out += Σ down[e] (activation(gate[e] wx) * up[e] wx)`.
    Experts {
        /// Input.
        x: Act,
        /// What [`Op::Route`] made.
        weights: Act,
        /// `[2 * width, hidden]` of expert 0, its gate's rows first; those of the others follow.
        gate_up: MatrixId,
        /// `[hidden, width]` of expert 0; those of the others follow.
        down: MatrixId,
        /// Number of experts.
        count: usize,
        /// On the gate.
        activation: Activation,
        /// Whether the weight multiplies the input.
        on_input: bool,
        /// `[rows, width]`: what lies between, of no use afterwards.
        work: Act,
        /// Same shape as `x`.
        out: Act,
    },
    /// `out` = the picked rows of `x`.
    Pick {
        /// `[All, width]`.
        x: Act,
        /// `[Picked, width]`.
        out: Act,
    },
}

/// What an operation does to activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// What is read.
    pub inputs: [Option<Act>; 5],
    /// What is written.
    pub output: Act,
    /// What is overwritten and of no use afterwards.
    pub work: Option<Act>,
    /// Whether what `output` held counts: it is read too.
    pub keeps: bool,
    /// Whether each row is read before it is written by the same thread, so that output and input may be one.
    pub in_place: bool,
}

impl Io {
    /// One input, one output.
    pub const fn of(x: Act, output: Act) -> Io {
        Io { inputs: [Some(x), None, None, None, None], output, work: None, keeps: false, in_place: false }
    }

    /// What is read.
    pub fn read(&self) -> impl Iterator<Item = Act> {
        self.inputs.into_iter().flatten().chain(self.keeps.then_some(self.output))
    }

    /// Whether what the activation held before matters.
    pub fn reads(&self, act: Act) -> bool {
        self.read().any(|x| x.overlaps(act))
    }

    /// Whether values are read while another thread writes them.
    pub fn races(&self) -> bool {
        let mut inputs = self.inputs.into_iter().flatten();
        let work = |act: Act| self.work.is_some_and(|work| work.overlaps(act));
        work(self.output)
            || inputs.any(|x| work(x) || x.overlaps(self.output) && !(self.in_place && x == self.output))
    }
}

impl Op {
    /// What it reads and writes.
    pub const fn io(&self) -> Io {
        match *self {
            Op::Embed { out, accumulate, .. } => {
                Io { inputs: [None; 5], output: out, work: None, keeps: accumulate, in_place: false }
            }
            Op::Norm { x, out, .. } | Op::Map { x, out, .. } | Op::ByPosition { x, out, .. } => {
                Io { in_place: true, ..Io::of(x, out) }
            }
            Op::Linear { x, out, accumulate, .. } => Io { keeps: accumulate, ..Io::of(x, out) },
            Op::Add { x, out, .. } => Io { keeps: true, ..Io::of(x, out) },
            Op::Gate { gate, up, out, .. } => {
                Io { inputs: [Some(gate), Some(up), None, None, None], ..Io::of(gate, out) }
            }
            Op::Attend(Attend { q, k, v, out, .. }) => {
                Io { inputs: [Some(q), Some(k), Some(v), None, None], ..Io::of(q, out) }
            }
            Op::Conv { x, out, .. } => Io::of(x, out),
            Op::Columns { x, out, .. } | Op::PerHead { x, out, .. } => Io { keeps: true, ..Io::of(x, out) },
            Op::ByCall { x, single, out } => {
                Io { inputs: [Some(x), Some(single), None, None, None], ..Io::of(x, out) }
            }
            Op::Delta { q, k, v, a, b, out, .. } => {
                Io { inputs: [Some(q), Some(k), Some(v), Some(a), Some(b)], ..Io::of(q, out) }
            }
            Op::Blend { x, towards, factor, out } => {
                let factor = match factor {
                    Factor::Columns(_) => None,
                    Factor::Each(act) => Some(act),
                };
                Io { inputs: [Some(x), Some(towards), factor, None, None], ..Io::of(x, out) }
            }
            Op::Wkv { r, k, v, decay, out, .. } => {
                Io { inputs: [Some(r), Some(k), Some(v), Some(decay), None], ..Io::of(r, out) }
            }
            Op::Route { logits, out, .. } => Io::of(logits, out),
            Op::Experts { x, weights, work, out, .. } => Io {
                inputs: [Some(x), Some(weights), None, None, None],
                work: Some(work),
                keeps: true,
                ..Io::of(x, out)
            },
            Op::Pick { x, out } => Io::of(x, out),
        }
    }

    /// The matrices that it reads: the first, and how many from there on.
    pub fn matrices(&self) -> impl Iterator<Item = (MatrixId, usize)> {
        let all = match *self {
            Op::Embed { table: weight, .. } | Op::Linear { weight, .. } => [Some((weight, 1)), None],
            Op::PerHead { weight, count, .. } => [Some((weight, count)), None],
            Op::Experts { gate_up, down, count, .. } => [Some((gate_up, count)), Some((down, count))],
            _ => [None; 2],
        };
        all.into_iter().flatten()
    }

    /// The vectors that it reads.
    pub fn vectors(&self) -> impl Iterator<Item = VectorId> {
        let all = match *self {
            Op::Norm { weight, bias, .. } => [weight, bias],
            Op::Linear { bias, .. } => [bias, None],
            Op::Conv { weight, .. } => [Some(weight), None],
            Op::Blend { factor: Factor::Columns(factor), .. } => [Some(factor), None],
            Op::Wkv { bonus, .. } => [Some(bonus), None],
            Op::Delta { a_log, dt_bias, .. } => [Some(a_log), Some(dt_bias)],
            Op::Route { correction, .. } => [correction, None],
            _ => [None; 2],
        };
        all.into_iter().flatten()
    }

    /// The kind, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Norm { .. } => "norm",
            Op::Linear { .. } => "linear",
            Op::Add { .. } => "add",
            Op::Map { .. } => "map",
            Op::Gate { .. } => "gate",
            Op::Attend(_) => "attend",
            Op::ByPosition { .. } => "by position",
            Op::Conv { .. } => "conv",
            Op::Blend { .. } => "blend",
            Op::Wkv { .. } => "wkv",
            Op::Delta { .. } => "delta",
            Op::Columns { .. } => "columns",
            Op::PerHead { .. } => "per head",
            Op::ByCall { .. } => "by call",
            Op::Route { .. } => "route",
            Op::Experts { .. } => "experts",
            Op::Pick { .. } => "pick",
        }
    }
}
