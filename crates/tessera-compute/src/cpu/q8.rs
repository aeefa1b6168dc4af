//! Activations in integers, as the kernels of packed weights read them.
//!
//! A group is as many inputs as a group of weights, with one scale. With one plane `a = max|x| / 127` and
//! the values are `q = round(x / a)`, ties to even, in 8 bits. With two planes `a = max|x| / 16256`, and a
//! value is kept as `q = 128 * high + low`, both of 8 bits (`low` in -64..64): the kernels make a dot
//! product of each and one exact integer of both. `offset = -ZERO * sum(q)` takes the weights' zero
//! point out. With codes below 16 every such integer is below 2^24, so its conversion to f32 is exact.
//!
//! Values stand where the codes stand once a word is split ([`Format::ORDER`]).
//!
//! [`Rows`]: for the row kernels. A block is 16 groups: four vectors of 16 words. A vector is, for each
//! plane and part, 64 bytes: four values a word. Scales and offsets of a block stand in the order of the
//! lanes that sum them: group `j` of a block in lane [`lane_of`]`(j)`.
//!
//! [`Tiles`]: for the tile kernels. `[tile of TILE tokens][group][token][plane]` of a group's steps, a
//! scale and an offset, the groups in the order of [`visit`].
//!
//! With `words` two planes are one of 16 bits, in as many bytes: for instruction sets whose widest product is of 16
//! bits anyway. Codes are widened to it as the even bytes of a vector and the odd ones, and values stand likewise
//! ([`Rows`]: of each part 8 of the even bytes, 64 bytes further 8 of the odd ones; [`Tiles`]: two and two of a step).

use super::format::Format;
use super::lined::Lined;
use super::simd::{LANES, Lanes, tree_sum};

/// Tokens of a tile.
pub const TILE: usize = 8;

/// Bytes of a block of 16 groups in [`Rows`].
pub const fn block<F: Format>(planes: usize) -> usize {
    LANES * 16 * F::PARTS * planes
}

/// Where group `j` of a block has its values of the first part and plane; parts follow 64 bytes apart,
/// planes after all parts.
#[inline(always)]
pub const fn group_at<F: Format>(j: usize, planes: usize) -> usize {
    (j / 4) * 64 * F::PARTS * planes + (j % 4) * 16
}

/// The lane that sums group `j` of every block: what two rounds of unpacking leave on x86.
pub const fn lane_of(j: usize) -> usize {
    4 * (j % 4) + j / 4
}

/// The order in which a tile kernel visits lanes, so that adding partial sums pairwise as soon as
/// both are there gives [`super::simd::tree_sum`]'s order: bits reversed.
pub const VISIT: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];

/// The group that lane `lane` sums in each block; the inverse of [`lane_of`].
pub const fn group_of(lane: usize) -> usize {
    4 * (lane % 4) + lane / 4
}

/// All groups of a row in the order that tile kernels visit them, with the end of each lane's run.
pub fn visit(groups: usize) -> (Vec<u32>, [usize; LANES]) {
    let mut order = Vec::with_capacity(groups);
    let mut ends = [0; LANES];
    for (end, lane) in ends.iter_mut().zip(VISIT) {
        order.extend((group_of(lane)..groups).step_by(LANES).map(|g| g as u32));
        *end = order.len();
    }
    (order, ends)
}

/// Quantised rows for the row kernels.
#[derive(Default)]
pub struct Rows {
    /// `[token][block]`.
    pub values: Lined<i8>,
    /// `[token][blocks * 16]`.
    pub scales: Lined<f32>,
    /// `[token][blocks * 16]`.
    pub offsets: Lined<i32>,
    /// Blocks of a row.
    pub blocks: usize,
    /// Bytes of a group in one plane.
    pub group_bytes: usize,
    /// 1 or 2.
    pub planes: usize,
}

/// Quantised rows for the tile kernels.
#[derive(Default)]
pub struct Tiles {
    /// `[tile][group in visiting order][TILE][plane][group]`.
    pub values: Lined<i8>,
    /// `[tile][group in visiting order][TILE]`.
    pub scales: Lined<f32>,
    /// `[tile][group in visiting order][TILE]`.
    pub offsets: Lined<i32>,
    /// Groups of a row.
    pub groups: usize,
    /// Bytes of a group in one plane.
    pub group_bytes: usize,
    /// 1 or 2.
    pub planes: usize,
}

impl Rows {
    /// Makes room for `n` rows of `groups` groups of `group_bytes` values in each of `planes`, all zero.
    pub fn reset(&mut self, n: usize, groups: usize, group_bytes: usize, planes: usize) {
        self.blocks = groups.div_ceil(LANES);
        (self.group_bytes, self.planes) = (group_bytes, planes);
        self.values.zeroed(n * self.blocks * LANES * group_bytes * planes);
        self.scales.zeroed(n * self.blocks * LANES);
        self.offsets.zeroed(n * self.blocks * LANES);
    }
}

impl Tiles {
    /// Makes room as [`Rows::reset`] does. What it holds is arbitrary, unused rows of the last tile
    /// included: their results are not read.
    pub fn reset(&mut self, n: usize, groups: usize, group_bytes: usize, planes: usize) {
        (self.groups, self.group_bytes, self.planes) = (groups, group_bytes, planes);
        let slots = n.div_ceil(TILE) * TILE * self.groups;
        self.values.grow(slots * group_bytes * planes);
        self.scales.grow(slots);
        self.offsets.grow(slots);
    }
}

/// Room for `len` values, without clearing what is there.
pub fn grow<T: Copy + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.resize(len, T::default());
    }
}

/// The largest value that a scale makes, by the number of planes.
const fn top(planes: usize) -> f32 {
    if planes == 2 { 16256.0 } else { 127.0 }
}

/// Largest lane, by halves, which is quicker than one after the other.
#[inline(always)]
fn tree_max(mut v: [f32; LANES]) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            v[i] = if v[i + n] > v[i] { v[i + n] } else { v[i] };
        }
        n /= 2;
    }
    v[0]
}

/// Quantises up to `group` inputs as one group: the values in order, the scale and their sum. `N` is a
/// multiple of 16 and not below `group`. A group that is as good as zero has scale 0; one with an infinity or NaN has the scale
/// NaN, so that a broken activation stays broken in the logits instead of becoming some integer.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn quantise<V: Lanes, const N: usize>(
    x: &[f32],
    group: usize,
    planes: usize,
) -> ([i32; N], f32, i32) {
    let mut full = [0.0f32; N];
    if x.len() == group {
        // A length that the compiler knows needs no call.
        full[..group].copy_from_slice(&x[..group]);
    } else {
        full[..x.len()].copy_from_slice(x);
    }
    // SAFETY: `full` and `q` hold `N` values, a multiple of 16; the rest is the caller's promise.
    unsafe {
        let at = full.as_ptr();
        let (mut sum, mut max) = (V::splat(0.0), V::splat(0.0));
        for i in (0..N).step_by(LANES) {
            let v = V::load(at.add(i)).abs();
            (sum, max) = (sum.add(v), max.max(v));
        }
        // Infinity and NaN times zero are NaN, and anything but them is passed over by the maximum.
        let broken = tree_sum(sum.mul(V::splat(0.0)).to_array());
        let scale = (tree_max(max.to_array()) + broken) / top(planes);
        if scale.is_nan() {
            return ([0; N], scale, 0);
        }
        // A subnormal scale has no finite reciprocal.
        if scale <= 1e-37 {
            return ([0; N], 0.0, 0);
        }
        // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
        let (inv, shift) = (V::splat(1.0 / scale), V::splat(12_582_912.0));
        let mut q = [0.0f32; N];
        for i in (0..N).step_by(LANES) {
            V::load(at.add(i)).fma(inv, shift).store(q.as_mut_ptr().add(i));
        }
        let q = q.map(|v| v.to_bits().wrapping_sub(12_582_912.0f32.to_bits()) as i32);
        (q, scale, q.iter().sum())
    }
}

/// The two planes of values: with one plane they are all in the first.
#[inline(always)]
fn split<const N: usize>(q: &[i32; N], planes: usize) -> [[i8; N]; 2] {
    let mut out = [[0; N]; 2];
    for i in 0..N {
        let high = if planes == 2 { (q[i] + 64) >> 7 } else { q[i] };
        (out[0][i], out[1][i]) = (high as i8, (q[i] - (high << 7)) as i8);
    }
    out
}

/// Inputs of the largest group, up to a whole number of vectors.
const PADDED: usize = 3 * LANES;

/// Values of 16 bits for the row kernels: of each part those of the even bytes, then those of the odd ones.
#[inline(always)]
fn halves<F: Format>(q: &[i32; PADDED]) -> [[i16; 8]; 6] {
    let values = F::arrange(q);
    let mut out = [[0; 8]; 6];
    for (half, out) in out[..2 * F::PARTS].iter_mut().enumerate() {
        let (part, odd) = (half / 2, half % 2);
        for (i, out) in out.iter_mut().enumerate() {
            // A third part has two values a word, and zeros.
            *out = match part {
                0 | 1 => values[part * 16 + 2 * i + odd] as i16,
                _ if i % 2 == 0 => values[32 + i + odd] as i16,
                _ => 0,
            };
        }
    }
    out
}

/// As [`F::arrange`](Format::arrange), with 16 bits, and of each step the values of the even bytes first.
#[inline(always)]
fn paired<F: Format>(q: &[i32; PADDED]) -> [i16; PADDED] {
    let values = F::arrange(q);
    std::array::from_fn(|i| values[i / 4 * 4 + [0, 2, 1, 3][i % 4]] as i16)
}

/// Quantises a row for the row kernels.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn row<V: Lanes, F: Format>(
    x: &[f32],
    planes: usize,
    words: bool,
    values: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let last = (F::PARTS * planes - 1) * 64 + 16;
    for (g, part) in x.chunks(F::GROUP).enumerate() {
        let (b, j) = (g / LANES, g % LANES);
        // SAFETY: the caller's promise.
        let (q, scale, sum) = unsafe { quantise::<V, PADDED>(part, F::GROUP, planes) };
        let lane = b * LANES + lane_of(j);
        (scales[lane], offsets[lane]) = (scale, -F::ZERO * sum);
        let out = &mut values[b * block::<F>(planes) + group_at::<F>(j, planes)..][..last];
        if words && planes == 2 {
            for (half, values) in halves::<F>(&q)[..2 * F::PARTS].iter().enumerate() {
                let out = &mut out[half * 64..][..16];
                for (out, value) in out.chunks_exact_mut(2).zip(values) {
                    out.copy_from_slice(&value.to_le_bytes().map(|b| b as i8));
                }
            }
            continue;
        }
        for (plane, values) in split(&q, planes)[..planes].iter().enumerate() {
            let values = F::arrange(values);
            for part in 0..F::PARTS {
                let out = &mut out[(plane * F::PARTS + part) * 64..][..16];
                if part < 2 {
                    out.copy_from_slice(&values[part * 16..][..16]);
                } else {
                    // Two values a word, and two zeros that are there already.
                    for (out, two) in out.chunks_exact_mut(4).zip(values[32..40].chunks_exact(2)) {
                        out[..2].copy_from_slice(two);
                    }
                }
            }
        }
    }
}

/// Quantises a row as row `t` of a tile; the slices are those of the whole tile.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn tile_row<V: Lanes, F: Format>(
    x: &[f32],
    planes: usize,
    words: bool,
    order: &[u32],
    t: usize,
    values: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    for (i, &g) in order.iter().enumerate() {
        let part = &x[g as usize * F::GROUP..x.len().min((g as usize + 1) * F::GROUP)];
        let slot = i * TILE + t;
        // SAFETY: the caller's promise.
        let (q, scale, sum) = unsafe { quantise::<V, PADDED>(part, F::GROUP, planes) };
        let out = &mut values[slot * F::GROUP * planes..(slot + 1) * F::GROUP * planes];
        if words && planes == 2 {
            for (out, value) in out.chunks_exact_mut(2).zip(paired::<F>(&q)) {
                out.copy_from_slice(&value.to_le_bytes().map(|b| b as i8));
            }
        } else {
            for (out, values) in out.chunks_exact_mut(F::GROUP).zip(split(&q, planes)) {
                out.copy_from_slice(&F::arrange(&values)[..F::GROUP]);
            }
        }
        (scales[slot], offsets[slot]) = (scale, -F::ZERO * sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_groups_are_inverse() {
        for j in 0..LANES {
            assert_eq!(group_of(lane_of(j)), j);
        }
    }

    #[test]
    fn planes_make_the_value_again() {
        for q in -16256..=16256 {
            let [[high], [low]] = split(&[q], 2);
            assert_eq!(128 * i32::from(high) + i32::from(low), q);
            assert!((-64..64).contains(&low) && high != -128);
        }
    }

    #[test]
    fn visiting_order_adds_like_the_tree() {
        let v: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 1.7).exp());
        let mut stack: Vec<f32> = Vec::new();
        for (i, lane) in VISIT.into_iter().enumerate() {
            let mut s = v[lane];
            for _ in 0..(i + 1).trailing_zeros() {
                s += stack.pop().unwrap();
            }
            stack.push(s);
        }
        assert_eq!(stack, [tree_sum(v)]);
    }
}
