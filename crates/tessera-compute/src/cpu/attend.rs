//! Attention over KV pages in f16.
//!
//! A page of one layer and head is keys `[dim][PAGE]`, then values `[PAGE][padded dim]`: scores are
//! made for 16 positions at once without a horizontal sum, and outputs for 16 dimensions at once.
//! Pages are taken in ascending order with a running maximum (online softmax), and inside a page the
//! order of every sum is fixed, so a query's result does not depend on which other queries are made.

use super::simd::{LANES, Lanes, exp, tree_sum};
use crate::batch::PAGE;

/// Vectors of scores in a page.
const SCORES: usize = PAGE / LANES;
/// Queries that share the reading of a page.
pub const QUERIES: usize = 4;

/// Where pages of one layer and head lie in the pool.
#[derive(Clone, Copy)]
pub struct HeadPages<'a> {
    /// The pool.
    pub pool: *const u16,
    /// Length of the pool, in values.
    pub pool_len: usize,
    /// Values from one page to the next.
    pub page_stride: usize,
    /// Where the layer and head begin in a page.
    pub offset: usize,
    /// The sequence's pages.
    pub pages: &'a [u32],
    /// Width of a head.
    pub dim: usize,
}

/// Width of a row of values in a page.
pub const fn padded(dim: usize) -> usize {
    dim.div_ceil(LANES) * LANES
}

/// Values of one layer and head in a page.
pub const fn head_len(dim: usize) -> usize {
    PAGE * (dim + padded(dim))
}

/// A query and where its result goes.
pub struct Query {
    /// `dim` values, already divided by `sqrt(dim)`.
    pub q: *const f32,
    /// `padded(dim)` values.
    pub out: *mut f32,
    /// Positions that it sees.
    pub len: usize,
}

/// Writes one position's key and value.
///
/// # Safety
/// As for [`Lanes`]; `head` is the start of the layer and head in the position's page, writable and
/// not read by another thread meanwhile.
#[inline(always)]
pub unsafe fn store<V: Lanes>(key: &[f32], value: &[f32], slot: usize, head: *mut u16) {
    let dim = key.len();
    // SAFETY: `slot < PAGE`, so every address is inside the head's `head_len(dim)` values.
    unsafe {
        let values = head.add(dim * PAGE + slot * padded(dim));
        for i in (0..dim).step_by(LANES) {
            let n = LANES.min(dim - i);
            let narrow = |x: &[f32]| {
                let mut full = [0.0; LANES];
                full[..n].copy_from_slice(&x[i..i + n]);
                V::load(full.as_ptr()).to_f16()
            };
            for (j, k) in narrow(key)[..n].iter().enumerate() {
                head.add((i + j) * PAGE + slot).write(*k);
            }
            for (j, v) in narrow(value).iter().enumerate() {
                values.add(i + j).write(*v);
            }
        }
    }
}

/// Answers up to [`QUERIES`] queries of one key head.
///
/// # Safety
/// As for [`Lanes`]; the pages hold at least as many positions as the longest query sees and nobody
/// writes those; every query's pointers are good for the lengths that [`Query`] states.
#[inline(always)]
pub unsafe fn attend<V: Lanes>(kv: &HeadPages<'_>, queries: &[Query]) {
    // SAFETY: the caller's promise.
    unsafe {
        match queries {
            [] => {}
            [_] => some::<V, 1>(kv, queries),
            [_, _] => some::<V, 2>(kv, queries),
            [_, _, _] => some::<V, 3>(kv, queries),
            _ => some::<V, QUERIES>(kv, queries),
        }
    }
}

#[inline(always)]
unsafe fn some<V: Lanes, const Q: usize>(kv: &HeadPages<'_>, queries: &[Query]) {
    let width = padded(kv.dim);
    let longest = queries.iter().map(|q| q.len).max().unwrap_or(0);
    let (mut max, mut total) = ([f32::NEG_INFINITY; Q], [0.0f32; Q]);
    // SAFETY: the caller promises pages, queries and outputs; page numbers are checked here.
    unsafe {
        for q in queries {
            for i in (0..width).step_by(LANES) {
                V::splat(0.0).store(q.out.add(i));
            }
        }
        for (i, &page) in kv.pages[..longest.div_ceil(PAGE)].iter().enumerate() {
            let at = page as usize * kv.page_stride + kv.offset;
            assert!(at + head_len(kv.dim) <= kv.pool_len);
            let keys = kv.pool.add(at);
            let values = keys.add(kv.dim * PAGE);
            let valid: [usize; Q] =
                std::array::from_fn(|q| queries[q].len.saturating_sub(i * PAGE).min(PAGE));
            let scores = scores::<V, Q>(keys, queries, kv.dim);
            let mut weights = [[0.0f32; PAGE]; Q];
            for q in 0..Q {
                if valid[q] == 0 {
                    continue;
                }
                let mut s = scores[q];
                s[valid[q]..].fill(f32::NEG_INFINITY);
                // A NaN score is passed over here, and makes its weight and `total` NaN below.
                let here = s.iter().fold(max[q], |m, s| if *s > m { *s } else { m });
                let grown = exp(V::splat(max[q] - here)).to_array()[0];
                let mut sum = V::splat(0.0);
                for v in 0..SCORES {
                    let e = exp(V::load(s.as_ptr().add(v * LANES)).sub(V::splat(here)));
                    e.store(weights[q].as_mut_ptr().add(v * LANES));
                }
                weights[q][valid[q]..].fill(0.0);
                for v in 0..SCORES {
                    sum = sum.add(V::load(weights[q].as_ptr().add(v * LANES)));
                }
                total[q] = total[q].mul_add(grown, tree_sum(sum.to_array()));
                max[q] = here;
                for i in (0..width).step_by(LANES) {
                    V::load(queries[q].out.add(i)).mul(V::splat(grown)).store(queries[q].out.add(i));
                }
            }
            let shared = valid.iter().copied().min().unwrap_or(0);
            gather::<V, Q>(values, queries, &weights, width, 0, shared);
            for q in 0..Q {
                gather::<V, 1>(values, &queries[q..=q], &weights[q..=q], width, shared, valid[q]);
            }
        }
        for (q, query) in queries.iter().enumerate() {
            let scale = V::splat(1.0 / total[q]);
            for i in (0..width).step_by(LANES) {
                V::load(query.out.add(i)).mul(scale).store(query.out.add(i));
            }
        }
    }
}

/// `q · k` for all positions of a page, one after another along the head.
#[inline(always)]
unsafe fn scores<V: Lanes, const Q: usize>(
    keys: *const u16,
    queries: &[Query],
    dim: usize,
) -> [[f32; PAGE]; Q] {
    let mut out = [[0.0; PAGE]; Q];
    // SAFETY: keys hold `dim` rows of PAGE values, queries `dim` values.
    unsafe {
        let mut sums = [[V::splat(0.0); SCORES]; Q];
        for d in 0..dim {
            let k: [V; SCORES] = std::array::from_fn(|v| V::load_f16(keys.add(d * PAGE + v * LANES)));
            for (q, sums) in sums.iter_mut().enumerate() {
                let x = V::splat(*queries[q].q.add(d));
                for (s, k) in sums.iter_mut().zip(k) {
                    *s = x.fma(k, *s);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (v, s) in sums.into_iter().enumerate() {
                s.store(out.as_mut_ptr().add(v * LANES));
            }
        }
    }
    out
}

/// Adds the weighted values of positions `from..to` to the outputs.
#[inline(always)]
unsafe fn gather<V: Lanes, const Q: usize>(
    values: *const u16,
    queries: &[Query],
    weights: &[[f32; PAGE]],
    width: usize,
    from: usize,
    to: usize,
) {
    if from >= to {
        return;
    }
    let mut i = 0;
    while i < width {
        // SAFETY: `i + N * LANES <= width`, positions are below PAGE.
        i += unsafe {
            if width - i >= 4 * LANES {
                columns::<V, Q, 4>(values, queries, weights, width, i, from, to)
            } else {
                columns::<V, Q, 1>(values, queries, weights, width, i, from, to)
            }
        };
    }
}

#[inline(always)]
unsafe fn columns<V: Lanes, const Q: usize, const N: usize>(
    values: *const u16,
    queries: &[Query],
    weights: &[[f32; PAGE]],
    width: usize,
    at: usize,
    from: usize,
    to: usize,
) -> usize {
    // SAFETY: the caller promises columns `at..at + N * LANES` and positions `from..to`.
    unsafe {
        let mut sums: [[V; N]; Q] =
            std::array::from_fn(|q| std::array::from_fn(|v| V::load(queries[q].out.add(at + v * LANES))));
        for p in from..to {
            let row = values.add(p * width + at);
            let x: [V; N] = std::array::from_fn(|v| V::load_f16(row.add(v * LANES)));
            for (q, sums) in sums.iter_mut().enumerate() {
                let w = V::splat(weights[q][p]);
                for (s, x) in sums.iter_mut().zip(x) {
                    *s = w.fma(x, *s);
                }
            }
        }
        for (q, sums) in sums.into_iter().enumerate() {
            for (v, s) in sums.into_iter().enumerate() {
                s.store(queries[q].out.add(at + v * LANES));
            }
        }
    }
    N * LANES
}
