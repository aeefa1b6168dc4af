//! Where a step's time goes, by the adapter's own clock, and what the adapter can do at most.
//!
//! A profiled step has a pass for each dispatch: a clock is read between passes only. That costs some time between
//! dispatches, and none in them.

use crate::device::Gpu;
use crate::kernels;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is measured of one kind of kernel: all that a step has of it, in all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kernel {
    /// How often it ran.
    pub dispatches: u64,
    /// Bytes of weights, keys and values that it had to read.
    pub bytes: u64,
    /// Time that it took.
    pub time: Duration,
}

/// All kinds, by the name of the weight or operation.
pub type Profile = BTreeMap<String, Kernel>;

/// Dispatches that one set of queries can time: each has two.
const SET: usize = 2048;

/// Times of some dispatches, to be read when the step is done.
pub struct Timing {
    sets: Vec<(wgpu::QuerySet, wgpu::Buffer)>,
    of: Vec<(String, u64)>,
}

impl Timing {
    /// For dispatches with these names, which read so many bytes; `None` where the adapter has no clock.
    pub fn new(gpu: &Gpu, of: Vec<(String, u64)>) -> Option<Timing> {
        if !gpu.has_clock() {
            return None;
        }
        let set = |part: &[_]| {
            let count = 2 * part.len() as u32;
            let (label, ty) = (None, wgpu::QueryType::Timestamp);
            let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count });
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            (set, gpu.with_usage(16 * part.len(), usage))
        };
        Some(Timing { sets: of.chunks(SET).map(set).collect(), of })
    }

    /// What the pass of a dispatch notes.
    pub fn pass(&self, i: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let at = 2 * (i % SET) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[i / SET].0,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        }
    }

    /// After all of them: has the times copied to where they can be read.
    pub fn end(&self, gpu: &Gpu, encoder: &mut wgpu::CommandEncoder) {
        for (part, (set, staging)) in self.of.chunks(SET).zip(&self.sets) {
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let bytes = 16 * part.len();
            let resolved = gpu.with_usage(bytes, usage);
            encoder.resolve_query_set(set, 0..2 * part.len() as u32, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, staging, 0, bytes as u64);
        }
    }

    /// When the step is done: adds the times.
    pub fn read(self, gpu: &Gpu, into: &mut Profile) {
        let period = f64::from(gpu.queue.get_timestamp_period());
        for (part, (_, staging)) in self.of.chunks(SET).zip(&self.sets) {
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            gpu.wait();
            let Ok(view) = staging.get_mapped_range(..) else { continue };
            let word = |b: &[u8]| b.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
            for ((name, bytes), at) in part.iter().zip(view.chunks_exact(16)) {
                let nanos = word(&at[8..]).saturating_sub(word(&at[..8])) as f64 * period;
                let kernel = into.entry(name.clone()).or_default();
                kernel.dispatches += 1;
                kernel.bytes += bytes;
                kernel.time += Duration::from_nanos(nanos as u64);
            }
        }
    }
}

/// What an adapter can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// Bytes per second that a copy in its memory reads and writes.
    pub copy: f64,
    /// What a dispatch costs that waits for the one before it and does next to nothing.
    pub dispatch: Duration,
}

impl Ceiling {
    /// Time that a step should take which reads so many bytes with so many dispatches, each of which waits for the one
    /// before: no kernel reads more than 0.85 of what a copy does.
    pub fn step(&self, bytes: u64, dispatches: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / (0.85 * self.copy)) + self.dispatch.mul_f64(dispatches as f64)
    }
}

/// Bytes that are copied: more than caches hold.
const COPIED: usize = 128 << 20;

/// Measures an adapter; `None` where it cannot be waited for, or is lost.
pub fn ceiling(gpu: &Gpu) -> Option<Ceiling> {
    if cfg!(target_arch = "wasm32") {
        return None;
    }
    let bytes = COPIED.min(gpu.binding_limit()) / 1024 * 1024;
    let buffers = [gpu.buffer(bytes), gpu.buffer(bytes)];
    let pipeline = gpu.pipeline(&kernels::copy());
    let bind = |a: usize, b: usize| {
        let entry =
            |binding, i: usize| wgpu::BindGroupEntry { binding, resource: buffers[i].as_entire_binding() };
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("copy"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[entry(2, a), entry(3, b)],
        })
    };
    let binds = [bind(0, 1), bind(1, 0)];
    // There and back again, so that each waits for the one before.
    let run = |times: usize, groups: u32| {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            for i in 0..times {
                pass.set_bind_group(0, &binds[i % 2], &[]);
                pass.dispatch_workgroups(groups, 1, 1);
            }
        }
        let begun = Instant::now();
        gpu.queue.submit([encoder.finish()]);
        gpu.wait();
        begun.elapsed()
    };
    // What a submit costs by itself is in both.
    let apart = |few: usize, many: usize, groups: u32| {
        run(few, groups);
        let of = |times| (0..3).map(|_| run(times, groups)).min().unwrap_or_default();
        let (few_took, many_took) = (of(few), of(many));
        many_took.saturating_sub(few_took) / (many - few) as u32
    };
    let copy = apart(2, 6, (bytes / COPY_GROUP) as u32);
    let dispatch = apart(100, 600, 1);
    (gpu.lost().is_none() && !copy.is_zero())
        .then(|| Ceiling { copy: 2.0 * bytes as f64 / copy.as_secs_f64(), dispatch })
}

/// Bytes that a workgroup of the copy copies.
const COPY_GROUP: usize = 16 << 10;
