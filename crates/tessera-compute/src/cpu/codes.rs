//! Matrices of packed codes as the kernels see them, one name for all the forms that have integer
//! kernels, and what those kernels share: reading scales.

use super::int4::{Int4, PANEL, Panel, TileView};
use super::kernels::Kernels;
use super::q8::{self, GROUP, TILE};
use super::simd::LANES;
use super::{int3, int3_acts};
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

    /// What the kernels' pointers rely on: all words and scales, and `n` tokens in blocks of `block`
    /// bytes.
    pub(super) fn check(&self, rows: &Range<usize>, x: &q8::Rows, block: usize, n: usize, y: &[f32]) {
        self.check_len();
        assert!(rows.start <= rows.end && rows.end <= self.rows && y.len() >= n * rows.len());
        assert!(x.blocks == self.groups.div_ceil(LANES) && x.values.len() >= n * x.blocks * block);
        assert!(x.scales.len() >= n * x.blocks * LANES && x.offsets.len() >= n * x.blocks * LANES);
    }

    pub(super) fn check_len(&self) {
        assert!(self.words.len() == self.rows * self.groups * GROUP_BYTES);
        assert!(self.scales.len() == self.rows * self.groups * self.scale_dtype.size());
    }
}

/// A quantised matrix that has integer kernels.
#[derive(Clone, Copy)]
pub enum Coded<'a> {
    /// 4 bits, a row is a stream.
    Int4(Int4<'a>),
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
            (GroupFormat::INT4, Layout::Nk) => {
                Some(Coded::Int4(Int4 { words, scales, scale_dtype, groups, rows }))
            }
            (GroupFormat::INT4, Layout::Kn) => Some(Coded::Int4Kn(codes)),
            (GroupFormat::INT3, Layout::Nk) => Some(Coded::Int3(codes)),
            (GroupFormat::INT3, Layout::Kn) => Some(Coded::Int3Kn(codes)),
            _ => None,
        }
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        match self {
            Coded::Int4(w) => w.groups,
            Coded::Int4Kn(w) | Coded::Int3(w) | Coded::Int3Kn(w) => w.groups,
        }
    }

    /// Weights of a group.
    pub fn group(&self) -> usize {
        match self {
            Coded::Int4(_) | Coded::Int4Kn(_) => GROUP,
            Coded::Int3(_) | Coded::Int3Kn(_) => int3_acts::GROUP,
        }
    }

    /// Whether a row's words lie together. If not, neighbouring rows do, and a claim should be wide.
    pub fn is_nk(&self) -> bool {
        matches!(self, Coded::Int4(_) | Coded::Int3(_))
    }

    /// Bytes of a group of inputs for the row kernel and for the tile kernel.
    pub fn input_bytes(&self) -> (usize, usize) {
        match self {
            Coded::Int4(_) | Coded::Int4Kn(_) => (GROUP, GROUP),
            Coded::Int3(_) | Coded::Int3Kn(_) => (int3_acts::ROW_BYTES, int3_acts::TILE_BYTES),
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

impl Kernels {
    /// Quantises a row of inputs for [`Kernels::rows`]; see [`q8::row`].
    pub fn input_row(
        &self,
        w: &Coded<'_>,
        x: &[f32],
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        match w {
            Coded::Int4(_) | Coded::Int4Kn(_) => self.q8_row(x, values, scales, offsets),
            Coded::Int3(_) | Coded::Int3Kn(_) => self.int3_row(x, values, scales, offsets),
        }
    }

    /// Quantises a row of inputs for [`Kernels::tile`]; see [`q8::tile_row`].
    #[allow(clippy::too_many_arguments)]
    pub fn input_tile_row(
        &self,
        w: &Coded<'_>,
        x: &[f32],
        order: &[u32],
        t: usize,
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        match w {
            Coded::Int4(_) | Coded::Int4Kn(_) => self.q8_tile_row(x, order, t, values, scales, offsets),
            Coded::Int3(_) | Coded::Int3Kn(_) => self.int3_tile_row(x, order, t, values, scales, offsets),
        }
    }

    /// `y[t][i]` = row `rows.start + i` times token `t`, for a few tokens.
    pub fn rows(&self, w: &Coded<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        match w {
            Coded::Int4(w) => self.int4_rows(w, rows, x, n, y),
            Coded::Int4Kn(w) => self.int4_kn_rows(w, rows, x, n, y),
            Coded::Int3(w) => self.int3_rows(w, rows, x, n, y),
            Coded::Int3Kn(w) => self.int3_kn_rows(w, rows, x, n, y),
        }
    }

    /// Unpacks the 16 rows from `row`; what stands for rows past the last one is arbitrary.
    pub fn panel(&self, w: &Coded<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        match w {
            Coded::Int4(w) => self.int4_panel(w, row, order, panel),
            Coded::Int4Kn(w) => self.int4_kn_panel(w, row, order, panel),
            Coded::Int3(w) => self.int3_panel(w, row, order, panel),
            Coded::Int3Kn(w) => self.int3_kn_panel(w, row, order, panel),
        }
    }

    /// One tile of tokens times one panel: `y[t][r]`.
    pub fn tile(
        &self,
        w: &Coded<'_>,
        panel: &Panel,
        x: &TileView<'_>,
        ends: &[usize; LANES],
        y: &mut [f32; TILE * PANEL],
    ) {
        match w {
            Coded::Int4(_) | Coded::Int4Kn(_) => self.int4_tile(panel, x, ends, y),
            Coded::Int3(_) | Coded::Int3Kn(_) => self.int3_tile(panel, x, ends, y),
        }
    }
}

const _: () = assert!(int3::STEPS * 4 == int3_acts::TILE_BYTES);

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
