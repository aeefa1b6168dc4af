//! AVX-512 with VNNI: lanes are the 16 rows of a panel.

use super::super::simd::{Avx512, Wide};
use super::*;
use std::arch::x86_64::*;

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_avx512<W: Wide, F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    // SAFETY: `check` made the lengths right; the rest is the caller's promise.
    unsafe {
        match (x.planes, x.count) {
            (1, 1..=2) => some::<F, 1, 2>(panel, x, ends, y),
            (1, 3..=4) => some::<F, 1, 4>(panel, x, ends, y),
            (1, 5..=6) => some::<F, 1, 6>(panel, x, ends, y),
            (1, _) => some::<F, 1, TILE>(panel, x, ends, y),
            (_, 1..=2) => some::<F, 2, 2>(panel, x, ends, y),
            (_, 3..=4) => some::<F, 2, 4>(panel, x, ends, y),
            (_, 5..=6) => some::<F, 2, 6>(panel, x, ends, y),
            (_, _) => some::<F, 2, TILE>(panel, x, ends, y),
        }
    }
}

/// The first `T` tokens in `P` planes.
///
/// # Safety
/// As for [`tile_avx512`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn some<F: Format, const P: usize, const T: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    let mut stack = [[_mm512_setzero_ps(); T]; 5];
    let (mut depth, mut from) = (0, 0);
    let mut fetch = Fetch::new(x.ahead, ends[LANES - 1]);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = [_mm512_setzero_ps(); T];
        for i in from..end {
            // SAFETY: group `i` is inside every slice.
            unsafe {
                fetch.next::<Avx512>();
                let codes = panel.codes.as_ptr().add(i * F::STEPS * 64);
                let slot = i * TILE;
                let values = x.values.as_ptr().add(slot * P * F::GROUP);
                let offsets = x.offsets.as_ptr().add(slot);
                // Many sums at once hide the latency of each. Those of the last plane begin with the offsets.
                let mut dots = [[_mm512_setzero_si512(); T]; P];
                for (t, dot) in dots[P - 1].iter_mut().enumerate() {
                    *dot = _mm512_set1_epi32(*offsets.add(t));
                }
                for (p, dots) in dots.iter_mut().enumerate() {
                    for s in 0..F::STEPS {
                        let c = _mm512_loadu_si512(codes.add(s * 64).cast());
                        for (t, dot) in dots.iter_mut().enumerate() {
                            let at = values.add((t * P + p) * F::GROUP + s * 4).cast::<i32>();
                            *dot = _mm512_dpbusd_epi32(*dot, c, _mm512_set1_epi32(at.read_unaligned()));
                        }
                    }
                }
                let ws = _mm512_loadu_ps(panel.scales.as_ptr().add(i * PANEL));
                for (t, acc) in acc.iter_mut().enumerate() {
                    let mut dot = dots[P - 1][t];
                    if P == 2 {
                        dot = _mm512_add_epi32(dot, _mm512_slli_epi32::<7>(dots[0][t]));
                    }
                    let scale = _mm512_mul_ps(ws, _mm512_set1_ps(*x.scales.as_ptr().add(slot + t)));
                    *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *acc);
                }
            }
        }
        from = end;
        for _ in 0..(lane + 1).trailing_zeros() {
            depth -= 1;
            for (acc, s) in acc.iter_mut().zip(&stack[depth]) {
                *acc = _mm512_add_ps(*acc, *s);
            }
        }
        stack[depth] = acc;
        depth += 1;
    }
    for (t, v) in stack[0].iter().enumerate() {
        // SAFETY: `y` holds TILE rows of 16.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr().add(t * PANEL), *v) };
    }
}
