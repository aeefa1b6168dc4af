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
                (1, 1) => in_step::<D, F, 1, 2, 1>(w, &rows, x, t, y),
                (1, _) => in_step::<D, F, 1, 1, 2>(w, &rows, x, t, y),
                (_, 1) => in_step::<D, F, 2, 2, 1>(w, &rows, x, t, y),
                (_, _) => in_step::<D, F, 2, 1, 2>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(2);
    }
}

/// All rows against tokens `t0..t0 + T` in `P` planes, `R` rows in step: rows a part of the range apart,
/// so that waiting for memory at the beginning of one's page overlaps with that of the other.
///
/// # Safety
/// As for [`rows_avx2`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn in_step<D: Dots, F: Format, const P: usize, const R: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let part = rows.len() / R;
    for i in 0..part {
        let set = std::array::from_fn(|r| i + r * part);
        // SAFETY: rows of the range; the rest is the caller's promise.
        unsafe { some_rows::<D, F, P, R, T>(w, rows, set, x, t0, y) };
    }
    for i in part * R..rows.len() {
        // SAFETY: as above.
        unsafe { some_rows::<D, F, P, 1, T>(w, rows, [i], x, t0, y) };
    }
}

/// # Safety
/// As for [`rows_avx2`]; the lengths were checked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some_rows<D: Dots, F: Format, const P: usize, const R: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    set: [usize; R],
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    let size = w.scale_dtype.size();
    let mut acc = [[[_mm256_setzero_ps(); 2]; T]; R];
    let mut ws = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: `check` proved that every row's words and scales, and every token's values, scales and
    // offsets, are inside their slices.
    unsafe {
        // Loops, since a closure would not be compiled for the instruction set.
        let mut words = [std::ptr::null(); R];
        let mut scales = [std::ptr::null(); R];
        for r in 0..R {
            let row = rows.start + set[r];
            words[r] = w.words.as_ptr().add(row * w.groups * GROUP_BYTES);
            scales[r] = w.scales.as_ptr().add(row * w.groups * size);
        }
        for b in 0..full {
            let mut at = words;
            for r in 0..R {
                at[r] = words[r].add(b * LANES * GROUP_BYTES);
                let from = scales[r].add(b * LANES * size);
                ws[r] =
                    in_lane_order(scales8(w.scale_dtype, from), scales8(w.scale_dtype, from.add(8 * size)));
            }
            block::<D, F, P, R, T, 8>(at, LANES, &ws, x, t0, b, &mut acc);
        }
        if left > 0 {
            // What follows a row in memory may be read: its inputs are zero, and its scales are cleared.
            // Only behind the last rows there is nothing, so these are copied to where zeros follow.
            let mut copies = [[0u8; LANES * (GROUP_BYTES + 4)]; R];
            let mut at = words;
            let mask = MASK.as_ptr().add(LANES - left);
            let masks = [_mm256_loadu_ps(mask.cast()), _mm256_loadu_ps(mask.add(8).cast())];
            for r in 0..R {
                let row = rows.start + set[r];
                at[r] = words[r].add(full * LANES * GROUP_BYTES);
                let mut from = scales[r].add(full * LANES * size);
                let groups = (w.rows - row) * w.groups - full * LANES;
                if groups < LANES {
                    let (codes, scales) = copies[r].split_at_mut(LANES * GROUP_BYTES);
                    std::ptr::copy_nonoverlapping(at[r], codes.as_mut_ptr(), left * GROUP_BYTES);
                    std::ptr::copy_nonoverlapping(from, scales.as_mut_ptr(), left * size);
                    (at[r], from) = (codes.as_ptr(), scales.as_ptr());
                }
                let low = _mm256_and_ps(scales8(w.scale_dtype, from), masks[0]);
                let high = _mm256_and_ps(scales8(w.scale_dtype, from.add(8 * size)), masks[1]);
                ws[r] = in_lane_order(low, high);
            }
            if left <= 4 {
                block::<D, F, P, R, T, 2>(at, left, &ws, x, t0, full, &mut acc);
            } else {
                block::<D, F, P, R, T, 8>(at, left, &ws, x, t0, full, &mut acc);
            }
        }
        for (acc, i) in acc.iter().zip(set) {
            for (t, acc) in acc.iter().enumerate() {
                y[(t0 + t) * rows.len() + i] = sum(*acc);
            }
        }
    }
}

/// Ones before zeros: [`LANES`] from entry `LANES - n` on begin with `n` ones.
const MASK: [u32; 2 * LANES] = {
    let mut mask = [0; 2 * LANES];
    let mut i = 0;
    while i < LANES {
        mask[i] = u32::MAX;
        i += 1;
    }
    mask
};

/// [`tree_sum`](super::super::simd::tree_sum).
#[inline]
#[target_feature(enable = "avx2")]
fn sum(v: [__m256; 2]) -> f32 {
    let half = _mm256_add_ps(v[0], v[1]);
    let quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
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

/// Up to 16 groups of `R` rows, in the first `N` vectors, against `T` tokens.
///
/// # Safety
/// The words of `groups` groups, rounded up to whole vectors, at each of `words`, block `b` in `x` for
/// tokens `t0..t0 + T`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<D: Dots, F: Format, const P: usize, const R: usize, const T: usize, const N: usize>(
    words: [*const u8; R],
    groups: usize,
    ws: &[[__m256; 2]; R],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[[__m256; 2]; T]; R],
) {
    // A vector is two groups; groups 4 v .. 4 v + 4 are vectors 2 v and 2 v + 1. Even vectors hold groups
    // 4 v + 0 and 1, that is lanes 0..8; odd ones lanes 8..16.
    for half in 0..2 {
        let mut dots = [[[_mm256_setzero_si256(); 4]; T]; R];
        for v in (half..N).step_by(2) {
            if 2 * v >= groups {
                break;
            }
            for r in 0..R {
                // SAFETY: the caller promises the bytes and the block.
                unsafe {
                    let parts = F::split_avx2(_mm256_loadu_si256(words[r].add(v * 32).cast()));
                    for t in 0..T {
                        let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                        let at = block + (v / 2) * 64 * F::PARTS * P + (v % 2) * 32;
                        let values = x.values.as_ptr().add(at);
                        let mut dot = _mm256_setzero_si256();
                        for p in 0..P {
                            let mut sum = _mm256_setzero_si256();
                            for (i, part) in parts[..F::PARTS].iter().enumerate() {
                                let values = values.add((p * F::PARTS + i) * 64);
                                sum = D::step(sum, *part, _mm256_loadu_si256(values.cast()));
                            }
                            let more = D::finish(sum);
                            let high = _mm256_slli_epi32::<7>(dot);
                            dot = if p == 0 { more } else { _mm256_add_epi32(high, more) };
                        }
                        dots[r][t][v / 2] = dot;
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                let [v0, v1, v2, v3] = dots[r][t];
                let (p, q) = (pairs(v0, v1), pairs(v2, v3));
                let sum = _mm256_add_epi32(_mm256_unpacklo_epi64(p, q), _mm256_unpackhi_epi64(p, q));
                // SAFETY: the caller promises the token's block.
                unsafe {
                    let at = ((t0 + t) * x.blocks + b) * LANES + half * 8;
                    let offset = _mm256_loadu_si256(x.offsets.as_ptr().add(at).cast());
                    let scale = _mm256_mul_ps(ws[r][half], _mm256_loadu_ps(x.scales.as_ptr().add(at)));
                    let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, offset));
                    acc[r][t][half] = _mm256_fmadd_ps(dot, scale, acc[r][t][half]);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn pairs(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b))
}
