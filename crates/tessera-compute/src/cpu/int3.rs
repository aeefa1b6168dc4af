//! Products with 3-bit weights: how words are split, the kernel for a few tokens and rows that are
//! streams (`q3f16_1`), and the unpacking of panels for both layouts. Many tokens: `int3_tile`.
//!
//! The arithmetic is that of [`super::int4`] with groups of 40: exact integer dots, groups summed in 16
//! lanes, then [`tree_sum`].

use super::codes::{Codes, GROUP_BYTES};
use super::int3_acts::{BLOCK, group_at};
use super::int4::{PANEL, Panel};
use super::q8;
use super::simd::{LANES, tree_sum};
use std::ops::Range;

/// Steps of four inputs in a group.
pub const STEPS: usize = 10;
/// Bytes of a group of a panel.
pub const STEP_BYTES: usize = STEPS * 4 * PANEL;

/// Codes 0, 3, 6, 8 of a word as bytes, codes 1, 4, 7, 9, and codes 2, 5 with two zeros.
///
/// The first eight of these lie in pairs that begin at bits 0, 9, 18 and 24: one pair in each byte
/// after shifts by 0, 1, 2 and 0.
#[inline(always)]
pub const fn split(w: u32) -> (u32, u32, u32) {
    let pairs = (w & 0x3f00_003f) | ((w >> 1) & 0x3f00) | ((w >> 2) & 0x003f_0000);
    let rest = ((w >> 6) & 7) | ((w >> 7) & 0x700);
    (pairs & 0x0707_0707, (pairs >> 3) & 0x0707_0707, rest)
}

/// Σ code * value of a word; A's four values at `at`, B's and C's 64 and 128 further.
#[inline(always)]
pub(super) fn word_dot(word: u32, values: &[i8], at: usize) -> i32 {
    let (a, b, c) = split(word);
    let mut dot = 0;
    for (part, codes) in [a, b, c].into_iter().enumerate() {
        for (i, code) in codes.to_le_bytes().into_iter().enumerate() {
            dot += i32::from(code) * i32::from(values[at + part * 64 + i]);
        }
    }
    dot
}

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn rows_scalar(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check(&rows, x, BLOCK, n, y);
    let count = rows.len();
    for t in 0..n {
        for (i, row) in rows.clone().enumerate() {
            let mut sums = [0.0f32; LANES];
            for g in 0..w.groups {
                let (block, j) = (t * x.blocks + g / LANES, g % LANES);
                let at = block * BLOCK + group_at(j);
                let first = (row * w.groups + g) * 4;
                let dot: i32 = (0..4).map(|s| word_dot(w.word(first + s), &x.values, at + 4 * s)).sum();
                let lane = q8::lane_of(j);
                let a = block * LANES + lane;
                let dot = (dot + x.offsets[a]) as f32;
                sums[lane] = dot.mul_add(w.scale(row * w.groups + g) * x.scales[a], sums[lane]);
            }
            y[t * count + i] = tree_sum(sums);
        }
    }
}

/// Unpacks the 16 rows from `row`; rows past the last one are zero.
pub fn panel_scalar(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    unpack::<false>(w, row, order, panel);
}

/// As [`panel_scalar`], for the layout KN.
pub fn panel_kn_scalar(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    unpack::<true>(w, row, order, panel);
}

/// Compiles to vector code by itself, once the words of 16 rows lie beside each other.
#[inline(always)]
fn unpack<const KN: bool>(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    w.check_len();
    let width = PANEL.min(w.rows - row);
    panel.codes.resize(order.len() * STEP_BYTES, 0);
    panel.scales.resize(order.len() * PANEL, 0.0);
    let outs = panel.codes.chunks_exact_mut(STEP_BYTES).zip(panel.scales.chunks_exact_mut(PANEL));
    for (&g, (codes, scales)) in order.iter().zip(outs) {
        let g = g as usize;
        let mut words = [[0u32; PANEL]; 4];
        for r in 0..width {
            if KN {
                for (s, words) in words.iter_mut().enumerate() {
                    words[r] = w.word((4 * g + s) * w.rows + row + r);
                }
                scales[r] = w.scale(g * w.rows + row + r);
            } else {
                let at = (row + r) * w.groups + g;
                let group = &w.words[at * GROUP_BYTES..(at + 1) * GROUP_BYTES];
                for (words, b) in words.iter_mut().zip(group.chunks_exact(4)) {
                    words[r] = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
                scales[r] = w.scale(at);
            }
        }
        scales[width..].fill(0.0);
        let mut steps = [[0u32; PANEL]; STEPS];
        for (s, words) in words.iter().enumerate() {
            for (r, word) in words.iter().enumerate() {
                let (a, b, c) = split(*word);
                steps[s][r] = a;
                steps[4 + s][r] = b;
                // The two codes of C from two words fill one step.
                steps[8 + s / 2][r] |= c << (16 * (s % 2));
            }
        }
        for (out, v) in codes.chunks_exact_mut(4).zip(steps.as_flattened()) {
            out.copy_from_slice(&v.to_le_bytes());
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::codes::x86::{scales8, scales16, some_scales16};
    use super::*;
    use std::arch::x86_64::*;

    /// Bytes by which words are prefetched: the hardware stops at the end of a page.
    const AHEAD: usize = 2048;

    /// [`split`] of 16 words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(in super::super) fn split_avx512(w: __m512i) -> [__m512i; 3] {
        // 0xca: bits of the second where the first has ones, else of the third.
        let select = |mask: i32, a, b| _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask), a, b);
        let seven = _mm512_set1_epi32(0x0707_0707);
        let pairs = select(0x3f00, _mm512_srli_epi32::<1>(w), w);
        let pairs = select(0x003f_0000, _mm512_srli_epi32::<2>(w), pairs);
        let rest = select(7, _mm512_srli_epi32::<6>(w), _mm512_srli_epi32::<7>(w));
        [
            _mm512_and_si512(pairs, seven),
            _mm512_and_si512(_mm512_srli_epi32::<3>(pairs), seven),
            _mm512_and_si512(rest, _mm512_set1_epi32(0x707)),
        ]
    }

    /// [`split`] of 8 words.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in super::super) fn split_avx2(w: __m256i) -> [__m256i; 3] {
        let and = |v, mask: i32| _mm256_and_si256(v, _mm256_set1_epi32(mask));
        let pairs = _mm256_or_si256(
            _mm256_or_si256(and(w, 0x3f00_003f), and(_mm256_srli_epi32::<1>(w), 0x3f00)),
            and(_mm256_srli_epi32::<2>(w), 0x003f_0000),
        );
        [
            and(pairs, 0x0707_0707),
            and(_mm256_srli_epi32::<3>(pairs), 0x0707_0707),
            _mm256_or_si256(and(_mm256_srli_epi32::<6>(w), 7), and(_mm256_srli_epi32::<7>(w), 0x700)),
        ]
    }

    /// See [`rows_scalar`]; up to 4 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn rows_avx512(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        w.check(&rows, x, BLOCK, n, y);
        let mut t = 0;
        while t < n {
            // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
            unsafe {
                match n - t {
                    1 => rows_avx512_t::<1>(w, &rows, x, t, y),
                    2 => rows_avx512_t::<2>(w, &rows, x, t, y),
                    3 => rows_avx512_t::<3>(w, &rows, x, t, y),
                    _ => rows_avx512_t::<4>(w, &rows, x, t, y),
                }
            }
            t += (n - t).min(4);
        }
    }

    /// # Safety
    /// As for [`rows_avx512`]; the lengths were checked.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn rows_avx512_t<const T: usize>(
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
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for (i, row) in rows.clone().enumerate() {
            // SAFETY: `check` proved that every row's words and scales, and every token's values,
            // scales and offsets, are inside their slices.
            unsafe {
                let mut acc = [_mm512_setzero_ps(); T];
                let words = w.words.as_ptr().add(row * w.groups * GROUP_BYTES);
                let scales = w.scales.as_ptr().add(row * w.groups * size);
                for b in 0..full {
                    let ws = scales16(w.scale_dtype, scales.add(b * LANES * size));
                    let ws = _mm512_permutexvar_ps(order, ws);
                    // Rows follow each other, so this runs into the next one; it may name any address.
                    for line in (0..256).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(b * 256 + AHEAD + line).cast());
                    }
                    _mm_prefetch::<_MM_HINT_T0>(scales.wrapping_add(b * LANES * size + AHEAD / 4).cast());
                    block_avx512::<T>(words.add(b * 256), [u16::MAX; 4], ws, x, t0, b, &mut acc);
                }
                if left > 0 {
                    // The bits of `left` groups of four words, cut into the masks of four vectors.
                    let bits = (1u64 << (4 * left)) - 1;
                    let masks = [0, 16, 32, 48].map(|v| (bits >> v) as u16);
                    let ws = some_scales16(w.scale_dtype, scales.add(full * LANES * size), left);
                    let ws = _mm512_permutexvar_ps(order, ws);
                    block_avx512::<T>(words.add(full * 256), masks, ws, x, t0, full, &mut acc);
                }
                for (t, acc) in acc.iter().enumerate() {
                    let mut sums = [0.0; LANES];
                    _mm512_storeu_ps(sums.as_mut_ptr(), *acc);
                    y[(t0 + t) * count + i] = tree_sum(sums);
                }
            }
        }
    }

    /// 16 groups of one row against `T` tokens; words outside the masks count as zero.
    ///
    /// # Safety
    /// The words of the masks at `words`, block `b` in `x` for tokens `t0..t0 + T`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn block_avx512<const T: usize>(
        words: *const u8,
        masks: [u16; 4],
        ws: __m512,
        x: &q8::Rows,
        t0: usize,
        b: usize,
        acc: &mut [__m512; T],
    ) {
        let mut dots = [[_mm512_setzero_si512(); 4]; T];
        for v in 0..4 {
            // SAFETY: the caller promises the bytes and the block.
            unsafe {
                let parts = split_avx512(_mm512_maskz_loadu_epi32(masks[v], words.add(v * 64).cast()));
                for (t, dots) in dots.iter_mut().enumerate() {
                    let at = x.values.as_ptr().add(((t0 + t) * x.blocks + b) * BLOCK + v * 192);
                    for (p, part) in parts.iter().enumerate() {
                        let values = _mm512_loadu_si512(at.add(p * 64).cast());
                        dots[v] = _mm512_dpbusd_epi32(dots[v], *part, values);
                    }
                }
            }
        }
        for (t, (dots, acc)) in dots.iter().zip(acc).enumerate() {
            // Sum of each 128-bit lane of each vector: lane 4 c + v holds that of lane c of vector v.
            let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (p, q) = (pair(dots[0], dots[1]), pair(dots[2], dots[3]));
            let sum = _mm512_add_epi32(_mm512_unpacklo_epi64(p, q), _mm512_unpackhi_epi64(p, q));
            // SAFETY: the caller promises the token's block.
            unsafe {
                let at = ((t0 + t) * x.blocks + b) * LANES;
                let offset = _mm512_loadu_si512(x.offsets.as_ptr().add(at).cast());
                let scale = _mm512_mul_ps(ws, _mm512_loadu_ps(x.scales.as_ptr().add(at)));
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sum, offset)), scale, *acc);
            }
        }
    }

    /// See [`rows_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn rows_avx2(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        w.check(&rows, x, BLOCK, n, y);
        let mut t = 0;
        while t < n {
            // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
            unsafe {
                match n - t {
                    1 => rows_avx2_t::<1>(w, &rows, x, t, y),
                    _ => rows_avx2_t::<2>(w, &rows, x, t, y),
                }
            }
            t += (n - t).min(2);
        }
    }

    /// # Safety
    /// As for [`rows_avx2`]; the lengths were checked.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows_avx2_t<const T: usize>(
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
            // SAFETY: `check` proved that every row's words and scales, and every token's values,
            // scales and offsets, are inside their slices.
            unsafe {
                let words = w.words.as_ptr().add(row * w.groups * GROUP_BYTES);
                let scales = w.scales.as_ptr().add(row * w.groups * size);
                for b in 0..full {
                    let at = scales.add(b * LANES * size);
                    let ws =
                        in_lane_order(scales8(w.scale_dtype, at), scales8(w.scale_dtype, at.add(8 * size)));
                    for line in (0..256).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(b * 256 + AHEAD + line).cast());
                    }
                    _mm_prefetch::<_MM_HINT_T0>(scales.wrapping_add(b * LANES * size + AHEAD / 4).cast());
                    block_avx2::<T>(words.add(b * 256), LANES, ws, x, t0, b, &mut acc);
                }
                if left > 0 {
                    // Copied to where zeros follow.
                    let (mut codes, mut ws) = ([0u8; LANES * GROUP_BYTES], [0u8; LANES * 4]);
                    let from = words.add(full * 256);
                    std::ptr::copy_nonoverlapping(from, codes.as_mut_ptr(), left * GROUP_BYTES);
                    let from = scales.add(full * LANES * size);
                    std::ptr::copy_nonoverlapping(from, ws.as_mut_ptr(), left * size);
                    let ws = in_lane_order(
                        scales8(w.scale_dtype, ws.as_ptr()),
                        scales8(w.scale_dtype, ws.as_ptr().add(8 * size)),
                    );
                    block_avx2::<T>(codes.as_ptr(), left, ws, x, t0, full, &mut acc);
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
    unsafe fn block_avx2<const T: usize>(
        words: *const u8,
        groups: usize,
        ws: [__m256; 2],
        x: &q8::Rows,
        t0: usize,
        b: usize,
        acc: &mut [[__m256; 2]; T],
    ) {
        let ones = _mm256_set1_epi16(1);
        let mut dots = [[_mm256_setzero_si256(); 8]; T];
        for v in 0..8 {
            // A vector is two groups; groups 4 v' .. 4 v' + 4 are vectors 2 v' and 2 v' + 1.
            if 2 * v >= groups {
                break;
            }
            // SAFETY: the caller promises the bytes and the block.
            unsafe {
                let parts = split_avx2(_mm256_loadu_si256(words.add(v * 32).cast()));
                for (t, dots) in dots.iter_mut().enumerate() {
                    let block = ((t0 + t) * x.blocks + b) * BLOCK;
                    let at = x.values.as_ptr().add(block + (v / 2) * 192 + (v % 2) * 32);
                    // At most 6 * 7 * 127 in a lane.
                    let mut sum = _mm256_setzero_si256();
                    for (p, part) in parts.iter().enumerate() {
                        let values = _mm256_loadu_si256(at.add(p * 64).cast());
                        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(*part, values));
                    }
                    dots[v] = _mm256_madd_epi16(sum, ones);
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

    /// See [`panel_scalar`].
    ///
    /// # Safety
    /// The machine has AVX-512 F and BW.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn panel_avx512(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack::<false>(w, row, order, panel);
    }

    /// See [`panel_kn_scalar`].
    ///
    /// # Safety
    /// The machine has AVX-512 F and BW.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn panel_kn_avx512(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack::<true>(w, row, order, panel);
    }

    /// See [`panel_scalar`].
    ///
    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn panel_avx2(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack::<false>(w, row, order, panel);
    }

    /// See [`panel_kn_scalar`].
    ///
    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn panel_kn_avx2(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack::<true>(w, row, order, panel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_split_into_its_ten_codes() {
        for seed in 0..1000u32 {
            // Bits 30 and 31 are not part of a code.
            let word = seed.wrapping_mul(2_654_435_761) ^ (seed << 7);
            let code = |i: u32| ((word >> (3 * i)) & 7) as u8;
            let (a, b, c) = split(word);
            assert_eq!(a.to_le_bytes(), [code(0), code(3), code(6), code(8)]);
            assert_eq!(b.to_le_bytes(), [code(1), code(4), code(7), code(9)]);
            assert_eq!(c.to_le_bytes(), [code(2), code(5), 0, 0]);
        }
    }
}
