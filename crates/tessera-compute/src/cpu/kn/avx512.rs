//! AVX-512 with VNNI: 16 rows at a time.

use super::super::codes::x86::scales16;
use super::super::simd::Wide;
use super::*;
use std::arch::x86_64::*;

kernel!(
    /// See [`kn_scalar`]; up to 4 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ, VNNI and what `V` says.
    kn_avx512<Wide>, block, 16, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c", 4, [1 2 3]
);

/// `len` rows from `row`, a multiple of 16, against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// The rows and tokens exist; `y` has room for `len` sums of each token, `count` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn block<W: Wide, F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    row: usize,
    len: usize,
    x: &q8::Rows,
    t0: usize,
    y: *mut f32,
    count: usize,
) {
    let size = w.scale_dtype.size();
    let zero = _mm512_setzero_si512();
    for g in 0..w.groups {
        let (b, j) = (g / LANES, g % LANES);
        // SAFETY: group `g` of every row and token is inside, as the caller promises; a prefetch may name
        // any address.
        unsafe {
            let words: [*const u8; 4] =
                std::array::from_fn(|s| w.words.as_ptr().add(((4 * g + s) * w.rows + row) * 4));
            let scales = w.scales.as_ptr().add((g * w.rows + row) * size);
            let mut values = [[[[zero; 3]; 4]; P]; T];
            let mut offsets = [zero; T];
            let mut factors = [_mm512_setzero_ps(); T];
            for t in 0..T {
                let block = (t0 + t) * x.blocks + b;
                let at = x.values.as_ptr().add(block * q8::block::<F>(P) + q8::group_at::<F>(j, P));
                for p in 0..P {
                    for s in 0..4 {
                        for i in 0..F::PARTS {
                            values[t][p][s][i] = _mm512_set1_epi32(input(at, s, p * F::PARTS + i));
                        }
                    }
                }
                let lane = block * LANES + q8::lane_of(j);
                offsets[t] = _mm512_set1_epi32(x.offsets[lane]);
                factors[t] = _mm512_set1_ps(x.scales[lane]);
            }
            let ahead = w.rows * 16;
            for i in (0..len).step_by(16) {
                let mut dots = [[zero; P]; T];
                for s in 0..4 {
                    // The same rows of the next group: the stream jumps there after this block.
                    _mm_prefetch::<_MM_HINT_T1>(words[s].wrapping_add(i * 4 + ahead).cast());
                    let parts = F::split_avx512::<W>(_mm512_loadu_si512(words[s].add(i * 4).cast()));
                    for (dots, values) in dots.iter_mut().zip(&values) {
                        for (dot, values) in dots.iter_mut().zip(values) {
                            for (part, v) in parts[..F::PARTS].iter().zip(&values[s]) {
                                *dot = _mm512_dpbusd_epi32(*dot, *part, *v);
                            }
                        }
                    }
                }
                _mm_prefetch::<_MM_HINT_T1>(scales.wrapping_add((i + w.rows) * size).cast());
                let ws = scales16(w.scale_dtype, scales.add(i * size));
                for t in 0..T {
                    let mut dot = dots[t][0];
                    if P == 2 {
                        dot = _mm512_add_epi32(_mm512_slli_epi32::<7>(dot), dots[t][P - 1]);
                    }
                    let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dot, offsets[t]));
                    let at = y.add(t * count + i);
                    let scale = _mm512_mul_ps(ws, factors[t]);
                    _mm512_storeu_ps(at, _mm512_fmadd_ps(dot, scale, _mm512_loadu_ps(at)));
                }
            }
        }
    }
}
