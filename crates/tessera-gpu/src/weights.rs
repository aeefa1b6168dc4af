//! Weights on the device: as they lie in the file, cut into windows that a binding can hold.

use crate::device::Gpu;
use crate::plan::Bound;
use tessera_weights::scheme::Layout;
use tessera_weights::tensor::{Form, Matrix, MatrixData};

/// Some rows of a matrix.
pub struct Window {
    /// The first of them.
    pub row0: usize,
    /// How many.
    pub rows: usize,
    /// Codes, or elements.
    pub codes: wgpu::Buffer,
    /// Scales, where there are groups.
    pub scales: Option<wgpu::Buffer>,
}

impl Window {
    /// Bytes of so many of its rows.
    pub fn bytes(&self, rows: usize) -> usize {
        let all = self.codes.size() + self.scales.as_ref().map_or(0, wgpu::Buffer::size);
        (all as usize).checked_div(self.rows).unwrap_or(0) * rows
    }

    /// What a kernel that reads it binds.
    pub fn bound(&self) -> impl Iterator<Item = (u32, Bound)> {
        let scales = self.scales.iter().map(|scales| (7, Bound::Buffer(scales.clone())));
        std::iter::once((6, Bound::Buffer(self.codes.clone()))).chain(scales)
    }
}

/// A matrix, all copies of it.
pub struct Uploaded {
    /// How its elements are stored.
    pub form: Form,
    /// Inputs.
    pub cols: usize,
    /// Words of a row.
    pub words: usize,
    /// Groups of a row.
    pub groups: usize,
    /// Its rows, in order.
    pub windows: Vec<Window>,
}

impl Uploaded {
    /// Columns of a group; of what has none, those that a lane reads at once.
    pub const fn group(&self) -> usize {
        match self.form {
            Form::Grouped { format, .. } => format.group,
            Form::Dense(_) => 32,
        }
    }
}

/// A window begins at a multiple of this, so that 16-bit elements and scales begin at a word.
const ROWS: usize = 16;

/// Puts a matrix on the device.
pub fn upload(gpu: &Gpu, matrix: &Matrix) -> Uploaded {
    let (form, cols) = (matrix.form(), matrix.cols);
    let (words, groups, row, scale_row) = match &matrix.data {
        MatrixData::Dense { dtype, .. } => (0, cols.div_ceil(32), cols * dtype.size(), 0),
        MatrixData::Grouped { format, scale_dtype, .. } => {
            let (words, groups) = (format.words(cols), format.groups(cols));
            (words, groups, words * 4, groups * scale_dtype.size())
        }
    };
    let most = (gpu.binding_limit() / row.max(scale_row).max(1) / ROWS * ROWS).max(ROWS);
    let mut windows = Vec::new();
    for row0 in (0..matrix.rows).step_by(most) {
        let rows = most.min(matrix.rows - row0);
        let (codes, scales) = match &matrix.data {
            MatrixData::Dense { bytes, .. } => (gpu.upload(&bytes[row0 * row..][..rows * row]), None),
            MatrixData::Grouped { layout: Layout::Nk, words, scales, .. } => (
                gpu.upload(&words[row0 * row..][..rows * row]),
                Some(gpu.upload(&scales[row0 * scale_row..][..rows * scale_row])),
            ),
            MatrixData::Grouped { layout: Layout::Kn, words, scales, scale_dtype, .. } => (
                columns(gpu, words, (matrix.rows, 4), row0..row0 + rows),
                Some(columns(gpu, scales, (matrix.rows, scale_dtype.size()), row0..row0 + rows)),
            ),
        };
        windows.push(Window { row0, rows, codes, scales });
    }
    Uploaded { form, cols, words, groups, windows }
}

/// Some columns of a matrix `[.., all]` with elements of `size` bytes.
fn columns(
    gpu: &Gpu,
    bytes: &[u8],
    (all, size): (usize, usize),
    part: std::ops::Range<usize>,
) -> wgpu::Buffer {
    if part.len() == all {
        return gpu.upload(bytes);
    }
    let (from, to, len) = (part.start * size, part.end * size, bytes.len() / all * part.len());
    gpu.upload_pieces(bytes.chunks_exact(all * size).map(|row| &row[from..to]), len)
}
