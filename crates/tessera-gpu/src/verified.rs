//! A backend that is tested before it is trusted: at the first use of an adapter by a program each kind of operation of the
//! program is held to the reference, and what was found is kept.

use crate::device::Gpu;
use crate::executor::{Config, GpuBackend};
use crate::selftest::{self, Case, Fnv};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tessera_compute::backend::{Backend, Executor, LoadError};
use tessera_compute::batch::{PageKind, Pools};
use tessera_compute::program::Program;
use tessera_compute::weights::Weights;

/// What an adapter was found to compute rightly, and wrongly: for each case and configuration what is wrong, if anything
/// is. It is to be kept for one adapter, driver and build of this crate ([`build`]).
pub type Record = BTreeMap<String, Option<String>>;

/// A number of the sources that kernels are made of: with others, what was found counts no more.
pub fn build() -> u64 {
    let mut hash = Fnv::default();
    for source in [
        include_str!("device.rs"),
        include_str!("executor.rs"),
        include_str!("fold.rs"),
        include_str!("kernels.rs"),
        include_str!("layout.rs"),
        include_str!("plan.rs"),
        include_str!("plan/weighted.rs"),
        include_str!("product.rs"),
        include_str!("selftest.rs"),
        include_str!("selftest/own.rs"),
        include_str!("weights.rs"),
        include_str!("wgsl/append.wgsl"),
        include_str!("wgsl/argmax.wgsl"),
        include_str!("wgsl/attend.wgsl"),
        include_str!("wgsl/conv.wgsl"),
        include_str!("wgsl/copy_page.wgsl"),
        include_str!("wgsl/delta.wgsl"),
        include_str!("wgsl/embed.wgsl"),
        include_str!("wgsl/expert.wgsl"),
        include_str!("wgsl/experts_gate.wgsl"),
        include_str!("wgsl/experts_list.wgsl"),
        include_str!("wgsl/experts_sum.wgsl"),
        include_str!("wgsl/functions.wgsl"),
        include_str!("wgsl/kv_f16.wgsl"),
        include_str!("wgsl/kv_f32.wgsl"),
        include_str!("wgsl/linear.wgsl"),
        include_str!("wgsl/merge.wgsl"),
        include_str!("wgsl/norm.wgsl"),
        include_str!("wgsl/route.wgsl"),
        include_str!("wgsl/share.wgsl"),
        include_str!("wgsl/states.wgsl"),
        include_str!("wgsl/total.wgsl"),
        include_str!("wgsl/turn.wgsl"),
        include_str!("wgsl/wkv.wgsl"),
    ] {
        let _ = hash.write_str(source);
    }
    hash.0
}

/// Tests an adapter, and runs what it computes rightly.
pub struct Verified {
    gpu: Gpu,
    config: Config,
    record: Arc<Mutex<Record>>,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Verified {
    /// On this device. `record`: what is known of it, and what will be. `say` gets what is of interest while it is tested:
    /// a line for each kernel that is wrong.
    pub fn new(
        gpu: Gpu,
        config: Config,
        record: Arc<Mutex<Record>>,
        say: impl Fn(&str) + Send + Sync + 'static,
    ) -> Verified {
        Verified { gpu, config, record, say: Box::new(say) }
    }

    /// The device.
    pub const fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The first configuration that computes all of a program rightly.
    fn settle(&self, program: &Program) -> Result<Config, LoadError> {
        let cases = selftest::of(program);
        let plain = Config { halves: self.config.halves, ..Config::PLAIN };
        let mut wrong = String::new();
        for (config, next) in [(self.config, "its plainer kernels are tried"), (plain, "it is not used")] {
            match self.wrong(&cases, config) {
                None => return Ok(config),
                Some(what) => {
                    // A device that is gone says nothing of its kernels.
                    if let Some(lost) = self.gpu.lost() {
                        return Err(LoadError::Device(lost));
                    }
                    wrong = format!("{} is wrong in {what}", self.gpu.describe().name);
                    (self.say)(&format!("{wrong}; {next}"));
                }
            }
        }
        Err(LoadError::Device(wrong))
    }

    /// The first case that comes out wrong, and how.
    fn wrong(&self, cases: &[Case], config: Config) -> Option<String> {
        let backend = GpuBackend::new(self.gpu.poisoned(), config);
        let mut record = self.record.lock().unwrap_or_else(|e| e.into_inner());
        let key = |case: &Case| format!("{:016x} {config:?}", case.key());
        let known = |case: &Case| record.get(&key(case));
        if let Some(what) = cases.iter().find_map(|case| known(case)?.clone()) {
            return Some(format!("{what} (found before; `tessera selftest` tests again)"));
        }
        let new: Vec<&Case> = cases.iter().filter(|case| known(case).is_none()).collect();
        if !new.is_empty() {
            (self.say)(&format!(
                "{}: {} kinds of operations are tested, once for this driver",
                self.gpu.describe().name,
                new.len()
            ));
        }
        for case in new {
            let wrong =
                case.check(&backend, config.halves).err().map(|what| format!("{}: {what}", case.name));
            if self.gpu.lost().is_some() {
                return wrong;
            }
            record.insert(key(case), wrong.clone());
            if wrong.is_some() {
                return wrong;
            }
        }
        None
    }
}

impl Backend for Verified {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        GpuBackend::new(self.gpu.clone(), self.config).page_len(program)
    }

    fn most(&self, program: &Program) -> Pools {
        GpuBackend::new(self.gpu.clone(), self.config).most(program)
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        GpuBackend::new(self.gpu.clone(), self.config).workspace_len(program, rows)
    }

    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        program.check()?;
        let config = self.settle(&program)?;
        GpuBackend::new(self.gpu.clone(), config).load(program, weights, pools)
    }
}
