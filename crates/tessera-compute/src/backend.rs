//! What a backend is: it takes a program and pages, and makes steps.

use crate::batch::{Batch, BatchError, Output};
use crate::program::{Program, ProgramError};
use crate::weights::{WeightError, Weights};

/// A program on a device, with its KV pages.
pub trait Executor: Send {
    /// Runs the program over one batch; keys and values of its rows are in their pages afterwards.
    fn step(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError>;

    /// Copies the keys and values of one page to another.
    ///
    /// # Panics
    /// If one of them is not in the pool.
    fn copy_page(&mut self, from: u32, to: u32);

    /// Bytes held for keys and values.
    fn kv_len(&self) -> usize;

    /// One line on what runs where: kernels, threads.
    fn describe(&self) -> String;
}

/// What a device keeps of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// KV pages of [`crate::batch::PAGE`] positions.
    pub pages: usize,
    /// Slots of states, in programs that have one: each of [`Program::state_len`] values.
    pub states: usize,
}

/// A way to run programs.
pub trait Backend {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Bytes of one KV page of [`crate::batch::PAGE`] positions.
    fn page_len(&self, program: &Program) -> usize;

    /// Bytes of activations and logits in a step of `rows` tokens that wants the logits of all of them. What each thread
    /// keeps for itself is small and not counted.
    fn workspace_len(&self, program: &Program, rows: usize) -> usize;

    /// Puts a program on the device: each of its weights is asked for once, and no two are held that the device does not
    /// keep.
    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError>;
}

/// A program that could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Shapes that do not fit.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A weight that did not come as the program describes it.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Kernels that were asked for by name and cannot run here.
    #[error("this machine has no {name} kernels; it has {known}")]
    Kernels {
        /// The name.
        name: String,
        /// Those that it can run.
        known: String,
    },
    /// Too little memory for pages and states.
    #[error("{} KV pages and {} states need {needed} bytes, which could not be had", pools.pages, pools.states)]
    Memory {
        /// What was asked for.
        pools: Pools,
        /// Bytes that they need.
        needed: usize,
    },
    /// Fewer threads than were asked for; none of them is left.
    #[error("{asked} threads were asked for, the system gave {had}: {cause}")]
    Threads {
        /// Threads asked for, the caller included.
        asked: usize,
        /// Threads that there were.
        had: usize,
        /// What the system says.
        cause: String,
    },
}
