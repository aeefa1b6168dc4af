//! Products with 3-bit weights in the layout KN (`q3f16_0`), for a few tokens: lanes are rows, as in
//! [`super::int4_kn`], whose arithmetic this is: one chain of ascending groups a row, then `+ 0`.

use super::codes::Codes;
use super::int3::word_dot;
use super::int3_acts::{BLOCK, group_at};
#[cfg(target_arch = "x86_64")]
use super::int4_kn::BLOCK_ROWS;
use super::q8;
use super::simd::LANES;
use std::ops::Range;

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn rows_scalar(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check(&rows, x, BLOCK, n, y);
    let count = rows.len();
    for t in 0..n {
        rows_of(w, rows.clone(), x, t, &mut y[t * count..(t + 1) * count]);
    }
}

/// Rows times one token; also the end of a range that does not fill a vector.
#[inline(always)]
fn rows_of(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, t: usize, y: &mut [f32]) {
    for (row, y) in rows.zip(y) {
        let mut sum = 0.0f32;
        for g in 0..w.groups {
            let (block, j) = (t * x.blocks + g / LANES, g % LANES);
            let at = block * BLOCK + group_at(j);
            let word = |s: usize| w.word((4 * g + s) * w.rows + row);
            let dot: i32 = (0..4).map(|s| word_dot(word(s), &x.values, at + 4 * s)).sum();
            let lane = block * LANES + q8::lane_of(j);
            let dot = (dot + x.offsets[lane]) as f32;
            sum = dot.mul_add(w.scale(g * w.rows + row) * x.scales[lane], sum);
        }
        *y = sum + 0.0;
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::codes::x86::{scales8, scales16};
    use super::super::int3::x86::{split_avx2, split_avx512};
    use super::*;
    use std::arch::x86_64::*;

    /// See [`rows_scalar`]; up to 4 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn rows_avx512(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        w.check(&rows, x, BLOCK, n, y);
        let count = rows.len();
        let whole = count / 16 * 16;
        y[..n * count].fill(0.0);
        for from in (0..whole).step_by(BLOCK_ROWS) {
            let len = BLOCK_ROWS.min(whole - from);
            let row = rows.start + from;
            let mut t = 0;
            while t < n {
                // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
                unsafe {
                    let y = y.as_mut_ptr().add(t * count + from);
                    match n - t {
                        1 => block_avx512::<1>(w, row, len, x, t, y, count),
                        2 => block_avx512::<2>(w, row, len, x, t, y, count),
                        3 => block_avx512::<3>(w, row, len, x, t, y, count),
                        _ => block_avx512::<4>(w, row, len, x, t, y, count),
                    }
                }
                t += (n - t).min(4);
            }
        }
        for t in 0..n {
            let y = &mut y[t * count..(t + 1) * count];
            rows_of(w, rows.start + whole..rows.end, x, t, &mut y[whole..]);
            y[..whole].iter_mut().for_each(|y| *y += 0.0);
        }
    }

    /// `len` rows from `row`, a multiple of 16, against tokens `t0..t0 + T`.
    ///
    /// # Safety
    /// The rows and tokens exist; `y` has room for `len` sums of each token, `count` apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn block_avx512<const T: usize>(
        w: &Codes<'_>,
        row: usize,
        len: usize,
        x: &q8::Rows,
        t0: usize,
        y: *mut f32,
        count: usize,
    ) {
        let size = w.scale_dtype.size();
        for g in 0..w.groups {
            let (b, j) = (g / LANES, g % LANES);
            // SAFETY: group `g` of every row and token is inside, as the caller promises; a prefetch may
            // name any address.
            unsafe {
                let words: [*const u8; 4] =
                    std::array::from_fn(|s| w.words.as_ptr().add(((4 * g + s) * w.rows + row) * 4));
                let scales = w.scales.as_ptr().add((g * w.rows + row) * size);
                let mut values = [[[_mm512_setzero_si512(); 3]; 4]; T];
                let mut offsets = [_mm512_setzero_si512(); T];
                let mut factors = [_mm512_setzero_ps(); T];
                for t in 0..T {
                    let block = (t0 + t) * x.blocks + b;
                    let at = x.values.as_ptr().add(block * BLOCK + group_at(j));
                    for (s, values) in values[t].iter_mut().enumerate() {
                        *values = std::array::from_fn(|part| {
                            let at = at.add(part * 64 + 4 * s).cast::<i32>();
                            _mm512_set1_epi32(at.read_unaligned())
                        });
                    }
                    let lane = block * LANES + q8::lane_of(j);
                    offsets[t] = _mm512_set1_epi32(x.offsets[lane]);
                    factors[t] = _mm512_set1_ps(x.scales[lane]);
                }
                let ahead = w.rows * 16;
                for i in (0..len).step_by(16) {
                    let mut dots = offsets;
                    for s in 0..4 {
                        // The same rows of the next group: the stream jumps there after this block.
                        _mm_prefetch::<_MM_HINT_T1>(words[s].wrapping_add(i * 4 + ahead).cast());
                        let parts = split_avx512(_mm512_loadu_si512(words[s].add(i * 4).cast()));
                        for (dot, values) in dots.iter_mut().zip(&values) {
                            for (part, v) in parts.iter().zip(&values[s]) {
                                *dot = _mm512_dpbusd_epi32(*dot, *part, *v);
                            }
                        }
                    }
                    _mm_prefetch::<_MM_HINT_T1>(scales.wrapping_add((i + w.rows) * size).cast());
                    let ws = scales16(w.scale_dtype, scales.add(i * size));
                    for t in 0..T {
                        let at = y.add(t * count + i);
                        let scale = _mm512_mul_ps(ws, factors[t]);
                        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), scale, _mm512_loadu_ps(at));
                        _mm512_storeu_ps(at, sum);
                    }
                }
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
        let count = rows.len();
        let whole = count / 8 * 8;
        y[..n * count].fill(0.0);
        for from in (0..whole).step_by(BLOCK_ROWS) {
            let len = BLOCK_ROWS.min(whole - from);
            let row = rows.start + from;
            let mut t = 0;
            while t < n {
                // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
                unsafe {
                    let y = y.as_mut_ptr().add(t * count + from);
                    match n - t {
                        1 => block_avx2::<1>(w, row, len, x, t, y, count),
                        _ => block_avx2::<2>(w, row, len, x, t, y, count),
                    }
                }
                t += (n - t).min(2);
            }
        }
        for t in 0..n {
            let y = &mut y[t * count..(t + 1) * count];
            rows_of(w, rows.start + whole..rows.end, x, t, &mut y[whole..]);
            y[..whole].iter_mut().for_each(|y| *y += 0.0);
        }
    }

    /// `len` rows from `row`, a multiple of 8, against tokens `t0..t0 + T`.
    ///
    /// # Safety
    /// The rows and tokens exist; `y` has room for `len` sums of each token, `count` apart.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block_avx2<const T: usize>(
        w: &Codes<'_>,
        row: usize,
        len: usize,
        x: &q8::Rows,
        t0: usize,
        y: *mut f32,
        count: usize,
    ) {
        let ones = _mm256_set1_epi16(1);
        let size = w.scale_dtype.size();
        for g in 0..w.groups {
            let (b, j) = (g / LANES, g % LANES);
            // SAFETY: group `g` of every row and token is inside, as the caller promises; a prefetch may
            // name any address.
            unsafe {
                let words: [*const u8; 4] =
                    std::array::from_fn(|s| w.words.as_ptr().add(((4 * g + s) * w.rows + row) * 4));
                let scales = w.scales.as_ptr().add((g * w.rows + row) * size);
                let mut values = [[[_mm256_setzero_si256(); 3]; 4]; T];
                let mut offsets = [_mm256_setzero_si256(); T];
                let mut factors = [_mm256_setzero_ps(); T];
                for t in 0..T {
                    let block = (t0 + t) * x.blocks + b;
                    let at = x.values.as_ptr().add(block * BLOCK + group_at(j));
                    for (s, values) in values[t].iter_mut().enumerate() {
                        *values = std::array::from_fn(|part| {
                            let at = at.add(part * 64 + 4 * s).cast::<i32>();
                            _mm256_set1_epi32(at.read_unaligned())
                        });
                    }
                    let lane = block * LANES + q8::lane_of(j);
                    offsets[t] = _mm256_set1_epi32(x.offsets[lane]);
                    factors[t] = _mm256_set1_ps(x.scales[lane]);
                }
                let ahead = w.rows * 16;
                for i in (0..len).step_by(8) {
                    // Twelve steps of at most 2 * 7 * 127 fit 16 bits.
                    let mut sums = [_mm256_setzero_si256(); T];
                    for s in 0..4 {
                        if i % 16 == 0 {
                            // The same rows of the next group: the stream jumps there after this block.
                            _mm_prefetch::<_MM_HINT_T1>(words[s].wrapping_add(i * 4 + ahead).cast());
                        }
                        let parts = split_avx2(_mm256_loadu_si256(words[s].add(i * 4).cast()));
                        for (sum, values) in sums.iter_mut().zip(&values) {
                            for (part, v) in parts.iter().zip(&values[s]) {
                                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(*part, *v));
                            }
                        }
                    }
                    let ws = scales8(w.scale_dtype, scales.add(i * size));
                    for t in 0..T {
                        let at = y.add(t * count + i);
                        let dot = _mm256_add_epi32(_mm256_madd_epi16(sums[t], ones), offsets[t]);
                        let scale = _mm256_mul_ps(ws, factors[t]);
                        let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, _mm256_loadu_ps(at));
                        _mm256_storeu_ps(at, sum);
                    }
                }
            }
        }
    }
}
