//! AVX2 and AVX-VNNI: 8 words at a time.

use super::super::codes::GROUP_BYTES;
use super::super::codes::x86::scales8;
use super::super::simd::Dots;
use super::*;
use std::arch::x86_64::*;

/// See [`rows_scalar`]; up to 2 tokens share one unpacking.
///
/// # Safety
/// The machine has AVX2, FMA, F16C and what `D` needs.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn rows_avx2<D: Dots, F: Format>(
    w: &Codes<'_>,
    rows: Range<usize>,
    x: &q8::Rows,
    n: usize,
    y: &mut [f32],
) {
    w.check::<F>(&rows, x, n, y);
    let mut t = 0;
    while t < n {
        // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
        unsafe {
            match (x.planes, n - t) {
                (1, 1) => some_tokens::<D, F, 1, 1>(w, &rows, x, t, y),
                (1, _) => some_tokens::<D, F, 1, 2>(w, &rows, x, t, y),
                (_, 1) => some_tokens::<D, F, 2, 1>(w, &rows, x, t, y),
                (_, _) => some_tokens::<D, F, 2, 2>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(2);
    }
}

/// All rows against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// As for [`rows_avx2`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some_tokens<D: Dots, F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let count = rows.len();
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    let size = w.scale_dtype.size();
    for (i, row) in rows.clone().enumerate() {
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        // SAFETY: `check` proved that every row's words and scales, and every token's values, scales and
        // offsets, are inside their slices.
        unsafe {
            let words = w.words.as_ptr().add(row * w.groups * GROUP_BYTES);
            let scales = w.scales.as_ptr().add(row * w.groups * size);
            let in_order = |at: *const u8| {
                in_lane_order(scales8(w.scale_dtype, at), scales8(w.scale_dtype, at.add(8 * size)))
            };
            for b in 0..full {
                let ws = in_order(scales.add(b * LANES * size));
                block::<D, F, P, T>(words.add(b * LANES * GROUP_BYTES), LANES, ws, x, t0, b, &mut acc);
            }
            if left > 0 {
                // Copied to where zeros follow.
                let (mut codes, mut ws) = ([0u8; LANES * GROUP_BYTES], [0u8; LANES * 4]);
                let from = words.add(full * LANES * GROUP_BYTES);
                std::ptr::copy_nonoverlapping(from, codes.as_mut_ptr(), left * GROUP_BYTES);
                let from = scales.add(full * LANES * size);
                std::ptr::copy_nonoverlapping(from, ws.as_mut_ptr(), left * size);
                block::<D, F, P, T>(codes.as_ptr(), left, in_order(ws.as_ptr()), x, t0, full, &mut acc);
            }
            for (t, acc) in acc.iter().enumerate() {
                let mut sums = [0.0; LANES];
                _mm256_storeu_ps(sums.as_mut_ptr(), acc[0]);
                _mm256_storeu_ps(sums.as_mut_ptr().add(8), acc[1]);
                y[(t0 + t) * count + i] = tree_sum(sums);
            }
        }
    }
}

/// Scales 0..8 and 8..16 to lanes 0..8 = scales 0 4 8 12 1 5 9 13 and lanes 8..16 = the rest.
#[inline]
#[target_feature(enable = "avx2")]
fn in_lane_order(a: __m256, b: __m256) -> [__m256; 2] {
    // Each register holds two rows of a 4 x 4 matrix whose transpose is wanted.
    let pairs = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let (a, b) = (_mm256_permutevar8x32_ps(a, pairs), _mm256_permutevar8x32_ps(b, pairs));
    // a: 0 4 1 5 | 2 6 3 7, b: 8 12 9 13 | 10 14 11 15.
    let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
    let (lo, hi) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    // lo: 0 4 8 12 | 2 6 10 14, hi: 1 5 9 13 | 3 7 11 15.
    [
        _mm256_castpd_ps(_mm256_permute2f128_pd::<0x20>(lo, hi)),
        _mm256_castpd_ps(_mm256_permute2f128_pd::<0x31>(lo, hi)),
    ]
}

/// Up to 16 groups of one row against `T` tokens.
///
/// # Safety
/// 256 bytes at `words`, block `b` in `x` for tokens `t0..t0 + T`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<D: Dots, F: Format, const P: usize, const T: usize>(
    words: *const u8,
    groups: usize,
    ws: [__m256; 2],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[__m256; 2]; T],
) {
    let mut dots = [[_mm256_setzero_si256(); 8]; T];
    for v in 0..8 {
        // A vector is two groups; groups 4 v' .. 4 v' + 4 are vectors 2 v' and 2 v' + 1.
        if 2 * v >= groups {
            break;
        }
        // SAFETY: the caller promises the bytes and the block.
        unsafe {
            let parts = F::split_avx2(_mm256_loadu_si256(words.add(v * 32).cast()));
            for (t, dots) in dots.iter_mut().enumerate() {
                let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                let values = x.values.as_ptr().add(block + (v / 2) * 64 * F::PARTS * P + (v % 2) * 32);
                let mut dot = _mm256_setzero_si256();
                for p in 0..P {
                    let mut sum = _mm256_setzero_si256();
                    for (i, part) in parts[..F::PARTS].iter().enumerate() {
                        let values = values.add((p * F::PARTS + i) * 64);
                        sum = D::step(sum, *part, _mm256_loadu_si256(values.cast()));
                    }
                    let more = D::finish(sum);
                    dot = if p == 0 { more } else { _mm256_add_epi32(_mm256_slli_epi32::<7>(dot), more) };
                }
                dots[v] = dot;
            }
        }
    }
    for (t, (d, acc)) in dots.iter().zip(acc).enumerate() {
        let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        for half in 0..2 {
            // Even vectors hold groups 4 v + 0 and 1, that is lanes 0..8; odd ones lanes 8..16.
            let (p, q) = (pair(d[half], d[half + 2]), pair(d[half + 4], d[half + 6]));
            let sum = _mm256_add_epi32(_mm256_unpacklo_epi64(p, q), _mm256_unpackhi_epi64(p, q));
            // SAFETY: the caller promises the token's block.
            unsafe {
                let at = ((t0 + t) * x.blocks + b) * LANES + half * 8;
                let offset = _mm256_loadu_si256(x.offsets.as_ptr().add(at).cast());
                let scale = _mm256_mul_ps(ws[half], _mm256_loadu_ps(x.scales.as_ptr().add(at)));
                let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, offset));
                acc[half] = _mm256_fmadd_ps(dot, scale, acc[half]);
            }
        }
    }
}
