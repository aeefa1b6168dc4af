//! One step on the CPU: prepares the slots, then all threads walk the stages together.

use super::Cpu;
use super::attention::parts_len;
use super::f32ops;
use super::kernels::Kernels;
use super::linear::Which;
use super::pool::{Pool, Worker};
use super::run::{Model, Prepared, Run, Scratch, SharedPrepared, stride};
use super::stage::{Stage, Stages};
use crate::backend::Compute;
use crate::batch::{Batch, BatchError, Output, PageKind, Pools, Want};
use crate::functions::{activate, apply, argmax, norm_part};
use crate::memory::{Zeroed, ZeroedFloats};
use crate::program::{Act, Factor, Function, Ids, NormKind, Op, Program, Rows, VectorId};
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
