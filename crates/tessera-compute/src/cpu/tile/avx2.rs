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
            1 => some::<D, F, 1, 4>(panel, x, ends, y),
            _ => some::<D, F, 2, 2>(panel, x, ends, y),
        }
    }
}

/// `T` tokens in `P` planes at a time: with both halves of a panel these are eight sums in registers, for
/// which every code is read once and every value once.
///
/// # Safety
/// As for [`tile_avx2`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some<D: Dots, F: Format, const P: usize, const T: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    let zero = _mm256_setzero_ps();
    let mut stack = [[[zero; 2]; TILE]; 5];
    let (mut depth, mut from) = (0, 0);
    let mut fetch = Fetch::new(x.ahead, ends[LANES - 1]);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = [[zero; 2]; TILE];
        for i in from..end {
            // SAFETY: group `i` is inside every slice; a tile has room for all its tokens.
            unsafe {
                fetch.next::<Avx2>();
                for first in (0..x.count).step_by(T) {
                    let dots = group::<D, F, P, T>(panel, x, i, first);
                    for half in 0..2 {
                        let ws = _mm256_loadu_ps(panel.scales.as_ptr().add(i * PANEL + half * 8));
                        for (t, dots) in dots.iter().enumerate() {
                            let slot = i * TILE + first + t;
                            let offset = _mm256_set1_epi32(*x.offsets.as_ptr().add(slot));
                            let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[half], offset));
                            let scale = _mm256_mul_ps(ws, _mm256_set1_ps(*x.scales.as_ptr().add(slot)));
                            let acc = &mut acc[first + t][half];
                            *acc = _mm256_fmadd_ps(dot, scale, *acc);
                        }
                    }
                }
            }
        }
        from = end;
        for _ in 0..(lane + 1).trailing_zeros() {
            depth -= 1;
            let sums = acc.as_flattened_mut().iter_mut().zip(stack[depth].as_flattened());
            sums.for_each(|(acc, s)| *acc = _mm256_add_ps(*acc, *s));
        }
        stack[depth] = acc;
        depth += 1;
    }
    for (i, v) in stack[0].as_flattened().iter().enumerate() {
        // SAFETY: `y` holds TILE rows of 16.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr().add(i * 8), *v) };
    }
}

/// The products of group `i`, without offsets: `[token][half of the panel]`.
///
/// # Safety
/// The group and tokens `first..first + T` are inside the slices.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group<D: Dots, F: Format, const P: usize, const T: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    i: usize,
    first: usize,
) -> [[__m256i; 2]; T] {
    // SAFETY: the caller's promise; four rows of values follow each other.
    unsafe {
        let codes = panel.codes.as_ptr().add(i * F::STEPS * 64);
        let values = x.values.as_ptr().add((i * TILE + first) * P * F::GROUP);
        let four = D::four::<F>(codes, values);
        // `[token][plane][half]`
        let sums: [[[__m256i; 2]; P]; T] = std::array::from_fn(|t| std::array::from_fn(|p| four[t * P + p]));
        let mut dots = [[_mm256_setzero_si256(); 2]; T];
        for (dots, sums) in dots.iter_mut().zip(sums) {
            for half in 0..2 {
                dots[half] = D::finish(sums[P - 1][half]);
                if P == 2 {
                    let high = _mm256_slli_epi32::<7>(D::finish(sums[0][half]));
                    dots[half] = _mm256_add_epi32(dots[half], high);
                }
            }
        }
        dots
    }
}
