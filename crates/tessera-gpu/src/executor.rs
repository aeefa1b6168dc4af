//! Steps on the device: one block of data written, one pass encoded, one answer read back.

use crate::config::Config;
use crate::device::Gpu;
use crate::kernels::{self, COLUMNS};
use crate::layout::{self, COUNT_HEAD, Tables};
use crate::plan::{ARGS, Bound, Count, Dispatch, Grid, Plan, Planner, Reads, rows_of, work_len};
use crate::profile::Timing;
use crate::weights::{Uploaded, upload};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tessera_compute::backend::{Backend, Executor, LoadError, StepError};
use tessera_compute::batch::{Batch, Limits, Output, PAGE, PageKind, Pools, Span, StateUse, Want};
use tessera_compute::pages::PageLayout;
use tessera_compute::program::Program;
use tessera_compute::step::Step;
use tessera_compute::weights::Weights;
use tessera_weights::arch::Mask;

/// Rows of a step whose positions are split among workgroups, at most: more are enough by themselves.
const SPLIT_ROWS: usize = 8;

/// A device that programs are put on.
pub struct GpuBackend {
    gpu: Gpu,
    config: Config,
}

impl GpuBackend {
    /// On this device.
    pub const fn new(gpu: Gpu, config: Config) -> GpuBackend {
        GpuBackend { gpu, config }
    }
}

impl Backend for GpuBackend {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        let words = |kv: &_| layout::layer_words(kv, self.config.halves);
        PageLayout::new(program, Default::default(), words).page_len().map(|words| words * 4)
    }

    fn most(&self, program: &Program) -> Pools {
        // A layer's keys and values are one binding, and all states are.
        let words = |kv: &_| layout::layer_words(kv, self.config.halves);
        let layout = PageLayout::new(program, Default::default(), words);
        let hold = |words: usize| self.gpu.binding_limit() / words.saturating_mul(4).max(1);
        let mut pages = [usize::MAX; PageKind::COUNT];
        for (i, kv) in program.kv.iter().enumerate() {
            let most = &mut pages[layout.kind(i) as usize];
            *most = hold(words(kv)).min(*most);
        }
        Pools { pages, states: hold(program.state_len()) }
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        let slots: usize = program.slots.iter().map(|slot| slot.width.next_multiple_of(8)).sum();
        let work: usize = program.ops.iter().flat_map(|op| work_len(program, op)).sum();
        // Buffers grow by doubling, and the logits are handed out as a copy.
        let row = (slots + program.vocab).saturating_mul(size_of::<f32>()).saturating_add(work);
        rows.next_power_of_two().saturating_mul(row)
    }

    fn load(
        &self,
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        program.check()?;
        Ok(Box::new(Device::new(self.gpu.clone(), self.config, program, weights, pools)?))
    }
}

/// A step whose answer is not there yet.
struct Pending {
    want: Want,
    picked: usize,
    /// Where the answer is copied to.
    staging: wgpu::Buffer,
    bytes: usize,
    answer: Arc<Mutex<Answer>>,
}

/// What came of reading back.
#[derive(Default)]
struct Answer {
    mapped: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// Rows that buffers have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    all: usize,
    picked: usize,
    head: usize,
    step: usize,
    /// Parts of a few rows; 0 where positions are not split.
    parts: usize,
}

/// A program on a device.
pub(crate) struct Device {
    gpu: Gpu,
    config: Config,
    program: Program,
    limits: Limits,
    tables: Tables,
    layout: PageLayout,
    weights: Vec<Uploaded>,
    /// Where each vector begins.
    at: Vec<usize>,
    plan: Plan,
    copy: wgpu::ComputePipeline,
    copy_args: wgpu::Buffer,
    vectors: wgpu::Buffer,
    args: wgpu::Buffer,
    kv: Vec<wgpu::Buffer>,
    kv_len: usize,
    states: wgpu::Buffer,
    room: Room,
    step: wgpu::Buffer,
    slots: Vec<wgpu::Buffer>,
    work: Vec<wgpu::Buffer>,
    parts: wgpu::Buffer,
    ids: wgpu::Buffer,
    /// Of each dispatch and variant, made when first used; the last are those of the arg-max.
    binds: Vec<[Option<wgpu::BindGroup>; 4]>,
    staging: Option<wgpu::Buffer>,
    words: Vec<u32>,
    pending: Option<Pending>,
    /// Of the step that is under way.
    timings: Vec<Timing>,
}

impl Device {
    pub(crate) fn new(
        gpu: Gpu,
        config: Config,
        program: Program,
        source: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Device, LoadError> {
        let limit = gpu.binding_limit();
        let words = |kv: &_| layout::layer_words(kv, config.halves);
        let layout = PageLayout::new(&program, pools.pages, words);
        let fits = |bytes: usize, what: &str| match bytes <= limit {
            true => Ok(bytes),
            false => Err(LoadError::Device(format!("{what}: {bytes} bytes, a binding of it holds {limit}"))),
        };
        let mut kv = Vec::new();
        for (i, layer) in program.kv.iter().enumerate() {
            let pages = pools.pages[layout.kind(i) as usize];
            let bytes = pages.saturating_mul(words(layer)).saturating_mul(4);
            kv.push(gpu.buffer(fits(bytes, &format!("the cache of layer {i}, {pages} pages"))?));
        }
        let state = pools.states.saturating_mul(program.state_len()).saturating_mul(4);
        let states = gpu.buffer(fits(state, "the states")?);
        let kv_len = layout.len() * 4 + state;
        let mut at = Vec::with_capacity(program.vectors.len());
        let mut vectors: Vec<f32> = Vec::new();
        for vector in &program.vectors {
            at.push(vectors.len());
            vectors.extend(vector.of(source)?);
        }
        fits(vectors.len() * 4, "all norms and biases")?;
        let vectors = gpu.upload(bytemuck::cast_slice(&vectors));
        let mut uploaded = Vec::with_capacity(program.weights.len());
        for weight in &program.weights {
            uploaded.push(upload(&gpu, &weight.of(source)?));
        }
        let tables = Tables::of(&program);
        let plan = plan(&program, config, &uploaded, &at, &tables, &layout);
        let copy = gpu.pipeline(&kernels::copy_page());
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let args = args_of(&gpu, &plan);
        let copy_args = gpu.with_usage(ARGS * kv.len().max(1), uniform);
        let [step, ids, parts] = [0; 3].map(|_| gpu.buffer(16));
        gpu.queue.submit([]);
        gpu.wait();
        if let Some(what) = gpu.lost().or_else(|| gpu.fault()) {
            return Err(LoadError::Device(what));
        }
        let binds = (0..=plan.dispatches.len()).map(|_| Default::default()).collect();
        let limits = program.limits(pools);
        Ok(Device {
            gpu,
            config,
            limits,
            tables,
            layout,
            weights: uploaded,
            at,
            plan,
            copy,
            copy_args,
            vectors,
            args,
            kv,
            kv_len,
            states,
            room: Room::default(),
            step,
            slots: Vec::new(),
            work: Vec::new(),
            parts,
            ids,
            binds,
            staging: None,
            words: Vec::new(),
            pending: None,
            timings: Vec::new(),
            program,
        })
    }

    /// The same program with other kernels.
    pub(crate) fn set(&mut self, config: Config) {
        if config != self.config {
            self.config = config;
            self.plan = plan(&self.program, config, &self.weights, &self.at, &self.tables, &self.layout);
            self.args = args_of(&self.gpu, &self.plan);
            self.binds = (0..=self.plan.dispatches.len()).map(|_| Default::default()).collect();
            self.room = Room::default();
        }
    }

    /// Makes a step of so many rows that are a prompt by themselves. What the first page and state held is gone.
    pub(crate) fn try_rows(&mut self, rows: usize) -> Result<(), StepError> {
        let rows = rows.min(PAGE).min(self.program.positions());
        let (tokens, picked) = (vec![0; rows], [rows as u32 - 1]);
        let list =
            |kind: usize| if self.limits.pages[kind].is_some_and(|n| n > 0) { &[0u32][..] } else { &[] };
        let state = StateUse { from: None, to: 0, save: None };
        let span = Span {
            start: 0,
            len: rows,
            position: 0,
            rope_len: rows,
            call: Some(0),
            pages: [list(0), list(1)],
            state: (!self.program.states.is_empty()).then_some(state),
        };
        let want = if self.program.logits.is_some() { Want::Greedy } else { Want::Hidden };
        let batch = Batch { tokens: &tokens, spans: &[span], picked: &picked, want };
        self.step(Step::of(&batch), &mut Output::default())
    }

    /// Rows of the head that one binding of logits can hold.
    fn head_rows(&self) -> usize {
        let stride = self.program.logits.map_or(1, |logits| self.plan.strides[logits.slot.0]);
        (self.gpu.binding_limit() / (4 * stride)).clamp(1, self.config.head_rows)
    }

    /// How many parts positions are split into; 0 where each row goes over all of them, as many rows do.
    fn split(&self, batch: &Batch<'_>) -> usize {
        let parts = layout::parts(batch);
        let few = batch.tokens.len() <= SPLIT_ROWS;
        if self.config.split && few && parts > 1 && self.plan.part > 0 { parts } else { 0 }
    }

    /// Makes buffers larger where a step needs it. What they held is not needed any more.
    fn make_room(&mut self, batch: &Batch<'_>, words: usize) -> Result<(), StepError> {
        let grown = |now: usize, needed: usize| if needed <= now { now } else { needed.next_power_of_two() };
        let (all, picked) = (batch.tokens.len(), batch.picked.len().max(1));
        let room = Room {
            all: grown(self.room.all, all),
            picked: grown(self.room.picked, picked),
            head: grown(self.room.head, picked.min(self.head_rows())).min(self.head_rows()),
            step: grown(self.room.step, words),
            parts: grown(self.room.parts, self.split(batch)),
        };
        if room == self.room {
            return Ok(());
        }
        let logits = self.program.logits.map(|logits| logits.slot.0);
        let rows = |slot: usize| match self.plan.rows[slot] {
            Count::All => room.all,
            _ if logits == Some(slot) => room.head,
            _ => room.picked,
        };
        let sizes: Vec<usize> = self.plan.strides.iter().enumerate().map(|(i, n)| n * 4 * rows(i)).collect();
        let work: Vec<usize> = self.plan.work.iter().map(|bytes| bytes * room.all.max(room.picked)).collect();
        let parts = self.plan.part * SPLIT_ROWS * room.parts;
        let limit = self.gpu.binding_limit();
        if let Some(bytes) = sizes.iter().chain(&work).chain([&parts]).find(|bytes| **bytes > limit) {
            let what = format!("activations of {all} rows take {bytes} bytes, a binding of it holds {limit}");
            return Err(StepError::Device(what));
        }
        self.slots = sizes.into_iter().map(|bytes| self.gpu.buffer(bytes)).collect();
        self.work = work.into_iter().map(|bytes| self.gpu.buffer(bytes)).collect();
        self.parts = self.gpu.buffer(parts);
        self.ids = self.gpu.buffer(room.picked * 4);
        self.step = self.gpu.buffer(room.step * 4);
        self.binds.iter_mut().for_each(|variants| *variants = Default::default());
        self.room = room;
        Ok(())
    }

    fn bound<'a>(&'a self, bound: &'a Bound) -> &'a wgpu::Buffer {
        match bound {
            Bound::Step => &self.step,
            Bound::Slot(i) => &self.slots[*i],
            Bound::Vectors => &self.vectors,
            Bound::Kv(i) => &self.kv[*i],
            Bound::States => &self.states,
            Bound::Work(i) => &self.work[*i],
            Bound::Parts => &self.parts,
            Bound::Ids => &self.ids,
            Bound::Buffer(buffer) => buffer,
        }
    }

    fn bind(&self, dispatch: &Dispatch, variant: usize) -> wgpu::BindGroup {
        let mut entries = vec![bound_args(&self.args, dispatch.args)];
        for (binding, bound) in &dispatch.bound {
            entries.push(wgpu::BindGroupEntry {
                binding: *binding,
                resource: self.bound(bound).as_entire_binding(),
            });
        }
        self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.label),
            layout: &dispatch.pipelines[variant].get(&self.gpu).get_bind_group_layout(0),
            entries: &entries,
        })
    }

    /// Encodes some dispatches as one pass; `head`: how many rows of the head there are.
    fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        part: std::ops::Range<usize>,
        batch: &Batch<'_>,
        head: usize,
    ) {
        let mut jobs = Vec::with_capacity(part.len());
        let split = self.split(batch) as u32;
        for i in part {
            let dispatch = self.plan.dispatches.get(i).or(self.plan.argmax.as_ref());
            let Some(dispatch) = dispatch else { continue };
            let rows = match dispatch.count {
                Count::All => batch.tokens.len(),
                Count::Picked => batch.picked.len(),
                Count::Head => head,
            };
            if rows == 0 {
                continue;
            }
            let (variant, x, y) = match dispatch.grid {
                Grid::Rows(x) => (0, x, rows as u32),
                Grid::Columns(x) => {
                    let fits = COLUMNS.iter().position(|c| rows <= *c);
                    let variant = fits.unwrap_or(COLUMNS.len() - 1);
                    (variant, x[variant], rows.div_ceil(COLUMNS[variant]) as u32)
                }
                Grid::Spans(x) | Grid::States(x) => (0, x, batch.spans.len() as u32),
                Grid::Blocks => (0, rows.div_ceil(64) as u32, 1),
                Grid::Items(x, each) => (0, x, rows as u32 * each),
                Grid::Whole(x) if split == 0 => (0, x, rows as u32),
                Grid::Split(x) | Grid::Merge(x) if split > 0 => (0, x, rows as u32),
                Grid::Whole(_) | Grid::Split(_) | Grid::Merge(_) => continue,
            };
            if self.binds[i][variant].is_none() {
                self.binds[i][variant] = Some(self.bind(dispatch, variant));
            }
            // A dispatch is at most 65,535 wide. What kernels that do not look at `z` need beyond is wgpu's error.
            let z = match dispatch.grid {
                Grid::Columns(_) | Grid::States(_) => x.div_ceil(65535),
                _ => 1,
            };
            let z = if let Grid::Split(_) = dispatch.grid { split } else { z };
            let x = if let Grid::Split(_) = dispatch.grid { x } else { x.div_ceil(z) };
            jobs.push((i, variant, [x, y, z]));
        }
        let dispatched = |pass: &mut wgpu::ComputePass<'_>,
                          (i, variant, [x, y, z]): (usize, usize, [u32; 3])| {
            let dispatch = self.plan.dispatches.get(i).or(self.plan.argmax.as_ref());
            let (Some(dispatch), Some(bind)) = (dispatch, &self.binds[i][variant]) else { return };
            pass.set_pipeline(dispatch.pipelines[variant].get(&self.gpu));
            pass.set_bind_group(0, bind, &[]);
            pass.dispatch_workgroups(x, y, z);
        };
        let timing = self.gpu.is_profiled().then(|| self.timing(&jobs, batch)).flatten();
        let Some(timing) = timing else {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            return jobs.into_iter().for_each(|job| dispatched(&mut pass, job));
        };
        for (n, job) in jobs.into_iter().enumerate() {
            let timestamp_writes = Some(timing.pass(n));
            let desc = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            dispatched(&mut encoder.begin_compute_pass(&desc), job);
        }
        timing.end(&self.gpu, encoder);
        self.timings.push(timing);
    }

    /// What times these dispatches.
    fn timing(&self, jobs: &[(usize, usize, [u32; 3])], batch: &Batch<'_>) -> Option<Timing> {
        let seen = |mask: Mask| -> usize {
            // The rows of a span see much the same, which is read once.
            batch.spans.iter().map(|span| span.sees(mask, span.len - 1).len()).sum()
        };
        let of = |dispatch: &Dispatch, rows: u32| {
            let bytes = match dispatch.reads {
                Reads::Little => 0,
                Reads::Weights(bytes) => bytes,
                Reads::Rows(bytes) => bytes * rows as usize,
                Reads::Cache(mask, bytes) => bytes * seen(mask),
            };
            (dispatch.label.clone(), bytes as u64)
        };
        let all = jobs.iter().filter_map(|(i, _, [_, y, _])| {
            let dispatch = self.plan.dispatches.get(*i).or(self.plan.argmax.as_ref())?;
            Some(of(dispatch, *y))
        });
        Timing::new(&self.gpu, all.collect())
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<Pending, StepError> {
        batch.check(self.limits)?;
        let mut words = std::mem::take(&mut self.words);
        self.tables.write(&self.program, batch, &mut words);
        self.make_room(batch, words.len())?;
        let picked = batch.picked.len();
        let (want, end) = (batch.want, self.plan.dispatches.len());
        let group = self.head_rows();
        let first = picked.min(group);
        words[COUNT_HEAD..COUNT_HEAD + 2].copy_from_slice(&Tables::head(0, first));
        self.gpu.queue.write_buffer(&self.step, 0, bytemuck::cast_slice(&words));
        self.words = words;
        let hidden = self.program.hidden;
        let row = 4 * match want {
            Want::Hidden => self.plan.strides[hidden.slot.0],
            Want::Logits => self.program.logits.map_or(0, |logits| self.plan.strides[logits.slot.0]),
            Want::Greedy => 1,
        };
        let bytes = row * picked;
        let staging = self.staging(bytes);
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        if want == Want::Hidden || picked == 0 {
            self.encode(&mut encoder, 0..self.plan.head, batch, 0);
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(&self.slots[hidden.slot.0], 0, &staging, 0, bytes as u64);
            }
        } else {
            for from in (0..picked).step_by(group) {
                let count = group.min(picked - from);
                if from > 0 {
                    self.gpu.queue.submit([encoder.finish()]);
                    let head = Tables::head(from, count);
                    let at = (COUNT_HEAD * 4) as u64;
                    self.gpu.queue.write_buffer(&self.step, at, bytemuck::cast_slice(&head));
                    encoder =
                        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                }
                let last = if want == Want::Greedy { end + 1 } else { end };
                let begin = if from == 0 { 0 } else { self.plan.head };
                self.encode(&mut encoder, begin..last, batch, count);
                if let (Want::Logits, Some(logits)) = (want, self.program.logits) {
                    let (at, len) = ((from * row) as u64, (count * row) as u64);
                    encoder.copy_buffer_to_buffer(&self.slots[logits.slot.0], 0, &staging, at, len);
                }
            }
            if want == Want::Greedy {
                encoder.copy_buffer_to_buffer(&self.ids, 0, &staging, 0, bytes as u64);
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
        let answer = Arc::new(Mutex::new(Answer::default()));
        let told = answer.clone();
        staging.map_async(wgpu::MapMode::Read, ..(bytes.max(4) as u64), move |mapped| {
            let waker = told.lock().ok().and_then(|mut answer| {
                answer.mapped = Some(mapped);
                answer.waker.take()
            });
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Ok(Pending { want, picked, staging, bytes, answer })
    }

    /// A buffer to read back from; the last one, where it is large enough.
    fn staging(&mut self, bytes: usize) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        match self.staging.take() {
            Some(buffer) if buffer.size() >= bytes as u64 => buffer,
            _ => self.gpu.with_usage(bytes.next_power_of_two(), usage),
        }
    }

    /// What was read.
    fn answer(&self, pending: &Pending, out: &mut Output) -> Result<(), StepError> {
        out.clear();
        let device = |e: wgpu::MapRangeError| StepError::Device(e.to_string());
        let view = pending.staging.get_mapped_range(..pending.bytes.max(4) as u64).map_err(device)?;
        let bytes = &view[..pending.bytes];
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        match pending.want {
            Want::Greedy => out.tokens.extend(bytes.chunks_exact(4).map(|b| {
                let id = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                (id != u32::MAX).then_some(id)
            })),
            Want::Logits | Want::Hidden => {
                let act = self.program.result(pending.want);
                let into = if pending.want == Want::Logits { &mut out.logits } else { &mut out.hidden };
                into.reserve(pending.picked * act.width);
                for row in bytes.chunks_exact(4 * self.plan.strides[act.slot.0]) {
                    into.extend(row[4 * act.from..4 * (act.from + act.width)].chunks_exact(4).map(value));
                }
            }
        }
        Ok(())
    }

    fn trouble(&self) -> Option<StepError> {
        self.gpu.lost().map(StepError::Lost).or_else(|| self.gpu.fault().map(StepError::Device))
    }
}

impl Executor for Device {
    fn begin(&mut self, step: Step) -> Result<(), StepError> {
        if self.pending.is_some() {
            return Err(StepError::Order("the last one is not made yet"));
        }
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        self.pending = Some(step.with(|batch| self.submit(batch))?);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Poll<Result<(), StepError>> {
        let Some(pending) = self.pending.take() else {
            return Poll::Ready(Err(StepError::Order("none was begun")));
        };
        // Outside a browser nobody else asks the driver, so the caller waits here.
        self.gpu.wait();
        let mapped = match pending.answer.lock() {
            Ok(mut answer) => {
                answer.waker = Some(cx.waker().clone());
                answer.mapped.take()
            }
            Err(_) => Some(Err(wgpu::BufferAsyncError)),
        };
        let trouble = self.trouble();
        let result = match (mapped, trouble) {
            (_, Some(trouble)) => Err(trouble),
            (None, None) => {
                self.pending = Some(pending);
                return Poll::Pending;
            }
            // In a browser this is heard before the loss.
            (Some(Err(e)), None) => Err(StepError::Lost(e.to_string())),
            (Some(Ok(())), None) => {
                let answer = self.answer(&pending, out);
                pending.staging.unmap();
                self.staging = Some(pending.staging);
                for timing in std::mem::take(&mut self.timings) {
                    self.gpu.profile(|profile| timing.read(&self.gpu, profile));
                }
                answer
            }
        };
        Poll::Ready(result)
    }

    fn copy_page(&mut self, kind: PageKind, from: u32, to: u32) {
        for page in [from, to] {
            // Panics where the page is not in the pool, as the others do.
            self.layout.page(kind, page);
        }
        let layers: Vec<usize> = (0..self.kv.len()).filter(|i| self.layout.kind(*i) == kind).collect();
        let len = |layer: usize| layout::layer_words(&self.program.kv[layer], self.config.halves) as u32;
        let mut args = vec![0u32; ARGS / 4 * self.kv.len()];
        for &layer in &layers {
            let len = len(layer);
            args[ARGS / 4 * layer..][..3].copy_from_slice(&[from * len, to * len, len]);
        }
        self.gpu.queue.write_buffer(&self.copy_args, 0, bytemuck::cast_slice(&args));
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.copy);
            for layer in layers {
                let args = bound_args(&self.copy_args, ARGS * layer);
                let kv = self.kv[layer].as_entire_binding();
                let bind = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("copy page"),
                    layout: &self.copy.get_bind_group_layout(0),
                    entries: &[args, wgpu::BindGroupEntry { binding: 3, resource: kv }],
                });
                pass.set_bind_group(0, &bind, &[]);
                pass.dispatch_workgroups(len(layer).div_ceil(64), 1, 1);
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
    }

    fn kv_len(&self) -> usize {
        self.kv_len
    }

    fn describe(&self) -> String {
        let d = self.gpu.describe();
        let plain = if self.config.folded { "" } else { ", plain kernels" };
        format!("gpu: {}, {}, {}{plain}", d.name, d.api, d.driver)
    }
}

fn plan(
    program: &Program,
    config: Config,
    weights: &[Uploaded],
    vectors: &[usize],
    tables: &Tables,
    pages: &PageLayout,
) -> Plan {
    let plan = Plan {
        dispatches: Vec::new(),
        head: 0,
        argmax: None,
        args: Vec::new(),
        strides: program.slots.iter().map(|slot| slot.width.next_multiple_of(8)).collect(),
        rows: program.slots.iter().map(|slot| rows_of(slot.rows)).collect(),
        work: Vec::new(),
        part: 0,
    };
    let planner = Planner {
        program,
        weights,
        vectors,
        tables,
        pages,
        halves: config.halves,
        outputs: config.outputs,
        folded: config.folded,
        staged: config.staged,
        plan,
        in_head: false,
        pipelines: Default::default(),
        products: Default::default(),
    };
    planner.run()
}

fn args_of(gpu: &Gpu, plan: &Plan) -> wgpu::Buffer {
    let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let args = gpu.with_usage(plan.args.len().max(ARGS), uniform);
    gpu.queue.write_buffer(&args, 0, &plan.args);
    args
}

/// Constants of one dispatch.
fn bound_args(buffer: &wgpu::Buffer, at: usize) -> wgpu::BindGroupEntry<'_> {
    let size = std::num::NonZeroU64::new(ARGS as u64);
    let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: at as u64, size });
    wgpu::BindGroupEntry { binding: 0, resource }
}
