//! AVX-512 with VNNI: lanes are the 16 rows of a panel.

use super::*;
use std::arch::x86_64::*;

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_avx512<F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    // SAFETY: `check` made the lengths right; the rest is the caller's promise.
    unsafe {
        match x.planes {
            1 => some_planes::<F, 1>(panel, x, ends, y),
            _ => some_planes::<F, 2>(panel, x, ends, y),
        }
    }
}

/// # Safety
/// As for [`tile_avx512`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn some_planes<F: Format, const P: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    let mut stack = [[_mm512_setzero_ps(); TILE]; 5];
    let (mut depth, mut from) = (0, 0);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = [_mm512_setzero_ps(); TILE];
        for i in from..end {
            // SAFETY: group `i` is inside every slice.
            unsafe {
                let codes = panel.codes.as_ptr().add(i * F::STEPS * 64);
                let slot = i * TILE;
                let values = x.values.as_ptr().add(slot * P * F::GROUP);
                let offsets = x.offsets.as_ptr().add(slot);
                let mut dots = [_mm512_setzero_si512(); TILE];
                for p in 0..P {
                    for (t, dot) in dots.iter_mut().enumerate() {
                        // The offset belongs to the sum of all planes, so it comes in with the last.
                        if p > 0 {
                            *dot = _mm512_slli_epi32::<7>(*dot);
                        }
                        if p + 1 == P {
                            *dot = _mm512_add_epi32(*dot, _mm512_set1_epi32(*offsets.add(t)));
                        }
                    }
                    // TILE sums at once hide the latency of each.
                    for s in 0..F::STEPS {
                        let c = _mm512_loadu_si512(codes.add(s * 64).cast());
                        for (t, dot) in dots.iter_mut().enumerate() {
                            let at = values.add((t * P + p) * F::GROUP + s * 4).cast::<i32>();
                            *dot = _mm512_dpbusd_epi32(*dot, c, _mm512_set1_epi32(at.read_unaligned()));
                        }
                    }
                }
                let ws = _mm512_loadu_ps(panel.scales.as_ptr().add(i * PANEL));
                for (t, (acc, dot)) in acc.iter_mut().zip(dots).enumerate() {
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
