//! WebAssembly's 128-bit vectors. They have neither a fused multiply-add nor f16, so both are made here
//! out of exact steps. The relaxed multiply-add may round once or twice, as the engine likes: a module built
//! with the feature `relaxed-simd` is for engines where [`fused`] holds.

use super::{F16_MAX, LANES, Lanes, Quad};
use std::arch::wasm32::*;
use tessera_weights::dtype::DType;

/// Four registers; needs `simd128`, which a module has for all of its code or not at all.
#[derive(Clone, Copy)]
pub struct Simd128([v128; 4]);

/// Whether the relaxed multiply-add rounds once.
#[cfg(feature = "relaxed-simd")]
#[target_feature(enable = "relaxed-simd")]
pub fn fused() -> bool {
    let x = std::hint::black_box(1.0 + f32::EPSILON);
    // The square's last bit is lost where the product is rounded.
    let squared = f32x4_splat(-(x * x));
    v128_any_true(f32x4_relaxed_madd(f32x4_splat(x), f32x4_splat(x), squared))
}

/// Four of [`super::fma`].
#[cfg(feature = "relaxed-simd")]
#[inline(always)]
fn fma(a: v128, b: v128, c: v128) -> v128 {
    f32x4_relaxed_madd(a, b, c)
}

/// Four of [`super::fma`].
#[cfg(not(feature = "relaxed-simd"))]
#[inline(always)]
fn fma(a: v128, b: v128, c: v128) -> v128 {
    let [low, high] = sums(doubles(a), doubles(b), doubles(c));
    // Rounding once more is wrong only where the sum is half-way between two f32: the lower 28 of its bits are
    // zero then, those of a subnormal result too.
    let rest = i32x4_shl(i32x4_shuffle::<0, 2, 4, 6>(low, high), 4);
    if i32x4_all_true(rest) { singles([low, high]) } else { careful(a, b, c) }
}

/// The same where `sum` is nothing yet: then the product is all that is rounded.
#[inline(always)]
pub fn first(dot: v128, scale: v128) -> v128 {
    // A negative zero becomes a positive one, as it would in a sum.
    f32x4_add(f32x4_mul(f32x4_convert_i32x4(dot), scale), f32x4_splat(0.0))
}

/// Integers of `dot` times `scale`, and `sum`, rounded once. That is certain with `EXACT`; without it `doubt` tells
/// afterwards. Those of a long sum are asked for once: they are as good as never in doubt.
#[inline(always)]
pub fn fma_int<const EXACT: bool>(dot: v128, scale: v128, sum: v128, doubt: &mut Doubt) -> v128 {
    if cfg!(feature = "relaxed-simd") {
        return fma(f32x4_convert_i32x4(dot), scale, sum);
    }
    if EXACT {
        return exact(f32x4_convert_i32x4(dot), scale, sum);
    }
    let dots = [f64x2_convert_low_i32x4(dot), f64x2_convert_low_i32x4(high(dot))];
    let [low, high] = sums(dots, doubles(scale), doubles(sum));
    // As in `fma`, but a subnormal result is exact here: all terms are multiples of the least f32.
    let rest = i32x4_shl(i32x4_shuffle::<0, 2, 4, 6>(low, high), 3);
    doubt.0 = i32x4_min(doubt.0, rest);
    singles([low, high])
}

/// Whether a sum was half-way between two f32: the least of the bits that rounding takes away, as i32.
#[derive(Clone, Copy)]
pub struct Doubt(v128);

impl Doubt {
    #[inline(always)]
    pub fn none() -> Doubt {
        Doubt(i32x4_splat(0))
    }

    #[inline(always)]
    pub fn any(self) -> bool {
        v128_any_true(i32x4_eq(self.0, i32x4_splat(i32::MIN)))
    }
}

#[inline(always)]
fn high(v: v128) -> v128 {
    i32x4_shuffle::<2, 3, 2, 3>(v, v)
}

/// `a < b ? c : d`. Not `pmin` and `pmax`: the compiler takes the relaxed instructions for them where there are any, and
/// those leave open what becomes of NaN.
#[inline(always)]
fn if_less(a: v128, b: v128, c: v128, d: v128) -> v128 {
    v128_bitselect(c, d, f32x4_lt(a, b))
}

/// Four f32 as f64.
#[inline(always)]
fn doubles(v: v128) -> [v128; 2] {
    [f64x2_promote_low_f32x4(v), f64x2_promote_low_f32x4(high(v))]
}

/// The nearest f32.
#[inline(always)]
fn singles([low, high]: [v128; 2]) -> v128 {
    i32x4_shuffle::<0, 1, 4, 5>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high))
}

/// `a * b + c` in f64, the product exact, the sum rounded.
#[inline(always)]
fn sums(a: [v128; 2], b: [v128; 2], c: [v128; 2]) -> [v128; 2] {
    [0, 1].map(|i| f64x2_add(f64x2_mul(a[i], b[i]), c[i]))
}

/// [`fma`] of what may be half-way. Often it is zero, or just a short number.
#[cfg(not(feature = "relaxed-simd"))]
#[cold]
#[inline(never)]
fn careful(a: v128, b: v128, c: v128) -> v128 {
    let [low, high] = sums(doubles(a), doubles(b), doubles(c));
    let half = i32x4_eq(i32x4_shl(i32x4_shuffle::<0, 2, 4, 6>(low, high), 3), i32x4_splat(i32::MIN));
    // Of at most 2^-126 in size, the least normal f32, and not zero.
    let size = i32x4_shl(i32x4_shuffle::<1, 3, 5, 7>(low, high), 1);
    let tiny = u32x4_lt(i32x4_sub(size, i32x4_splat(1)), u32x4_splat(0x3810_0000 << 1));
    if v128_any_true(v128_or(half, tiny)) { exact(a, b, c) } else { singles([low, high]) }
}

/// Four of [`super::fma`], in the same way.
#[inline(always)]
fn exact(a: v128, b: v128, c: v128) -> v128 {
    let [a, b, c] = [a, b, c].map(|v| doubles(v));
    singles([to_odd(a[0], b[0], c[0]), to_odd(a[1], b[1], c[1])])
}

/// `a * b + c` rounded to odd, for values that were f32.
#[inline(always)]
fn to_odd(a: v128, b: v128, c: v128) -> v128 {
    let p = f64x2_mul(a, b);
    let s = f64x2_add(p, c);
    // What rounding left (Knuth): exact, as nothing overflows.
    let t = f64x2_sub(s, p);
    let e = f64x2_add(f64x2_sub(p, f64x2_sub(s, t)), f64x2_sub(c, t));
    // False for NaN, so infinities and NaN stay as they are.
    let inexact = f64x2_gt(f64x2_abs(e), f64x2_splat(0.0));
    // All ones, which is -1, where `s` was rounded away from zero.
    let away = v128_and(i64x2_shr(v128_xor(s, e), 63), inexact);
    v128_or(i64x2_add(s, away), u64x2_shr(inexact, 63))
}

/// Four f16 in the low half.
#[inline(always)]
fn widen_f16(v: v128) -> v128 {
    let h = u32x4_extend_low_u16x8(v);
    let sign = i32x4_shl(v128_and(h, u32x4_splat(0x8000)), 16);
    let rest = i32x4_shl(v128_and(h, u32x4_splat(0x7fff)), 13);
    // Exponents differ by 112; the product is exact and makes subnormals normal.
    let finite = f32x4_mul(rest, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let special = i32x4_ge(rest, i32x4_splat(0x7c00 << 13));
    // Infinity, and NaN, which is made quiet.
    let nan = i32x4_gt(rest, i32x4_splat(0x7c00 << 13));
    let huge = v128_or(v128_or(rest, u32x4_splat(0x7f80_0000)), v128_and(nan, u32x4_splat(0x0040_0000)));
    v128_or(sign, v128_bitselect(huge, finite, special))
}

/// Nearest f16, ties to even, in the low half of each lane; for finite values in range, and NaN.
#[inline(always)]
fn narrow_f16(v: v128) -> v128 {
    let sign = u32x4_shr(v128_and(v, u32x4_splat(0x8000_0000)), 16);
    let x = v128_and(v, u32x4_splat(0x7fff_ffff));
    // Normal: the exponent moves by 112, and half a unit (less one bit where the last kept bit is even)
    // is added before the rest is cut off.
    let last = v128_and(u32x4_shr(x, 13), u32x4_splat(1));
    let normal = u32x4_shr(i32x4_add(i32x4_add(x, u32x4_splat(0xc800_0fff)), last), 13);
    // Below 2^-14: adding 1/2 rounds at the place of f16's last bit.
    let small = i32x4_sub(f32x4_add(x, f32x4_splat(0.5)), u32x4_splat(0x3f00_0000));
    let nan = v128_or(u32x4_shr(v128_and(x, u32x4_splat(0x007f_ffff)), 13), u32x4_splat(0x7e00));
    let finite = v128_bitselect(small, normal, i32x4_lt(x, i32x4_splat(0x3880_0000)));
    v128_or(sign, v128_bitselect(nan, finite, i32x4_gt(x, i32x4_splat(0x7f80_0000))))
}

macro_rules! each {
    ($i:ident => $e:expr) => {
        Simd128(std::array::from_fn(|$i| $e))
    };
}

impl Lanes for Simd128 {
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        each!(_i => f32x4_splat(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(i => unsafe { v128_load(p.add(4 * i).cast()) })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(i => widen_f16(unsafe { v128_load64_zero(p.add(4 * i).cast()) }))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        each!(i => i32x4_shl(unsafe { u32x4_load_extend_u16x4(p.add(4 * i)) }, 16))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller has 16 values at `p`.
        let v = unsafe { v128_load(p.cast()) };
        let (a, b) = (i16x8_extend_low_i8x16(v), i16x8_extend_high_i8x16(v));
        Simd128([
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(a)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(a)),
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(b)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(b)),
        ])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for (i, v) in self.0.into_iter().enumerate() {
            // SAFETY: the caller has room for 16 values at `p`.
            unsafe { v128_store(p.add(4 * i).cast(), v) };
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        each!(i => f32x4_add(self.0[i], b.0[i]))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        each!(i => f32x4_sub(self.0[i], b.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        each!(i => f32x4_mul(self.0[i], b.0[i]))
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        each!(i => f32x4_div(self.0[i], b.0[i]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // No closure: the relaxed instruction would not be inlined into it.
        let (a, b, c) = (self.0, b.0, c.0);
        Simd128([fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])])
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        each!(i => if_less(b.0[i], self.0[i], self.0[i], b.0[i]))
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        each!(i => f32x4_abs(self.0[i]))
    }
    #[inline(always)]
    unsafe fn to_f16(self) -> [u16; LANES] {
        let mut out = [0; LANES];
        for (v, out) in self.0.into_iter().zip(out.chunks_exact_mut(4)) {
            // NaN stays.
            let (least, most) = (f32x4_splat(-F16_MAX), f32x4_splat(F16_MAX));
            let v = if_less(most, v, most, v);
            let v = if_less(v, least, least, v);
            let v = narrow_f16(v);
            for (out, h) in out.iter_mut().zip([
                u32x4_extract_lane::<0>(v),
                u32x4_extract_lane::<1>(v),
                u32x4_extract_lane::<2>(v),
                u32x4_extract_lane::<3>(v),
            ]) {
                *out = h as u16;
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn pow2_of_shifted(self) -> Self {
        each!(i => i32x4_shl(i32x4_add(self.0[i], i32x4_splat(127)), 23))
    }
}

/// One register.
#[derive(Clone, Copy)]
pub struct SimdQuad;

#[inline(always)]
fn bf16(v: v128) -> v128 {
    i32x4_shl(u32x4_extend_low_u16x8(v), 16)
}

/// Four rows as four columns.
#[inline(always)]
pub fn columns([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
    let (ab2, cd2) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    [
        i32x4_shuffle::<0, 1, 4, 5>(ab, cd),
        i32x4_shuffle::<2, 3, 6, 7>(ab, cd),
        i32x4_shuffle::<0, 1, 4, 5>(ab2, cd2),
        i32x4_shuffle::<2, 3, 6, 7>(ab2, cd2),
    ]
}

impl Quad for SimdQuad {
    type Lanes = Simd128;
    type I = v128;
    type F = v128;
    type Sum = [v128; 2];

    #[inline(always)]
    unsafe fn load(p: *const u8) -> v128 {
        // SAFETY: the caller has 16 bytes at `p`.
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(x: i32) -> v128 {
        i32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn and(a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: v128) -> v128 {
        u32x4_shr(a, N)
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: v128) -> v128 {
        i32x4_shl(a, N)
    }
    #[inline(always)]
    unsafe fn add(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn across(v: [v128; 4]) -> v128 {
        let pair = |a, b| i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
        let (p, q) = (pair(v[0], v[1]), pair(v[2], v[3]));
        i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(p, q), i32x4_shuffle::<2, 3, 6, 7>(p, q))
    }
    #[inline(always)]
    unsafe fn start() -> [v128; 2] {
        [i16x8_splat(0); 2]
    }
    #[inline(always)]
    unsafe fn step(sum: [v128; 2], codes: v128, values: v128) -> [v128; 2] {
        // Twelve products of at most 15 * 128 fit 16 bits.
        [
            i16x8_add(sum[0], i16x8_extmul_low_i8x16(codes, values)),
            i16x8_add(sum[1], i16x8_extmul_high_i8x16(codes, values)),
        ]
    }
    #[inline(always)]
    unsafe fn finish(sum: [v128; 2]) -> v128 {
        let [a, b] = sum.map(|v| i32x4_extadd_pairwise_i16x8(v));
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
    }
    #[inline(always)]
    unsafe fn finish_any(sum: [v128; 2]) -> v128 {
        let [a, b] = sum.map(|v| i32x4_extadd_pairwise_i16x8(v));
        i32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn splat_f32(x: f32) -> v128 {
        f32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> v128 {
        // SAFETY: the caller has 4 values at `p`.
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_f32(v: v128, p: *mut f32) {
        // SAFETY: the caller has room for 4 values at `p`.
        unsafe { v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn load_scales(dtype: DType, p: *const u8) -> v128 {
        // SAFETY: the caller has 4 scales at `p`.
        unsafe {
            match dtype {
                DType::BF16 => bf16(v128_load64_zero(p.cast())),
                DType::F16 => widen_f16(v128_load64_zero(p.cast())),
                _ => v128_load(p.cast()),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_scale_columns(dtype: DType, p: *const u8) -> [v128; 4] {
        let size = dtype.size();
        // SAFETY: the caller has 16 scales at `p`.
        columns(std::array::from_fn(|i| unsafe { Self::load_scales(dtype, p.add(4 * i * size)) }))
    }
    #[inline(always)]
    unsafe fn add_f32(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn mul_f32(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn fma(dot: v128, scale: v128, sum: v128) -> v128 {
        fma(f32x4_convert_i32x4(dot), scale, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products that are half a step of the sum but for less than f64 can tell.
    #[test]
    fn a_sum_that_may_be_wrong_is_in_doubt() {
        let (mut doubted, mut wrong) = (0, 0);
        for dot in (1..1 << 20).step_by(3) {
            let scale = (f64::powi(2.0, -24) / f64::from(dot)) as f32;
            for (dot, sum) in [(dot, 1.0), (-dot, 1.0), (dot, -1.5), (dot, 1.0 + f32::EPSILON)] {
                let expected = super::super::fma(dot as f32, scale, sum);
                let vectors = (i32x4_splat(dot), f32x4_splat(scale), f32x4_splat(sum));
                let mut doubt = Doubt::none();
                let found =
                    f32x4_extract_lane::<2>(fma_int::<false>(vectors.0, vectors.1, vectors.2, &mut doubt));
                wrong += usize::from(found != expected);
                doubted += usize::from(doubt.any());
                assert!(found == expected || doubt.any(), "{dot} * {scale:e} + {sum}");
                let exact = fma_int::<true>(vectors.0, vectors.1, vectors.2, &mut doubt);
                assert_eq!(f32x4_extract_lane::<2>(exact), expected, "{dot} * {scale:e} + {sum}");
            }
        }
        // The relaxed instruction has neither.
        assert!(cfg!(feature = "relaxed-simd") && wrong == 0 || wrong > 1000 && doubted >= wrong);
    }
}
