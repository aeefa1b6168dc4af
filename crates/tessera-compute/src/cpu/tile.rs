//! Many tokens times a panel of rows: a tile of tokens at a time. Groups are visited by the lanes of the
//! row kernels, so the sums are theirs, to the bit.

use super::codes::Format;
use super::panel::{PANEL, Panel};
use super::q8::{self, TILE};
use super::simd::LANES;

/// One tile of [`q8::Tiles`].
#[derive(Clone, Copy)]
pub struct TileView<'a> {
    /// `[group][TILE][plane][group]`
    pub values: &'a [i8],
    /// `[group][TILE]`
    pub scales: &'a [f32],
    /// `[group][TILE]`
    pub offsets: &'a [i32],
    /// 1 or 2.
    pub planes: usize,
}

impl q8::Tiles {
    /// The tile with this index.
    pub fn tile(&self, index: usize) -> TileView<'_> {
        let slots = self.groups * TILE;
        let bytes = slots * self.group_bytes * self.planes;
        TileView {
            planes: self.planes,
            values: &self.values[index * bytes..(index + 1) * bytes],
            scales: &self.scales[index * slots..(index + 1) * slots],
            offsets: &self.offsets[index * slots..(index + 1) * slots],
        }
    }
}

/// One tile of tokens times one panel: `y[t][r]`. `ends` are those of the panel's visiting order.
pub fn tile_scalar<F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    for t in 0..TILE {
        for r in 0..PANEL {
            let (mut stack, mut depth, mut from) = ([0.0f32; 5], 0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut sum = 0.0f32;
                for i in from..end {
                    let slot = i * TILE + t;
                    let mut dot = 0i32;
                    for plane in 0..x.planes {
                        dot <<= 7;
                        for k in 0..F::GROUP {
                            let code = panel.codes[i * F::STEPS * 64 + (k / 4) * 64 + r * 4 + k % 4];
                            let value = x.values[(slot * x.planes + plane) * F::GROUP + k];
                            dot += i32::from(code) * i32::from(value);
                        }
                    }
                    let scale = panel.scales[i * PANEL + r] * x.scales[slot];
                    sum = ((dot + x.offsets[slot]) as f32).mul_add(scale, sum);
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

/// What the kernels' pointers rely on.
fn check<F: Format>(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES]) {
    let groups = ends[LANES - 1];
    assert!(ends.is_sorted());
    assert!(panel.codes.len() >= groups * F::STEPS * 64 && panel.scales.len() >= groups * PANEL);
    assert!(x.planes == 1 || x.planes == 2);
    assert!(x.values.len() >= groups * TILE * F::GROUP * x.planes);
    assert!(x.scales.len() >= groups * TILE && x.offsets.len() >= groups * TILE);
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub use {avx2::tile_avx2, avx512::tile_avx512};
