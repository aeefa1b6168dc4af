//! What can go wrong before a program runs.

/// An adapter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The driver refuses.
    #[error("the adapter {name} could not be opened: {what}")]
    Open {
        /// The adapter.
        name: String,
        /// What the driver says.
        what: String,
    },
}
