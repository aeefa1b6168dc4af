//! The product kernels, one thread: `decode` as bytes of weights a second for one token, over more
//! weights than the caches hold; `prefill` as multiply-adds a second for many tokens, inputs already
//! quantised, panels unpacked on the way. `floats` decodes to f32 first: what `--exact` does.
//!
//! `cargo bench -p tessera-compute --bench kernels -- decode`; `TESSERA_KERNELS` names an instruction
//! set. Compare with the machine's read speed in the same minutes; with `TESSERA_BENCH_MIB=1` one matrix
//! stays in the last cache, which shows what the instructions allow.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tessera_compute::cpu::codes::Coded;
use tessera_compute::cpu::dense::Dense;
use tessera_compute::cpu::kernels::Kernels;
use tessera_compute::cpu::panel::{PANEL, Panel};
use tessera_compute::cpu::q8::{Rows, TILE, Tiles};
use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::quantize::decode_row;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// Rows of a matrix.
const ROWS: usize = 4096;
/// Columns, unless `TESSERA_BENCH_COLS` says otherwise: those of a model of 7 G weights.
const COLS: usize = 4096;
/// Weights that pass in one iteration, in MiB, unless `TESSERA_BENCH_MIB` says otherwise.
const MIB: usize = 200;
/// Tokens of a prefill.
const TOKENS: usize = 128;

#[derive(Clone, Copy)]
enum Kind {
    Grouped(GroupFormat, Layout, DType),
    Dense(DType),
}

const KINDS: &[(&str, Kind)] = &[
    ("int4-nk-bf16", Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::BF16)),
    ("int4-nk-f16", Kind::Grouped(GroupFormat::INT4, Layout::Nk, DType::F16)),
    ("int4-kn-f16", Kind::Grouped(GroupFormat::INT4, Layout::Kn, DType::F16)),
    ("int3-nk-f16", Kind::Grouped(GroupFormat::INT3, Layout::Nk, DType::F16)),
    ("int3-kn-f16", Kind::Grouped(GroupFormat::INT3, Layout::Kn, DType::F16)),
    ("dense-f16", Kind::Dense(DType::F16)),
    ("dense-bf16", Kind::Dense(DType::BF16)),
    ("dense-f32", Kind::Dense(DType::F32)),
];

/// A matrix of any codes and of scales or elements near 1.
fn matrix(kind: Kind) -> Matrix {
    let cols = cols();
    let floats = |dtype: DType, n: usize| {
        Bytes::from_vec(match dtype {
            DType::F16 => half::f16::from_f32(0.75).to_le_bytes().repeat(n),
            DType::BF16 => half::bf16::from_f32(0.75).to_le_bytes().repeat(n),
            _ => 0.75f32.to_le_bytes().repeat(n),
        })
    };
    let data = match kind {
        Kind::Dense(dtype) => MatrixData::Dense { dtype, bytes: floats(dtype, ROWS * cols) },
        Kind::Grouped(format, layout, scale_dtype) => {
            let words = (0..ROWS * format.words(cols))
                .flat_map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes())
                .collect();
            let scales = floats(scale_dtype, ROWS * format.groups(cols));
            MatrixData::Grouped { format, layout, words: Bytes::from_vec(words), scale_dtype, scales }
        }
    };
    let matrix = Matrix { rows: ROWS, cols, data };
    assert!(matrix.check());
    matrix
}

fn cols() -> usize {
    std::env::var("TESSERA_BENCH_COLS").map_or(COLS, |s| s.parse().expect("a number of columns"))
}

fn inputs(n: usize) -> Vec<f32> {
    (0..n * cols()).map(|i| ((i % 113) as f32 - 56.0) / 50.0).collect()
}

fn dense(m: &Matrix) -> Option<Dense<'_>> {
    match &m.data {
        MatrixData::Dense { dtype, bytes } => {
            Some(Dense { bytes, dtype: *dtype, rows: m.rows, cols: m.cols })
        }
        MatrixData::Grouped { .. } => None,
    }
}

/// Ranges of `step` rows.
fn claims(step: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..ROWS).step_by(step).map(move |from| from..ROWS.min(from + step))
}

/// A claim's products by way of f32.
fn floats(k: &Kernels, m: &Matrix, rows: std::ops::Range<usize>, x: &[f32], w: &mut Vec<f32>, y: &mut [f32]) {
    w.resize(rows.len() * m.cols, 0.0);
    for (row, w) in rows.zip(w.chunks_exact_mut(m.cols)) {
        decode_row(m, row, w);
    }
    k.products(w, x, m.cols, y);
}

fn chosen() -> Kernels {
    let name = std::env::var("TESSERA_KERNELS").ok();
    Kernels::choose(name.as_deref()).expect("an instruction set that this machine has")
}

/// Planes that activations can have.
fn planes_of(kind: Kind) -> usize {
    if matches!(kind, Kind::Dense(_)) { 1 } else { 2 }
}

fn label(k: &Kernels, planes: usize) -> String {
    format!("{}-{}", k.name(), if planes == 1 { "8bit" } else { "15bit" })
}

fn decode(c: &mut Criterion) {
    let k = chosen();
    let mib = std::env::var("TESSERA_BENCH_MIB").map_or(MIB, |s| s.parse().expect("a number of MiB"));
    let mut group = c.benchmark_group("decode");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let x = inputs(1);
    for (name, kind) in KINDS {
        let one = matrix(*kind);
        let bytes = mib << 20;
        let mut all: Vec<Matrix> = (1..bytes.div_ceil(one.stored_len())).map(|_| matrix(*kind)).collect();
        all.push(one);
        group.throughput(Throughput::Bytes(all.iter().map(|m| m.stored_len() as u64).sum()));
        let (mut y, mut w) = (vec![0.0; ROWS], Vec::new());
        for planes in 1..=planes_of(*kind) {
            group.bench_function(BenchmarkId::new(*name, label(&k, planes)), |b| {
                let mut rows = Rows::default();
                if let Some(w) = Coded::of(&all[0]) {
                    rows.reset(1, w.groups(), w.input_bytes().0, planes);
                    k.input_row(&w, &x, planes, &mut rows.values, &mut rows.scales, &mut rows.offsets);
                }
                b.iter(|| {
                    for m in &all {
                        match (Coded::of(m), dense(m)) {
                            (Some(w), _) => {
                                // As much as a thread claims at once in a step of a model.
                                let row_len = m.stored_len() / m.rows;
                                let step = if w.is_nk() { (256 << 10) / row_len } else { 1024 };
                                claims(step).for_each(|r| k.rows(&w, r, &rows, 1, black_box(&mut y)));
                            }
                            (_, Some(w)) => claims(16).for_each(|r| k.dense(&w, r, &x, 1, black_box(&mut y))),
                            _ => unreachable!("a format without kernels"),
                        }
                    }
                });
            });
        }
        group.bench_function(BenchmarkId::new(*name, "floats"), |b| {
            // The slow way needs no more than a few matrices; the rate is what counts.
            b.iter(|| {
                for m in &all {
                    claims(16).for_each(|r| floats(&k, m, r, &x, &mut w, black_box(&mut y)));
                }
            });
        });
    }
    group.finish();
}

fn prefill(c: &mut Criterion) {
    let k = chosen();
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements((TOKENS * ROWS * cols()) as u64));
    let x = inputs(TOKENS);
    for (name, kind) in KINDS {
        let m = matrix(*kind);
        let mut y = vec![0.0; TOKENS * ROWS];
        for planes in 1..=planes_of(*kind) {
            group.bench_function(BenchmarkId::new(*name, label(&k, planes)), |b| {
                let Some(w) = Coded::of(&m) else {
                    let w = dense(&m).expect("codes or elements");
                    b.iter(|| claims(32).for_each(|r| k.dense(&w, r, &x, TOKENS, black_box(&mut y))));
                    return;
                };
                let (order, ends) = w.visit();
                let (slots, bytes) = (w.groups() * TILE, w.input_bytes().1 * planes);
                let mut tiles = Tiles::default();
                tiles.reset(TOKENS, w.groups(), w.input_bytes().1, planes);
                for (t, x) in x.chunks_exact(cols()).enumerate() {
                    let part = t / TILE * slots..(t / TILE + 1) * slots;
                    let values = &mut tiles.values[part.start * bytes..part.end * bytes];
                    let (scales, offsets) =
                        (&mut tiles.scales[part.clone()], &mut tiles.offsets[part.start..part.end]);
                    k.input_tile_row(&w, x, planes, &order, t % TILE, values, scales, offsets);
                }
                let mut panels: [Panel; 4] = Default::default();
                let mut tile = [0.0; TILE * PANEL];
                b.iter(|| {
                    for rows in claims(4 * PANEL) {
                        for (i, panel) in panels.iter_mut().enumerate() {
                            k.panel(&w, rows.start + i * PANEL, &order, panel);
                        }
                        for t in 0..TOKENS / TILE {
                            for panel in &panels {
                                k.tile(&w, panel, &tiles.tile(t), &ends, black_box(&mut tile));
                            }
                        }
                    }
                });
            });
        }
        let mut w = Vec::new();
        group.bench_function(BenchmarkId::new(*name, "floats"), |b| {
            b.iter(|| claims(16).for_each(|r| floats(&k, &m, r, &x, &mut w, black_box(&mut y))));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, prefill);
criterion_main!(benches);
