//! Many tokens times a panel of rows: a tile of tokens at a time. Groups are visited by the lanes of the
//! row kernels, so the sums are theirs, to the bit.

use super::format::Format;
use super::panel::{PANEL, Panel};
use super::q8::{self, TILE};
use super::simd::{LANES, Lanes, fma};

/// One tile of [`q8::Tiles`].
#[derive(Clone, Copy)]
pub struct TileView<'a> {
    /// `[group][TILE][plane][group]`
    pub values: &'a [i8],
    /// `[group][TILE]`
    pub scales: &'a [f32],
    /// `[group][TILE]`
    pub offsets: &'a [i32],
    /// 1 or 2.
    pub planes: usize,
    /// Tokens that are wanted, at least one; results of others are arbitrary.
    pub count: usize,
    /// Bytes that will be read next, fetched on the way: with few tokens the products would otherwise
    /// leave the memory idle, and unpacking the next panel would wait for it.
    pub ahead: [&'a [u8]; 2],
}

/// Fetches [`TileView::ahead`] on the way, spread evenly over the groups of a tile.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
struct Fetch<'a> {
    ahead: [&'a [u8]; 2],
    groups: usize,
    /// Of each part: the lines that were fetched, and what is left over of the groups' shares.
    done: [usize; 2],
    share: [usize; 2],
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl<'a> Fetch<'a> {
    const LINE: usize = 64;

    fn new(ahead: [&'a [u8]; 2], groups: usize) -> Fetch<'a> {
        Fetch { ahead, groups, done: [0; 2], share: [0; 2] }
    }

    /// The share of one group.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn next<V: Lanes>(&mut self) {
        for (i, bytes) in self.ahead.iter().enumerate() {
            self.share[i] += bytes.len() / Self::LINE;
            while self.share[i] >= self.groups {
                self.share[i] -= self.groups;
                // SAFETY: a prefetch may name any address; the rest is the caller's promise.
                unsafe { V::prefetch_far(bytes.as_ptr().wrapping_add(self.done[i] * Self::LINE)) };
                self.done[i] += 1;
            }
        }
    }
}

impl q8::Tiles {
    /// The tile with this index.
    pub fn tile(&self, index: usize) -> TileView<'_> {
        let slots = self.groups * TILE;
        let bytes = slots * self.group_bytes * self.planes;
        TileView {
            planes: self.planes,
            count: TILE,
            ahead: [&[]; 2],
            values: &self.values[index * bytes..(index + 1) * bytes],
            scales: &self.scales[index * slots..(index + 1) * slots],
            offsets: &self.offsets[index * slots..(index + 1) * slots],
        }
    }
}

/// One tile of tokens times one panel: `y[t][r]`. `ends` are those of the panel's visiting order.
pub fn tile_scalar<F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    for t in 0..x.count {
        for r in 0..PANEL {
            let (mut stack, mut depth, mut from) = ([0.0f32; 5], 0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut sum = 0.0f32;
                for i in from..end {
                    let slot = i * TILE + t;
                    let mut dot = 0i32;
                    for plane in 0..x.planes {
                        dot <<= 7;
                        for k in 0..F::GROUP {
                            let code = panel.codes[i * F::STEPS * 64 + (k / 4) * 64 + r * 4 + k % 4];
                            let value = x.values[(slot * x.planes + plane) * F::GROUP + k];
                            dot += i32::from(code) * i32::from(value);
                        }
                    }
                    let scale = panel.scales[i * PANEL + r] * x.scales[slot];
                    sum = fma((dot + x.offsets[slot]) as f32, scale, sum);
                }
                from = end;
                for _ in 0..(lane + 1).trailing_zeros() {
                    depth -= 1;
                    sum += stack[depth];
                }
                stack[depth] = sum;
                depth += 1;
            }
            y[t * PANEL + r] = stack[0];
        }
    }
}

/// What the kernels' pointers rely on.
fn check<F: Format>(panel: &Panel, x: &TileView<'_>, ends: &[usize; LANES]) {
    let groups = ends[LANES - 1];
    assert!(ends.is_sorted());
    assert!(panel.codes.len() >= groups * F::STEPS * 64 && panel.scales.len() >= groups * PANEL);
    assert!((x.planes == 1 || x.planes == 2) && (1..=TILE).contains(&x.count));
    assert!(x.values.len() >= groups * TILE * F::GROUP * x.planes);
    assert!(x.scales.len() >= groups * TILE && x.offsets.len() >= groups * TILE);
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod quad;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod words;

#[cfg(target_arch = "aarch64")]
pub use quad::{tile_dotprod, tile_neon};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use words::tile_words;
#[cfg(target_arch = "x86_64")]
pub use {avx2::tile_avx2, avx512::tile_avx512};
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
pub use i8mm::tile_i8mm;
