//! Attention over KV pages.
//!
//! In a page of one layer and head, keys lie `[dim][PAGE]` and values `[PAGE][padded dim]`
//! ([`kv::Format`](super::kv::Format) says how): scores are made for 16 positions at once without a
//! horizontal sum, and outputs for 16 dimensions at once. Pages are taken in ascending order with a
//! running maximum (online softmax), a part of [`PART`] pages at a time; parts are merged in ascending
//! order. Inside a page the order of every sum is fixed. So a query's result does not depend on which
//! other queries are made, nor on whether one thread made all parts.

use super::kv::{Format, padded};
use super::simd::{LANES, Lanes, exp, fma, tree_sum};
use crate::batch::PAGE;

/// Vectors of scores in a page.
const SCORES: usize = PAGE / LANES;
/// Queries that share the reading of a page.
pub const QUERIES: usize = 4;
/// Pages that are summed before they are merged with those before: part of the arithmetic.
pub const PART: usize = 8;

/// Where pages of one layer and head lie in the pool.
#[derive(Clone, Copy)]
pub struct HeadPages<'a> {
    /// The pool.
    pub pool: *const u8,
    /// Length of the pool in bytes.
    pub pool_len: usize,
    /// Bytes from one page to the next.
    pub page_stride: usize,
    /// Where the layer and head begin in a page.
    pub offset: usize,
    /// The sequence's pages.
    pub pages: &'a [u32],
    /// Width of a head.
    pub dim: usize,
    /// `cap * tanh(score / cap)` on every score.
    pub cap: Option<f32>,
}

/// Values of a [`Query`]'s part: the sums, then maximum and total.
pub const fn part_len(dim: usize) -> usize {
    padded(dim) + LANES
}

/// A query and where its result goes.
pub struct Query {
    /// `dim` values, already multiplied by the factor on the scores.
    pub q: *const f32,
    /// [`part_len`] values: see [`attend`].
    pub part: *mut f32,
    /// The first position that it sees.
    pub from: usize,
    /// One past the last.
    pub len: usize,
}

/// Sums part `part` of the pages for up to [`QUERIES`] queries of one key head. A query's result is
/// `Σ e^(score - max) * value` over the part, then `max`, then `Σ e^(score - max)`; parts are put
/// together by [`merge`] and ended by [`finish`].
///
/// # Safety
/// As for [`Lanes`]; the pages hold at least as many positions as the longest query sees and nobody
/// writes those; every query's pointers are good for the lengths that [`Query`] states.
#[inline(always)]
pub unsafe fn attend<V: Lanes, K: Format>(kv: &HeadPages<'_>, queries: &[Query], part: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match queries {
            [] => {}
            [_] => some::<V, K, 1>(kv, queries, part),
            [_, _] => some::<V, K, 2>(kv, queries, part),
            [_, _, _] => some::<V, K, 3>(kv, queries, part),
            _ => some::<V, K, QUERIES>(kv, queries, part),
        }
    }
}

/// Puts the part that follows to `all`, the parts before it.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn merge<V: Lanes>(all: &mut [f32], part: &[f32]) {
    assert!(all.len() == part.len() && all.len() > LANES);
    let width = all.len() - LANES;
    let (here, next) = (all[width], part[width]);
    // NaN in either is in the totals too.
    let max = if next > here { next } else { here };
    // SAFETY: both hold `width + 16` values; the rest is the caller's promise.
    unsafe {
        let a = exp(V::splat(here - max));
        let b = exp(V::splat(next - max));
        for i in (0..width).step_by(LANES) {
            let to = all.as_mut_ptr().add(i);
            V::load(part.as_ptr().add(i)).fma(b, V::load(to).mul(a)).store(to);
        }
        let (a, b) = (a.to_array()[0], b.to_array()[0]);
        all[width + 1] = fma(part[width + 1], b, all[width + 1] * a);
        all[width] = max;
    }
}

/// Divides the sums by their total.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn finish<V: Lanes>(all: &mut [f32]) {
    assert!(all.len() > LANES);
    let width = all.len() - LANES;
    // SAFETY: `all` holds `width + 16` values; the rest is the caller's promise.
    unsafe {
        let scale = V::splat(1.0 / all[width + 1]);
        for i in (0..width).step_by(LANES) {
            let at = all.as_mut_ptr().add(i);
            V::load(at).mul(scale).store(at);
        }
    }
}

#[inline(always)]
unsafe fn some<V: Lanes, K: Format, const Q: usize>(kv: &HeadPages<'_>, queries: &[Query], part: usize) {
    let width = padded(kv.dim);
    let longest = queries.iter().map(|q| q.len).max().unwrap_or(0);
    let first = queries.iter().map(|q| q.from).min().unwrap_or(0);
    let (mut max, mut total) = ([f32::NEG_INFINITY; Q], [0.0f32; Q]);
    let pages = (part * PART).max(first / PAGE)..longest.div_ceil(PAGE).min((part + 1) * PART);
    // SAFETY: the caller promises pages, queries and outputs; page numbers are checked here.
    unsafe {
        for q in queries {
            for i in (0..width).step_by(LANES) {
                V::splat(0.0).store(q.part.add(i));
            }
        }
        for i in pages {
            let at = kv.pages[i] as usize * kv.page_stride + kv.offset;
            assert!(at + K::head_len(kv.dim) <= kv.pool_len);
            let head = kv.pool.add(at);
            let valid: [usize; Q] =
                std::array::from_fn(|q| queries[q].len.saturating_sub(i * PAGE).min(PAGE));
            let unseen: [usize; Q] =
                std::array::from_fn(|q| queries[q].from.saturating_sub(i * PAGE).min(valid[q]));
            let mut scores = scores::<V, K, Q>(head, queries, kv.dim);
            if let Some(cap) = kv.cap {
                scores.iter_mut().for_each(|scores| capped::<V>(scores, cap));
            }
            let mut weights = [[0.0f32; PAGE]; Q];
            for q in 0..Q {
                if valid[q] == unseen[q] {
                    continue;
                }
                let mut s = scores[q];
                s[valid[q]..].fill(f32::NEG_INFINITY);
                s[..unseen[q]].fill(f32::NEG_INFINITY);
                // A NaN score is passed over here, and makes its weight and `total` NaN below.
                let here = s.iter().fold(max[q], |m, s| if *s > m { *s } else { m });
                let grown = exp(V::splat(max[q] - here)).to_array()[0];
                let mut sum = V::splat(0.0);
                for v in 0..SCORES {
                    let e = exp(V::load(s.as_ptr().add(v * LANES)).sub(V::splat(here)));
                    e.store(weights[q].as_mut_ptr().add(v * LANES));
                }
                weights[q][valid[q]..].fill(0.0);
                weights[q][..unseen[q]].fill(0.0);
                for v in 0..SCORES {
                    sum = sum.add(V::load(weights[q].as_ptr().add(v * LANES)));
                }
                total[q] = fma(total[q], grown, tree_sum(sum.to_array()));
                max[q] = here;
                for i in (0..width).step_by(LANES) {
                    V::load(queries[q].part.add(i)).mul(V::splat(grown)).store(queries[q].part.add(i));
                }
            }
            // In ascending order for each: what it alone sees first, what all see, the rest.
            let end = valid.iter().copied().min().unwrap_or(0);
            let begin = unseen.iter().copied().max().unwrap_or(0).min(end);
            for q in 0..Q {
                gather::<V, K, 1>(
                    head,
                    kv.dim,
                    &queries[q..=q],
                    &weights[q..=q],
                    unseen[q].min(begin),
                    begin,
                );
            }
            gather::<V, K, Q>(head, kv.dim, queries, &weights, begin, end);
            for q in 0..Q {
                gather::<V, K, 1>(
                    head,
                    kv.dim,
                    &queries[q..=q],
                    &weights[q..=q],
                    end.max(unseen[q]),
                    valid[q],
                );
            }
        }
        for (q, query) in queries.iter().enumerate() {
            query.part.add(width).write(max[q]);
            query.part.add(width + 1).write(total[q]);
        }
    }
}

/// `cap * tanh(score / cap)`, as `cap * (1 - 2 / (e^(2 score / cap) + 1))`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn capped<V: Lanes>(scores: &mut [f32; PAGE], cap: f32) {
    // SAFETY: every load and store is of LANES of the PAGE scores; the rest is the caller's promise.
    unsafe {
        let (two, one) = (V::splat(2.0), V::splat(1.0));
        for v in 0..SCORES {
            let at = scores.as_mut_ptr().add(v * LANES);
            let e = exp(V::load(at).mul(V::splat(2.0 / cap)));
            one.sub(two.div(e.add(one))).mul(V::splat(cap)).store(at);
        }
    }
}

/// `q · k` for all positions of a page, one after another along the head.
#[inline(always)]
unsafe fn scores<V: Lanes, K: Format, const Q: usize>(
    head: *const u8,
    queries: &[Query],
    dim: usize,
) -> [[f32; PAGE]; Q] {
    let mut out = [[0.0; PAGE]; Q];
    // SAFETY: a head holds `dim` rows of PAGE keys, queries `dim` values.
    unsafe {
        let mut totals = [[V::splat(0.0); SCORES]; Q];
        for from in (0..dim).step_by(K::GROUP) {
            // Where there is one group, its sums are the totals.
            let mut sums = [[V::splat(0.0); SCORES]; Q];
            for d in from..dim.min(from + K::GROUP) {
                let k: [V; SCORES] = std::array::from_fn(|v| K::key::<V>(head, d, v * LANES));
                for (q, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(*queries[q].q.add(d));
                    for (s, k) in sums.iter_mut().zip(k) {
                        *s = x.fma(k, *s);
                    }
                }
            }
            for v in 0..SCORES {
                let scale = K::key_scale::<V>(head, dim, from, v * LANES);
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    totals[v] = match scale {
                        Some(scale) => sums[v].fma(scale, totals[v]),
                        None => sums[v],
                    };
                }
            }
        }
        for (out, totals) in out.iter_mut().zip(totals) {
            for (v, s) in totals.into_iter().enumerate() {
                s.store(out.as_mut_ptr().add(v * LANES));
            }
        }
    }
    out
}

/// Adds the weighted values of positions `from..to` to the outputs.
#[inline(always)]
unsafe fn gather<V: Lanes, K: Format, const Q: usize>(
    head: *const u8,
    dim: usize,
    queries: &[Query],
    weights: &[[f32; PAGE]],
    from: usize,
    to: usize,
) {
    if from >= to {
        return;
    }
    let width = padded(dim);
    let mut i = 0;
    while i < width {
        // SAFETY: `i + N * LANES <= width`, positions are below PAGE.
        i += unsafe {
            if width - i >= 4 * LANES {
                columns::<V, K, Q, 4>(head, dim, queries, weights, i, from, to)
            } else {
                columns::<V, K, Q, 1>(head, dim, queries, weights, i, from, to)
            }
        };
    }
}

#[inline(always)]
unsafe fn columns<V: Lanes, K: Format, const Q: usize, const N: usize>(
    head: *const u8,
    dim: usize,
    queries: &[Query],
    weights: &[[f32; PAGE]],
    at: usize,
    from: usize,
    to: usize,
) -> usize {
    // SAFETY: the caller promises columns `at..at + N * LANES` and positions `from..to`.
    unsafe {
        let mut sums: [[V; N]; Q] =
            std::array::from_fn(|q| std::array::from_fn(|v| V::load(queries[q].part.add(at + v * LANES))));
        for p in from..to {
            let x: [V; N] = std::array::from_fn(|v| K::value::<V>(head, dim, p, at + v * LANES));
            for (q, sums) in sums.iter_mut().enumerate() {
                let w = V::splat(weights[q][p]);
                for (s, x) in sums.iter_mut().zip(x) {
                    *s = w.fma(x, *s);
                }
            }
        }
        for (q, sums) in sums.into_iter().enumerate() {
            for (v, s) in sums.into_iter().enumerate() {
                s.store(queries[q].part.add(at + v * LANES));
            }
        }
    }
    N * LANES
}
