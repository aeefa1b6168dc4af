//! Weights by their base name: one dense tensor, or codes with their scales.

use super::{Folder, FolderError, Shape};
use crate::bytes::Bytes;
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::{Form, Matrix, MatrixData, Tensor};

impl Folder {
    /// The weight `{base}` as a matrix of `rows` outputs and `cols` inputs: `{base}.q_weight` with
    /// `{base}.q_scale` if they are there, else `{base}.weight`.
    ///
    /// `group` is the scheme's format; with `None` a quantised weight is refused. With `Some` a dense
    /// weight is fine, since every scheme leaves some matrices alone. `layout` says how codes lie; a
    /// dense weight is always `[rows, cols]`.
    pub fn matrix(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        layout: Layout,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, FolderError> {
        self.stacked(base, group, layout, Shape::one(rows, cols))
    }

    /// A stack of weights, as of experts, as one matrix of all their outputs.
    pub fn stacked(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        layout: Layout,
        shape: Shape,
    ) -> Result<Matrix, FolderError> {
        let form = self.manifest.form(base, group, layout, shape)?;
        let bytes = |end: &str| self.need(&format!("{base}.{end}")).map(|tensor| tensor.bytes.clone());
        let data = match form {
            Form::Dense(dtype) => MatrixData::Dense { dtype, bytes: bytes("weight")? },
            Form::Grouped { format, layout, scale } => MatrixData::Grouped {
                format,
                layout,
                words: bytes("q_weight")?,
                scale_dtype: scale,
                scales: bytes("q_scale")?,
            },
        };
        let matrix = Matrix { rows: shape.all_rows(), cols: shape.cols, data };
        // Shapes and dtypes were compared, and the manifest ties them to byte lengths.
        if !matrix.check() {
            let what = format!("its bytes do not make a matrix of {} by {}", matrix.rows, matrix.cols);
            return Err(FolderError::WrongForm { base: base.to_owned(), what });
        }
        Ok(matrix)
    }

    /// The planes of a tensor `[stack, rows, cols]` that no scheme quantises, as one matrix of all their rows.
    pub fn planes(&self, name: &str, shape: Shape) -> Result<Matrix, FolderError> {
        let dtype = self.manifest.planes(name, shape)?;
        let bytes = self.need(name)?.bytes.clone();
        Ok(Matrix { rows: shape.all_rows(), cols: shape.cols, data: MatrixData::Dense { dtype, bytes } })
    }

    /// The same of a tensor `[stack, cols, rows]`: each plane is turned over, which takes its bytes once more.
    pub fn planes_by_input(&self, name: &str, shape: Shape) -> Result<Matrix, FolderError> {
        let Shape { stack, rows, cols } = shape;
        let dtype = self.manifest.floats(name, &stack.into_iter().chain([cols, rows]).collect::<Vec<_>>())?;
        let (tensor, size) = (self.need(name)?, dtype.size());
        let mut bytes = Vec::with_capacity(tensor.bytes.len());
        for plane in tensor.bytes.chunks_exact(rows * cols * size) {
            for row in 0..rows {
                for line in plane.chunks_exact(rows * size) {
                    bytes.extend_from_slice(&line[row * size..][..size]);
                }
            }
        }
        let data = MatrixData::Dense { dtype, bytes: Bytes::from_vec(bytes) };
        Ok(Matrix { rows: shape.all_rows(), cols, data })
    }

    /// A float vector of `len` elements, widened to f32: a norm's weight, a bias.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, FolderError> {
        self.floats(name, &[len])
    }

    /// A float tensor of any shape, widened to f32.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, FolderError> {
        let dtype = self.manifest.floats(name, shape)?;
        let wrong = || FolderError::WrongDType {
            tensor: name.to_owned(),
            expected: "a float type".to_owned(),
            found: dtype.to_string(),
        };
        self.need(name)?.to_f32().ok_or_else(wrong)
    }

    fn need(&self, name: &str) -> Result<&Tensor, FolderError> {
        self.tensor(name).ok_or_else(|| FolderError::MissingTensor { tensor: name.to_owned() })
    }
}
