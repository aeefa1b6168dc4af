//! Recurrences: each thread takes columns or heads of one sequence, row after row.

use super::pool::Worker;
use super::run::Run;
use crate::batch::Span;
use crate::program::{DeltaHeads, Function, Op, WkvHeads};
use crate::recurrent::delta_gates;

/// Columns of a convolution in one claim.
const COLUMNS: usize = 256;

/// Copies a state as it is after `rows` rows, where that is asked for.
fn save(to: &mut Option<(usize, &mut [f32])>, rows: usize, state: &[f32]) {
    if let Some((wanted, to)) = to
        && *wanted == rows
    {
        to.copy_from_slice(state);
    }
}

impl Run<'_> {
    /// Puts every sequence's state where it will be, zero at its beginning.
    pub(super) fn move_states(&self, counter: usize, worker: &Worker<'_>) {
        let len = self.model.program.state_len();
        while let Some(claim) = worker.claim(counter, 1, self.batch.spans.len()) {
            for span in &self.batch.spans[claim] {
                let Some(state) = span.state else { continue };
                // SAFETY: `Batch::check` saw that both slots are in the pool, and that nobody else uses `to`.
                unsafe {
                    let at = |slot: u32| self.states.add(slot as usize * len);
                    match state.from {
                        Some(from) if from == state.to => {}
                        Some(from) => at(from).copy_to_nonoverlapping(at(state.to), len),
                        None => at(state.to).write_bytes(0, len),
                    }
                }
            }
        }
    }

    /// Part of a state of a span's sequence.
    ///
    /// # Safety
    /// No other thread uses these values in the same stage.
    #[allow(clippy::mut_from_ref)]
    unsafe fn state(&self, span: &Span<'_>, state: usize, from: usize, len: usize) -> &mut [f32] {
        let slot = span.state.map_or(0, |state| state.to);
        // SAFETY: the caller's promise.
        unsafe { self.state_in(slot, state, from, len) }
    }

    /// The same part where it is put besides, and after how many rows.
    ///
    /// # Safety
    /// As for [`Run::state`].
    #[allow(clippy::mut_from_ref)]
    unsafe fn saved(
        &self,
        span: &Span<'_>,
        state: usize,
        from: usize,
        len: usize,
    ) -> Option<(usize, &mut [f32])> {
        let save = span.state?.save?;
        // SAFETY: the caller's promise.
        Some((save.rows, unsafe { self.state_in(save.slot, state, from, len) }))
    }

    /// Part of a state in a slot of a span.
    ///
    /// # Safety
    /// As for [`Run::state`].
    #[allow(clippy::mut_from_ref)]
    unsafe fn state_in(&self, slot: u32, state: usize, from: usize, len: usize) -> &mut [f32] {
        let program = &self.model.program;
        let at = program.state_at(state);
        assert!(from + len <= at.len());
        let at = slot as usize * program.state_len() + at.start + from;
        // SAFETY: `Batch::check` saw that the slots of every span are in the pool; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.states.add(at), len) }
    }

    /// [`Op::Conv`].
    pub(super) fn conv(&self, op: &Op, counter: usize, worker: &Worker<'_>) {
        let Op::Conv { x, weight, kernel, state, activation, out } = *op else { return };
        let weight = &self.model.weights[weight];
        let (parts, before) = (x.width.div_ceil(COLUMNS), kernel - 1);
        // Of the columns of a claim: the weights tap by tap, and the rows of the state as they were.
        let (mut taps, mut held) = (vec![0.0; kernel * COLUMNS], vec![0.0; before * COLUMNS]);
        while let Some(claim) = worker.claim(counter, 1, parts * self.batch.spans.len()) {
            for item in claim {
                let (span, from) = (&self.batch.spans[item / parts], item % parts * COLUMNS);
                let n = COLUMNS.min(x.width - from);
                for (j, taps) in taps.chunks_exact_mut(COLUMNS).enumerate() {
                    let columns = weight[from * kernel..][..n * kernel].chunks_exact(kernel);
                    taps.iter_mut().zip(columns).for_each(|(tap, column)| *tap = column[j]);
                }
                // SAFETY: these columns of this span were claimed by this thread alone.
                let row_of_state = |i: usize| unsafe { self.state(span, state, i * x.width + from, n) };
                for (i, held) in held.chunks_exact_mut(COLUMNS).enumerate() {
                    held[..n].copy_from_slice(row_of_state(i));
                }
                // Row `i` of what the results see: first those of the state.
                let seen = |i: usize| match i.checked_sub(before) {
                    None => &held[i * COLUMNS..][..n],
                    Some(t) => &self.row(x, span.start + t)[from..][..n],
                };
                for t in 0..span.len {
                    // SAFETY: as above.
                    let out = unsafe { self.part_mut(out, span.start + t, from, n) };
                    out.fill(0.0);
                    for (j, taps) in taps.chunks_exact(COLUMNS).enumerate() {
                        let row = out.iter_mut().zip(taps).zip(seen(t + j));
                        row.for_each(|((o, w), x)| *o += w * x);
                    }
                    if let Some(activation) = activation {
                        self.map(Function::Activation(activation), out);
                    }
                }
                for i in 0..before {
                    row_of_state(i).copy_from_slice(seen(span.len + i));
                    // SAFETY: as above.
                    if let Some((rows, saved)) = unsafe { self.saved(span, state, i * x.width + from, n) } {
                        saved.copy_from_slice(seen(rows + i));
                    }
                }
            }
        }
    }

    /// [`Op::Wkv`].
    pub(super) fn wkv(&self, op: &Op, counter: usize, worker: &Worker<'_>) {
        let Op::Wkv { r, k, v, decay, bonus, heads: WkvHeads { count, dim }, state, out } = *op else {
            return;
        };
        let bonus = &self.model.weights[bonus];
        let mut keep = vec![0.0; dim];
        while let Some(claim) = worker.claim(counter, 1, count * self.batch.spans.len()) {
            for item in claim {
                let (span, h) = (&self.batch.spans[item / count], item % count);
                // SAFETY: this head of this span was claimed by this thread alone.
                let (mut saved, state) = unsafe {
                    let (from, len) = (h * dim * dim, dim * dim);
                    (self.saved(span, state, from, len), self.state(span, state, from, len))
                };
                for t in span.start..span.start + span.len {
                    let [r, k, v, decay] = [r, k, v, decay].map(|act| &self.row(act, t)[h * dim..][..dim]);
                    // SAFETY: as above.
                    let out = unsafe { self.part_mut(out, t, h * dim, dim) };
                    self.model.kernels.exp_exp(decay, &mut keep);
                    self.model.kernels.wkv(state, (r, k, v), (&keep, &bonus[h * dim..][..dim]), out);
                    save(&mut saved, t + 1 - span.start, state);
                }
            }
        }
    }

    /// [`Op::Delta`].
    pub(super) fn delta(&self, op: &Op, counter: usize, worker: &Worker<'_>) {
        let Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state, out } = *op else { return };
        let DeltaHeads { keys, values, key, value } = heads;
        let [a_log, dt_bias] = [a_log, dt_bias].map(|id| &self.model.weights[id]);
        while let Some(claim) = worker.claim(counter, 1, values * self.batch.spans.len()) {
            for item in claim {
                let (span, h) = (&self.batch.spans[item / values], item % values);
                // SAFETY: this head of this span was claimed by this thread alone.
                let (mut saved, state) = unsafe {
                    let (from, len) = (h * key * value, key * value);
                    (self.saved(span, state, from, len), self.state(span, state, from, len))
                };
                let (of_key, of_value) = (h / (values / keys) * key, h * value);
                for t in span.start..span.start + span.len {
                    let rows = (
                        &self.row(q, t)[of_key..][..key],
                        &self.row(k, t)[of_key..][..key],
                        &self.row(v, t)[of_value..][..value],
                    );
                    let gates = delta_gates(self.row(a, t)[h], self.row(b, t)[h], a_log[h], dt_bias[h]);
                    // SAFETY: as above.
                    let out = unsafe { self.part_mut(out, t, of_value, value) };
                    self.model.kernels.delta(state, rows, gates, out);
                    save(&mut saved, t + 1 - span.start, state);
                }
            }
        }
    }
}
