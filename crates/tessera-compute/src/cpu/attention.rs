//! The attention stage: rotates, stores keys and values, then answers queries head by head.

use super::attend::{HeadPages, PART, QUERIES, Query, part_len};
use super::pool::Worker;
use super::run::{Run, Scratch};
use crate::batch::{Batch, PAGE, Span};
use crate::program::{Act, Attend, Heads, Op, Program, Rows};
use crate::rope::Pairs;
use tessera_weights::arch::Sinks;

/// Positions of a part.
const PART_LEN: usize = PART * PAGE;

/// Room that [`Run::attend`] needs for parts: some only where every span has one row, so that heads alone
/// could be too few for the threads.
pub(super) fn parts_len(program: &Program, batch: &Batch<'_>) -> usize {
    match longest_of_single(batch) {
        Some(longest) if longest > PART_LEN => {
            let parts = batch.spans.len() * longest.div_ceil(PART_LEN);
            let one = |op: &Op| match op {
                Op::Attend(Attend { heads, .. }) => heads.q * part_len(heads.dim),
                _ => 0,
            };
            parts * program.ops.iter().map(one).max().unwrap_or(0)
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
    /// [`Op::Attend`].
    pub(super) fn attend(&self, a: Attend, counter: usize, worker: &Worker<'_>, scratch: &mut Scratch) {
        let Heads { q, kv, .. } = a.heads;
        let spans = self.batch.spans;
        // Where few key heads are there for many threads, their queries are shared out too.
        let few = spans.len() * kv < 2 * worker.threads() && q / kv > QUERIES;
        // If any row of a span has a gap in what it sees, the last one has.
        let sinks = spans.iter().any(|span| span.sinks(a.mask, span.len - 1).is_some());
        let few = few || sinks;
        match longest_of_single(self.batch) {
            Some(longest) if longest > PART_LEN && !sinks => {
                return self.attend_parts(a, longest.div_ceil(PART_LEN), counter, worker, scratch);
            }
            Some(_) if !few => {
                // Who stores a key is the only one to read it in this step: no barrier between.
                while let Some(items) = worker.claim(counter, 1, spans.len() * kv) {
                    for item in items {
                        let (span, head) = (&spans[item / kv], item % kv);
                        self.store(a, span, 0, head, scratch);
                        self.answer(a, span, 0..1, head, 0..q / kv, scratch);
                    }
                }
                return;
            }
            _ => {}
        }
        while let Some(rows) = worker.claim(counter + 1, 4, self.batch.tokens.len()) {
            for row in rows {
                let span = &spans[spans.partition_point(|s| s.start + s.len <= row)];
                for head in 0..kv {
                    self.store(a, span, row - span.start, head, scratch);
                }
            }
        }
        worker.barrier();
        let blocks: usize = spans.iter().map(|s| s.len.div_ceil(BLOCK)).sum();
        let share = q / kv;
        let each = if few { QUERIES } else { share };
        let parts = share.div_ceil(each);
        while let Some(items) = worker.claim(counter, 1, blocks * kv * parts) {
            for item in items {
                // The last blocks see the most positions: they come first.
                let (mut block, head) = (blocks - 1 - item / parts / kv, item / parts % kv);
                let first = item % parts * each;
                let queries = first..share.min(first + each);
                for span in spans {
                    let own = span.len.div_ceil(BLOCK);
                    if block < own {
                        let rows = block * BLOCK..span.len.min((block + 1) * BLOCK);
                        self.answer(a, span, rows, head, queries, scratch);
                        break;
                    }
                    block -= own;
                }
            }
        }
    }

    /// `out` = the head `index` of a row of `heads`, rotated and multiplied by `scale`.
    fn rotated(&self, a: Attend, heads: Act, row: usize, index: usize, scale: f32, out: &mut [f32]) {
        self.rotated_by(a, heads, (row, row), index, scale, out);
    }

    /// The same with the angles of `turn`, a row of [`Run::angles`].
    fn rotated_by(
        &self,
        a: Attend,
        heads: Act,
        (row, turn): (usize, usize),
        index: usize,
        scale: f32,
        out: &mut [f32],
    ) {
        let dim = a.heads.dim;
        let head = &self.row(heads, row)[index * dim..(index + 1) * dim];
        let turned = match a.rope {
            None => 0,
            Some(index) => {
                let rope = &self.model.program.ropes[index];
                let (half, n) = (rope.dim / 2, rope.angles());
                let (cos, sin) = self.angles[index][turn * 2 * n..(turn + 1) * 2 * n].split_at(n);
                match rope.pairs {
                    Pairs::Halves => {
                        for j in 0..half {
                            let (a, b) = (head[j], head[j + half]);
                            out[j] = (a * cos[j] - b * sin[j]) * scale;
                            out[j + half] = (b * cos[j] + a * sin[j]) * scale;
                        }
                    }
                    pairs => {
                        for j in 0..half {
                            let [first, second] = pairs.of(j, half);
                            let other = if pairs.apart() { j + half } else { j };
                            let (a, b) = (head[first], head[second]);
                            out[first] = (a * cos[j] - b * sin[j]) * scale;
                            out[second] = (b * cos[other] + a * sin[other]) * scale;
                        }
                    }
                }
                rope.dim
            }
        };
        out[turned..dim].iter_mut().zip(&head[turned..]).for_each(|(o, x)| *o = x * scale);
    }

    fn store(&self, a: Attend, span: &Span<'_>, i: usize, head: usize, scratch: &mut Scratch) {
        let dim = a.heads.dim;
        let row = span.start + i;
        scratch.queries.resize(scratch.queries.len().max(dim), 0.0);
        let key = &mut scratch.queries[..dim];
        self.rotated(a, a.k, row, head, 1.0, key);
        let value = &self.row(a.v, row)[head * dim..][..dim];
        let position = span.position + i;
        let page = span.pages[self.model.layout.kind(a.layer) as usize][position / PAGE];
        let head_len = self.model.kv_type.head_len(dim);
        let at = self.model.layout.at(a.layer, page) + head * head_len;
        assert!(at + head_len <= self.model.kv.len());
        // SAFETY: the page is in the pool (`Batch::check`); this position and head are this thread's.
        unsafe {
            let head = self.model.kv.as_ptr().add(at);
            self.model.kernels.store(self.model.kv_type, key, value, position % PAGE, head);
        }
    }

    /// Some of the query heads of one key head, for some rows of a span.
    fn answer(
        &self,
        a: Attend,
        span: &Span<'_>,
        rows: std::ops::Range<usize>,
        head: usize,
        queries: std::ops::Range<usize>,
        scratch: &mut Scratch,
    ) {
        let Heads { q, kv, dim } = a.heads;
        let (share, width) = (q / kv, part_len(dim));
        let kernels = &self.model.kernels;
        let pages = self.head_pages(a, span, head);
        let target = |i: usize| self.target(a.out, span.start + i);
        let mut wanted = rows
            .filter_map(|i| target(i).map(|to| (i, to)))
            .flat_map(|(i, to)| queries.clone().map(move |h| (i, to, head * share + h)));
        scratch.queries.resize(scratch.queries.len().max(QUERIES * dim), 0.0);
        scratch.results.resize(scratch.results.len().max(QUERIES * width), 0.0);
        scratch.parts.resize(scratch.parts.len().max(QUERIES * width), 0.0);
        loop {
            let mut some = [(0, 0, 0); QUERIES];
            let mut number = 0;
            while number < QUERIES
                && let Some(one) = wanted.next()
            {
                let at = number * dim;
                let query = &mut scratch.queries[at..at + dim];
                self.rotated(a, a.q, span.start + one.0, one.2, a.scale, query);
                some[number] = one;
                number += 1;
            }
            if number == 0 {
                return;
            }
            let seen = some.map(|one| span.sees(a.mask, one.0));
            let first = seen[..number].iter().map(|s| s.start / PART_LEN).min().unwrap_or(0);
            let longest = seen[..number].iter().map(|s| s.end).max().unwrap_or(0);
            for part in first..longest.div_ceil(PART_LEN) {
                let all = if part == first { &mut scratch.results } else { &mut scratch.parts };
                let (from, to) = (scratch.queries.as_ptr(), all.as_mut_ptr());
                let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                    q: from.wrapping_add(k * dim),
                    part: to.wrapping_add(k * width),
                    from: seen[k].start,
                    len: seen[k].end,
                });
                // SAFETY: the positions up to each query's own were stored before (the barrier, or this
                // thread); both buffers hold QUERIES rows.
                unsafe { kernels.attend(self.model.kv_type, &pages, &queries[..number], part) };
                if part > first {
                    let all = scratch.results.chunks_exact_mut(width).zip(scratch.parts.chunks_exact(width));
                    for ((all, one), query) in all.zip(&queries[..number]) {
                        // A query that does not see this part must not be touched by it.
                        if query.from / PART_LEN == part {
                            all.copy_from_slice(one);
                        } else if query.from < part * PART_LEN && query.len > part * PART_LEN {
                            kernels.merge(all, one);
                        }
                    }
                }
            }
            self.add_sinks(a, span, head, &some[..number], scratch);
            for (k, (_, row, head)) in some[..number].iter().enumerate() {
                let result = &mut scratch.results[k * width..][..width];
                kernels.finish(result);
                // SAFETY: this row and head are this thread's.
                let o = unsafe { self.part_mut(a.out, *row, head * dim, dim) };
                o.copy_from_slice(&result[..dim]);
            }
        }
    }

    /// Adds the first positions to the results of queries `(row of the span, row of out, head)` that see them apart from
    /// the others, as they see them.
    fn add_sinks(
        &self,
        a: Attend,
        span: &Span<'_>,
        head: usize,
        some: &[(usize, usize, usize)],
        scratch: &mut Scratch,
    ) {
        let sinks: [Option<Sinks>; QUERIES] =
            std::array::from_fn(|k| some.get(k).and_then(|one| span.sinks(a.mask, one.0)));
        let count = sinks.iter().flatten().map(|sinks| sinks.count).max().unwrap_or(0);
        if count == 0 {
            return;
        }
        let (dim, width) = (a.heads.dim, part_len(a.heads.dim));
        let pages = self.head_pages(a, span, head);
        let rows = self.batch.tokens.len();
        for (query, one) in scratch.queries.chunks_exact_mut(dim).zip(some) {
            let row = span.start + one.0;
            // The angles of these are behind those of all rows.
            self.rotated_by(a, a.q, (row, rows + row), one.2, a.scale, query);
        }
        for part in 0..count.div_ceil(PART_LEN) {
            let (from, to) = (scratch.queries.as_ptr(), scratch.parts.as_mut_ptr());
            let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                q: from.wrapping_add(k * dim),
                part: to.wrapping_add(k * width),
                from: 0,
                len: sinks[k].map_or(0, |sinks| sinks.count),
            });
            // SAFETY: these positions were stored in earlier steps; both buffers hold QUERIES rows.
            unsafe { self.model.kernels.attend(self.model.kv_type, &pages, &queries[..some.len()], part) };
            let all = scratch.results.chunks_exact_mut(width).zip(scratch.parts.chunks_exact(width));
            for ((all, one), query) in all.zip(&queries[..some.len()]) {
                if query.len > part * PART_LEN {
                    self.model.kernels.merge(all, one);
                }
            }
        }
    }

    /// The row of `out` that row `row` of the batch goes to.
    fn target(&self, out: Act, row: usize) -> Option<usize> {
        match self.model.program.rows(out) {
            Rows::All => Some(row),
            Rows::Picked => self.batch.picked.binary_search(&(row as u32)).ok(),
        }
    }

    fn head_pages<'b>(&self, a: Attend, span: &Span<'b>, head: usize) -> HeadPages<'b> {
        let (dim, layout) = (a.heads.dim, &self.model.layout);
        let (begin, page_stride, place) = layout.of_layer(a.layer);
        HeadPages {
            pool: self.model.kv.as_ptr(),
            pool_len: self.model.kv.len(),
            page_stride,
            offset: begin + place + head * self.model.kv_type.head_len(dim),
            pages: span.pages[layout.kind(a.layer) as usize],
            dim,
            cap: a.cap,
        }
    }

    /// Every span has one row: work is split over spans, key heads and parts, and merged in the order of
    /// parts after a barrier.
    fn attend_parts(
        &self,
        a: Attend,
        most: usize,
        counter: usize,
        worker: &Worker<'_>,
        scratch: &mut Scratch,
    ) {
        let Heads { q, kv, dim } = a.heads;
        let (spans, share, width) = (self.batch.spans, q / kv, part_len(dim));
        assert!(self.parts_len >= spans.len() * q * most * width);
        // `[span][query head][part]`
        let at = |span: usize, head: usize, part: usize| {
            self.parts.wrapping_add(((span * q + head) * most + part) * width)
        };
        let kernels = &self.model.kernels;
        while let Some(items) = worker.claim(counter, 1, spans.len() * kv * most) {
            for item in items {
                let (head, part) = (item / most % kv, item % most);
                let (i, span) = (item / most / kv, &spans[item / most / kv]);
                let last = span.position / PART_LEN;
                let seen = span.sees(a.mask, 0);
                let wanted = self.target(a.out, span.start).is_some() && part >= seen.start / PART_LEN;
                if part > last || !wanted && part < last {
                    continue;
                }
                // The new key is in the last part, which this thread alone reads.
                if part == last {
                    self.store(a, span, 0, head, scratch);
                }
                if !wanted {
                    continue;
                }
                scratch.queries.resize(scratch.queries.len().max(QUERIES * dim), 0.0);
                let pages = self.head_pages(a, span, head);
                for from in (0..share).step_by(QUERIES) {
                    let number = QUERIES.min(share - from);
                    let first = head * share + from;
                    for (k, row) in scratch.queries.chunks_exact_mut(dim).take(number).enumerate() {
                        self.rotated(a, a.q, span.start, first + k, a.scale, row);
                    }
                    let queries: [Query; QUERIES] = std::array::from_fn(|k| Query {
                        q: scratch.queries.as_ptr().wrapping_add(k * dim),
                        part: at(i, (first + k).min(q - 1), part),
                        from: seen.start,
                        len: seen.end,
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
                let Some(row) = self.target(a.out, spans[i].start) else { continue };
                let first = spans[i].sees(a.mask, 0).start / PART_LEN;
                // SAFETY: after the barrier all parts of this head are this thread's.
                let part = |part| unsafe { std::slice::from_raw_parts_mut(at(i, head, part), width) };
                let all = part(first);
                for next in first + 1..=spans[i].position / PART_LEN {
                    kernels.merge(all, part(next));
                }
                kernels.finish(all);
                // SAFETY: this row and head are this thread's.
                let o = unsafe { self.part_mut(a.out, row, head * dim, dim) };
                o.copy_from_slice(&all[..dim]);
            }
        }
    }
}
