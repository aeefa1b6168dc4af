//! Where a program's weights come from, one at a time, when a backend loads it.

use crate::program::{MatrixId, Parameter, Program, Vector, VectorId, Weight};
use std::collections::HashMap;
use std::ops::Index;
use tessera_weights::tensor::Matrix;

/// Gives weights to a backend that asks for one after another and may keep, copy or drop each before the next.
pub trait Weights {
    /// The matrix of this description.
    fn matrix(&mut self, weight: &Weight) -> Result<Matrix, WeightError>;

    /// The values of this parameter.
    fn vector(&mut self, parameter: &Parameter) -> Result<Vec<f32>, WeightError>;
}

/// A weight that did not come, or not as the program describes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// The source does not have it.
    #[error("{name} could not be read: {what}")]
    Missing {
        /// The parameter.
        name: String,
        /// What the source says; names the file or tensor.
        what: String,
    },
    /// Another came.
    #[error("{name} should be {expected}, what came is {found}")]
    Other {
        /// The parameter.
        name: String,
        /// What the program reads.
        expected: String,
        /// What the source gave.
        found: String,
    },
}

impl Weight {
    /// Asks for it, and sees that it is what came.
    pub fn of(&self, source: &mut dyn Weights) -> Result<Matrix, WeightError> {
        let matrix = source.matrix(self)?;
        let Matrix { rows, cols, .. } = matrix;
        let fits = (rows, cols, matrix.form()) == (self.copies * self.rows, self.cols, self.form);
        if fits && matrix.check() {
            return Ok(matrix);
        }
        let (what, len) = (format!("[{rows}, {cols}] {}", matrix.form()), matrix.stored_len());
        let found = if fits { format!("{what} in {len} bytes") } else { what };
        Err(WeightError::Other { name: self.name.clone(), expected: self.to_string(), found })
    }
}

impl Vector {
    /// Asks for it, and sees that it is as long as it should be.
    pub fn of(&self, source: &mut dyn Weights) -> Result<Vec<f32>, WeightError> {
        let parameter = match self {
            Vector::Constant(values) => return Ok(values.clone()),
            Vector::Parameter(parameter) => parameter,
        };
        let values = source.vector(parameter)?;
        if values.len() == self.len() {
            return Ok(values);
        }
        let (expected, found) = (format!("{} values", self.len()), format!("{} values", values.len()));
        Err(WeightError::Other { name: parameter.name.clone(), expected, found })
    }
}

/// All weights of a program, for a backend that reads them where they are.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The copies of each.
    matrices: Vec<Vec<Matrix>>,
    vectors: Vec<Vec<f32>>,
}

impl Loaded {
    /// Asks for every weight of a program that was checked.
    pub fn new(program: &Program, source: &mut dyn Weights) -> Result<Loaded, WeightError> {
        let mut matrices = Vec::with_capacity(program.weights.len());
        for weight in &program.weights {
            let all = weight.of(source)?;
            matrices.push(match weight.copies {
                1 => vec![all],
                // `Program::check` lets rows of several lie one after another only.
                copies => (0..copies).filter_map(|i| all.part(i * weight.rows, weight.rows)).collect(),
            });
        }
        let vectors = program.vectors.iter().map(|vector| vector.of(source)).collect::<Result<_, _>>()?;
        Ok(Loaded { matrices, vectors })
    }

    /// Puts a matrix in the place of one.
    #[cfg(feature = "threads")]
    pub fn replace(&mut self, id: MatrixId, matrix: Matrix) {
        self.matrices[id.weight][id.copy] = matrix;
    }

    /// A vector, where there is one.
    pub fn vector(&self, id: Option<VectorId>) -> Option<&[f32]> {
        id.map(|id| &self[id])
    }
}

impl Index<MatrixId> for Loaded {
    type Output = Matrix;

    fn index(&self, id: MatrixId) -> &Matrix {
        &self.matrices[id.weight][id.copy]
    }
}

impl Index<VectorId> for Loaded {
    type Output = [f32];

    fn index(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0]
    }
}

/// Weights at hand, by name: for programs that are made by hand.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    /// Matrices of all copies.
    pub matrices: HashMap<String, Matrix>,
    /// Vectors.
    pub vectors: HashMap<String, Vec<f32>>,
}

impl InMemory {
    /// Keeps a matrix and adds it to a program, under a name of its own.
    pub fn matrix(&mut self, program: &mut Program, matrix: Matrix) -> MatrixId {
        self.copies(program, matrix, 1)
    }

    /// Keeps the rows of several, one after another, and adds them to a program.
    pub fn copies(&mut self, program: &mut Program, all: Matrix, copies: usize) -> MatrixId {
        let name = format!("matrix {}", program.weights.len());
        let mut weight = Weight::stored(name.clone(), all.rows / copies.max(1), all.cols, all.form());
        weight.copies = copies;
        self.matrices.insert(name, all);
        program.weight(weight)
    }

    /// Keeps a vector and adds it to a program.
    pub fn vector(&mut self, program: &mut Program, values: Vec<f32>) -> VectorId {
        let name = format!("vector {}", program.vectors.len());
        let parameter = Parameter { name: name.clone(), shape: vec![values.len()], plus: 0.0 };
        self.vectors.insert(name, values);
        program.vector(Vector::Parameter(parameter))
    }
}

impl Weights for InMemory {
    fn matrix(&mut self, weight: &Weight) -> Result<Matrix, WeightError> {
        self.matrices.get(&weight.name).cloned().ok_or_else(|| missing(&weight.name))
    }

    fn vector(&mut self, parameter: &Parameter) -> Result<Vec<f32>, WeightError> {
        self.vectors.get(&parameter.name).cloned().ok_or_else(|| missing(&parameter.name))
    }
}

fn missing(name: &str) -> WeightError {
    WeightError::Missing { name: name.to_owned(), what: "it is not at hand".to_owned() }
}
