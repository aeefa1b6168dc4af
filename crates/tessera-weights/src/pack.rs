//! Codes to `u32` words and back, for every [`GroupFormat`].
//!
//! ```text
//! int4: |v7 |v6 |v5 |v4 |v3 |v2 |v1 |v0 |        value i at bits 4i..4i+4
//! int3: |00|v9 |v8 |v7 |v6 |v5 |v4 |v3 |v2 |v1 |v0 |   value i at bits 3i..3i+3
//! ```
//!
//! A row always has whole groups; the codes that the last group lacks are zero bits.

use crate::scheme::GroupFormat;

/// Packs a row of codes. `words` holds [`GroupFormat::words`] of `codes.len()` words; a code's bits above
/// the format's width must be zero.
pub fn pack_row(format: GroupFormat, codes: &[u8], words: &mut [u32]) {
    assert_eq!(words.len(), format.words(codes.len()), "words of a row");
    words.fill(0);
    for (word, codes) in words.iter_mut().zip(codes.chunks(format.per_word)) {
        *word = pack_word(format.bits, codes);
    }
}

/// Packs the codes of one word, the first into the lowest bits.
#[inline]
pub(crate) fn pack_word(bits: u32, codes: &[u8]) -> u32 {
    codes.iter().rev().fold(0, |word, &code| word << bits | u32::from(code))
}

/// Unpacks the first `codes.len()` codes of a row.
pub fn unpack_row(format: GroupFormat, words: &[u32], codes: &mut [u8]) {
    assert_eq!(words.len(), format.words(codes.len()), "words of a row");
    let mask = (1u32 << format.bits) - 1;
    for (&word, codes) in words.iter().zip(codes.chunks_mut(format.per_word)) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (word >> (format.bits * i as u32) & mask) as u8;
        }
    }
}

/// The transpose of a `[rows, cols]` matrix: how a KN tensor comes from an NK one.
pub fn transpose<T: Copy + Default>(rows: usize, cols: usize, values: &[T]) -> Vec<T> {
    assert_eq!(values.len(), rows * cols, "elements of a matrix");
    // Square tiles keep both the reads and the writes inside the cache.
    const TILE: usize = 32;
    let mut out = vec![T::default(); values.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..cols).step_by(TILE) {
            for r in r0..rows.min(r0 + TILE) {
                for c in c0..cols.min(c0 + TILE) {
                    out[c * rows + r] = values[r * cols + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn formats() -> impl Strategy<Value = GroupFormat> {
        prop_oneof![Just(GroupFormat::INT4), Just(GroupFormat::INT3)]
    }

    #[test]
    fn words_have_the_drawn_layout() {
        let mut words = [u32::MAX; 4];
        pack_row(GroupFormat::INT4, &[1, 2, 3, 4, 5, 6, 7, 8, 15], &mut words);
        assert_eq!(words, [0x8765_4321, 0xf, 0, 0]);
        pack_row(GroupFormat::INT3, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1], &mut words);
        assert_eq!(words, [7 | 7 << 27, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn unpacking_inverts_packing(format in formats(), raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let codes: Vec<u8> = raw.iter().map(|c| c & ((1 << format.bits) - 1)).collect();
            let mut words = vec![u32::MAX; format.words(codes.len())];
            pack_row(format, &codes, &mut words);
            let mut back = vec![0; codes.len()];
            unpack_row(format, &words, &mut back);
            prop_assert_eq!(&back, &codes);

            // Bits that hold no code are zero, so that equal weights give equal files.
            let mut all = vec![0; words.len() * format.per_word];
            unpack_row(format, &words, &mut all);
            prop_assert!(all[codes.len()..].iter().all(|&c| c == 0));
            if format.bits == 3 {
                prop_assert!(words.iter().all(|w| w >> 30 == 0));
            }
        }

        #[test]
        fn transposing_twice_changes_nothing(rows in 0usize..70, cols in 0usize..70) {
            let values: Vec<u32> = (0..(rows * cols) as u32).collect();
            let turned = transpose(rows, cols, &values);
            if rows > 1 && cols > 1 {
                prop_assert_eq!(turned[1], values[cols]);
            }
            prop_assert_eq!(transpose(cols, rows, &turned), values);
        }
    }
}
