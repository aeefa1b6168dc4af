//! From a MODEL argument to a model that can make steps.

use crate::cli::{Backend as Which, ComputeArgs, Kv, Meaning};
use crate::ledger::{Ledger, Open, Place};
use crate::machine::memory;
use crate::models;
use crate::output::{Output, hinted};
use std::time::{Duration, Instant};
use tessera_compute::backend::Backend;
use tessera_compute::cpu::{Activations, Cpu, KvType};
use tessera_compute::reference::Reference;
use tessera_engine::generate::CHUNK;
use tessera_engine::model::{Model, ModelError};
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_weights::arch::Semantics;

/// A loaded model with its folder.
pub struct Loaded {
    /// The folder.
    pub files: ModelFiles,
    /// The model.
    pub model: Model,
    /// How long opening and loading took.
    pub took: Duration,
    /// The adapter that it is on, if it is on one.
    #[cfg(feature = "gpu")]
    pub gpu: Option<tessera_gpu::Gpu>,
}

/// What to make room for.
pub struct Wanted<'a> {
    /// Sequences at once.
    pub sequences: usize,
    /// Whether they may share pages for fewer.
    pub fewer: bool,
    /// Tokens of the largest step.
    pub rows: usize,
    /// Other models of this process.
    pub ledger: &'a Ledger,
}

/// Opens and loads a model that writes text for `sequences` that do not share, the only one of this process.
pub fn load(name: &str, args: &ComputeArgs, sequences: usize, out: &Output) -> anyhow::Result<Loaded> {
    let ledger = Ledger::new(1, args.memory);
    let wanted = Wanted { sequences, fewer: false, rows: CHUNK, ledger: &ledger };
    let loaded = load_beside(name, args, &wanted, out)?;
    if loaded.model.is_encoder() {
        return Err(hinted(
            format!("{name} makes embeddings and no text"),
            format!("`tessera embed {name} TEXT` prints its vectors"),
        ));
    }
    Ok(loaded)
}

/// Opens and loads, telling what had to be guessed.
pub fn load_beside(
    name: &str,
    args: &ComputeArgs,
    wanted: &Wanted<'_>,
    out: &Output,
) -> anyhow::Result<Loaded> {
    let path = models::resolve(name, out)?;
    let start = Instant::now();
    let mut files = ModelFiles::open(&path)?;
    files.semantics = match args.semantics {
        Some(Meaning::Authors) => Semantics::Authors,
        Some(Meaning::Mlc) => Semantics::Mlc,
        None => models::semantics(name)?,
    };
    files.notes.extend(apart(&files));
    for note in &files.notes {
        out.note(format_args!("note: {note}"));
    }
    let ledger = wanted.ledger.open();
    let job = Job {
        files: &files,
        args,
        wanted,
        ledger: &ledger,
        #[cfg(feature = "gpu")]
        out,
    };
    let (on, why) = job.compute()?;
    let model = on.model;
    for note in model.notes() {
        out.note(format_args!("note: {note}"));
    }
    ledger.enter(files.folder.path(), on.place, model.claim());
    let took = start.elapsed();
    out.detail(format_args!("memory: {}", model.claim().plan));
    match why {
        // Which of several computes is not to be guessed.
        Some(why) => out.note(format_args!("{}: {why}", model.describe())),
        None => out.detail(model.describe()),
    }
    Ok(Loaded {
        files,
        model,
        took,
        #[cfg(feature = "gpu")]
        gpu: on.gpu,
    })
}

/// A model to be loaded.
struct Job<'a> {
    files: &'a ModelFiles,
    args: &'a ComputeArgs,
    wanted: &'a Wanted<'a>,
    ledger: &'a Open<'a>,
    #[cfg(feature = "gpu")]
    out: &'a Output,
}

/// Where a model was loaded.
struct On {
    model: Model,
    place: Place,
    #[cfg(feature = "gpu")]
    gpu: Option<tessera_gpu::Gpu>,
}

impl Job<'_> {
    /// Loads it on what was asked for; why there, where that is worth a line.
    fn compute(&self) -> anyhow::Result<(On, Option<String>)> {
        let args = self.args;
        let on_system = |backend: &dyn Backend| {
            let model = self.load(backend, &Place::System, None)?;
            Ok::<_, anyhow::Error>(On {
                model,
                place: Place::System,
                #[cfg(feature = "gpu")]
                gpu: None,
            })
        };
        Ok(match args.backend {
            Which::Reference => {
                unused(
                    "reference",
                    args,
                    &["--threads", "--exact", "--fast", "--kv", "--kernels", "--adapter"],
                )?;
                (on_system(&Reference)?, None)
            }
            Which::Cpu => {
                unused("cpu", args, &["--adapter"])?;
                (on_system(&cpu(args)?)?, None)
            }
            #[cfg(feature = "gpu")]
            Which::Gpu => {
                unused("gpu", args, &OF_CPU)?;
                (self.gpu()?, Some("--backend gpu".to_owned()))
            }
            #[cfg(feature = "gpu")]
            Which::Auto if args.adapter.is_some() || args.kv == Some(Kv::F32) => {
                unused("gpu", args, &OF_CPU)?;
                (self.gpu()?, Some("as was asked for".to_owned()))
            }
            #[cfg(feature = "gpu")]
            Which::Auto if !cpu_only(args) && crate::gpu::none().is_none() => match self.gpu() {
                Ok(loaded) => (loaded, Some("it is hardware, and passed its self-test".to_owned())),
                Err(error) => (on_system(&cpu(args)?)?, Some(format!("no GPU: {error:#}"))),
            },
            Which::Auto => (on_system(&cpu(args)?)?, None),
        })
    }

    /// Loads it where `free` bytes are, as far as the place tells; the system tells here.
    fn load(&self, backend: &dyn Backend, place: &Place, free: Option<u64>) -> Result<Model, ModelError> {
        let system = if *place == Place::System { memory().free() } else { None };
        let free = [free, system].into_iter().flatten().min();
        let Wanted { sequences, fewer, rows, .. } = *self.wanted;
        let context = self.args.context.map(|c| c as usize);
        let memory = self.ledger.budget(place, free, fewer, rows);
        Model::load(self.files, backend, Room { context, sequences, memory })
    }

    /// Loads it on an adapter that computes it rightly, and again where that is lost.
    #[cfg(feature = "gpu")]
    fn gpu(&self) -> anyhow::Result<On> {
        let (args, out) = (self.args, self.out);
        let opened = crate::gpu::Opened::new(args.kv, args.adapter.as_deref(), args.kernels.as_deref(), out)?;
        let adapter = opened.backend.gpu().describe();
        let place = match adapter.shares_memory() {
            true => Place::System,
            false => Place::Adapter(adapter.name.clone()),
        };
        // What a program on the CPU tells of its memory is made up.
        let told = adapter.memory.filter(|_| !adapter.software).map(|memory| memory.free);
        let loaded = self.load(&opened.backend, &place, told);
        let loaded = anyhow::Context::with_context(loaded, || adapter.name.clone());
        opened.keep(out);
        let mut model = loaded?;
        model.set_loader(again(args.clone(), out.clone()));
        Ok(On { model, place, gpu: Some(opened.backend.gpu().clone()) })
    }
}

/// What loads a model again where its adapter was lost: on it, or on the CPU where that is lost again soon.
#[cfg(feature = "gpu")]
fn again(args: ComputeArgs, out: Output) -> tessera_engine::model::Loader {
    let mut last = None::<Instant>;
    Box::new(move |program, weights, pools| {
        let soon = last.replace(Instant::now()).is_some_and(|last| last.elapsed() < SOON);
        let mut again = || {
            anyhow::ensure!(!soon, "it was lost twice in a minute");
            let opened =
                crate::gpu::Opened::new(args.kv, args.adapter.as_deref(), args.kernels.as_deref(), &out)?;
            let loaded = opened.backend.load(program.clone(), &mut *weights, pools);
            opened.keep(&out);
            Ok(loaded?)
        };
        match again() {
            Ok(executor) => {
                out.note("note: the adapter was lost, and the model loaded again; answers go on");
                Ok(executor)
            }
            Err(error) => {
                out.note(format_args!("note: the adapter was lost: {error:#}; answers go on on the CPU"));
                Cpu::default().load(program, weights, pools)
            }
        }
    })
}

/// Flags that mean something to the CPU only.
#[cfg(feature = "gpu")]
const OF_CPU: [&str; 3] = ["--threads", "--exact", "--fast"];

/// Whether something was asked for that only the CPU has.
#[cfg(feature = "gpu")]
fn cpu_only(args: &ComputeArgs) -> bool {
    args.kv == Some(Kv::Q8) || args.kernels.is_some() || unused("gpu", args, &OF_CPU).is_err()
}

/// Lost again within this time, an adapter is left alone.
#[cfg(feature = "gpu")]
const SOON: Duration = Duration::from_secs(60);

/// What is said of a model that MLC computes otherwise than its authors.
fn apart(files: &ModelFiles) -> Option<String> {
    let of = |semantics| files.config.block(semantics);
    let words = of(Semantics::Authors).differs_from(&of(Semantics::Mlc));
    if words.is_empty() {
        return None;
    }
    let words = words.join(", ");
    Some(match files.semantics {
        Semantics::Authors => format!(
            "computed as the model's authors define it; MLC differs in {words} (--semantics mlc computes that)"
        ),
        Semantics::Mlc => format!(
            "computed as MLC does; the model's authors differ in {words} (--semantics authors computes that)"
        ),
    })
}

/// Refuses options that a backend would ignore.
fn unused(backend: &str, args: &ComputeArgs, flags: &[&str]) -> anyhow::Result<()> {
    let given = [
        ("--threads", args.threads.is_some()),
        ("--exact", args.exact),
        ("--fast", args.fast),
        ("--kv", args.kv.is_some()),
        ("--kernels", args.kernels.is_some()),
        #[cfg(feature = "gpu")]
        ("--adapter", args.adapter.is_some()),
    ];
    match given.iter().find(|(flag, given)| *given && flags.contains(flag)) {
        Some((flag, _)) => anyhow::bail!("{flag} has no meaning for --backend {backend}"),
        None => Ok(()),
    }
}

fn cpu(args: &ComputeArgs) -> anyhow::Result<Cpu> {
    let plain = Cpu::default();
    Ok(Cpu {
        threads: args.threads.map_or(plain.threads, usize::from),
        activations: match (args.exact, args.fast) {
            (true, _) => Activations::F32,
            (_, true) => Activations::Bits8,
            _ => Activations::Bits15,
        },
        kv: match args.kv {
            Some(Kv::Q8) => KvType::Q8,
            Some(Kv::F16) | None => KvType::F16,
            Some(Kv::F32) => {
                anyhow::bail!("--kv f32 is for --backend gpu; the CPU keeps keys and values as f16 or q8")
            }
        },
        kernels: args.kernels.clone(),
    })
}
