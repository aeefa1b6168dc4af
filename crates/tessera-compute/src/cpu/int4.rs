//! Products with 4-bit weights in rows (`q4*_1`): one kernel for a few tokens, which streams rows as
//! they lie in the file, and one for many, which unpacks a panel of rows once.
//!
//! For row `r`, token `t` and group `g`: `dot = Σ code * value + offset`, an exact integer, then
//! `lane[g] = fma(dot, w_scale * a_scale, lane[g])` over ascending groups of a lane, then
//! [`tree_sum`] over lanes. Every variant does exactly this, so all give the same bits.

use super::q8::{self, GROUP, TILE};
use super::simd::{LANES, tree_sum};
use std::ops::Range;
use tessera_weights::dtype::DType;

/// A matrix in the file: `words [rows, 4 * groups]` of u32, `scales [rows, groups]`.
#[derive(Clone, Copy)]
pub struct Int4<'a> {
    /// 16 bytes a group.
    pub words: &'a [u8],
    /// Of `scale_dtype`.
    pub scales: &'a [u8],
    /// bf16, f16 or f32.
    pub scale_dtype: DType,
    /// Groups of a row.
    pub groups: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Rows of a panel.
pub const PANEL: usize = 16;

/// A panel of rows, unpacked for the tile kernels.
#[derive(Default)]
pub struct Panel {
    /// `[group in visiting order][8 steps][16 rows][4 inputs]`: steps 0..4 hold even inputs.
    pub codes: Vec<u8>,
    /// `[group in visiting order][16 rows]`.
    pub scales: Vec<f32>,
    /// Where each group stands in the visiting order.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    place: Vec<u32>,
}

impl Int4<'_> {
    fn codes(&self, row: usize, group: usize) -> &[u8; 16] {
        let at = (row * self.groups + group) * 16;
        self.words[at..at + 16].try_into().expect("a slice of 16")
    }

    #[inline(always)]
    fn scale(&self, row: usize, group: usize) -> f32 {
        let at = row * self.groups + group;
        match self.scale_dtype {
            DType::BF16 => {
                let b = &self.scales[2 * at..2 * at + 2];
                f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)
            }
            DType::F16 => {
                let b = &self.scales[2 * at..2 * at + 2];
                half::f16::from_le_bytes([b[0], b[1]]).to_f32()
            }
            _ => {
                let b = &self.scales[4 * at..4 * at + 4];
                f32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }
        }
    }
}

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn rows_scalar(w: &Int4<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    let count = rows.len();
    for t in 0..n {
        let values = &x.values[t * x.blocks * q8::BLOCK..];
        let lanes = t * x.blocks * LANES;
        for (i, row) in rows.clone().enumerate() {
            let mut sums = [0.0f32; LANES];
            for g in 0..w.groups {
                let (block, j) = (g / LANES, g % LANES);
                let at = block * q8::BLOCK + (j / 4) * 128 + (j % 4) * 16;
                let codes = w.codes(row, g);
                let mut dot = 0i32;
                for k in 0..16 {
                    dot += i32::from(codes[k] & 15) * i32::from(values[at + k]);
                    dot += i32::from(codes[k] >> 4) * i32::from(values[at + 64 + k]);
                }
                let lane = q8::lane_of(j);
                let a = lanes + block * LANES + lane;
                let dot = (dot + x.offsets[a]) as f32;
                sums[lane] = dot.mul_add(w.scale(row, g) * x.scales[a], sums[lane]);
            }
            y[t * count + i] = tree_sum(sums);
        }
    }
}

/// Unpacks the 16 rows from `row`; past the last row the last one is repeated.
pub fn panel_scalar(w: &Int4<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    panel.codes.resize(order.len() * 512, 0);
    panel.scales.resize(order.len() * PANEL, 0.0);
    for (i, &g) in order.iter().enumerate() {
        for r in 0..PANEL {
            let row = (row + r).min(w.rows - 1);
            let codes = w.codes(row, g as usize);
            for (k, c) in codes.iter().enumerate() {
                let at = i * 512 + (k / 4) * 64 + r * 4 + k % 4;
                panel.codes[at] = c & 15;
                panel.codes[at + 256] = c >> 4;
            }
            panel.scales[i * PANEL + r] = w.scale(row, g as usize);
        }
    }
}

/// One tile of tokens times one panel: `y[t][r]`.
pub fn tile_scalar(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES], y: &mut [f32; TILE * PANEL]) {
    for t in 0..TILE {
        for r in 0..PANEL {
            let (mut stack, mut depth, mut from) = ([0.0f32; 5], 0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut sum = 0.0f32;
                for i in from..end {
                    let slot = i * TILE + t;
                    let mut dot = x.offsets[slot];
                    for k in 0..GROUP {
                        let code = panel.codes[i * 512 + (k / 4) * 64 + r * 4 + k % 4];
                        dot += i32::from(code) * i32::from(x.values[slot * GROUP + k]);
                    }
                    sum = (dot as f32).mul_add(panel.scales[i * PANEL + r] * x.scales[slot], sum);
                }
                from = end;
                for _ in 0..(lane + 1).trailing_zeros() {
                    depth -= 1;
                    sum += stack[depth];
                }
                stack[depth] = sum;
                depth += 1;
            }
            y[t * PANEL + r] = stack[0];
        }
    }
}

/// One tile of [`q8::Tiles`].
#[derive(Clone, Copy)]
pub struct TileView<'a> {
    /// `[group][TILE][32]`
    pub values: &'a [i8],
    /// `[group][TILE]`
    pub scales: &'a [f32],
    /// `[group][TILE]`
    pub offsets: &'a [i32],
}

impl q8::Tiles {
    /// The tile with this index.
    pub fn tile(&self, index: usize) -> TileView<'_> {
        let slots = self.groups * TILE;
        TileView {
            values: &self.values[index * slots * self.group_bytes..(index + 1) * slots * self.group_bytes],
            scales: &self.scales[index * slots..(index + 1) * slots],
            offsets: &self.offsets[index * slots..(index + 1) * slots],
        }
    }
}

/// Widens 16 scales and puts them into lane order; absent ones are zero.
#[cfg(target_arch = "x86_64")]
fn block_scales(w: &Int4<'_>, row: usize, block: usize) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for j in 0..LANES.min(w.groups - block * LANES) {
        out[q8::lane_of(j)] = w.scale(row, block * LANES + j);
    }
    out
}

/// What the pointers below rely on.
#[cfg(target_arch = "x86_64")]
fn check(w: &Int4<'_>, rows: &Range<usize>, x: &q8::Rows, n: usize, y: &[f32]) {
    assert!(rows.end <= w.rows && y.len() >= n * rows.len());
    assert!(w.words.len() == w.rows * w.groups * 16);
    assert!(w.scales.len() == w.rows * w.groups * w.scale_dtype.size());
    assert!(x.blocks == w.groups.div_ceil(LANES));
    assert!(x.values.len() >= n * x.blocks * q8::BLOCK);
    assert!(x.scales.len() >= n * x.blocks * LANES && x.offsets.len() >= n * x.blocks * LANES);
}

#[cfg(target_arch = "x86_64")]
fn check_tile(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES]) -> usize {
    let groups = ends[LANES - 1];
    assert!(ends.is_sorted());
    assert!(panel.codes.len() >= groups * 512 && panel.scales.len() >= groups * PANEL);
    assert!(x.values.len() >= groups * TILE * GROUP);
    assert!(x.scales.len() >= groups * TILE && x.offsets.len() >= groups * TILE);
    groups
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub use avx2::{rows_avx2, tile_avx2};
#[cfg(target_arch = "x86_64")]
pub use avx512::{panel_avx512, rows_avx512, tile_avx512};
