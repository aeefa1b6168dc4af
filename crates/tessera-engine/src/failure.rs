//! Why a request ended badly.

use crate::model::StepError;
use crate::sampler::SampleError;
use crate::slot::SlotError;
use tessera_compute::backend;

/// Why a request that was accepted cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The step that it was fed in.
    #[error(transparent)]
    Step(#[from] StepError),
    /// What came out of it.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A defect: it panicked.
    #[error("{what} failed: {message}")]
    Panicked {
        /// What did.
        what: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The engine is shut down.
    #[error("the engine is shut down")]
    Shutdown,
    /// A defect: the engine's thread is gone.
    #[error("the engine's thread has failed")]
    Thread,
}

/// What is to be done about a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The model's output is not a number.
    Model,
    /// No token is left to choose from.
    NoToken,
    /// The grammar cannot go on.
    Constraint,
    /// The engine is shut down.
    Shutdown,
    /// A weights file changed, or the device is lost: the model has to be loaded again.
    Files,
    /// There are too few KV pages for this one sequence.
    Pages,
    /// A defect of the engine or its backend.
    Internal,
}

impl Failure {
    /// Which kind it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Failure::Step(StepError::Changed(_) | StepError::Device(backend::StepError::Lost(_))) => {
                FailureKind::Files
            }
            Failure::Step(StepError::Units(_)) => FailureKind::Pages,
            Failure::Slot(SlotError::Broken { .. } | SlotError::Sample(SampleError::NotANumber { .. })) => {
                FailureKind::Model
            }
            Failure::Slot(SlotError::Sample(SampleError::NoToken { .. })) => FailureKind::NoToken,
            Failure::Slot(SlotError::Constraint(_) | SlotError::ForcedToken { .. }) => {
                FailureKind::Constraint
            }
            Failure::Shutdown => FailureKind::Shutdown,
            Failure::Step(StepError::Context { .. } | StepError::Device(_))
            | Failure::Slot(SlotError::Sample(_))
            | Failure::Panicked { .. }
            | Failure::Thread => FailureKind::Internal,
        }
    }

    /// What a caught panic means.
    pub(crate) fn panicked(what: &'static str, panic: &(dyn std::any::Any + Send)) -> Failure {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Failure::Panicked { what, message: text.to_owned() }
    }
}
