//! `tessera selftest`: whether an adapter computes what the kernels say.

use crate::cli::SelftestArgs;
use crate::gpu::{self, Opened};
use crate::models;
use crate::output::Output;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;
use tessera_engine::model::Model;
use tessera_engine::open::ModelFiles;
use tessera_engine::plan::Room;
use tessera_gpu::{Config, GpuBackend, selftest};

#[derive(Serialize)]
struct Report {
    adapter: String,
    driver: String,
    cases: usize,
    seconds: f64,
    wrong: Vec<Wrong>,
}

#[derive(Serialize)]
struct Wrong {
    case: String,
    kernels: &'static str,
    what: String,
}

/// Tests, prints what is wrong, and fails where something is.
pub fn run(args: SelftestArgs, out: &Output) -> anyhow::Result<ExitCode> {
    match &args.model {
        Some(name) => of_model(name, &args, out),
        None => all(&args, out),
    }
}

/// All kinds of kernels, the plain ones too.
fn all(args: &SelftestArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let (start, mut wrong, mut count) = (Instant::now(), Vec::new(), 0);
    let configs = [("fast", Config::default()), ("plain", Config::PLAIN)];
    let gpu = gpu::untested(args.adapter.as_deref())?;
    for (kernels, config) in configs {
        let backend = GpuBackend::new(gpu.clone(), config);
        for case in selftest::cases() {
            out.detail(format_args!("{kernels}: {}", case.name));
            count += 1;
            if let Err(what) = pollster::block_on(case.check(&backend, config.halves)) {
                wrong.push(Wrong { case: case.name, kernels, what });
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let adapter = gpu.describe().clone();
    let report = Report { adapter: adapter.name, driver: adapter.driver, cases: count, seconds, wrong };
    if out.json {
        out.print_json(&report)?;
    } else {
        for Wrong { case, kernels, what } in &report.wrong {
            out.line(format_args!("wrong  {case}, {kernels} kernels: {what}"))?;
        }
        let Report { adapter, driver, cases, wrong, .. } = &report;
        let right = cases - wrong.len();
        out.line(format_args!("{adapter} ({driver}): {right} of {cases} cases are right, {seconds:.1} s"))?;
    }
    Ok(if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a model needs, as its first use does.
fn of_model(name: &str, args: &SelftestArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let mut files = ModelFiles::open(&models::resolve(name, out)?)?;
    files.semantics = models::semantics(name)?;
    let start = Instant::now();
    let opened = Opened::new(None, args.adapter.as_deref(), None, out)?;
    opened.forget();
    let room = Room { context: Some(1), sequences: 1, memory: None };
    let loaded = Model::load(&files, &opened.backend, room);
    opened.keep(out);
    let model = loaded?;
    let (adapter, seconds, wrong) = (model.describe(), start.elapsed().as_secs_f64(), opened.wrong());
    if out.json {
        let report =
            serde_json::json!({ "model": name, "adapter": adapter, "seconds": seconds, "wrong": wrong });
        out.print_json(&report)?;
    } else {
        wrong.iter().try_for_each(|what| out.line(format_args!("wrong  {what}")))?;
        out.line(format_args!("{adapter} computes {name} rightly, {seconds:.1} s"))?;
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
