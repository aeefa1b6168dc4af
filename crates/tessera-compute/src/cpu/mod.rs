//! The CPU backend: weights used where the file lies in memory, activations in 8 bits, keys and values
//! in f16, one parallel region a step.

pub mod attend;
pub mod codes;
pub mod dense;
pub mod int3;
pub mod int3_acts;
pub mod int3_kn;
pub mod int3_tile;
pub mod int4;
pub mod int4_kn;
pub mod kernels;
pub mod q8;

mod attention;
mod f32ops;
mod linear;
mod memory;
mod pool;
mod simd;
mod stage;
mod step;

use crate::backend::{Backend, Executor, LoadError};
use crate::batch::PAGE;
use crate::program::Program;
use kernels::Kernels;
use memory::Zeroed;
use pool::Pool;

/// How to run on the CPU.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Threads, the caller included.
    pub threads: usize,
    /// Activations stay f32; slower.
    pub exact: bool,
    /// The instruction set by name, else the fastest.
    pub kernels: Option<String>,
}

impl Default for Cpu {
    fn default() -> Cpu {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Cpu { threads, exact: false, kernels: None }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn page_len(&self, program: &Program) -> usize {
        page_len(program) * size_of::<u16>()
    }

    fn load(&self, program: Program, pages: usize) -> Result<Box<dyn Executor>, LoadError> {
        program.check()?;
        let kernels = Kernels::choose(self.kernels.as_deref()).unwrap_or(Kernels::SCALAR);
        let needed = pages.saturating_mul(self.page_len(&program));
        let kv = Zeroed::new(needed / size_of::<u16>()).ok_or(LoadError::Memory { pages, needed })?;
        let stages = stage::compile(&program);
        let pool = Pool::new(self.threads, 2 * stages.len());
        let scratch = (0..pool.threads()).map(|_| step::Scratch::default()).collect();
        Ok(Box::new(step::Step::new(program, stages, kernels, self.exact, pool, scratch, kv, pages)))
    }
}

/// Values of a page of the whole model.
fn page_len(program: &Program) -> usize {
    program.layers * program.heads.kv * attend::head_len(program.heads.dim)
}

const _: () = assert!(PAGE.is_multiple_of(simd::LANES));
