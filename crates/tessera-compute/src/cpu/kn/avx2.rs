//! AVX2 and AVX-VNNI: 8 rows at a time.

use super::super::codes::x86::scales8;
use super::super::simd::Dots;
use super::*;
use std::arch::x86_64::*;

kernel!(
    /// See [`kn_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has AVX2, FMA, F16C and what `V` needs.
    kn_avx2<Dots>, block, 8, "avx2,fma,f16c", 2, [1]
);

/// `len` rows from `row`, a multiple of 8, against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// The rows and tokens exist; `y` has room for `len` sums of each token, `count` apart.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<D: Dots, F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    row: usize,
    len: usize,
    x: &q8::Rows,
    t0: usize,
    y: *mut f32,
    count: usize,
) {
    let size = w.scale_dtype.size();
    let zero = _mm256_setzero_si256();
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
            let mut factors = [_mm256_setzero_ps(); T];
            for t in 0..T {
                let block = (t0 + t) * x.blocks + b;
                let at = x.values.as_ptr().add(block * q8::block::<F>(P) + q8::group_at::<F>(j, P));
                for p in 0..P {
                    for s in 0..4 {
                        for i in 0..F::PARTS {
                            values[t][p][s][i] = _mm256_set1_epi32(input(at, s, p * F::PARTS + i));
                        }
                    }
                }
                let lane = block * LANES + q8::lane_of(j);
                offsets[t] = _mm256_set1_epi32(x.offsets[lane]);
                factors[t] = _mm256_set1_ps(x.scales[lane]);
            }
            let ahead = w.rows * 16;
            for i in (0..len).step_by(8) {
                let mut sums = [[zero; P]; T];
                for s in 0..4 {
                    if i % 16 == 0 {
                        // The same rows of the next group: the stream jumps there after this block.
                        _mm_prefetch::<_MM_HINT_T1>(words[s].wrapping_add(i * 4 + ahead).cast());
                    }
                    let parts = F::split_avx2(_mm256_loadu_si256(words[s].add(i * 4).cast()));
                    for (sums, values) in sums.iter_mut().zip(&values) {
                        for (sum, values) in sums.iter_mut().zip(values) {
                            for (part, v) in parts[..F::PARTS].iter().zip(&values[s]) {
                                *sum = D::step(*sum, *part, *v);
                            }
                        }
                    }
                }
                let ws = scales8(w.scale_dtype, scales.add(i * size));
                for t in 0..T {
                    let mut dot = offsets[t];
                    for (p, sum) in sums[t].iter().enumerate() {
                        let more = D::finish(*sum);
                        let more = if p + 1 < P { _mm256_slli_epi32::<7>(more) } else { more };
                        dot = _mm256_add_epi32(dot, more);
                    }
                    let at = y.add(t * count + i);
                    let scale = _mm256_mul_ps(ws, factors[t]);
                    let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, _mm256_loadu_ps(at));
                    _mm256_storeu_ps(at, sum);
                }
            }
        }
    }
}
