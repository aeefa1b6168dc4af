//! What a manifest says of a weight: its form, before any byte of it is there.

use super::FolderError;
use crate::dtype::DType;
use crate::manifest::{Manifest, Record};
use crate::scheme::{GroupFormat, Layout};
use crate::tensor::Form;

/// One matrix, or a stack of them in one tensor (two, with their scales).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many; `None` where the tensor has no axis for them.
    pub stack: Option<usize>,
    /// Outputs of each.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

impl Shape {
    /// One matrix.
    pub const fn one(rows: usize, cols: usize) -> Shape {
        Shape { stack: None, rows, cols }
    }

    /// Rows of all of them.
    pub fn all_rows(self) -> usize {
        self.stack.unwrap_or(1) * self.rows
    }

    /// The tensor's, with so many elements across instead of the columns.
    fn lie(self, across: usize, layout: Layout) -> Vec<usize> {
        let plane = match layout {
            Layout::Nk => [self.rows, across],
            Layout::Kn => [across, self.rows],
        };
        self.stack.into_iter().chain(plane).collect()
    }
}

impl Manifest {
    /// The form of the weight `{base}`: `{base}.q_weight` with `{base}.q_scale` if they are there, else
    /// `{base}.weight`. See [`super::Folder::matrix`].
    pub fn form(
        &self,
        base: &str,
        group: Option<GroupFormat>,
        layout: Layout,
        shape: Shape,
    ) -> Result<Form, FolderError> {
        let name = |end: &str| format!("{base}.{end}");
        let dense = self.record(&name("weight"));
        let words = self.record(&name("q_weight"));
        let scales = self.record(&name("q_scale"));
        let wrong_form = |what: &str| FolderError::WrongForm { base: base.to_owned(), what: what.to_owned() };
        match (dense, words, scales) {
            (None, None, None) => {
                Err(FolderError::MissingTensor { tensor: format!("{base}.q_weight (or {base}.weight)") })
            }
            (None, None, Some(_)) => Err(FolderError::MissingTensor { tensor: name("q_weight") }),
            (None, Some(_), None) => Err(FolderError::MissingTensor { tensor: name("q_scale") }),
            (Some(record), None, None) => plane(record, shape).map(Form::Dense),
            (None, Some(words), Some(scales)) => match group {
                Some(format) => grouped(words, scales, format, layout, shape),
                None => Err(wrong_form("it is quantised (q_weight), but the scheme is not")),
            },
            (Some(_), _, _) => Err(wrong_form("it is there both as weight and as q_weight or q_scale")),
        }
    }

    /// The stored type of a float tensor whose planes are matrices that no scheme quantises: `[stack, rows, cols]`.
    pub fn planes(&self, name: &str, shape: Shape) -> Result<DType, FolderError> {
        plane(self.need(name)?, shape)
    }

    /// The stored type of a float tensor of this shape.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<DType, FolderError> {
        let record = self.need(name)?;
        expect_float(record)?;
        expect_shape(record, shape, "")?;
        Ok(record.stored())
    }

    fn need(&self, name: &str) -> Result<&Record, FolderError> {
        self.record(name).ok_or_else(|| FolderError::MissingTensor { tensor: name.to_owned() })
    }
}

const FLOATS: &str = "float32, float16 or bfloat16";

fn plane(record: &Record, shape: Shape) -> Result<DType, FolderError> {
    expect_float(record)?;
    let turned = record.shape == shape.lie(shape.cols, Layout::Kn);
    expect_shape(record, &shape.lie(shape.cols, Layout::Nk), if turned { "; it is transposed" } else { "" })?;
    Ok(record.stored())
}

fn grouped(
    words: &Record,
    scales: &Record,
    format: GroupFormat,
    layout: Layout,
    shape: Shape,
) -> Result<Form, FolderError> {
    if words.dtype.is_float() && scales.dtype == DType::U32 {
        let describe = |t: &Record| format!("{} {:?}", t.dtype, t.shape);
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
    let hint = |t: &Record, across| if t.shape == lie(across, other) { turned } else { "" };
    expect_shape(words, &lie(n_words, layout), hint(words, n_words))?;
    let scale_hint = match hint(scales, n_groups) {
        "" => "; it is the scale of another weight, or of another group size",
        turned => turned,
    };
    expect_shape(scales, &lie(n_groups, layout), scale_hint)?;
    Ok(Form::Grouped { format, layout, scale: scales.stored() })
}

fn wrong_dtype(record: &Record, expected: &str) -> FolderError {
    FolderError::WrongDType {
        tensor: record.name.clone(),
        expected: expected.to_owned(),
        found: record.dtype.to_string(),
    }
}

fn expect_float(record: &Record) -> Result<(), FolderError> {
    if record.dtype.is_float() { Ok(()) } else { Err(wrong_dtype(record, FLOATS)) }
}

fn expect_shape(record: &Record, expected: &[usize], hint: &'static str) -> Result<(), FolderError> {
    if record.shape == expected {
        return Ok(());
    }
    Err(FolderError::WrongShape {
        tensor: record.name.clone(),
        expected: expected.to_vec(),
        found: record.shape.clone(),
        hint,
    })
}
