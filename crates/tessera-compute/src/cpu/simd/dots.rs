//! What instruction sets of one width do not share: the kernels of that width are written once, over
//! [`Dots`] on 256 bits and over [`Wide`] on 512.
//!
//! The functions around these are compiled for the smaller set, into which an intrinsic of the larger
//! one would not be inlined. So its one instruction is written as such.

use super::super::format::Format;
use std::arch::x86_64::*;

/// How 32 codes below 16 meet 32 values of any i8.
pub trait Dots: Copy + 'static {
    /// Adds products to a sum that is not finished: up to 12 of them, if a code with 15 is in no more
    /// than 8.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn step(sum: __m256i, codes: __m256i, values: __m256i) -> __m256i;

    /// Lane `i` of eight i32 is the sum of bytes `4 i .. 4 i + 4` of all steps.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn finish(sum: __m256i) -> __m256i;

    /// A group of 16 rows of codes, `[step][row][4]`, against four rows of values: the steps' sums, not
    /// finished, `[row of values][half of the rows]`.
    ///
    /// # Safety
    /// The machine has the instruction set; `F::STEPS * 64` bytes at `codes`, `4 * F::GROUP` at `values`.
    unsafe fn four<F: Format>(codes: *const u8, values: *const i8) -> [[__m256i; 2]; 4];
}

/// [`Dots::four`]: every code is read once and every value once, as the registers allow. The compiler would
/// take the eight sums one after the other and keep all codes meanwhile, in more registers than there are.
/// `$step` names the macro of one step: it adds the products of codes with `{v}` to a sum; `{t}` is free.
macro_rules! four {
    ($F:ty, $codes:ident, $values:ident, $step:ident) => {{
        let mut sums = [_mm256_setzero_si256(); 8];
        let [s0, s1, s2, s3, s4, s5, s6, s7] = &mut sums;
        std::arch::asm!(
            ".rept {steps}",
            "vmovdqu {c0}, ymmword ptr [{codes}]",
            "vmovdqu {c1}, ymmword ptr [{codes} + 32]",
            "vpbroadcastd {v}, dword ptr [{values}]",
            $step!("c0", "s0"), $step!("c1", "s1"),
            "vpbroadcastd {v}, dword ptr [{values} + {g}]",
            $step!("c0", "s2"), $step!("c1", "s3"),
            "vpbroadcastd {v}, dword ptr [{values} + 2 * {g}]",
            $step!("c0", "s4"), $step!("c1", "s5"),
            "vpbroadcastd {v}, dword ptr [{values} + 3 * {g}]",
            $step!("c0", "s6"), $step!("c1", "s7"),
            "add {codes}, 64",
            "add {values}, 4",
            ".endr /* {t} */",
            steps = const <$F>::STEPS, g = const <$F>::GROUP,
            codes = inout(reg) $codes => _, values = inout(reg) $values => _,
            c0 = out(ymm_reg) _, c1 = out(ymm_reg) _, v = out(ymm_reg) _, t = out(ymm_reg) _,
            s0 = inout(ymm_reg) *s0, s1 = inout(ymm_reg) *s1, s2 = inout(ymm_reg) *s2, s3 = inout(ymm_reg) *s3,
            s4 = inout(ymm_reg) *s4, s5 = inout(ymm_reg) *s5, s6 = inout(ymm_reg) *s6, s7 = inout(ymm_reg) *s7,
            options(pure, readonly, nostack),
        );
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
        [[s0, s1], [s2, s3], [s4, s5], [s6, s7]]
    }};
}

macro_rules! pairs {
    ($codes:literal, $sum:literal) => {
        concat!("vpmaddubsw {t}, {", $codes, "}, {v}\nvpaddw {", $sum, "}, {", $sum, "}, {t}")
    };
}

macro_rules! vex {
    ($codes:literal, $sum:literal) => {
        concat!("{{vex}} vpdpbusd {", $sum, "}, {", $codes, "}, {v}")
    };
}

macro_rules! evex {
    ($codes:literal, $sum:literal) => {
        concat!("{{evex}} vpdpbusd {", $sum, "}, {", $codes, "}, {v}")
    };
}

/// AVX2: `vpmaddubsw`, 16-bit sums of pairs, which cannot overflow: at most 8 * 2 * 15 * 127 or
/// 12 * 2 * 7 * 127.
#[derive(Clone, Copy)]
pub struct Pairs;

impl Dots for Pairs {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn step(sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, values))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn finish(sum: __m256i) -> __m256i {
        _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn four<F: Format>(codes: *const u8, values: *const i8) -> [[__m256i; 2]; 4] {
        // SAFETY: reads what the caller promises is there.
        unsafe { four!(F, codes, values, pairs) }
    }
}

/// AVX-VNNI, or with `EVEX` the same instruction as AVX-512 VL and VNNI spell it: `vpdpbusd`.
#[derive(Clone, Copy)]
pub struct Vnni<const EVEX: bool>;

impl<const EVEX: bool> Dots for Vnni<EVEX> {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn step(mut sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        // SAFETY: registers only; the machine has the instruction, as the caller promises.
        unsafe {
            if EVEX {
                std::arch::asm!("{{evex}} vpdpbusd {s}, {c}, {v}",
                    s = inout(ymm_reg) sum, c = in(ymm_reg) codes, v = in(ymm_reg) values,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                std::arch::asm!("{{vex}} vpdpbusd {s}, {c}, {v}",
                    s = inout(ymm_reg) sum, c = in(ymm_reg) codes, v = in(ymm_reg) values,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        sum
    }

    #[inline(always)]
    unsafe fn finish(sum: __m256i) -> __m256i {
        sum
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn four<F: Format>(codes: *const u8, values: *const i8) -> [[__m256i; 2]; 4] {
        // SAFETY: reads what the caller promises is there; the machine has the instruction.
        unsafe { if EVEX { four!(F, codes, values, evex) } else { four!(F, codes, values, vex) } }
    }
}

/// What an AVX-512 with VNNI may have besides.
pub trait Wide: Copy + 'static {
    /// Whether [`fields`] can be called.
    const VBMI: bool;
}

/// AVX-512 F, BW, VL, DQ and VNNI.
#[derive(Clone, Copy)]
pub struct Vl;

/// And VBMI.
#[derive(Clone, Copy)]
pub struct Vbmi;

impl Wide for Vl {
    const VBMI: bool = false;
}

impl Wide for Vbmi {
    const VBMI: bool = true;
}

/// Each byte of each word is the 8 bits of that word which begin at the bit that the same byte of `at`
/// names, as far as `mask` has ones. Past the word's end they are any bits.
///
/// # Safety
/// The machine has AVX-512 VBMI.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn fields(words: __m512i, at: u32, mask: i32) -> __m512i {
    // The instruction takes its bits from 64; the second word of those is 32 bits further.
    let at = u64::from(at) | (u64::from(at) + 0x2020_2020) << 32;
    let fields;
    // SAFETY: registers only; the machine has the instruction, as the caller promises.
    unsafe {
        std::arch::asm!("vpmultishiftqb {f}, {a}, {w}",
            f = lateout(zmm_reg) fields, a = in(zmm_reg) _mm512_set1_epi64(at as i64),
            w = in(zmm_reg) words, options(pure, nomem, nostack, preserves_flags));
    }
    _mm512_and_si512(fields, _mm512_set1_epi32(mask))
}
