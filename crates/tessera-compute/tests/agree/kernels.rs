//! Every kernel on every instruction set against its scalar twin, bit for bit.

use super::random::{Random, bits, dense, grouped};
use tessera_compute::cpu::codes::Coded;
use tessera_compute::cpu::dense::Dense;
use tessera_compute::cpu::kernels::Kernels;
use tessera_compute::cpu::panel::{PANEL, Panel};
use tessera_compute::cpu::q8::{self, TILE};
use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::quantize::decode;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

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
