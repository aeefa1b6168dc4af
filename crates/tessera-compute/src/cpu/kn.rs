//! Products for a few tokens with weights in the layout KN (`q4*_0`, `q3*_0`): a vector of words belongs
//! to as many rows, so its lanes are rows, and a word vector times broadcast inputs needs no sums across
//! lanes.
//!
//! For row `r`, token `t` and group `g`: `dot` as in [`super::rows`], then
//! `sum = fma(dot, w_scale * a_scale, sum)` over ascending groups, one chain a row; last `sum + 0`,
//! which the tile kernel does by adding its empty runs and which turns -0 into 0.

use super::codes::{Codes, word_dot};
use super::format::Format;
use super::q8;
use super::simd::{LANES, fma};
use std::ops::Range;

/// Rows that pass before the next group begins: their sums stay in the first cache.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
const BLOCK_ROWS: usize = 1024;

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn kn_scalar<F: Format>(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check::<F>(&rows, x, n, y);
    let count = rows.len();
    for t in 0..n {
        rows_of::<F>(w, rows.clone(), x, t, &mut y[t * count..(t + 1) * count]);
    }
}

/// Rows times one token; also the end of a range that does not fill a vector.
#[inline(always)]
fn rows_of<F: Format>(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, t: usize, y: &mut [f32]) {
    for (row, y) in rows.zip(y) {
        let mut sum = 0.0f32;
        for g in 0..w.groups {
            let (block, j) = (t * x.blocks + g / LANES, g % LANES);
            let at = block * q8::block::<F>(x.planes) + q8::group_at::<F>(j, x.planes);
            let mut dot = 0;
            for s in 0..4 {
                let word = w.word((4 * g + s) * w.rows + row);
                dot += word_dot::<F>(word, &x.values, x.planes, at + 4 * s);
            }
            let lane = block * LANES + q8::lane_of(j);
            let dot = (dot + x.offsets[lane]) as f32;
            sum = fma(dot, w.scale(g * w.rows + row) * x.scales[lane], sum);
        }
        *y = sum + 0.0;
    }
}

/// Four bytes of the inputs of group `j`: of word `s`, in plane and part `i`.
///
/// # Safety
/// `at` is the group's first value in [`q8::Rows`].
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[inline(always)]
unsafe fn input(at: *const i8, s: usize, i: usize) -> i32 {
    // SAFETY: parts and planes are 64 bytes apart in the block that the caller's group is in.
    unsafe { at.add(i * 64 + 4 * s).cast::<i32>().read_unaligned() }
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident<$vectors:ident>, $block:ident, $lanes:literal, $features:literal, $most:literal, [$($t:literal)*]) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub unsafe fn $name<V: $vectors, F: Format>(
            w: &Codes<'_>,
            rows: Range<usize>,
            x: &q8::Rows,
            n: usize,
            y: &mut [f32],
        ) {
            w.check::<F>(&rows, x, n, y);
            let count = rows.len();
            let whole = count / $lanes * $lanes;
            y[..n * count].fill(0.0);
            for from in (0..whole).step_by(BLOCK_ROWS) {
                let len = BLOCK_ROWS.min(whole - from);
                let row = rows.start + from;
                let mut t = 0;
                while t < n {
                    // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
                    unsafe {
                        let y = y.as_mut_ptr().add(t * count + from);
                        match (x.planes, n - t) {
                            $(
                                (1, $t) => $block::<V, F, 1, $t>(w, row, len, x, t, y, count),
                                (_, $t) => $block::<V, F, 2, $t>(w, row, len, x, t, y, count),
                            )*
                            (1, _) => $block::<V, F, 1, $most>(w, row, len, x, t, y, count),
                            (_, _) => $block::<V, F, 2, $most>(w, row, len, x, t, y, count),
                        }
                    }
                    t += (n - t).min($most);
                }
            }
            for t in 0..n {
                let y = &mut y[t * count..(t + 1) * count];
                rows_of::<F>(w, rows.start + whole..rows.end, x, t, &mut y[whole..]);
                y[..whole].iter_mut().for_each(|y| *y += 0.0);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod quad;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use quad::kn_simd128;
#[cfg(target_arch = "aarch64")]
pub use quad::{kn_dotprod, kn_neon};
#[cfg(target_arch = "x86_64")]
pub use {avx2::kn_avx2, avx512::kn_avx512};
