//! AVX2: 32 bytes of codes and `vpmaddubsw`, whose 16-bit sums cannot overflow with 4-bit codes.

use super::*;
use std::arch::x86_64::*;

/// Codes of the block's groups, zero where the row has ended, and its scales in lane order.
struct Tail {
    codes: [u8; 256],
    scales: [f32; LANES],
}

fn tail(w: &Int4<'_>, row: usize) -> Tail {
    let block = w.groups / LANES;
    let mut codes = [0; 256];
    let from = (row * w.groups + block * LANES) * 16;
    let len = (w.groups % LANES) * 16;
    codes[..len].copy_from_slice(&w.words[from..from + len]);
    Tail { codes, scales: block_scales(w, row, block) }
}

/// See [`rows_scalar`]; up to 2 tokens share one unpacking.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn rows_avx2(w: &Int4<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    check(w, &rows, x, n, y);
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

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_avx2_t<const T: usize>(
    w: &Int4<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let count = rows.len();
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    for (i, row) in rows.clone().enumerate() {
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        // SAFETY: `check` proved that every row's words and scales, and every token's values,
        // scales and offsets, are inside their slices.
        unsafe {
            let words = w.words.as_ptr().add(row * w.groups * 16);
            let scales = w.scales.as_ptr().add(row * w.groups * w.scale_dtype.size());
            for b in 0..full {
                let ws = match w.scale_dtype {
                    DType::BF16 => {
                        let (lo, hi) = in_lane_order(_mm256_loadu_si256(scales.add(b * 32).cast()));
                        let widen =
                            |s| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(s)));
                        [widen(lo), widen(hi)]
                    }
                    DType::F16 => {
                        let (lo, hi) = in_lane_order(_mm256_loadu_si256(scales.add(b * 32).cast()));
                        [_mm256_cvtph_ps(lo), _mm256_cvtph_ps(hi)]
                    }
                    _ => {
                        let s = block_scales(w, row, b);
                        [_mm256_loadu_ps(s.as_ptr()), _mm256_loadu_ps(s.as_ptr().add(8))]
                    }
                };
                block_avx2::<T>(words.add(b * 256), LANES, ws, x, t0, b, &mut acc);
            }
            if left > 0 {
                let tail = tail(w, row);
                let s = tail.scales.as_ptr();
                let ws = [_mm256_loadu_ps(s), _mm256_loadu_ps(s.add(8))];
                block_avx2::<T>(tail.codes.as_ptr(), left, ws, x, t0, full, &mut acc);
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

/// 16 scales of 16 bits in file order to lane order: lanes 0..8, lanes 8..16.
#[inline]
#[target_feature(enable = "avx2")]
fn in_lane_order(s: __m256i) -> (__m128i, __m128i) {
    // Within 128 bits: [0 4 1 5 2 6 3 7]; then pairs of both halves brought together.
    let byte = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    let s = _mm256_shuffle_epi8(s, _mm256_broadcastsi128_si256(byte));
    let s = _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    (_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s))
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
    let low = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 8]; T];
    for v in 0..8 {
        // A vector is two groups; groups 4 v' .. 4 v' + 4 are vectors 2 v' and 2 v' + 1.
        if 2 * v >= groups {
            break;
        }
        // SAFETY: the caller promises the bytes.
        unsafe {
            let codes = _mm256_loadu_si256(words.add(v * 32).cast());
            let even = _mm256_and_si256(codes, low);
            let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
            for (t, dots) in dots.iter_mut().enumerate() {
                let block = ((t0 + t) * x.blocks + b) * q8::BLOCK;
                let at = x.values.as_ptr().add(block + (v / 2) * 128 + (v % 2) * 32);
                let e = _mm256_maddubs_epi16(even, _mm256_loadu_si256(at.cast()));
                let o = _mm256_maddubs_epi16(odd, _mm256_loadu_si256(at.add(64).cast()));
                // At most 4 * 15 * 127 in a lane.
                dots[v] = _mm256_madd_epi16(_mm256_add_epi16(e, o), ones);
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

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile_avx2(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES], y: &mut [f32; TILE * PANEL]) {
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
                    let codes = panel.codes.as_ptr().add(i * 512 + half * 32);
                    let c: [__m256i; 8] =
                        std::array::from_fn(|s| _mm256_loadu_si256(codes.add(s * 64).cast()));
                    let ws = _mm256_loadu_ps(panel.scales.as_ptr().add(i * PANEL + half * 8));
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let slot = i * TILE + t;
                        let values = x.values.as_ptr().add(slot * GROUP).cast::<i32>();
                        // Eight steps of at most 2 * 15 * 127 fit 16 bits.
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
