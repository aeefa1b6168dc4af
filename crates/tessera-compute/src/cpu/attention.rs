//! The attention stage: rotates, stores keys and values, then answers queries head by head.

use super::attend::{HeadPages, QUERIES, Query, head_len, padded};
use super::page_len;
use super::pool::Worker;
use super::step::{Run, Scratch};
use crate::batch::{PAGE, Span};
use crate::program::{Heads, Rows, Slot};

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
        if spans.iter().all(|s| s.len == 1) {
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
        let at = page * page_len(&self.model.program) + (layer * kv + head) * head_len(dim);
        assert!(at + head_len(dim) <= self.model.kv.len());
        // SAFETY: the page is in the pool (`Batch::check`); this position and head are this thread's.
        unsafe { self.model.kernels.store(key, value, position % PAGE, self.model.kv.as_ptr().add(at)) }
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
        let (share, width) = (q / kv, padded(dim));
        let pages = HeadPages {
            pool: self.model.kv.as_ptr(),
            pool_len: self.model.kv.len(),
            page_stride: page_len(&self.model.program),
            offset: (layer * kv + head) * head_len(dim),
            pages: span.pages,
            dim,
        };
        let picked = self.model.program.slots[out.0].rows == Rows::Picked;
        let target = |i: usize| match picked {
            false => Some(span.start + i),
            true => self.batch.picked.binary_search(&((span.start + i) as u32)).ok(),
        };
        let mut wanted = rows
            .filter_map(|i| target(i).map(|to| (i, to)))
            .flat_map(|(i, to)| (0..share).map(move |h| (i, to, head * share + h)));
        scratch.queries.resize(scratch.queries.len().max(QUERIES * dim), 0.0);
        scratch.results.resize(scratch.results.len().max(QUERIES * width), 0.0);
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
            let (from, to) = (scratch.queries.as_ptr(), scratch.results.as_mut_ptr());
            let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                q: from.wrapping_add(k * dim),
                out: to.wrapping_add(k * width),
                len: span.position + some[k].0 + 1,
            });
            // SAFETY: the positions up to each query's own were stored before (the barrier, or this
            // thread); both buffers hold QUERIES rows.
            unsafe { self.model.kernels.attend(&pages, &queries[..number]) };
            for (k, (_, row, head)) in some[..number].iter().enumerate() {
                // SAFETY: this row and head are this thread's.
                let o = unsafe { self.part_mut(out, *row, head * dim, dim) };
                o.copy_from_slice(&scratch.results[k * width..][..dim]);
            }
        }
    }
}
