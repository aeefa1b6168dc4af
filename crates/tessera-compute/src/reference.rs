//! The oracle: every operation in plain f32, as its definition reads. No SIMD, no quantised
//! activations, keys and values in f32. Slow, and the judge of every other backend.

use crate::backend::{Backend, Compute, Executor, Immediate, LoadError};
use crate::batch::{Batch, BatchError, Limits, Output, PAGE, PageKind, Pools, Span, StateUse, Want};
use crate::functions::{activate, apply, argmax, norm, norm_part};
use crate::memory::{Zeroed, ZeroedFloats};
use crate::pages::PageLayout;
use crate::program::{
    Act, Attend, DeltaHeads, Factor, Heads, Ids, Kv, MatrixId, Op, Program, Rows, VectorId,
};
use crate::recurrent;
use crate::rope::Rope;
use crate::route::route;
use crate::weights::{Loaded, Weights};
use tessera_weights::quantize::decode_row;
use tessera_weights::tensor::Matrix;

#[cfg(feature = "threads")]
pub mod gemm;
#[cfg(feature = "threads")]
pub mod walk;

/// The reference backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        PageLayout::new(program, Default::default(), layer_len).page_len().map(|len| len * size_of::<f32>())
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        let width: usize = program.slots.iter().map(|slot| slot.width).sum();
        // The logits are handed out as a copy.
        rows.saturating_mul(width + program.vocab).saturating_mul(size_of::<f32>())
    }

    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        Ok(Box::new(Immediate::new(Interpreter::new(program, weights, pools)?)))
    }
}

struct Interpreter {
    program: Program,
    weights: Loaded,
    limits: Limits,
    layout: PageLayout,
    /// In each page of each layer `[k, v][kv head][position][dim]`.
    kv: ZeroedFloats,
    /// `[slot]`, in each the states one after another.
    states: ZeroedFloats,
    slots: Vec<Vec<f32>>,
}

impl Compute for Interpreter {
    fn compute(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        self.begin(batch)?;
        let end = if batch.want == Want::Hidden { self.program.head } else { self.program.ops.len() };
        for i in 0..end {
            let op = self.program.ops[i].clone();
            self.run(&op, batch);
        }
        out.clear();
        let result = self.read(self.program.result(batch.want));
        match batch.want {
            Want::Logits => out.logits = result,
            Want::Greedy => out.tokens.extend(result.chunks_exact(self.program.vocab).map(argmax)),
            Want::Hidden => out.hidden = result,
        }
        Ok(())
    }

    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32) {
        let [from, to] = [from, to].map(|page| self.layout.page(kind, page));
        self.kv.copy_within(from, to.start);
    }

    fn kv_len(&self) -> usize {
        (self.kv.len() + self.states.len()) * 4
    }

    fn describe(&self) -> String {
        "reference: plain f32, no SIMD".to_owned()
    }
}

impl Interpreter {
    fn new(program: Program, weights: &mut dyn Weights, pools: Pools) -> Result<Interpreter, LoadError> {
        program.check()?;
        let state = pools.states.saturating_mul(program.state_len());
        let layout = PageLayout::new(&program, pools.pages, layer_len);
        let needed = layout.len().saturating_add(state).saturating_mul(size_of::<f32>());
        let both = Zeroed::floats(layout.len()).zip(Zeroed::floats(state));
        let (kv, states) = both.ok_or(LoadError::Memory { pools, needed })?;
        let weights = Loaded::new(&program, weights)?;
        let slots = vec![Vec::new(); program.slots.len()];
        let limits = program.limits(pools);
        Ok(Interpreter { program, weights, limits, layout, kv, states, slots })
    }

    /// Makes room for a batch.
    fn begin(&mut self, batch: &Batch<'_>) -> Result<(), BatchError> {
        batch.check(self.limits)?;
        self.move_states(batch);
        // Nobody makes the logits where the hidden states are wanted.
        let unwanted = self.program.logits.filter(|_| batch.want == Want::Hidden).map(|act| act.slot.0);
        for (i, (slot, shape)) in self.slots.iter_mut().zip(&self.program.slots).enumerate() {
            let rows = match shape.rows {
                _ if unwanted == Some(i) => 0,
                Rows::All => batch.tokens.len(),
                Rows::Picked => batch.picked.len(),
            };
            slot.resize(rows * shape.width, 0.0);
        }
        Ok(())
    }

    /// The rows of an activation, one after another.
    fn read(&self, act: Act) -> Vec<f32> {
        let width = self.program.slots[act.slot.0].width;
        self.slots[act.slot.0].chunks_exact(width).flat_map(|row| &row[act.columns()]).copied().collect()
    }

    /// Sets them.
    fn write(&mut self, act: Act, values: &[f32]) {
        let width = self.program.slots[act.slot.0].width;
        let rows = self.slots[act.slot.0].chunks_exact_mut(width);
        for (row, values) in rows.zip(values.chunks_exact(act.width)) {
            row[act.columns()].copy_from_slice(values);
        }
    }

    fn vector(&self, id: Option<VectorId>) -> Option<&[f32]> {
        self.weights.vector(id)
    }

    /// Puts every sequence's state where it will be, zero at its beginning.
    fn move_states(&mut self, batch: &Batch<'_>) {
        let len = self.program.state_len();
        for StateUse { from, to, .. } in batch.spans.iter().filter_map(|span| span.state) {
            let to = to as usize * len;
            match from {
                Some(from) => self.states.copy_within(from as usize * len..(from as usize + 1) * len, to),
                None => self.states[to..to + len].fill(0.0),
            }
        }
    }

    /// One state of a span's sequence.
    fn state(&mut self, span: &Span<'_>, state: usize) -> &mut [f32] {
        self.state_in(span.state.map_or(0, |state| state.to), state)
    }

    fn state_in(&mut self, slot: u32, state: usize) -> &mut [f32] {
        let (at, len) = (self.program.state_at(state), self.program.state_len());
        &mut self.states[slot as usize * len..][at]
    }

    /// Puts a state as it is after `rows` rows where that is asked for.
    fn save(&mut self, span: &Span<'_>, rows: usize, state: usize) {
        if let Some(StateUse { to, save: Some(save), .. }) = span.state
            && save.rows == rows
        {
            let now = self.state_in(to, state).to_vec();
            self.state_in(save.slot, state).copy_from_slice(&now);
        }
    }

    /// [`Op::Conv`].
    fn conv(&mut self, op: &Op, batch: &Batch<'_>, o: &mut [f32]) {
        let Op::Conv { x, weight, kernel, state, activation, .. } = *op else { return };
        let (x, width, weight) = (self.read(x), x.width, self.weights[weight].to_vec());
        for span in batch.spans {
            let mut seen = self.state(span, state).to_vec();
            let before = seen.len();
            seen.extend_from_slice(&x[span.start * width..(span.start + span.len) * width]);
            for t in 0..span.len {
                for column in 0..width {
                    let rows = seen[t * width..].chunks_exact(width).map(|row| row[column]);
                    let sum = recurrent::conv(&weight[column * kernel..][..kernel], rows);
                    o[(span.start + t) * width + column] = activation.map_or(sum, |f| activate(f, sum));
                }
                self.state(span, state).copy_from_slice(&seen[(t + 1) * width..][..before]);
                self.save(span, t + 1, state);
            }
        }
    }

    /// [`Op::Wkv`].
    fn wkv(&mut self, op: &Op, batch: &Batch<'_>, o: &mut [f32]) {
        let Op::Wkv { r, k, v, decay, bonus, heads, state, .. } = *op else { return };
        let dim = heads.dim;
        let [r, k, v, mut keep] = [r, k, v, decay].map(|act| self.read(act));
        keep.iter_mut().for_each(|x| *x = recurrent::wkv_keep(*x));
        let bonus = self.weights[bonus].to_vec();
        for span in batch.spans {
            for t in span.start..span.start + span.len {
                for (h, state) in self.state(span, state).chunks_exact_mut(dim * dim).enumerate() {
                    let at = (t * heads.count + h) * dim..(t * heads.count + h + 1) * dim;
                    let (rows, at_bonus) =
                        ((&r[at.clone()], &k[at.clone()], &v[at.clone()]), h * dim..(h + 1) * dim);
                    let gates = (&keep[at.clone()], &bonus[at_bonus]);
                    recurrent::wkv_row(state, rows, gates, &mut o[at]);
                }
                self.save(span, t + 1 - span.start, state);
            }
        }
    }

    /// [`Op::Delta`].
    fn delta(&mut self, op: &Op, batch: &Batch<'_>, o: &mut [f32]) {
        let Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state, .. } = *op else { return };
        let DeltaHeads { keys, values, key, value } = heads;
        let [q, k, v, a, b] = [q, k, v, a, b].map(|act| self.read(act));
        let [a_log, dt_bias] = [a_log, dt_bias].map(|id| self.weights[id].to_vec());
        for span in batch.spans {
            for t in span.start..span.start + span.len {
                for (h, state) in self.state(span, state).chunks_exact_mut(key * value).enumerate() {
                    let at = (t * keys + h / (values / keys)) * key;
                    let v_at = (t * values + h) * value;
                    let rows = (&q[at..at + key], &k[at..at + key], &v[v_at..v_at + value]);
                    let i = t * values + h;
                    let gates = recurrent::delta_gates(a[i], b[i], a_log[h], dt_bias[h]);
                    recurrent::delta_row(state, rows, gates, &mut o[v_at..v_at + value]);
                }
                self.save(span, t + 1 - span.start, state);
            }
        }
    }

    fn run(&mut self, op: &Op, batch: &Batch<'_>) {
        let mut o = self.read(op.io().output);
        match *op {
            Op::Embed { table, ids, scale, accumulate, out } => {
                let table = &self.weights[table];
                let mut row = vec![0.0; out.width];
                for (t, o) in o.chunks_exact_mut(out.width).enumerate() {
                    let id = match ids {
                        Ids::Tokens => batch.tokens[t] as usize,
                        Ids::Positions => batch.position(t),
                        Ids::First => 0,
                    };
                    decode_row(table, id, &mut row);
                    for (o, x) in o.iter_mut().zip(&row) {
                        *o = x * scale + if accumulate { *o } else { 0.0 };
                    }
                }
            }
            Op::Norm { kind, x, each, weight, bias, eps, .. } => {
                let (weight, bias) = (self.vector(weight), self.vector(bias));
                let values = self.read(x);
                let parts = o.chunks_exact_mut(each).zip(values.chunks_exact(each));
                for (i, (o, part)) in parts.enumerate() {
                    let i = i % (x.width / each);
                    let weight = weight.map(|w| norm_part(w, each, i));
                    let bias = bias.map(|b| norm_part(b, each, i));
                    norm(kind, part, weight, bias, eps, o);
                }
            }
            Op::Linear { x, weight, bias, accumulate, .. } => {
                if !accumulate {
                    o.fill(0.0);
                }
                if let Some(bias) = self.vector(bias) {
                    for row in o.chunks_exact_mut(bias.len()) {
                        row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                    }
                }
                linear(&self.read(x), &self.weights[weight], &mut o);
            }
            Op::Add { x, scale, .. } => {
                o.iter_mut().zip(self.read(x)).for_each(|(o, x)| *o += scale * x);
            }
            Op::Map { x, f, .. } => {
                o.iter_mut().zip(self.read(x)).for_each(|(o, x)| *o = apply(f, x));
            }
            Op::Gate { gate, up, activation, .. } => {
                for ((o, g), u) in o.iter_mut().zip(self.read(gate)).zip(self.read(up)) {
                    *o = activate(activation, g) * u;
                }
            }
            Op::Attend(a) => self.attend(a, batch, &mut o),
            Op::ByPosition { x, scale, .. } => {
                for (t, (o, x)) in
                    o.chunks_exact_mut(x.width).zip(self.read(x).chunks_exact(x.width)).enumerate()
                {
                    let factor = scale.at(batch.position(t));
                    o.iter_mut().zip(x).for_each(|(o, x)| *o = factor * x);
                }
            }
            Op::Conv { .. } => self.conv(op, batch, &mut o),
            Op::Delta { .. } => self.delta(op, batch, &mut o),
            Op::Wkv { .. } => self.wkv(op, batch, &mut o),
            Op::PerHead { x, from, weight, count, to, out } => {
                let values = self.read(x);
                for i in 0..count {
                    let matrix = &self.weights[weight.after(i)];
                    let mut row = vec![0.0; matrix.cols];
                    for j in 0..matrix.rows {
                        decode_row(matrix, j, &mut row);
                        for (x, o) in values.chunks_exact(x.width).zip(o.chunks_exact_mut(out.width)) {
                            let x = &x[i * from..][..matrix.cols];
                            o[i * to + j] = row.iter().zip(x).map(|(w, x)| w * x).sum();
                        }
                    }
                }
            }
            Op::ByCall { x, single, out } => {
                let (x, single) = (self.read(x), self.read(single));
                let picked = self.program.rows(out) == Rows::Picked;
                for (t, o) in o.chunks_exact_mut(out.width).enumerate() {
                    let row = if picked { batch.picked[t] as usize } else { t };
                    let from = if batch.is_single(row) { &single } else { &x };
                    o.copy_from_slice(&from[t * out.width..][..out.width]);
                }
            }
            Op::Blend { x, towards, factor, .. } => {
                let factor = match factor {
                    Factor::Columns(id) => self.weights[id].to_vec(),
                    Factor::Each(act) => self.read(act),
                };
                let rows = self.read(x).into_iter().zip(self.read(towards)).zip(factor.iter().cycle());
                o.iter_mut().zip(rows).for_each(|(o, ((x, towards), factor))| *o = x + factor * towards);
            }
            Op::Columns { x, from, each, count, to, out } => {
                for (o, x) in o.chunks_exact_mut(out.width).zip(self.read(x).chunks_exact(x.width)) {
                    for i in 0..count {
                        o[i * to..][..each].copy_from_slice(&x[i * from..][..each]);
                    }
                }
            }
            Op::Route { logits, experts, correction, .. } => {
                let correction = self.vector(correction);
                for (o, logits) in
                    o.chunks_exact_mut(logits.width).zip(self.read(logits).chunks_exact(logits.width))
                {
                    route(&experts, logits, correction, o);
                }
            }
            Op::Experts { x, weights, gate_up, down, count, activation, on_input, work, .. } => {
                let (rows, weights) = (self.read(x), self.read(weights));
                let inputs = rows.chunks_exact(x.width).zip(weights.chunks_exact(count));
                for (o, (x, weights)) in o.chunks_exact_mut(x.width).zip(inputs) {
                    for (e, &weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                        let (before, after) = if on_input { (weight, 1.0) } else { (1.0, weight) };
                        let x: Vec<f32> = x.iter().map(|x| before * x).collect();
                        let matrix = |first: MatrixId| &self.weights[first.after(e)];
                        let mut wide = vec![0.0; 2 * work.width];
                        linear(&x, matrix(gate_up), &mut wide);
                        let (gate, up) = wide.split_at(work.width);
                        let gated: Vec<f32> =
                            gate.iter().zip(up).map(|(g, u)| activate(activation, *g) * u).collect();
                        let mut y = vec![0.0; x.len()];
                        linear(&gated, matrix(down), &mut y);
                        o.iter_mut().zip(y).for_each(|(o, y)| *o += after * y);
                    }
                }
            }
            Op::Pick { x, .. } => {
                let from = self.read(x);
                for (row, &p) in o.chunks_exact_mut(x.width).zip(batch.picked) {
                    row.copy_from_slice(&from[p as usize * x.width..][..x.width]);
                }
            }
        }
        self.write(op.io().output, &o);
    }

    /// Where the vector of one position begins.
    fn kv_at(&self, page: u32, layer: usize, value: bool, head: usize, position: usize) -> usize {
        let Kv { heads, dim } = self.program.kv[layer];
        let head = usize::from(value) * heads + head;
        self.layout.at(layer, page) + (head * PAGE + position % PAGE) * dim
    }

    fn attend(&mut self, a: Attend, batch: &Batch<'_>, o: &mut [f32]) {
        let Attend { q, k, v, heads, layer, rope, mask, scale, cap, out } = a;
        let Heads { q: queries, kv, dim } = heads;
        let kind = self.layout.kind(layer) as usize;
        let pages = |span: &Span<'_>, i: usize| span.pages[kind][i / PAGE];
        let (mut q, mut k, v) = (self.read(q), self.read(k), self.read(v));
        // As the keys that stay for ever see them.
        let mut moved = q.clone();
        for span in batch.spans {
            if let Some(rope) = rope {
                let rope = &self.program.ropes[rope];
                let back = |i: usize| span.sinks(mask, i).map_or(0, |sinks| sinks.back);
                for (x, width, moves) in [
                    (&mut q, queries * dim, false),
                    (&mut k, kv * dim, false),
                    (&mut moved, queries * dim, true),
                ] {
                    let rows = &mut x[span.start * width..][..span.len * width];
                    rotate(rope, rows, (width, dim), span, |i| if moves { back(i) } else { 0 });
                }
            }
            for i in 0..span.len {
                let (row, position) = (span.start + i, span.position + i);
                for h in 0..kv {
                    for (value, from) in [(false, &k), (true, &v)] {
                        let at = self.kv_at(pages(span, position), layer, value, h, position);
                        self.kv[at..at + dim].copy_from_slice(&from[(row * kv + h) * dim..][..dim]);
                    }
                }
            }
        }
        // The rows of the output: where each query is.
        let picked_only = self.program.rows(out) == Rows::Picked;
        let all = batch.spans.iter().flat_map(|span| (0..span.len).map(move |i| (span, i)));
        let queried = |(span, i): &(&Span<'_>, usize)| {
            !picked_only || batch.picked.binary_search(&((span.start + i) as u32)).is_ok()
        };
        let rows: Vec<(&Span<'_>, usize)> = all.filter(queried).collect();
        let one = |(span, i): (&Span<'_>, usize), o: &mut [f32]| {
            let row = span.start + i;
            let seen = span.sees(mask, i);
            let sinks = span.sinks(mask, i).map_or(0, |sinks| sinks.count);
            for (h, o) in o.chunks_exact_mut(dim).enumerate() {
                let at = (row * queries + h) * dim;
                let (query, moved) = (&q[at..][..dim], &moved[at..][..dim]);
                let key = |value: bool, p: usize| {
                    let at = self.kv_at(pages(span, p), layer, value, h / (queries / kv), p);
                    &self.kv[at..][..dim]
                };
                let seen = (0..sinks).map(|p| (moved, p)).chain(seen.clone().map(|p| (query, p)));
                attend_one(seen, key, (scale, cap), o);
            }
        };
        let threads = cores(rows.len() * queries * dim * 64);
        let per = rows.len().div_ceil(threads).max(1);
        let parts = rows.chunks(per).zip(o.chunks_mut(per * out.width)).collect();
        on_threads(parts, &|(rows, o): (&[(&Span<'_>, usize)], &mut [f32])| {
            rows.iter().zip(o.chunks_exact_mut(out.width)).for_each(|(row, o)| one(*row, o));
        });
    }
}

/// How many threads so many products are worth.
fn cores(products: usize) -> usize {
    match (cfg!(feature = "threads"), products > 1 << 20) {
        (true, true) => std::thread::available_parallelism().map_or(1, |n| n.get()),
        _ => 1,
    }
}

/// Does each part on a thread of its own, the last one on this; where the system refuses a thread, this one does its part.
fn on_threads<T: Send>(mut parts: Vec<T>, work: &(dyn Fn(T) + Sync)) {
    let Some(own) = parts.pop() else { return };
    std::thread::scope(|scope| {
        for part in parts {
            let part = std::sync::Arc::new(std::sync::Mutex::new(Some(part)));
            let take = |part: &std::sync::Mutex<Option<T>>| part.lock().ok().and_then(|mut part| part.take());
            let other = part.clone();
            let spawned = std::thread::Builder::new().spawn_scoped(scope, move || take(&other).map(work));
            if spawned.is_err() {
                take(&part).map(work);
            }
        }
        work(own);
    });
}

/// f32 values of a layer in a page.
fn layer_len(kv: &Kv) -> usize {
    2 * kv.heads * kv.dim * PAGE
}

/// One query, as each of the positions that it sees of one key head sees it.
fn attend_one<'a>(
    seen: impl Iterator<Item = (&'a [f32], usize)> + Clone,
    at: impl Fn(bool, usize) -> &'a [f32],
    (scale, cap): (f32, Option<f32>),
    o: &mut [f32],
) {
    let score = |(query, p): (&[f32], usize)| {
        let score = dot(query, at(false, p)) * scale;
        cap.map_or(score, |cap| cap * (score / cap).tanh())
    };
    let scores: Vec<f32> = seen.clone().map(score).collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
    let total = weights.iter().map(|w| f64::from(*w)).sum::<f64>() as f32;
    o.fill(0.0);
    for ((_, p), w) in seen.zip(&weights) {
        let part = w / total;
        o.iter_mut().zip(at(true, p)).for_each(|(o, v)| *o += part * v);
    }
}

/// Turns the first dimensions of each head, in rows of a span, each by so much less than its position.
fn rotate(
    rope: &Rope,
    rows: &mut [f32],
    (width, dim): (usize, usize),
    span: &Span<'_>,
    back: impl Fn(usize) -> usize,
) {
    let (half, n) = (rope.dim / 2, rope.angles());
    let frequencies = rope.frequencies(span.rope_len);
    let (mut cos, mut sin) = (vec![0.0; n], vec![0.0; n]);
    for (i, row) in rows.chunks_exact_mut(width).enumerate() {
        frequencies.at(span.position + i - back(i), &mut cos, &mut sin);
        for head in row.chunks_exact_mut(dim) {
            for j in 0..half {
                let [a, b] = rope.pairs.of(j, half);
                let other = if rope.pairs.apart() { j + half } else { j };
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos[j] - y * sin[j];
                head[b] = y * cos[other] + x * sin[other];
            }
        }
    }
}

/// Weight rows that are decoded at once, so that `x` is read from memory once for all of them.
const ROWS: usize = 8;

/// `out += x Wᵀ`, a few weight rows at a time, the rows shared among threads. Each result is one
/// [`dot`], whatever else is computed beside it.
fn linear(x: &[f32], w: &Matrix, out: &mut [f32]) {
    let n = x.len() / w.cols;
    if n == 0 {
        return;
    }
    let threads = cores(n * w.rows * w.cols);
    let per = w.rows.div_ceil(threads);
    let part = |from: usize, sums: &mut [f32]| {
        let mut weights = vec![0.0; ROWS * w.cols];
        for (block, sums) in sums.chunks_mut(ROWS * n).enumerate() {
            let rows = sums.len() / n;
            for (r, weights) in weights.chunks_exact_mut(w.cols).take(rows).enumerate() {
                decode_row(w, from + block * ROWS + r, weights);
            }
            for (t, x) in x.chunks_exact(w.cols).enumerate() {
                for (r, weights) in weights.chunks_exact(w.cols).take(rows).enumerate() {
                    sums[r * n + t] = dot(x, weights);
                }
            }
        }
    };
    // `[weight row, row]`: each thread has its own.
    let mut sums = vec![0.0; n * w.rows];
    let parts = sums.chunks_mut(per * n).enumerate().collect();
    on_threads(parts, &|(i, sums): (usize, &mut [f32])| part(i * per, sums));
    for (i, sums) in sums.chunks_exact(n).enumerate() {
        for (t, s) in sums.iter().enumerate() {
            out[t * w.rows + i] += s;
        }
    }
}

/// Sixteen running sums, so that the compiler may keep them in registers and rounding stays small.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a16.zip(b16) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}
