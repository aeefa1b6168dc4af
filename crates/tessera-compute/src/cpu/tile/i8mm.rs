//! 64-bit Arm with i8mm: `smmla` multiplies two rows of 8 codes by two tokens of 8 values, so lanes are
//! two rows times two tokens. Panels are those of [`panel::i8mm`](super::super::panel::i8mm).

use super::super::simd::{Neon, Quad};
use super::*;
use std::arch::aarch64::*;

/// Pairs of rows and of tokens whose sums are in registers at the same time.
const ROW_PAIRS: usize = 4;
const TOKEN_PAIRS: usize = 2;

/// See [`tile_scalar`]; the panel is that of [`panel::i8mm`](super::super::panel::i8mm).
///
/// # Safety
/// The machine has `i8mm`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub unsafe fn tile_i8mm<Q: Quad, F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    for row in (0..PANEL).step_by(2 * ROW_PAIRS) {
        for token in (0..x.count).step_by(2 * TOKEN_PAIRS) {
            // SAFETY: `check` made the lengths right; the rest is the caller's promise.
            unsafe {
                match x.planes {
                    1 => part::<F, 1>(panel, x, ends, row, token, y),
                    _ => part::<F, 2>(panel, x, ends, row, token, y),
                }
            }
        }
    }
}

/// Eight rows from `row` times four tokens from `token`.
///
/// # Safety
/// As for [`tile_i8mm`]; the lengths were checked.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn part<F: Format, const P: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    row: usize,
    token: usize,
    y: &mut [f32; TILE * PANEL],
) {
    let zero = [[vdupq_n_f32(0.0); TOKEN_PAIRS]; ROW_PAIRS];
    let mut stack = [zero; 5];
    let (mut depth, mut from) = (0, 0);
    let mut fetch = Fetch::new(x.ahead, ends[LANES - 1]);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = zero;
        for i in from..end {
            // SAFETY: group `i` is inside every slice.
            unsafe {
                if row + token == 0 {
                    fetch.next::<Neon>();
                }
                let dots = dots::<F, P>(panel, x, i, row, token);
                let scales = panel.scales.as_ptr().add(i * PANEL + row);
                let slot = i * TILE + token;
                for (k, acc) in acc.iter_mut().enumerate() {
                    let ws = vld1_f32(scales.add(2 * k));
                    let ws = vcombine_f32(vdup_lane_f32::<0>(ws), vdup_lane_f32::<1>(ws));
                    for (m, acc) in acc.iter_mut().enumerate() {
                        let offset = vld1_s32(x.offsets.as_ptr().add(slot + 2 * m));
                        let scale = vld1_f32(x.scales.as_ptr().add(slot + 2 * m));
                        let scale = vmulq_f32(ws, vcombine_f32(scale, scale));
                        let dot = vaddq_s32(dots[k][m], vcombine_s32(offset, offset));
                        *acc = vfmaq_f32(*acc, vcvtq_f32_s32(dot), scale);
                    }
                }
            }
        }
        from = end;
        for _ in 0..(lane + 1).trailing_zeros() {
            depth -= 1;
            for (acc, s) in acc.as_flattened_mut().iter_mut().zip(stack[depth].as_flattened()) {
                *acc = vaddq_f32(*acc, *s);
            }
        }
        stack[depth] = acc;
        depth += 1;
    }
    for (k, v) in stack[0].iter().enumerate() {
        for (m, v) in v.iter().enumerate() {
            // Rows 0, 0, 1, 1 of tokens 0, 1, 0, 1.
            let at = (token + 2 * m) * PANEL + row + 2 * k;
            y[at] = vgetq_lane_f32::<0>(*v);
            y[at + PANEL] = vgetq_lane_f32::<1>(*v);
            y[at + 1] = vgetq_lane_f32::<2>(*v);
            y[at + PANEL + 1] = vgetq_lane_f32::<3>(*v);
        }
    }
}

/// The integer products of group `i`, without offsets.
///
/// # Safety
/// As for [`tile_i8mm`]; the group exists.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn dots<F: Format, const P: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    i: usize,
    row: usize,
    token: usize,
) -> [[int32x4_t; TOKEN_PAIRS]; ROW_PAIRS] {
    let mut dots = [[vdupq_n_s32(0); TOKEN_PAIRS]; ROW_PAIRS];
    for p in 0..P {
        if p > 0 {
            // The high plane came first.
            for dot in dots.as_flattened_mut() {
                *dot = vshlq_n_s32::<7>(*dot);
            }
        }
        for d in 0..F::STEPS / 2 {
            // SAFETY: a group has `STEPS / 2` times 16 rows of 8 codes, and TILE times P times GROUP
            // values.
            unsafe {
                let codes = panel.codes.as_ptr().add(i * F::STEPS * 64 + d * 128 + row * 8);
                let mut values = [vdupq_n_s8(0); TOKEN_PAIRS];
                for (m, v) in values.iter_mut().enumerate() {
                    let slot = i * TILE + token + 2 * m;
                    let at = x.values.as_ptr().add((slot * P + p) * F::GROUP + d * 8);
                    *v = vcombine_s8(vld1_s8(at), vld1_s8(at.add(P * F::GROUP)));
                }
                for (k, dots) in dots.iter_mut().enumerate() {
                    let codes = vld1q_u8(codes.add(k * 16));
                    for (dot, v) in dots.iter_mut().zip(values) {
                        *dot = smmla(*dot, codes, v);
                    }
                }
            }
        }
    }
    dots
}

/// Two rows of 8 codes times two of 8 values. Codes are below 128, so they are signed bytes too. The
/// intrinsic is not stable.
///
/// # Safety
/// The machine has `i8mm`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(mut sum: int32x4_t, codes: uint8x16_t, values: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the machine has the instruction, as the caller promises.
    unsafe {
        std::arch::asm!("smmla {s:v}.4s, {c:v}.16b, {v:v}.16b",
            s = inout(vreg) sum, c = in(vreg) codes, v = in(vreg) values,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
