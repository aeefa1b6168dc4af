//! Runs a decoder's [`program::Program`] over a [`batch::Batch`] of sequences on a backend.
//!
//! A model is written once, as a list of operations over activation slots. [`mod@reference`] interprets
//! the list in plain f32 and defines what each operation means; [`cpu`] compiles it into stages for
//! the instruction set found at run time and is held to the reference by `tests/agree`.

pub mod backend;
pub mod batch;
pub mod cpu;
pub mod functions;
#[cfg(any(test, feature = "lent-threads"))]
pub mod lent;
mod memory;
pub mod pages;
pub mod program;
pub mod recurrent;
pub mod reference;
pub mod rope;
pub mod route;
pub mod step;
pub mod threads;
pub mod weights;
