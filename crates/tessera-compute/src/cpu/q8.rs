//! Activations in 8 bits, as the 4-bit kernels read them.
//!
//! A group is 32 inputs with one scale `a = max|x| / 127`; its values are `round(x / a)`, ties to
//! even. Since a byte of weights holds inputs `2j` and `2j + 1`, a group's 32 values are kept as 16
//! even ones, then 16 odd ones. `offset = -7 * sum(values)` takes the weights' zero point out.
//!
//! [`Rows`]: for the row kernels. A block is 16 groups. Bytes: four vectors of 128 inputs, each 64
//! even values then 64 odd ones. Scales and offsets of a block stand in the order of the lanes that
//! sum them: group `j` of a block in lane [`lane_of`]`(j)`.
//!
//! [`Tiles`]: for the tile kernels. `[tile of TILE tokens][group][token]` of 32 bytes, a scale and an
//! offset, the groups in the order of [`visit`].

use super::simd::{LANES, Lanes};

/// Inputs of a group.
pub const GROUP: usize = 32;
/// Inputs of a block of 16 groups.
pub const BLOCK: usize = GROUP * LANES;
/// Tokens of a tile.
pub const TILE: usize = 8;

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
    /// `[token][blocks * BLOCK]`.
    pub values: Vec<i8>,
    /// `[token][blocks * 16]`.
    pub scales: Vec<f32>,
    /// `[token][blocks * 16]`.
    pub offsets: Vec<i32>,
    /// Blocks of a row.
    pub blocks: usize,
    /// Bytes of a group's values.
    pub group_bytes: usize,
}

/// Quantised rows for the tile kernels.
#[derive(Default)]
pub struct Tiles {
    /// `[tile][group in visiting order][TILE][32]`.
    pub values: Vec<i8>,
    /// `[tile][group in visiting order][TILE]`.
    pub scales: Vec<f32>,
    /// `[tile][group in visiting order][TILE]`.
    pub offsets: Vec<i32>,
    /// Groups of a row.
    pub groups: usize,
    /// Bytes of a group's values.
    pub group_bytes: usize,
}

impl Rows {
    /// Makes room for `n` rows of `cols` inputs, all zero.
    pub fn reset(&mut self, n: usize, cols: usize) {
        self.reset_groups(n, cols.div_ceil(GROUP), GROUP);
    }

    /// Makes room for `n` rows of `groups` groups of `group_bytes` values, all zero.
    pub fn reset_groups(&mut self, n: usize, groups: usize, group_bytes: usize) {
        self.blocks = groups.div_ceil(LANES);
        self.group_bytes = group_bytes;
        resize(&mut self.values, n * self.blocks * LANES * group_bytes);
        resize(&mut self.scales, n * self.blocks * LANES);
        resize(&mut self.offsets, n * self.blocks * LANES);
    }
}

impl Tiles {
    /// Makes room for `n` rows of `cols` inputs; unused rows of the last tile are zero.
    pub fn reset(&mut self, n: usize, cols: usize) {
        self.reset_groups(n, cols.div_ceil(GROUP), GROUP);
    }

    /// Makes room for `n` rows of `groups` groups of `group_bytes` values.
    pub fn reset_groups(&mut self, n: usize, groups: usize, group_bytes: usize) {
        self.groups = groups;
        self.group_bytes = group_bytes;
        let slots = n.div_ceil(TILE) * TILE * self.groups;
        resize(&mut self.values, slots * group_bytes);
        resize(&mut self.scales, slots);
        resize(&mut self.offsets, slots);
    }
}

fn resize<T: Copy + Default>(v: &mut Vec<T>, len: usize) {
    v.clear();
    v.resize(len, T::default());
}

/// `max|x| / 127` of a group and its reciprocal; both 0 for a group that is as good as zero.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn scale_of<V: Lanes>(x: &[V]) -> (f32, f32) {
    // SAFETY: the caller's promise is that of each method.
    unsafe {
        let (mut sum, mut max) = (V::splat(0.0), V::splat(0.0));
        for v in x {
            let v = v.abs();
            (sum, max) = (sum.add(v), max.max(v));
        }
        // Infinity and NaN times zero are NaN: a broken activation stays broken in the scale, and so in
        // the logits, instead of becoming some integer.
        let max = max.add(sum.mul(V::splat(0.0))).to_array();
        let max = max.iter().fold(0.0f32, |s, v| if *v > s || v.is_nan() { *v } else { s });
        let scale = max / 127.0;
        // A subnormal maximum has no finite reciprocal.
        match (scale > 1e-37, scale.is_nan()) {
            (true, _) => (scale, 1.0 / scale),
            (_, true) => (scale, 0.0),
            _ => (0.0, 0.0),
        }
    }
}

/// What 8 bits leave of a row: `out = x - scale * round(x / scale)`, group by group. Quantised in its
/// turn it is the second plane of a 16-bit input.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn residual<V: Lanes>(x: &[f32], group: usize, out: &mut [f32]) {
    const PADDED: usize = 3 * LANES;
    assert!(group <= PADDED && out.len() == x.len());
    for (x, out) in x.chunks(group).zip(out.chunks_mut(group)) {
        let mut full = [0.0f32; PADDED];
        full[..x.len()].copy_from_slice(x);
        // SAFETY: `full` holds 48 values; the rest is the caller's promise.
        unsafe {
            let at = full.as_mut_ptr();
            let v = [V::load(at), V::load(at.add(LANES)), V::load(at.add(2 * LANES))];
            let (scale, inverse) = scale_of(&v);
            let (inv, shift) = (V::splat(inverse), V::splat(12_582_912.0));
            for (i, v) in v.into_iter().enumerate() {
                let q = v.fma(inv, shift).sub(shift);
                q.fma(V::splat(-scale), v).store(at.add(i * LANES));
            }
        }
        out.copy_from_slice(&full[..x.len()]);
    }
}

/// Quantises one group of up to 32 inputs: even values to `even`, odd ones to `odd`; returns scale and
/// offset.
///
/// # Safety
/// As for [`Lanes`]; `even` and `odd` have room for 16 values each.
#[inline(always)]
pub unsafe fn group<V: Lanes>(x: &[f32], even: *mut i8, odd: *mut i8) -> (f32, i32) {
    let mut full = [0.0f32; GROUP];
    full[..x.len()].copy_from_slice(x);
    // SAFETY: `full` holds 32 values; the rest is the caller's promise.
    unsafe {
        let (a, b) = (V::load(full.as_ptr()), V::load(full.as_ptr().add(LANES)));
        let (scale, inverse) = scale_of(&[a, b]);
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even.
        let (inv, shift) = (V::splat(inverse), V::splat(12_582_912.0));
        let mut q = [0.0f32; GROUP];
        a.fma(inv, shift).sub(shift).store(q.as_mut_ptr());
        b.fma(inv, shift).sub(shift).store(q.as_mut_ptr().add(LANES));
        let mut sum = 0;
        for j in 0..GROUP / 2 {
            let (e, o) = (q[2 * j] as i32, q[2 * j + 1] as i32);
            sum += e + o;
            even.add(j).write(e as i8);
            odd.add(j).write(o as i8);
        }
        (scale, -7 * sum)
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
        let at = block * BLOCK + (j / 4) * 128 + (j % 4) * 16;
        let even = values[at..at + 80].as_mut_ptr();
        let lane = block * LANES + lane_of(j);
        // SAFETY: 16 values from `at` and 16 from `at + 64` are inside, as just sliced.
        (scales[lane], offsets[lane]) = unsafe { group::<V>(part, even, even.add(64)) };
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
        let even = values[slot * GROUP..(slot + 1) * GROUP].as_mut_ptr();
        // SAFETY: 32 values from `even` are inside, as just sliced.
        (scales[slot], offsets[slot]) = unsafe { group::<V>(part, even, even.add(16)) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::tree_sum;
    use super::*;

    #[test]
    fn lanes_and_groups_are_inverse() {
        for j in 0..LANES {
            assert_eq!(group_of(lane_of(j)), j);
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
