//! Vectors of 128 bits: a vector is one group, so 16 bytes of codes, and a lane of sums for every fourth
//! group is made at a time.

use super::super::codes::GROUP_BYTES;
use super::super::simd::{Lanes, Quad};
use super::*;

/// Bytes by which words are prefetched: the hardware may stop at the end of a page.
const AHEAD: usize = 1024;

/// See [`rows_scalar`]; up to 2 tokens share one unpacking.
///
/// # Safety
/// As for [`Quad`].
#[inline(always)]
unsafe fn rows<Q: Quad, F: Format>(w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    w.check::<F>(&rows, x, n, y);
    let mut t = 0;
    while t < n {
        // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
        unsafe {
            match (x.planes, n - t) {
                (1, 1) => some_tokens::<Q, F, 1, 1>(w, &rows, x, t, y),
                (1, _) => some_tokens::<Q, F, 1, 2>(w, &rows, x, t, y),
                (_, 1) => some_tokens::<Q, F, 2, 1>(w, &rows, x, t, y),
                (_, _) => some_tokens::<Q, F, 2, 2>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(2);
    }
}

/// All rows against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// As for [`rows`]; the lengths were checked.
#[inline(always)]
unsafe fn some_tokens<Q: Quad, F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    let size = w.scale_dtype.size();
    for (i, row) in rows.clone().enumerate() {
        // SAFETY: `check` proved that every row's words and scales, and every token's values, scales and
        // offsets, are inside their slices; a prefetch may name any address.
        unsafe {
            let mut acc = [[Q::splat_f32(0.0); 4]; T];
            let words = w.words.as_ptr().add(row * w.groups * GROUP_BYTES);
            let scales = w.scales.as_ptr().add(row * w.groups * size);
            for b in 0..full {
                let at = words.add(b * LANES * GROUP_BYTES);
                for line in (0..LANES * GROUP_BYTES).step_by(64) {
                    Q::Lanes::prefetch(at.wrapping_add(AHEAD + line));
                }
                let ws = Q::load_scale_columns(w.scale_dtype, scales.add(b * LANES * size));
                block::<Q, F, P, T>(at, ws, x, t0, b, &mut acc);
            }
            if left > 0 {
                // Copied to where zeros follow.
                let (mut codes, mut ws) = ([0u8; LANES * GROUP_BYTES], [0u8; LANES * 4]);
                let from = words.add(full * LANES * GROUP_BYTES);
                std::ptr::copy_nonoverlapping(from, codes.as_mut_ptr(), left * GROUP_BYTES);
                let from = scales.add(full * LANES * size);
                std::ptr::copy_nonoverlapping(from, ws.as_mut_ptr(), left * size);
                let ws = Q::load_scale_columns(w.scale_dtype, ws.as_ptr());
                block::<Q, F, P, T>(codes.as_ptr(), ws, x, t0, full, &mut acc);
            }
            for (t, acc) in acc.into_iter().enumerate() {
                let mut sums = [0.0; LANES];
                for (v, sums) in acc.into_iter().zip(sums.chunks_exact_mut(4)) {
                    Q::store_f32(v, sums.as_mut_ptr());
                }
                y[(t0 + t) * rows.len() + i] = tree_sum(sums);
            }
        }
    }
}

/// 16 groups of one row against `T` tokens. `ws[c]` are the scales of groups `c`, `c + 4`, `c + 8` and
/// `c + 12`, which lanes `4 c .. 4 c + 4` sum.
///
/// # Safety
/// 256 bytes at `words`, block `b` in `x` for tokens `t0..t0 + T`.
#[inline(always)]
unsafe fn block<Q: Quad, F: Format, const P: usize, const T: usize>(
    words: *const u8,
    ws: [Q::F; 4],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[Q::F; 4]; T],
) {
    // SAFETY: the caller promises the bytes and the block.
    unsafe {
        for c in 0..4 {
            let mut dots = [[Q::splat(0); 4]; T];
            for v in 0..4 {
                let j = 4 * v + c;
                let parts = F::split_quad::<Q>(Q::load(words.add(j * GROUP_BYTES)));
                for (t, dots) in dots.iter_mut().enumerate() {
                    let block = ((t0 + t) * x.blocks + b) * q8::block::<F>(P);
                    let values = x.values.as_ptr().add(block + q8::group_at::<F>(j, P));
                    for p in 0..P {
                        let mut sum = Q::start();
                        for (i, part) in parts[..F::PARTS].iter().enumerate() {
                            let values = values.add((p * F::PARTS + i) * 64);
                            sum = Q::step(sum, *part, Q::load(values.cast()));
                        }
                        let sum = Q::finish_any(sum);
                        // The high plane comes first.
                        dots[v] = if p == 0 { sum } else { Q::add(Q::shl::<7>(dots[v]), sum) };
                    }
                }
            }
            for (t, (dots, acc)) in dots.into_iter().zip(&mut *acc).enumerate() {
                let at = ((t0 + t) * x.blocks + b) * LANES + 4 * c;
                let dot = Q::add(Q::across(dots), Q::load(x.offsets.as_ptr().add(at).cast()));
                let scale = Q::mul_f32(ws[c], Q::load_f32(x.scales.as_ptr().add(at)));
                acc[c] = Q::fma(dot, scale, acc[c]);
            }
        }
    }
}

macro_rules! quad {
    ($name:ident, $features:literal) => {
        /// See [`rows_scalar`]; up to 2 tokens share one unpacking.
        ///
        /// # Safety
        /// The machine has the instruction set; as for [`Quad`].
        #[target_feature(enable = $features)]
        pub unsafe fn $name<Q: Quad, F: Format>(
            w: &Codes<'_>,
            range: Range<usize>,
            x: &q8::Rows,
            n: usize,
            y: &mut [f32],
        ) {
            // SAFETY: the caller's promise.
            unsafe { rows::<Q, F>(w, range, x, n, y) }
        }
    };
}

#[cfg(target_arch = "aarch64")]
quad!(rows_neon, "neon");
#[cfg(target_arch = "aarch64")]
quad!(rows_dotprod, "neon,dotprod");
