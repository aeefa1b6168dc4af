//! Products with weights that are not quantised (`q0*`): f32, f16 or bf16 as they lie in the file,
//! widened in registers, against f32 inputs.
//!
//! For each row and token lane `i` of 16 sums the elements `k = i mod 16` by fma, `k` ascending, with
//! zeros behind the last element; then [`tree_sum`]. Tiles of several rows and tokens only decide which
//! sums are in registers at the same time, so all shapes and instruction sets give the same bits.

use super::simd::{LANES, Lanes, tree_sum};
use std::ops::Range;
use tessera_weights::dtype::DType;

/// A matrix in the file: `rows` of `cols` elements, at any alignment.
#[derive(Clone, Copy)]
pub struct Dense<'a> {
    /// Row after row.
    pub bytes: &'a [u8],
    /// bf16, f16 or f32.
    pub dtype: DType,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

impl Dense<'_> {
    /// f32 values of an input row: whole vectors.
    pub const fn width(cols: usize) -> usize {
        cols.div_ceil(LANES) * LANES
    }
}

/// Up to this many tokens weights come from memory, each row once; with more they come from cache.
pub(super) const FEW: usize = 4;
/// Rows and columns that pass between two visits of the same sums, with many tokens: four tokens' inputs
/// take half of a first cache of 32 KiB, and rows a power of two apart do not push them out.
const BLOCK_ROWS: usize = 32;
const BLOCK_COLS: usize = 1024;
/// Bytes by which rows that come from memory are prefetched: the hardware stops at the end of a page.
const AHEAD: usize = 1024;

/// How an element is read.
trait Element {
    const SIZE: usize;
    /// # Safety
    /// As for [`Lanes`]; 16 elements at `p`.
    unsafe fn load<V: Lanes>(p: *const u8) -> V;
}

struct F32;
struct F16;
struct Bf16;

impl Element for F32 {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(p.cast()) }
    }
}

impl Element for F16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(p.cast()) }
    }
}

impl Element for Bf16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(p.cast()) }
    }
}

/// `y[t][i]` = row `rows.start + i` times token `t`; `x` holds `n` rows of [`Dense::width`] values,
/// zero behind `cols`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn products<V: Lanes>(w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
    assert!(rows.start <= rows.end && rows.end <= w.rows && y.len() >= n * rows.len());
    assert!(w.bytes.len() == w.rows * w.cols * w.dtype.size() && x.len() >= n * Dense::width(w.cols));
    // SAFETY: the lengths were just checked, and the element type is that of the bytes.
    unsafe {
        match w.dtype {
            DType::BF16 => typed::<V, Bf16>(w, rows, x, n, y),
            DType::F16 => typed::<V, F16>(w, rows, x, n, y),
            DType::F32 => typed::<V, F32>(w, rows, x, n, y),
            other => unreachable!("a matrix of {other}"),
        }
    }
}

/// # Safety
/// As for [`products`], whose assertions hold.
#[inline(always)]
unsafe fn typed<V: Lanes, E: Element>(w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match (V::WIDE, n) {
            (_, 1) => tiled::<V, E, 4, 1>(w, rows, x, n, y),
            (true, 2) => tiled::<V, E, 4, 2>(w, rows, x, n, y),
            (true, 3) => tiled::<V, E, 4, 3>(w, rows, x, n, y),
            (true, _) => tiled::<V, E, 4, 4>(w, rows, x, n, y),
            (false, 3) => tiled::<V, E, 2, 3>(w, rows, x, n, y),
            (false, _) => tiled::<V, E, 2, 2>(w, rows, x, n, y),
        }
    }
}

/// Tiles of `R` rows and `T` tokens, then of one row, then of one token.
///
/// # Safety
/// As for [`products`], whose assertions hold.
#[inline(always)]
unsafe fn tiled<V: Lanes, E: Element, const R: usize, const T: usize>(
    w: &Dense<'_>,
    rows: Range<usize>,
    x: &[f32],
    n: usize,
    y: &mut [f32],
) {
    let count = rows.len();
    if n <= FEW {
        // Rows come from memory, and all tokens pass each tile of them. Distant rows: each is a stream
        // of its own for the prefetcher, on pages of its own.
        // SAFETY: the caller's promise.
        unsafe { block::<V, E, R, T, true>(w, rows, x, 0..n, &mut [], w.cols, y, count) }
        return;
    }
    // A tile's tokens and its sums stay in the first cache while a block of rows, in the second, passes.
    for from in (0..count).step_by(BLOCK_ROWS) {
        let rows = rows.start + from..rows.start + count.min(from + BLOCK_ROWS);
        for t in (0..n).step_by(T) {
            let mut sums = [[0.0; LANES]; BLOCK_ROWS * FEW];
            // SAFETY: the caller's promise; there are sums for `BLOCK_ROWS` times `T` products.
            unsafe {
                block::<V, E, R, T, false>(
                    w,
                    rows.clone(),
                    x,
                    t..n.min(t + T),
                    &mut sums,
                    BLOCK_COLS,
                    &mut y[from..],
                    count,
                );
            }
        }
    }
}

/// `y[t * count + i]` for the given rows and tokens, `step` columns at a time, which is a multiple of
/// [`LANES`] or all columns; `sums` are only needed for more than one such pass.
///
/// # Safety
/// As for [`products`], whose assertions hold; the rows and tokens exist.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block<V: Lanes, E: Element, const R: usize, const T: usize, const STREAM: bool>(
    w: &Dense<'_>,
    rows: Range<usize>,
    x: &[f32],
    tokens: Range<usize>,
    sums: &mut [[f32; LANES]],
    step: usize,
    y: &mut [f32],
    count: usize,
) {
    let apart = rows.len() / R;
    let mut k = 0;
    loop {
        let cols = k..w.cols.min(k + step);
        let mut i = 0;
        while i < rows.len() {
            let mut t = tokens.start;
            while t < tokens.end {
                let y = &mut y[i..];
                let sums = if sums.is_empty() { &mut [] } else { &mut sums[i * FEW + t - tokens.start..] };
                let (row, cols) = (rows.start + i, cols.clone());
                // SAFETY: rows `i`, `i + apart`, ... and the tokens exist.
                t += unsafe {
                    match (i < apart, tokens.end - t >= T) {
                        (true, true) => tile::<V, E, R, T, STREAM>(w, row, apart, x, t, cols, sums, y, count),
                        (true, false) => {
                            tile::<V, E, R, 1, STREAM>(w, row, apart, x, t, cols, sums, y, count)
                        }
                        (false, true) => tile::<V, E, 1, T, STREAM>(w, row, 0, x, t, cols, sums, y, count),
                        (false, false) => tile::<V, E, 1, 1, STREAM>(w, row, 0, x, t, cols, sums, y, count),
                    }
                };
            }
            // After the tiles of `R` rows come the rows that are left.
            i = if i + 1 == apart { apart * R } else { i + 1 };
        }
        k = cols.end;
        if k >= w.cols {
            return;
        }
    }
}

/// Adds columns `cols` of rows `row + r * apart` times tokens `t0 + t` to the sums of that pair, at
/// `sums[r * apart * FEW + t]` before the first column and behind the last; the last columns make
/// `y[(t0 + t) * count + r * apart]`. Returns `T`. No closures: those would not be compiled for the
/// instruction set unless inlined. With `STREAM` rows are prefetched.
///
/// # Safety
/// As for [`Lanes`]; all those rows and tokens exist, `x` is wide enough.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<V: Lanes, E: Element, const R: usize, const T: usize, const STREAM: bool>(
    w: &Dense<'_>,
    row: usize,
    apart: usize,
    x: &[f32],
    t0: usize,
    cols: Range<usize>,
    saved: &mut [[f32; LANES]],
    y: &mut [f32],
    count: usize,
) -> usize {
    let whole = cols.end / LANES * LANES;
    let width = Dense::width(w.cols);
    // SAFETY: elements `k..k + 16` with `k + 16 <= whole <= cols` of rows that exist, and values below
    // `width` of tokens that exist; the rest of a row is read from a copy of 16 elements.
    unsafe {
        let mut weights = [w.bytes.as_ptr(); R];
        for (r, p) in weights.iter_mut().enumerate() {
            *p = p.add((row + r * apart) * w.cols * E::SIZE);
        }
        let mut values = [x.as_ptr(); T];
        for (t, p) in values.iter_mut().enumerate() {
            *p = p.add((t0 + t) * width);
        }
        let mut sums = [[V::splat(0.0); T]; R];
        if cols.start > 0 {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (t, s) in sums.iter_mut().enumerate() {
                    *s = V::load(saved[r * apart * FEW + t].as_ptr());
                }
            }
        }
        // Indexed by constants only, unlike `sums`, so that it is kept in registers.
        let mut acc = sums;
        for k in (cols.start..whole).step_by(LANES) {
            let mut v = [V::splat(0.0); T];
            for (v, values) in v.iter_mut().zip(&values) {
                *v = V::load(values.add(k));
            }
            for (acc, weights) in acc.iter_mut().zip(&weights) {
                if STREAM {
                    V::prefetch(weights.wrapping_add(k * E::SIZE + AHEAD));
                }
                let w = E::load::<V>(weights.add(k * E::SIZE));
                for (s, v) in acc.iter_mut().zip(v) {
                    *s = w.fma(v, *s);
                }
            }
        }
        sums = acc;
        if cols.end < w.cols {
            for (r, sums) in sums.iter().enumerate() {
                for (t, s) in sums.iter().enumerate() {
                    s.store(saved[r * apart * FEW + t].as_mut_ptr());
                }
            }
            return T;
        }
        if whole < w.cols {
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                let mut rest = [0u8; 4 * LANES];
                let len = (w.cols - whole) * E::SIZE;
                std::ptr::copy_nonoverlapping(weights.add(whole * E::SIZE), rest.as_mut_ptr(), len);
                let w = E::load::<V>(rest.as_ptr());
                for (s, values) in sums.iter_mut().zip(&values) {
                    *s = w.fma(V::load(values.add(whole)), *s);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (t, s) in sums.iter().enumerate() {
                y[(t0 + t) * count + r * apart] = tree_sum(s.to_array());
            }
        }
    }
    T
}
