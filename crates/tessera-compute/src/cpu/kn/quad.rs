//! Vectors of 128 bits: four rows.

use super::super::simd::{Lanes, Quad};
use super::*;

/// `len` rows from `row`, a multiple of 4, against tokens `t0..t0 + T` in `P` planes.
///
/// # Safety
/// As for [`Quad`]. The rows and tokens exist; `y` has room for `len` sums of each token, `count` apart.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block<Q: Quad, F: Format, const P: usize, const T: usize>(
    w: &Codes<'_>,
    row: usize,
    len: usize,
    x: &q8::Rows,
    t0: usize,
    y: *mut f32,
    count: usize,
) {
    let size = w.scale_dtype.size();
    for g in 0..w.groups {
        let (b, j) = (g / LANES, g % LANES);
        // SAFETY: group `g` of every row and token is inside, as the caller promises; a prefetch may name
        // any address.
        unsafe {
            let words: [*const u8; 4] =
                std::array::from_fn(|s| w.words.as_ptr().add(((4 * g + s) * w.rows + row) * 4));
            let scales = w.scales.as_ptr().add((g * w.rows + row) * size);
            let mut values = [[[[Q::splat(0); 3]; 4]; P]; T];
            let mut offsets = [Q::splat(0); T];
            let mut factors = [Q::splat_f32(0.0); T];
            for t in 0..T {
                let block = (t0 + t) * x.blocks + b;
                let at = x.values.as_ptr().add(block * q8::block::<F>(P) + q8::group_at::<F>(j, P));
                for (p, values) in values[t].iter_mut().enumerate() {
                    for (s, values) in values.iter_mut().enumerate() {
                        for (i, v) in values[..F::PARTS].iter_mut().enumerate() {
                            *v = Q::splat(input(at, s, p * F::PARTS + i));
                        }
                    }
                }
                let lane = block * LANES + q8::lane_of(j);
                offsets[t] = Q::splat(x.offsets[lane]);
                factors[t] = Q::splat_f32(x.scales[lane]);
            }
            let ahead = w.rows * 16;
            for i in (0..len).step_by(4) {
                let mut sums = [[Q::start(); P]; T];
                for s in 0..4 {
                    if i % 16 == 0 {
                        // The same rows of the next group: the stream jumps there after this block.
                        Q::Lanes::prefetch(words[s].wrapping_add(i * 4 + ahead));
                    }
                    let parts = F::split_quad::<Q>(Q::load(words[s].add(i * 4)));
                    for (sums, values) in sums.iter_mut().zip(&values) {
                        for (sum, values) in sums.iter_mut().zip(values) {
                            for (part, v) in parts[..F::PARTS].iter().zip(&values[s]) {
                                *sum = Q::step(*sum, *part, *v);
                            }
                        }
                    }
                }
                let ws = Q::load_scales(w.scale_dtype, scales.add(i * size));
                for t in 0..T {
                    let mut dot = offsets[t];
                    for (p, sum) in sums[t].iter().enumerate() {
                        let more = Q::finish(*sum);
                        // The high plane comes first.
                        dot = Q::add(dot, if p + 1 < P { Q::shl::<7>(more) } else { more });
                    }
                    let at = y.add(t * count + i);
                    Q::store_f32(Q::fma(dot, Q::mul_f32(ws, factors[t]), Q::load_f32(at)), at);
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
kernel!(
    /// See [`kn_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// As for [`Quad`].
    kn_neon<Quad>, block, 4, "neon", 2, [1]
);
#[cfg(target_arch = "aarch64")]
kernel!(
    /// See [`kn_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// The machine has `dotprod`; as for [`Quad`].
    kn_dotprod<Quad>, block, 4, "neon,dotprod", 2, [1]
);
#[cfg(all(target_arch = "wasm32", not(feature = "relaxed-simd")))]
kernel!(
    /// See [`kn_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// As for [`Quad`].
    kn_simd128<Quad>, block, 4, "simd128", 2, [1]
);
#[cfg(all(target_arch = "wasm32", feature = "relaxed-simd"))]
kernel!(
    /// See [`kn_scalar`]; up to 2 tokens share one unpacking.
    ///
    /// # Safety
    /// As for [`Quad`].
    kn_simd128<Quad>, block, 4, "simd128,relaxed-simd", 2, [1]
);
