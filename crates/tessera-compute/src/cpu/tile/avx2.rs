//! AVX2 and AVX-VNNI: lanes are 8 of the 16 rows of a panel.

use super::super::simd::{Avx2, Dots};
use super::*;
use std::arch::x86_64::*;

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has AVX2, FMA, F16C and what `D` needs.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile_avx2<D: Dots, F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    // SAFETY: `check` made the lengths right; the rest is the caller's promise.
    unsafe {
        match x.planes {
            1 => some_planes::<D, F, 1>(panel, x, ends, y),
            _ => some_planes::<D, F, 2>(panel, x, ends, y),
        }
    }
}

/// # Safety
/// As for [`tile_avx2`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some_planes<D: Dots, F: Format, const P: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    for half in 0..2 {
        let mut stack = [[_mm256_setzero_ps(); TILE]; 5];
        let (mut depth, mut from) = (0, 0);
        for (lane, &end) in ends.iter().enumerate() {
            let mut acc = [_mm256_setzero_ps(); TILE];
            for i in from..end {
                // SAFETY: group `i` is inside every slice.
                unsafe {
                    if half == 0 && !x.ahead[0].is_empty() {
                        x.fetch::<Avx2>(i, ends[LANES - 1]);
                    }
                    let codes = panel.codes.as_ptr().add(i * F::STEPS * 64 + half * 32);
                    let ws = _mm256_loadu_ps(panel.scales.as_ptr().add(i * PANEL + half * 8));
                    for (t, acc) in acc[..x.count].iter_mut().enumerate() {
                        let slot = i * TILE + t;
                        let mut dot = _mm256_setzero_si256();
                        for p in 0..P {
                            let values = x.values.as_ptr().add((slot * P + p) * F::GROUP).cast::<i32>();
                            let mut sum = _mm256_setzero_si256();
                            for s in 0..F::STEPS {
                                let c = _mm256_loadu_si256(codes.add(s * 64).cast());
                                let v = _mm256_set1_epi32(values.add(s).read_unaligned());
                                sum = D::step(sum, c, v);
                            }
                            let more = D::finish(sum);
                            dot = _mm256_add_epi32(_mm256_slli_epi32::<7>(dot), more);
                        }
                        let offset = _mm256_set1_epi32(*x.offsets.get_unchecked(slot));
                        let dot = _mm256_add_epi32(dot, offset);
                        let scale = _mm256_mul_ps(ws, _mm256_set1_ps(*x.scales.get_unchecked(slot)));
                        *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *acc);
                    }
                }
            }
            from = end;
            for _ in 0..(lane + 1).trailing_zeros() {
                depth -= 1;
                for (acc, s) in acc.iter_mut().zip(&stack[depth]) {
                    *acc = _mm256_add_ps(*acc, *s);
                }
            }
            stack[depth] = acc;
            depth += 1;
        }
        for (t, v) in stack[0].iter().enumerate() {
            // SAFETY: `y` holds TILE rows of 16.
            unsafe { _mm256_storeu_ps(y.as_mut_ptr().add(t * PANEL + half * 8), *v) };
        }
    }
}
