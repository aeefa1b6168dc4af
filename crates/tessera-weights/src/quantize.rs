//! Numbers to codes and scales, and back: the reference that every kernel answers to.
//!
//! Encoding repeats MLC's arithmetic step by step, because folders must be byte-identical: where MLC
//! rounds an intermediate value to the model's dtype, so does this. Decoding is exact in f32.

#[cfg(feature = "fs")]
pub mod feedback;
pub mod search;

use crate::dtype::DType;
use crate::pack::pack_word;
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::{Matrix, MatrixData, widen};
use half::slice::HalfFloatSliceExt;

/// Rounds to the nearest f16, ties to even; beyond the range to infinity. Written without branches
/// because quantising to f16 rounds three times for every weight.
#[inline]
pub fn round_f16(x: f32) -> f32 {
    let bits = x.to_bits();
    let sign = bits & 0x8000_0000;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    let m = magnitude.to_bits();
    // Normal range: drop 13 bits of fraction.
    let normal = f32::from_bits((m.wrapping_add(0xfff + (m >> 13 & 1))) & !0x1fff);
    // Below 2^-14 an f16 has steps of 2^-24, which are those of an f32 between 0.5 and 1.
    let small = (magnitude + 0.5) - 0.5;
    let rounded = if magnitude < 6.103_515_6e-5 { small } else { normal };
    let rounded = if rounded > 65504.0 { f32::INFINITY } else { rounded };
    let rounded = if x.is_nan() { f32::NAN } else { rounded };
    f32::from_bits(rounded.to_bits() | sign)
}

/// Rounds to the nearest bf16, ties to even; beyond the range to infinity.
#[inline]
pub fn round_bf16(x: f32) -> f32 {
    let u = x.to_bits();
    if x.is_nan() {
        return f32::from_bits(u & 0xffff_0000 | 0x0040_0000);
    }
    f32::from_bits(u.wrapping_add(0x7fff + (u >> 16 & 1)) & 0xffff_0000)
}

/// Rounds to a value that `dtype` (f32, f16 or bf16) has.
#[inline]
pub fn round_to(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => round_f16(x),
        DType::BF16 => round_bf16(x),
        _ => x,
    }
}

/// The 16 bits that `f32-to-bf16` stores for a float32 element. Unlike a cast, values beyond the range
/// become the largest finite one, and a NaN is cut, not made quiet.
#[inline]
pub fn f32_to_bf16_bits(x: f32) -> u16 {
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);
    let u = x.to_bits();
    if -LARGEST < x && x < LARGEST {
        (u.wrapping_add(0x7fff + (u >> 16 & 1)) >> 16) as u16
    } else {
        (u >> 16) as u16
    }
}

/// Appends elements as MLC stores them: float32 as bf16, the others as they are. The values must
/// already be ones that `dtype` has.
pub fn store(dtype: DType, values: &[f32], out: &mut Vec<u8>) {
    match dtype {
        DType::F16 => {
            // A slice at a time, for `half` picks its instructions once per call.
            let mut halves = [half::f16::ZERO; 256];
            for values in values.chunks(halves.len()) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                out.extend(halves.iter().flat_map(|h| h.to_le_bytes()));
            }
        }
        DType::BF16 => out.extend(values.iter().flat_map(|&v| ((v.to_bits() >> 16) as u16).to_le_bytes())),
        _ => out.extend(values.iter().flat_map(|&v| f32_to_bf16_bits(v).to_le_bytes())),
    }
}

/// Which of MLC's ways of computing codes applies; see the format page, 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Plain f32 steps.
    F32,
    /// Every step rounded to f16.
    F16,
    /// Scale rounded to bf16, codes computed in f32 from the rounded scale.
    Bf16,
    /// Scale stored as bf16, codes computed in f32 from the unrounded scale: what MLC does to linear
    /// weights in KN layout.
    Bf16Unrounded,
}

impl Arithmetic {
    /// The arithmetic of a model's dtype and a tensor's layout.
    pub fn of(dtype: DType, layout: Layout) -> Arithmetic {
        match (dtype, layout) {
            (DType::F16, _) => Arithmetic::F16,
            (DType::BF16, Layout::Nk) => Arithmetic::Bf16,
            (DType::BF16, Layout::Kn) => Arithmetic::Bf16Unrounded,
            _ => Arithmetic::F32,
        }
    }
}

/// Quantises one row. The weights must already be values of the model's dtype. `words` and `scales`
/// are the row's [`GroupFormat::words`] and [`GroupFormat::groups`]; the scales are values of the
/// model's dtype, not yet stored.
///
/// A group that holds a NaN or an infinity gets a scale that is not finite.
pub fn encode_row(
    format: GroupFormat,
    arithmetic: Arithmetic,
    row: &[f32],
    words: &mut [u32],
    scales: &mut [f32],
) {
    assert_eq!(words.len(), format.words(row.len()), "words of a row");
    assert_eq!(scales.len(), format.groups(row.len()), "groups of a row");
    let per_group = format.words_per_group();
    let groups = row.chunks(format.group).zip(words.chunks_mut(per_group)).zip(scales);
    for ((weights, words), scale) in groups {
        *scale = match arithmetic {
            Arithmetic::F32 => encode_group(format, weights, words, |s| s, |s| s, |w, s, m| w / s + m),
            Arithmetic::F16 => encode_group(format, weights, words, round_f16, round_f16, |w, s, m| {
                round_f16(round_f16(w / s) + m)
            }),
            Arithmetic::Bf16 => {
                encode_group(format, weights, words, round_bf16, round_bf16, |w, s, m| w / s + m)
            }
            Arithmetic::Bf16Unrounded => {
                encode_group(format, weights, words, round_bf16, |s| s, |w, s, m| w / s + m)
            }
        };
    }
}

#[inline(always)]
fn encode_group(
    format: GroupFormat,
    weights: &[f32],
    words: &mut [u32],
    stored_scale: impl Fn(f32) -> f32,
    used_scale: impl Fn(f32) -> f32,
    steps: impl Fn(f32, f32, f32) -> f32,
) -> f32 {
    let zero = format.zero() as f32;
    let top = format.max_code() as f32;
    // `f32::max` would pass over a NaN; the group must not hide one.
    let largest = weights.iter().fold(0.0f32, |max, w| if w.abs() <= max { max } else { w.abs() });
    let largest = if weights.iter().any(|w| w.is_nan()) { f32::NAN } else { largest };
    let scale = largest / zero;
    let used = used_scale(scale);
    // At most 40 weights share a scale; codes that a short group lacks stay zero.
    let mut codes = [0u8; 40];
    for (code, &w) in codes.iter_mut().zip(weights) {
        let t = steps(w, used, zero);
        // NaN fails the first comparison and becomes code 0, as in MLC.
        let t = if t > 0.0 { t } else { 0.0 };
        let t = if t < top { t } else { top };
        // Adding 2^23 leaves the value, rounded to even, in the low bits of the fraction. To clamp
        // before rounding is the same, for the bounds are whole.
        *code = ((t + 8_388_608.0).to_bits() & 0xf) as u8;
    }
    for (word, codes) in words.iter_mut().zip(codes.chunks_exact(format.per_word)) {
        *word = pack_word(format.bits, codes);
    }
    stored_scale(scale)
}

/// Decodes one row into `out`, whose length is the matrix's `cols`: `(code - zero) * scale` in f32, or
/// the widened elements of a dense matrix. Panics if the row is not in the matrix.
pub fn decode_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    assert!(row < matrix.rows, "row {row} of {}", matrix.rows);
    assert_eq!(out.len(), matrix.cols, "columns");
    decode_rows(matrix, row, out);
}

/// Decodes a whole matrix, row after row, on all threads.
pub fn decode(matrix: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows * matrix.cols];
    if out.is_empty() {
        return out;
    }
    // Rows that lie side by side in a KN tensor share cache lines: 16 words are one line.
    let rows = 16;
    #[cfg(feature = "fs")]
    {
        use rayon::prelude::*;
        out.par_chunks_mut(rows * matrix.cols)
            .enumerate()
            .for_each(|(i, chunk)| decode_rows(matrix, i * rows, chunk));
    }
    #[cfg(not(feature = "fs"))]
    for (i, chunk) in out.chunks_mut(rows * matrix.cols).enumerate() {
        decode_rows(matrix, i * rows, chunk);
    }
    out
}

/// Decodes the rows from `first` on that fill `out`.
fn decode_rows(matrix: &Matrix, first: usize, out: &mut [f32]) {
    let cols = matrix.cols;
    if cols == 0 {
        return;
    }
    match &matrix.data {
        MatrixData::Dense { dtype, bytes } => {
            let from = first * cols * dtype.size();
            let widened = widen(*dtype, &bytes[from..from + out.len() * dtype.size()], out);
            assert!(widened, "a dense matrix holds floats");
        }
        MatrixData::Grouped { format, layout: Layout::Nk, words, scale_dtype, scales } => {
            let (word_len, groups) = (format.words(cols) * 4, format.groups(cols));
            for (r, out) in out.chunks_mut(cols).enumerate() {
                let words = &words[(first + r) * word_len..][..word_len];
                let scales = &scales[(first + r) * groups * scale_dtype.size()..];
                for (g, (out, words)) in out.chunks_mut(format.group).zip(words.chunks_exact(16)).enumerate()
                {
                    let scale = scale_at(*scale_dtype, scales, g);
                    for (out, word) in out.chunks_mut(format.per_word).zip(words.chunks_exact(4)) {
                        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                        decode_word(*format, word, scale, out);
                    }
                }
            }
        }
        MatrixData::Grouped { format, layout: Layout::Kn, words, scale_dtype, scales } => {
            let rows = out.len() / cols;
            for w in 0..cols.div_ceil(format.per_word) {
                let g = w / format.words_per_group();
                let line = &words[(w * matrix.rows + first) * 4..][..rows * 4];
                let k = w * format.per_word;
                let len = format.per_word.min(cols - k);
                for (r, word) in line.chunks_exact(4).enumerate() {
                    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    let scale = scale_at(*scale_dtype, scales, g * matrix.rows + first + r);
                    decode_word(*format, word, scale, &mut out[r * cols + k..][..len]);
                }
            }
        }
    }
}

#[inline(always)]
fn scale_at(dtype: DType, scales: &[u8], index: usize) -> f32 {
    let at = &scales[index * dtype.size()..][..dtype.size()];
    match dtype {
        DType::F16 => half::f16::from_le_bytes([at[0], at[1]]).to_f32(),
        DType::BF16 => f32::from_bits(u32::from(u16::from_le_bytes([at[0], at[1]])) << 16),
        DType::F32 => f32::from_le_bytes([at[0], at[1], at[2], at[3]]),
        _ => unreachable!("Matrix::check admits only float scales"),
    }
}

#[inline(always)]
fn decode_word(format: GroupFormat, word: u32, scale: f32, out: &mut [f32]) {
    let mask = (1 << format.bits) - 1;
    for (i, o) in out.iter_mut().enumerate() {
        let code = (word >> (format.bits * i as u32) & mask) as i32;
        *o = (code - format.zero()) as f32 * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::pack::{transpose, unpack_row};
    use half::{bf16, f16};
    use proptest::prelude::*;

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn every_f16_and_every_midpoint_between_two_rounds_as_half_does() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits).to_f32();
            assert!(same(round_f16(x), x), "{x}");
            let next = f16::from_bits(bits.wrapping_add(1)).to_f32();
            let middle = ((f64::from(x) + f64::from(next)) / 2.0) as f32;
            for x in
                [middle, f32::from_bits(middle.to_bits() + 1), f32::from_bits(middle.to_bits().max(1) - 1)]
            {
                assert!(same(round_f16(x), f16::from_f32(x).to_f32()), "{x:e}");
            }
        }
    }

    #[test]
    fn stored_bf16_saturates_and_cuts() {
        assert_eq!(f32_to_bf16_bits(f32::MAX), 0x7f7f);
        assert_eq!(f32_to_bf16_bits(f32::MIN), 0xff7f);
        assert_eq!(f32_to_bf16_bits(f32::INFINITY), 0x7f80);
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x7f80_0001)), 0x7f80, "a NaN may become an infinity");
        assert_eq!(f32_to_bf16_bits(-0.0), 0x8000);
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x3f80_8000)), 0x3f80, "tie to even, down");
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x3f81_8000)), 0x3f82, "tie to even, up");
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x0000_8001)), 0x0001, "subnormals round alike");
    }

    fn encode(format: GroupFormat, arithmetic: Arithmetic, row: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let mut words = vec![0; format.words(row.len())];
        let mut scales = vec![0.0; format.groups(row.len())];
        encode_row(format, arithmetic, row, &mut words, &mut scales);
        (words, scales)
    }

    fn codes(format: GroupFormat, words: &[u32], cols: usize) -> Vec<u8> {
        let mut codes = vec![0; cols];
        unpack_row(format, words, &mut codes);
        codes
    }

    #[test]
    fn ties_go_to_even_and_extremes_to_the_ends() {
        let (words, scales) =
            encode(GroupFormat::INT4, Arithmetic::F32, &[7.0, -7.0, 0.0, 0.5, 1.5, -0.5, -1.5, 2.4]);
        assert_eq!(scales, [1.0]);
        assert_eq!(codes(GroupFormat::INT4, &words, 8), [14, 0, 7, 8, 8, 6, 6, 9]);
    }

    #[test]
    fn a_group_of_zeros_has_code_and_scale_zero() {
        for arithmetic in [Arithmetic::F32, Arithmetic::F16, Arithmetic::Bf16, Arithmetic::Bf16Unrounded] {
            let (words, scales) = encode(GroupFormat::INT3, arithmetic, &[0.0; 41]);
            assert_eq!((words, scales), (vec![0; 8], vec![0.0; 2]));
        }
    }

    #[test]
    fn numbers_that_are_not_finite_reach_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 3, 31] {
                let mut row = [1.0; 32];
                row[at] = bad;
                let (_, scales) = encode(GroupFormat::INT4, Arithmetic::F16, &row);
                assert!(!scales[0].is_finite(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn an_f16_scale_that_underflows_clamps_to_the_ends() {
        // 2^-24 / 7 rounds to zero in f16: w / 0 is infinite.
        let tiny = 2f32.powi(-24);
        let (words, scales) = encode(GroupFormat::INT4, Arithmetic::F16, &[tiny, -tiny, 0.0]);
        assert_eq!(scales, [0.0]);
        assert_eq!(codes(GroupFormat::INT4, &words, 3), [14, 0, 0]);
    }

    fn matrix(format: GroupFormat, layout: Layout, rows: usize, cols: usize, data: &[f32]) -> Matrix {
        let mut words = Vec::new();
        let mut scales = Vec::new();
        for row in data.chunks(cols) {
            let (w, s) = encode(format, Arithmetic::F16, row);
            words.extend(w);
            scales.extend(s);
        }
        if layout == Layout::Kn {
            words = transpose(rows, format.words(cols), &words);
            scales = transpose(rows, format.groups(cols), &scales);
        }
        let mut stored = Vec::new();
        store(DType::F16, &scales, &mut stored);
        let words = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let matrix = Matrix {
            rows,
            cols,
            data: MatrixData::Grouped {
                format,
                layout,
                words: Bytes::from_vec(words),
                scale_dtype: DType::F16,
                scales: Bytes::from_vec(stored),
            },
        };
        assert!(matrix.check());
        matrix
    }

    proptest! {
        #[test]
        fn rounding_agrees_with_half(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            prop_assert!(same(round_f16(x), f16::from_f32(x).to_f32()));
            prop_assert!(same(round_bf16(x), bf16::from_f32(x).to_f32()));
        }

        #[test]
        fn decoding_is_within_half_a_step(
            int3 in any::<bool>(),
            rows in 1usize..40,
            cols in 1usize..100,
            seed in any::<u32>(),
        ) {
            let format = if int3 { GroupFormat::INT3 } else { GroupFormat::INT4 };
            let mut state = seed | 1;
            let data: Vec<f32> = (0..rows * cols)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    round_f16(state as f32 / u32::MAX as f32 * 2.0 - 1.0)
                })
                .collect();
            let nk = decode(&matrix(format, Layout::Nk, rows, cols, &data));
            let kn = matrix(format, Layout::Kn, rows, cols, &data);
            prop_assert_eq!(&nk, &decode(&kn));
            let mut row = vec![0.0; cols];
            for r in 0..rows {
                decode_row(&kn, r, &mut row);
                prop_assert_eq!(&row[..], &nk[r * cols..(r + 1) * cols]);
            }
            for (row, decoded) in data.chunks(cols).zip(nk.chunks(cols)) {
                for (group, decoded) in row.chunks(format.group).zip(decoded.chunks(format.group)) {
                    let largest = group.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                    // Half a step, and what three roundings to f16 add at codes up to 14.
                    let bound = largest / format.zero() as f32 * (0.5 + 0.02);
                    for (w, d) in group.iter().zip(decoded) {
                        prop_assert!((w - d).abs() <= bound, "{w} {d} {bound}");
                    }
                }
            }
        }
    }
}
