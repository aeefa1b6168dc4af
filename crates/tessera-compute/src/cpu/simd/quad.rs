//! Integer dot products on vectors of 128 bits, for the instruction sets that have no wider ones: what
//! the integer kernels need besides [`Lanes`], whose rules hold here too.

use super::Lanes;
use tessera_weights::dtype::DType;

/// 16 bytes, four i32 or four f32 in a register.
///
/// Methods are `unsafe`: the caller runs on a machine that has the instruction set.
pub trait Quad: Copy + 'static {
    /// Sixteen lanes of the same instruction set.
    type Lanes: Lanes;
    /// 16 bytes or four i32.
    type I: Copy;
    /// Four f32.
    type F: Copy;
    /// A sum of dot products that is not finished: up to 12 steps of codes below 16.
    type Sum: Copy;

    /// 16 bytes from memory, at any alignment.
    unsafe fn load(p: *const u8) -> Self::I;
    /// Four times the same 32 bits.
    unsafe fn splat(x: i32) -> Self::I;
    /// Bits of both.
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    /// Bits of either.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Each i32, its bits moved down.
    unsafe fn shr<const N: u32>(a: Self::I) -> Self::I;
    /// Each i32, its bits moved up.
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I;
    /// Four sums of i32.
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    /// Lane `i` is the sum of the lanes of `v[i]`.
    unsafe fn across(v: [Self::I; 4]) -> Self::I;

    /// Nothing yet.
    unsafe fn start() -> Self::Sum;
    /// Adds the products of bytes: codes below 16, values of any i8.
    unsafe fn step(sum: Self::Sum, codes: Self::I, values: Self::I) -> Self::Sum;
    /// Four steps, the values of each being the next four at `p`, the same for all lanes.
    #[inline(always)]
    unsafe fn four_steps(mut sum: Self::Sum, codes: [Self::I; 4], p: *const i8) -> Self::Sum {
        for (s, codes) in codes.into_iter().enumerate() {
            // SAFETY: the caller has 16 values at `p`.
            unsafe {
                let values = p.cast::<i32>().add(s).read_unaligned();
                sum = Self::step(sum, codes, Self::splat(values));
            }
        }
        sum
    }
    /// Lane `i` is the sum of bytes `4 i .. 4 i + 4` of all steps.
    unsafe fn finish(sum: Self::Sum) -> Self::I;
    /// As [`Quad::finish`], but any lane may hold any of the bytes' products.
    #[inline(always)]
    unsafe fn finish_any(sum: Self::Sum) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe { Self::finish(sum) }
    }

    /// Four times the same value.
    unsafe fn splat_f32(x: f32) -> Self::F;
    /// Four values from memory, at any alignment.
    unsafe fn load_f32(p: *const f32) -> Self::F;
    /// To memory, at any alignment.
    unsafe fn store_f32(v: Self::F, p: *mut f32);
    /// Four scales in a row, at any alignment, widened.
    unsafe fn load_scales(dtype: DType, p: *const u8) -> Self::F;
    /// 16 scales in a row, widened: `[c][l]` is scale `c + 4 l`.
    unsafe fn load_scale_columns(dtype: DType, p: *const u8) -> [Self::F; 4];
    /// `a + b`
    unsafe fn add_f32(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    unsafe fn mul_f32(a: Self::F, b: Self::F) -> Self::F;
    /// `dot * scale + sum`, rounded once; `dot` is below 2^24.
    unsafe fn fma(dot: Self::I, scale: Self::F, sum: Self::F) -> Self::F;
}
