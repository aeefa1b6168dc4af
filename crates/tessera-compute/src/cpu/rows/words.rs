//! WebAssembly: its widest product is of 16 bits, `i32x4.dot_i16x8`, so codes are widened to as many and two planes of
//! inputs are one. A vector is one group; a lane of sums for every fourth group is made at a time.

use super::super::codes::GROUP_BYTES;
use super::super::simd::{Doubt, Quad, SimdQuad, columns, first, fma_int};
use super::*;
use std::arch::wasm32::*;
use tessera_weights::dtype::DType;

/// See [`rows_scalar`]; up to 2 tokens share one unpacking.
///
/// # Safety
/// The machine has the instruction set.
#[cfg_attr(feature = "relaxed-simd", target_feature(enable = "simd128,relaxed-simd"))]
#[cfg_attr(not(feature = "relaxed-simd"), target_feature(enable = "simd128"))]
pub unsafe fn rows_words<F: Format>(
    w: &Codes<'_>,
    rows: Range<usize>,
    x: &q8::Rows,
    n: usize,
    y: &mut [f32],
) {
    w.check::<F>(&rows, x, n, y);
    let mut t = 0;
    while t < n {
        // SAFETY: `check` made the lengths right.
        unsafe {
            match (x.planes, n - t) {
                (1, 1) => some_tokens::<F, 1, 1>(w, &rows, x, t, y),
                (1, _) => some_tokens::<F, 1, 2>(w, &rows, x, t, y),
                (_, 1) => some_tokens::<F, 2, 1>(w, &rows, x, t, y),
                (_, _) => some_tokens::<F, 2, 2>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(2);
    }
}

/// All rows against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// As for [`rows_words`]; the lengths were checked.
#[inline(always)]
unsafe fn some_tokens<F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    // Groups that a row's last vectors read behind its end.
    let behind = w.groups.next_multiple_of(4) - w.groups;
    for (i, row) in rows.clone().enumerate() {
        let mut sums = None;
        if (w.rows - 1 - row) * w.groups >= behind {
            // SAFETY: the caller's promise; the rows that follow have as many groups.
            sums = unsafe { one_row::<F, P, T>(w, row, x, t0) };
        }
        for t in 0..T {
            y[(t0 + t) * rows.len() + i] = match sums {
                Some(sums) => sums[t],
                None => exact_row::<F>(w, row, x, t0 + t),
            };
        }
    }
}

/// A row times a token in plain Rust: what the vectors leave.
#[cold]
#[inline(never)]
fn exact_row<F: Format>(w: &Codes<'_>, row: usize, x: &q8::Rows, t: usize) -> f32 {
    let mut sums = [0.0f32; LANES];
    for g in 0..w.groups {
        let (block, j) = (t * x.blocks + g / LANES, g % LANES);
        let at = block * q8::block::<F>(x.planes) + q8::group_at::<F>(j, x.planes);
        let value = |part: usize, byte: usize| {
            let at = at + part * 64 * x.planes;
            match x.planes {
                1 => i32::from(x.values[at + byte]),
                _ => {
                    let at = at + byte % 2 * 64 + byte / 2 * 2;
                    i32::from(i16::from_le_bytes([x.values[at] as u8, x.values[at + 1] as u8]))
                }
            }
        };
        let mut dot = 0;
        for s in 0..4 {
            for (part, codes) in F::split(w.word((row * w.groups + g) * 4 + s))[..F::PARTS].iter().enumerate()
            {
                for (byte, code) in codes.to_le_bytes().into_iter().enumerate() {
                    dot += i32::from(code) * value(part, 4 * s + byte);
                }
            }
        }
        let lane = q8::lane_of(j);
        let a = block * LANES + lane;
        let scale = w.scale(row * w.groups + g) * x.scales[a];
        sums[lane] = fma((dot + x.offsets[a]) as f32, scale, sums[lane]);
    }
    tree_sum(sums)
}

/// Row `row` times `T` tokens, unless a sum is in doubt.
///
/// # Safety
/// As for [`some_tokens`]; the matrix goes on behind the row up to a multiple of 4 groups.
#[inline(always)]
unsafe fn one_row<F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    row: usize,
    x: &q8::Rows,
    t0: usize,
) -> Option<[f32; T]> {
    let full = w.groups / LANES;
    let size = w.scale_dtype.size();
    let mut acc = [[f32x4_splat(0.0); 4]; T];
    let mut doubt = Doubt::none();
    // SAFETY: `check` proved that every row's words and scales are inside their slices.
    unsafe {
        let mut at = (
            w.words.as_ptr().add(row * w.groups * GROUP_BYTES),
            w.scales.as_ptr().add(row * w.groups * size),
            w.scale_dtype,
        );
        let all = i32x4_splat(-1);
        for b in 0..full {
            block::<F, P, T, 4>(at, all, x, (t0, b), &mut acc, &mut doubt);
            (at.0, at.1) = (at.0.add(LANES * GROUP_BYTES), at.1.add(LANES * size));
        }
        let left = w.groups % LANES;
        let last = u32x4_lt(u32x4(0, 1, 2, 3), u32x4_splat(((left + 3) % 4 + 1) as u32));
        match left.div_ceil(4) {
            0 => {}
            1 => block::<F, P, T, 1>(at, last, x, (t0, full), &mut acc, &mut doubt),
            2 => block::<F, P, T, 2>(at, last, x, (t0, full), &mut acc, &mut doubt),
            3 => block::<F, P, T, 3>(at, last, x, (t0, full), &mut acc, &mut doubt),
            _ => block::<F, P, T, 4>(at, last, x, (t0, full), &mut acc, &mut doubt),
        }
    }
    (!doubt.any()).then(|| acc.map(tree))
}

/// [`tree_sum`].
#[inline(always)]
fn tree([a, b, c, d]: [v128; 4]) -> f32 {
    let v = f32x4_add(f32x4_add(a, c), f32x4_add(b, d));
    let v = f32x4_add(v, i32x4_shuffle::<2, 3, 2, 3>(v, v));
    f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)
}

/// The first `4 * V` groups of block `b` of one row against `T` tokens. Scales of the last four are taken as far as
/// `last` has ones: inputs are zero where a row has ended, but what stands in its place in the matrix may be anything.
///
/// # Safety
/// Codes and scales of so many groups, block `b` in `x` for tokens `t0..t0 + T`.
#[inline(always)]
unsafe fn block<F: Format, const P: usize, const T: usize, const V: usize>(
    (words, scales, dtype): (*const u8, *const u8, DType),
    last: v128,
    x: &q8::Rows,
    (t0, b): (usize, usize),
    acc: &mut [[v128; 4]; T],
    doubt: &mut Doubt,
) {
    // SAFETY: the caller promises the groups and the block.
    unsafe {
        let mut ws = [f32x4_splat(0.0); 4];
        for (v, ws) in ws[..V].iter_mut().enumerate() {
            *ws = SimdQuad::load_scales(dtype, scales.add(4 * v * dtype.size()));
        }
        ws[V - 1] = v128_and(ws[V - 1], last);
        // Lanes `4 c .. 4 c + 4` sum groups `c`, `c + 4`, `c + 8` and `c + 12`.
        let ws = columns(ws);
        for c in 0..4 {
            let mut dots = [[i32x4_splat(0); 4]; T];
            for v in 0..V {
                let j = 4 * v + c;
                let parts = F::split_quad::<SimdQuad>(v128_load(words.add(j * GROUP_BYTES).cast()));
                for (t, dots) in dots.iter_mut().enumerate() {
                    let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                    let values = x.values.as_ptr().add(block + q8::group_at::<F>(j, P));
                    let mut sums = [i32x4_splat(0); 3];
                    for (i, part) in parts[..F::PARTS].iter().enumerate() {
                        let [even, odd] = values_of::<P>(values, i);
                        let even = i32x4_dot_i16x8(v128_and(*part, i16x8_splat(0xff)), even);
                        sums[i] = i32x4_add(even, i32x4_dot_i16x8(u16x8_shr(*part, 8), odd));
                    }
                    dots[v] = i32x4_add(i32x4_add(sums[0], sums[1]), sums[2]);
                }
            }
            for (t, (dots, acc)) in dots.into_iter().zip(&mut *acc).enumerate() {
                let at = ((t0 + t) * x.blocks + b) * LANES + 4 * c;
                let dot = i32x4_add(SimdQuad::across(dots), v128_load(x.offsets.as_ptr().add(at).cast()));
                let scale = f32x4_mul(ws[c], v128_load(x.scales.as_ptr().add(at).cast()));
                acc[c] = if b == 0 { first(dot, scale) } else { fma_int::<false>(dot, scale, acc[c], doubt) };
            }
        }
    }
}

/// The values that meet the even bytes of part `i` of the codes, and the odd ones.
///
/// # Safety
/// A group of [`q8::Rows`] at `p`.
#[inline(always)]
unsafe fn values_of<const P: usize>(p: *const i8, i: usize) -> [v128; 2] {
    // SAFETY: parts and halves are 64 bytes apart.
    unsafe {
        if P == 2 {
            return [v128_load(p.add(i * 128).cast()), v128_load(p.add(i * 128 + 64).cast())];
        }
        let v = v128_load(p.add(i * 64).cast());
        [i16x8_shr(i16x8_shl(v, 8), 8), i16x8_shr(v, 8)]
    }
}
