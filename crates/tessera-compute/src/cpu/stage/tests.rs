//! Random legal programs: fused against one stage an operation, bit for bit, and against the reference.

use super::*;
use crate::backend::{Backend, Executor, Immediate};
use crate::batch::{Batch, Output, Pools, Span, Want};
use crate::cpu::kernels::Kernels;
use crate::cpu::pool::Pool;
use crate::cpu::run::Scratch;
use crate::cpu::step::{Step, counters};
use crate::cpu::{Activations, Cpu};
use crate::memory::Zeroed;
use crate::program::{Attend, Factor, Function, Slot};
use crate::program::{Heads, Ids, Kv, Mask, NormKind, Rows};
use crate::reference::Reference;
use crate::rope::{Pairs, Rope};
use crate::weights::{InMemory, Loaded};
use proptest::prelude::*;
use tessera_weights::bytes::Bytes;
use tessera_weights::config::RopeScaling;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// Attention's output, and half of its input, and of a gate's.
const WIDTH: usize = 32;
const HEADS: Heads = Heads { q: 2, kv: 1, dim: 16 };
const VOCAB: usize = 40;
const LAYERS: usize = 2;

/// What one operation is made of: its kind, which slots, what else.
type Choice = (u8, u8, u8, u8);

/// A program under construction, and the slots that hold something.
struct Builder {
    p: Program,
    weights: InMemory,
    written: Vec<Act>,
    grouped: bool,
    seed: u64,
}

impl Builder {
    fn number(&mut self) -> u32 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) as u32
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        self.number() as f32 / (1u64 << 30) as f32 - 1.0
    }

    /// Small enough that values neither grow nor vanish on their way through a program.
    fn matrix(&mut self, rows: usize, cols: usize) -> MatrixId {
        let data = if self.grouped {
            let (format, dtype) = (GroupFormat::INT4, DType::F32);
            let words = (0..rows * format.words(cols))
                .flat_map(|_| (self.number() ^ (self.number() << 16)).to_le_bytes());
            let words = Bytes::from_vec(words.collect());
            let scales = std::iter::repeat_n(0.2 / (cols as f32).sqrt(), rows * format.groups(cols));
            let scales = Bytes::from_vec(scales.flat_map(f32::to_le_bytes).collect());
            MatrixData::Grouped { format, layout: Layout::Nk, words, scale_dtype: dtype, scales }
        } else {
            let scale = 1.0 / (cols as f32).sqrt();
            let bytes = (0..rows * cols).flat_map(|_| (scale * self.float()).to_le_bytes()).collect();
            MatrixData::Dense { dtype: DType::F32, bytes: Bytes::from_vec(bytes) }
        };
        self.weights.matrix(&mut self.p, Matrix { rows, cols, data })
    }

    fn vector(&mut self, len: usize, around: f32) -> VectorId {
        let values = (0..len).map(|_| around + 0.1 * self.float()).collect();
        self.weights.vector(&mut self.p, values)
    }

    fn shape(&self, act: Act) -> (Rows, usize) {
        (self.p.rows(act), act.width)
    }

    /// One of the slots that `fits`, the logits not among them.
    fn any(&self, pick: u8, fits: impl Fn(Act) -> bool) -> Option<Act> {
        let whole = |i: usize| Act { slot: Slot(i), from: 0, width: self.p.slots[i].width };
        let all: Vec<Act> =
            (0..self.p.slots.len()).map(whole).filter(|s| Some(*s) != self.p.logits && fits(*s)).collect();
        all.get(pick as usize % all.len().max(1)).copied()
    }

    /// One that holds something: every other time the one written last.
    fn input(&self, pick: u8, fits: impl Fn(Act) -> bool) -> Option<Act> {
        let last = self.written.last().filter(|s| pick.is_multiple_of(2) && fits(**s)).copied();
        last.or_else(|| self.any(pick / 2, |s| self.written.contains(&s) && fits(s)))
    }

    /// The operation, if there is one like it that is legal here.
    fn op(&mut self, (kind, from, to, extra): Choice) -> Option<Op> {
        Some(match kind % 12 {
            0 => {
                let out = self.any(to, |s| self.shape(s) == (Rows::All, WIDTH))?;
                let table = self.matrix(VOCAB, WIDTH);
                Op::Embed { table, ids: Ids::Tokens, scale: 1.0, accumulate: false, out }
            }
            1 | 2 => {
                let x = self.input(from, |_| true)?;
                let out = self.any(to, |s| s != x && self.shape(s) == self.shape(x))?;
                let weight = self.vector(self.shape(x).1, 1.0);
                rms(x, weight, out)
            }
            3 | 4 => {
                let x = self.input(from, |_| true)?;
                let out = self.any(to, |s| s != x && self.shape(s).0 == self.shape(x).0)?;
                let (rows, cols) = (self.shape(out).1, self.shape(x).1);
                let weight = self.matrix(rows, cols);
                let bias = (extra & 2 != 0).then(|| self.vector(rows, 0.0));
                let accumulate = extra & 1 != 0 && self.written.contains(&out);
                Op::Linear { x, weight, bias, accumulate, out }
            }
            5 => {
                let qkv = self.input(from, |s| self.shape(s) == (Rows::All, HEADS.qkv_width()))?;
                let out = self.any(to, |s| self.shape(s).1 == WIDTH)?;
                let [q, k, v] = HEADS.split(qkv);
                let layer = extra as usize % LAYERS;
                let mask = [Mask::Causal, Mask::Window(7), Mask::CallWindow(9)][extra as usize % 3];
                let cap = (extra & 8 != 0).then_some(2.0);
                let rope = [Some(0), Some(1), None][extra as usize / 4 % 3];
                Op::Attend(Attend { q, k, v, heads: HEADS, layer, rope, mask, scale: 0.25, cap, out })
            }
            6 => {
                let x = self.input(from, |s| self.shape(s).1 == 2 * WIDTH)?;
                let out = self.any(to, |s| self.shape(s) == (self.shape(x).0, WIDTH))?;
                let activation = if extra & 1 == 0 { Activation::Silu } else { Activation::GeluTanh };
                gate(x, activation, out)
            }
            7 => {
                let x = self.input(from, |_| true)?;
                let out = self.any(to, |s| self.shape(s) == self.shape(x))?;
                let f = [Function::Scale(0.5), Function::Cap(2.0), Function::Clip(1.0)][extra as usize % 3];
                Op::Map { x, f, out }
            }
            8 => {
                let x = self.input(from, |_| true)?;
                let out =
                    self.any(to, |s| s != x && self.shape(s) == self.shape(x) && self.written.contains(&s))?;
                Op::Add { x, scale: 0.5, out }
            }
            // Some columns on their own, in place: norms of heads, of a part of a row.
            9 => {
                let x = self.input(from, |_| true)?;
                let x = x.part(0, x.width / 2);
                let each = [16, x.width][extra as usize % 2];
                let kind = [NormKind::Rms, NormKind::Layer][extra as usize / 2 % 2];
                let weight = (extra & 4 != 0).then(|| self.vector(each, 1.0));
                let bias = (extra & 8 != 0).then(|| self.vector(each, 0.0));
                Op::Norm { kind, x, each, weight, bias, eps: 1e-5, out: x }
            }
            10 => {
                let x = self.input(from, |_| true)?;
                let towards =
                    self.any(extra, |s| self.shape(s) == self.shape(x) && self.written.contains(&s))?;
                let out = self.any(to, |s| s != x && s != towards && self.shape(s) == self.shape(x))?;
                let factor = match extra & 1 {
                    0 => Factor::Columns(self.vector(x.width, 0.5)),
                    _ => Factor::Each(x),
                };
                Op::Blend { x, towards, factor, out }
            }
            _ => {
                let x = self.input(from, |s| self.shape(s).0 == Rows::All)?;
                let out = self.any(to, |s| self.shape(s) == (Rows::Picked, self.shape(x).1))?;
                Op::Pick { x, out }
            }
        })
    }

    fn push(&mut self, op: Op) {
        let out = op.io().output;
        let out = Act { slot: out.slot, from: 0, width: self.p.slots[out.slot.0].width };
        self.written.retain(|s| *s != out);
        self.written.push(out);
        self.p.ops.push(op);
    }
}

fn rms(x: Act, weight: VectorId, out: Act) -> Op {
    Op::Norm { kind: NormKind::Rms, x, each: x.width, weight: Some(weight), bias: None, eps: 1e-5, out }
}

/// The first half of `x` gates the second.
fn gate(x: Act, activation: Activation, out: Act) -> Op {
    Op::Gate { gate: x.part(0, out.width), up: x.part(out.width, out.width), activation, out }
}

/// A legal program of the choices that can be made.
fn program(choices: &[Choice], grouped: bool) -> (Program, InMemory) {
    let mut p = Program::new(VOCAB);
    p.ropes = [(HEADS.dim, Pairs::Halves), (HEADS.dim / 2, Pairs::Neighbours)]
        .map(|(dim, pairs)| Rope { dim, theta: 10000.0, scaling: RopeScaling::None, context: 256, pairs })
        .into();
    p.kv = vec![Kv { heads: HEADS.kv, dim: HEADS.dim }; LAYERS];
    for (rows, width) in
        [(Rows::All, WIDTH), (Rows::All, 2 * WIDTH), (Rows::Picked, WIDTH), (Rows::Picked, 2 * WIDTH)]
    {
        (0..3).for_each(|_| _ = p.slot(rows, width));
    }
    let mut b =
        Builder { p, weights: InMemory::default(), written: Vec::new(), grouped, seed: choices.len() as u64 };
    if let Some(embed) = b.op((0, 0, 0, 0)) {
        b.push(embed);
    }
    for choice in choices {
        if let Some(op) = b.op(*choice) {
            b.push(op);
        }
    }
    // What was written last, normed, makes the logits.
    let mut x = b.written[b.written.len() - 1];
    let (rows, width) = b.shape(x);
    if rows == Rows::All {
        let out = b.p.slot(Rows::Picked, width);
        b.push(Op::Pick { x, out });
        x = out;
    }
    let (weight, out) = (b.vector(width, 1.0), b.p.slot(Rows::Picked, width));
    b.push(rms(x, weight, out));
    b.p.begin_head(out);
    let weight = b.matrix(VOCAB, width);
    let logits = b.p.logits.unwrap();
    b.push(Op::Linear { x: out, weight, bias: None, accumulate: false, out: logits });
    b.p.check().unwrap();
    (b.p, b.weights)
}

/// The program with these stages on the CPU.
fn step(
    (program, weights): &mut (Program, InMemory),
    stages: Stages,
    threads: usize,
    activations: Activations,
) -> Step {
    let loaded = Loaded::new(program, weights).unwrap();
    let cpu = Cpu { threads, activations, ..Cpu::default() };
    let pool = Pool::new(threads, counters(&stages).pop().unwrap_or(0)).unwrap();
    let scratch = (0..threads).map(|_| Scratch::default()).collect();
    let kv = Zeroed::new(cpu.kv.layout(program, [2; 2]).len()).unwrap();
    let (states, pools) = (Zeroed::floats(0).unwrap(), Pools { pages: [2; 2], states: 0 });
    Step::new(
        (program.clone(), loaded),
        stages,
        Kernels::choose(None).unwrap(),
        cpu,
        pool,
        scratch,
        (kv, states),
        pools,
    )
}

/// Logits after a prompt longer than a tile, a shorter one and one token more.
fn logits(executor: &mut dyn Executor) -> Vec<f32> {
    let (mut all, mut output, mut position) = (Vec::new(), Output::default(), 0);
    for (len, picked) in [(40, &[3, 39][..]), (5, &[0, 1, 2, 3, 4]), (1, &[0])] {
        let tokens: Vec<u32> = (0..len).map(|i| (position + i) as u32 * 7 % VOCAB as u32).collect();
        let spans =
            [Span { start: 0, len, position, rope_len: 1, call: None, pages: [&[1, 0]; 2], state: None }];
        let batch = Batch { tokens: &tokens, spans: &spans, picked, want: Want::Logits };
        executor.step(crate::step::Step::of(&batch), &mut output).unwrap();
        all.extend_from_slice(&output.logits);
        position += len;
    }
    all
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn check(choices: &[Choice], grouped: bool) {
    let mut both = program(choices, grouped);
    let p = both.0.clone();
    let all = p.ops.iter().map(Stage::of).collect();
    let (fused, plain) = (compile(&p), Stages { all, body: p.head });
    for stage in &fused.all {
        assert!(!stage.io().races(), "{stage:?} of {:?}", p.ops);
    }
    for activations in [Activations::Bits15, Activations::F32] {
        let expected = bits(&logits(&mut Immediate::new(step(&mut both, plain.clone(), 1, activations))));
        for threads in [1, 3] {
            let found =
                bits(&logits(&mut Immediate::new(step(&mut both, fused.clone(), threads, activations))));
            assert!(found == expected, "{threads} threads, {activations:?}: {:?}\n{fused:?}", p.ops);
        }
    }
    let found = logits(&mut Immediate::new(step(&mut both, fused, 1, Activations::F32)));
    let expected =
        logits(&mut *Reference.load(p.clone(), &mut both.1, Pools { pages: [2; 2], states: 0 }).unwrap());
    let error: f64 = found.iter().zip(&expected).map(|(f, e)| f64::from(f - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|e| f64::from(*e).powi(2)).sum();
    // Keys and values in f16 cost some 1e-3 for each attention on the way.
    assert!(error <= 2e-2 * 2e-2 * size, "relative error {}: {:?}", (error / size).sqrt(), p.ops);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn fused_programs_are_what_their_operations_are(
        choices in prop::collection::vec(any::<Choice>(), 1..24), grouped in any::<bool>()
    ) {
        check(&choices, grouped);
    }
}

/// The decoder's own chains fuse; those that would write what they read do not.
#[test]
fn what_fuses() {
    type Ops<'a> = &'a dyn Fn(&mut Builder, [Act; 3], [Act; 2]);
    let kinds = |ops: Ops<'_>| {
        let (p, weights) = program(&[], false);
        let mut b = Builder { p, weights, written: Vec::new(), grouped: false, seed: 1 };
        b.p.ops.truncate(1);
        let act = |i: usize| Act { slot: Slot(i), from: 0, width: if i < 4 { WIDTH } else { 2 * WIDTH } };
        ops(&mut b, [act(1), act(2), act(3)], [act(4), act(5)]);
        b.p.head = b.p.ops.len();
        let last = compile(&b.p).all.split_off(1);
        let fused = |s: &Stage| match s {
            Stage::Linear(l) => (l.norm.is_some(), l.gate.is_some()),
            _ => (false, false),
        };
        last.iter().map(fused).collect::<Vec<_>>()
    };
    let norm = |b: &mut Builder, x, out| {
        let weight = b.vector(WIDTH, 1.0);
        b.p.ops.push(rms(x, weight, out));
    };
    let linear = |b: &mut Builder, x: Act, accumulate, out: Act| {
        let weight = b.matrix(b.shape(out).1, b.shape(x).1);
        b.p.ops.push(Op::Linear { x, weight, bias: None, accumulate, out });
    };
    let gate = |b: &mut Builder, x, out| b.p.ops.push(self::gate(x, Activation::Silu, out));
    let whole = kinds(&|b, [x, normed, gated], [wide, _]| {
        norm(b, x, normed);
        linear(b, normed, false, wide);
        gate(b, wide, gated);
    });
    assert_eq!(whole, [(true, true)]);
    let onto_its_input = kinds(&|b, [x, normed, _], _| {
        norm(b, x, normed);
        linear(b, normed, true, x);
    });
    assert_eq!(onto_its_input, [(false, false), (false, false)]);
    let gated_onto_its_input = kinds(&|b, [x, ..], [wide, _]| {
        linear(b, x, false, wide);
        gate(b, wide, x);
    });
    assert_eq!(gated_onto_its_input, [(false, false), (false, false)]);
    let gated_onto_the_norms_input = kinds(&|b, [x, normed, _], [wide, _]| {
        norm(b, x, normed);
        linear(b, normed, false, wide);
        gate(b, wide, x);
    });
    assert_eq!(gated_onto_the_norms_input, [(true, false), (false, false)]);
    let added_to_the_norm = kinds(&|b, [x, normed, other], _| {
        norm(b, x, normed);
        linear(b, other, true, normed);
    });
    assert_eq!(added_to_the_norm, [(false, false), (false, false)]);
}
