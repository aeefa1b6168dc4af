//! Q4_0 as MLC's 4-bit groups: the same numbers under other codes.
//!
//! Q4_0 means `(q - 8) * d`, MLC means `(code - 7) * scale`. With `code = 15 - q` and `scale = -d` the two are one
//! product, and turning a sign or the bits of a code over is undone by doing it again. So nothing is rounded in
//! either direction, and a block that was one comes back byte for byte. A zero may change its sign.

use half::f16;

/// Bytes of a Q4_0 block: |d f16|qs 16|. Byte j of qs holds value j in its low half and value j + 16 in its high half.
pub const BLOCK: usize = 18;
/// Weights of a block, and of a group.
pub const GROUP: usize = 32;

/// A block's four words, eight codes in each, and its scale.
pub fn group_of(block: &[u8; BLOCK]) -> ([u32; 4], f16) {
    let d = f16::from_le_bytes([block[0], block[1]]);
    let mut words = [0u32; 4];
    for (j, &byte) in block[2..].iter().enumerate() {
        let shift = j % 8 * 4;
        // 15 - q is q with its bits turned over.
        let byte = !byte;
        words[j / 8] |= u32::from(byte & 15) << shift;
        words[2 + j / 8] |= u32::from(byte >> 4) << shift;
    }
    (words, -d)
}

/// The block of a group.
pub fn block_of(words: [u32; 4], scale: f16) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..2].copy_from_slice(&(-scale).to_le_bytes());
    for (j, byte) in block[2..].iter_mut().enumerate() {
        let code = |word: u32| (word >> (j % 8 * 4) & 15) as u8;
        *byte = !(code(words[j / 8]) | code(words[2 + j / 8]) << 4);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgmlType, dequantize};
    use proptest::prelude::*;

    /// The meaning of MLC's group, written from the format page.
    fn decode(words: [u32; 4], scale: f16) -> Vec<f32> {
        (0..32).map(|i| ((words[i / 8] >> (i % 8 * 4) & 15) as i32 - 7) as f32 * scale.to_f32()).collect()
    }

    fn same(block: [u8; BLOCK]) {
        let mut want = [0.0f32; GROUP];
        assert!(dequantize(GgmlType::from_name("Q4_0").unwrap(), &block, &mut want));
        let (words, scale) = group_of(&block);
        for (i, (found, want)) in decode(words, scale).into_iter().zip(want).enumerate() {
            // Zeros may differ in sign, no other number may.
            assert_eq!((found + 0.0).to_bits(), (want + 0.0).to_bits(), "value {i} of {block:02x?}");
        }
        assert_eq!(block_of(words, scale), block);
    }

    #[test]
    fn every_code_at_every_place_with_every_kind_of_scale_keeps_its_value() {
        let scales = [0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x2e66];
        for d in scales.map(u16::to_le_bytes) {
            for code in 0..16u8 {
                for place in 0..GROUP {
                    let mut block = [0x88; BLOCK];
                    block[..2].copy_from_slice(&d);
                    let (byte, shift) = (2 + place % 16, place / 16 * 4);
                    block[byte] = block[byte] & !(15 << shift) | code << shift;
                    same(block);
                }
            }
        }
    }

    #[test]
    fn every_finite_scale_is_the_scale() {
        for bits in (0..=u16::MAX).filter(|&bits| f16::from_bits(bits).is_finite()) {
            let mut block = [0x1f; BLOCK];
            block[..2].copy_from_slice(&bits.to_le_bytes());
            same(block);
        }
    }

    proptest! {
        #[test]
        fn random_blocks_keep_their_values(mut block in any::<[u8; BLOCK]>()) {
            // Any exponent but that of infinity and NaN.
            if block[1] & 0x7c == 0x7c { block[1] ^= 0x40; }
            same(block);
        }
    }
}
