//! The bytes of a program's weights, from the folder whose manifest it was made of.

use tessera_compute::program::{Made, Parameter, Weight};
use tessera_compute::weights::{WeightError, Weights};
use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::folder::{Folder, FolderError, Shape};
use tessera_weights::quantize::decode_row;
use tessera_weights::tensor::{Form, Matrix, MatrixData};

/// An opened folder as a source: a matrix that is taken as it lies stays where it is mapped; what is turned over,
/// decoded or widened is made when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct FolderWeights<'a>(pub &'a Folder);

impl Weights for FolderWeights<'_> {
    fn matrix(&mut self, weight: &Weight) -> Result<Matrix, WeightError> {
        let Weight { ref name, rows, cols, copies, form, made } = *weight;
        let found = match made {
            Made::Stored => self.stored(name, copies, (rows, cols), form),
            Made::Turned => self.0.planes_by_input(name, self.shape(name, copies, (rows, cols))),
            Made::Head { stored, each, from, turned } => {
                let (taken, inputs) = if turned { (cols, rows) } else { (rows, cols) };
                let all = self.stored(name, 1, (copies * each, inputs), stored);
                all.map(|all| heads(&all, each, from..from + taken, turned, weight))
            }
        };
        found.map_err(|error| missing(name, &error))
    }

    fn vector(&mut self, parameter: &Parameter) -> Result<Vec<f32>, WeightError> {
        let Parameter { name, shape, plus } = parameter;
        let mut values = self.0.floats(name, shape).map_err(|error| missing(name, &error))?;
        if *plus != 0.0 {
            values.iter_mut().for_each(|x| *x += plus);
        }
        Ok(values)
    }
}

impl FolderWeights<'_> {
    /// What lies in the file. The weight `x.weight` lies as `x.q_weight` and `x.q_scale` where it is quantised.
    fn stored(
        self,
        name: &str,
        copies: usize,
        size: (usize, usize),
        form: Form,
    ) -> Result<Matrix, FolderError> {
        match form {
            Form::Dense(_) => self.0.planes(name, self.shape(name, copies, size)),
            Form::Grouped { format, layout, .. } => {
                let base = name.strip_suffix(".weight").unwrap_or(name);
                let shape = self.shape(&format!("{base}.q_weight"), copies, size);
                self.0.stacked(base, Some(format), layout, shape)
            }
        }
    }

    /// A stack of one may have an axis or none.
    fn shape(self, tensor: &str, copies: usize, (rows, cols): (usize, usize)) -> Shape {
        let axes = self.0.tensor(tensor).map_or(2, |tensor| tensor.shape.len());
        Shape { stack: (copies > 1 || axes == 3).then_some(copies), rows, cols }
    }
}

/// The taken rows of every head, in f32.
fn heads(all: &Matrix, each: usize, taken: std::ops::Range<usize>, turned: bool, weight: &Weight) -> Matrix {
    let mut values = Vec::with_capacity(weight.copies * weight.rows * weight.cols);
    let (mut head, mut row) = (Vec::new(), vec![0.0; all.cols]);
    for first in (0..all.rows).step_by(each.max(1)) {
        head.clear();
        for at in taken.clone() {
            decode_row(all, first + at, &mut row);
            head.extend_from_slice(&row);
        }
        match turned {
            false => values.extend_from_slice(&head),
            true => (0..all.cols).for_each(|i| values.extend(head.iter().skip(i).step_by(all.cols))),
        }
    }
    let bytes = Bytes::from_vec(values.iter().flat_map(|x: &f32| x.to_le_bytes()).collect());
    let data = MatrixData::Dense { dtype: DType::F32, bytes };
    Matrix { rows: weight.copies * weight.rows, cols: weight.cols, data }
}

fn missing(name: &str, error: &FolderError) -> WeightError {
    WeightError::Missing { name: name.to_owned(), what: error.to_string() }
}
