//! Sixteen f32 lanes on any instruction set, with the same result in every lane on each of them: only
//! IEEE operations with one rounding (fused multiply-add included) and reductions in a fixed order.
//!
//! Methods are `unsafe`: the caller runs on a machine that has the instruction set. They are inlined
//! into functions that enable it, which `kernels.rs` alone makes.

/// Largest finite f16.
const F16_MAX: f32 = 65504.0;

/// Number of lanes.
pub const LANES: usize = 16;

/// Sixteen f32 values.
pub trait Lanes: Copy {
    /// Whether a register holds all lanes and there are 32 registers, so that a larger tile fits.
    const WIDE: bool;
    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self;
    /// From memory, at any alignment.
    unsafe fn load(p: *const f32) -> Self;
    /// From f16 in memory, at any alignment; exact.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// From bf16 in memory, at any alignment; exact.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// From 8-bit integers in memory; exact.
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        let values: [f32; LANES] = std::array::from_fn(|i| f32::from(unsafe { p.add(i).read() }));
        // SAFETY: the caller promises the instruction set.
        unsafe { Self::load(values.as_ptr()) }
    }
    /// To memory, at any alignment.
    unsafe fn store(self, p: *mut f32);
    /// `self + b`
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`
    unsafe fn sub(self, b: Self) -> Self;
    /// `self * b`
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The larger; `b` where either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// `|self|`
    unsafe fn abs(self) -> Self;
    /// `2^n` of lanes that hold `n + 1.5 * 2^23`: the low bits shifted into the exponent.
    unsafe fn pow2_of_shifted(self) -> Self;
    /// Nearest f16 of each lane, ties to even; beyond f16's range it is the largest finite one.
    unsafe fn to_f16(self) -> [u16; LANES];
    /// Asks for the line at any address.
    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
    /// As [`Lanes::prefetch`], into the second cache only.
    #[inline(always)]
    unsafe fn prefetch_far(_p: *const u8) {}
    /// Lane values in an array.
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: `out` has room for all lanes.
        unsafe { self.store(out.as_mut_ptr()) };
        out
    }
}

/// Sum of the lanes: halves added until one is left. The order that every kernel's row sums use.
#[inline(always)]
pub fn tree_sum(mut v: [f32; LANES]) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            v[i] += v[i + n];
        }
        n /= 2;
    }
    v[0]
}

/// `e^x` for `x` cut to -87..88; NaN stays NaN. Relative error under 2e-7.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn exp<V: Lanes>(x: V) -> V {
    // SAFETY: the caller's promise is that of each method.
    unsafe {
        const SHIFT: f32 = 12_582_912.0;
        // At least -87, at most 88 by way of the negated value. `max` gives its second operand when
        // one is NaN, so NaN stays NaN.
        let x = V::splat(-87.0).max(x);
        let x = V::splat(0.0).sub(V::splat(-88.0).max(V::splat(0.0).sub(x)));
        let t = x.fma(V::splat(std::f32::consts::LOG2_E), V::splat(SHIFT));
        let n = t.sub(V::splat(SHIFT));
        let r = n.fma(V::splat(-0.693_359_4), x);
        let r = n.fma(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.987_569_2e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = p.fma(r, V::splat(c));
        }
        let p = p.fma(r.mul(r), r.add(V::splat(1.0)));
        p.mul(t.pow2_of_shifted())
    }
}

/// Lanes without any instruction set: an array.
#[derive(Clone, Copy)]
pub struct Scalar([f32; LANES]);

macro_rules! each {
    ($f:expr) => {
        Scalar(std::array::from_fn($f))
    };
}

impl Lanes for Scalar {
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Scalar([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(|i| unsafe { p.add(i).read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(|i| half::f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(|i| f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for i in 0..LANES {
            // SAFETY: the caller has room for 16 values at `p`.
            unsafe { p.add(i).write_unaligned(self.0[i]) };
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        each!(|i| self.0[i] + b.0[i])
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        each!(|i| self.0[i] - b.0[i])
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        each!(|i| self.0[i] * b.0[i])
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        each!(|i| self.0[i] / b.0[i])
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        each!(|i| fma(self.0[i], b.0[i], c.0[i]))
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        each!(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        each!(|i| self.0[i].abs())
    }
    #[inline(always)]
    unsafe fn to_f16(self) -> [u16; LANES] {
        self.0.map(|x| {
            // `clamp` keeps NaN.
            half::f16::from_f32(x.clamp(-F16_MAX, F16_MAX)).to_bits()
        })
    }
    #[inline(always)]
    unsafe fn pow2_of_shifted(self) -> Self {
        each!(|i| f32::from_bits(self.0[i].to_bits().wrapping_add(127) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{F16_MAX, LANES, Lanes};
    use std::arch::x86_64::*;

    /// Two AVX2 registers; needs `avx2,fma,f16c`.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    /// One AVX-512 register; needs `avx512f,avx512bw,avx512vl,avx512dq`.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    macro_rules! both {
        ($f:ident, $a:expr $(, $b:expr)*) => {
            // SAFETY: the caller promises the instruction set.
            unsafe { Avx2($f($a.0 $(, $b.0)*), $f($a.1 $(, $b.1)*)) }
        };
    }

    impl Lanes for Avx2 {
        const WIDE: bool = false;
        #[inline(always)]
        unsafe fn prefetch(p: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller promises the instruction set.
            unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe { Avx2(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe {
                let half = |p: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
                Avx2(half(p), half(p.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe {
                let half = |p: *const u16| {
                    let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
                };
                Avx2(half(p), half(p.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe {
                let half = |p: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())));
                Avx2(half(p), half(p.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller promises the instruction set and room at `p`.
            unsafe {
                _mm256_storeu_ps(p, self.0);
                _mm256_storeu_ps(p.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            both!(_mm256_add_ps, self, b)
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            both!(_mm256_sub_ps, self, b)
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            both!(_mm256_mul_ps, self, b)
        }
        #[inline(always)]
        unsafe fn div(self, b: Self) -> Self {
            both!(_mm256_div_ps, self, b)
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            both!(_mm256_fmadd_ps, self, b, c)
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            both!(_mm256_max_ps, self, b)
        }
        #[inline(always)]
        unsafe fn abs(self) -> Self {
            // SAFETY: the caller promises the instruction set.
            unsafe {
                let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
                Avx2(_mm256_and_ps(self.0, mask), _mm256_and_ps(self.1, mask))
            }
        }
        #[inline(always)]
        unsafe fn to_f16(self) -> [u16; LANES] {
            let mut out = [0; LANES];
            // SAFETY: the caller promises the instruction set; `out` holds two halves of 8.
            unsafe {
                // The value is the second operand of min and max, so that NaN stays.
                let half = |v| {
                    let v =
                        _mm256_max_ps(_mm256_set1_ps(-F16_MAX), _mm256_min_ps(_mm256_set1_ps(F16_MAX), v));
                    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
                };
                _mm_storeu_si128(out.as_mut_ptr().cast(), half(self.0));
                _mm_storeu_si128(out.as_mut_ptr().add(8).cast(), half(self.1));
            }
            out
        }
        #[inline(always)]
        unsafe fn pow2_of_shifted(self) -> Self {
            // SAFETY: the caller promises the instruction set.
            unsafe {
                let one = |v: __m256| {
                    let bits = _mm256_add_epi32(_mm256_castps_si256(v), _mm256_set1_epi32(127));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(bits))
                };
                Avx2(one(self.0), one(self.1))
            }
        }
    }

    macro_rules! one {
        ($f:ident, $a:expr $(, $b:expr)*) => {
            // SAFETY: the caller promises the instruction set.
            unsafe { Avx512($f($a.0 $(, $b.0)*)) }
        };
    }

    impl Lanes for Avx512 {
        const WIDE: bool = true;
        #[inline(always)]
        unsafe fn prefetch(p: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller promises the instruction set.
            unsafe { Avx512(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe { Avx512(_mm512_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe { Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> Self {
            // SAFETY: the caller promises the instruction set and 16 values at `p`.
            unsafe { Avx512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller promises the instruction set and room at `p`.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            one!(_mm512_add_ps, self, b)
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            one!(_mm512_sub_ps, self, b)
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            one!(_mm512_mul_ps, self, b)
        }
        #[inline(always)]
        unsafe fn div(self, b: Self) -> Self {
            one!(_mm512_div_ps, self, b)
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            one!(_mm512_fmadd_ps, self, b, c)
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            one!(_mm512_max_ps, self, b)
        }
        #[inline(always)]
        unsafe fn abs(self) -> Self {
            one!(_mm512_abs_ps, self)
        }
        #[inline(always)]
        unsafe fn to_f16(self) -> [u16; LANES] {
            let mut out = [0; LANES];
            // SAFETY: the caller promises the instruction set; `out` holds 16 values.
            unsafe {
                // The value is the second operand of min and max, so that NaN stays.
                let v = _mm512_min_ps(_mm512_set1_ps(F16_MAX), self.0);
                let v = _mm512_max_ps(_mm512_set1_ps(-F16_MAX), v);
                let v = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), v);
            }
            out
        }
        #[inline(always)]
        unsafe fn pow2_of_shifted(self) -> Self {
            // SAFETY: the caller promises the instruction set.
            unsafe {
                let bits = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
                Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(bits)))
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod dots;
mod fma;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
mod quad;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

pub use fma::fma;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonBase, NeonDot};
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
pub use quad::Quad;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128", feature = "relaxed-simd"))]
pub use wasm::fused;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::{Doubt, Simd128, SimdQuad, columns, first, fma_int};
#[cfg(target_arch = "x86_64")]
pub use {
    dots::{Dots, Pairs, Vbmi, Vl, Vnni, Wide, fields},
    x86::{Avx2, Avx512},
};

#[cfg(test)]
mod tests;
