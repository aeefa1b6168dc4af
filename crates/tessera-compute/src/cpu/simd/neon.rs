//! NEON, which every 64-bit Arm has.

use super::{F16_MAX, LANES, Lanes, Quad};
use std::arch::aarch64::*;
use tessera_weights::dtype::DType;

/// Four registers.
#[derive(Clone, Copy)]
pub struct Neon([float32x4_t; 4]);

macro_rules! each {
    ($i:ident => $e:expr) => {
        // SAFETY: every 64-bit Arm has NEON; what is read or written at pointers is the caller's promise.
        unsafe {
            Neon([
                { const $i: usize = 0; $e },
                { const $i: usize = 1; $e },
                { const $i: usize = 2; $e },
                { const $i: usize = 3; $e },
            ])
        }
    };
}

impl Lanes for Neon {
    // 32 registers, but four of them to sixteen lanes.
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{p}]", p = in(reg) p,
                options(nostack, preserves_flags, readonly));
        }
    }
    #[inline(always)]
    unsafe fn prefetch_far(p: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{p}]", p = in(reg) p,
                options(nostack, preserves_flags, readonly));
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        each!(_I => vdupq_n_f32(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        each!(I => vld1q_f32(p.add(4 * I)))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        each!(I => vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p.add(4 * I)))))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        each!(I => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(4 * I)))))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller has 16 values at `p`; every 64-bit Arm has NEON.
        unsafe {
            let v = vld1q_s8(p);
            let (a, b) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
            Neon([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))),
                vcvtq_f32_s32(vmovl_high_s16(a)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(b))),
                vcvtq_f32_s32(vmovl_high_s16(b)),
            ])
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for (i, v) in self.0.into_iter().enumerate() {
            // SAFETY: the caller has room for 16 values at `p`.
            unsafe { vst1q_f32(p.add(4 * i), v) };
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        each!(I => vaddq_f32(self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        each!(I => vsubq_f32(self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        each!(I => vmulq_f32(self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        each!(I => vdivq_f32(self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        each!(I => vfmaq_f32(c.0[I], self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // `fmax` would give NaN where either is.
        each!(I => vbslq_f32(vcgtq_f32(self.0[I], b.0[I]), self.0[I], b.0[I]))
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        each!(I => vabsq_f32(self.0[I]))
    }
    #[inline(always)]
    unsafe fn to_f16(self) -> [u16; LANES] {
        let mut out = [0; LANES];
        for (v, out) in self.0.into_iter().zip(out.chunks_exact_mut(4)) {
            // SAFETY: every 64-bit Arm has NEON; `out` has room for 4 values. `fmin` and `fmax` keep NaN.
            unsafe {
                let v = vmaxq_f32(vdupq_n_f32(-F16_MAX), vminq_f32(vdupq_n_f32(F16_MAX), v));
                vst1_u16(out.as_mut_ptr(), vreinterpret_u16_f16(vcvt_f16_f32(v)));
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn pow2_of_shifted(self) -> Self {
        each!(I => {
            let bits = vaddq_u32(vreinterpretq_u32_f32(self.0[I]), vdupq_n_u32(127));
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(bits))
        })
    }
}

/// One register, without an instruction for dot products.
#[derive(Clone, Copy)]
pub struct NeonBase;

/// One register, and `sdot`; needs `dotprod`.
#[derive(Clone, Copy)]
pub struct NeonDot;

/// What both have in common; `$step` is how products are added.
macro_rules! quad {
    ($name:ident, $sum:ty, $($step:item)*) => {
        impl Quad for $name {
            type Lanes = Neon;
            type I = uint8x16_t;
            type F = float32x4_t;
            type Sum = $sum;

            $($step)*

            #[inline(always)]
            unsafe fn load(p: *const u8) -> uint8x16_t {
                // SAFETY: the caller has 16 bytes at `p`. Below: every 64-bit Arm has NEON.
                unsafe { vld1q_u8(p) }
            }
            #[inline(always)]
            unsafe fn splat(x: i32) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe { vreinterpretq_u8_s32(vdupq_n_s32(x)) }
            }
            #[inline(always)]
            unsafe fn and(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe { vandq_u8(a, b) }
            }
            #[inline(always)]
            unsafe fn or(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe { vorrq_u8(a, b) }
            }
            #[inline(always)]
            unsafe fn shr<const N: u32>(a: uint8x16_t) -> uint8x16_t {
                // SAFETY: see `load`. A constant count becomes an immediate.
                unsafe {
                    let v = vshlq_u32(vreinterpretq_u32_u8(a), vdupq_n_s32(-(N as i32)));
                    vreinterpretq_u8_u32(v)
                }
            }
            #[inline(always)]
            unsafe fn shl<const N: u32>(a: uint8x16_t) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe {
                    let v = vshlq_u32(vreinterpretq_u32_u8(a), vdupq_n_s32(N as i32));
                    vreinterpretq_u8_u32(v)
                }
            }
            #[inline(always)]
            unsafe fn add(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe {
                    vreinterpretq_u8_u32(vaddq_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)))
                }
            }
            #[inline(always)]
            unsafe fn across(v: [uint8x16_t; 4]) -> uint8x16_t {
                // SAFETY: see `load`.
                unsafe {
                    let [a, b, c, d] = v.map(|v| vreinterpretq_u32_u8(v));
                    vreinterpretq_u8_u32(vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d)))
                }
            }
            #[inline(always)]
            unsafe fn splat_f32(x: f32) -> float32x4_t {
                // SAFETY: see `load`.
                unsafe { vdupq_n_f32(x) }
            }
            #[inline(always)]
            unsafe fn load_f32(p: *const f32) -> float32x4_t {
                // SAFETY: the caller has 4 values at `p`.
                unsafe { vld1q_f32(p) }
            }
            #[inline(always)]
            unsafe fn store_f32(v: float32x4_t, p: *mut f32) {
                // SAFETY: the caller has room for 4 values at `p`.
                unsafe { vst1q_f32(p, v) }
            }
            #[inline(always)]
            unsafe fn load_scales(dtype: DType, p: *const u8) -> float32x4_t {
                // SAFETY: the caller has 4 scales at `p`.
                unsafe {
                    match dtype {
                        DType::BF16 => bf16(vreinterpret_u16_u8(vld1_u8(p))),
                        DType::F16 => f16(vreinterpret_u16_u8(vld1_u8(p))),
                        _ => vreinterpretq_f32_u8(vld1q_u8(p)),
                    }
                }
            }
            #[inline(always)]
            unsafe fn load_scale_columns(dtype: DType, p: *const u8) -> [float32x4_t; 4] {
                // SAFETY: the caller has 16 scales at `p`; these loads need no alignment.
                unsafe {
                    match dtype {
                        DType::BF16 => {
                            let v = vld4_u16(p.cast());
                            [bf16(v.0), bf16(v.1), bf16(v.2), bf16(v.3)]
                        }
                        DType::F16 => {
                            let v = vld4_u16(p.cast());
                            [f16(v.0), f16(v.1), f16(v.2), f16(v.3)]
                        }
                        _ => {
                            let v = vld4q_f32(p.cast());
                            [v.0, v.1, v.2, v.3]
                        }
                    }
                }
            }
            #[inline(always)]
            unsafe fn add_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: see `load`.
                unsafe { vaddq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn mul_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: see `load`.
                unsafe { vmulq_f32(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(dot: uint8x16_t, scale: float32x4_t, sum: float32x4_t) -> float32x4_t {
                // SAFETY: see `load`.
                unsafe { vfmaq_f32(sum, vcvtq_f32_s32(vreinterpretq_s32_u8(dot)), scale) }
            }
        }
    };
}

#[inline(always)]
fn bf16(v: uint16x4_t) -> float32x4_t {
    // SAFETY: every 64-bit Arm has NEON.
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(v)) }
}

#[inline(always)]
fn f16(v: uint16x4_t) -> float32x4_t {
    // SAFETY: every 64-bit Arm has NEON.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(v)) }
}

quad! {
    NeonBase, [int16x8_t; 2],

    #[inline(always)]
    unsafe fn start() -> Self::Sum {
        // SAFETY: see `load`.
        unsafe { [vdupq_n_s16(0); 2] }
    }
    #[inline(always)]
    unsafe fn step(sum: Self::Sum, codes: uint8x16_t, values: uint8x16_t) -> Self::Sum {
        // Twelve products of at most 15 * 128 fit 16 bits.
        // SAFETY: see `load`.
        unsafe {
            let (c, v) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(values));
            [vmlal_s8(sum[0], vget_low_s8(c), vget_low_s8(v)), vmlal_high_s8(sum[1], c, v)]
        }
    }
    #[inline(always)]
    unsafe fn finish(sum: Self::Sum) -> uint8x16_t {
        // SAFETY: see `load`. A pair of such sums may need 17 bits.
        unsafe {
            vreinterpretq_u8_s32(vpaddq_s32(vpaddlq_s16(sum[0]), vpaddlq_s16(sum[1])))
        }
    }
}

quad! {
    NeonDot, int32x4_t,

    #[inline(always)]
    unsafe fn start() -> Self::Sum {
        // SAFETY: see `load`.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn step(mut sum: Self::Sum, codes: uint8x16_t, values: uint8x16_t) -> Self::Sum {
        // Codes are below 128, so they are signed bytes too.
        // SAFETY: the caller promises `dotprod`. The intrinsic is not stable.
        unsafe {
            std::arch::asm!("sdot {s:v}.4s, {c:v}.16b, {v:v}.16b",
                s = inout(vreg) sum, c = in(vreg) codes, v = in(vreg) values,
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
    #[inline(always)]
    unsafe fn four_steps(mut sum: Self::Sum, codes: [uint8x16_t; 4], p: *const i8) -> Self::Sum {
        let [a, b, c, d] = codes;
        // SAFETY: the caller promises `dotprod` and 16 values at `p`.
        unsafe {
            std::arch::asm!(
                "sdot {s:v}.4s, {a:v}.16b, {v:v}.4b[0]",
                "sdot {s:v}.4s, {b:v}.16b, {v:v}.4b[1]",
                "sdot {s:v}.4s, {c:v}.16b, {v:v}.4b[2]",
                "sdot {s:v}.4s, {d:v}.16b, {v:v}.4b[3]",
                s = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, c = in(vreg) c, d = in(vreg) d,
                v = in(vreg) vld1q_s8(p),
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
    #[inline(always)]
    unsafe fn finish(sum: Self::Sum) -> uint8x16_t {
        // SAFETY: see `load`.
        unsafe { vreinterpretq_u8_s32(sum) }
    }
}
