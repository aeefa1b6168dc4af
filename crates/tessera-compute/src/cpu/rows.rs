//! Products for a few tokens with rows that are streams (`q4*_1`, `q3*_1`): weights pass once, as they
//! lie in the file, against all tokens.
//!
//! For row `r`, token `t` and group `g`: `dot = Σ code * value + offset`, an exact integer (with two
//! planes `128 * Σ code * high + Σ code * low + offset`), then
//! `lane[g] = fma(dot, w_scale * a_scale, lane[g])` over ascending groups of a lane, then
//! [`tree_sum`] over lanes. Every variant does exactly this, so all give the same bits.

use super::codes::{Codes, word_dot};
use super::format::Format;
use super::q8;
use super::simd::{LANES, fma, tree_sum};
use std::ops::Range;

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn rows_scalar<F: Format>(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check::<F>(&rows, x, n, y);
    let count = rows.len();
    for t in 0..n {
        for (i, row) in rows.clone().enumerate() {
            let mut sums = [0.0f32; LANES];
            for g in 0..w.groups {
                let (block, j) = (t * x.blocks + g / LANES, g % LANES);
                let at = block * q8::block::<F>(x.planes) + q8::group_at::<F>(j, x.planes);
                let mut dot = 0;
                for s in 0..4 {
                    let word = w.word((row * w.groups + g) * 4 + s);
                    dot += word_dot::<F>(word, &x.values, x.planes, at + 4 * s);
                }
                let lane = q8::lane_of(j);
                let a = block * LANES + lane;
                let dot = (dot + x.offsets[a]) as f32;
                sums[lane] = fma(dot, w.scale(row * w.groups + g) * x.scales[a], sums[lane]);
            }
            y[t * count + i] = tree_sum(sums);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod quad;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod words;

#[cfg(target_arch = "aarch64")]
pub use quad::{rows_dotprod, rows_neon};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use words::rows_words;
#[cfg(target_arch = "x86_64")]
pub use {avx2::rows_avx2, avx512::rows_avx512};
