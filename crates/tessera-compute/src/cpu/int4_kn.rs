//! Products with 4-bit weights in the layout KN (`q4*_0`): word `(k / 8, n)` holds eight inputs of row
//! `n`, so the lanes of a vector are rows and a word vector times four broadcast inputs needs no sums
//! across lanes.
//!
//! For row `r`, token `t` and group `g`: `dot = Σ code * value + offset`, an exact integer, then
//! `sum = fma(dot, w_scale * a_scale, sum)` over ascending groups, one chain a row; last `sum + 0`,
//! which the tile kernel does by adding its empty runs and which turns -0 into 0.

use super::codes::Codes;
use super::int4::{PANEL, Panel};
use super::q8;
use super::simd::LANES;
use std::ops::Range;

/// Rows that pass before the next group begins: their sums stay in the first cache.
#[cfg(target_arch = "x86_64")]
pub(super) const BLOCK_ROWS: usize = 1024;

/// Both nibbles of a word's bytes: inputs 0, 2, 4, 6, then 1, 3, 5, 7.
const LOW: u32 = 0x0f0f_0f0f;

/// `y[t][i]` = row `rows.start + i` times token `t`.
pub fn rows_scalar(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check(&rows, x, q8::BLOCK, n, y);
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
            let values = &x.values[block * q8::BLOCK + (j / 4) * 128 + (j % 4) * 16..];
            let mut dot = 0i32;
            for s in 0..4 {
                let word = w.word((4 * g + s) * w.rows + row);
                for k in 0..4 {
                    dot += ((word >> (8 * k)) & 15) as i32 * i32::from(values[4 * s + k]);
                    dot += ((word >> (8 * k + 4)) & 15) as i32 * i32::from(values[64 + 4 * s + k]);
                }
            }
            let lane = block * LANES + q8::lane_of(j);
            let dot = (dot + x.offsets[lane]) as f32;
            sum = dot.mul_add(w.scale(g * w.rows + row) * x.scales[lane], sum);
        }
        *y = sum + 0.0;
    }
}

/// Unpacks the 16 rows from `row` for the tile kernels of [`super::int4`]; rows past the last one are
/// zero.
pub fn panel_scalar(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    unpack(w, row, order, panel);
}

/// Compiles to vector code by itself: a step of the panel is a word vector of the file, masked.
#[inline(always)]
fn unpack(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    w.check_len();
    let width = PANEL.min(w.rows - row);
    panel.codes.resize(order.len() * 512, 0);
    panel.scales.resize(order.len() * PANEL, 0.0);
    let outs = panel.codes.chunks_exact_mut(512).zip(panel.scales.chunks_exact_mut(PANEL));
    for (&g, (codes, scales)) in order.iter().zip(outs) {
        let g = g as usize;
        let (even, odd) = codes.split_at_mut(256);
        for (s, (even, odd)) in even.chunks_exact_mut(64).zip(odd.chunks_exact_mut(64)).enumerate() {
            let from = &w.words[((4 * g + s) * w.rows + row) * 4..][..width * 4];
            let mut words = [0u8; 64];
            words[..from.len()].copy_from_slice(from);
            for ((word, even), odd) in
                words.chunks_exact(4).zip(even.chunks_exact_mut(4)).zip(odd.chunks_exact_mut(4))
            {
                let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                even.copy_from_slice(&(word & LOW).to_le_bytes());
                odd.copy_from_slice(&((word >> 4) & LOW).to_le_bytes());
            }
        }
        for (r, s) in scales[..width].iter_mut().enumerate() {
            *s = w.scale(g * w.rows + row + r);
        }
        scales[width..].fill(0.0);
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::codes::x86::{scales8, scales16};
    use super::*;
    use std::arch::x86_64::*;

    /// See [`rows_scalar`]; up to 4 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn rows_avx512(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        w.check(&rows, x, q8::BLOCK, n, y);
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
        let low = _mm512_set1_epi8(15);
        let size = w.scale_dtype.size();
        for g in 0..w.groups {
            let (b, j) = (g / LANES, g % LANES);
            // SAFETY: group `g` of every row and token is inside, as the caller promises; a prefetch may
            // name any address.
            unsafe {
                let words: [*const u8; 4] =
                    std::array::from_fn(|s| w.words.as_ptr().add(((4 * g + s) * w.rows + row) * 4));
                let scales = w.scales.as_ptr().add((g * w.rows + row) * size);
                let mut values = [[_mm512_setzero_si512(); 8]; T];
                let mut offsets = [_mm512_setzero_si512(); T];
                let mut factors = [_mm512_setzero_ps(); T];
                for t in 0..T {
                    let block = (t0 + t) * x.blocks + b;
                    let at = x.values.as_ptr().add(block * q8::BLOCK + (j / 4) * 128 + (j % 4) * 16);
                    for s in 0..4 {
                        let word = |at: *const i8| _mm512_set1_epi32(at.cast::<i32>().read_unaligned());
                        values[t][s] = word(at.add(4 * s));
                        values[t][4 + s] = word(at.add(64 + 4 * s));
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
                        let codes = _mm512_loadu_si512(words[s].add(i * 4).cast());
                        let even = _mm512_and_si512(codes, low);
                        let odd = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
                        for (dot, values) in dots.iter_mut().zip(&values) {
                            let e = _mm512_dpbusd_epi32(*dot, even, values[s]);
                            *dot = _mm512_dpbusd_epi32(e, odd, values[4 + s]);
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
        w.check(&rows, x, q8::BLOCK, n, y);
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
        let low = _mm256_set1_epi8(15);
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
                let mut values = [[_mm256_setzero_si256(); 8]; T];
                let mut offsets = [_mm256_setzero_si256(); T];
                let mut factors = [_mm256_setzero_ps(); T];
                for t in 0..T {
                    let block = (t0 + t) * x.blocks + b;
                    let at = x.values.as_ptr().add(block * q8::BLOCK + (j / 4) * 128 + (j % 4) * 16);
                    for s in 0..4 {
                        let word = |at: *const i8| _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
                        values[t][s] = word(at.add(4 * s));
                        values[t][4 + s] = word(at.add(64 + 4 * s));
                    }
                    let lane = block * LANES + q8::lane_of(j);
                    offsets[t] = _mm256_set1_epi32(x.offsets[lane]);
                    factors[t] = _mm256_set1_ps(x.scales[lane]);
                }
                let ahead = w.rows * 16;
                for i in (0..len).step_by(8) {
                    // Eight steps of at most 2 * 15 * 127 fit 16 bits.
                    let mut sums = [_mm256_setzero_si256(); T];
                    for s in 0..4 {
                        if i % 16 == 0 {
                            // The same rows of the next group: the stream jumps there after this block.
                            _mm_prefetch::<_MM_HINT_T1>(words[s].wrapping_add(i * 4 + ahead).cast());
                        }
                        let codes = _mm256_loadu_si256(words[s].add(i * 4).cast());
                        let even = _mm256_and_si256(codes, low);
                        let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                        for (sum, values) in sums.iter_mut().zip(&values) {
                            let e = _mm256_maddubs_epi16(even, values[s]);
                            let o = _mm256_maddubs_epi16(odd, values[4 + s]);
                            *sum = _mm256_add_epi16(*sum, _mm256_add_epi16(e, o));
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

    /// See [`panel_scalar`].
    ///
    /// # Safety
    /// The machine has AVX-512 F and BW.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn panel_avx512(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack(w, row, order, panel);
    }

    /// See [`panel_scalar`].
    ///
    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn panel_avx2(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        unpack(w, row, order, panel);
    }
}
