//! What a program reads besides activations: descriptions of weights, without their bytes.

use std::fmt;
use tessera_weights::tensor::Form;

/// A matrix that a program reads, or several of one shape: the matrices of experts, of heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The parameter that it is made of, as a folder names it when it is not quantised.
    pub name: String,
    /// Outputs of each.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How many; they come as one matrix with the rows of all of them, one after another.
    pub copies: usize,
    /// How its elements are stored where a backend gets it.
    pub form: Form,
    /// How it is made of the parameter.
    pub made: Made,
}

/// How a [`Weight`] is made of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// As it lies in the file.
    Stored,
    /// Each copy is turned over: the parameter is `[copies, cols, rows]`, or `[cols, rows]`, and never quantised.
    Turned,
    /// Decoded to f32 from some rows of every head of a matrix `[copies * each, inputs]`.
    Head {
        /// How the parameter is stored.
        stored: Form,
        /// Rows of a head.
        each: usize,
        /// The first of them that is taken.
        from: usize,
        /// Whether they become columns: a copy is `[inputs, taken rows]`, else `[taken rows, inputs]`.
        turned: bool,
    },
}

/// A vector that a program reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// Of a folder.
    Parameter(Parameter),
    /// The program's own.
    Constant(Vec<f32>),
}

/// A norm's weight, a bias: what is read as f32, whatever it is stored as.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// As a folder names it.
    pub name: String,
    /// Sizes of its axes, outermost first.
    pub shape: Vec<usize>,
    /// Added to every value: a norm whose scale is `1 + w`.
    pub plus: f32,
}

impl Weight {
    /// One matrix, as it lies.
    pub const fn stored(name: String, rows: usize, cols: usize, form: Form) -> Weight {
        Weight { name, rows, cols, copies: 1, form, made: Made::Stored }
    }

    /// Bytes that it takes beside the file: what is made of a parameter is made at load, and kept.
    pub const fn made_len(&self) -> usize {
        match (self.made, self.form) {
            (Made::Stored, _) | (_, Form::Grouped { .. }) => 0,
            (_, Form::Dense(dtype)) => {
                self.rows.saturating_mul(self.cols).saturating_mul(self.copies).saturating_mul(dtype.size())
            }
        }
    }

    /// Whether there can be such a matrix; what is wrong with it otherwise.
    pub(super) fn check(&self) -> Result<(), String> {
        let Weight { name, rows, cols, copies, form, .. } = self;
        let wrong = |what: String| Err(format!("{name} is {self}: {what}"));
        if *rows == 0 || *cols == 0 || *copies == 0 {
            return wrong("nothing".to_owned());
        }
        let all = rows.checked_mul(*copies).and_then(|all| all.checked_mul(*cols));
        if all.and_then(|all| all.checked_mul(size_of::<f32>())).is_none() {
            return wrong("more than can be counted".to_owned());
        }
        match form {
            Form::Dense(dtype) | Form::Grouped { scale: dtype, .. } if !dtype.is_float() => {
                wrong(format!("{dtype} is no float"))
            }
            Form::Grouped { layout: tessera_weights::scheme::Layout::Kn, .. } if *copies > 1 => {
                wrong("copies that lie transposed do not lie one after another".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.copies != 1 {
            write!(f, "{} * ", self.copies)?;
        }
        write!(f, "[{}, {}] {}", self.rows, self.cols, self.form)
    }
}

impl Vector {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Vector::Parameter(parameter) => parameter.shape.iter().product(),
            Vector::Constant(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
