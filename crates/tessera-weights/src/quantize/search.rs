//! The scale of a group by search: the one, of either sign and as it is stored, that leaves the least error.
//!
//! A group is read as `(code - zero) * scale`, so the values are `k * s` with `k` from `-zero` to `zero + 1`, the last code
//! included, which MLC's own quantiser never writes. For fixed `k` the best `s` is `Σ h w k / Σ h k²`; the `k` change only
//! where some `w / s` passes a half, so there is an exact answer (the judge of the tests), to which the search comes within
//! about a hundredth: a grid of scales, from the best of either sign a few steps downhill, and the stored values beside those.
//!
//! Where errors can be made up for by weights that come later ([`feedback`](super::feedback)) the same search runs with
//! that: each weight is moved by the errors of those before it, and then rounded.
//!
//! Sixteen rows are searched side by side, one in each lane, so that every step is one for all.

use super::{round_bf16, round_f16};
use crate::dtype::DType;
use crate::pack::pack_word;
use crate::scheme::GroupFormat;

/// Rows that are searched at once.
pub const LANES: usize = 16;
/// Most weights of a group.
pub const MOST: usize = 40;
/// One value of each row.
pub type Lane = [f32; LANES];

/// Scales of the grid, of each sign: the largest weight is that many steps of the format.
const POINTS: usize = 20;
/// Steps downhill.
const STEPS: usize = 3;

/// How much errors count.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// What the squared error of each weight counts; one for each weight of the group.
    pub importance: &'a [f32],
    /// `[j][k]`, for `j < k` how much of the error of weight `j` is added to weight `k` before it is rounded.
    pub within: Option<&'a [f32]>,
}

/// A group of each of sixteen rows.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The format.
    pub format: GroupFormat,
    /// What scales are stored as; float32 scales are stored as bf16.
    pub dtype: DType,
    /// The weights.
    pub weights: &'a [Lane],
    /// The weights, moved by the errors of the groups before.
    pub moved: &'a [Lane],
    /// How errors count.
    pub measure: Measure<'a>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of each weight.
    pub codes: [[u8; LANES]; MOST],
    /// As it is stored; NaN where a weight is not finite.
    pub scale: Lane,
    /// `Σ h (moved weight - value)²`.
    pub loss: Lane,
    /// What each weight lost: itself, not moved, less its value.
    pub errors: [Lane; MOST],
}

/// What a scale is worth.
struct Trial {
    loss: Lane,
    /// `Σ h w k` and `Σ h k²`.
    sums: [Lane; 2],
}

/// To the nearest whole number, ties to even, for what is far below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

/// The values that `f` has of two lanes.
#[inline(always)]
fn lanes(mut f: impl FnMut(usize) -> f32) -> Lane {
    let mut out = [0.0; LANES];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

impl Group<'_> {
    /// The codes that a scale gives, one weight after another: `each` is told the weight's number and its whole
    /// numbers.
    #[inline(always)]
    fn try_scale<const FEED: bool>(&self, scale: &Lane, mut each: impl FnMut(usize, &Lane)) -> Trial {
        let (least, most) = (-(self.format.zero() as f32), self.format.zero() as f32 + 1.0);
        let inverse = lanes(|i| if scale[i] == 0.0 { 0.0 } else { 1.0 / scale[i] });
        let mut trial = Trial { loss: [0.0; LANES], sums: [[0.0; LANES]; 2] };
        let mut errors = [[0.0f32; LANES]; MOST];
        let len = self.weights.len();
        for k in 0..len {
            let mut w = self.moved[k];
            if let Some(within) = self.measure.within.filter(|_| FEED) {
                for (j, error) in errors[..k].iter().enumerate() {
                    let part = within[j * len + k];
                    w = lanes(|i| w[i] + part * error[i]);
                }
            }
            let h = self.measure.importance[k];
            let code = lanes(|i| round((w[i] * inverse[i]).clamp(least, most)));
            let off = lanes(|i| w[i] - code[i] * scale[i]);
            trial.loss = lanes(|i| trial.loss[i] + h * off[i] * off[i]);
            trial.sums[0] = lanes(|i| trial.sums[0][i] + h * w[i] * code[i]);
            trial.sums[1] = lanes(|i| trial.sums[1][i] + h * code[i] * code[i]);
            if FEED {
                errors[k] = lanes(|i| self.weights[k][i] - code[i] * scale[i]);
            }
            each(k, &code);
        }
        trial
    }

    /// The best scale of one sign in the grid, and then downhill from it.
    #[inline(always)]
    fn descend<const FEED: bool>(&self, largest: &Lane, sign: f32) -> Lane {
        let most = self.format.zero() as f32 + 1.0;
        let (first, step) = (most * 0.55, (most * 0.45 + 0.5) / POINTS as f32);
        let (mut best, mut scale) = ([f32::INFINITY; LANES], [0.0; LANES]);
        let mut sums = [[0.0; LANES]; 2];
        let mut keep = |tried: &Lane, trial: &Trial| {
            let better: [bool; LANES] = std::array::from_fn(|i| trial.loss[i] < best[i]);
            best = lanes(|i| if better[i] { trial.loss[i] } else { best[i] });
            scale = lanes(|i| if better[i] { tried[i] } else { scale[i] });
            for (sums, new) in sums.iter_mut().zip(&trial.sums) {
                *sums = lanes(|i| if better[i] { new[i] } else { sums[i] });
            }
            (scale, sums)
        };
        let mut state = ([0.0; LANES], [[0.0; LANES]; 2]);
        for point in 0..POINTS {
            let part = sign / (first + step * point as f32);
            let tried = lanes(|i| largest[i] * part);
            state = keep(&tried, &self.try_scale::<FEED>(&tried, |_, _| ()));
        }
        for _ in 0..STEPS {
            let (_, [a, b]) = state;
            let tried = lanes(|i| if b[i] > 0.0 { a[i] / b[i] } else { 0.0 });
            state = keep(&tried, &self.try_scale::<FEED>(&tried, |_, _| ()));
        }
        state.0
    }

    #[inline(always)]
    fn search<const FEED: bool>(&self) -> Found {
        let counts = |k: &usize| self.measure.importance[*k] > 0.0;
        let mut largest = [0.0f32; LANES];
        // What counts nothing may be anything.
        for k in (0..self.weights.len()).filter(counts) {
            largest = lanes(|i| largest[i].max(self.moved[k][i].abs()));
        }
        let mut finite = [true; LANES];
        for w in self.weights {
            finite = std::array::from_fn(|i| finite[i] & w[i].is_finite());
        }
        largest = lanes(|i| if finite[i] { largest[i] } else { 0.0 });
        let mut scale = [0.0; LANES];
        let mut loss = self.try_scale::<FEED>(&scale, |_, _| ()).loss;
        for sign in [1.0, -1.0] {
            let found = self.descend::<FEED>(&largest, sign);
            for part in [0.0, 0.75, -0.75] {
                let tried = lanes(|i| stored(self.dtype, found[i] * (1.0 + part * spacing(self.dtype))));
                let trial = self.try_scale::<FEED>(&tried, |_, _| ());
                let better: [bool; LANES] =
                    std::array::from_fn(|i| trial.loss[i] < loss[i] && tried[i].is_finite());
                loss = lanes(|i| if better[i] { trial.loss[i] } else { loss[i] });
                scale = lanes(|i| if better[i] { tried[i] } else { scale[i] });
            }
        }
        let mut found = Found { codes: [[0; LANES]; MOST], scale, loss, errors: [[0.0; LANES]; MOST] };
        let zero = self.format.zero() as f32;
        self.try_scale::<FEED>(&scale, |k, code| {
            found.codes[k] = std::array::from_fn(|i| (code[i] + zero) as u8);
            found.errors[k] = lanes(|i| self.weights[k][i] - code[i] * scale[i]);
        });
        for i in (0..LANES).filter(|i| !finite[*i]) {
            found.scale[i] = f32::NAN;
            found.codes.iter_mut().for_each(|codes| codes[i] = 0);
            found.errors.iter_mut().for_each(|errors| errors[i] = 0.0);
        }
        found
    }

    /// Scales and codes of least loss.
    pub fn find(&self) -> Found {
        match self.measure.within {
            Some(_) => self.dispatch::<true>(),
            None => self.dispatch::<false>(),
        }
    }

    fn dispatch<const FEED: bool>(&self) -> Found {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has what the function is compiled for.
                return unsafe { search_avx512::<FEED>(self) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { search_avx2::<FEED>(self) };
            }
        }
        self.search::<FEED>()
    }
}

/// The same steps in wider vectors: nothing is contracted, so the results are the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn search_avx2<const FEED: bool>(group: &Group<'_>) -> Found {
    group.search::<FEED>()
}

/// As above.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn search_avx512<const FEED: bool>(group: &Group<'_>) -> Found {
    group.search::<FEED>()
}

/// Searches the groups of up to [`LANES`] rows of `cols` weights, all of which count alike. `words` and `scales` are as
/// [`encode_row`](super::encode_row) makes them, row after row.
pub fn encode_rows(
    format: GroupFormat,
    dtype: DType,
    (rows, cols): (usize, usize),
    weights: &[f32],
    words: &mut [u32],
    scales: &mut [f32],
) {
    assert!(rows <= LANES && weights.len() == rows * cols, "{rows} rows of {cols} weights");
    for (group, from) in (0..cols).step_by(format.group).enumerate() {
        let len = format.group.min(cols - from);
        let mut lying = [[0.0; LANES]; MOST];
        for (k, lane) in lying[..len].iter_mut().enumerate() {
            *lane = lanes(|r| if r < rows { weights[r * cols + from + k] } else { 0.0 });
        }
        let (weights, measure) = (&lying[..len], Measure { importance: &[1.0; MOST], within: None });
        let found = Group { format, dtype, weights, moved: weights, measure }.find();
        put(format, group, (rows, cols), (&found.codes[..len], &found.scale), words, scales);
    }
}

/// Puts the codes and scales of group `group` in their places among those of `rows` whole rows.
pub(super) fn put(
    format: GroupFormat,
    group: usize,
    (rows, cols): (usize, usize),
    (codes, scale): (&[[u8; LANES]], &Lane),
    words: &mut [u32],
    scales: &mut [f32],
) {
    let (row_words, row_groups, each) = (format.words(cols), format.groups(cols), format.words_per_group());
    for r in 0..rows {
        let mut own = [0u8; MOST];
        own.iter_mut().zip(codes).for_each(|(code, of)| *code = of[r]);
        let words = &mut words[r * row_words + group * each..][..each];
        for (word, codes) in words.iter_mut().zip(own.chunks_exact(format.per_word)) {
            *word = pack_word(format.bits, codes);
        }
        scales[r * row_groups + group] = scale[r];
    }
}

/// The value nearest to `x` that a scale of this model's dtype is stored as.
#[inline(always)]
fn stored(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => round_f16(x),
        _ => round_bf16(x),
    }
}

/// How far stored values are apart, for values just below a power of two.
#[inline(always)]
const fn spacing(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 1.0 / 1024.0,
        _ => 1.0 / 128.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least error that any scale leaves, stored or not: the measure of [`Group::find`].
    fn exact(format: GroupFormat, weights: &[f32], importance: &[f32]) -> f64 {
        let zero = format.zero();
        let all: f64 =
            weights.iter().zip(importance).map(|(w, h)| f64::from(*h) * f64::from(*w).powi(2)).sum();
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
                let (w, h) = (f64::from(weights[i]) * sign, f64::from(importance[i]));
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

    fn normals(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from((state >> 40) as u32) / f64::from(1u32 << 24)
        };
        (0..n).map(|_| (0..12).map(|_| next()).sum::<f64>() as f32 - 6.0).collect()
    }

    fn group<'a>(format: GroupFormat, dtype: DType, weights: &'a [Lane], importance: &'a [f32]) -> Group<'a> {
        let measure = Measure { importance, within: None };
        Group { format, dtype, weights, moved: weights, measure }
    }

    /// The same weights in every row.
    fn alike(weights: &[f32]) -> Vec<Lane> {
        weights.iter().map(|w| [*w; LANES]).collect()
    }

    fn row(weights: &[Lane], i: usize) -> Vec<f32> {
        weights.iter().map(|w| w[i]).collect()
    }

    fn plain(format: GroupFormat, weights: &[Lane]) -> Trial {
        let largest = lanes(|i| weights.iter().fold(0.0f32, |m, w| m.max(w[i].abs())));
        let scale = lanes(|i| stored(DType::BF16, largest[i] / format.zero() as f32));
        group(format, DType::F32, weights, &[1.0; MOST]).try_scale::<false>(&scale, |_, _| ())
    }

    #[test]
    fn it_comes_close_to_the_least_error_and_is_better_than_rounding() {
        for (format, part) in [(GroupFormat::INT4, 0.72), (GroupFormat::INT3, 0.55)] {
            let (mut found, mut least, mut rounded) = (0.0, 0.0, 0.0);
            for seed in 0..150 {
                let values = normals(seed, format.group * LANES);
                let weights: Vec<Lane> = values.chunks_exact(LANES).map(|c| c.try_into().unwrap()).collect();
                let one = group(format, DType::F32, &weights, &[1.0; MOST]).find();
                for i in 0..LANES {
                    assert_eq!(stored(DType::F32, one.scale[i]), one.scale[i]);
                    let best = exact(format, &row(&weights, i), &[1.0; MOST]);
                    let loss = f64::from(one.loss[i]);
                    assert!(loss >= best * 0.9999, "{loss} is less than the least, {best}");
                    found += loss;
                    least += best;
                }
                rounded += plain(format, &weights).loss.iter().map(|x| f64::from(*x)).sum::<f64>();
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
            let found = group(format, DType::F32, &alike(&weights), &[1.0; MOST]).find();
            assert_eq!((found.scale, found.loss), ([scale; LANES], [0.0; LANES]));
            let codes: Vec<u8> = (0..32).map(|i| (i * 5 % 16) as u8).collect();
            assert!((0..32).all(|k| found.codes[k] == [codes[k]; LANES]));
        }
        let zeros = group(format, DType::F32, &alike(&[0.0; 32]), &[1.0; MOST]).find();
        assert_eq!((zeros.scale, zeros.loss), ([0.0; LANES], [0.0; LANES]));
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = alike(&[1.0; 32]);
            weights[3][5] = bad;
            let found = group(GroupFormat::INT4, DType::F16, &weights, &[1.0; MOST]).find();
            assert!((0..LANES).all(|i| found.scale[i].is_nan() == (i == 5)), "{:?}", found.scale);
        }
    }

    #[test]
    fn importance_counts() {
        let format = GroupFormat::INT3;
        let mut weights = normals(3, 40);
        weights[0] = 9.0;
        let mut importance = vec![1.0; 40];
        importance[0] = 0.0;
        let found = group(format, DType::F16, &alike(&weights), &importance).find();
        let rest = exact(format, &weights[1..], &[1.0; 39]);
        assert!(f64::from(found.loss[0]) < 1.05 * rest, "{:?} {rest}", found.loss);
    }

    #[test]
    fn instructions_change_no_bit() {
        let values = normals(9, 40 * LANES);
        let weights: Vec<Lane> = values.chunks_exact(LANES).map(|c| c.try_into().unwrap()).collect();
        for (format, dtype) in [(GroupFormat::INT4, DType::F16), (GroupFormat::INT3, DType::F32)] {
            let group = group(format, dtype, &weights[..format.group], &[1.0; MOST]);
            let (plain, found) = (group.search::<false>(), group.find());
            assert_eq!((plain.scale, plain.codes, plain.loss), (found.scale, found.codes, found.loss));
        }
    }

    #[test]
    #[ignore = "a measurement, not a test: CONTRIBUTING.md has the command"]
    fn speed() {
        let values = normals(9, 32 * LANES);
        let weights: Vec<Lane> = values.chunks_exact(LANES).map(|c| c.try_into().unwrap()).collect();
        let group = group(GroupFormat::INT4, DType::F16, &weights, &[1.0; MOST]);
        let begun = std::time::Instant::now();
        let mut sum = 0.0;
        for _ in 0..2000 {
            sum += std::hint::black_box(&group).find().scale[0];
        }
        let took = begun.elapsed().as_secs_f64();
        println!("{:.0} MB/s of f32 on one core ({sum})", 2000.0 * 32.0 * LANES as f64 * 4.0 / took / 1e6);
    }
}
