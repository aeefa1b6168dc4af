//! LoRA adapters, merged into a checkpoint as it is read: W' = W + scale * alpha / r * B A.
//!
//! An [`Adapter`] is a folder of PEFT; [`LoraSource`] is a [`crate::source::TensorSource`] that wraps another and
//! adds what adapters say to the tensors that they are about, so that a conversion does not know of them. The sum is
//! made in f64 and rounded to f32 once; quantisation comes after it.

mod adapter;
mod config;
mod place;
mod source;

pub use adapter::Adapter;
pub use config::LoraConfig;
pub use source::LoraSource;

use crate::hf::HfError;

/// An adapter that cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// A file of the adapter cannot be read.
    #[error(transparent)]
    File(#[from] HfError),
    /// The adapter's config is not one that can be merged.
    #[error("{file}: {what}")]
    Config {
        /// The file.
        file: String,
        /// The field with its value, and what is expected.
        what: String,
    },
    /// A tensor of the adapter that is none of LoRA's, or that lacks its partner.
    #[error("{file}: {key}: {what}")]
    Key {
        /// The adapter's weight file.
        file: String,
        /// The tensor's name.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor of the adapter that is about nothing in the model.
    #[error("{file}: {key} has no place: the model has no tensor {tensor} that an adapter could change")]
    NoPlace {
        /// The adapter's weight file.
        file: String,
        /// The tensor of the adapter.
        key: String,
        /// The tensor of the model that it would change.
        tensor: String,
    },
    /// Shapes that do not go together.
    #[error(transparent)]
    Shape(#[from] Box<Misfit>),
    /// A tensor of the model that MLC keeps in a form that an adapter cannot be added to.
    #[error("{file}: {key} changes {tensor}, which an MLC folder holds as {param} in another form")]
    OtherForm {
        /// The adapter's weight file.
        file: String,
        /// The tensor of the adapter.
        key: String,
        /// The tensor of the checkpoint.
        tensor: String,
        /// The parameter of the folder.
        param: String,
    },
}

/// Shapes that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {key} has shape {found:?}, {other} has shape {other_shape:?}: {what}")]
pub struct Misfit {
    /// The adapter's weight file.
    pub file: String,
    /// The tensor of the adapter.
    pub key: String,
    /// Its shape.
    pub found: Vec<usize>,
    /// What it should go together with.
    pub other: String,
    /// The shape of that.
    pub other_shape: Vec<usize>,
    /// What would fit.
    pub what: String,
}
