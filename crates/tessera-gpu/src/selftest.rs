//! Whether an adapter computes what the kernels say: small programs, operation by operation, against the reference. Drivers
//! that are silently wrong are the commonest fault of engines on GPUs.

mod own;

pub use own::of;

use std::fmt::{self, Write as _};
use std::future::poll_fn;
use tessera_compute::backend::{Backend, Executor};
use tessera_compute::batch::{Batch, Output, PAGE, Pools, Save, Span, StateUse, Want};
use tessera_compute::program::{Attend, Heads, Ids, Mask, NormKind, Op, Program, Rows};
use tessera_compute::reference::Reference;
use tessera_compute::rope::{Pairs, Rope};
use tessera_compute::step::Step;
use tessera_compute::weights::InMemory;
use tessera_weights::bytes::Bytes;
use tessera_weights::config::{Activation, RopeScaling};
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Form, Matrix, MatrixData};

/// How far f32 sums may be off, of the largest value of the result.
const TOLERANCE: f32 = 2e-5;
/// The same where keys and values are halves.
const TOLERANCE_OF_HALVES: f32 = 2e-3;

/// Of norms: so large that it is missed where it is left out.
const EPS: f32 = 1e-2;

/// One small program.
pub struct Case {
    /// What it is.
    pub name: String,
    program: Program,
    weights: InMemory,
    /// Rows of the batch.
    rows: usize,
}

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let mut forms: Vec<Form> = [DType::F32, DType::F16, DType::BF16].map(Form::Dense).to_vec();
    for (format, layout, scale) in [
        (GroupFormat::INT4, Layout::Nk, DType::F16),
        (GroupFormat::INT4, Layout::Nk, DType::BF16),
        (GroupFormat::INT4, Layout::Nk, DType::F32),
        (GroupFormat::INT4, Layout::Kn, DType::F16),
        (GroupFormat::INT3, Layout::Nk, DType::F16),
        (GroupFormat::INT3, Layout::Kn, DType::F16),
    ] {
        forms.push(Form::Grouped { format, layout, scale });
    }
    for form in forms {
        for (n, k, rows) in [(1, 40, 1), (7, 160, 2), (65, 320, 3), (1001, 1280, 8), (130, 320, 19)] {
            out.push(linear(form, [n, k], rows, Inputs::Uniform));
        }
        out.push(linear(form, [65, 320], 4, Inputs::Outliers));
        for k in [320, 328] {
            out.push(linear(form, [7, k], 2, Inputs::Nan));
        }
        out.push(biased(form, [7, 160], 2));
        out.push(embed(form, 160, 3));
    }
    for (kind, width, each) in
        [(NormKind::Rms, 576, 576), (NormKind::Layer, 130, 65), (NormKind::Rms, 4096, 4096)]
    {
        out.push(norm(kind, width, each));
    }
    for activation in Activation::EACH {
        out.push(gate(activation));
    }
    for form in [
        Form::Dense(DType::F32),
        Form::Grouped { format: GroupFormat::INT4, layout: Layout::Nk, scale: DType::F16 },
        Form::Grouped { format: GroupFormat::INT3, layout: Layout::Kn, scale: DType::F16 },
    ] {
        for (width, hidden, rows) in [(32, 5, 1), (640, 33, 2), (1280, 130, 3), (640, 130, 8), (960, 65, 19)]
        {
            out.push(feed_forward(form, [width, hidden], rows, Inputs::Uniform));
        }
        out.push(feed_forward(form, [640, 33], 8, Inputs::Outliers));
    }
    for rows in [1, 63, 64, 65, 513] {
        out.push(attend(rows, Heads { q: 4, kv: 2, dim: 16 }, Mask::Causal, Some(Pairs::Halves)));
    }
    out.push(attend(1100, Heads { q: 2, kv: 2, dim: 72 }, Mask::Window(520), Some(Pairs::Halves)));
    out.push(attend(130, Heads { q: 3, kv: 1, dim: 72 }, Mask::Window(33), Some(Pairs::Neighbours)));
    for rows in [65, 520] {
        out.push(attend(rows, Heads { q: 2, kv: 1, dim: 16 }, Mask::Causal, None));
    }
    out
}

/// Kinds of inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inputs {
    Uniform,
    /// One of 1e5 in each row.
    Outliers,
    /// Zeros, and one NaN in the first column of the last row: right behind the row before.
    Nan,
    /// Multiples of an eighth, which halves hold, and whose sums of products are exact.
    Eighths,
}

/// Numbers that are the same everywhere (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Of -1 to 1.
    fn float(&mut self) -> f32 {
        self.bits() as f32 / (1u64 << 31) as f32 - 1.0
    }
}

/// The rows of a batch as a table of embeddings.
fn table(rows: usize, cols: usize, inputs: Inputs, seed: u64) -> Matrix {
    let mut random = Random(7 + seed);
    let mut values: Vec<f32> = (0..rows * cols).map(|_| random.float()).collect();
    for (i, row) in values.chunks_exact_mut(cols).enumerate() {
        match inputs {
            Inputs::Uniform => {}
            Inputs::Outliers => row[cols / 3] = 1e5,
            Inputs::Eighths => row.iter_mut().for_each(|x| *x = (*x * 8.0).round() / 8.0),
            Inputs::Nan => {
                row.fill(0.0);
                row[0] = if i + 1 == rows { f32::NAN } else { 0.0 };
            }
        }
    }
    let bytes = Bytes::from_vec(values.iter().flat_map(|x| x.to_le_bytes()).collect());
    Matrix { rows, cols, data: MatrixData::Dense { dtype: DType::F32, bytes } }
}

/// A matrix of this form.
fn matrix(form: Form, [rows, cols]: [usize; 2]) -> Matrix {
    let mut random = Random(rows as u64 * 31 + cols as u64);
    let mut floats = |n: usize, dtype: DType, scale: f32| {
        let mut bytes = Vec::with_capacity(n * dtype.size());
        for _ in 0..n {
            let bits = (random.float() * scale).to_bits();
            match dtype {
                DType::F32 => bytes.extend(bits.to_le_bytes()),
                DType::BF16 => bytes.extend(((bits >> 16) as u16).to_le_bytes()),
                // Halves between 2^-14 and 2^-5, either sign.
                _ => bytes.extend(
                    (((bits >> 16) as u16 & 0x83ff) | (0x0400 + (bits as u16 & 7) * 0x0400)).to_le_bytes(),
                ),
            }
        }
        Bytes::from_vec(bytes)
    };
    let data = match form {
        Form::Dense(dtype) => MatrixData::Dense { dtype, bytes: floats(rows * cols, dtype, 0.1) },
        Form::Grouped { format, layout, scale } => {
            let scales = floats(rows * format.groups(cols), scale, 0.02);
            let mask = if format.bits == 3 { 0x3fff_ffff } else { u32::MAX };
            let words =
                (0..rows * format.words(cols)).flat_map(|_| (random.bits() & mask).to_le_bytes()).collect();
            MatrixData::Grouped { format, layout, words: Bytes::from_vec(words), scale_dtype: scale, scales }
        }
    };
    Matrix { rows, cols, data }
}

/// A program that ends in a hidden state of so many columns, made of rows of a table.
fn case(
    name: String,
    (rows, cols, inputs): (usize, usize, Inputs),
    build: impl FnOnce(
        &mut Program,
        &mut InMemory,
        tessera_compute::program::Act,
    ) -> tessera_compute::program::Act,
) -> Case {
    let (mut program, mut weights) = (Program::without_logits(rows), InMemory::default());
    let x = program.slot(Rows::All, cols);
    let table = weights.matrix(&mut program, table(rows, cols, inputs, 0));
    program.ops.push(Op::Embed { table, ids: Ids::Tokens, scale: 1.0, accumulate: false, out: x });
    let y = build(&mut program, &mut weights, x);
    let hidden = program.slot(Rows::Picked, y.width);
    program.ops.push(Op::Pick { x: y, out: hidden });
    program.begin_head(hidden);
    Case { name, program, weights, rows }
}

fn linear(form: Form, [n, k]: [usize; 2], rows: usize, inputs: Inputs) -> Case {
    let name = format!("linear [{n}, {k}] {form}, {rows} rows, {inputs:?}");
    case(name, (rows, k, inputs), |program, weights, x| {
        let weight = weights.matrix(program, matrix(form, [n, k]));
        let out = program.slot(Rows::All, n);
        program.ops.push(Op::Linear { x, weight, bias: None, accumulate: false, out });
        // Twice, so that what is added is seen too.
        program.ops.push(Op::Linear { x, weight, bias: None, accumulate: true, out });
        out
    })
}

fn biased(form: Form, [n, k]: [usize; 2], rows: usize) -> Case {
    case(format!("bias [{n}, {k}] {form}, {rows} rows"), (rows, k, Inputs::Uniform), |program, weights, x| {
        let mut random = Random(11);
        let weight = weights.matrix(program, matrix(form, [n, k]));
        let bias = Some(weights.vector(program, (0..n).map(|_| random.float()).collect()));
        let out = program.slot(Rows::All, n);
        program.ops.push(Op::Linear { x, weight, bias, accumulate: false, out });
        out
    })
}

/// Rows of a table of this form, added to others.
fn embed(form: Form, width: usize, rows: usize) -> Case {
    case(
        format!("embed {width} {form}, {rows} rows"),
        (rows, width, Inputs::Uniform),
        |program, weights, x| {
            let table = weights.matrix(program, matrix(form, [rows, width]));
            program.ops.push(Op::Embed { table, ids: Ids::Tokens, scale: 30.0, accumulate: true, out: x });
            x
        },
    )
}

fn norm(kind: NormKind, width: usize, each: usize) -> Case {
    case(format!("norm {kind:?} of {each} in {width}"), (3, width, Inputs::Uniform), |program, weights, x| {
        let mut random = Random(3);
        let mut vector = || (0..each).map(|_| random.float()).collect::<Vec<f32>>();
        let (w, b) = (vector(), vector());
        let (weight, bias) = (Some(weights.vector(program, w)), Some(weights.vector(program, b)));
        program.ops.push(Op::Norm { kind, x, each, weight, bias, eps: EPS, out: x });
        x
    })
}

fn gate(activation: Activation) -> Case {
    case(format!("gate {activation:?}"), (5, 140, Inputs::Uniform), |program, _, x| {
        let out = program.slot(Rows::All, 70);
        let (gate, up) = (x.part(0, 70), x.part(70, 70));
        program.ops.push(Op::Gate { gate, up, activation, out });
        out
    })
}

/// A norm, a product that makes gate and up, the gate, and a product that is added to what was there.
fn feed_forward(form: Form, [width, hidden]: [usize; 2], rows: usize, inputs: Inputs) -> Case {
    let name = format!("feed forward [{width}, {hidden}] {form}, {rows} rows, {inputs:?}");
    case(name, (rows, width, inputs), |program, weights, x| {
        let mut random = Random(5);
        let norm = weights.vector(program, (0..width).map(|_| random.float()).collect());
        let [gate_up, down] = [[2 * hidden, width], [width, hidden]].map(|shape| matrix(form, shape));
        let [gate_up, down] = [gate_up, down].map(|matrix| weights.matrix(program, matrix));
        let [normed, both, gated] = [width, 2 * hidden, hidden].map(|width| program.slot(Rows::All, width));
        let (kind, weight) = (NormKind::Rms, Some(norm));
        let (gate, up) = (both.part(0, hidden), both.part(hidden, hidden));
        program.ops.extend([
            Op::Norm { kind, x, each: width, weight, bias: None, eps: EPS, out: normed },
            Op::Linear { x: normed, weight: gate_up, bias: None, accumulate: false, out: both },
            Op::Gate { gate, up, activation: Activation::Silu, out: gated },
            Op::Linear { x: gated, weight: down, bias: None, accumulate: true, out: x },
        ]);
        x
    })
}

/// Without `pairs` nothing turns, and scores are exact and so far apart that without their maximum `exp` would overflow.
fn attend(rows: usize, heads: Heads, mask: Mask, pairs: Option<Pairs>) -> Case {
    let (inputs, scale) = if pairs.is_some() { (Inputs::Uniform, 0.25) } else { (Inputs::Eighths, 32.0) };
    let name = format!("attend {rows} positions, {heads:?}, {mask:?}, {inputs:?}");
    case(name, (rows, heads.qkv_width(), inputs), |program, _, x| {
        let out = program.slot(Rows::All, heads.q * heads.dim);
        program.kv.push(tessera_compute::program::Kv { heads: heads.kv, dim: heads.dim });
        let rope = |pairs| Rope { dim: 8, theta: 10000.0, scaling: RopeScaling::None, context: 4096, pairs };
        program.ropes.extend(pairs.map(rope));
        let [q, k, v] = heads.split(x);
        let rope = pairs.map(|_| 0);
        program.ops.push(Op::Attend(Attend { q, k, v, heads, layer: 0, rope, mask, scale, cap: None, out }));
        out
    })
}

impl Case {
    /// A number that tells it from others, whatever their names.
    pub fn key(&self) -> u64 {
        let mut hasher = Fnv::default();
        let _ = write!(hasher, "{:?} {}", self.program, self.rows);
        hasher.0
    }

    /// What a backend makes of it: the hidden states of all rows.
    async fn hidden(&self, backend: &dyn Backend) -> Result<Vec<f32>, String> {
        let (mut weights, rows, pages) = (self.weights.clone(), self.rows, self.rows.div_ceil(PAGE));
        let stateful = !self.program.states.is_empty();
        let pools = Pools { pages: [2 * pages; 2], states: if stateful { 3 } else { 0 } };
        let mut executor =
            backend.load(self.program.clone(), &mut weights, pools).map_err(|e| e.to_string())?;
        // Pages in reverse order: a page table that is not read would not be noticed otherwise.
        let list: Vec<u32> = (0..pages as u32).rev().collect();
        let copies: Vec<u32> = list.iter().map(|page| page + pages as u32).collect();
        let tokens: Vec<u32> = (0..rows as u32).collect();
        let others: Vec<u32> = tokens.iter().rev().copied().collect();
        let picked = &tokens;
        let feed = async |executor: &mut dyn Executor,
                          tokens: &[u32],
                          (from, len): (usize, usize),
                          list: &[u32],
                          state: StateUse| {
            let span = Span {
                start: 0,
                len,
                position: from,
                rope_len: rows,
                call: Some(0),
                pages: [list, list],
                state: Some(state).filter(|_| stateful),
            };
            let picked = &picked[..len];
            let batch =
                Batch { tokens: &tokens[from..from + len], spans: &[span], picked, want: Want::Hidden };
            let mut out = Output::default();
            executor.begin(Step::of(&batch)).map_err(|e| e.to_string())?;
            poll_fn(|cx| executor.poll(cx, &mut out)).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(out.hidden)
        };
        // The state before the last row is put to slot 2.
        let save = (rows > 1).then_some(Save { rows: rows - 1, slot: 2 });
        let all = StateUse { from: None, to: 0, save };
        let first = feed(&mut *executor, &tokens, (0, rows), &list, all).await?;
        if !same(&first, &feed(&mut *executor, &tokens, (0, rows), &list, all).await?) {
            return Err("the same input gave other bits the second time".to_owned());
        }
        let kinds = self.program.page_kinds();
        for &kind in &kinds {
            list.iter().zip(&copies).for_each(|(from, to)| executor.copy_page(kind, *from, *to));
        }
        if !kinds.is_empty() {
            // The first pages are written over, so that they cannot be taken for their copies.
            feed(&mut *executor, &others, (0, rows), &list, all).await?;
        }
        let state = StateUse { from: save.map(|save| save.slot), to: 1, save: None };
        let last = feed(&mut *executor, &tokens, (rows - 1, 1), &copies, state).await?;
        if !same(&first[first.len() - last.len()..], &last) {
            return Err("the last row alone, over copied pages, has other bits than among all".to_owned());
        }
        let width = first.len() / rows;
        for (from, len) in pieces(rows) {
            let state = StateUse { from: (from > 0).then_some(0), to: 0, save: None };
            let piece = feed(&mut *executor, &tokens, (from, len), &list, state).await?;
            if !same(&first[from * width..(from + len) * width], &piece) {
                return Err(format!(
                    "rows {from} to {} by themselves have other bits than among all",
                    from + len
                ));
            }
        }
        Ok(first)
    }

    /// Whether a backend makes of it what the reference does; what is wrong otherwise. `halves`: whether it keeps keys and
    /// values as halves. On a device that is [poisoned](crate::Gpu::poisoned) it is also seen that every output is written.
    pub async fn check(&self, backend: &dyn Backend, halves: bool) -> Result<(), String> {
        let tolerance = if halves && !self.program.kv.is_empty() { TOLERANCE_OF_HALVES } else { TOLERANCE };
        let expected = self.hidden(&Reference).await?;
        let found = self.hidden(backend).await?;
        if found.len() != expected.len() {
            return Err(format!("{} values, {} were expected", found.len(), expected.len()));
        }
        let finite = expected.iter().filter(|x| x.is_finite());
        let largest = finite.fold(0.0f32, |m, x| m.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let fits = if b.is_finite() { (a - b).abs() <= tolerance * largest } else { !a.is_finite() };
            if !fits {
                return Err(format!("value {i} is {a}, the reference's is {b}, the largest {largest}"));
            }
        }
        Ok(())
    }
}

/// Whether two results have the same bits; a NaN is a NaN.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// All rows in pieces, the last of them of eight, four, two and one.
fn pieces(rows: usize) -> Vec<(usize, usize)> {
    let mut from = rows.saturating_sub(15);
    let mut out = if from > 0 { vec![(0, from)] } else { Vec::new() };
    for len in [8, 4, 2, 1, 1] {
        if from + len <= rows && len < rows {
            out.push((from, len));
            from += len;
        }
    }
    out
}

/// The hash of Fowler, Noll and Vo, which is the same everywhere and always.
pub(crate) struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.bytes().for_each(|byte| self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}
