//! Activations in 8 bits, as the 3-bit kernels read them: groups of 40 inputs, quantised as in
//! [`q8`](super::q8), `offset = -3 * sum(values)`.
//!
//! The kernels split a word's ten codes into three vectors of bytes (see [`split`](super::int3::split)):
//! A holds codes 0, 3, 6, 8, B codes 1, 4, 7, 9, and C codes 2 and 5. The values of a group follow:
//!
//! [`Rows`](super::q8::Rows): a block is 16 groups, four vectors of four groups; a vector is 64 bytes
//! of A, 64 of B, 64 of C (two values and two zeros a word), four words a group. Scales and offsets
//! stand in the order of lanes as in `q8`.
//!
//! [`Tiles`](super::q8::Tiles): a group is 16 bytes of A, 16 of B, 8 of C.

use super::q8::{TILE, lane_of, scale_of};
use super::simd::{LANES, Lanes};

/// Inputs of a group.
pub const GROUP: usize = 40;
/// Bytes of a group in rows.
pub const ROW_BYTES: usize = 48;
/// Bytes of a group in tiles.
pub const TILE_BYTES: usize = 40;
/// Bytes of a block of 16 groups in rows.
pub const BLOCK: usize = ROW_BYTES * LANES;

/// Codes in A, then B, then C.
const ORDER: [usize; 10] = [0, 3, 6, 8, 1, 4, 7, 9, 2, 5];

/// Where group `j` of a block has its bytes of A; B is 64 further, C 128.
pub const fn group_at(j: usize) -> usize {
    (j / 4) * 192 + (j % 4) * 16
}

/// Quantises a group of up to 40 inputs; returns the values in order, the scale and the offset.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn group<V: Lanes>(x: &[f32]) -> ([i8; GROUP], f32, i32) {
    const PADDED: usize = 3 * LANES;
    let mut full = [0.0f32; PADDED];
    full[..x.len()].copy_from_slice(x);
    // SAFETY: `full` holds 48 values; the rest is the caller's promise.
    unsafe {
        let at = full.as_ptr();
        let v = [V::load(at), V::load(at.add(LANES)), V::load(at.add(2 * LANES))];
        let (scale, inverse) = scale_of(&v);
        let (inv, shift) = (V::splat(inverse), V::splat(12_582_912.0));
        let mut q = [0.0f32; PADDED];
        for (i, v) in v.into_iter().enumerate() {
            v.fma(inv, shift).sub(shift).store(q.as_mut_ptr().add(i * LANES));
        }
        let (mut values, mut sum) = ([0i8; GROUP], 0);
        for (v, q) in values.iter_mut().zip(q) {
            *v = q as i8;
            sum += i32::from(*v);
        }
        (values, scale, -3 * sum)
    }
}

/// Quantises a row for the row kernels.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn row<V: Lanes>(x: &[f32], values: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
    for (g, part) in x.chunks(GROUP).enumerate() {
        let (block, j) = (g / LANES, g % LANES);
        // SAFETY: the caller's promise.
        let (q, scale, offset) = unsafe { group::<V>(part) };
        let out = &mut values[block * BLOCK + group_at(j)..][..144];
        for word in 0..4 {
            for (i, code) in ORDER.into_iter().enumerate() {
                out[(i / 4) * 64 + word * 4 + i % 4] = q[word * 10 + code];
            }
        }
        let lane = block * LANES + lane_of(j);
        (scales[lane], offsets[lane]) = (scale, offset);
    }
}

/// Quantises a row as row `t` of a tile; the slices are those of the whole tile.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn tile_row<V: Lanes>(
    x: &[f32],
    order: &[u32],
    t: usize,
    values: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    for (i, &g) in order.iter().enumerate() {
        let part = &x[g as usize * GROUP..x.len().min((g as usize + 1) * GROUP)];
        let slot = i * TILE + t;
        // SAFETY: the caller's promise.
        let (q, scale, offset) = unsafe { group::<V>(part) };
        let out = &mut values[slot * TILE_BYTES..(slot + 1) * TILE_BYTES];
        for word in 0..4 {
            for (i, code) in ORDER.into_iter().enumerate() {
                let at = if i < 8 { (i / 4) * 16 + word * 4 + i % 4 } else { 32 + word * 2 + i % 2 };
                out[at] = q[word * 10 + code];
            }
        }
        (scales[slot], offsets[slot]) = (scale, offset);
    }
}
