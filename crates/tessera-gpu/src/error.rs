//! What can go wrong before a program runs.

/// An adapter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is none, or none of the name.
    #[error("no adapter{}; there are: {known}", asked.as_ref().map_or(String::new(), |asked| format!(" called {asked:?}")))]
    None {
        /// What was asked for.
        asked: Option<String>,
        /// Those that there are.
        known: String,
    },
    /// The driver refuses.
    #[error("the adapter {name} could not be opened: {what}")]
    Open {
        /// The adapter.
        name: String,
        /// What the driver says.
        what: String,
    },
}
