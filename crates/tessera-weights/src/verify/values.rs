//! Counting values that a model cannot use, straight from stored bytes.

use crate::dtype::DType;
use crate::scheme::GroupFormat;

/// What was counted in a float tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueCounts {
    /// Infinities and NaNs.
    pub not_finite: usize,
    /// Index of the first of them.
    pub first_not_finite: Option<usize>,
    /// Values below zero; minus zero is not.
    pub negative: usize,
    /// Index of the first of them.
    pub first_negative: Option<usize>,
}

impl ValueCounts {
    fn add(&mut self, index: usize, not_finite: bool, negative: bool) {
        if not_finite {
            self.not_finite += 1;
            self.first_not_finite.get_or_insert(index);
        } else if negative {
            self.negative += 1;
            self.first_negative.get_or_insert(index);
        }
    }
}

/// Counts in elements of `stored` type; nothing for integers. An infinity or a NaN is not counted as
/// negative too.
pub fn count_values(stored: DType, bytes: &[u8]) -> ValueCounts {
    let mut counts = ValueCounts::default();
    match stored {
        DType::F32 => {
            for (i, b) in bytes.chunks_exact(4).enumerate() {
                let x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                counts.add(i, !x.is_finite(), x < 0.0);
            }
        }
        DType::F16 => half_width(bytes, 0x7c00, &mut counts),
        DType::BF16 => half_width(bytes, 0x7f80, &mut counts),
        // e4m3fn has no infinities and one NaN of either sign.
        DType::F8E4M3 => {
            for (i, &b) in bytes.iter().enumerate() {
                counts.add(i, b & 0x7f == 0x7f, b > 0x80);
            }
        }
        DType::F8E5M2 => {
            for (i, &b) in bytes.iter().enumerate() {
                counts.add(i, b & 0x7c == 0x7c, b > 0x80);
            }
        }
        DType::U32 | DType::I32 | DType::U16 | DType::U8 | DType::I8 => {}
    }
    counts
}

/// f16 and bf16: not finite if every bit of the exponent is set.
fn half_width(bytes: &[u8], exponent: u16, counts: &mut ValueCounts) {
    for (i, b) in bytes.chunks_exact(2).enumerate() {
        let bits = u16::from_le_bytes([b[0], b[1]]);
        counts.add(i, bits & exponent == exponent, bits > 0x8000);
    }
}

/// What no converter writes into packed words: codes above `2 * zero`, and bits above the codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Codes of all ones: 15 of 4 bits, 7 of 3.
    pub all_ones: usize,
    /// Words with a bit above their last code.
    pub stray_bits: usize,
}

/// Counts in little-endian words of `format`.
pub fn count_codes(format: GroupFormat, bytes: &[u8]) -> CodeCounts {
    // The lowest bit of every code.
    let ones = (0..format.per_word as u32).fold(0u32, |mask, i| mask | 1 << (i * format.bits));
    let used = ones * ((1 << format.bits) - 1);
    let mut counts = CodeCounts::default();
    for b in bytes.chunks_exact(4) {
        let word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        // A bit survives where it and the bits above it in its code are all set.
        let full = (1..format.bits).fold(word & ones, |acc, shift| acc & (word >> shift));
        counts.all_ones += full.count_ones() as usize;
        counts.stray_bits += usize::from(word & !used != 0);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_f16_and_bf16_is_judged_as_its_type_does() {
        for bits in 0..=u16::MAX {
            let b = bits.to_le_bytes();
            let (x, y) = (f16::from_bits(bits), bf16::from_bits(bits));
            let h = count_values(DType::F16, &b);
            assert_eq!(h.not_finite == 1, !x.is_finite());
            assert_eq!(h.negative == 1, x.is_finite() && x.to_f32() < 0.0);
            let h = count_values(DType::BF16, &b);
            assert_eq!(h.not_finite == 1, !y.is_finite());
            assert_eq!(h.negative == 1, y.is_finite() && y.to_f32() < 0.0);
        }
    }

    #[test]
    fn indices_are_of_elements() {
        let values = [1.0f32, -0.0, -2.0, f32::NAN, f32::NEG_INFINITY, -3.0];
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let counts = count_values(DType::F32, &bytes);
        let expected =
            ValueCounts { not_finite: 2, first_not_finite: Some(3), negative: 2, first_negative: Some(2) };
        assert_eq!(counts, expected);
        assert_eq!(count_values(DType::F8E4M3, &[0x7f, 0xff, 0x80, 0x81, 0x7e]).not_finite, 2);
        assert_eq!(count_values(DType::F8E5M2, &[0x7c, 0x7f, 0x80, 0x81, 0x7b]).not_finite, 2);
        assert_eq!(count_values(DType::F8E5M2, &[0x7c, 0x7f, 0x80, 0x81, 0x7b]).negative, 1);
        assert_eq!(count_values(DType::U32, &[0xff; 8]), ValueCounts::default());
    }

    #[test]
    fn codes_are_counted_as_a_loop_would() {
        let mut state = 1u32;
        for format in [GroupFormat::INT4, GroupFormat::INT3] {
            for _ in 0..10_000 {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                // More ones than chance has.
                let word = state | state.rotate_left(7);
                let mask = (1u32 << format.bits) - 1;
                let codes = (0..format.per_word as u32).map(|i| word >> (i * format.bits) & mask);
                let expected = CodeCounts {
                    all_ones: codes.filter(|&c| c == mask).count(),
                    stray_bits: usize::from(format.bits == 3 && word >> 30 != 0),
                };
                assert_eq!(count_codes(format, &word.to_le_bytes()), expected, "{word:#x}");
            }
        }
    }
}
