//! What is said of a file that changes while it is used.

/// A mapped file that is not what it was when it was opened: what was read from it since means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct Changed {
    /// The file.
    pub file: String,
    /// How.
    pub what: String,
}
