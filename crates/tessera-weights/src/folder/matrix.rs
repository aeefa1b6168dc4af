//! Weights by their base name: one dense tensor, or codes with their scales.

use super::{Folder, FolderError};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::{Matrix, MatrixData, Tensor};

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
        self.form(base, group, layout, Shape { stack: None, rows, cols })
    }

    /// The weights of `count` experts as one matrix of all their outputs; see [`Folder::experts`].
    pub fn stacked(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, FolderError> {
        self.form(base, group, Layout::Nk, Shape { stack: Some(count), rows, cols })
    }

    /// The weights of `count` experts, which lie in one tensor: as [`Folder::matrix`], each of `rows` outputs and `cols`
    /// inputs, one after another.
    pub fn experts(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Matrix>, FolderError> {
        let shape = Shape { stack: Some(count), rows, cols };
        self.form(base, group, Layout::Nk, shape).and_then(|all| shape.parts(base, &all))
    }

    /// The matrices of a tensor `[count, rows, cols]` that no scheme quantises, one after another.
    pub fn planes(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Matrix>, FolderError> {
        let shape = Shape { stack: Some(count), rows, cols };
        shape.parts(name, &dense_matrix(self.need(name)?, shape)?)
    }

    /// The same of a tensor `[count, cols, rows]`, or `[cols, rows]` for one: each matrix is turned over, which takes its
    /// bytes once more.
    pub fn planes_by_input(
        &self,
        name: &str,
        count: Option<usize>,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Matrix>, FolderError> {
        let tensor = self.need(name)?;
        expect_float(tensor)?;
        expect_shape(tensor, &count.into_iter().chain([cols, rows]).collect::<Vec<_>>(), "")?;
        let (dtype, size) = (tensor.stored(), tensor.stored().size());
        let one = |plane: &[u8]| {
            let mut bytes = Vec::with_capacity(plane.len());
            for row in 0..rows {
                for line in plane.chunks_exact(rows * size) {
                    bytes.extend_from_slice(&line[row * size..][..size]);
                }
            }
            Matrix { rows, cols, data: MatrixData::Dense { dtype, bytes: Bytes::from_vec(bytes) } }
        };
        Ok(tensor.bytes.chunks_exact(rows * cols * size).map(one).collect())
    }

    fn need(&self, name: &str) -> Result<&Tensor, FolderError> {
        self.tensor(name).ok_or_else(|| FolderError::MissingTensor { tensor: name.to_owned() })
    }

    fn form(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        layout: Layout,
        shape: Shape,
    ) -> Result<Matrix, FolderError> {
        let name = |end: &str| format!("{base}.{end}");
        let dense = self.tensor(&name("weight"));
        let words = self.tensor(&name("q_weight"));
        let scales = self.tensor(&name("q_scale"));
        let wrong_form = |what: String| FolderError::WrongForm { base: base.to_owned(), what };
        let matrix = match (dense, words, scales) {
            (None, None, None) => {
                let tensor = format!("{base}.q_weight (or {base}.weight)");
                return Err(FolderError::MissingTensor { tensor });
            }
            (None, None, Some(_)) => return Err(FolderError::MissingTensor { tensor: name("q_weight") }),
            (None, Some(_), None) => return Err(FolderError::MissingTensor { tensor: name("q_scale") }),
            (Some(tensor), None, None) => dense_matrix(tensor, shape)?,
            (None, Some(words), Some(scales)) => {
                let Some(format) = group else {
                    let what = "it is quantised (q_weight), but the scheme is not";
                    return Err(wrong_form(what.to_owned()));
                };
                grouped_matrix(words, scales, format, layout, shape)?
            }
            (Some(_), _, _) => {
                return Err(wrong_form("it is there both as weight and as q_weight or q_scale".to_owned()));
            }
        };
        // Shapes and dtypes were compared above, and the manifest ties them to byte lengths.
        if !matrix.check() {
            let Shape { rows, cols, .. } = shape;
            return Err(wrong_form(format!("its bytes do not make a matrix of {rows} by {cols}")));
        }
        Ok(matrix)
    }

    /// A float vector of `len` elements, widened to f32: a norm's weight, a bias.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, FolderError> {
        self.floats(name, &[len])
    }

    /// A float tensor of any shape, widened to f32.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, FolderError> {
        let tensor = self.need(name)?;
        expect_float(tensor)?;
        expect_shape(tensor, shape, "")?;
        tensor.to_f32().ok_or_else(|| wrong_dtype(tensor, FLOATS))
    }
}

const FLOATS: &str = "float32, float16 or bfloat16";

/// One matrix, or a stack of them.
#[derive(Clone, Copy)]
struct Shape {
    stack: Option<usize>,
    rows: usize,
    cols: usize,
}

impl Shape {
    /// The tensor's, with so many elements across instead of the columns.
    fn lie(self, across: usize, layout: Layout) -> Vec<usize> {
        let plane = match layout {
            Layout::Nk => [self.rows, across],
            Layout::Kn => [across, self.rows],
        };
        self.stack.into_iter().chain(plane).collect()
    }

    /// Each of them.
    fn parts(self, base: &str, all: &Matrix) -> Result<Vec<Matrix>, FolderError> {
        let Shape { stack, rows, cols } = self;
        let count = stack.unwrap_or(1);
        let parts: Option<Vec<Matrix>> = (0..count).map(|i| all.part(i * rows, rows)).collect();
        let what = format!("its bytes do not make {count} matrices of {rows} by {cols}");
        parts.ok_or_else(|| FolderError::WrongForm { base: base.to_owned(), what })
    }

    /// All of them, as one matrix.
    fn matrix(self, data: MatrixData) -> Matrix {
        Matrix { rows: self.stack.unwrap_or(1) * self.rows, cols: self.cols, data }
    }
}

fn dense_matrix(tensor: &Tensor, shape: Shape) -> Result<Matrix, FolderError> {
    expect_float(tensor)?;
    let turned = tensor.shape == shape.lie(shape.cols, Layout::Kn);
    expect_shape(tensor, &shape.lie(shape.cols, Layout::Nk), if turned { "; it is transposed" } else { "" })?;
    Ok(shape.matrix(MatrixData::Dense { dtype: tensor.stored(), bytes: tensor.bytes.clone() }))
}

fn grouped_matrix(
    words: &Tensor,
    scales: &Tensor,
    format: GroupFormat,
    layout: Layout,
    shape: Shape,
) -> Result<Matrix, FolderError> {
    if words.dtype.is_float() && scales.dtype == DType::U32 {
        let describe = |t: &Tensor| format!("{} {:?}", t.dtype, t.shape);
        return Err(FolderError::Swapped {
            weight: words.name.clone(),
            weight_is: describe(words),
            scale: scales.name.clone(),
            scale_is: describe(scales),
        });
    }
    if words.dtype != DType::U32 {
        return Err(wrong_dtype(words, "uint32"));
    }
    expect_float(scales)?;
    let lie = |across: usize, layout| shape.lie(across, layout);
    let (n_words, n_groups) = (format.words(shape.cols), format.groups(shape.cols));
    let (other, turned) = match layout {
        Layout::Nk => (Layout::Kn, "; it lies the other way, as in the _0 schemes"),
        Layout::Kn => (Layout::Nk, "; it lies the other way, as in the _1 schemes"),
    };
    let hint = |t: &Tensor, across| if t.shape == lie(across, other) { turned } else { "" };
    expect_shape(words, &lie(n_words, layout), hint(words, n_words))?;
    let scale_hint = match hint(scales, n_groups) {
        "" => "; it is the scale of another weight, or of another group size",
        turned => turned,
    };
    expect_shape(scales, &lie(n_groups, layout), scale_hint)?;
    let data = MatrixData::Grouped {
        format,
        layout,
        words: words.bytes.clone(),
        scale_dtype: scales.stored(),
        scales: scales.bytes.clone(),
    };
    Ok(shape.matrix(data))
}

fn wrong_dtype(tensor: &Tensor, expected: &str) -> FolderError {
    FolderError::WrongDType {
        tensor: tensor.name.clone(),
        expected: expected.to_owned(),
        found: tensor.dtype.to_string(),
    }
}

fn expect_float(tensor: &Tensor) -> Result<(), FolderError> {
    if tensor.dtype.is_float() { Ok(()) } else { Err(wrong_dtype(tensor, FLOATS)) }
}

fn expect_shape(tensor: &Tensor, expected: &[usize], hint: &'static str) -> Result<(), FolderError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(FolderError::WrongShape {
        tensor: tensor.name.clone(),
        expected: expected.to_vec(),
        found: tensor.shape.clone(),
        hint,
    })
}
