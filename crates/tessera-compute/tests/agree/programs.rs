//! Whole programs on the CPU against the reference, and against themselves at any batch, chunk and number of threads.

use super::random::{Random, bits, dense, grouped};
use tessera_compute::backend::{Backend, Executor, LoadError};
use tessera_compute::batch::{Batch, Output, PAGE, Pools, Span, StateUse, Want};
use tessera_compute::cpu::attend::PART;
use tessera_compute::cpu::kernels::Kernels;
use tessera_compute::cpu::{Activations, Cpu, KvType};
use tessera_compute::program::{
    Act, Attend, DeltaHeads, Factor, Function, Heads, Ids, Kv, Mask, NormKind, Op, Program, Rows, VectorId,
    WkvHeads,
};
use tessera_compute::reference::Reference;
use tessera_compute::rope::{Pairs, Rope};
use tessera_compute::step::Step;
use tessera_compute::weights::{InMemory, WeightError};
use tessera_weights::arch::{Experts, Score};
use tessera_weights::config::{Activation, RopeScaling};
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// How a test decoder's matrices are stored.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Grouped(GroupFormat, Layout, DType),
    Dense(DType),
}

pub struct Shape {
    hidden: usize,
    ffn: usize,
    heads: Heads,
    vocab: usize,
    bias: bool,
    /// Beside each MLP; 0 for none.
    experts: usize,
}

fn state(position: usize) -> Option<StateUse> {
    Some(StateUse { from: (position > 0).then_some(0), to: 0, save: None })
}

pub fn pools(pages: usize) -> Pools {
    Pools { pages: [pages; 2], states: 2 }
}

fn rms(x: Act, weight: VectorId, out: Act) -> Op {
    Op::Norm { kind: NormKind::Rms, x, each: x.width, weight: Some(weight), bias: None, eps: 1e-5, out }
}

fn attend(heads: Heads, qkv: Act, layer: usize, out: Act) -> Op {
    let [q, k, v] = heads.split(qkv);
    let scale = 1.0 / (heads.dim as f32).sqrt();
    Op::Attend(Attend { q, k, v, heads, layer, rope: Some(0), mask: Mask::Causal, scale, cap: None, out })
}

/// A program, and what gives its weights.
pub fn decoder(kind: Kind, s: &Shape) -> (Program, InMemory) {
    let mut w = InMemory::default();
    let mut r = Random(7);
    let layers = 2;
    let scaling = RopeScaling::Dynamic { factor: 2.0, original_context: 70 };
    let mut p = Program::new(s.vocab);
    let rope = Rope { dim: s.heads.dim, theta: 10000.0, scaling, context: 140, pairs: Pairs::Halves };
    p.ropes.push(rope);
    p.kv = vec![Kv { heads: s.heads.kv, dim: s.heads.dim }; layers];
    let matrix = |p: &mut Program, w: &mut InMemory, r: &mut Random, rows, cols| {
        let m = match kind {
            Kind::Grouped(f, layout, d) => grouped(r, rows, cols, f, layout, d),
            Kind::Dense(d) => dense(r, rows, cols, d),
        };
        w.matrix(p, m)
    };
    // Those of experts and heads lie one after another.
    let stack = |p: &mut Program, w: &mut InMemory, r: &mut Random, count: usize, rows: usize, cols| {
        let all = match kind {
            Kind::Grouped(f, _, d) => grouped(r, count * rows, cols, f, Layout::Nk, d),
            Kind::Dense(d) => dense(r, count * rows, cols, d),
        };
        w.copies(p, all, count)
    };
    let table = match kind {
        Kind::Grouped(f, _, d) => grouped(&mut r, s.vocab, s.hidden, f, Layout::Nk, d),
        Kind::Dense(d) => dense(&mut r, s.vocab, s.hidden, d),
    };
    let table = w.matrix(&mut p, table);
    let ones = |r: &mut Random, n: usize| r.normals(n).into_iter().map(|x| 1.0 + 0.1 * x).collect::<Vec<_>>();
    let (x, normed) = (p.slot(Rows::All, s.hidden), p.slot(Rows::All, s.hidden));
    let (qkv, gated) = (p.slot(Rows::All, s.heads.qkv_width()), p.slot(Rows::All, s.ffn));
    let (mid, wide) = (p.slot(Rows::All, s.heads.q * s.heads.dim), p.slot(Rows::All, 2 * s.ffn));
    let (last, last_normed) = (p.slot(Rows::Picked, s.hidden), p.slot(Rows::Picked, s.hidden));
    p.ops.push(Op::Embed { table, ids: Ids::Tokens, scale: 1.0, accumulate: false, out: x });
    for layer in 0..layers {
        for (first, input, width, output) in
            [(true, mid, s.heads.q * s.heads.dim, qkv), (false, gated, s.ffn, wide)]
        {
            let weight = ones(&mut r, s.hidden);
            let weight = w.vector(&mut p, weight);
            p.ops.push(rms(x, weight, normed));
            let rows = output.width;
            let weight = matrix(&mut p, &mut w, &mut r, rows, s.hidden);
            let bias = s.bias.then(|| r.normals(rows)).map(|b| w.vector(&mut p, b));
            p.ops.push(Op::Linear { x: normed, weight, bias, accumulate: false, out: output });
            p.ops.push(match first {
                true => attend(s.heads, qkv, layer, mid),
                false => Op::Gate {
                    gate: wide.part(0, s.ffn),
                    up: wide.part(s.ffn, s.ffn),
                    activation: if layer == 0 { Activation::Silu } else { Activation::GeluTanh },
                    out: gated,
                },
            });
            let weight = matrix(&mut p, &mut w, &mut r, s.hidden, width);
            let bias = s.bias.then(|| r.normals(s.hidden)).map(|b| w.vector(&mut p, b));
            p.ops.push(Op::Linear { x: input, weight, bias, accumulate: true, out: x });
        }
        if s.experts == 0 {
            continue;
        }
        let count = s.experts;
        let (scores, weights) = (p.slot(Rows::All, count), p.slot(Rows::All, count));
        let weight = ones(&mut r, s.hidden);
        let weight = w.vector(&mut p, weight);
        p.ops.push(rms(x, weight, normed));
        let router = dense(&mut r, count, s.hidden, DType::F32);
        let weight = w.matrix(&mut p, router);
        p.ops.push(Op::Linear { x: normed, weight, bias: None, accumulate: false, out: scores });
        let experts = Experts {
            count,
            width: 40,
            top_k: 2,
            score: Score::Softmax,
            renormalise: true,
            scale: 1.0,
            groups: None,
            on_input: layer == 1,
        };
        p.ops.push(Op::Route { logits: scores, experts, correction: None, out: weights });
        let gate_up = stack(&mut p, &mut w, &mut r, count, 2 * experts.width, s.hidden);
        let down = stack(&mut p, &mut w, &mut r, count, s.hidden, experts.width);
        let (work, on_input) = (p.slot(Rows::All, experts.width), experts.on_input);
        let activation = Activation::GeluTanh;
        p.ops.push(Op::Experts {
            x: normed,
            weights,
            gate_up,
            down,
            count,
            activation,
            on_input,
            work,
            out: x,
        });
        // A gated delta rule behind a convolution.
        let heads = DeltaHeads { keys: 2, values: 4, key: 12, value: 20 };
        let (keys, values) = (heads.keys * heads.key, heads.values * heads.value);
        let (wide, past) = (p.slot(Rows::All, 2 * keys + values), p.slot(Rows::All, 2 * keys + values));
        let (ab, mixed) = (p.slot(Rows::All, 2 * heads.values), p.slot(Rows::All, values));
        let half = p.slot(Rows::All, values / 2);
        for out in [wide, ab] {
            let weight = matrix(&mut p, &mut w, &mut r, out.width, s.hidden);
            p.ops.push(Op::Linear { x: normed, weight, bias: None, accumulate: false, out });
        }
        let kernel = 4;
        let weight = r.normals(wide.width * kernel);
        let weight = w.vector(&mut p, weight);
        p.states.extend([(kernel - 1) * wide.width, heads.values * heads.key * heads.value]);
        let state = p.states.len() - 2;
        p.ops.push(Op::Conv {
            x: wide,
            weight,
            kernel,
            state,
            activation: Some(Activation::Silu),
            out: past,
        });
        let (q, k, v) = (past.part(0, keys), past.part(keys, keys), past.part(2 * keys, values));
        let (kind, weight, bias, eps) = (NormKind::Rms, None, None, 1e-6);
        let both = past.part(0, 2 * keys);
        p.ops.push(Op::Norm { kind, x: both, each: heads.key, weight, bias, eps, out: both });
        p.ops.push(Op::Map { x: both, f: Function::Scale((heads.key as f32).powf(-0.5)), out: both });
        let (a, b) = (ab.part(0, heads.values), ab.part(heads.values, heads.values));
        let [a_log, dt_bias] = [0; 2].map(|_| r.normals(heads.values)).map(|v| w.vector(&mut p, v));
        p.ops.push(Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state: state + 1, out: mixed });
        p.ops.push(Op::Columns { x: mixed, from: 20, each: 10, count: 4, to: 10, out: half });
        let weight = matrix(&mut p, &mut w, &mut r, s.hidden, half.width);
        p.ops.push(Op::Linear { x: half, weight, bias: None, accumulate: true, out: x });
        // RWKV's: the difference to the row before, blends, the recurrence, a norm with weights of its own for each part.
        let heads = WkvHeads { count: 3, dim: 12 };
        let width = heads.count * heads.dim;
        let slots = [0; 8].map(|_| p.slot(Rows::All, width));
        let [y, towards, share, r_, k, v, decay, mixed] = slots;
        for out in [y, share, k, v, decay] {
            let weight = matrix(&mut p, &mut w, &mut r, width, s.hidden);
            p.ops.push(Op::Linear { x: normed, weight, bias: None, accumulate: false, out });
        }
        let weight = w.vector(&mut p, [1.0, -1.0].repeat(width));
        p.states.extend([width, width * heads.dim]);
        let state = p.states.len() - 2;
        p.ops.push(Op::Conv { x: y, weight, kernel: 2, state, activation: None, out: towards });
        let [columns, bonus, weight, bias] = [0; 4].map(|_| r.normals(width)).map(|v| w.vector(&mut p, v));
        p.ops.push(Op::Blend { x: y, towards, factor: Factor::Each(share), out: r_ });
        p.ops.push(Op::Wkv { r: r_, k, v, decay, bonus, heads, state: state + 1, out: mixed });
        let (kind, weight, bias) = (NormKind::Layer, Some(weight), Some(bias));
        p.ops.push(Op::Norm { kind, x: mixed, each: heads.dim, weight, bias, eps: 1.0, out: mixed });
        p.ops.push(Op::Blend { x: mixed, towards: y, factor: Factor::Columns(columns), out: share });
        // A product of three rows has three times their errors.
        p.ops.push(Op::Map { x: share, f: Function::Scale(0.2), out: share });
        // Each head through a matrix of its own; single tokens through others.
        let [both, single] = [0; 2].map(|_| p.slot(Rows::All, width));
        for out in [both, single] {
            let weight = stack(&mut p, &mut w, &mut r, heads.count, heads.dim, 2);
            let (from, count, to) = (heads.dim, heads.count, heads.dim);
            p.ops.push(Op::PerHead { x: share, from, weight, count, to, out });
        }
        p.ops.push(Op::ByCall { x: both, single, out: y });
        p.ops.push(Op::Add { x: y, scale: 0.2, out: share });
        let weight = matrix(&mut p, &mut w, &mut r, s.hidden, width);
        p.ops.push(Op::Linear { x: share, weight, bias: None, accumulate: true, out: x });
    }
    p.ops.push(Op::Pick { x, out: last });
    let weight = ones(&mut r, s.hidden);
    let weight = w.vector(&mut p, weight);
    p.ops.push(rms(last, weight, last_normed));
    p.begin_head(last_normed);
    p.ops.push(Op::Linear {
        x: last_normed,
        weight: table,
        bias: None,
        accumulate: false,
        out: p.logits.unwrap(),
    });
    p.check().unwrap();
    (p, w)
}

pub fn load(
    backend: &dyn Backend,
    (program, mut weights): (Program, InMemory),
    pools: Pools,
) -> Box<dyn Executor> {
    backend.load(program, &mut weights, pools).unwrap()
}

/// Logits of every position of two sequences, fed in chunks of `chunk` tokens, alone or together.
fn logits(e: &mut dyn Executor, sequences: [&[u32]; 2], chunk: usize, together: bool) -> Vec<Vec<f32>> {
    let [a, b] = sequences.map(|s| s.len().div_ceil(PAGE) as u32);
    let pages: [Vec<u32>; 2] = [(0..a).rev().collect(), (a..a + b).rev().collect()];
    let mut out = vec![Vec::new(), Vec::new()];
    let mut output = Output::default();
    let mut step = |which: &[usize], done: usize, out: &mut [Vec<f32>]| {
        let (mut tokens, mut spans) = (Vec::new(), Vec::new());
        for &s in which {
            let sequence = sequences[s];
            let part = &sequence[done.min(sequence.len())..sequence.len().min(done + chunk)];
            if !part.is_empty() {
                spans.push((
                    s,
                    Span {
                        start: tokens.len(),
                        len: part.len(),
                        position: done,
                        rope_len: sequence.len(),
                        call: Some(0),
                        pages: [&pages[s]; 2],
                        state: Some(StateUse {
                            from: (done > 0).then_some(s as u32),
                            to: s as u32,
                            save: None,
                        }),
                    },
                ));
                tokens.extend_from_slice(part);
            }
        }
        let picked: Vec<u32> = (0..tokens.len() as u32).collect();
        let only: Vec<Span<'_>> = spans.iter().map(|(_, s)| s.clone()).collect();
        if tokens.is_empty() {
            return;
        }
        let batch = Batch { tokens: &tokens, spans: &only, picked: &picked, want: Want::Logits };
        e.step(Step::of(&batch), &mut output).unwrap();
        let vocab = output.logits.len() / tokens.len();
        for (s, span) in spans {
            out[s].extend_from_slice(&output.logits[span.start * vocab..(span.start + span.len) * vocab]);
        }
    };
    let longest = sequences.iter().map(|s| s.len()).max().unwrap();
    for done in (0..longest).step_by(chunk) {
        match together {
            true => step(&[0, 1], done, &mut out),
            false => [0, 1].into_iter().for_each(|s| step(&[s], done, &mut out)),
        }
    }
    out
}

pub const SHAPE: Shape =
    Shape { hidden: 96, ffn: 160, heads: Heads { q: 6, kv: 2, dim: 20 }, vocab: 101, bias: true, experts: 5 };

fn sequences() -> [Vec<u32>; 2] {
    let mut r = Random(3);
    [2 * PAGE + 9, PAGE + 5].map(|n| (0..n).map(|_| r.bits() % 101).collect())
}

#[test]
fn the_cpu_gives_the_same_bits_at_any_batch_chunk_thread_count_and_instruction_set() {
    let s = sequences();
    let s = [&*s[0], &*s[1]];
    for kind in [
        Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16),
        Kind::Grouped(GroupFormat::INT3, Layout::Nk, DType::F16),
        Kind::Grouped(GroupFormat::INT4, Layout::Kn, DType::F16),
        Kind::Dense(DType::BF16),
    ] {
        let mut expected = Vec::new();
        for kernels in Kernels::available() {
            for threads in [1, 2] {
                let cpu = Cpu { threads, kernels: Some(kernels.name().to_owned()), ..Cpu::default() };
                let mut e = load(&cpu, decoder(kind, &SHAPE), pools(6));
                for (chunk, together) in [(1, false), (1, true), (7, true), (64, false), (500, true)] {
                    let all: Vec<Vec<u32>> =
                        logits(&mut *e, s, chunk, together).iter().map(|l| bits(l)).collect();
                    if expected.is_empty() {
                        expected = all.clone();
                    }
                    assert!(all == expected, "{kind:?} {} {threads} {chunk} {together}", kernels.name());
                }
            }
        }
    }
}

/// Contexts of several parts: one row at a time they are split over threads, in chunks they are not.
#[test]
fn attention_in_parts_gives_the_same_bits() {
    let mut r = Random(7);
    // Ends inside the third part, at the end of the first, and just after it.
    let long: Vec<u32> = (0..(2 * PART + 1) * PAGE + 3).map(|_| r.bits() % 101).collect();
    for (shorter, kv) in [(PART * PAGE, KvType::F16), (PART * PAGE + 1, KvType::Q8)] {
        let s = [&*long, &long[..shorter]];
        let mut expected = Vec::new();
        for kernels in Kernels::available() {
            for (threads, chunk, together) in [(1, 77, false), (2, 500, true), (2, 1, true)] {
                let name = Some(kernels.name().to_owned());
                let cpu = Cpu { threads, kv, kernels: name, ..Cpu::default() };
                let heads = Heads { q: 5, kv: 1, dim: 36 };
                let shape = Shape { hidden: 32, ffn: 32, heads, vocab: 101, bias: false, experts: 0 };
                let mut e = load(&cpu, decoder(Kind::Dense(DType::F16), &shape), pools(40));
                let all: Vec<Vec<u32>> =
                    logits(&mut *e, s, chunk, together).iter().map(|l| bits(l)).collect();
                if expected.is_empty() {
                    expected = all.clone();
                }
                assert!(all == expected, "{kv:?} {} {threads} {chunk} {together}", kernels.name());
            }
        }
    }
}

#[test]
fn the_cpu_stays_close_to_the_reference() {
    let s = sequences();
    let s = [&*s[0], &*s[1]];
    for kind in [
        Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16),
        Kind::Grouped(GroupFormat::INT4, Layout::Kn, DType::F16),
        Kind::Grouped(GroupFormat::INT3, Layout::Nk, DType::F16),
        Kind::Grouped(GroupFormat::INT3, Layout::Kn, DType::F16),
        Kind::Dense(DType::F16),
        Kind::Dense(DType::F32),
    ] {
        // Where two experts are nearly as good, a coarse form may choose the other.
        let dense = Shape { experts: 0, ..SHAPE };
        let expected = [&SHAPE, &dense]
            .map(|shape| logits(&mut *load(&Reference, decoder(kind, shape), pools(6)), s, 500, true));
        for (activations, kv) in [
            (Activations::F32, KvType::F16),
            (Activations::Bits15, KvType::F16),
            (Activations::Bits15, KvType::Q8),
            (Activations::Bits8, KvType::F16),
        ] {
            // f16 keys and values alone cost some 1e-3 of the logits' size; 8 bits anywhere some 1e-2.
            let fine = activations != Activations::Bits8 && kv == KvType::F16;
            let (bound, shape, expected) =
                if fine { (2e-3, &SHAPE, &expected[0]) } else { (2e-2, &dense, &expected[1]) };
            let mut cpu = load(&Cpu { activations, kv, ..Cpu::default() }, decoder(kind, shape), pools(6));
            let found = logits(&mut *cpu, s, 500, true);
            for (f, e) in found.iter().zip(expected) {
                let error: f64 = f.iter().zip(e).map(|(f, e)| f64::from(f - e).powi(2)).sum();
                let size: f64 = e.iter().map(|e| f64::from(*e).powi(2)).sum();
                let ratio = (error / size).sqrt();
                assert!(ratio < bound, "{kind:?} {activations:?} {kv:?}: relative error {ratio}");
            }
        }
    }
}

#[test]
fn the_reference_does_not_depend_on_chunks() {
    let s = sequences();
    let s = [&*s[0], &*s[1]];
    let kind = Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16);
    let mut e = load(&Reference, decoder(kind, &SHAPE), pools(6));
    let whole = logits(&mut *e, s, 500, true);
    assert!(whole == logits(&mut *e, s, 1, false));
    assert!(whole == logits(&mut *e, s, 50, true));
}

#[test]
fn a_step_may_want_no_logits() {
    let kind = Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16);
    let backends: [&dyn Backend; 2] = [&Reference, &Cpu::default()];
    for backend in backends {
        let step = |steps: &[(&[u32], &[u32])]| {
            let mut e = load(backend, decoder(kind, &SHAPE), pools(1));
            let (mut out, mut position) = (Output::default(), 0);
            for (tokens, picked) in steps {
                let len = tokens.len();
                let spans = [Span {
                    start: 0,
                    len,
                    position,
                    rope_len: position + len,
                    call: None,
                    pages: [&[0]; 2],
                    state: state(position),
                }];
                e.step(Step::of(&Batch { tokens, spans: &spans, picked, want: Want::Logits }), &mut out)
                    .unwrap();
                assert_eq!(out.logits.len(), picked.len() * SHAPE.vocab);
                position += len;
            }
            out.logits
        };
        assert!(step(&[(&[1, 2, 3], &[2])]) == step(&[(&[1, 2], &[]), (&[3], &[0])]), "{}", backend.name());
    }
}

#[test]
fn a_batch_that_does_not_fit_is_refused() {
    let kind = Kind::Dense(DType::F32);
    let mut e = load(&Cpu::default(), decoder(kind, &SHAPE), pools(1));
    let span = |len, position, pages: &'static [u32]| Span {
        start: 0,
        len,
        position,
        rope_len: 1,
        call: None,
        pages: [pages; 2],
        state: state(position),
    };
    let mut out = Output::default();
    let mut refused = |tokens: &[u32], spans: &[Span<'_>], picked: &[u32]| {
        e.step(Step::of(&Batch { tokens, spans, picked, want: Want::Logits }), &mut out)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&[], &[], &[]), "the batch has no tokens");
    assert_eq!(refused(&[101], &[span(1, 0, &[0])], &[]), "token id 101 is outside the vocabulary of 101");
    assert!(refused(&[1], &[span(1, 64, &[0])], &[]).contains("position 65 with 1 pages"));
    assert!(refused(&[1], &[span(1, 0, &[1])], &[]).contains("the pool has 1"));
    assert!(refused(&[1, 2], &[span(1, 0, &[0])], &[]).contains("rows 1..1 of 2"));
    assert!(refused(&[1], &[span(1, 0, &[0])], &[1]).contains("picked row 1"));
}

/// A weight that is not what the program describes is an error that names it and both, on every backend.
#[test]
fn a_weight_of_another_shape_is_refused_by_its_name() {
    let backends: [&dyn Backend; 2] = [&Reference, &Cpu::default()];
    let kind = Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16);
    for backend in backends {
        let refused = |change: &dyn Fn(&mut InMemory)| {
            let (program, mut weights) = decoder(kind, &SHAPE);
            change(&mut weights);
            let LoadError::Weight(error) = backend.load(program, &mut weights, pools(1)).err().unwrap()
            else {
                panic!("another error")
            };
            error
        };
        let found = refused(&|w| drop(w.vectors.insert("vector 0".to_owned(), vec![1.0; 95])));
        assert_eq!(found.to_string(), "vector 0 should be 96 values, what came is 95 values");
        let other =
            |m: Matrix| move |w: &mut InMemory| drop(w.matrices.insert("matrix 0".to_owned(), m.clone()));
        let mut r = Random(1);
        let int4 = "int4 in groups of 32, bfloat16 scales";
        let found = refused(&other(grouped(&mut r, 96, 101, GroupFormat::INT4, Layout::Nk, DType::BF16)));
        let expected = format!("matrix 0 should be [101, 96] {int4}, what came is [96, 101] {int4}");
        assert_eq!(found.to_string(), expected);
        let found = refused(&other(dense(&mut r, 101, 96, DType::F16)));
        let expected = format!("matrix 0 should be [101, 96] {int4}, what came is [101, 96] float16");
        assert_eq!(found.to_string(), expected);
        let mut short = grouped(&mut r, 101, 96, GroupFormat::INT4, Layout::Nk, DType::BF16);
        if let MatrixData::Grouped { scales, .. } = &mut short.data {
            *scales = scales.slice(2..scales.len()).unwrap();
        }
        assert!(refused(&other(short)).to_string().ends_with("scales in 5452 bytes"));
        let found = refused(&|w| drop(w.matrices.remove("matrix 0")));
        let what = "it is not at hand".to_owned();
        assert_eq!(found, WeightError::Missing { name: "matrix 0".to_owned(), what });
    }
}
