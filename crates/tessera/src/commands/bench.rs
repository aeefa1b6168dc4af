//! `tessera bench`: prefill and decode speed, of a folder or of a server.

#[cfg(feature = "gpu")]
mod kernels;
mod server;
mod spread;

use crate::cli::BenchArgs;
use crate::load::load;
use crate::output::Output;
use anyhow::Context;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;
use tessera_compute::batch::Want;
use tessera_engine::generate::CHUNK;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};

/// Runs the command. Tokens are those of a fixed generator: what they are does not matter to the speed.
pub fn run(mut args: BenchArgs, out: &Output) -> anyhow::Result<ExitCode> {
    if let Some(address) = &args.server {
        return server::run(&args, address, out);
    }
    let name = args.model.clone().context("no model was named")?;
    let (batch, depth) = (args.batch as usize, args.depth as usize);
    let (prompt, gen_tokens) = (args.prompt_tokens as usize, args.gen_tokens as usize);
    anyhow::ensure!(prompt + gen_tokens > 0, "nothing to measure: --prompt-tokens and --gen-tokens are 0");
    // Without a prompt one token must be there to continue from.
    let needed = (depth + prompt + gen_tokens).max(depth + 1 + gen_tokens);
    args.compute.context.get_or_insert(u32::try_from(needed)?);
    let mut loaded = load(&name, &args.compute, batch, out)?;
    let vocab = loaded.files.config.vocab_size as u32;
    let token = |i: usize| (i as u32).wrapping_mul(2_654_435_761) % vocab;
    let model = &mut loaded.model;

    let progress = out.progress(u64::from(args.repeat) + 1, "runs");
    let mut runs = Vec::new();
    // The first run warms caches and pages, and is not counted.
    for run in 0..=args.repeat {
        let mut sequences: Vec<Sequence> = (0..batch).map(|_| Sequence::default()).collect();
        let before: Vec<u32> = (0..depth).map(token).collect();
        feed(model, &mut sequences, &before)?;
        let tokens: Vec<u32> = (depth..depth + prompt).map(token).collect();
        let start = Instant::now();
        feed(model, &mut sequences, &tokens)?;
        let prefill = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for i in 0..gen_tokens {
            step(model, &mut sequences, token(depth + prompt + i))?;
        }
        let decode = start.elapsed().as_secs_f64();
        sequences.into_iter().for_each(|s| model.release(s));
        progress.inc(1);
        if run > 0 {
            let rate = |n: usize, s: f64| (n > 0).then(|| (n * batch) as f64 / s);
            runs.push((rate(prompt, prefill), rate(gen_tokens, decode)));
        }
    }
    progress.finish_and_clear();
    #[cfg(feature = "gpu")]
    let kernels = match &loaded.gpu {
        Some(gpu) if !gpu.has_clock() => {
            out.note("note: the adapter has no clock, so its kernels are not timed");
            None
        }
        Some(gpu) => kernels::measure(gpu, model, [depth, prompt, gen_tokens, batch], &token)?,
        None => None,
    };
    let prefill = median(runs.iter().filter_map(|r| r.0).collect());
    let decode = median(runs.iter().filter_map(|r| r.1).collect());
    if out.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|(p, d)| json!({ "prefill_tokens_per_s": p, "decode_tokens_per_s": d }))
            .collect();
        let found = json!({
            "model": name, "backend": model.describe(), "prompt_tokens": prompt,
            "gen_tokens": gen_tokens, "depth": depth, "batch": batch, "repeat": args.repeat,
            "load_ms": loaded.took.as_secs_f64() * 1e3,
            "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode, "runs": runs,
        });
        #[cfg(feature = "gpu")]
        let found = match &kernels {
            Some(kernels) => kernels.json(found, decode.map(|rate| batch as f64 / rate)),
            None => found,
        };
        out.print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    out.line(model.describe())?;
    let row = |name: &str, n: usize, median: Option<f64>, all: Vec<f64>| {
        let range = all.iter().fold((f64::MAX, 0.0f64), |(a, b), x| (a.min(*x), b.max(*x)));
        let number = |x: f64| format!("{x:.2}");
        vec![
            name.to_owned(),
            n.to_string(),
            median.map_or("-".into(), number),
            if all.is_empty() { "-".into() } else { format!("{} to {}", number(range.0), number(range.1)) },
        ]
    };
    out.table(
        &["", "tokens", "tokens/s", "range"],
        &[1, 2],
        &[
            row("prefill", prompt * batch, prefill, runs.iter().filter_map(|r| r.0).collect()),
            row("decode", gen_tokens * batch, decode, runs.iter().filter_map(|r| r.1).collect()),
        ],
    )?;
    #[cfg(feature = "gpu")]
    if let Some(kernels) = kernels {
        kernels.print(out, decode.map(|rate| batch as f64 / rate))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends the same tokens to every sequence, all sequences in one step.
fn feed(model: &mut Model, sequences: &mut [Sequence], tokens: &[u32]) -> anyhow::Result<()> {
    let chunk = (CHUNK / sequences.len()).max(1);
    for part in tokens.chunks(chunk) {
        let mut feeds: Vec<Feed<'_>> = sequences
            .iter_mut()
            .map(|sequence| Feed {
                sequence,
                tokens: part,
                call: 0..tokens.len(),
                drafts: 0,
                pick: Pick::Last,
            })
            .collect();
        model.forward(&mut feeds, Want::Greedy)?;
    }
    Ok(())
}

/// Appends one token to every sequence.
fn step(model: &mut Model, sequences: &mut [Sequence], token: u32) -> anyhow::Result<()> {
    let next = [token];
    let mut feeds: Vec<Feed<'_>> = sequences
        .iter_mut()
        .map(|sequence| Feed { sequence, tokens: &next, call: 0..0, drafts: 0, pick: Pick::Last })
        .collect();
    model.forward(&mut feeds, Want::Greedy)?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
