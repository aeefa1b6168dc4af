//! Many tokens times a panel of 3-bit rows, for both layouts: as [`super::int4::tile_scalar`], with
//! groups of ten steps.

use super::int3::STEP_BYTES;
#[cfg(target_arch = "x86_64")]
use super::int3::STEPS;
use super::int3_acts::GROUP;
use super::int4::{PANEL, Panel, TileView};
use super::q8::TILE;
use super::simd::LANES;

/// One tile of tokens times one panel: `y[t][r]`.
pub fn tile_scalar(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES], y: &mut [f32; TILE * PANEL]) {
    for t in 0..TILE {
        for r in 0..PANEL {
            let (mut stack, mut depth, mut from) = ([0.0f32; 5], 0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut sum = 0.0f32;
                for i in from..end {
                    let slot = i * TILE + t;
                    let mut dot = x.offsets[slot];
                    for k in 0..GROUP {
                        let code = panel.codes[i * STEP_BYTES + (k / 4) * 64 + r * 4 + k % 4];
                        dot += i32::from(code) * i32::from(x.values[slot * GROUP + k]);
                    }
                    sum = (dot as f32).mul_add(panel.scales[i * PANEL + r] * x.scales[slot], sum);
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

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// See [`tile_scalar`].
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn tile_avx512(
        panel: &Panel,
        x: &TileView<'_>,
        ends: &[usize; LANES],
        y: &mut [f32; TILE * PANEL],
    ) {
        let groups = check_tile(panel, x, ends);
        debug_assert!(groups > 0);
        let mut stack = [[_mm512_setzero_ps(); TILE]; 5];
        let (mut depth, mut from) = (0, 0);
        for (lane, &end) in ends.iter().enumerate() {
            let mut acc = [_mm512_setzero_ps(); TILE];
            for i in from..end {
                // SAFETY: `check_tile` proved that group `i` is inside every slice.
                unsafe {
                    let codes = panel.codes.as_ptr().add(i * STEP_BYTES);
                    let c: [__m512i; STEPS] =
                        std::array::from_fn(|s| _mm512_loadu_si512(codes.add(s * 64).cast()));
                    let ws = _mm512_loadu_ps(panel.scales.as_ptr().add(i * PANEL));
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let slot = i * TILE + t;
                        let values = x.values.as_ptr().add(slot * GROUP).cast::<i32>();
                        let mut dot = _mm512_set1_epi32(*x.offsets.get_unchecked(slot));
                        for (s, c) in c.iter().enumerate() {
                            let v = _mm512_set1_epi32(values.add(s).read_unaligned());
                            dot = _mm512_dpbusd_epi32(dot, *c, v);
                        }
                        let scale = _mm512_mul_ps(ws, _mm512_set1_ps(*x.scales.get_unchecked(slot)));
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

    fn check_tile(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES]) -> usize {
        let groups = ends[LANES - 1];
        assert!(ends.is_sorted());
        assert!(panel.codes.len() >= groups * STEP_BYTES && panel.scales.len() >= groups * PANEL);
        assert!(x.values.len() >= groups * TILE * GROUP);
        assert!(x.scales.len() >= groups * TILE && x.offsets.len() >= groups * TILE);
        groups
    }

    /// See [`tile_scalar`].
    ///
    /// # Safety
    /// The machine has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn tile_avx2(
        panel: &Panel,
        x: &TileView<'_>,
        ends: &[usize; LANES],
        y: &mut [f32; TILE * PANEL],
    ) {
        check_tile(panel, x, ends);
        let ones = _mm256_set1_epi16(1);
        for half in 0..2 {
            let mut stack = [[_mm256_setzero_ps(); TILE]; 5];
            let (mut depth, mut from) = (0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut acc = [_mm256_setzero_ps(); TILE];
                for i in from..end {
                    // SAFETY: `check_tile` proved that group `i` is inside every slice.
                    unsafe {
                        let codes = panel.codes.as_ptr().add(i * STEP_BYTES + half * 32);
                        let c: [__m256i; STEPS] =
                            std::array::from_fn(|s| _mm256_loadu_si256(codes.add(s * 64).cast()));
                        let ws = _mm256_loadu_ps(panel.scales.as_ptr().add(i * PANEL + half * 8));
                        for (t, acc) in acc.iter_mut().enumerate() {
                            let slot = i * TILE + t;
                            let values = x.values.as_ptr().add(slot * GROUP).cast::<i32>();
                            // Ten steps of at most 2 * 7 * 127 fit 16 bits.
                            let mut sum = _mm256_setzero_si256();
                            for (s, c) in c.iter().enumerate() {
                                let v = _mm256_set1_epi32(values.add(s).read_unaligned());
                                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(*c, v));
                            }
                            let dot = _mm256_add_epi32(
                                _mm256_madd_epi16(sum, ones),
                                _mm256_set1_epi32(*x.offsets.get_unchecked(slot)),
                            );
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
}
