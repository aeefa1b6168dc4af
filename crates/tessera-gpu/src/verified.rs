//! A backend that is tested before it is trusted: at the first use of an adapter by a program each kind of operation of the
//! program is held to the reference, and what was found is kept. As a [`Backend`] it waits for the device; a page asks
//! [`Verified::configured`] first.

use crate::config::{Config, Tuned};
use crate::device::Gpu;
use crate::executor::{Device, GpuBackend};
use crate::selftest::{self, Case, Fnv};
use crate::tune;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tessera_compute::backend::{Backend, Executor, LoadError};
use tessera_compute::batch::{PageKind, Pools};
use tessera_compute::program::Program;
use tessera_compute::weights::Weights;

/// What an adapter was found to compute rightly, and wrongly: for each case and configuration what is wrong, if anything
/// is. It is to be kept for one adapter, driver and build of this crate ([`build`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// What is wrong of each case and configuration, if anything is.
    pub cases: BTreeMap<String, Option<String>>,
    /// What is fastest for each program.
    pub tuned: BTreeMap<String, Tuned>,
}

/// A number of the sources that kernels are made of: with others, what was found counts no more.
pub fn build() -> u64 {
    let mut hash = Fnv::default();
    for source in [
        include_str!("config.rs"),
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
    /// How long the search for the fastest kernels may take; `None` takes the configuration as it is.
    tune: Option<Duration>,
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
        // A program on the CPU is slow whatever it does.
        let tune = if gpu.describe().software { None } else { Some(TUNE) };
        Verified { gpu, config, record, say: Box::new(say), tune }
    }

    /// The same, which searches for the fastest kernels this long, or takes those of the configuration.
    pub fn tuning(self, tune: Option<Duration>) -> Verified {
        Verified { tune, ..self }
    }

    /// The device.
    pub const fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The first configuration that computes all of a program rightly; for [`GpuBackend`], where nobody may wait.
    ///
    /// # Errors
    /// Where none does, and where the device is lost.
    pub async fn configured(&self, program: &Program) -> Result<Config, LoadError> {
        program.check()?;
        self.settle(&selftest::of(program), self.config).await
    }

    /// The first configuration that computes all of a program rightly, of this one and plainer ones.
    async fn settle(&self, cases: &[Case], first: Config) -> Result<Config, LoadError> {
        let plain = Config { halves: self.config.halves, ..Config::PLAIN };
        let mut all = vec![first, self.config, plain];
        all.dedup();
        let mut wrong = String::new();
        for (i, config) in all.iter().enumerate() {
            match self.wrong(cases, *config).await {
                None => return Ok(*config),
                Some(what) => {
                    // A device that is gone says nothing of its kernels.
                    if let Some(lost) = self.gpu.lost() {
                        return Err(LoadError::Device(lost));
                    }
                    wrong = format!("{} is wrong in {what}", self.gpu.describe().name);
                    let next = match all.len() - i {
                        1 => "it is not used",
                        2 => "its plainer kernels are tried",
                        _ => "others are tried",
                    };
                    (self.say)(&format!("{wrong}; {next}"));
                }
            }
        }
        Err(LoadError::Device(wrong))
    }

    /// Puts a program on the device, with the fastest of its kernels that are right.
    fn put(&self, program: Program, weights: &mut dyn Weights, pools: Pools) -> Result<Device, LoadError> {
        let cases = selftest::of(&program);
        let key = key(&cases, &program);
        let known = self.tune.and_then(|_| self.record().tuned.get(&key).copied());
        let first = known.map_or(self.config, |tuned| self.config.with(tuned));
        let config = pollster::block_on(self.settle(&cases, first))?;
        let mut device = Device::new(self.gpu.clone(), config, program, weights, pools)?;
        let search = self.tune.filter(|_| known.is_none() && config == self.config);
        let Some(search) = search else { return Ok(device) };
        let name = &self.gpu.describe().name;
        let begun = Instant::now();
        let tuned = tune::choose(config, |config, rows| {
            device.set(config);
            let mut least = None;
            // The first makes the kernels.
            for _ in 0..4 {
                if begun.elapsed() > search {
                    return None;
                }
                let step = Instant::now();
                if let Err(error) = device.try_rows(rows) {
                    (self.say)(&format!("{name}: kernels {} do not run: {error}", config.tuned()));
                    return Some(Duration::MAX);
                }
                least = Some(least.map_or(step.elapsed(), |least: Duration| least.min(step.elapsed())));
            }
            least
        });
        let took = begun.elapsed();
        let best = pollster::block_on(self.settle(&cases, config.with(tuned)))?;
        device.set(best);
        let end = if took > search { ", which is the limit: not all were tried" } else { "" };
        (self.say)(&format!(
            "{name}: the fastest kernels are {} (found in {:.1} s{end}, once for this model; see --kernels)",
            best.tuned(),
            took.as_secs_f64()
        ));
        self.record().tuned.insert(key, best.tuned());
        Ok(device)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The first case that comes out wrong, and how.
    async fn wrong(&self, cases: &[Case], config: Config) -> Option<String> {
        let backend = GpuBackend::new(self.gpu.poisoned(), config);
        let key = |case: &Case| format!("{:016x} {config:?}", case.key());
        let known = |case: &Case| self.record().cases.get(&key(case)).cloned();
        if let Some(what) = cases.iter().find_map(|case| known(case)?) {
            return Some(format!(
                "{what} (found before; `tessera selftest` tests again, and a page whose data is deleted)"
            ));
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
                case.check(&backend, config.halves).await.err().map(|what| format!("{}: {what}", case.name));
            if self.gpu.lost().is_some() {
                return wrong;
            }
            self.record().cases.insert(key(case), wrong.clone());
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
        Ok(Box::new(self.put(program, weights, pools)?))
    }
}

/// How long tuning may take.
const TUNE: Duration = Duration::from_secs(3);

/// A number of what a program computes: its kinds of operations, and how often it has them.
fn key(cases: &[Case], program: &Program) -> String {
    let mut hash = Fnv::default();
    for case in cases {
        let _ = write!(hash, "{:016x}", case.key());
    }
    let _ = write!(hash, "{}", program.ops.len());
    format!("{:016x}", hash.0)
}
