//! The CPU backend: weights used where the file lies in memory, activations in integers, keys and values
//! in f16, one parallel region a step.

pub mod attend;
pub mod codes;
pub mod dense;
pub mod format;
pub mod kernels;
pub mod kn;
pub mod kv;
pub mod lined;
pub mod panel;
pub mod q8;
pub mod rows;
pub mod tile;

mod attention;
mod experts;
mod f32ops;
mod linear;
mod pool;
mod recurrent;
mod run;
mod simd;
mod stage;
mod step;

use crate::backend::{Backend, Executor, Immediate, LoadError};
use crate::batch::{PAGE, PageKind, Pools};
use crate::memory::Zeroed;
use crate::pages::PageLayout;
use crate::program::Program;
use crate::weights::{Loaded, Weights};
use kernels::Kernels;
use pool::Pool;

/// In what form activations meet weights that are stored in 3 or 4 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// 8 bits and a scale for each group: fast, and about as exact as the other CPU engines.
    Bits8,
    /// 15 bits and a scale for each group, as two planes of 8 bits; see [`q8`].
    #[default]
    Bits15,
    /// As they are; slow.
    F32,
}

impl Activations {
    /// Planes of 8 bits, where activations become integers.
    const fn planes(self) -> usize {
        match self {
            Activations::Bits15 => 2,
            Activations::Bits8 | Activations::F32 => 1,
        }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Activations::Bits8 => "8-bit",
            Activations::Bits15 => "15-bit",
            Activations::F32 => "f32",
        }
    }
}

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit integers, a scale for each 32 of them: little more than half the memory.
    Q8,
}

impl KvType {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::Q8 => "q8",
        }
    }

    /// Where keys and values of so many pages lie, in bytes.
    fn layout(self, program: &Program, pages: [usize; PageKind::COUNT]) -> PageLayout {
        PageLayout::new(program, pages, |kv| kv.heads.saturating_mul(self.head_len(kv.dim)))
    }

    /// Bytes of one layer and head in a page.
    fn head_len(self, dim: usize) -> usize {
        use kv::Format;
        match self {
            KvType::F16 => kv::F16::head_len(dim),
            KvType::Q8 => kv::Q8::head_len(dim),
        }
    }
}

/// How to run on the CPU.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Threads, the caller included.
    pub threads: usize,
    /// Form of the activations.
    pub activations: Activations,
    /// Form of keys and values.
    pub kv: KvType,
    /// The instruction set by name, else the fastest.
    pub kernels: Option<String>,
}

impl Default for Cpu {
    fn default() -> Cpu {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Cpu { threads, activations: Activations::default(), kv: KvType::default(), kernels: None }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        self.kv.layout(program, Default::default()).page_len()
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        let stages = stage::compile(program);
        let used = step::used_slots(&stages).collect::<std::collections::BTreeSet<_>>();
        let width = |slot: usize| program.slots.get(slot).map_or(0, |slot| slot.width);
        let slots: usize = used.iter().map(|slot| width(*slot)).sum();
        // An input is kept once more in the form that its kernel reads, at most as f32; the logits are handed out as a
        // copy.
        let inputs = stages.all.iter().flat_map(|s| s.io().inputs).flatten();
        let input = inputs.map(|act| width(act.slot.0)).max().unwrap_or(0);
        let angles: usize = program.ropes.iter().map(|rope| 2 * rope.angles()).sum();
        rows.saturating_mul(slots + input + program.vocab + angles).saturating_mul(size_of::<f32>())
    }

    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        program.check()?;
        let kernels = Kernels::choose(self.kernels.as_deref()).ok_or_else(|| LoadError::Kernels {
            // A module for the browser has none where its multiply-add rounds twice.
            name: self.kernels.clone().unwrap_or_else(|| "usable".to_owned()),
            known: Kernels::available().iter().map(Kernels::name).collect::<Vec<_>>().join(", "),
        })?;
        let kv = self.kv.layout(&program, pools.pages).len();
        let states = pools.states.saturating_mul(program.state_len());
        let both = Zeroed::new(kv).zip(Zeroed::floats(states));
        let needed = kv.saturating_add(states.saturating_mul(size_of::<f32>()));
        let (kv, states) = both.ok_or(LoadError::Memory { pools, needed })?;
        let weights = Loaded::new(&program, weights)?;
        let stages = stage::compile(&program);
        let pool =
            Pool::new(self.threads, step::counters(&stages).pop().unwrap_or(0)).map_err(|refused| {
                LoadError::Threads {
                    asked: self.threads,
                    had: refused.started,
                    cause: refused.cause.to_string(),
                }
            })?;
        let scratch = (0..pool.threads()).map(|_| run::Scratch::default()).collect();
        Ok(Box::new(Immediate::new(step::Step::new(
            (program, weights),
            stages,
            kernels,
            self.clone(),
            pool,
            scratch,
            (kv, states),
            pools,
        ))))
    }
}

const _: () = assert!(PAGE.is_multiple_of(simd::LANES));
