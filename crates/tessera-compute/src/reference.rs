//! The oracle: every operation in plain f32, as its definition reads. No SIMD, no quantised
//! activations, keys and values in f32. Slow, and the judge of every other backend.

use crate::backend::{Backend, Executor, LoadError};
use crate::batch::{Batch, BatchError, Output, PAGE, Span, Want};
use crate::memory::{Zeroed, ZeroedFloats};
use crate::program::{Heads, MatrixId, Op, Program, Rows, Slot};
use tessera_weights::config::Activation;
use tessera_weights::quantize::decode_row;
use tessera_weights::tensor::Matrix;

/// The reference backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn page_len(&self, program: &Program) -> usize {
        2 * program.layers * program.heads.kv * PAGE * program.heads.dim * size_of::<f32>()
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        let width: usize = program.slots.iter().map(|slot| slot.width).sum();
        // The logits are handed out as a copy.
        rows.saturating_mul(width + program.vocab).saturating_mul(size_of::<f32>())
    }

    fn load(&self, program: Program, pages: usize) -> Result<Box<dyn Executor>, LoadError> {
        program.check()?;
        let needed = pages.saturating_mul(self.page_len(&program));
        let kv = Zeroed::floats(needed / size_of::<f32>()).ok_or(LoadError::Memory { pages, needed })?;
        let slots = vec![Vec::new(); program.slots.len()];
        Ok(Box::new(Interpreter { program, pages, kv, slots }))
    }
}

struct Interpreter {
    program: Program,
    pages: usize,
    /// `[page][layer][k, v][kv head][position][dim]`.
    kv: ZeroedFloats,
    slots: Vec<Vec<f32>>,
}

impl Executor for Interpreter {
    fn step(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        batch.check(self.program.vocab, self.pages)?;
        for (slot, shape) in self.slots.iter_mut().zip(&self.program.slots) {
            let rows = if shape.rows == Rows::All { batch.tokens.len() } else { batch.picked.len() };
            slot.resize(rows * shape.width, 0.0);
        }
        let head = usize::from(batch.want == Want::Hidden);
        for i in 0..self.program.ops.len() - head {
            let op = self.program.ops[i].clone();
            self.run(&op, batch);
        }
        let logits = &self.slots[self.program.logits.0];
        out.clear();
        match batch.want {
            Want::Logits => out.logits.extend_from_slice(logits),
            Want::Greedy => out.tokens.extend(logits.chunks_exact(self.program.vocab).map(argmax)),
            Want::Hidden => {
                let input = self.program.before_head().map(|(x, _)| &*self.slots[x.0]);
                out.hidden.extend_from_slice(input.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        let len = self.kv.len() / self.pages.max(1);
        let from = from as usize * len;
        self.kv.copy_within(from..from + len, to as usize * len);
    }

    fn kv_len(&self) -> usize {
        self.kv.len() * 4
    }

    fn describe(&self) -> String {
        "reference: plain f32, no SIMD".to_owned()
    }
}

/// The largest value; -inf of none. NaN are passed over. Many maxima side by side, since one would wait for
/// itself at every value.
pub fn max(row: &[f32]) -> f32 {
    let larger = |m: f32, x: f32| if x > m { x } else { m };
    let (lanes, rest) = row.as_chunks::<32>();
    let mut most = [f32::NEG_INFINITY; 32];
    for lane in lanes {
        most.iter_mut().zip(lane).for_each(|(m, x)| *m = larger(*m, *x));
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |m, x| larger(m, *x))
}

/// The id of the largest value, the lowest among equals. -inf is a value like others, of a token that cannot
/// come; `None` if any value is NaN or +inf, or if none is finite.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let valid = row.chunks(256).all(|part| part.iter().fold(true, |all, x| all & (*x < f32::INFINITY)));
    let largest = max(row);
    let at = row.iter().position(|x| *x == largest)?;
    (valid && largest > f32::NEG_INFINITY).then_some(at as u32)
}

/// The value of an activation.
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::GeluTanh => {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Gelu => {
            // Abramowitz and Stegun 7.1.26 in f64: |error| < 1.5e-7, below f32's own rounding here.
            let z = f64::from(x.abs()) * std::f64::consts::FRAC_1_SQRT_2;
            let t = 1.0 / (1.0 + 0.327_591_1 * z);
            let poly = t
                * (0.254_829_592
                    + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
            let erf = (1.0 - poly * (-z * z).exp()).copysign(f64::from(x));
            (0.5 * f64::from(x) * (1.0 + erf)) as f32
        }
    }
}

impl Interpreter {
    fn width(&self, slot: Slot) -> usize {
        self.program.slots[slot.0].width
    }

    fn run(&mut self, op: &Op, batch: &Batch<'_>) {
        match *op {
            Op::Embed { table, out } => {
                let mut o = std::mem::take(&mut self.slots[out.0]);
                let table = &self.program.matrices[table.0];
                for (row, &token) in o.chunks_exact_mut(table.cols).zip(batch.tokens) {
                    decode_row(table, token as usize, row);
                }
                self.slots[out.0] = o;
            }
            Op::RmsNorm { x, weight, eps, out } => {
                let mut o = std::mem::take(&mut self.slots[out.0]);
                let (width, w) = (self.width(x), &self.program.vectors[weight.0]);
                for (row, x) in o.chunks_exact_mut(width).zip(self.slots[x.0].chunks_exact(width)) {
                    let mean = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / width as f64;
                    let scale = 1.0 / (mean as f32 + eps).sqrt();
                    for ((o, x), w) in row.iter_mut().zip(x).zip(w) {
                        *o = x * scale * w;
                    }
                }
                self.slots[out.0] = o;
            }
            Op::Linear { x, weight, bias, accumulate, out } => {
                let mut o = std::mem::take(&mut self.slots[out.0]);
                if !accumulate {
                    o.fill(0.0);
                }
                if let Some(bias) = bias {
                    let bias = &self.program.vectors[bias.0];
                    for row in o.chunks_exact_mut(bias.len()) {
                        row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                    }
                }
                linear(&self.slots[x.0], self.matrix(weight), &mut o);
                self.slots[out.0] = o;
            }
            Op::Attend { qkv, layer, out } => self.attend(qkv, layer, out, batch),
            Op::Gate { x, activation, out } => {
                let mut o = std::mem::take(&mut self.slots[out.0]);
                let width = self.width(out);
                for (row, x) in o.chunks_exact_mut(width).zip(self.slots[x.0].chunks_exact(2 * width)) {
                    let (gate, up) = x.split_at(width);
                    for ((o, g), u) in row.iter_mut().zip(gate).zip(up) {
                        *o = activate(activation, *g) * u;
                    }
                }
                self.slots[out.0] = o;
            }
            Op::Pick { x, out } => {
                let mut o = std::mem::take(&mut self.slots[out.0]);
                let width = self.width(x);
                for (row, &p) in o.chunks_exact_mut(width).zip(batch.picked) {
                    row.copy_from_slice(&self.slots[x.0][p as usize * width..][..width]);
                }
                self.slots[out.0] = o;
            }
        }
    }

    fn matrix(&self, id: MatrixId) -> &Matrix {
        &self.program.matrices[id.0]
    }

    /// Where the vector of one position begins.
    fn kv_at(&self, page: u32, layer: usize, value: bool, head: usize, position: usize) -> usize {
        let Heads { kv, dim, .. } = self.program.heads;
        let row = (page as usize * self.program.layers + layer) * 2 + usize::from(value);
        ((row * kv + head) * PAGE + position % PAGE) * dim
    }

    fn attend(&mut self, qkv: Slot, layer: usize, out: Slot, batch: &Batch<'_>) {
        let heads @ Heads { q, kv, dim } = self.program.heads;
        // A copy: inputs are left as they are.
        let mut x = self.slots[qkv.0].clone();
        let mut o = std::mem::take(&mut self.slots[out.0]);
        let picked_only = self.program.slots[out.0].rows == Rows::Picked;
        for span in batch.spans {
            let rows = &mut x[span.start * heads.qkv_width()..][..span.len * heads.qkv_width()];
            self.rotate(rows, span);
            for (i, row) in rows.chunks_exact(heads.qkv_width()).enumerate() {
                let position = span.position + i;
                for h in 0..kv {
                    for (value, first) in [(false, q), (true, q + kv)] {
                        let at = self.kv_at(span.pages[position / PAGE], layer, value, h, position);
                        self.kv[at..at + dim].copy_from_slice(&row[(first + h) * dim..][..dim]);
                    }
                }
            }
        }
        for span in batch.spans {
            for i in 0..span.len {
                let row = span.start + i;
                let at = if picked_only {
                    let Ok(at) = batch.picked.binary_search(&(row as u32)) else { continue };
                    at
                } else {
                    row
                };
                let queries = &x[row * heads.qkv_width()..][..q * dim];
                for (h, o) in o[at * q * dim..][..q * dim].chunks_exact_mut(dim).enumerate() {
                    let query = &queries[h * dim..][..dim];
                    self.attend_one(query, h / (q / kv), layer, span, span.position + i + 1, o);
                }
            }
        }
        self.slots[out.0] = o;
    }

    /// One query against the first `len` positions of one key head.
    fn attend_one(
        &self,
        query: &[f32],
        head: usize,
        layer: usize,
        span: &Span<'_>,
        len: usize,
        o: &mut [f32],
    ) {
        let dim = query.len();
        let vector = |value: bool, p: usize| {
            &self.kv[self.kv_at(span.pages[p / PAGE], layer, value, head, p)..][..dim]
        };
        let scale = 1.0 / (dim as f32).sqrt();
        let scores: Vec<f32> = (0..len)
            .map(|p| query.iter().zip(vector(false, p)).map(|(a, b)| a * b).sum::<f32>() * scale)
            .collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let total = weights.iter().map(|w| f64::from(*w)).sum::<f64>() as f32;
        o.fill(0.0);
        for (p, w) in weights.iter().enumerate() {
            o.iter_mut().zip(vector(true, p)).for_each(|(o, v)| *o += w / total * v);
        }
    }

    /// Rotates query and key heads: pair `(i, i + dim / 2)` by the angle of frequency `i`.
    fn rotate(&self, rows: &mut [f32], span: &Span<'_>) {
        let heads @ Heads { q, kv, dim } = self.program.heads;
        let half = dim / 2;
        let frequencies = self.program.rope.frequencies(span.rope_len);
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        for (i, row) in rows.chunks_exact_mut(heads.qkv_width()).enumerate() {
            frequencies.at(span.position + i, &mut cos, &mut sin);
            for head in row[..(q + kv) * dim].chunks_exact_mut(dim) {
                for j in 0..half {
                    let (a, b) = (head[j], head[j + half]);
                    head[j] = a * cos[j] - b * sin[j];
                    head[j + half] = b * cos[j] + a * sin[j];
                }
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
    let threads = match (cfg!(feature = "threads"), n * w.rows * w.cols > 1 << 20) {
        (true, true) => std::thread::available_parallelism().map_or(1, |n| n.get()),
        _ => 1,
    };
    let per = w.rows.div_ceil(threads);
    let part = |from: usize, to: usize| {
        let mut weights = vec![0.0; ROWS * w.cols];
        let mut sums = vec![0.0; n * (to - from)];
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
        sums
    };
    let mut add = |from: usize, sums: Vec<f32>| {
        for (i, sums) in sums.chunks_exact(n).enumerate() {
            for (t, s) in sums.iter().enumerate() {
                out[t * w.rows + from + i] += s;
            }
        }
    };
    if threads == 1 {
        return add(0, part(0, w.rows));
    }
    std::thread::scope(|scope| {
        let ranges = (0..threads).map(|t| ((t * per).min(w.rows), ((t + 1) * per).min(w.rows)));
        let parts: Vec<_> = ranges
            .map(|(from, to)| {
                let spawned = std::thread::Builder::new().spawn_scoped(scope, move || part(from, to));
                (from, to, spawned)
            })
            .collect();
        for (from, to, spawned) in parts {
            match spawned.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(sums)) => add(from, sums),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // The system refused a thread: this one does its part.
                Err(_) => add(from, part(from, to)),
            }
        }
    });
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

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn a_token_that_cannot_come_is_no_fault_of_the_others() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(argmax(&[-inf, 1.0, 3.0, 3.0]), Some(2));
        assert_eq!(argmax(&[-inf, -inf]), None);
        for broken in [[1.0, nan], [1.0, inf], [nan, nan]] {
            assert_eq!(argmax(&broken), None);
        }
        assert_eq!(argmax(&[]), None);
    }
}
