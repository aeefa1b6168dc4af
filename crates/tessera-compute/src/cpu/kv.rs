//! How keys and values are kept in a page of one layer and head: 16-bit floats, or 8-bit integers with a
//! scale for each 32 of a position's values.

use super::simd::{LANES, Lanes};
use crate::batch::PAGE;

/// Width of a row of values in a page, and of a result.
pub const fn padded(dim: usize) -> usize {
    dim.div_ceil(LANES) * LANES
}

/// A form of keys and values. `head` is the first byte of a layer and head in a page.
pub trait Format: Copy + 'static {
    /// Dimensions of a key that share a scale; all of them where there are no scales.
    const GROUP: usize;

    /// Bytes of one layer and head in a page, a multiple of 4.
    fn head_len(dim: usize) -> usize;

    /// Writes one position's key and value.
    ///
    /// # Safety
    /// As for [`Lanes`]; `slot < PAGE`, the head is writable and not read by another thread meanwhile.
    unsafe fn store<V: Lanes>(key: &[f32], value: &[f32], slot: usize, head: *mut u8);

    /// Dimension `d` of the keys at positions `p..p + 16`, before their scales.
    ///
    /// # Safety
    /// As for [`Lanes`]; the head is readable, `d < dim`, `p + 16 <= PAGE`.
    unsafe fn key<V: Lanes>(head: *const u8, d: usize, p: usize) -> V;

    /// The scales of those keys for the group that begins at dimension `d`, if there are scales.
    ///
    /// # Safety
    /// As for [`Format::key`].
    unsafe fn key_scale<V: Lanes>(head: *const u8, dim: usize, d: usize, p: usize) -> Option<V>;

    /// Dimensions `i..i + 16` of the value at position `p`.
    ///
    /// # Safety
    /// As for [`Lanes`]; the head is readable, `p < PAGE`, `i + 16 <= padded(dim)`.
    unsafe fn value<V: Lanes>(head: *const u8, dim: usize, p: usize, i: usize) -> V;
}

/// f16: keys `[dim][PAGE]`, values `[PAGE][padded dim]`.
#[derive(Clone, Copy)]
pub struct F16;

impl Format for F16 {
    const GROUP: usize = usize::MAX / 2;

    fn head_len(dim: usize) -> usize {
        PAGE * (dim + padded(dim)) * 2
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(key: &[f32], value: &[f32], slot: usize, head: *mut u8) {
        let dim = key.len();
        let head = head.cast::<u16>();
        // SAFETY: `slot < PAGE`, so every address is inside the head.
        unsafe {
            let values = head.add(dim * PAGE + slot * padded(dim));
            for i in (0..dim).step_by(LANES) {
                let n = LANES.min(dim - i);
                for (j, k) in narrow::<V>(&key[i..i + n])[..n].iter().enumerate() {
                    head.add((i + j) * PAGE + slot).write_unaligned(*k);
                }
                for (j, v) in narrow::<V>(&value[i..i + n]).iter().enumerate() {
                    values.add(i + j).write_unaligned(*v);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn key<V: Lanes>(head: *const u8, d: usize, p: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(head.cast::<u16>().add(d * PAGE + p)) }
    }

    #[inline(always)]
    unsafe fn key_scale<V: Lanes>(_: *const u8, _: usize, _: usize, _: usize) -> Option<V> {
        None
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(head: *const u8, dim: usize, p: usize, i: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(head.cast::<u16>().add(dim * PAGE + p * padded(dim) + i)) }
    }
}

/// Up to 16 values as f16, zeros behind them.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn narrow<V: Lanes>(x: &[f32]) -> [u16; LANES] {
    let mut full = [0.0; LANES];
    full[..x.len()].copy_from_slice(x);
    // SAFETY: `full` holds 16 values; the rest is the caller's promise.
    unsafe { V::load(full.as_ptr()).to_f16() }
}

/// 8 bits: keys i8 `[dim][PAGE]`, values i8 `[PAGE][padded dim]`, then f32 scales of keys
/// `[group][PAGE]` and of values `[PAGE][group]`.
#[derive(Clone, Copy)]
pub struct Q8;

impl Q8 {
    const fn groups(dim: usize) -> usize {
        dim.div_ceil(Self::GROUP)
    }

    const fn scales(dim: usize) -> usize {
        PAGE * (dim + padded(dim))
    }
}

impl Format for Q8 {
    const GROUP: usize = 32;

    fn head_len(dim: usize) -> usize {
        Self::scales(dim) + 2 * Self::groups(dim) * PAGE * 4
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(key: &[f32], value: &[f32], slot: usize, head: *mut u8) {
        let (dim, groups) = (key.len(), Self::groups(key.len()));
        // SAFETY: `slot < PAGE`, so every address is inside the head.
        unsafe {
            let keys = head.cast::<i8>();
            let values = keys.add(dim * PAGE + slot * padded(dim));
            let scales = head.add(Self::scales(dim)).cast::<f32>();
            for (g, from) in (0..dim).step_by(Self::GROUP).enumerate() {
                let to = dim.min(from + Self::GROUP);
                let (q, scale) = eight_bits(&key[from..to]);
                scales.add(g * PAGE + slot).write_unaligned(scale);
                for (j, q) in q[..to - from].iter().enumerate() {
                    keys.add((from + j) * PAGE + slot).write(*q);
                }
                let (q, scale) = eight_bits(&value[from..to]);
                scales.add(groups * PAGE + slot * groups + g).write_unaligned(scale);
                for (j, q) in q[..padded(to - from)].iter().enumerate() {
                    values.add(from + j).write(*q);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn key<V: Lanes>(head: *const u8, d: usize, p: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_i8(head.cast::<i8>().add(d * PAGE + p)) }
    }

    #[inline(always)]
    unsafe fn key_scale<V: Lanes>(head: *const u8, dim: usize, d: usize, p: usize) -> Option<V> {
        // SAFETY: the caller's promise.
        unsafe { Some(V::load(head.add(Self::scales(dim)).cast::<f32>().add(d / Self::GROUP * PAGE + p))) }
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(head: *const u8, dim: usize, p: usize, i: usize) -> V {
        let groups = Self::groups(dim);
        // SAFETY: the caller's promise.
        unsafe {
            let scales = head.add(Self::scales(dim)).cast::<f32>().add(groups * PAGE);
            let scale = scales.add(p * groups + i / Self::GROUP).read_unaligned();
            V::load_i8(head.cast::<i8>().add(dim * PAGE + p * padded(dim) + i)).mul(V::splat(scale))
        }
    }
}

/// Up to 32 values as integers of 8 bits, and their scale `max|x| / 127`: NaN where a value is not finite,
/// so that it is not hidden.
#[inline(always)]
fn eight_bits(x: &[f32]) -> ([i8; Q8::GROUP], f32) {
    let mut q = [0i8; Q8::GROUP];
    let max = x.iter().fold(0.0f32, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
    if !max.is_finite() {
        return (q, f32::NAN);
    }
    let scale = max / 127.0;
    // A subnormal scale has no finite reciprocal.
    if scale <= 1e-37 {
        return (q, 0.0);
    }
    let inverse = 1.0 / scale;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i8;
    }
    (q, scale)
}
