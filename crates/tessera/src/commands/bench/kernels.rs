//! What each kernel of a step takes on an adapter, beside what the adapter can do.

use super::{feed, step};
use crate::output::{Bytes, Output};
use serde_json::{Value, json};
use tessera_engine::kv::Sequence;
use tessera_engine::model::Model;
use tessera_gpu::Gpu;
use tessera_gpu::profile::{Ceiling, Profile, ceiling};

/// Steps that are timed, at most: the clock is exact.
const STEPS: usize = 4;

/// What was measured.
pub struct Kernels {
    ceiling: Ceiling,
    /// Of a prompt, and of one step behind it.
    prefill: Profile,
    decode: Profile,
}

/// Times a prompt and steps behind it once more, kernel by kernel, on an adapter that has a clock; nothing where it was lost.
pub fn measure(
    gpu: &Gpu,
    model: &mut Model,
    [depth, prompt, gen_tokens, batch]: [usize; 4],
    token: &dyn Fn(usize) -> u32,
) -> anyhow::Result<Option<Kernels>> {
    let mut sequences: Vec<Sequence> = (0..batch).map(|_| Sequence::default()).collect();
    let before: Vec<u32> = (0..depth).map(token).collect();
    feed(model, &mut sequences, &before)?;
    gpu.start_profile();
    let tokens: Vec<u32> = (depth..depth + prompt).map(token).collect();
    feed(model, &mut sequences, &tokens)?;
    let prefill = gpu.take_profile();
    gpu.start_profile();
    let steps = gen_tokens.min(STEPS);
    for i in 0..steps {
        step(model, &mut sequences, token(depth + prompt + i))?;
    }
    let mut decode = gpu.take_profile();
    for kernel in decode.values_mut() {
        let n = steps as u64;
        (kernel.dispatches, kernel.bytes, kernel.time) =
            (kernel.dispatches / n, kernel.bytes / n, kernel.time / n as u32);
    }
    sequences.into_iter().for_each(|s| model.release(s));
    Ok(ceiling(gpu).map(|ceiling| Kernels { ceiling, prefill, decode }))
}

impl Kernels {
    /// Seconds that a step should take.
    fn model(&self) -> f64 {
        let sum = |of: fn(&tessera_gpu::profile::Kernel) -> u64| self.decode.values().map(of).sum();
        self.ceiling.step(sum(|k| k.bytes), sum(|k| k.dispatches)).as_secs_f64()
    }

    /// Adds it to what else was found; `step`: seconds that one took, unless none was made.
    pub fn json(&self, mut found: Value, step: Option<f64>) -> Value {
        let of = |profile: &Profile| -> Value {
            let kernels = profile.iter().map(|(name, k)| {
                json!({
                    "kernel": name, "dispatches": k.dispatches, "bytes": k.bytes,
                    "us": k.time.as_secs_f64() * 1e6,
                    "bytes_per_s": k.bytes as f64 / k.time.as_secs_f64().max(1e-9),
                })
            });
            kernels.collect()
        };
        found["adapter"] = json!({
            "copy_bytes_per_s": self.ceiling.copy,
            "dispatch_us": self.ceiling.dispatch.as_secs_f64() * 1e6,
        });
        found["prefill_kernels"] = of(&self.prefill);
        found["step_kernels"] = of(&self.decode);
        found["step_ms"] = json!({ "model": self.model() * 1e3, "measured": step.map(|s| s * 1e3) });
        found
    }

    /// Prints it.
    pub fn print(&self, out: &Output, step: Option<f64>) -> anyhow::Result<()> {
        let Ceiling { copy, dispatch } = self.ceiling;
        out.line(format_args!(
            "\nA copy in the adapter's memory reads and writes {:.1} GB/s; a dispatch that waits costs {:.1} us.",
            copy / 1e9,
            dispatch.as_secs_f64() * 1e6
        ))?;
        for (title, profile) in [("PREFILL", &self.prefill), ("STEP", &self.decode)] {
            if profile.is_empty() {
                continue;
            }
            let mut kernels: Vec<_> = profile.iter().collect();
            kernels.sort_by_key(|(_, k)| std::cmp::Reverse(k.time));
            let row = |(name, k): (&String, &tessera_gpu::profile::Kernel)| {
                let rate = k.bytes as f64 / k.time.as_secs_f64().max(1e-9);
                let some = |text: String| if k.bytes == 0 { "-".to_owned() } else { text };
                vec![
                    name.clone(),
                    k.dispatches.to_string(),
                    format!("{:.1}", k.time.as_secs_f64() * 1e6),
                    some(Bytes(k.bytes).to_string()),
                    some(format!("{:.1}", rate / 1e9)),
                    some(format!("{:.0} %", 100.0 * rate / copy)),
                ]
            };
            let rows: Vec<Vec<String>> = kernels.into_iter().map(row).collect();
            out.line("")?;
            out.table(&[title, "DISPATCHES", "US", "READS", "GB/S", "OF A COPY"], &[1, 2, 3, 4, 5], &rows)?;
        }
        if let Some(step) = step {
            let model = self.model();
            out.line(format_args!(
                "\nA step should take {:.2} ms (0.85 of a copy's speed, and its dispatches); it took {:.2}: {:.0} %.",
                model * 1e3,
                step * 1e3,
                100.0 * model / step
            ))?;
        }
        Ok(())
    }
}
