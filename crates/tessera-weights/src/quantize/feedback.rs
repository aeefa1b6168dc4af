//! Codes of a matrix whose inputs are known: each weight is rounded after it was moved by what the weights before it lost.
//!
//! Of a row `w` with the codes' values `v` the outputs lose `(w - v) H (w - v)ᵀ`, summed over the inputs `x` that `H =
//! Σ x xᵀ` was made of. With `H = U D Uᵀ`, `U` unit upper triangular, that is `Σ D_k (t_k - v_k)²` for
//! `t_k = w_k + Σ_{i<k} (w_i - v_i) U_ik`, so column after column the best value is the one nearest to `t_k`. This is GPTQ
//! (Frantar et al. 2022) in the form of LDLQ (Chee et al. 2023, "QuIP", theorem 6), which needs no inverse. The scale of a
//! group is [searched](super::search) for when the group is reached, with the feedback inside the group. Groups go in
//! descending order of their inputs' size, so that what matters most has most to make up for it. When all are rounded, each
//! code is chosen again a few times, with all others as they are: what came first did not know what came after.

use super::search::{Group, LANES, Lane, MOST, Measure, put};
use crate::dtype::DType;
use crate::scheme::GroupFormat;
use rayon::prelude::*;

/// What is added to the diagonal, as a part of its mean: inputs that were not seen may come.
const DAMPING: f64 = 0.01;

/// How often every code is chosen again, when all others are known.
const SWEEPS: usize = 3;

/// The inputs of a matrix, summed up for rounding.
#[derive(Clone, Debug)]
pub struct Curvature {
    format: GroupFormat,
    /// The columns in the order in which they are rounded, groups whole.
    order: Vec<usize>,
    /// Where each group begins in it, and the end.
    begins: Vec<usize>,
    /// `[i][k]` for `i < k`, by place in the order.
    feedback: Vec<f32>,
    /// `D`, by place in the order.
    importance: Vec<f32>,
    /// `H`, damped, in units of its mean diagonal, likewise.
    moments: Vec<f32>,
}

/// A row's codes and scales.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounded {
    /// As [`encode_row`](super::encode_row) gives them, for all rows.
    pub words: Vec<u32>,
    /// Likewise.
    pub scales: Vec<f32>,
}

impl Curvature {
    /// Of `moments` `[cols, cols]`, `Σ x xᵀ` over the inputs `x`.
    pub fn new(format: GroupFormat, cols: usize, moments: &[f64]) -> Curvature {
        assert_eq!(moments.len(), cols * cols, "second moments of {cols} inputs");
        let diagonal = |i: usize| moments[i * cols + i];
        let group = |g: usize| g * format.group..((g + 1) * format.group).min(cols);
        let size = |g: usize| group(g).map(diagonal).sum::<f64>() / group(g).len() as f64;
        let mut groups: Vec<usize> = (0..format.groups(cols)).collect();
        groups.sort_by(|a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
        let mut begins = vec![0];
        begins.extend(groups.iter().scan(0, |end, g| {
            *end += group(*g).len();
            Some(*end)
        }));
        let order: Vec<usize> = groups.into_iter().flat_map(group).collect();
        let mean = ((0..cols).map(diagonal).sum::<f64>() / cols.max(1) as f64).max(f64::MIN_POSITIVE);
        let mut damping = DAMPING;
        let (factor, moments) = loop {
            let mut all: Vec<f64> = Vec::with_capacity(cols * cols);
            for (k, i) in order.iter().enumerate() {
                all.extend(order.iter().map(|j| moments[i * cols + j]));
                all[k * cols + k] += damping * mean;
            }
            let scaled: Vec<f32> = all.iter().map(|x| (x / mean) as f32).collect();
            if factorise(&mut all, cols) {
                break (all, scaled);
            }
            // Sums that rounding has made indefinite.
            damping *= 10.0;
        };
        let pivot = |k: usize| factor[k * cols + k];
        let feedback = (0..cols * cols).map(|at| {
            let (i, k) = (at / cols, at % cols);
            if i < k { (factor[at] / pivot(k)) as f32 } else { 0.0 }
        });
        let feedback = feedback.collect();
        // Only their proportions count: f32 holds those of any inputs.
        let importance = (0..cols).map(|k| (pivot(k) * pivot(k) / mean) as f32).collect();
        Curvature { format, order, begins, feedback, importance, moments }
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.order.len()
    }

    /// Rounds rows of `weights`, for scales that are stored as those of `dtype`.
    pub fn round(&self, dtype: DType, weights: &[f32]) -> Rounded {
        self.round_again(dtype, weights, SWEEPS)
    }

    /// The same with so many sweeps.
    fn round_again(&self, dtype: DType, weights: &[f32], sweeps: usize) -> Rounded {
        let (cols, format) = (self.cols(), self.format);
        let rows = weights.len() / cols;
        let (row_words, row_groups) = (format.words(cols), format.groups(cols));
        let mut rounded = Rounded { words: vec![0; rows * row_words], scales: vec![0.0; rows * row_groups] };
        let parts = weights
            .par_chunks(LANES * cols)
            .zip(rounded.words.par_chunks_mut(LANES * row_words))
            .zip(rounded.scales.par_chunks_mut(LANES * row_groups));
        parts.for_each(|((weights, words), scales)| self.some_rows(dtype, weights, sweeps, words, scales));
        rounded
    }

    fn some_rows(&self, dtype: DType, weights: &[f32], sweeps: usize, words: &mut [u32], scales: &mut [f32]) {
        let (cols, format) = (self.cols(), self.format);
        let rows = weights.len() / cols;
        let of_row = |r: usize, k: usize| if r < rows { weights[r * cols + self.order[k]] } else { 0.0 };
        let all: Vec<Lane> = (0..cols).map(|k| std::array::from_fn(|r| of_row(r, k))).collect();
        let mut errors: Vec<Lane> = Vec::with_capacity(cols);
        let mut codes: Vec<[u8; LANES]> = Vec::with_capacity(cols);
        let mut group_scales: Vec<Lane> = Vec::with_capacity(self.begins.len());
        for begin in self.begins.windows(2) {
            let (from, to) = (begin[0], begin[1]);
            let len = to - from;
            let mut moved = [[0.0; LANES]; MOST];
            moved[..len].copy_from_slice(&all[from..to]);
            carry(&errors, &self.feedback[from..], cols, &mut moved[..len]);
            let within: Vec<f32> =
                (from..to).flat_map(|i| &self.feedback[i * cols + from..][..len]).copied().collect();
            let measure = Measure { importance: &self.importance[from..to], within: Some(&within) };
            let (weights, moved) = (&all[from..to], &moved[..len]);
            let found = Group { format, dtype, weights, moved, measure }.find();
            errors.extend_from_slice(&found.errors[..len]);
            codes.extend_from_slice(&found.codes[..len]);
            group_scales.push(found.scale);
        }
        for _ in 0..sweeps {
            for (begin, scale) in self.begins.windows(2).zip(&group_scales) {
                (begin[0]..begin[1]).for_each(|k| self.again(k, all[k], scale, &mut errors, &mut codes[k]));
            }
        }
        for (begin, scale) in self.begins.windows(2).zip(&group_scales) {
            let (group, codes) = (self.order[begin[0]] / format.group, &codes[begin[0]..begin[1]]);
            put(format, group, (rows, cols), (codes, scale), words, scales);
        }
    }

    /// `Σ_j H_kj errors_j`: half the slope of the loss by what is lost of weight `k`.
    fn pull(&self, k: usize, errors: &[Lane]) -> Lane {
        let mut pull = [[0.0; LANES]];
        carry(errors, &self.moments[k * self.cols()..], 1, &mut pull);
        pull[0]
    }

    /// Chooses the code of one weight again, all others as they are: the loss does not grow.
    fn again(&self, k: usize, weight: Lane, scale: &Lane, errors: &mut [Lane], codes: &mut [u8; LANES]) {
        let (zero, most) = (self.format.zero() as f32, (2 * self.format.zero() + 1) as f32);
        let (pull, own) = (self.pull(k, errors), self.moments[k * self.cols() + k]);
        for r in (0..LANES).filter(|r| scale[*r].is_finite() && scale[*r] != 0.0) {
            let wanted = weight[r] - (errors[k][r] - pull[r] / own);
            let code = (wanted / scale[r] + zero).round_ties_even().clamp(0.0, most);
            codes[r] = code as u8;
            errors[k][r] = weight[r] - (code - zero) * scale[r];
        }
    }
}

/// Adds to every weight what the errors before it say: `moved[k] += Σ_i errors[i] feedback[i * stride + k]`.
fn carry(errors: &[Lane], feedback: &[f32], stride: usize, moved: &mut [Lane]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { carry_avx512(errors, feedback, stride, moved) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { carry_avx2(errors, feedback, stride, moved) };
        }
    }
    carry_all(errors, feedback, stride, moved);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn carry_avx512(errors: &[Lane], feedback: &[f32], stride: usize, moved: &mut [Lane]) {
    carry_all(errors, feedback, stride, moved);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn carry_avx2(errors: &[Lane], feedback: &[f32], stride: usize, moved: &mut [Lane]) {
    carry_all(errors, feedback, stride, moved);
}

#[inline(always)]
fn carry_all(errors: &[Lane], feedback: &[f32], stride: usize, moved: &mut [Lane]) {
    /// Weights whose sums stay in registers.
    const SIDE: usize = 4;
    let mut from = 0;
    for some in moved.chunks_mut(SIDE) {
        if let Ok(some) = <&mut [Lane; SIDE]>::try_from(&mut *some) {
            let mut sums = *some;
            for (i, error) in errors.iter().enumerate() {
                let part = &feedback[i * stride + from..][..SIDE];
                for (sum, part) in sums.iter_mut().zip(part) {
                    for (sum, error) in sum.iter_mut().zip(error) {
                        *sum += part * error;
                    }
                }
            }
            *some = sums;
        } else {
            for (k, sum) in some.iter_mut().enumerate() {
                for (i, error) in errors.iter().enumerate() {
                    let part = feedback[i * stride + from + k];
                    sum.iter_mut().zip(error).for_each(|(sum, error)| *sum += part * error);
                }
            }
        }
        from += SIDE;
    }
}

/// Puts `M`, upper triangular with `M Mᵀ = all`, in the place of the upper triangle. False if there is none.
fn factorise(all: &mut [f64], n: usize) -> bool {
    for k in (0..n).rev() {
        let (above, rest) = all.split_at_mut(k * n);
        let row = &mut rest[..n];
        let pivot = row[k] - dot(&row[k + 1..], &row[k + 1..]);
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        let pivot = pivot.sqrt();
        row[k] = pivot;
        let row = &row[..];
        // A task is worth a thread from some ten thousand products on.
        let least = 1 + 16384 / (n - k);
        above.par_chunks_exact_mut(n).with_min_len(least).for_each(|above| {
            above[k] = (above[k] - dot(&above[k + 1..], &row[k + 1..])) / pivot;
        });
    }
    true
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::unpack_row;

    fn normals(seed: u64, n: usize) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from((state >> 40) as u32) / f64::from(1u32 << 24)
        };
        (0..n).map(|_| (0..12).map(|_| next()).sum::<f64>() - 6.0).collect()
    }

    /// Inputs that go together, as those of a model do.
    fn moments(cols: usize, seed: u64) -> Vec<f64> {
        let mut h = vec![0.0; cols * cols];
        let mix = normals(seed, cols * 8);
        for t in 0..3 * cols {
            let (own, few) = (normals(seed + 1 + t as u64, cols), normals(seed + 9999 + t as u64, 8));
            let x: Vec<f64> = (0..cols)
                .map(|i| 0.3 * own[i] + (0..8).map(|f| mix[i * 8 + f] * few[f]).sum::<f64>())
                .collect();
            for i in 0..cols {
                for j in 0..cols {
                    h[i * cols + j] += x[i] * x[j];
                }
            }
        }
        h
    }

    fn values(format: GroupFormat, cols: usize, words: &[u32], scales: &[f32]) -> Vec<f64> {
        let mut codes = vec![0; cols];
        unpack_row(format, words, &mut codes);
        let value = |(i, code): (usize, &u8)| {
            f64::from(i32::from(*code) - format.zero()) * f64::from(scales[i / format.group])
        };
        codes.iter().enumerate().map(value).collect()
    }

    fn lost(h: &[f64], w: &[f32], v: &[f64]) -> f64 {
        let e: Vec<f64> = w.iter().zip(v).map(|(w, v)| f64::from(*w) - v).collect();
        let cols = w.len();
        (0..cols).map(|i| e[i] * (0..cols).map(|j| h[i * cols + j] * e[j]).sum::<f64>()).sum()
    }

    #[test]
    fn the_outputs_lose_less_with_feedback_and_less_again_with_sweeps() {
        // The last group is short.
        for (format, cols) in [(GroupFormat::INT4, 112), (GroupFormat::INT3, 100)] {
            let (h, rows) = (moments(cols, 7), 19);
            let weights: Vec<f32> = normals(5, rows * cols).into_iter().map(|x| x as f32).collect();
            let curvature = Curvature::new(format, cols, &h);
            // The damped loss is what is made small.
            let mean = (0..cols).map(|i| h[i * cols + i]).sum::<f64>() / cols as f64;
            let mut damped = h.clone();
            (0..cols).for_each(|i| damped[i * cols + i] += DAMPING * mean);
            let of = |rounded: &Rounded, row: usize| {
                let words = &rounded.words[row * format.words(cols)..][..format.words(cols)];
                let scales = &rounded.scales[row * format.groups(cols)..][..format.groups(cols)];
                lost(&damped, &weights[row * cols..][..cols], &values(format, cols, words, scales))
            };
            let all = |rounded: &Rounded| (0..rows).map(|row| of(rounded, row)).sum::<f64>();
            // Without inputs to go together there is nothing to make up for.
            let mut apart = vec![0.0; cols * cols];
            (0..cols).for_each(|i| apart[i * cols + i] = 1.0);
            let searched = Curvature::new(format, cols, &apart).round(DType::F32, &weights);
            let [once, again] = [0, SWEEPS].map(|sweeps| curvature.round_again(DType::F32, &weights, sweeps));
            let sums = [&searched, &once, &again].map(all);
            println!("{format:?}: searched, with feedback, with sweeps: {sums:.1?}");
            assert!(sums[1] < 0.5 * sums[0] && sums[2] < 0.99 * sums[1], "{sums:?}");
            // No row loses by it, but for rounding of the sums.
            assert!((0..rows).all(|row| of(&again, row) <= of(&once, row) * 1.0001));
        }
    }

    #[test]
    fn inputs_that_say_nothing_are_no_obstacle() {
        let (format, cols) = (GroupFormat::INT4, 64);
        let weights: Vec<f32> = normals(5, 3 * cols).into_iter().map(|x| x as f32).collect();
        // None at all, and one direction only.
        let mut one = vec![0.0; cols * cols];
        one.iter_mut().for_each(|h| *h = 4.0);
        for h in [vec![0.0; cols * cols], one] {
            let rounded = Curvature::new(format, cols, &h).round(DType::F16, &weights);
            assert!(rounded.scales.iter().all(|s| s.is_finite()));
        }
    }
}
