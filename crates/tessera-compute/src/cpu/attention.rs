//! The attention stage: rotates, stores keys and values, then answers queries head by head.

use super::attend::{HeadPages, PART, QUERIES, Query, part_len};
use super::page_len;
use super::pool::Worker;
use super::step::{Run, Scratch};
use crate::batch::{Batch, PAGE, Span};
use crate::program::{Heads, Program, Rows, Slot};

/// Positions of a part.
const PART_LEN: usize = PART * PAGE;

/// Room that [`Run::attend`] needs for parts: some only where every span has one row, so that heads alone
/// could be too few for the threads.
pub(super) fn parts_len(program: &Program, batch: &Batch<'_>) -> usize {
    match longest_of_single(batch) {
        Some(longest) if longest > PART_LEN => {
            let parts = batch.spans.len() * longest.div_ceil(PART_LEN);
            parts * program.heads.q * part_len(program.heads.dim)
        }
        _ => 0,
    }
}

/// Positions that the longest span holds after the step, if every span has one row.
fn longest_of_single(batch: &Batch<'_>) -> Option<usize> {
    let single = batch.spans.iter().all(|s| s.len == 1);
    single.then(|| batch.spans.iter().map(|s| s.position + 1).max().unwrap_or(0))
}

/// Rows of a span whose queries are answered in one claim.
const BLOCK: usize = 32;

impl Run<'_> {
    pub(super) fn attend(
        &self,
        qkv: Slot,
        layer: usize,
        out: Slot,
        counter: usize,
        worker: &Worker<'_>,
        scratch: &mut Scratch,
    ) {
        let Heads { kv, .. } = self.model.program.heads;
        let spans = self.batch.spans;
        match longest_of_single(self.batch) {
            Some(longest) if longest > PART_LEN => {
                return self.attend_parts(
                    qkv,
                    layer,
                    out,
                    longest.div_ceil(PART_LEN),
                    counter,
                    worker,
                    scratch,
                );
            }
            Some(_) => {
                // Who stores a key is the only one to read it in this step: no barrier between.
                while let Some(items) = worker.claim(counter, 1, spans.len() * kv) {
                    for item in items {
                        let (span, head) = (&spans[item / kv], item % kv);
                        self.store(qkv, layer, span, 0, head, scratch);
                        self.answer(qkv, layer, out, span, 0..1, head, scratch);
                    }
                }
                return;
            }
            None => {}
        }
        while let Some(rows) = worker.claim(counter + 1, 4, self.batch.tokens.len()) {
            for row in rows {
                let span = &spans[spans.partition_point(|s| s.start + s.len <= row)];
                for head in 0..kv {
                    self.store(qkv, layer, span, row - span.start, head, scratch);
                }
            }
        }
        worker.barrier();
        let blocks: usize = spans.iter().map(|s| s.len.div_ceil(BLOCK)).sum();
        while let Some(items) = worker.claim(counter, 1, blocks * kv) {
            for item in items {
                // The last blocks see the most positions: they come first.
                let (mut block, head) = (blocks - 1 - item / kv, item % kv);
                for span in spans {
                    let own = span.len.div_ceil(BLOCK);
                    if block < own {
                        let rows = block * BLOCK..span.len.min((block + 1) * BLOCK);
                        self.answer(qkv, layer, out, span, rows, head, scratch);
                        break;
                    }
                    block -= own;
                }
            }
        }
    }

    /// `out` = the head `index` of fused row `row`, rotated and multiplied by `scale`.
    fn rotated(&self, qkv: Slot, row: usize, index: usize, scale: f32, out: &mut [f32]) {
        let dim = self.model.program.heads.dim;
        let half = dim / 2;
        let head = &self.row(qkv, row)[index * dim..(index + 1) * dim];
        let (cos, sin) = self.angles[row * dim..(row + 1) * dim].split_at(half);
        for j in 0..half {
            let (a, b) = (head[j], head[j + half]);
            out[j] = (a * cos[j] - b * sin[j]) * scale;
            out[j + half] = (b * cos[j] + a * sin[j]) * scale;
        }
    }

    fn store(&self, qkv: Slot, layer: usize, span: &Span<'_>, i: usize, head: usize, scratch: &mut Scratch) {
        let Heads { q, kv, dim } = self.model.program.heads;
        let row = span.start + i;
        scratch.queries.resize(scratch.queries.len().max(dim), 0.0);
        let key = &mut scratch.queries[..dim];
        self.rotated(qkv, row, q + head, 1.0, key);
        let value = &self.row(qkv, row)[(q + kv + head) * dim..][..dim];
        let position = span.position + i;
        let page = span.pages[position / PAGE] as usize;
        let head_len = self.model.kv_type.head_len(dim);
        let at = page * page_len(&self.model.program, self.model.kv_type) + (layer * kv + head) * head_len;
        assert!(at + head_len <= self.model.kv.len());
        // SAFETY: the page is in the pool (`Batch::check`); this position and head are this thread's.
        unsafe {
            let head = self.model.kv.as_ptr().add(at);
            self.model.kernels.store(self.model.kv_type, key, value, position % PAGE, head);
        }
    }

    /// All query heads of one key head, for some rows of a span.
    #[allow(clippy::too_many_arguments)]
    fn answer(
        &self,
        qkv: Slot,
        layer: usize,
        out: Slot,
        span: &Span<'_>,
        rows: std::ops::Range<usize>,
        head: usize,
        scratch: &mut Scratch,
    ) {
        let Heads { q, kv, dim } = self.model.program.heads;
        let (share, width) = (q / kv, part_len(dim));
        let kernels = &self.model.kernels;
        let pages = self.head_pages(layer, span, head);
        let target = |i: usize| self.target(out, span.start + i);
        let mut wanted = rows
            .filter_map(|i| target(i).map(|to| (i, to)))
            .flat_map(|(i, to)| (0..share).map(move |h| (i, to, head * share + h)));
        scratch.queries.resize(scratch.queries.len().max(QUERIES * dim), 0.0);
        scratch.results.resize(scratch.results.len().max(QUERIES * width), 0.0);
        scratch.parts.resize(scratch.parts.len().max(QUERIES * width), 0.0);
        let scale = 1.0 / (dim as f32).sqrt();
        loop {
            let mut some = [(0, 0, 0); QUERIES];
            let mut number = 0;
            while number < QUERIES
                && let Some(one) = wanted.next()
            {
                let at = number * dim;
                self.rotated(qkv, span.start + one.0, one.2, scale, &mut scratch.queries[at..at + dim]);
                some[number] = one;
                number += 1;
            }
            if number == 0 {
                return;
            }
            let longest = span.position + some[number - 1].0 + 1;
            for part in 0..longest.div_ceil(PART_LEN) {
                let all = if part == 0 { &mut scratch.results } else { &mut scratch.parts };
                let (from, to) = (scratch.queries.as_ptr(), all.as_mut_ptr());
                let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                    q: from.wrapping_add(k * dim),
                    part: to.wrapping_add(k * width),
                    len: span.position + some[k].0 + 1,
                });
                // SAFETY: the positions up to each query's own were stored before (the barrier, or this
                // thread); both buffers hold QUERIES rows.
                unsafe { kernels.attend(self.model.kv_type, &pages, &queries[..number], part) };
                if part > 0 {
                    let all = scratch.results.chunks_exact_mut(width).zip(scratch.parts.chunks_exact(width));
                    for ((all, one), query) in all.zip(&queries[..number]) {
                        // A query that does not reach this part must not be touched by it.
                        if query.len > part * PART_LEN {
                            kernels.merge(all, one);
                        }
                    }
                }
            }
            for (k, (_, row, head)) in some[..number].iter().enumerate() {
                let result = &mut scratch.results[k * width..][..width];
                kernels.finish(result);
                // SAFETY: this row and head are this thread's.
                let o = unsafe { self.part_mut(out, *row, head * dim, dim) };
                o.copy_from_slice(&result[..dim]);
            }
        }
    }

    /// The row of `out` that row `row` of the batch goes to.
    fn target(&self, out: Slot, row: usize) -> Option<usize> {
        match self.model.program.slots[out.0].rows {
            Rows::All => Some(row),
            Rows::Picked => self.batch.picked.binary_search(&(row as u32)).ok(),
        }
    }

    fn head_pages<'b>(&self, layer: usize, span: &Span<'b>, head: usize) -> HeadPages<'b> {
        let Heads { kv, dim, .. } = self.model.program.heads;
        HeadPages {
            pool: self.model.kv.as_ptr(),
            pool_len: self.model.kv.len(),
            page_stride: page_len(&self.model.program, self.model.kv_type),
            offset: (layer * kv + head) * self.model.kv_type.head_len(dim),
            pages: span.pages,
            dim,
        }
    }

    /// Every span has one row: work is split over spans, key heads and parts, and merged in the order of
    /// parts after a barrier.
    #[allow(clippy::too_many_arguments)]
    fn attend_parts(
        &self,
        qkv: Slot,
        layer: usize,
        out: Slot,
        most: usize,
        counter: usize,
        worker: &Worker<'_>,
        scratch: &mut Scratch,
    ) {
        let Heads { q, kv, dim } = self.model.program.heads;
        let (spans, share, width) = (self.batch.spans, q / kv, part_len(dim));
        assert!(self.parts_len >= spans.len() * q * most * width);
        // `[span][query head][part]`
        let at = |span: usize, head: usize, part: usize| {
            self.parts.wrapping_add(((span * q + head) * most + part) * width)
        };
        let kernels = &self.model.kernels;
        let scale = 1.0 / (dim as f32).sqrt();
        while let Some(items) = worker.claim(counter, 1, spans.len() * kv * most) {
            for item in items {
                let (head, part) = (item / most % kv, item % most);
                let (i, span) = (item / most / kv, &spans[item / most / kv]);
                let last = span.position / PART_LEN;
                if part > last || self.target(out, span.start).is_none() && part < last {
                    continue;
                }
                // The new key is in the last part, which this thread alone reads.
                if part == last {
                    self.store(qkv, layer, span, 0, head, scratch);
                }
                if self.target(out, span.start).is_none() {
                    continue;
                }
                scratch.queries.resize(scratch.queries.len().max(QUERIES * dim), 0.0);
                let pages = self.head_pages(layer, span, head);
                for from in (0..share).step_by(QUERIES) {
                    let number = QUERIES.min(share - from);
                    let first = head * share + from;
                    for (k, row) in scratch.queries.chunks_exact_mut(dim).take(number).enumerate() {
                        self.rotated(qkv, span.start, first + k, scale, row);
                    }
                    let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                        q: scratch.queries.as_ptr().wrapping_add(k * dim),
                        part: at(i, (first + k).min(q - 1), part),
                        len: span.position + 1,
                    });
                    // SAFETY: earlier positions were stored in earlier steps, the new one by this thread; this
                    // part of these heads is this thread's, inside the buffer as asserted above.
                    unsafe { kernels.attend(self.model.kv_type, &pages, &queries[..number], part) };
                }
            }
        }
        worker.barrier();
        while let Some(items) = worker.claim(counter + 1, 1, spans.len() * q) {
            for item in items {
                let (i, head) = (item / q, item % q);
                let Some(row) = self.target(out, spans[i].start) else { continue };
                // SAFETY: after the barrier all parts of this head are this thread's.
                let part = |part| unsafe { std::slice::from_raw_parts_mut(at(i, head, part), width) };
                let all = part(0);
                for next in 1..=spans[i].position / PART_LEN {
                    kernels.merge(all, part(next));
                }
                kernels.finish(all);
                // SAFETY: this row and head are this thread's.
                let o = unsafe { self.part_mut(out, row, head * dim, dim) };
                o.copy_from_slice(&all[..dim]);
            }
        }
    }
}
