//! One step on the CPU: prepares the slots, then all threads walk the stages together.

use super::attention::parts_len;
use super::f32ops;
use super::kernels::Kernels;
use super::linear::{Chosen, Which};
use super::lined::Lined;
use super::panel::Panel;
use super::pool::{Pool, Worker};
use super::q8;
use super::stage::{Stage, Stages};
use super::{Activations, Cpu, KvType};
use crate::backend::{Compute, Pools};
use crate::batch::{Batch, BatchError, Limits, Output, PageKind, Want};
use crate::functions::{activate, apply, argmax, norm_part};
use crate::memory::{Zeroed, ZeroedFloats};
use crate::pages::PageLayout;
use crate::program::{Act, Factor, Function, Ids, Mask, NormKind, Op, Program, Rows, Slot, VectorId};
use crate::rope::Frequencies;
use crate::route::route;
use crate::weights::Loaded;
use std::cell::UnsafeCell;
use tessera_weights::arch::Sinks;
use tessera_weights::config::Activation;
use tessera_weights::quantize::decode_row;

/// A loaded program.
pub struct Step {
    model: Model,
    pool: Pool,
    /// `[slot]`, in each the states one after another.
    states: ZeroedFloats,
    slots: Vec<Vec<f32>>,
    shared: Prepared,
    scratch: Vec<Scratch>,
    /// Of each rope.
    angles: Vec<Vec<f32>>,
    parts: Vec<f32>,
    /// Of each rope whose frequencies do not depend on the length.
    frequencies: Vec<Option<Frequencies>>,
}

/// What does not change between steps.
pub(super) struct Model {
    pub program: Program,
    pub weights: Loaded,
    pub stages: Stages,
    pub kernels: Kernels,
    pub activations: Activations,
    pub kv_type: KvType,
    pub kv: Zeroed,
    pub limits: Limits,
    /// See [`Program::cache`].
    pub cache: Option<Mask>,
    /// Where pages and layers begin in `kv`.
    pub layout: PageLayout,
    /// The first counter of each stage.
    pub counters: Vec<usize>,
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
    /// The rows of one expert.
    pub chosen: Vec<Chosen>,
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
    /// Of each rope: `[row][cos of all angles, sin of all angles]`.
    pub angles: &'a [Vec<f32>],
    /// See [`Run::state`].
    pub states: *mut f32,
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
        (program, weights): (Program, Loaded),
        stages: Stages,
        kernels: Kernels,
        cpu: Cpu,
        pool: Pool,
        scratch: Vec<Scratch>,
        (kv, states): (Zeroed, ZeroedFloats),
        pools: Pools,
    ) -> Step {
        let slots = vec![Vec::new(); program.slots.len()];
        let fixed = program.ropes.iter().map(|r| (!r.depends_on_length()).then(|| r.frequencies(1)));
        let (frequencies, angles) = (fixed.collect(), vec![Vec::new(); program.ropes.len()]);
        let (activations, kv_type) = (cpu.activations, cpu.kv);
        let layout = kv_type.layout(&program, pools.pages);
        let counters = counters(&stages);
        let (limits, cache) = (program.limits(pools), program.cache());
        let model = Model {
            program,
            weights,
            stages,
            kernels,
            activations,
            kv_type,
            kv,
            limits,
            cache,
            layout,
            counters,
        };
        let shared = Prepared::default();
        Step { model, pool, states, slots, shared, scratch, angles, parts: Vec::new(), frequencies }
    }

    /// cos and sin of every row's position.
    fn turn(&mut self, batch: &Batch<'_>) {
        let cache = self.model.cache;
        let ropes = self.model.program.ropes.iter().zip(&self.frequencies).zip(&mut self.angles);
        for ((rope, fixed), angles) in ropes {
            let (n, rows) = (rope.angles(), batch.tokens.len());
            // Those of the positions, then those by which a query sees what stays in a cache for ever.
            angles.resize(rows * 2 * n * if cache.is_some() { 2 } else { 1 }, 0.0);
            for span in batch.spans {
                let own;
                let frequencies = match fixed {
                    Some(f) => f,
                    None => {
                        own = rope.frequencies(span.rope_len);
                        &own
                    }
                };
                for i in 0..span.len {
                    let row = &mut angles[(span.start + i) * 2 * n..][..2 * n];
                    let (cos, sin) = row.split_at_mut(n);
                    frequencies.at(span.position + i, cos, sin);
                    let sinks = cache.and_then(|mask| span.sinks(mask, i));
                    if let Some(Sinks { back, .. }) = sinks {
                        let row = &mut angles[(rows + span.start + i) * 2 * n..][..2 * n];
                        let (cos, sin) = row.split_at_mut(n);
                        frequencies.at(span.position + i - back, cos, sin);
                    }
                }
            }
        }
    }
}

/// The first counter of each stage, and at the end their number.
pub(super) fn counters(stages: &Stages) -> Vec<usize> {
    // The first is the states'.
    let mut ends = vec![1];
    ends.extend(stages.all.iter().scan(1, |end, stage| {
        *end += match stage {
            // Two products of each expert.
            Stage::One(Op::Experts { count, .. }) => 4 * count,
            Stage::One(Op::PerHead { count, .. }) => 2 * count,
            _ => 2,
        };
        Some(*end)
    }));
    ends
}

/// Values in one claim of what is computed value by value.
const VALUES: usize = 1024;

/// Where a slot's rows begin, and how many values each has.
fn stride(program: &Program, slot: Slot) -> usize {
    program.slots[slot.0].width
}

/// The slots that stages read or write. Those between operations that became one stage need no memory.
pub(super) fn used_slots(stages: &Stages) -> impl Iterator<Item = usize> {
    let io = stages.all.iter().map(Stage::io);
    io.flat_map(|io| io.inputs.into_iter().flatten().chain(io.work).chain([io.output])).map(|act| act.slot.0)
}

impl Compute for Step {
    fn compute(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        batch.check(self.model.limits)?;
        for index in used_slots(&self.model.stages) {
            let (slot, shape) = (&mut self.slots[index], &self.model.program.slots[index]);
            let rows = if shape.rows == Rows::All { batch.tokens.len() } else { batch.picked.len() };
            if slot.len() < rows * shape.width {
                slot.resize(rows * shape.width, 0.0);
            }
        }
        self.turn(batch);
        let Stages { ref all, body } = self.model.stages;
        let stages = if batch.want == Want::Hidden { body } else { all.len() };
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
            states: self.states.as_mut_ptr(),
            parts: self.parts.as_mut_ptr(),
            parts_len: self.parts.len(),
            scratch: self.scratch.iter_mut().map(UnsafeCell::new).collect(),
        };
        self.pool.run(&|worker| {
            // SAFETY: each thread has an index of its own.
            let scratch = unsafe { &mut **run.scratch[worker.index].get() };
            if run.model.program.state_len() > 0 {
                run.move_states(0, worker);
                worker.barrier();
            }
            for (stage, counter) in run.model.stages.all[..stages].iter().zip(&run.model.counters) {
                run.stage(stage, *counter, worker, scratch);
                worker.barrier();
            }
        });
        let act = self.model.program.result(batch.want);
        let stride = stride(&self.model.program, act.slot);
        let rows = self.slots[act.slot.0].chunks_exact(stride).take(batch.picked.len());
        let rows = rows.map(|row| &row[act.columns()]);
        out.clear();
        match batch.want {
            Want::Logits => rows.for_each(|row| out.logits.extend_from_slice(row)),
            Want::Greedy => out.tokens.extend(rows.map(argmax)),
            Want::Hidden => rows.for_each(|row| out.hidden.extend_from_slice(row)),
        }
        Ok(())
    }

    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32) {
        let [from, to] = [from, to].map(|page| self.model.layout.page(kind, page));
        assert!(from.end.max(to.end) <= self.model.kv.len());
        let kv = self.model.kv.as_ptr();
        // SAFETY: both pages lie in the pool, and nobody else uses it outside a step.
        unsafe { std::ptr::copy(kv.add(from.start), kv.add(to.start), from.len()) }
    }

    fn kv_len(&self) -> usize {
        self.model.kv.len() + self.states.len() * size_of::<f32>()
    }

    fn describe(&self) -> String {
        let activations = self.model.activations.name();
        let (kernels, threads) = (self.model.kernels.name(), self.pool.threads());
        let kv = self.model.kv_type.name();
        format!("cpu: {kernels} kernels, {threads} threads, {activations} activations, {kv} keys and values")
    }
}

impl Run<'_> {
    /// Number of rows that a slot holds in this step.
    pub fn rows(&self, slot: Slot) -> usize {
        match self.model.program.slots[slot.0].rows {
            Rows::All => self.batch.tokens.len(),
            Rows::Picked => self.batch.picked.len(),
        }
    }

    /// A row of an activation, to read.
    pub fn row(&self, act: Act, row: usize) -> &[f32] {
        let width = stride(&self.model.program, act.slot);
        assert!(row < self.rows(act.slot) && act.from + act.width <= width);
        // SAFETY: slots of stages were made long enough in `step`; nobody writes it in a stage that reads it, but
        // for a row that is written in place, by the thread that reads it, which holds no other reference then.
        unsafe { std::slice::from_raw_parts(self.slots[act.slot.0].add(row * width + act.from), act.width) }
    }

    /// A part of a row, to write.
    ///
    /// # Safety
    /// No other thread reads or writes this part in the same stage.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, act: Act, row: usize, from: usize, len: usize) -> &mut [f32] {
        let width = stride(&self.model.program, act.slot);
        assert!(row < self.rows(act.slot) && from + len <= act.width && act.from + act.width <= width);
        let at = row * width + act.from + from;
        // SAFETY: slots of stages were made long enough in `step`; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.slots[act.slot.0].add(at), len) }
    }

    fn stage(&self, stage: &Stage, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        match stage {
            Stage::Linear(linear) => {
                let all = Which::All(self.rows(linear.x.slot));
                self.linear(linear, all, counter, worker, scratch);
            }
            Stage::One(op) => self.one(op, counter, worker, scratch),
        }
    }

    fn one(&self, op: &Op, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let Model { program, weights, .. } = self.model;
        match *op {
            Op::Attend(a) => self.attend(a, counter, worker, scratch),
            Op::Embed { table, ids, scale, accumulate, out } => {
                let row = &mut scratch.row;
                self.each_row(out, counter, worker, |t, o| {
                    let id = match ids {
                        Ids::Tokens => self.batch.tokens[t] as usize,
                        Ids::Positions => self.batch.position(t),
                        Ids::First => 0,
                    };
                    if scale == 1.0 && !accumulate {
                        return decode_row(&weights[table], id, o);
                    }
                    row.resize(o.len(), 0.0);
                    decode_row(&weights[table], id, row);
                    for (o, x) in o.iter_mut().zip(&*row) {
                        *o = x * scale + if accumulate { *o } else { 0.0 };
                    }
                });
            }
            Op::Norm { kind, x, each, weight, bias, eps, out } => {
                // A copy: the norm may be in place.
                let row = &mut scratch.row;
                self.each_row(out, counter, worker, |t, o| {
                    row.clear();
                    row.extend_from_slice(self.row(x, t));
                    for (i, (x, o)) in row.chunks_exact(each).zip(o.chunks_exact_mut(each)).enumerate() {
                        let part = |id: Option<VectorId>| id.map(|id| norm_part(&weights[id], each, i));
                        self.norm(kind, x, (part(weight), part(bias)), eps, o);
                    }
                });
            }
            Op::Add { x, scale, out } => self.each_value(out, counter, worker, |t, from, o| {
                let x = &self.row(x, t)[from..][..o.len()];
                o.iter_mut().zip(x).for_each(|(o, x)| *o += scale * x);
            }),
            Op::Map { x, f, out } if x == out => self.each_value(out, counter, worker, |_, _, o| {
                self.map(f, o);
            }),
            Op::Map { x, f, out } => self.each_value(out, counter, worker, |t, from, o| {
                o.copy_from_slice(&self.row(x, t)[from..][..o.len()]);
                self.map(f, o);
            }),
            Op::PerHead { .. } => self.per_head(op, counter, worker, scratch),
            Op::ByCall { x, single, out } => self.each_row(out, counter, worker, |t, o| {
                let row = match program.rows(out) {
                    Rows::All => t,
                    Rows::Picked => self.batch.picked[t] as usize,
                };
                o.copy_from_slice(self.row(if self.batch.is_single(row) { single } else { x }, t));
            }),
            Op::Blend { x, towards, factor, out } => self.each_value(out, counter, worker, |t, from, o| {
                let part = |act: Act| &self.row(act, t)[from..][..o.len()];
                let (x, towards) = (part(x), part(towards));
                let factor = match factor {
                    Factor::Columns(id) => &weights[id][from..][..o.len()],
                    Factor::Each(act) => part(act),
                };
                let rows = x.iter().zip(towards).zip(factor);
                o.iter_mut().zip(rows).for_each(|(o, ((x, towards), factor))| *o = x + factor * towards);
            }),
            Op::Gate { gate, up, activation, out } => self.each_value(out, counter, worker, |t, from, o| {
                let part = |act: Act| &self.row(act, t)[from..][..o.len()];
                let (gate, up) = (part(gate), part(up));
                self.gate(activation, gate, up, o);
            }),
            Op::Route { logits, experts, correction, out } => self.each_row(out, counter, worker, |t, o| {
                let correction = weights.vector(correction);
                route(&experts, self.row(logits, t), correction, o);
            }),
            Op::ByPosition { x, scale, out } => self.each_row(out, counter, worker, |t, o| {
                let factor = scale.at(self.batch.position(t));
                if x != out {
                    o.copy_from_slice(self.row(x, t));
                }
                o.iter_mut().for_each(|o| *o *= factor);
            }),
            Op::Conv { .. } => self.conv(op, counter, worker),
            Op::Delta { .. } => self.delta(op, counter, worker),
            Op::Wkv { .. } => self.wkv(op, counter, worker),
            Op::Columns { x, from, each, count, to, out } => self.each_row(out, counter, worker, |t, o| {
                let x = self.row(x, t);
                for i in 0..count {
                    o[i * to..][..each].copy_from_slice(&x[i * from..][..each]);
                }
            }),
            Op::Experts { .. } => self.experts(op, counter, worker, scratch),
            Op::Pick { x, out } => self.each_row(out, counter, worker, |t, o| {
                o.copy_from_slice(self.row(x, self.batch.picked[t] as usize));
            }),
            // Compiled to a stage of its own.
            Op::Linear { .. } => {}
        }
    }

    /// Gives rows of `out` to threads.
    fn each_row(&self, out: Act, counter: usize, worker: &Worker<'_>, mut f: impl FnMut(usize, &mut [f32])) {
        while let Some(rows) = worker.claim(counter, 4, self.rows(out.slot)) {
            for t in rows {
                // SAFETY: the row was claimed by this thread alone.
                f(t, unsafe { self.part_mut(out, t, 0, out.width) });
            }
        }
    }

    /// Gives parts of the rows of `out` to threads: row, first column, values.
    fn each_value(
        &self,
        out: Act,
        counter: usize,
        worker: &Worker<'_>,
        f: impl Fn(usize, usize, &mut [f32]),
    ) {
        let parts = out.width.div_ceil(VALUES);
        while let Some(claim) = worker.claim(counter, 1, parts * self.rows(out.slot)) {
            for item in claim {
                let (t, from) = (item / parts, item % parts * VALUES);
                let len = VALUES.min(out.width - from);
                // SAFETY: this part was claimed by this thread alone.
                f(t, from, unsafe { self.part_mut(out, t, from, len) });
            }
        }
    }

    /// One part of a row, normed.
    pub fn norm(
        &self,
        kind: NormKind,
        x: &[f32],
        (weight, bias): (Option<&[f32]>, Option<&[f32]>),
        eps: f32,
        out: &mut [f32],
    ) {
        let weights = (weight.unwrap_or_default(), bias.unwrap_or_default());
        self.model.kernels.norm(kind == NormKind::Layer, x, weights, eps, out);
    }

    pub fn map(&self, f: Function, values: &mut [f32]) {
        if let Function::Activation(activation) = f
            && vectorised(activation).is_some()
        {
            const ONES: [f32; 256] = [1.0; 256];
            let mut gate = ONES;
            for part in values.chunks_mut(gate.len()) {
                let gate = &mut gate[..part.len()];
                gate.copy_from_slice(part);
                self.gate(activation, gate, &ONES[..part.len()], part);
            }
            return;
        }
        values.iter_mut().for_each(|x| *x = apply(f, *x));
    }

    pub fn gate(&self, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        if let Some(f) = vectorised(activation) {
            return self.model.kernels.gate(f, gate, up, out);
        }
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = activate(activation, *g) * u;
        }
    }
}

/// Which of the kernels' gates an activation is.
fn vectorised(activation: Activation) -> Option<u8> {
    match activation {
        Activation::Silu => Some(f32ops::SILU),
        Activation::GeluTanh => Some(f32ops::GELU_TANH),
        Activation::Gelu => Some(f32ops::GELU),
        Activation::Sigmoid => Some(f32ops::SIGMOID),
        Activation::Relu | Activation::Relu2 => None,
    }
}
