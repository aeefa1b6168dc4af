//! The scale of a group by search: the one, of either sign and as it is stored, that leaves the least squared error.
//!
//! A group is read as `(code - zero) * scale`, so the values are `k * s` with `k` from `-zero` to `zero + 1`, the last code
//! included, which MLC's own quantiser never writes. For fixed `k` the best `s` is `Σ h w k / Σ h k²`, and it leaves
//! `Σ h w² - (Σ h w k)² / Σ h k²`. The `k` change only where some `w / s` passes a half, so there is an exact answer
//! ([`exact`]): among all intervals between those points the one where `(Σ h w k)² / Σ h k²` is largest. The fast search
//! looks at a grid of scales and goes from the best of them downhill.

use super::{f32_to_bf16_bits, round_f16};
use crate::dtype::DType;
use crate::scheme::GroupFormat;

/// Most weights of a group.
const MOST: usize = 40;
/// What the largest weight of a group is tried as, in steps of the format: from `FIRST` of its largest value on.
const POINTS: usize = 20;
/// How many of the grid's scales are followed downhill.
const FOLLOWED: usize = 3;

/// A group's codes and its scale, which is a value that its stored type has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// One for each weight; zero behind them.
    pub codes: [u8; MOST],
    /// As it is stored.
    pub scale: f32,
    /// `Σ h (w - value)²`.
    pub error: f64,
}

/// A group's weights, and how much the error of each counts; zeros behind them.
struct Group {
    w: [f32; MOST],
    h: [f32; MOST],
    /// Values that a code stands for.
    least: f32,
    most: f32,
}

/// `Σ h w k` and `Σ h k²`.
type Sums = (f32, f32);

/// How good they are: what is taken off `Σ h w²`.
fn gain((a, b): Sums) -> f32 {
    if b > 0.0 { a * a / b } else { 0.0 }
}

/// To the nearest whole number, ties to even, for what is far below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

impl Group {
    fn new(format: GroupFormat, weights: &[f32], importance: Option<&[f32]>) -> Group {
        let (mut w, mut h) = ([0.0; MOST], [0.0; MOST]);
        w[..weights.len()].copy_from_slice(weights);
        match importance {
            Some(importance) => h[..weights.len()].copy_from_slice(importance),
            None => h[..weights.len()].fill(1.0),
        }
        let zero = format.zero() as f32;
        Group { w, h, least: -zero, most: zero + 1.0 }
    }

    /// The sums with the nearest values to `w * u`.
    #[inline(always)]
    fn sums(&self, u: f32) -> Sums {
        // Lanes that a vector holds, so that the sums are made side by side.
        let (mut a, mut b) = ([0.0f32; 8], [0.0f32; 8]);
        for (w, h) in self.w.chunks_exact(8).zip(self.h.chunks_exact(8)) {
            for i in 0..8 {
                let k = round(w[i] * u).clamp(self.least, self.most);
                let hk = h[i] * k;
                a[i] += w[i] * hk;
                b[i] += k * hk;
            }
        }
        (a.iter().sum(), b.iter().sum())
    }

    /// Codes and error with this scale.
    fn with(&self, len: usize, scale: f32) -> Found {
        let (mut codes, mut error) = ([0; MOST], 0.0f64);
        let u = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for i in 0..len {
            let k = round((self.w[i] * u).clamp(self.least, self.most));
            codes[i] = (k - self.least) as u8;
            let off = f64::from(self.w[i]) - f64::from(k) * f64::from(scale);
            error += f64::from(self.h[i]) * off * off;
        }
        Found { codes, scale, error }
    }

    /// The best scales of a grid, best first.
    #[inline(always)]
    fn scan(&self, largest: f32) -> [(f32, f32); FOLLOWED] {
        let mut best = [(0.0f32, 0.0f32); FOLLOWED];
        let step = (self.most + 0.5 - self.most * 0.55) / POINTS as f32;
        for sign in [1.0f32, -1.0] {
            for point in 0..POINTS {
                let u = sign * (self.most * 0.55 + step * point as f32) / largest;
                let found = gain(self.sums(u));
                let mut one = (found, u);
                for kept in &mut best {
                    if one.0 > kept.0 {
                        std::mem::swap(kept, &mut one);
                    }
                }
            }
        }
        best
    }
}

/// The value nearest to `x` that a scale of this model's dtype is stored as: float32 scales are stored as bf16.
fn stored(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => round_f16(x),
        _ => f32::from_bits(u32::from(f32_to_bf16_bits(x)) << 16),
    }
}

/// The stored values on both sides of one, away from zero and towards it.
fn beside(dtype: DType, x: f32) -> [f32; 2] {
    let step = match dtype {
        DType::F16 => {
            let bits = half::f16::from_f32(x).to_bits();
            return [bits.wrapping_add(1), bits.wrapping_sub(1)].map(|b| half::f16::from_bits(b).to_f32());
        }
        _ => 1u32 << 16,
    };
    [x.to_bits().wrapping_add(step), x.to_bits().wrapping_sub(step)].map(f32::from_bits)
}

/// The scale and the codes of least error that a search finds; `importance` is what the squared error of each weight
/// counts. Weights that are not finite have no scale: it is NaN then.
pub fn search(format: GroupFormat, dtype: DType, weights: &[f32], importance: Option<&[f32]>) -> Found {
    let group = Group::new(format, weights, importance);
    // What counts nothing may be anything.
    let counts = weights.iter().zip(group.h).filter(|(_, h)| *h > 0.0);
    let largest = counts.fold(0.0f32, |m, (w, _)| m.max(w.abs()));
    if !weights.iter().all(|w| w.is_finite()) {
        return Found { codes: [0; MOST], scale: f32::NAN, error: f64::NAN };
    }
    if largest == 0.0 {
        return group.with(weights.len(), 0.0);
    }
    let mut best: Option<Found> = None;
    for (_, start) in group.scan(largest).into_iter().filter(|(gain, _)| *gain > 0.0) {
        let (mut u, mut sums) = (start, group.sums(start));
        for _ in 0..8 {
            let next = sums.1 / sums.0;
            if !next.is_finite() || next == u {
                break;
            }
            u = next;
            sums = group.sums(u);
        }
        let scale = stored(dtype, if sums.1 > 0.0 { sums.0 / sums.1 } else { 1.0 / u });
        let near = beside(dtype, scale);
        for scale in [scale, near[0], near[1]].into_iter().filter(|s| s.is_finite() && *s != 0.0) {
            let found = group.with(weights.len(), scale);
            if best.is_none_or(|best| found.error < best.error) {
                best = Some(found);
            }
        }
    }
    // Weights too small for any scale that is stored.
    best.unwrap_or_else(|| group.with(weights.len(), 0.0))
}

/// The least error that any scale leaves, stored or not: the measure of [`search`].
pub fn exact(format: GroupFormat, weights: &[f32], importance: Option<&[f32]>) -> f64 {
    let group = Group::new(format, weights, importance);
    let zero = format.zero();
    let all: f64 = weights.iter().zip(group.h).map(|(w, h)| f64::from(h) * f64::from(*w).powi(2)).sum();
    let mut most = 0.0f64;
    for sign in [1.0f64, -1.0] {
        // Where `w u` passes a half on its way from 0: at which `u`, of which weight, to which value.
        let mut points: Vec<(f64, usize, f64)> = Vec::new();
        for (i, w) in weights.iter().enumerate() {
            let w = f64::from(*w) * sign;
            let steps = if w > 0.0 { zero + 1 } else { zero };
            points.extend((0..steps).filter(|_| w != 0.0).map(|k| {
                let k = f64::from(k);
                ((k + 0.5) / w.abs(), i, if w > 0.0 { k + 1.0 } else { -k - 1.0 })
            }));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut a, mut b, mut k) = (0.0f64, 0.0f64, vec![0.0f64; weights.len()]);
        for (_, i, to) in points {
            let (w, h) = (f64::from(weights[i]) * sign, f64::from(group.h[i]));
            a += h * w * (to - k[i]);
            b += h * (to * to - k[i] * k[i]);
            k[i] = to;
            if b > 0.0 {
                most = most.max(a * a / b);
            }
        }
    }
    (all - most).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from((state >> 40) as u32) / f64::from(1u32 << 24)
        };
        (0..n).map(|_| (0..12).map(|_| next()).sum::<f64>() as f32 - 6.0).collect()
    }

    fn plain(format: GroupFormat, weights: &[f32]) -> f64 {
        let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let scale = stored(DType::BF16, largest / format.zero() as f32);
        Group::new(format, weights, None).with(weights.len(), scale).error
    }

    #[test]
    fn it_comes_close_to_the_least_error_and_is_better_than_rounding() {
        for (format, part) in [(GroupFormat::INT4, 0.80), (GroupFormat::INT3, 0.75)] {
            let (mut found, mut least, mut rounded) = (0.0, 0.0, 0.0);
            for seed in 0..2000 {
                let weights = normals(seed, format.group);
                let one = search(format, DType::F32, &weights, None);
                assert_eq!(stored(DType::F32, one.scale), one.scale);
                let best = exact(format, &weights, None);
                assert!(one.error >= best * 0.9999, "{} is less than the least, {best}", one.error);
                found += one.error;
                least += best;
                rounded += plain(format, &weights);
            }
            println!("{format:?}: {found:.2}, at least {least:.2}, plain {rounded:.2}");
            assert!(found < 1.02 * least && found < part * rounded, "{found} {least} {rounded}");
        }
    }

    #[test]
    fn what_a_scale_can_say_is_found_again() {
        let format = GroupFormat::INT4;
        for scale in [0.25f32, -0.25, 1e-3, -3e4] {
            let scale = stored(DType::F32, scale);
            let weights: Vec<f32> = (0..32).map(|i| ((i * 5 % 16) as f32 - 7.0) * scale).collect();
            let found = search(format, DType::F32, &weights, None);
            assert_eq!((found.scale, found.error), (scale, 0.0));
        }
        let zeros = search(format, DType::F32, &[0.0; 32], None);
        assert_eq!((zeros.scale, zeros.error), (0.0, 0.0));
        assert!(search(format, DType::F32, &[f32::NAN; 32], None).scale.is_nan());
    }

    #[test]
    fn importance_counts() {
        let format = GroupFormat::INT3;
        let mut weights = normals(3, 40);
        weights[0] = 9.0;
        let mut importance = vec![1.0; 40];
        importance[0] = 0.0;
        let found = search(format, DType::F16, &weights, Some(&importance));
        let rest = exact(format, &weights[1..], None);
        assert!(found.error < 1.05 * rest, "{} {rest}", found.error);
    }
}
