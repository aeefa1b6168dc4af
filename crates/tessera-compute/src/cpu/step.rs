//! One step on the CPU: prepares the slots, then all threads walk the stages together.

use super::attention::parts_len;
use super::kernels::Kernels;
use super::lined::Lined;
use super::page_len;
use super::panel::Panel;
use super::pool::{Pool, Worker};
use super::q8;
use super::stage::Stage;
use super::{Activations, Cpu, KvType};
use crate::backend::Executor;
use crate::batch::{Batch, BatchError, Output, Want};
use crate::memory::Zeroed;
use crate::program::{Program, Rows, Slot};
use crate::reference::{activate, argmax};
use crate::rope::Frequencies;
use std::cell::UnsafeCell;
use tessera_weights::config::Activation;
use tessera_weights::quantize::decode_row;

/// A loaded program.
pub struct Step {
    model: Model,
    pool: Pool,
    slots: Vec<Vec<f32>>,
    shared: Prepared,
    scratch: Vec<Scratch>,
    angles: Vec<f32>,
    parts: Vec<f32>,
    frequencies: Option<Frequencies>,
}

/// What does not change between steps.
pub(super) struct Model {
    pub program: Program,
    pub stages: Vec<Stage>,
    pub kernels: Kernels,
    pub activations: Activations,
    pub kv_type: KvType,
    pub kv: Zeroed,
    pub pages: usize,
}

/// One thread's own buffers.
#[derive(Default)]
pub(super) struct Scratch {
    /// Inputs of a product, prepared by each thread for itself when there are few.
    pub own: Prepared,
    /// A row after its norm.
    pub row: Vec<f32>,
    /// Products of a claim, `[token][row]`.
    pub y: Vec<f32>,
    /// Those of the gate's other half.
    pub up: Vec<f32>,
    pub panels: Vec<Panel>,
    /// Weights of a claim in f32.
    pub weights: Lined<f32>,
    /// Rotated queries, their results and those of one part.
    pub queries: Vec<f32>,
    pub results: Vec<f32>,
    pub parts: Vec<f32>,
}

/// Inputs of a product in the form that its kernel reads.
#[derive(Default)]
pub(super) struct Prepared {
    pub rows: q8::Rows,
    pub tiles: q8::Tiles,
    /// f32 rows padded to whole vectors.
    pub floats: Lined<f32>,
}

/// What all threads share during a step. Slots and pages are written through pointers: stages give
/// every thread parts of its own, and barriers separate a write from its reads.
pub(super) struct Run<'a> {
    pub model: &'a Model,
    pub batch: &'a Batch<'a>,
    pub slots: Vec<*mut f32>,
    pub shared: SharedPrepared<'a>,
    /// `[row][cos of half, sin of half]`.
    pub angles: &'a [f32],
    /// Results of attention in parts; see [`Run::parts`].
    pub parts: *mut f32,
    pub parts_len: usize,
    scratch: Vec<UnsafeCell<&'a mut Scratch>>,
}

/// Inputs that all threads read. The first thread makes room and leaves pointers; between two
/// barriers rows are written through them, each by the thread that claimed its tile; then all read.
pub(super) struct SharedPrepared<'a>(pub UnsafeCell<(&'a mut Prepared, Pointers)>);

/// Where the buffers of a [`Prepared`] begin.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    values: *mut i8,
    scales: *mut f32,
    offsets: *mut i32,
    floats: *mut f32,
    /// Of all planes.
    group_bytes: usize,
}

/// A part of each buffer of a [`Prepared`]: one row, or one tile of rows.
pub(super) struct PartMut<'a> {
    pub values: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub offsets: &'a mut [i32],
    pub floats: &'a mut [f32],
}

impl Prepared {
    pub fn pointers(&mut self) -> Pointers {
        // Only one of the two integer forms is filled at a time.
        let tiles = self.tiles.groups > 0;
        let (v, s, o, group_bytes) = if tiles {
            let t = &mut self.tiles;
            (&mut t.values, &mut t.scales, &mut t.offsets, t.group_bytes * t.planes)
        } else {
            let r = &mut self.rows;
            (&mut r.values, &mut r.scales, &mut r.offsets, r.group_bytes * r.planes)
        };
        Pointers {
            values: v.as_mut_ptr(),
            scales: s.as_mut_ptr(),
            offsets: o.as_mut_ptr(),
            floats: self.floats.as_mut_ptr(),
            group_bytes,
        }
    }
}

impl Pointers {
    /// `groups` groups from `group` on, and `len` floats from `float` on.
    ///
    /// # Safety
    /// Both ranges are inside the buffers, and nobody else touches them meanwhile.
    pub unsafe fn part<'a>(self, group: usize, groups: usize, float: usize, len: usize) -> PartMut<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            let values = self.values.add(group * self.group_bytes);
            PartMut {
                values: std::slice::from_raw_parts_mut(values, groups * self.group_bytes),
                scales: std::slice::from_raw_parts_mut(self.scales.add(group), groups),
                offsets: std::slice::from_raw_parts_mut(self.offsets.add(group), groups),
                floats: std::slice::from_raw_parts_mut(self.floats.add(float), len),
            }
        }
    }
}

// SAFETY: see `Run`; each scratch is used by the thread of its index only.
unsafe impl Sync for Run<'_> {}

impl Step {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        program: Program,
        stages: Vec<Stage>,
        kernels: Kernels,
        cpu: Cpu,
        pool: Pool,
        scratch: Vec<Scratch>,
        kv: Zeroed,
        pages: usize,
    ) -> Step {
        let slots = vec![Vec::new(); program.slots.len()];
        let frequencies = (!program.rope.depends_on_length()).then(|| program.rope.frequencies(1));
        let (activations, kv_type) = (cpu.activations, cpu.kv);
        let model = Model { program, stages, kernels, activations, kv_type, kv, pages };
        let shared = Prepared::default();
        Step { model, pool, slots, shared, scratch, angles: Vec::new(), parts: Vec::new(), frequencies }
    }

    /// What the head would read: its stage may hold the norm before it.
    fn hidden(&self, rows: usize, out: &mut Vec<f32>) {
        let Some(Stage::Linear(head)) = self.model.stages.last() else { return };
        let width = self.model.program.slots[head.x.0].width;
        let x = &self.slots[head.x.0][..rows * width];
        let Some((weight, eps)) = head.norm else { return out.extend_from_slice(x) };
        out.resize(rows * width, 0.0);
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            self.model.kernels.rms_norm(x, &self.model.program.vectors[weight.0], eps, out);
        }
    }

    /// cos and sin of every row's position.
    fn turn(&mut self, batch: &Batch<'_>) {
        let half = self.model.program.heads.dim / 2;
        self.angles.resize(batch.tokens.len() * 2 * half, 0.0);
        for span in batch.spans {
            let own;
            let frequencies = match &self.frequencies {
                Some(f) => f,
                None => {
                    own = self.model.program.rope.frequencies(span.rope_len);
                    &own
                }
            };
            for i in 0..span.len {
                let row = &mut self.angles[(span.start + i) * 2 * half..][..2 * half];
                let (cos, sin) = row.split_at_mut(half);
                frequencies.at(span.position + i, cos, sin);
            }
        }
    }
}

/// The slots that stages read or write. Those between operations that became one stage need no memory.
pub(super) fn used_slots(stages: &[Stage]) -> impl Iterator<Item = usize> {
    stages.iter().map(Stage::io).flat_map(|io| [io.input, Some(io.output)]).flatten().map(|slot| slot.0)
}

impl Executor for Step {
    fn step(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        batch.check(self.model.program.vocab, self.model.pages)?;
        let used =
            self.model.stages.iter().map(Stage::io).flat_map(|io| [io.input, Some(io.output)]).flatten();
        for index in used.map(|slot| slot.0) {
            let (slot, shape) = (&mut self.slots[index], &self.model.program.slots[index]);
            let rows = if shape.rows == Rows::All { batch.tokens.len() } else { batch.picked.len() };
            if slot.len() < rows * shape.width {
                slot.resize(rows * shape.width, 0.0);
            }
        }
        self.turn(batch);
        // The head is the last stage (`Program::check`).
        let stages = self.model.stages.len() - usize::from(batch.want == Want::Hidden);
        let parts_len = parts_len(&self.model.program, batch);
        if self.parts.len() < parts_len {
            self.parts.resize(parts_len, 0.0);
        }
        let pointers = self.shared.pointers();
        let run = Run {
            model: &self.model,
            batch,
            slots: self.slots.iter_mut().map(|s| s.as_mut_ptr()).collect(),
            shared: SharedPrepared(UnsafeCell::new((&mut self.shared, pointers))),
            angles: &self.angles,
            parts: self.parts.as_mut_ptr(),
            parts_len: self.parts.len(),
            scratch: self.scratch.iter_mut().map(UnsafeCell::new).collect(),
        };
        self.pool.run(&|worker| {
            // SAFETY: each thread has an index of its own.
            let scratch = unsafe { &mut **run.scratch[worker.index].get() };
            for (i, stage) in run.model.stages[..stages].iter().enumerate() {
                run.stage(stage, 2 * i, worker, scratch);
                worker.barrier();
            }
        });
        let vocab = self.model.program.vocab;
        let logits = || &self.slots[self.model.program.logits.0][..batch.picked.len() * vocab];
        out.clear();
        match batch.want {
            Want::Logits => out.logits.extend_from_slice(logits()),
            Want::Greedy => out.tokens.extend(logits().chunks_exact(vocab).map(argmax)),
            Want::Hidden => self.hidden(batch.picked.len(), &mut out.hidden),
        }
        Ok(())
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        let len = page_len(&self.model.program, self.model.kv_type);
        assert!((from.max(to) as usize) < self.model.pages);
        let kv = self.model.kv.as_ptr();
        // SAFETY: both pages lie in the pool, and nobody else uses it outside a step.
        unsafe { std::ptr::copy(kv.add(from as usize * len), kv.add(to as usize * len), len) }
    }

    fn kv_len(&self) -> usize {
        self.model.kv.len()
    }

    fn describe(&self) -> String {
        let activations = self.model.activations.name();
        let (kernels, threads) = (self.model.kernels.name(), self.pool.threads());
        let kv = self.model.kv_type.name();
        format!("cpu: {kernels} kernels, {threads} threads, {activations} activations, {kv} keys and values")
    }
}

impl Run<'_> {
    pub fn width(&self, slot: Slot) -> usize {
        self.model.program.slots[slot.0].width
    }

    /// Number of rows that a slot holds in this step.
    pub fn rows(&self, slot: Slot) -> usize {
        match self.model.program.slots[slot.0].rows {
            Rows::All => self.batch.tokens.len(),
            Rows::Picked => self.batch.picked.len(),
        }
    }

    /// A row of a slot, to read.
    pub fn row(&self, slot: Slot, row: usize) -> &[f32] {
        let width = self.width(slot);
        assert!(row < self.rows(slot));
        // SAFETY: slots of stages were made long enough in `step`; nobody writes it in a stage that reads it.
        unsafe { std::slice::from_raw_parts(self.slots[slot.0].add(row * width), width) }
    }

    /// A part of a row, to write.
    ///
    /// # Safety
    /// No other thread reads or writes this part in the same stage.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, slot: Slot, row: usize, from: usize, len: usize) -> &mut [f32] {
        let width = self.width(slot);
        assert!(row < self.rows(slot) && from + len <= width);
        // SAFETY: slots of stages were made long enough in `step`; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.slots[slot.0].add(row * width + from), len) }
    }

    fn stage(&self, stage: &Stage, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let program = &self.model.program;
        match *stage {
            Stage::Linear(ref linear) => self.linear(linear, counter, worker, scratch),
            Stage::Attend { qkv, layer, out } => self.attend(qkv, layer, out, counter, worker, scratch),
            Stage::Embed { table, out } => self.each_row(out, counter, worker, |t, o| {
                decode_row(&program.matrices[table.0], self.batch.tokens[t] as usize, o);
            }),
            Stage::Norm { x, weight, eps, out } => self.each_row(out, counter, worker, |t, o| {
                self.model.kernels.rms_norm(self.row(x, t), &program.vectors[weight.0], eps, o);
            }),
            Stage::Gate { x, activation, out } => self.each_row(out, counter, worker, |t, o| {
                let (gate, up) = self.row(x, t).split_at(o.len());
                self.gate(activation, gate, up, o);
            }),
            Stage::Pick { x, out } => self.each_row(out, counter, worker, |t, o| {
                o.copy_from_slice(self.row(x, self.batch.picked[t] as usize));
            }),
        }
    }

    /// Gives rows of `out` to threads.
    fn each_row(&self, out: Slot, counter: usize, worker: &Worker<'_>, f: impl Fn(usize, &mut [f32])) {
        while let Some(rows) = worker.claim(counter, 4, self.rows(out)) {
            for t in rows {
                // SAFETY: the row was claimed by this thread alone.
                f(t, unsafe { self.part_mut(out, t, 0, self.width(out)) });
            }
        }
    }

    pub fn gate(&self, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        if activation == Activation::Silu {
            return self.model.kernels.silu_gate(gate, up, out);
        }
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = activate(activation, *g) * u;
        }
    }
}
