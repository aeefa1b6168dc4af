//! How a conversion chooses codes: as MLC does, by search, or as somebody has found who knows the inputs.

use super::values::Rows;
use crate::dtype::DType;
use crate::pack::unpack_row;
use crate::quantize::feedback::Rounded;
use crate::quantize::search::{LANES, encode_rows};
use crate::quantize::{Arithmetic, encode_row, f32_to_bf16_bits, round_f16};
use crate::scheme::{GroupFormat, Layout, Scheme};
use rayon::prelude::*;

/// Codes and scales of quantised parameters, found elsewhere.
pub trait Found: Sync {
    /// Those of a parameter, in the order of its rows and not transposed; `None` where there are none.
    fn of(&self, param: &str) -> Option<&Rounded>;
}

/// How codes and scales are chosen. Every reader of the format reads them alike.
#[derive(Clone, Copy, Default)]
pub enum Rounding<'a> {
    /// As MLC's converter does, to the byte.
    #[default]
    Mlc,
    /// The scale of each group that leaves the least squared error.
    Search,
    /// What was found, and by search where nothing was.
    Found(&'a dyn Found),
}

/// What rounding did to a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The parameter.
    pub param: String,
    /// Squared error of its values, as a part of their squares.
    pub error: f64,
    /// What MLC's rounding would have left.
    pub plain: f64,
}

/// Sums over weights: their squares, the squared error, and that of plain rounding.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums([f64; 3]);

impl Sums {
    fn add(self, other: Sums) -> Sums {
        Sums(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// As a report of a parameter.
    pub fn loss(sums: impl Iterator<Item = Sums>, param: &str) -> Loss {
        let Sums([all, error, plain]) = sums.fold(Sums::default(), Sums::add);
        let part = |x: f64| if all > 0.0 { x / all } else { 0.0 };
        Loss { param: param.to_owned(), error: part(error), plain: part(plain) }
    }
}

/// Chooses codes and scales of a source's rows, the first of which is row `first` of the parameter; gives the sums of
/// rows, in order, where the choice is not MLC's.
pub(super) fn round(
    part: &Rows<'_>,
    first: usize,
    (scheme, layout, format): (&Scheme, Layout, GroupFormat),
    found: Option<Option<&Rounded>>,
    words: &mut [u32],
    scales: &mut [f32],
) -> Vec<Sums> {
    let (cols, arithmetic) = (part.cols, Arithmetic::of(scheme.dtype, layout));
    let (row_words, row_groups) = (format.words(cols), format.groups(cols));
    let lanes = words.par_chunks_mut(LANES * row_words).zip(scales.par_chunks_mut(LANES * row_groups));
    let one = |values: &mut Vec<f32>, (at, (words, scales)): (usize, (&mut [u32], &mut [f32]))| {
        let (at, rows) = (at * LANES, words.len() / row_words);
        values.resize(rows * cols, 0.0);
        for (r, row) in values.chunks_exact_mut(cols).enumerate() {
            part.read(at + r, row);
        }
        let mlc = |words: &mut [u32], scales: &mut [f32]| {
            let each = words.chunks_exact_mut(row_words).zip(scales.chunks_exact_mut(row_groups));
            for (row, (words, scales)) in values.chunks_exact(cols).zip(each) {
                encode_row(format, arithmetic, row, words, scales);
            }
        };
        let Some(found) = found else {
            mlc(words, scales);
            return Sums::default();
        };
        mlc(words, scales);
        let plain = error(format, scheme.dtype, cols, values, words, scales);
        match found {
            Some(found) => {
                let row = first + at;
                words.copy_from_slice(&found.words[row * row_words..][..words.len()]);
                scales.copy_from_slice(&found.scales[row * row_groups..][..scales.len()]);
            }
            None => encode_rows(format, scheme.dtype, (rows, cols), values, words, scales),
        }
        let squares = values.iter().map(|w| f64::from(*w).powi(2)).sum();
        Sums([squares, error(format, scheme.dtype, cols, values, words, scales), plain])
    };
    lanes.enumerate().map_init(Vec::new, one).collect()
}

/// Squared error of rows as they will be read.
fn error(
    format: GroupFormat,
    dtype: DType,
    cols: usize,
    values: &[f32],
    words: &[u32],
    scales: &[f32],
) -> f64 {
    let mut codes = vec![0u8; cols];
    let rows = values.chunks_exact(cols).zip(words.chunks_exact(format.words(cols)));
    let mut sum = 0.0;
    for ((row, words), scales) in rows.zip(scales.chunks_exact(format.groups(cols))) {
        unpack_row(format, words, &mut codes);
        let groups = row.chunks(format.group).zip(codes.chunks(format.group)).zip(scales);
        for ((row, codes), scale) in groups {
            let scale = match dtype {
                DType::F16 => round_f16(*scale),
                _ => f32::from_bits(u32::from(f32_to_bf16_bits(*scale)) << 16),
            };
            let mut of_group = 0.0f32;
            for (w, code) in row.iter().zip(codes) {
                let off = w - (i32::from(*code) - format.zero()) as f32 * scale;
                of_group += off * off;
            }
            sum += f64::from(of_group);
        }
    }
    sum
}
