//! What is computed in f32 whatever the weights are: norms, gates, dot products. Written once over
//! [`Lanes`]; `kernels.rs` makes a copy for each instruction set.

use super::simd::{LANES, Lanes, exp, fma, tree_sum};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` with `LAYER`, else `x / sqrt(mean(x²) + eps) * weight + bias`. An
/// empty weight is ones, an empty bias zeros.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn norm<V: Lanes, const LAYER: bool>(
    x: &[f32],
    (weight, bias): (&[f32], &[f32]),
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len();
    assert!(out.len() == n && [0, n].contains(&weight.len()) && [0, n].contains(&bias.len()));
    let whole = n / LANES * LANES;
    // SAFETY: every load and store is at `i..i + LANES` with `i + LANES <= whole <= len`.
    unsafe {
        let mut mean = 0.0;
        if LAYER {
            let mut sums = V::splat(0.0);
            for i in (0..whole).step_by(LANES) {
                sums = sums.add(V::load(x.as_ptr().add(i)));
            }
            let mut sums = sums.to_array();
            for (s, v) in sums.iter_mut().zip(&x[whole..]) {
                *s += v;
            }
            mean = tree_sum(sums) / n as f32;
        }
        let (mut sums, middle) = (V::splat(0.0), V::splat(mean));
        for i in (0..whole).step_by(LANES) {
            let v = V::load(x.as_ptr().add(i)).sub(middle);
            sums = v.fma(v, sums);
        }
        let mut sums = sums.to_array();
        for (s, v) in sums.iter_mut().zip(&x[whole..]) {
            *s = fma(v - mean, v - mean, *s);
        }
        let scale = 1.0 / (tree_sum(sums) / n as f32 + eps).sqrt();
        let factor = V::splat(scale);
        for i in (0..whole).step_by(LANES) {
            let mut v = V::load(x.as_ptr().add(i)).sub(middle).mul(factor);
            if !weight.is_empty() {
                v = v.mul(V::load(weight.as_ptr().add(i)));
            }
            if !bias.is_empty() {
                v = v.add(V::load(bias.as_ptr().add(i)));
            }
            v.store(out.as_mut_ptr().add(i));
        }
        for i in whole..n {
            let normed = (x[i] - mean) * scale;
            out[i] = normed * weight.get(i).unwrap_or(&1.0) + bias.get(i).unwrap_or(&0.0);
        }
    }
}

/// `gate / (1 + e^-gate)`.
pub const SILU: u8 = 0;
/// GELU by its approximation with tanh.
pub const GELU_TANH: u8 = 1;
/// GELU by erf.
pub const GELU: u8 = 2;
/// `1 / (1 + e^-gate)`.
pub const SIGMOID: u8 = 3;

/// `f(gate) * up`. A function and not a closure: a closure would not be inlined where the instruction set is enabled.
#[inline(always)]
unsafe fn gated<V: Lanes, const F: u8>(gate: V, up: V) -> V {
    // SAFETY: the caller's promise is that of each method.
    unsafe {
        let (zero, one) = (V::splat(0.0), V::splat(1.0));
        if F == GELU {
            // x (1 + erf(x / √2)) / 2 = max(x, 0) - |x| (1 - erf(|x| / √2)) / 2, the last by Abramowitz and Stegun 7.1.26.
            let size = gate.abs();
            let z = size.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
            let t = one.div(V::splat(0.327_591_1).fma(z, one));
            let mut p = V::splat(1.061_405_4);
            for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
                p = p.fma(t, V::splat(c));
            }
            // Not so small that products with it are subnormal, which are slow.
            let least = V::splat(-80.0).max(zero.sub(z.mul(z)));
            let tail = p.mul(t).mul(exp(least));
            return zero.max(gate).sub(size.mul(V::splat(0.5)).mul(tail)).mul(up);
        }
        let mut z = gate;
        if F == GELU_TANH {
            // (1 + tanh(z / 2)) / 2 = 1 / (1 + e^-z), with z / 2 = √(2/π) (x + 0.044715 x³).
            let cubic = V::splat(0.044_715).fma(gate.mul(gate), one);
            z = gate.mul(V::splat(1.595_769)).mul(cubic);
        }
        let over = one.add(exp(zero.sub(z)));
        if F == SIGMOID { one.div(over).mul(up) } else { gate.div(over).mul(up) }
    }
}

/// `out = f(gate) * up`, all of one length; `F` says which of [`SILU`], [`GELU_TANH`], [`GELU`] and [`SIGMOID`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn gate<V: Lanes, const F: u8>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len());
    // SAFETY: loads and stores are of arrays of 16, or at `i..i + LANES` inside the slices.
    unsafe {
        let whole = out.len() / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let v = gated::<V, F>(V::load(gate.as_ptr().add(i)), V::load(up.as_ptr().add(i)));
            v.store(out.as_mut_ptr().add(i));
        }
        let (mut g, mut u) = ([0.0; LANES], [0.0; LANES]);
        let rest = out.len() - whole;
        g[..rest].copy_from_slice(&gate[whole..]);
        u[..rest].copy_from_slice(&up[whole..]);
        let v = gated::<V, F>(V::load(g.as_ptr()), V::load(u.as_ptr())).to_array();
        out[whole..].copy_from_slice(&v[..rest]);
    }
}

/// `out = exp(-exp(x))`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn exp_exp<V: Lanes>(x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len());
    for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
        let mut all = [0.0; LANES];
        all[..x.len()].copy_from_slice(x);
        // SAFETY: `all` holds [`LANES`] values; the rest is the caller's promise.
        let all = unsafe { exp(V::splat(0.0).sub(exp(V::load(all.as_ptr())))) };
        // SAFETY: the caller's promise.
        out.copy_from_slice(&unsafe { all.to_array() }[..x.len()]);
    }
}

/// [`crate::recurrent::wkv_row`], to the bit.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn wkv<V: Lanes>(
    state: &mut [f32],
    (r, k, v): (&[f32], &[f32], &[f32]),
    (keep, bonus): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let width = v.len();
    assert!(out.len() == width && state.len() == k.len() * width);
    assert!([r.len(), keep.len(), bonus.len()] == [k.len(); 3]);
    let whole = width / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        // SAFETY: loads and stores are at `i..i + LANES` of rows of `width` values, and of `v` and `out`.
        unsafe {
            let (v, mut sum) = (V::load(v.as_ptr().add(i)), V::splat(0.0));
            for j in 0..k.len() {
                let at = state.as_mut_ptr().add(j * width + i);
                let (new, s) = (V::splat(k[j]).mul(v), V::load(at));
                sum = V::splat(r[j]).fma(V::splat(bonus[j]).fma(new, s), sum);
                V::splat(keep[j]).fma(s, new).store(at);
            }
            sum.store(out.as_mut_ptr().add(i));
        }
    }
    for i in whole..width {
        let mut sum = 0.0;
        for (j, row) in state.chunks_exact_mut(width).enumerate() {
            let (new, s) = (k[j] * v[i], row[i]);
            sum = fma(r[j], fma(bonus[j], new, s), sum);
            row[i] = fma(keep[j], s, new);
        }
        out[i] = sum;
    }
}

/// [`crate::recurrent::delta_row`], to the bit.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn delta<V: Lanes>(
    state: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (decay, beta): (f32, f32),
    out: &mut [f32],
) {
    let width = v.len();
    assert!(q.len() == k.len() && state.len() == k.len() * width && out.len() == width);
    let whole = width / LANES * LANES;
    let scale = 1.0 / (k.len() as f32).sqrt();
    for j in (0..whole).step_by(LANES) {
        // SAFETY: loads and stores are at `j..j + LANES` of rows of `width` values, and of `v` and `out`.
        unsafe {
            let at = |i: usize| i * width + j;
            let (decay, mut held) = (V::splat(decay), V::splat(0.0));
            for (i, k) in k.iter().enumerate() {
                let s = V::load(state.as_ptr().add(at(i))).mul(decay);
                s.store(state.as_mut_ptr().add(at(i)));
                held = V::splat(*k).fma(s, held);
            }
            let change = V::load(v.as_ptr().add(j)).sub(held).mul(V::splat(beta));
            let mut sum = V::splat(0.0);
            for (i, (k, q)) in k.iter().zip(q).enumerate() {
                let s = V::splat(*k).fma(change, V::load(state.as_ptr().add(at(i))));
                s.store(state.as_mut_ptr().add(at(i)));
                sum = V::splat(*q).fma(s, sum);
            }
            sum.mul(V::splat(scale)).store(out.as_mut_ptr().add(j));
        }
    }
    for j in whole..width {
        let (mut held, mut sum) = (0.0, 0.0);
        for (row, k) in state.chunks_exact_mut(width).zip(k) {
            row[j] *= decay;
            held = fma(*k, row[j], held);
        }
        let change = (v[j] - held) * beta;
        for ((row, k), q) in state.chunks_exact_mut(width).zip(k).zip(q) {
            row[j] = fma(*k, change, row[j]);
            sum = fma(*q, row[j], sum);
        }
        out[j] = sum * scale;
    }
}

/// `y[t][i] = w[i] · x[t]` for rows of `width` values, a multiple of [`LANES`]: lanes summed by fma in
/// ascending order, then [`tree_sum`].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn products<V: Lanes>(w: &[f32], x: &[f32], width: usize, y: &mut [f32]) {
    assert!(
        width > 0
            && width.is_multiple_of(LANES)
            && w.len().is_multiple_of(width)
            && x.len().is_multiple_of(width)
    );
    let (rows, n) = (w.len() / width, x.len() / width);
    assert!(y.len() >= rows * n);
    let mut t = 0;
    while t < n {
        // SAFETY: tokens `t..t + T` exist; the lengths were checked above.
        t += unsafe {
            match n - t {
                1 => some::<V, 1>(w, x, width, t, rows, y),
                2 | 3 => some::<V, 2>(w, x, width, t, rows, y),
                _ => some::<V, 4>(w, x, width, t, rows, y),
            }
        };
    }
}

#[inline(always)]
unsafe fn some<V: Lanes, const T: usize>(
    w: &[f32],
    x: &[f32],
    width: usize,
    t0: usize,
    rows: usize,
    y: &mut [f32],
) -> usize {
    for r in 0..rows {
        // SAFETY: row `r` of `w` and rows `t0..t0 + T` of `x` are inside; offsets are below `width`.
        unsafe {
            let mut sums = [V::splat(0.0); T];
            let weights = w.as_ptr().add(r * width);
            let values = x.as_ptr().add(t0 * width);
            for i in (0..width).step_by(LANES) {
                let v = V::load(weights.add(i));
                for (t, s) in sums.iter_mut().enumerate() {
                    *s = v.fma(V::load(values.add(t * width + i)), *s);
                }
            }
            for (t, s) in sums.iter().enumerate() {
                y[(t0 + t) * rows + r] = tree_sum(s.to_array());
            }
        }
    }
    T
}
