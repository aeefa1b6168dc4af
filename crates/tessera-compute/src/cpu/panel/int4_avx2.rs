//! Panels of 4-bit rows that are streams, with AVX2: 8 rows are transposed in registers.

use super::super::codes::x86::scales8;
use super::*;
use std::arch::x86_64::*;

/// Rows, and groups of scales, that are transposed together.
const EIGHT: usize = 8;

/// See [`scalar`]: 4-bit rows that are streams.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn int4_nk_avx2(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    let base = panel.prepare_int4(w, row, order);
    for g in 0..w.groups {
        let at = panel.place[g] as usize * 512;
        let out = panel.codes[at..at + 512].as_mut_ptr();
        for half in 0..2 {
            // SAFETY: group `g` of each row is inside `words`; room for two halves of eight steps.
            unsafe {
                // Row `r` in the low 128 bits, row `r + 4` in the high ones.
                let two = |r: usize| {
                    let at = |r: usize| base[half * EIGHT + r].add(g * GROUP_BYTES).cast();
                    _mm256_inserti128_si256::<1>(
                        _mm256_castsi128_si256(_mm_loadu_si128(at(r))),
                        _mm_loadu_si128(at(r + 4)),
                    )
                };
                unpack_group([two(0), two(1), two(2), two(3)], out.add(half * 32));
            }
        }
    }
    panel_scales(w, row, panel);
}

/// One group of 8 rows to half of the 8 steps of a panel.
///
/// # Safety
/// Room for 480 bytes at `out`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_group(rows: [__m256i; 4], out: *mut u8) {
    let low = _mm256_set1_epi8(15);
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    let steps = [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ];
    for (s, v) in steps.into_iter().enumerate() {
        // SAFETY: the caller promises the room.
        unsafe {
            _mm256_storeu_si256(out.add(s * 64).cast(), _mm256_and_si256(v, low));
            let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(v), low);
            _mm256_storeu_si256(out.add(256 + s * 64).cast(), odd);
        }
    }
}

/// Scales of a panel: 8 rows times 8 groups are widened and transposed at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn panel_scales(w: &Codes<'_>, row: usize, panel: &mut Panel) {
    let size = w.scale_dtype.size();
    let whole = w.groups / EIGHT * EIGHT;
    for first in (0..whole).step_by(EIGHT) {
        for half in 0..2 {
            let mut rows = [_mm256_setzero_ps(); EIGHT];
            for (r, scales) in rows.iter_mut().enumerate() {
                let row = (row + half * EIGHT + r).min(w.rows - 1);
                let at = (row * w.groups + first) * size;
                let s = w.scales[at..at + EIGHT * size].as_ptr();
                // SAFETY: 8 scales from `s` are inside, as just sliced.
                *scales = unsafe { scales8(w.scale_dtype, s) };
            }
            for (g, v) in transpose(rows).into_iter().enumerate() {
                let at = panel.place[first + g] as usize * PANEL + half * EIGHT;
                let out = panel.scales[at..at + EIGHT].as_mut_ptr();
                // SAFETY: room for 8 values, as just sliced.
                unsafe { _mm256_storeu_ps(out, v) };
            }
        }
    }
    for g in whole..w.groups {
        let at = panel.place[g] as usize * PANEL;
        for (r, scale) in panel.scales[at..at + PANEL].iter_mut().enumerate() {
            *scale = w.scale((row + r).min(w.rows - 1) * w.groups + g);
        }
    }
}

/// 8 rows of 8 values to 8 columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(a: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = a;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four rows.
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        let [p, q, r, s] = [0, 1, 2, 3].map(|k| _mm256_castps_pd(pairs[i + k]));
        fours[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(p, r));
        fours[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(p, r));
        fours[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(q, s));
        fours[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(q, s));
    }
    let mut out = a;
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        out[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    out
}
