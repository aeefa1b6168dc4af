//! AVX-512 with VNNI: 16 words at a time, one `vpdpbusd` for each part and plane.

use super::super::codes::GROUP_BYTES;
use super::super::codes::x86::{scales16, some_scales16};
use super::super::simd::Wide;
use super::*;
use std::arch::x86_64::*;

/// See [`rows_scalar`]; up to 2 tokens share one unpacking.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL, DQ, VNNI and what `W` says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn rows_avx512<W: Wide, F: Format>(
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
                (1, 1) => in_step::<W, F, 1, 4, 1>(w, &rows, x, t, y),
                (1, _) => in_step::<W, F, 1, 2, 2>(w, &rows, x, t, y),
                (_, 1) => in_step::<W, F, 2, 4, 1>(w, &rows, x, t, y),
                (_, _) => in_step::<W, F, 2, 2, 2>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(2);
    }
}

/// All rows against tokens `t0..t0 + T` in `P` planes, `R` rows in step: rows a part of the range apart,
/// so that waiting for memory at the beginning of one's page overlaps with that of the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn in_step<W: Wide, F: Format, const P: usize, const R: usize, const T: usize>(
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
        unsafe { some_rows::<W, F, P, R, T>(w, rows, set, x, t0, y) };
    }
    for i in part * R..rows.len() {
        // SAFETY: as above.
        unsafe { some_rows::<W, F, P, 1, T>(w, rows, [i], x, t0, y) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn some_rows<W: Wide, F: Format, const P: usize, const R: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    set: [usize; R],
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let size = w.scale_dtype.size();
    let mut acc = [[_mm512_setzero_ps(); T]; R];
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
        let (mut at, mut ws) = (words, [_mm512_setzero_ps(); R]);
        for b in 0..full {
            for r in 0..R {
                at[r] = words[r].add(b * LANES * GROUP_BYTES);
                let s = scales16(w.scale_dtype, scales[r].add(b * LANES * size));
                ws[r] = _mm512_permutexvar_ps(order, s);
            }
            block::<W, F, P, R, T, 4>(at, [u16::MAX; 4], ws, x, t0, b, &mut acc);
        }
        if left > 0 {
            // The bits of `left` groups of four words, cut into the masks of four vectors; absent
            // groups are zero codes with zero scales.
            let bits = (1u64 << (4 * left)) - 1;
            let masks = [bits as u16, (bits >> 16) as u16, (bits >> 32) as u16, (bits >> 48) as u16];
            for r in 0..R {
                at[r] = words[r].add(full * LANES * GROUP_BYTES);
                let s = some_scales16(w.scale_dtype, scales[r].add(full * LANES * size), left);
                ws[r] = _mm512_permutexvar_ps(order, s);
            }
            if left <= 4 {
                block::<W, F, P, R, T, 1>(at, masks, ws, x, t0, full, &mut acc);
            } else {
                block::<W, F, P, R, T, 4>(at, masks, ws, x, t0, full, &mut acc);
            }
        }
        // R * T is at most 4.
        let mut four = [_mm512_setzero_ps(); 4];
        four[..R * T].copy_from_slice(acc.as_flattened());
        let sums = tree_sums(four);
        for r in 0..R {
            for t in 0..T {
                y[(t0 + t) * rows.len() + set[r]] = sums[r * T + t];
            }
        }
    }
}

/// [`tree_sum`](super::super::simd::tree_sum) of four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn tree_sums(v: [__m512; 4]) -> [f32; 4] {
    let mut quarter = [_mm_setzero_ps(); 4];
    for (q, v) in quarter.iter_mut().zip(v) {
        let half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        *q = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    }
    let [a, b, c, d] = quarter;
    // a0 + a2, b0 + b2, a1 + a3, b1 + b3
    let ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    let cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    let sum = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    let mut out = [0.0; 4];
    // SAFETY: room for four values.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sum) };
    out
}

/// 16 groups of `R` rows, in the first `N` vectors, against `T` tokens; words outside the masks count as
/// zero.
///
/// # Safety
/// The words of the masks at each of `words`, block `b` in `x` for tokens `t0..t0 + T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn block<W: Wide, F: Format, const P: usize, const R: usize, const T: usize, const N: usize>(
    words: [*const u8; R],
    masks: [u16; 4],
    ws: [__m512; R],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[__m512; T]; R],
) {
    let zero = _mm512_setzero_si512();
    // Two vectors become one as soon as both are there, or the registers would not suffice.
    let mut halves = [[[zero; 2]; T]; R];
    for half in 0..N.div_ceil(2) {
        let mut dots = [[[zero; 2]; T]; R];
        for i in 0..2.min(N - 2 * half) {
            // SAFETY: the caller promises the words and the block.
            unsafe { dots_of::<W, F, P, R, T>(words, 2 * half + i, masks, x, t0, b, &mut dots, i) };
        }
        for r in 0..R {
            for t in 0..T {
                halves[r][t][half] = pairs(dots[r][t][0], dots[r][t][1]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            // Sum of each 128-bit lane of each vector: lane 4 c + v holds that of lane c of vector v.
            let [p, q] = halves[r][t];
            let sum = _mm512_add_epi32(_mm512_unpacklo_epi64(p, q), _mm512_unpackhi_epi64(p, q));
            // SAFETY: the caller promises the token's block.
            unsafe {
                let at = ((t0 + t) * x.blocks + b) * LANES;
                let offset = _mm512_loadu_si512(x.offsets.as_ptr().add(at).cast());
                let scale = _mm512_mul_ps(ws[r], _mm512_loadu_ps(x.scales.as_ptr().add(at)));
                let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, offset));
                acc[r][t] = _mm512_fmadd_ps(dot, scale, acc[r][t]);
            }
        }
    }
}

/// Products of vector `v` of the block: `dots[row][token][i]`.
///
/// # Safety
/// As for [`block`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
#[allow(clippy::too_many_arguments)]
unsafe fn dots_of<W: Wide, F: Format, const P: usize, const R: usize, const T: usize>(
    words: [*const u8; R],
    v: usize,
    masks: [u16; 4],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    dots: &mut [[[__m512i; 2]; T]; R],
    i: usize,
) {
    // SAFETY: the caller promises the words and the block.
    unsafe {
        for r in 0..R {
            let at = words[r].add(v * 64);
            let codes = match masks[v] {
                u16::MAX => _mm512_loadu_si512(at.cast()),
                mask => _mm512_maskz_loadu_epi32(mask, at.cast()),
            };
            let parts = F::split_avx512::<W>(codes);
            for t in 0..T {
                let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                let values = x.values.as_ptr().add(block + v * 64 * F::PARTS * P);
                let mut dot = _mm512_setzero_si512();
                for p in 0..P {
                    if p > 0 {
                        dot = _mm512_slli_epi32::<7>(dot);
                    }
                    for (i, part) in parts[..F::PARTS].iter().enumerate() {
                        let values = values.add((p * F::PARTS + i) * 64);
                        dot = _mm512_dpbusd_epi32(dot, *part, _mm512_loadu_si512(values.cast()));
                    }
                }
                dots[r][t][i] = dot;
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}
