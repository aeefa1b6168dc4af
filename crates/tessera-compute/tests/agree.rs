//! Every kernel on every instruction set against its scalar twin, bit for bit; whole programs on the
//! CPU against the reference, and against themselves at any batch, chunk and number of threads.

use tessera_compute::backend::{Backend, Executor, Pools};
use tessera_compute::batch::{Batch, Output, PAGE, Span, StateUse, Want};
use tessera_compute::cpu::attend::PART;
use tessera_compute::cpu::codes::Coded;
use tessera_compute::cpu::dense::Dense;
use tessera_compute::cpu::kernels::Kernels;
use tessera_compute::cpu::panel::{PANEL, Panel};
use tessera_compute::cpu::q8::{self, TILE};
use tessera_compute::cpu::{Activations, Cpu, KvType};
use tessera_compute::program::{
    Act, Attend, DeltaHeads, Factor, Function, Heads, Ids, Kv, Mask, NormKind, Op, Program, Rows, VectorId,
    WkvHeads,
};
use tessera_compute::reference::Reference;
use tessera_compute::rope::{Pairs, Rope};
use tessera_weights::arch::{Experts, Score};
use tessera_weights::bytes::Bytes;
use tessera_weights::config::{Activation, RopeScaling};
use tessera_weights::dtype::DType;
use tessera_weights::quantize::decode;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// A small generator; the same numbers on every machine.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// About normal, standard deviation 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.bits() as f32 / (1u64 << 31) as f32).sum::<f32>() - 6.0
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

fn floats(dtype: DType, values: &[f32]) -> Bytes {
    Bytes::from_vec(match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => unreachable!("a float type"),
    })
}

/// Random codes and scales; the bytes begin at an odd address.
fn grouped(
    r: &mut Random,
    rows: usize,
    cols: usize,
    format: GroupFormat,
    layout: Layout,
    dtype: DType,
) -> Matrix {
    let words = rows * format.words(cols);
    let mask = if format.bits == 3 { 0x3fff_ffff } else { u32::MAX };
    let mut bytes = vec![0u8];
    bytes.extend((0..words).flat_map(|_| ((r.bits() ^ (r.bits() << 16)) & mask).to_le_bytes()));
    let len = bytes.len();
    let words = Bytes::from_vec(bytes).slice(1..len).unwrap();
    let scale = 0.3 / (cols as f32).sqrt();
    let scales: Vec<f32> =
        (0..rows * format.groups(cols)).map(|_| scale * (0.5 + r.bits() as f32 / 4e9)).collect();
    let scales = floats(dtype, &scales);
    let data = MatrixData::Grouped { format, layout, words, scale_dtype: dtype, scales };
    let matrix = Matrix { rows, cols, data };
    assert!(matrix.check());
    matrix
}

fn dense(r: &mut Random, rows: usize, cols: usize, dtype: DType) -> Matrix {
    let scale = 1.0 / (cols as f32).sqrt();
    let values: Vec<f32> = r.normals(rows * cols).into_iter().map(|x| x * scale).collect();
    Matrix { rows, cols, data: MatrixData::Dense { dtype, bytes: floats(dtype, &values) } }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Odd sizes: one row, ragged groups, ragged blocks, rows that do not fill a panel.
const SHAPES: &[(usize, usize)] =
    &[(1, 32), (1, 40), (3, 100), (5, 512), (17, 576), (33, 1000), (20, 1536), (16, 2080), (7, 4096 + 96)];

/// Inputs of the row kernels and of the tile kernels.
fn inputs(k: &Kernels, w: &Coded<'_>, x: &[f32], n: usize, planes: usize) -> (q8::Rows, q8::Tiles) {
    let (mut rows, mut tiles) = (q8::Rows::default(), q8::Tiles::default());
    let (groups, (row_bytes, tile_bytes)) = (w.groups(), w.input_bytes());
    rows.reset(n, groups, row_bytes, planes);
    tiles.reset(n, groups, tile_bytes, planes);
    let (row_bytes, tile_bytes) = (row_bytes * planes, tile_bytes * planes);
    let (order, lanes) = (w.visit().0, rows.blocks * 16);
    for (t, x) in x.chunks_exact(x.len() / n).enumerate() {
        let all = t * lanes..(t + 1) * lanes;
        k.input_row(
            w,
            x,
            planes,
            &mut rows.values[all.start * row_bytes..all.end * row_bytes],
            &mut rows.scales[all.clone()],
            &mut rows.offsets[all],
        );
        let slots = t / TILE * TILE * groups..(t / TILE + 1) * TILE * groups;
        k.input_tile_row(
            w,
            x,
            planes,
            &order,
            t % TILE,
            &mut tiles.values[slots.start * tile_bytes..slots.end * tile_bytes],
            &mut tiles.scales[slots.clone()],
            &mut tiles.offsets[slots],
        );
    }
    (rows, tiles)
}

/// `y[t][row]` by the tile kernel.
fn by_tiles(k: &Kernels, w: &Coded<'_>, tiles: &q8::Tiles, rows: usize, n: usize) -> Vec<f32> {
    let (order, ends) = w.visit();
    let mut y = vec![0.0; n * rows];
    let mut panel = Panel::default();
    for first in (0..rows).step_by(PANEL) {
        k.panel(w, first, &order, &mut panel);
        for from in (0..n).step_by(TILE) {
            let mut tile = [0.0; TILE * PANEL];
            let mut view = tiles.tile(from / TILE);
            view.count = TILE.min(n - from);
            k.tile(w, &panel, &view, &ends, &mut tile);
            let width = PANEL.min(rows - first);
            for t in from..n.min(from + TILE) {
                let part = &tile[(t - from) * PANEL..][..width];
                y[t * rows + first..][..width].copy_from_slice(part);
            }
        }
    }
    y
}

/// The same matrix with words and scales at odd addresses.
fn moved(m: &Matrix) -> Matrix {
    let MatrixData::Grouped { format, layout, words, scale_dtype, scales } = &m.data else { unreachable!() };
    let odd = |bytes: &Bytes| {
        let all = Bytes::from_vec([&[0u8; 3], &bytes[..]].concat());
        all.slice(3..3 + bytes.len()).expect("inside")
    };
    let (format, layout, scale_dtype) = (*format, *layout, *scale_dtype);
    let data = MatrixData::Grouped { format, layout, words: odd(words), scale_dtype, scales: odd(scales) };
    Matrix { rows: m.rows, cols: m.cols, data }
}

#[test]
fn every_integer_kernel_gives_the_same_bits() {
    let mut r = Random(4);
    let n = 9;
    for (format, layout) in [
        (GroupFormat::INT4, Layout::Nk),
        (GroupFormat::INT4, Layout::Kn),
        (GroupFormat::INT3, Layout::Nk),
        (GroupFormat::INT3, Layout::Kn),
    ] {
        for &(rows, cols) in SHAPES.iter().chain(&[(1030, 120), (4, 656), (9, 1290)]) {
            for dtype in [DType::BF16, DType::F16, DType::F32] {
                let m = moved(&grouped(&mut r, rows, cols, format, layout, dtype));
                let w = Coded::of(&m).unwrap();
                let x = r.normals(n * cols);
                for planes in [1, 2] {
                    let kind = format!("{format:?} {layout:?} {rows}x{cols} {dtype} {planes} planes");
                    same_bits(&m, &w, &x, n, planes, &kind);
                }
            }
        }
    }
}

fn same_bits(m: &Matrix, w: &Coded<'_>, x: &[f32], n: usize, planes: usize, kind: &str) {
    let rows = m.rows;
    let mut expected = Vec::new();
    for k in [Kernels::SCALAR].into_iter().chain(Kernels::available()) {
        let name = format!("{} {kind}", k.name());
        let (few, many) = inputs(&k, w, x, n, planes);
        let mut y = vec![f32::NAN; n * rows];
        k.rows(w, 0..rows, &few, n, &mut y);
        if expected.is_empty() {
            expected = bits(&y);
            // One plane costs some 1e-2 of the outputs' size, two 1e-4.
            close_to_exact(m, x, &y, if planes == 1 { 2e-2 } else { 2e-4 }, &name);
        }
        assert_eq!(bits(&y), expected, "{name} rows");
        // Every number of tokens that has a kernel of its own, a part of the rows.
        for some in 1..=4 {
            let part = rows - rows / 3;
            let mut y = vec![f32::NAN; some * part];
            k.rows(w, rows / 3..rows, &few, some, &mut y);
            for (t, y) in y.chunks_exact(part).enumerate() {
                assert_eq!(bits(y), expected[t * rows + rows / 3..][..part], "{name} {some} tokens");
            }
        }
        assert_eq!(bits(&by_tiles(&k, w, &many, rows, n)), expected, "{name} tiles");
        // Every number of tokens in a tile.
        for some in 1..TILE {
            let y = by_tiles(&k, w, &many, rows, some);
            assert_eq!(bits(&y), expected[..some * rows], "{name} tile of {some}");
        }
    }
}

/// The error of all outputs together, as a part of their size.
fn close_to_exact(m: &Matrix, x: &[f32], y: &[f32], bound: f64, name: &str) {
    let w = decode(m);
    let (mut error, mut size) = (0.0, 0.0);
    for (x, y) in x.chunks_exact(m.cols).zip(y.chunks_exact(m.rows)) {
        for (w, y) in w.chunks_exact(m.cols).zip(y) {
            let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            error += (exact - f64::from(*y)).powi(2);
            size += exact.powi(2);
        }
    }
    assert!(error <= bound * bound * size, "{name}: relative error {}", (error / size).sqrt());
}

#[test]
fn every_dense_kernel_gives_the_same_bits() {
    let mut r = Random(5);
    let n = 11;
    for &(rows, cols) in SHAPES.iter().chain(&[(2, 15), (6, 17)]) {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let m = dense(&mut r, rows, cols, dtype);
            let MatrixData::Dense { bytes, .. } = &m.data else { unreachable!() };
            // At an odd address.
            let moved = [&[0u8], &bytes[..]].concat();
            let w = Dense { bytes: &moved[1..], dtype, rows, cols };
            let width = Dense::width(cols);
            let x = r.normals(n * cols);
            let mut padded = vec![0.0; n * width];
            for (x, p) in x.chunks_exact(cols).zip(padded.chunks_exact_mut(width)) {
                p[..cols].copy_from_slice(x);
            }
            // The definition, written down once more.
            let decoded = decode(&m);
            let mut expected = vec![0u32; n * rows];
            for (t, x) in x.chunks_exact(cols).enumerate() {
                for (i, w) in decoded.chunks_exact(cols).enumerate() {
                    let mut lanes = [0.0f32; 16];
                    for (k, (w, x)) in w.iter().zip(x).enumerate() {
                        lanes[k % 16] = w.mul_add(*x, lanes[k % 16]);
                    }
                    for half in [8, 4, 2, 1] {
                        for i in 0..half {
                            lanes[i] += lanes[i + half];
                        }
                    }
                    expected[t * rows + i] = lanes[0].to_bits();
                }
            }
            for k in Kernels::available() {
                for some in [1, 2, 3, 4, 5, n] {
                    for from in [0, rows / 3] {
                        let part = rows - from;
                        let mut y = vec![f32::NAN; some * part];
                        k.dense(&w, from..rows, &padded, some, &mut y);
                        for (t, y) in y.chunks_exact(part).enumerate() {
                            let e = &expected[t * rows + from..][..part];
                            assert_eq!(bits(y), e, "{} {rows}x{cols} {dtype} {some} tokens", k.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_broken_activation_is_not_hidden() {
    for k in Kernels::available() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 64];
            x[40] = bad;
            for (format, planes) in [(GroupFormat::INT4, 1), (GroupFormat::INT4, 2), (GroupFormat::INT3, 2)] {
                let m = grouped(&mut Random(6), 1, 64, format, Layout::Nk, DType::BF16);
                let (rows, tiles) = inputs(&k, &Coded::of(&m).unwrap(), &x, 1, planes);
                assert!(rows.scales[q8::lane_of(1)].is_nan(), "{} {format:?}", k.name());
                let fine = if planes == 1 { 1.0 / 127.0 } else { 1.0 / 16256.0 };
                assert_eq!(rows.scales[q8::lane_of(0)], fine);
                assert_eq!(tiles.scales.iter().filter(|s| s.is_nan()).count(), 1);
            }
        }
    }
}

/// How a test decoder's matrices are stored.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Grouped(GroupFormat, Layout, DType),
    Dense(DType),
}

struct Shape {
    hidden: usize,
    ffn: usize,
    heads: Heads,
    vocab: usize,
    bias: bool,
    /// Beside each MLP; 0 for none.
    experts: usize,
}

fn state(position: usize) -> Option<StateUse> {
    Some(StateUse { from: (position > 0).then_some(0), to: 0 })
}

fn pools(pages: usize) -> Pools {
    Pools { pages, states: 2 }
}

fn rms(x: Act, weight: VectorId, out: Act) -> Op {
    Op::Norm { kind: NormKind::Rms, x, each: x.width, weight: Some(weight), bias: None, eps: 1e-5, out }
}

fn attend(heads: Heads, qkv: Act, layer: usize, out: Act) -> Op {
    let [q, k, v] = heads.split(qkv);
    let scale = 1.0 / (heads.dim as f32).sqrt();
    Op::Attend(Attend { q, k, v, heads, layer, rope: Some(0), mask: Mask::Causal, scale, cap: None, out })
}

fn decoder(kind: Kind, s: &Shape) -> Program {
    let mut r = Random(7);
    let layers = 2;
    let scaling = RopeScaling::Dynamic { factor: 2.0, original_context: 70 };
    let mut p = Program::new(s.vocab);
    let rope = Rope { dim: s.heads.dim, theta: 10000.0, scaling, context: 140, pairs: Pairs::Halves };
    p.ropes.push(rope);
    p.kv = vec![Kv { heads: s.heads.kv, dim: s.heads.dim }; layers];
    let matrix = |p: &mut Program, r: &mut Random, rows, cols| {
        let m = match kind {
            Kind::Grouped(f, layout, d) => grouped(r, rows, cols, f, layout, d),
            Kind::Dense(d) => dense(r, rows, cols, d),
        };
        p.matrix(m)
    };
    let table = match kind {
        Kind::Grouped(f, _, d) => grouped(&mut r, s.vocab, s.hidden, f, Layout::Nk, d),
        Kind::Dense(d) => dense(&mut r, s.vocab, s.hidden, d),
    };
    let table = p.matrix(table);
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
            let weight = p.vector(weight);
            p.ops.push(rms(x, weight, normed));
            let rows = output.width;
            let weight = matrix(&mut p, &mut r, rows, s.hidden);
            let bias = s.bias.then(|| r.normals(rows)).map(|b| p.vector(b));
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
            let weight = matrix(&mut p, &mut r, s.hidden, width);
            let bias = s.bias.then(|| r.normals(s.hidden)).map(|b| p.vector(b));
            p.ops.push(Op::Linear { x: input, weight, bias, accumulate: true, out: x });
        }
        if s.experts == 0 {
            continue;
        }
        let count = s.experts;
        let (scores, weights) = (p.slot(Rows::All, count), p.slot(Rows::All, count));
        let weight = ones(&mut r, s.hidden);
        let weight = p.vector(weight);
        p.ops.push(rms(x, weight, normed));
        let router = dense(&mut r, count, s.hidden, DType::F32);
        let weight = p.matrix(router);
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
        let of = |p: &mut Program, r: &mut Random, rows, cols| {
            (0..count).map(|_| matrix(p, r, rows, cols)).collect::<Vec<_>>()[0]
        };
        let gate_up = of(&mut p, &mut r, 2 * experts.width, s.hidden);
        let down = of(&mut p, &mut r, s.hidden, experts.width);
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
            let weight = matrix(&mut p, &mut r, out.width, s.hidden);
            p.ops.push(Op::Linear { x: normed, weight, bias: None, accumulate: false, out });
        }
        let kernel = 4;
        let weight = r.normals(wide.width * kernel);
        let weight = p.vector(weight);
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
        let [a_log, dt_bias] = [0; 2].map(|_| r.normals(heads.values)).map(|v| p.vector(v));
        p.ops.push(Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state: state + 1, out: mixed });
        p.ops.push(Op::Columns { x: mixed, from: 20, each: 10, count: 4, to: 10, out: half });
        let weight = matrix(&mut p, &mut r, s.hidden, half.width);
        p.ops.push(Op::Linear { x: half, weight, bias: None, accumulate: true, out: x });
        // RWKV's: the difference to the row before, blends, the recurrence, a norm with weights of its own for each part.
        let heads = WkvHeads { count: 3, dim: 12 };
        let width = heads.count * heads.dim;
        let slots = [0; 8].map(|_| p.slot(Rows::All, width));
        let [y, towards, share, r_, k, v, decay, mixed] = slots;
        for out in [y, share, k, v, decay] {
            let weight = matrix(&mut p, &mut r, width, s.hidden);
            p.ops.push(Op::Linear { x: normed, weight, bias: None, accumulate: false, out });
        }
        let weight = p.vector([1.0, -1.0].repeat(width));
        p.states.extend([width, width * heads.dim]);
        let state = p.states.len() - 2;
        p.ops.push(Op::Conv { x: y, weight, kernel: 2, state, activation: None, out: towards });
        let [columns, bonus, weight, bias] = [0; 4].map(|_| r.normals(width)).map(|v| p.vector(v));
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
            let weight = matrix(&mut p, &mut r, heads.dim, 2);
            for _ in 1..heads.count {
                matrix(&mut p, &mut r, heads.dim, 2);
            }
            let (from, count, to) = (heads.dim, heads.count, heads.dim);
            p.ops.push(Op::PerHead { x: share, from, weight, count, to, out });
        }
        p.ops.push(Op::ByCall { x: both, single, out: y });
        p.ops.push(Op::Add { x: y, scale: 0.2, out: share });
        let weight = matrix(&mut p, &mut r, s.hidden, width);
        p.ops.push(Op::Linear { x: share, weight, bias: None, accumulate: true, out: x });
    }
    p.ops.push(Op::Pick { x, out: last });
    let weight = ones(&mut r, s.hidden);
    let weight = p.vector(weight);
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
    p
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
                        pages: &pages[s],
                        state: Some(StateUse { from: (done > 0).then_some(s as u32), to: s as u32 }),
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
        e.step(&batch, &mut output).unwrap();
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

const SHAPE: Shape =
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
                let mut e = cpu.load(decoder(kind, &SHAPE), pools(6)).unwrap();
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
                let mut e = cpu.load(decoder(Kind::Dense(DType::F16), &shape), pools(40)).unwrap();
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
            .map(|shape| logits(&mut *Reference.load(decoder(kind, shape), pools(6)).unwrap(), s, 500, true));
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
            let mut cpu =
                Cpu { activations, kv, ..Cpu::default() }.load(decoder(kind, shape), pools(6)).unwrap();
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
    let mut e = Reference.load(decoder(kind, &SHAPE), pools(6)).unwrap();
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
            let mut e = backend.load(decoder(kind, &SHAPE), pools(1)).unwrap();
            let (mut out, mut position) = (Output::default(), 0);
            for (tokens, picked) in steps {
                let len = tokens.len();
                let spans = [Span {
                    start: 0,
                    len,
                    position,
                    rope_len: position + len,
                    call: None,
                    pages: &[0],
                    state: state(position),
                }];
                e.step(&Batch { tokens, spans: &spans, picked, want: Want::Logits }, &mut out).unwrap();
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
    let mut e = Cpu::default().load(decoder(kind, &SHAPE), pools(1)).unwrap();
    let span = |len, position, pages| Span {
        start: 0,
        len,
        position,
        rope_len: 1,
        call: None,
        pages,
        state: state(position),
    };
    let mut out = Output::default();
    let mut refused = |tokens: &[u32], spans: &[Span<'_>], picked: &[u32]| {
        e.step(&Batch { tokens, spans, picked, want: Want::Logits }, &mut out).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], &[], &[]), "the batch has no tokens");
    assert_eq!(refused(&[101], &[span(1, 0, &[0])], &[]), "token id 101 is outside the vocabulary of 101");
    assert!(refused(&[1], &[span(1, 64, &[0])], &[]).contains("position 65 with 1 pages"));
    assert!(refused(&[1], &[span(1, 0, &[1])], &[]).contains("the pool has 1"));
    assert!(refused(&[1, 2], &[span(1, 0, &[0])], &[]).contains("rows 1..1 of 2"));
    assert!(refused(&[1], &[span(1, 0, &[0])], &[1]).contains("picked row 1"));
}
