//! What a grammar is to the engine: which tokens may come next.
//!
//! [`crate::engine`] asks in this order, once for every step of the answer: [`Constraint::forced`] for
//! tokens that need no choice, [`Constraint::mask`] for the tokens to choose from, and
//! [`Constraint::accept`] for every token that was chosen (forced ones are accepted too, one by one,
//! before the next question). It ends the answer when [`Constraint::finished`] says so, or when one of the
//! request's stop tokens is chosen: those a mask allows only where the text may end. A stop token is not
//! accepted.

/// The state of one answer that must follow a grammar.
pub trait Constraint: Send {
    /// One bit for each token of the vocabulary, token 0 in the lowest bit of word 0; a set bit allows
    /// the token. Words that are missing at the end count as zero.
    fn mask(&mut self) -> Result<&[u32], ConstraintError>;

    /// Tokens that must come next, whatever the model would choose; none if there is a choice. They are
    /// not accepted by this call.
    fn forced(&mut self) -> Vec<u32>;

    /// Takes the next token of the answer.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// Whether the text is complete and nothing may follow.
    fn finished(&self) -> bool;
}

/// A grammar that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A token that the grammar does not allow here.
    #[error("the grammar does not allow token {token} here")]
    NotAllowed {
        /// The token.
        token: u32,
    },
    /// The grammar took more work than its limits allow, or its library failed.
    #[error("the grammar cannot be followed: {what}")]
    Failed {
        /// What happened.
        what: String,
    },
}
