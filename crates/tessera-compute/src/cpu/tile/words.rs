//! WebAssembly, in products of 16 bits as in `rows/words.rs`: half of a panel's rows against up to four tokens, whose sums
//! are kept in registers while the steps of a group pass.

use super::super::simd::{Doubt, first, fma_int};
use super::*;
use std::arch::wasm32::*;

/// Vectors of four rows that are summed together.
const VECTORS: usize = 2;

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has the instruction set.
#[cfg_attr(feature = "relaxed-simd", target_feature(enable = "simd128,relaxed-simd"))]
#[cfg_attr(not(feature = "relaxed-simd"), target_feature(enable = "simd128"))]
pub unsafe fn tile_words<F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    let mut t = 0;
    while t < x.count {
        // SAFETY: `check` made the lengths right.
        t += unsafe {
            match (x.planes, x.count - t) {
                (1, 1) => some_tokens::<F, 1, 1>(panel, x, ends, t, y),
                (1, 2 | 3) => some_tokens::<F, 1, 2>(panel, x, ends, t, y),
                (1, _) => some_tokens::<F, 1, 4>(panel, x, ends, t, y),
                (_, 1) => some_tokens::<F, 2, 1>(panel, x, ends, t, y),
                (_, 2 | 3) => some_tokens::<F, 2, 2>(panel, x, ends, t, y),
                (_, _) => some_tokens::<F, 2, 4>(panel, x, ends, t, y),
            }
        };
    }
}

/// The panel times tokens `t0..t0 + T` in `P` planes. Returns `T`.
///
/// # Safety
/// As for [`tile_words`]; the lengths were checked.
#[inline(always)]
unsafe fn some_tokens<F: Format, const P: usize, const T: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    t0: usize,
    y: &mut [f32; TILE * PANEL],
) -> usize {
    for at in (0..PANEL / 4).step_by(VECTORS) {
        // SAFETY: the caller's promise.
        unsafe {
            if some_rows::<F, P, T, false>(panel, x, ends, (t0, at), y) {
                some_rows_exact::<F, P, T>(panel, x, ends, (t0, at), y);
            }
        }
    }
    T
}

/// # Safety
/// As for [`some_tokens`].
#[cold]
#[inline(never)]
#[cfg_attr(feature = "relaxed-simd", target_feature(enable = "simd128,relaxed-simd"))]
#[cfg_attr(not(feature = "relaxed-simd"), target_feature(enable = "simd128"))]
unsafe fn some_rows_exact<F: Format, const P: usize, const T: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    at: (usize, usize),
    y: &mut [f32; TILE * PANEL],
) {
    // SAFETY: the caller's promise.
    unsafe { some_rows::<F, P, T, true>(panel, x, ends, at, y) };
}

/// Vectors `at..at + VECTORS` of the panel's rows times `T` tokens. Returns whether a sum may be wrong, which none
/// is with `EXACT`.
///
/// # Safety
/// As for [`some_tokens`].
#[inline(always)]
unsafe fn some_rows<F: Format, const P: usize, const T: usize, const EXACT: bool>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    (t0, at): (usize, usize),
    y: &mut [f32; TILE * PANEL],
) -> bool {
    let mut doubt = Doubt::none();
    let mut stack = [[[f32x4_splat(0.0); VECTORS]; T]; 5];
    let (mut depth, mut from) = (0, 0);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = [[f32x4_splat(0.0); VECTORS]; T];
        for i in from..end {
            // SAFETY: group `i` is inside every slice.
            unsafe { group::<F, P, T, EXACT>(panel, x, (i, t0, at), i == from, &mut acc, &mut doubt) };
        }
        from = end;
        for _ in 0..(lane + 1).trailing_zeros() {
            depth -= 1;
            for (acc, s) in acc.iter_mut().zip(&stack[depth]) {
                for (acc, s) in acc.iter_mut().zip(s) {
                    *acc = f32x4_add(*acc, *s);
                }
            }
        }
        stack[depth] = acc;
        depth += 1;
    }
    for (t, sums) in stack[0].iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let y = &mut y[(t0 + t) * PANEL + (at + v) * 4..][..4];
            // SAFETY: four values.
            unsafe { v128_store(y.as_mut_ptr().cast(), *sum) };
        }
    }
    doubt.any()
}

/// Adds the products of group `i`, with `begins` to nothing.
///
/// # Safety
/// As for [`some_tokens`]; the group exists.
#[inline(always)]
unsafe fn group<F: Format, const P: usize, const T: usize, const EXACT: bool>(
    panel: &Panel,
    x: &TileView<'_>,
    (i, t0, at): (usize, usize, usize),
    begins: bool,
    acc: &mut [[v128; VECTORS]; T],
    doubt: &mut Doubt,
) {
    let slot = i * TILE + t0;
    // SAFETY: the group's codes, scales, values and offsets are inside, as the caller promises.
    unsafe {
        let codes = panel.codes.as_ptr().add(i * F::STEPS * 64 + at * 16);
        let values = x.values.as_ptr().add(slot * F::GROUP * P);
        let mut dots = [[i32x4_splat(0); VECTORS]; T];
        for s in 0..F::STEPS {
            let mut even = [i32x4_splat(0); VECTORS];
            let mut odd = even;
            for v in 0..VECTORS {
                let codes = v128_load(codes.add(s * 64 + v * 16).cast());
                (even[v], odd[v]) = (v128_and(codes, i16x8_splat(0xff)), u16x8_shr(codes, 8));
            }
            for (t, dots) in dots.iter_mut().enumerate() {
                let [e, o] = values_of::<P>(values.add(t * F::GROUP * P + s * 4 * P));
                for (v, dot) in dots.iter_mut().enumerate() {
                    let more = i32x4_add(i32x4_dot_i16x8(even[v], e), i32x4_dot_i16x8(odd[v], o));
                    *dot = i32x4_add(*dot, more);
                }
            }
        }
        let mut ws = [f32x4_splat(0.0); VECTORS];
        for (v, ws) in ws.iter_mut().enumerate() {
            *ws = v128_load(panel.scales.as_ptr().add(i * PANEL + (at + v) * 4).cast());
        }
        for (t, (dots, acc)) in dots.into_iter().zip(acc).enumerate() {
            let offset = v128_load32_splat(x.offsets.as_ptr().add(slot + t).cast());
            let scale = v128_load32_splat(x.scales.as_ptr().add(slot + t).cast());
            for v in 0..VECTORS {
                let dot = i32x4_add(dots[v], offset);
                let scale = f32x4_mul(ws[v], scale);
                acc[v] = if begins { first(dot, scale) } else { fma_int::<EXACT>(dot, scale, acc[v], doubt) };
            }
        }
    }
}

/// A step's four values: those that meet the even bytes of the codes, and the odd ones, for all rows.
///
/// # Safety
/// A step of [`q8::Tiles`] at `p`.
#[inline(always)]
unsafe fn values_of<const P: usize>(p: *const i8) -> [v128; 2] {
    // SAFETY: a step is 4 bytes in each plane.
    unsafe {
        if P == 2 {
            return [v128_load32_splat(p.cast()), v128_load32_splat(p.add(4).cast())];
        }
        let v = v128_load32_splat(p.cast());
        [i16x8_shr(i16x8_shl(v, 8), 8), i16x8_shr(v, 8)]
    }
}
