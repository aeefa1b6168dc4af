//! A program as dispatches: for each operation the kernels that make it, what they bind, and how many workgroups a step
//! needs of them. Made once, at load.

mod weighted;

pub use weighted::work_len;

use crate::device::Gpu;
use crate::fold::{Fold, folds};
use crate::kernels::{self, Attention, Each};
use crate::layout::{self, BASE, COUNT_ALL, COUNT_HEAD, COUNT_PICKED, Tables, ZERO};
use crate::product::Product;
use crate::weights::Uploaded;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tessera_compute::batch::PAGE;
use tessera_compute::pages::PageLayout;
use tessera_compute::program::{Act, Attend, Factor, MatrixId, NormKind, Op, Program, Rows, VectorId};
use tessera_compute::rope::Pairs;
use tessera_weights::arch::Mask;

/// Bytes between the constants of two dispatches: what every adapter can bind at.
pub const ARGS: usize = 256;
/// Stands for what is not there, in constants.
const NONE: u32 = u32::MAX;

/// What a kernel binds.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// The step's data.
    Step,
    /// A slot of activations.
    Slot(usize),
    /// All vectors.
    Vectors,
    /// Keys and values of a layer.
    Kv(usize),
    /// States.
    States,
    /// A buffer between the kernels of one operation, by index.
    Work(usize),
    /// What the parts of attention come to.
    Parts,
    /// The picked tokens.
    Ids,
    /// Part of a weight.
    Buffer(wgpu::Buffer),
}

/// How many workgroups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grid {
    /// So many for each row.
    Rows(u32),
    /// So many for every few rows, by the variant; see [`COLUMNS`].
    Columns([u32; 4]),
    /// So many for each span.
    Spans(u32),
    /// As many, of which there may be more than a dispatch is wide.
    States(u32),
    /// One for each 64 rows.
    Blocks,
    /// So many for each row and each of its experts.
    Items(u32, u32),
    /// So many for each row, where its positions are not split.
    Whole(u32),
    /// So many for each row and each part of its positions, where they are.
    Split(u32),
    /// So many for each row, which merge the parts.
    Merge(u32),
}

/// Which rows a dispatch makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// All of the batch.
    All,
    /// The picked ones.
    Picked,
    /// Those of the picked ones whose logits are made at once.
    Head,
}

/// What a dispatch has to read, besides activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reads {
    /// Nothing much.
    Little,
    /// So many bytes of weights.
    Weights(usize),
    /// So many bytes of weights for each row.
    Rows(usize),
    /// So many bytes of keys and values for each position that is seen.
    Cache(Mask, usize),
}

/// One kernel of a step, in one variant or one for each of [`COLUMNS`].
pub struct Dispatch {
    /// The weight that it reads, without its layer, or the operation.
    pub label: String,
    /// What it has to read.
    pub reads: Reads,
    /// The pipelines, one for each variant.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// What they bind, but for the constants at 0.
    pub bound: Vec<(u32, Bound)>,
    /// Where its constants are.
    pub args: usize,
    /// How many workgroups.
    pub grid: Grid,
    /// Of which rows.
    pub count: Count,
}

/// A pipeline, made when it is first used: a driver takes a while for each, and a step needs one variant of a product.
/// Layers share it.
pub struct Pipeline {
    text: String,
    made: OnceLock<wgpu::ComputePipeline>,
}

impl Pipeline {
    fn new(text: String) -> Arc<Pipeline> {
        Arc::new(Pipeline { text, made: OnceLock::new() })
    }

    /// It.
    pub fn get(&self, gpu: &Gpu) -> &wgpu::ComputePipeline {
        self.made.get_or_init(|| gpu.pipeline(&self.text))
    }
}

/// What there is to do, and the sizes of what it needs.
pub struct Plan {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// The first of the head.
    pub head: usize,
    /// The last: the largest logit.
    pub argmax: Option<Dispatch>,
    /// All constants.
    pub args: Vec<u8>,
    /// Values in a row of each slot, padded; those that the program has first.
    pub strides: Vec<usize>,
    /// Which rows each has.
    pub rows: Vec<Count>,
    /// Bytes for each row of the buffers between kernels.
    pub work: Vec<usize>,
    /// Bytes of one part of a row.
    pub part: usize,
}

/// Makes one.
pub struct Planner<'a> {
    pub program: &'a Program,
    pub weights: &'a [Uploaded],
    /// Where each vector begins.
    pub vectors: &'a [usize],
    pub tables: &'a Tables,
    pub pages: &'a PageLayout,
    /// Whether keys and values are halves.
    pub halves: bool,
    /// Products of a few rows at once are made of as many rows of the matrix a lane.
    pub outputs: [usize; 4],
    /// Whether norms and gates are made by products.
    pub folded: bool,
    /// Rows of the matrix a lane where many rows of the input go through the workgroup's memory, if they do.
    pub staged: Option<usize>,
    pub plan: Plan,
    /// Whether the operation is one of the head.
    pub in_head: bool,
    /// Those that there are, by their text.
    pub pipelines: HashMap<String, Arc<Pipeline>>,
    /// Those of products: their texts are long.
    pub products: Vec<(Product, Arc<Pipeline>)>,
}

/// Constants of one dispatch, word after word.
#[derive(Default)]
struct Args(Vec<u32>);

impl Args {
    fn u(mut self, values: impl IntoIterator<Item = usize>) -> Args {
        self.0.extend(values.into_iter().map(|v| u32::try_from(v).unwrap_or(NONE)));
        self
    }
    fn f(mut self, value: f32) -> Args {
        self.0.push(value.to_bits());
        self
    }
}

const MISSING: usize = NONE as usize;

impl Planner<'_> {
    /// All of it.
    pub fn run(mut self) -> Plan {
        if !self.program.states.is_empty() {
            let len = self.program.state_len();
            let bound = vec![(1, Bound::Step), (3, Bound::States)];
            self.push(
                "states",
                kernels::states(),
                bound,
                Args::default().u([len]),
                Grid::States(blocks(len)),
                Count::All,
            );
        }
        let whole = |id: MatrixId| {
            let uploaded = &self.weights[id.weight];
            uploaded.windows.len() == 1 && uploaded.cols.is_multiple_of(uploaded.group())
        };
        let folds = match self.folded {
            true => folds(self.program, whole),
            false => vec![Fold::default(); self.program.ops.len()],
        };
        for (i, (op, fold)) in self.program.ops.iter().zip(folds).enumerate() {
            if i == self.program.head {
                (self.plan.head, self.in_head) = (self.plan.dispatches.len(), true);
            }
            self.op(op, fold);
        }
        if !self.in_head {
            self.plan.head = self.plan.dispatches.len();
        }
        if let Some(logits) = self.program.logits {
            let stride = self.plan.strides[logits.slot.0];
            let args = Args::default().u([COUNT_HEAD, BASE, logits.width, stride]);
            let bound = vec![(1, Bound::Step), (2, Bound::Slot(logits.slot.0)), (3, Bound::Ids)];
            self.push("argmax", kernels::argmax(), bound, args, Grid::Rows(1), Count::Head);
            self.plan.argmax = self.plan.dispatches.pop();
        }
        self.plan
    }

    fn push(
        &mut self,
        name: &'static str,
        text: String,
        bound: Vec<(u32, Bound)>,
        args: Args,
        grid: Grid,
        count: Count,
    ) {
        let pipeline = self.pipelines.get(&text).cloned().unwrap_or_else(|| {
            let pipeline = Pipeline::new(text.clone());
            self.pipelines.insert(text, pipeline.clone());
            pipeline
        });
        self.push_variants(name, vec![pipeline], bound, args, grid, count);
    }

    fn push_variants(
        &mut self,
        name: &'static str,
        pipelines: Vec<Arc<Pipeline>>,
        bound: Vec<(u32, Bound)>,
        args: Args,
        grid: Grid,
        count: Count,
    ) {
        let at = self.plan.args.len();
        self.plan.args.extend(args.0.iter().flat_map(|word| word.to_le_bytes()));
        self.plan.args.resize(at + ARGS, 0);
        let (label, reads) = (name.to_owned(), Reads::Little);
        self.plan.dispatches.push(Dispatch { label, reads, pipelines, bound, args: at, grid, count });
    }

    /// Says what the last dispatch reads.
    fn reads(&mut self, weight: Option<MatrixId>, reads: Reads) {
        let Some(last) = self.plan.dispatches.last_mut() else { return };
        last.reads = reads;
        if let Some(weight) = weight {
            last.label = layerless(&self.program.weights[weight.weight].name);
        }
    }

    fn stride(&self, act: Act) -> usize {
        self.plan.strides[act.slot.0]
    }

    /// Which rows an operation that writes this activation makes, and the word of the step that says how many.
    fn count(&self, out: Act) -> (Count, usize) {
        match self.plan.rows[out.slot.0] {
            Count::All => (Count::All, COUNT_ALL),
            _ if self.in_head => (Count::Head, COUNT_HEAD),
            _ => (Count::Picked, COUNT_PICKED),
        }
    }

    /// The word that says at which row of an activation the first row of an operation is: the logits hold those that are
    /// made at once, what the head reads those of all picked rows.
    fn base(&self, act: Act) -> usize {
        let logits = self.program.logits.is_some_and(|logits| logits.slot == act.slot);
        if self.in_head && !logits { BASE } else { ZERO }
    }

    fn vector(&self, id: Option<VectorId>) -> usize {
        id.map_or(MISSING, |id| self.vectors[id.0])
    }

    /// An activation that is not in the slot of another: itself, or a copy.
    fn apart(&mut self, x: Act, from: Act) -> Act {
        if x.slot != from.slot {
            return x;
        }
        self.plan.strides.push(x.width.next_multiple_of(8));
        self.plan.rows.push(self.plan.rows[x.slot.0]);
        let copy = Act {
            slot: tessera_compute::program::Slot(self.plan.strides.len() - 1),
            from: 0,
            width: x.width,
        };
        self.each("copy", Each::Copy, [Some(x), None, None], copy, Extra::default());
        copy
    }

    fn each(&mut self, name: &'static str, op: Each, inputs: [Option<Act>; 3], out: Act, extra: Extra) {
        let (count, word) = self.count(out);
        let shares = inputs.map(|x| x.is_some_and(|x| x.slot == out.slot));
        let mut bound = vec![(1, Bound::Step), (3, Bound::Slot(out.slot.0))];
        for ((x, shares), binding) in inputs.iter().zip(shares).zip([2, 5, 6]) {
            if let (Some(x), false) = (x, shares) {
                bound.push((binding, Bound::Slot(x.slot.0)));
            }
        }
        if op == Each::BlendColumns {
            bound.push((4, Bound::Vectors));
        }
        let place = |x: Option<Act>| x.map_or([0, 0], |x| [x.from, self.stride(x)]);
        let base = inputs[0].map_or(ZERO, |x| self.base(x));
        let width = extra.width.unwrap_or(out.width);
        let args = Args::default()
            .u([word, base, width, out.from, self.stride(out), self.base(out)])
            .u(place(inputs[0]))
            .u(place(inputs[1]))
            .u(place(inputs[2]))
            .u([extra.vector])
            .f(extra.scalar)
            .u([
                extra.part.unwrap_or(width),
                extra.x_step,
                extra.out_step,
                usize::from(extra.picked),
                extra.table,
            ]);
        self.push(name, kernels::each(op, shares), bound, args, Grid::Rows(blocks(width)), count);
    }

    fn op(&mut self, op: &Op, fold: Fold) {
        if fold.made {
            return;
        }
        let name = op.name();
        let plain = Extra::default();
        match *op {
            Op::Embed { table, ids, scale, accumulate, out } => {
                self.embed(table, ids, scale, accumulate, out)
            }
            Op::Norm { kind, x, each, weight, bias, eps, out } => {
                let (count, word) = self.count(out);
                let shares = x.slot == out.slot;
                let mut bound = vec![(1, Bound::Step), (3, Bound::Slot(out.slot.0)), (4, Bound::Vectors)];
                if !shares {
                    bound.push((2, Bound::Slot(x.slot.0)));
                }
                let step = |id: Option<VectorId>| match id {
                    Some(id) if self.program.vectors[id.0].len() != each => each,
                    _ => 0,
                };
                let args = Args::default()
                    .u([word, self.base(x), x.from, self.stride(x), out.from, self.stride(out), each])
                    .u([self.vector(weight), step(weight), self.vector(bias), step(bias)])
                    .f(eps)
                    .u([self.base(out)]);
                let text = kernels::norm(kind == NormKind::Layer, shares);
                self.push(name, text, bound, args, Grid::Rows((x.width / each) as u32), count);
            }
            Op::Linear { x, weight, bias, accumulate, out } => {
                let (x, out) = (fold.norm.map_or(x, |(x, ..)| x), fold.gate.map_or(out, |(_, out)| out));
                let x = self.apart(x, out);
                let rows = self.program.weights[weight.weight].rows;
                let made = if fold.gate.is_some() { rows / 2 } else { rows };
                self.product(name, [x, out], weight, made, (bias, accumulate), (made, 0, 0), fold);
            }
            Op::PerHead { x, from, weight, count, to, out } => {
                let each = self.program.weights[weight.weight].rows;
                self.product(name, [x, out], weight, each * count, (None, false), (each, from, to), fold);
            }
            Op::Add { x, scale, out } => {
                self.each(name, Each::Add, [Some(x), None, None], out, Extra { scalar: scale, ..plain });
            }
            Op::Map { x, f, out } => self.each(name, Each::Map(f), [Some(x), None, None], out, plain),
            Op::Gate { gate, up, activation, out } => {
                self.each(name, Each::Gate(activation), [Some(gate), Some(up), None], out, plain);
            }
            Op::ByPosition { x, scale, out } => {
                let table = self.tables.position(scale);
                self.each(name, Each::ByPosition, [Some(x), None, None], out, Extra { table, ..plain });
            }
            Op::Blend { x, towards, factor: Factor::Columns(id), out } => {
                let vector = self.vectors[id.0];
                let inputs = [Some(x), Some(towards), None];
                self.each(name, Each::BlendColumns, inputs, out, Extra { vector, ..plain });
            }
            Op::Blend { x, towards, factor: Factor::Each(factor), out } => {
                self.each(name, Each::BlendEach, [Some(x), Some(towards), Some(factor)], out, plain);
            }
            Op::Columns { x, from, each, count, to, out } => {
                let extra = Extra {
                    width: Some(each * count),
                    part: Some(each),
                    x_step: from,
                    out_step: to,
                    ..plain
                };
                self.each(name, Each::Copy, [Some(x), None, None], out, extra);
            }
            Op::ByCall { x, single, out } => {
                // Rows of the batch, or the picked ones: their flags are looked up by the row of the batch.
                let vector = usize::from(self.plan.rows[out.slot.0] != Count::All);
                self.each(name, Each::ByCall, [Some(x), Some(single), None], out, Extra { vector, ..plain });
            }
            Op::Pick { x, out } => {
                self.each(name, Each::Copy, [Some(x), None, None], out, Extra { picked: true, ..plain });
            }
            Op::Attend(a) => self.attend(a),
            Op::Conv { x, weight, kernel, state, activation, out } => {
                let x = self.apart(x, out);
                let args = Args::default()
                    .u([x.from, self.stride(x), out.from, self.stride(out), x.width, self.vectors[weight.0]])
                    .u([self.program.state_at(state).start, self.program.state_len()]);
                let bound = vec![
                    (1, Bound::Step),
                    (2, Bound::Slot(x.slot.0)),
                    (3, Bound::Slot(out.slot.0)),
                    (4, Bound::Vectors),
                    (5, Bound::States),
                ];
                let text = kernels::conv(kernel, activation);
                self.push(name, text, bound, args, Grid::Spans(blocks(x.width)), Count::All);
            }
            Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state, out } => {
                let [q, k, v, a, mut b] = [q, k, v, a, b].map(|x| self.apart(x, out));
                let mut a = a;
                if a.slot != b.slot {
                    // Both gates are read from one buffer.
                    (a, b) = self.together(a, b);
                }
                let places = [q, k, v, a, b, out].map(|x| [x.from, self.stride(x)]);
                let args = Args::default()
                    .u(places.into_iter().flatten())
                    .u([self.vectors[a_log.0], self.vectors[dt_bias.0]])
                    .u([self.program.state_at(state).start, self.program.state_len()]);
                let slots =
                    [(2, q), (3, out), (6, k), (7, v), (8, a)].map(|(i, x)| (i, Bound::Slot(x.slot.0)));
                let mut bound = vec![(1, Bound::Step), (4, Bound::Vectors), (5, Bound::States)];
                bound.extend(slots);
                let text = kernels::delta([heads.keys, heads.values, heads.key, heads.value]);
                let grid = Grid::Spans(blocks(heads.values * heads.value));
                self.push(name, text, bound, args, grid, Count::All);
            }
            Op::Wkv { r, k, v, decay, bonus, heads, state, out } => {
                let [r, k, v, decay] = [r, k, v, decay].map(|x| self.apart(x, out));
                let width = heads.count * heads.dim;
                let places = [r, k, v, decay, out].map(|x| [x.from, self.stride(x)]);
                let args = Args::default().u(places.into_iter().flatten()).u([
                    self.vectors[bonus.0],
                    self.program.state_at(state).start,
                    self.program.state_len(),
                    width,
                ]);
                let slots =
                    [(2, r), (3, out), (6, k), (7, v), (8, decay)].map(|(i, x)| (i, Bound::Slot(x.slot.0)));
                let mut bound = vec![(1, Bound::Step), (4, Bound::Vectors), (5, Bound::States)];
                bound.extend(slots);
                self.push(name, kernels::wkv(heads.dim), bound, args, Grid::Spans(blocks(width)), Count::All);
            }
            Op::Route { logits, experts, correction, out } => {
                let x = self.apart(logits, out);
                let (count, word) = self.count(out);
                let args = Args::default()
                    .u([word, self.base(x), x.from, self.stride(x), out.from, self.stride(out)])
                    .u([self.vector(correction)])
                    .f(experts.scale);
                let bound = vec![
                    (1, Bound::Step),
                    (2, Bound::Slot(x.slot.0)),
                    (3, Bound::Slot(out.slot.0)),
                    (4, Bound::Vectors),
                ];
                self.push(name, kernels::route(&experts), bound, args, Grid::Blocks, count);
            }
            Op::Experts { .. } => self.experts(op),
        }
    }

    /// Copies of two activations beside each other.
    fn together(&mut self, a: Act, b: Act) -> (Act, Act) {
        let width = a.width + b.width;
        self.plan.strides.push(width.next_multiple_of(8));
        self.plan.rows.push(self.plan.rows[a.slot.0]);
        let both = Act { slot: tessera_compute::program::Slot(self.plan.strides.len() - 1), from: 0, width };
        let (left, right) = (both.part(0, a.width), both.part(a.width, b.width));
        self.each("copy", Each::Copy, [Some(a), None, None], left, Extra::default());
        self.each("copy", Each::Copy, [Some(b), None, None], right, Extra::default());
        (left, right)
    }

    fn attend(&mut self, a: Attend) {
        let Attend { q, k, v, heads, layer, rope, mask, scale, cap, out } = a;
        let q = self.apart(q, out);
        let of = rope.map(|rope| &self.program.ropes[rope]);
        let sinks = matches!(mask, Mask::Cache { .. });
        let attention = Attention {
            dim: heads.dim,
            turned: of.map_or(0, |rope| rope.dim),
            neighbours: of
                .is_some_and(|rope| matches!(rope.pairs, Pairs::Neighbours | Pairs::NeighboursApart)),
            halves: self.halves,
            sinks,
        };
        let kind = self.pages.kind(layer) as usize;
        let page = layout::layer_words(&self.program.kv[layer], self.halves);
        let turns = rope.map_or(ZERO, |rope| self.tables.turn(rope, None));
        let moved = rope.map_or(ZERO, |rope| if sinks { self.tables.turn(rope, Some(mask)) } else { ZERO });
        let args =
            Args::default().u([k.from, self.stride(k), v.from, self.stride(v), heads.kv, kind, turns, page]);
        let bound = vec![
            (1, Bound::Step),
            (2, Bound::Slot(k.slot.0)),
            (3, Bound::Kv(layer)),
            (5, Bound::Slot(v.slot.0)),
        ];
        let grid = Grid::Rows(blocks(heads.kv * heads.dim / 2));
        self.push("append", attention.append(), bound, args, grid, Count::All);
        let (count, word) = self.count(out);
        let picked = usize::from(count != Count::All);
        let seen = self.tables.seen(mask);
        let place = |to: [usize; 2]| {
            Args::default()
                .u([word, ZERO, q.from, self.stride(q), to[0], to[1], heads.kv, heads.q / heads.kv])
                .u([kind, turns, moved, page, seen, picked])
                .f(scale)
                .f(cap.unwrap_or(0.0))
                .u([heads.q])
        };
        let places = [place([out.from, self.stride(out)]), place([0, 0])];
        let merge = Args::default().u([word, ZERO, out.from, self.stride(out), heads.q, seen, picked]);
        let n = heads.q as u32;
        self.plan.part = self.plan.part.max(heads.q * (heads.dim + 2) * 4);
        let to = [(Bound::Slot(out.slot.0), Grid::Whole(n)), (Bound::Parts, Grid::Split(n))];
        for (i, (args, (to, grid))) in places.into_iter().zip(to).enumerate() {
            let bound = vec![(1, Bound::Step), (2, Bound::Slot(q.slot.0)), (3, to), (5, Bound::Kv(layer))];
            self.push("attend", attention.attend(i == 1), bound, args, grid, count);
            self.reads(None, Reads::Cache(mask, page * 4 / PAGE));
        }
        let bound = vec![(1, Bound::Step), (2, Bound::Parts), (3, Bound::Slot(out.slot.0))];
        self.push("attend", attention.merge(), bound, merge, Grid::Merge(n), count);
    }
}

/// The name of a weight without its model and layer, `mlp.down_proj`.
fn layerless(name: &str) -> String {
    let parts: Vec<&str> = name.trim_end_matches(".weight").split('.').collect();
    match parts.iter().rposition(|part| part.parse::<u32>().is_ok()) {
        Some(layer) => parts[layer + 1..].join("."),
        None => parts.last().copied().unwrap_or(name).to_owned(),
    }
}

/// What an elementwise operation has besides its inputs.
#[derive(Clone, Copy, Default)]
struct Extra {
    width: Option<usize>,
    part: Option<usize>,
    x_step: usize,
    out_step: usize,
    vector: usize,
    scalar: f32,
    picked: bool,
    table: usize,
}

/// Which rows a slot of the program has.
pub const fn rows_of(rows: Rows) -> Count {
    match rows {
        Rows::All => Count::All,
        Rows::Picked => Count::Picked,
    }
}

/// Workgroups of 64 threads for so many values.
const fn blocks(n: usize) -> u32 {
    n.div_ceil(64) as u32
}
