//! Vectors of 128 bits: lanes are 4 of the 16 rows of a panel.

use super::super::simd::Quad;
use super::*;

/// See [`tile_scalar`].
///
/// # Safety
/// As for [`Quad`].
#[inline(always)]
unsafe fn tile<Q: Quad, F: Format>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    check::<F>(panel, x, ends);
    // SAFETY: `check` made the lengths right; the rest is the caller's promise.
    unsafe {
        match x.planes {
            1 => some_planes::<Q, F, 1>(panel, x, ends, y),
            _ => some_planes::<Q, F, 2>(panel, x, ends, y),
        }
    }
}

/// # Safety
/// As for [`tile`]; the lengths were checked.
#[inline(always)]
unsafe fn some_planes<Q: Quad, F: Format, const P: usize>(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    let mut fetch = Fetch::new(x.ahead, ends[LANES - 1]);
    for quarter in 0..4 {
        // SAFETY: group `i` is inside every slice; `y` holds TILE rows of 16.
        unsafe {
            let mut stack = [[Q::splat_f32(0.0); TILE]; 5];
            let (mut depth, mut from) = (0, 0);
            for (lane, &end) in ends.iter().enumerate() {
                let mut acc = [Q::splat_f32(0.0); TILE];
                for i in from..end {
                    if quarter == 0 {
                        fetch.next::<Q::Lanes>();
                    }
                    let codes = panel.codes.as_ptr().add(i * F::STEPS * 64 + quarter * 16);
                    let mut c = [Q::splat(0); 10];
                    for (s, c) in c[..F::STEPS].iter_mut().enumerate() {
                        *c = Q::load(codes.add(s * 64));
                    }
                    let ws = Q::load_f32(panel.scales.as_ptr().add(i * PANEL + quarter * 4));
                    for (t, acc) in acc[..x.count].iter_mut().enumerate() {
                        let slot = i * TILE + t;
                        let mut dot = Q::splat(0);
                        for p in 0..P {
                            let values = x.values.as_ptr().add((slot * P + p) * F::GROUP);
                            let mut sum = Q::four_steps(Q::start(), [c[0], c[1], c[2], c[3]], values);
                            sum = Q::four_steps(sum, [c[4], c[5], c[6], c[7]], values.add(16));
                            for (s, c) in c[..F::STEPS].iter().enumerate().skip(8) {
                                let v = values.add(4 * s).cast::<i32>().read_unaligned();
                                sum = Q::step(sum, *c, Q::splat(v));
                            }
                            let more = Q::finish(sum);
                            // The high plane comes first.
                            dot = if p == 0 { more } else { Q::add(Q::shl::<7>(dot), more) };
                        }
                        let dot = Q::add(dot, Q::splat(*x.offsets.get_unchecked(slot)));
                        let scale = Q::mul_f32(ws, Q::splat_f32(*x.scales.get_unchecked(slot)));
                        *acc = Q::fma(dot, scale, *acc);
                    }
                }
                from = end;
                for _ in 0..(lane + 1).trailing_zeros() {
                    depth -= 1;
                    for (acc, s) in acc.iter_mut().zip(&stack[depth]) {
                        *acc = Q::add_f32(*acc, *s);
                    }
                }
                stack[depth] = acc;
                depth += 1;
            }
            for (t, v) in stack[0].iter().enumerate() {
                Q::store_f32(*v, y.as_mut_ptr().add(t * PANEL + quarter * 4));
            }
        }
    }
}

macro_rules! quad {
    ($name:ident, $features:literal) => {
        /// See [`tile_scalar`].
        ///
        /// # Safety
        /// The machine has the instruction set; as for [`Quad`].
        #[target_feature(enable = $features)]
        pub unsafe fn $name<Q: Quad, F: Format>(
            panel: &Panel,
            x: &TileView<'_>,
            ends: &[usize; LANES],
            y: &mut [f32; TILE * PANEL],
        ) {
            // SAFETY: the caller's promise.
            unsafe { tile::<Q, F>(panel, x, ends, y) }
        }
    };
}

#[cfg(target_arch = "aarch64")]
quad!(tile_neon, "neon");
#[cfg(target_arch = "aarch64")]
quad!(tile_dotprod, "neon,dotprod");
