//! What a backend is: it takes a program and pages, and makes steps.

use crate::batch::{Batch, BatchError, Output, PageKind, Pools};
use crate::program::{Program, ProgramError};
use crate::step::Step;
use crate::weights::{WeightError, Weights};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// A program on a device, with its KV pages. It makes one step at a time.
pub trait Executor: Send {
    /// Takes a step.
    fn begin(&mut self, step: Step) -> Result<(), StepError>;

    /// Whether the step that was begun is made: keys and values of its rows are in their pages then, and `out` holds what
    /// it wants. If not, whoever waits is woken when it is worth asking again.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Poll<Result<(), StepError>>;

    /// Makes a step; the calling thread waits for it, which a browser's cannot.
    fn step(&mut self, step: Step, out: &mut Output) -> Result<(), StepError> {
        self.begin(step)?;
        let waker = Waker::from(Arc::new(Caller(std::thread::current())));
        loop {
            match self.poll(&mut Context::from_waker(&waker), out) {
                Poll::Ready(made) => return made,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Copies the keys and values of one page to another of its kind.
    ///
    /// # Panics
    /// If one of them is not in the pool.
    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32);

    /// Bytes held for keys and values.
    fn kv_len(&self) -> usize;

    /// One line on what runs where: kernels, threads.
    fn describe(&self) -> String;
}

/// A thread that waits for a step.
struct Caller(std::thread::Thread);

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A step that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The batch does not fit.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A step was begun before the last one was made, or asked for and not begun.
    #[error("one step at a time: {0}")]
    Order(&'static str),
    /// What the device says. It can make other steps.
    #[error("the device: {0}")]
    Device(String),
    /// The device is gone, and the program with it: it has to be loaded anew.
    #[error("the device is lost: {0}")]
    Lost(String),
}

/// What computes on the calling thread, and so needs nobody to wait.
pub trait Compute: Send {
    /// Runs the program over one batch.
    fn compute(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError>;

    /// See [`Executor::copy_page`].
    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32);

    /// See [`Executor::kv_len`].
    fn kv_len(&self) -> usize;

    /// See [`Executor::describe`].
    fn describe(&self) -> String;
}

/// An executor whose steps are made when they are asked for.
pub struct Immediate<C> {
    inner: C,
    step: Option<Step>,
}

impl<C: Compute> Immediate<C> {
    /// Around what computes.
    pub const fn new(inner: C) -> Immediate<C> {
        Immediate { inner, step: None }
    }
}

impl<C: Compute> Executor for Immediate<C> {
    fn begin(&mut self, step: Step) -> Result<(), StepError> {
        if self.step.is_some() {
            return Err(StepError::Order("the last one is not made yet"));
        }
        self.step = Some(step);
        Ok(())
    }

    fn poll(&mut self, _: &mut Context<'_>, out: &mut Output) -> Poll<Result<(), StepError>> {
        // Taken first: a panic leaves none behind.
        let Some(step) = self.step.take() else {
            return Poll::Ready(Err(StepError::Order("none was begun")));
        };
        Poll::Ready(step.with(|batch| self.inner.compute(batch, out)).map_err(StepError::from))
    }

    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32) {
        self.inner.copy_page(kind, from, to);
    }

    fn kv_len(&self) -> usize {
        self.inner.kv_len()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A way to run programs.
pub trait Backend {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Bytes of one KV page of [`crate::batch::PAGE`] positions, of each kind; 0 of one that no layer is of.
    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT];

    /// What the device can hold at all, whatever memory it has.
    fn most(&self, _program: &Program) -> Pools {
        Pools { pages: [usize::MAX; PageKind::COUNT], states: usize::MAX }
    }

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
    #[error("{} KV pages and {} states need {needed} bytes, which could not be had", pools.pages.iter().sum::<usize>(), pools.states)]
    Memory {
        /// What was asked for.
        pools: Pools,
        /// Bytes that they need.
        needed: usize,
    },
    /// What the device says.
    #[error("the device: {0}")]
    Device(String),
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

#[cfg(test)]
mod tests;
