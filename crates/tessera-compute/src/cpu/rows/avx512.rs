//! AVX-512 with VNNI: 16 words at a time, one `vpdpbusd` for each part and plane.

use super::super::codes::GROUP_BYTES;
use super::super::codes::x86::{scales16, some_scales16};
use super::super::simd::Wide;
use super::*;
use std::arch::x86_64::*;

/// See [`rows_scalar`]; up to 4 tokens share one unpacking.
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
                (1, 2) => in_step::<W, F, 1, 2, 2>(w, &rows, x, t, y),
                (1, 3) => in_step::<W, F, 1, 1, 3>(w, &rows, x, t, y),
                (1, _) => in_step::<W, F, 1, 1, 4>(w, &rows, x, t, y),
                (_, 1) => in_step::<W, F, 2, 4, 1>(w, &rows, x, t, y),
                (_, 2) => in_step::<W, F, 2, 2, 2>(w, &rows, x, t, y),
                (_, 3) => in_step::<W, F, 2, 1, 3>(w, &rows, x, t, y),
                (_, _) => in_step::<W, F, 2, 1, 4>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(4);
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
        let words = set.map(|r| w.words.as_ptr().add((rows.start + r) * w.groups * GROUP_BYTES));
        let scales = set.map(|r| w.scales.as_ptr().add((rows.start + r) * w.groups * size));
        for b in 0..full {
            let at = words.map(|words| words.add(b * LANES * GROUP_BYTES));
            let ws = scales
                .map(|s| _mm512_permutexvar_ps(order, scales16(w.scale_dtype, s.add(b * LANES * size))));
            block::<W, F, P, R, T>(at, [u16::MAX; 4], ws, x, t0, b, &mut acc);
        }
        if left > 0 {
            // The bits of `left` groups of four words, cut into the masks of four vectors; absent
            // groups are zero codes with zero scales.
            let bits = (1u64 << (4 * left)) - 1;
            let masks = [0, 16, 32, 48].map(|v| (bits >> v) as u16);
            let at = words.map(|words| words.add(full * LANES * GROUP_BYTES));
            let ws = scales.map(|s| {
                let s = some_scales16(w.scale_dtype, s.add(full * LANES * size), left);
                _mm512_permutexvar_ps(order, s)
            });
            block::<W, F, P, R, T>(at, masks, ws, x, t0, full, &mut acc);
        }
        for r in 0..R {
            for t in 0..T {
                let mut sums = [0.0; LANES];
                _mm512_storeu_ps(sums.as_mut_ptr(), acc[r][t]);
                y[(t0 + t) * rows.len() + set[r]] = tree_sum(sums);
            }
        }
    }
}

/// 16 groups of `R` rows against `T` tokens; words outside the masks count as zero.
///
/// # Safety
/// The words of the masks at each of `words`, block `b` in `x` for tokens `t0..t0 + T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn block<W: Wide, F: Format, const P: usize, const R: usize, const T: usize>(
    words: [*const u8; R],
    masks: [u16; 4],
    ws: [__m512; R],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[__m512; T]; R],
) {
    let zero = _mm512_setzero_si512();
    let mut dots = [[[zero; 4]; T]; R];
    for v in 0..4 {
        // SAFETY: the caller promises the words and the block.
        unsafe {
            for r in 0..R {
                let at = words[r].add(v * 64);
                let codes = match masks[v] {
                    u16::MAX => _mm512_loadu_si512(at.cast()),
                    0 => continue,
                    mask => _mm512_maskz_loadu_epi32(mask, at.cast()),
                };
                let parts = F::split_avx512::<W>(codes);
                for t in 0..T {
                    let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                    let values = x.values.as_ptr().add(block + v * 64 * F::PARTS * P);
                    let mut dot = zero;
                    for p in 0..P {
                        if p > 0 {
                            dot = _mm512_slli_epi32::<7>(dot);
                        }
                        for (i, part) in parts[..F::PARTS].iter().enumerate() {
                            let values = values.add((p * F::PARTS + i) * 64);
                            dot = _mm512_dpbusd_epi32(dot, *part, _mm512_loadu_si512(values.cast()));
                        }
                    }
                    dots[r][t][v] = dot;
                }
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            let d = dots[r][t];
            // Sum of each 128-bit lane of each vector: lane 4 c + v holds that of lane c of vector v.
            let (p, q) = (pairs(d[0], d[1]), pairs(d[2], d[3]));
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

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}
