//! Matrices of packed codes as the kernels see them, and what all kernels share: reading words and scales.

use super::format::{Bits3, Bits4, Format};
use super::q8;
use super::simd::LANES;
use std::ops::Range;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// A quantised matrix in the file, four words a group: `words [rows, 4 * groups]`,
/// `scales [rows, groups]`, or with the layout KN the transposes of both.
#[derive(Clone, Copy)]
pub struct Codes<'a> {
    /// u32, at any alignment.
    pub words: &'a [u8],
    /// Of `scale_dtype`.
    pub scales: &'a [u8],
    /// bf16, f16 or f32.
    pub scale_dtype: DType,
    /// Groups of a row.
    pub groups: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Bytes of a group's words.
pub const GROUP_BYTES: usize = 16;

impl Codes<'_> {
    /// The word at `index` of the tensor.
    #[inline(always)]
    pub(super) fn word(&self, index: usize) -> u32 {
        let b = &self.words[index * 4..index * 4 + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    /// The scale at `index` of the tensor, widened.
    #[inline(always)]
    pub(super) fn scale(&self, index: usize) -> f32 {
        let size = self.scale_dtype.size();
        let b = &self.scales[index * size..(index + 1) * size];
        match self.scale_dtype {
            DType::BF16 => f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
            DType::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
            _ => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        }
    }

    /// Words and scales of `count` rows from `row`, as far as there are any, where a row is a stream.
    pub(super) fn part(&self, row: usize, count: usize) -> [&[u8]; 2] {
        let rows = row.min(self.rows)..(row + count).min(self.rows);
        let of = |bytes: &'_ [u8], len: usize| rows.start * len..(rows.end * len).min(bytes.len());
        let (words, scales) = (self.groups * GROUP_BYTES, self.groups * self.scale_dtype.size());
        [&self.words[of(self.words, words)], &self.scales[of(self.scales, scales)]]
    }

    /// What the row kernels' pointers rely on: all words and scales, and `n` tokens.
    pub(super) fn check<F: Format>(&self, rows: &Range<usize>, x: &q8::Rows, n: usize, y: &[f32]) {
        self.check_len();
        assert!(rows.start <= rows.end && rows.end <= self.rows && y.len() >= n * rows.len());
        assert!(x.planes == 1 || x.planes == 2);
        assert!(x.blocks == self.groups.div_ceil(LANES));
        assert!(x.values.len() >= n * x.blocks * q8::block::<F>(x.planes));
        assert!(x.scales.len() >= n * x.blocks * LANES && x.offsets.len() >= n * x.blocks * LANES);
    }

    pub(super) fn check_len(&self) {
        assert!(self.words.len() == self.rows * self.groups * GROUP_BYTES);
        assert!(self.scales.len() == self.rows * self.groups * self.scale_dtype.size());
    }
}

/// Σ code * value of a word of group `j`, over both planes; `values` begin at the group's block.
#[inline(always)]
pub(super) fn word_dot<F: Format>(word: u32, values: &[i8], planes: usize, at: usize) -> i32 {
    let parts = F::split(word);
    let mut dot = 0;
    for plane in 0..planes {
        // The high plane comes first.
        dot <<= 7;
        for (part, codes) in parts[..F::PARTS].iter().enumerate() {
            let at = at + (plane * F::PARTS + part) * 64;
            for (code, value) in codes.to_le_bytes().into_iter().zip(&values[at..at + 4]) {
                dot += i32::from(code) * i32::from(*value);
            }
        }
    }
    dot
}

/// A quantised matrix that has integer kernels.
#[derive(Clone, Copy)]
pub enum Coded<'a> {
    /// 4 bits, a row is a stream.
    Int4(Codes<'a>),
    /// 4 bits, KN.
    Int4Kn(Codes<'a>),
    /// 3 bits, a row is a stream.
    Int3(Codes<'a>),
    /// 3 bits, KN.
    Int3Kn(Codes<'a>),
}

impl<'a> Coded<'a> {
    /// The codes of a matrix, if its format has integer kernels.
    pub fn of(matrix: &'a Matrix) -> Option<Coded<'a>> {
        let MatrixData::Grouped { format, layout, words, scale_dtype, scales } = &matrix.data else {
            return None;
        };
        let (scale_dtype, groups, rows) = (*scale_dtype, format.groups(matrix.cols), matrix.rows);
        let codes = Codes { words, scales, scale_dtype, groups, rows };
        match (*format, layout) {
            (GroupFormat::INT4, Layout::Nk) => Some(Coded::Int4(codes)),
            (GroupFormat::INT4, Layout::Kn) => Some(Coded::Int4Kn(codes)),
            (GroupFormat::INT3, Layout::Nk) => Some(Coded::Int3(codes)),
            (GroupFormat::INT3, Layout::Kn) => Some(Coded::Int3Kn(codes)),
            _ => None,
        }
    }

    /// The codes, of whatever format.
    pub fn codes(&self) -> &Codes<'a> {
        match self {
            Coded::Int4(w) | Coded::Int4Kn(w) | Coded::Int3(w) | Coded::Int3Kn(w) => w,
        }
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.codes().groups
    }

    /// Whether a row's words lie together. If not, neighbouring rows do, and a claim should be wide.
    pub fn is_nk(&self) -> bool {
        matches!(self, Coded::Int4(_) | Coded::Int3(_))
    }

    /// Bytes of a plane of a group of inputs for the row kernel and for the tile kernel.
    pub fn input_bytes(&self) -> (usize, usize) {
        match self {
            Coded::Int4(_) | Coded::Int4Kn(_) => (Bits4::PARTS * 16, Bits4::GROUP),
            Coded::Int3(_) | Coded::Int3Kn(_) => (Bits3::PARTS * 16, Bits3::GROUP),
        }
    }

    /// The order in which the tile kernel visits groups, and the ends of its runs. With KN a row is one
    /// chain of ascending groups: one run, and empty ones.
    pub fn visit(&self) -> (Vec<u32>, [usize; LANES]) {
        match self.is_nk() {
            true => q8::visit(self.groups()),
            false => ((0..self.groups() as u32).collect(), [self.groups(); LANES]),
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::DType;
    use std::arch::x86_64::*;

    /// 16 scales in a row.
    ///
    /// # Safety
    /// The machine has the instruction set; 16 scales at `p`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn scales16(dtype: DType, p: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                DType::BF16 => {
                    let s = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(s))
                }
                DType::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
                _ => _mm512_loadu_ps(p.cast()),
            }
        }
    }

    /// The first `n` of 16 scales in a row, zeros behind them.
    ///
    /// # Safety
    /// The machine has the instruction set; `n` scales at `p`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn some_scales16(dtype: DType, p: *const u8, n: usize) -> __m512 {
        let mask = ((1u32 << n) - 1) as u16;
        // SAFETY: the caller's promise; what the mask leaves out is not read.
        unsafe {
            match dtype {
                DType::BF16 => {
                    let s = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(s))
                }
                DType::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p.cast())),
                _ => _mm512_maskz_loadu_ps(mask, p.cast()),
            }
        }
    }

    /// 8 scales in a row.
    ///
    /// # Safety
    /// The machine has the instruction set; 8 scales at `p`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn scales8(dtype: DType, p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            match dtype {
                DType::BF16 => {
                    let s = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(s))
                }
                DType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _ => _mm256_loadu_ps(p.cast()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: Format>(bits: u32, codes: u32) {
        for seed in 0..1000u32 {
            let word = seed.wrapping_mul(2_654_435_761) ^ (seed << 7);
            let parts = F::split(word);
            let mut seen = Vec::new();
            for (i, &code) in F::ORDER.iter().enumerate() {
                let byte = parts[i / 4].to_le_bytes()[i % 4];
                assert_eq!(u32::from(byte), (word >> (bits * code as u32)) & ((1 << bits) - 1));
                seen.push(code as u32);
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..codes));
            // Bytes that stand for no code are zero.
            for i in F::ORDER.len()..12 {
                assert_eq!(parts[i / 4].to_le_bytes()[i % 4], 0);
            }
            // Inputs are arranged as the codes are: a group whose values are its codes.
            let words = [word, !word, word ^ 0x1234_5678, 0];
            let code = |i: u32| (words[(i / codes) as usize] >> (bits * (i % codes))) & ((1 << bits) - 1);
            let values = std::array::from_fn(|i| if i < F::GROUP { code(i as u32) as i8 } else { 0 });
            let bytes: Vec<u8> = F::steps(words).iter().flat_map(|s| s.to_le_bytes()).collect();
            let arranged = F::arrange(&values).map(|v| v as u8);
            assert_eq!(arranged[..F::GROUP], bytes[..F::GROUP]);
        }
    }

    #[test]
    fn a_word_is_split_into_its_codes() {
        check::<Bits4>(4, 8);
        check::<Bits3>(3, 10);
    }
}
