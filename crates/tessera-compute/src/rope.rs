//! Rotary angles: the frequencies of every scaling that HF's llama knows, and cos and sin of a
//! position. Formulas: HF transformers, `modeling_rope_utils.py`.

use std::f64::consts::PI;
use tessera_weights::config::RopeScaling;

/// Everything that decides the angle of a position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// How many of a head's dimensions turn, from the first on; `dim / 2` frequencies.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// What happens beyond the trained context.
    pub scaling: RopeScaling,
    /// `max_position_embeddings`, which `longrope` compares with its trained context.
    pub context: usize,
    /// Which dimensions turn together.
    pub pairs: Pairs,
}

/// Which two dimensions of a head turn together by frequency `i`, of `dim / 2` of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairs {
    /// `i` and `i + dim / 2`.
    #[default]
    Halves,
    /// `2 i` and `2 i + 1`.
    Neighbours,
    /// As halves, but with a frequency for each dimension, `i` and `i + dim / 2`: TVM's yarn, whose ramp goes by the
    /// dimension. No rotation where the two differ.
    Apart,
    /// As neighbours, with the frequencies of [`Pairs::Apart`]: `2 i` has frequency `i`, `2 i + 1` has `i + dim / 2`.
    NeighboursApart,
}

impl Pairs {
    /// The two dimensions of pair `i`.
    pub const fn of(self, i: usize, half: usize) -> [usize; 2] {
        match self {
            Pairs::Halves | Pairs::Apart => [i, i + half],
            Pairs::Neighbours | Pairs::NeighboursApart => [2 * i, 2 * i + 1],
        }
    }

    /// Whether the two have frequencies of their own.
    pub const fn apart(self) -> bool {
        matches!(self, Pairs::Apart | Pairs::NeighboursApart)
    }
}

/// The frequencies for one length of sequence, and the factor on cos and sin.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// `dim / 2` angles per position, or `dim` where [`Pairs::apart`].
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin.
    pub factor: f32,
}

impl Rope {
    /// Whether the frequencies depend on the length of the sequence.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// The frequencies that a sequence of `len` tokens uses.
    pub fn frequencies(&self, len: usize) -> Frequencies {
        let (half, angles) = (self.dim / 2, self.angles());
        let power =
            |theta: f64| (0..angles).map(move |i| theta.powf(-(2.0 * (i % half) as f64) / self.dim as f64));
        let plain = |f: Vec<f64>, factor: f64| Frequencies {
            inv_freq: f.into_iter().map(|x| x as f32).collect(),
            factor: factor as f32,
        };
        match &self.scaling {
            RopeScaling::None => plain(power(self.theta).collect(), 1.0),
            RopeScaling::Linear { factor } => plain(power(self.theta).map(|f| f / factor).collect(), 1.0),
            RopeScaling::Dynamic { factor, original_context } => {
                let n = len.max(*original_context) as f64 / *original_context as f64;
                let d = self.dim as f64;
                let grown = self.theta * (factor * n - (factor - 1.0)).powf(d / (d - 2.0));
                plain(power(grown).collect(), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let n = *original_context as f64;
                let scale = |f: f64| {
                    let wavelength = 2.0 * PI / f;
                    if wavelength < n / high_freq_factor {
                        f
                    } else if wavelength > n / low_freq_factor {
                        f / factor
                    } else {
                        let smooth =
                            (n / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                plain(power(self.theta).map(scale).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, original_context, .. } => {
                let ramp = self.yarn_ramp(*original_context);
                let f = power(self.theta).zip(ramp).map(|(f, r)| f / factor * r + f * (1.0 - r)).collect();
                plain(f, self.yarn_attention_factor(*factor))
            }
            RopeScaling::LongRope { short_factor, long_factor, original_context, .. } => {
                let divisors = if len > *original_context { long_factor } else { short_factor };
                let f = power(self.theta).zip(divisors.iter().cycle()).map(|(f, d)| f / d).collect();
                plain(f, self.longrope_attention_factor(*original_context))
            }
        }
    }

    /// Number of angles a position.
    pub const fn angles(&self) -> usize {
        match self.pairs {
            Pairs::Halves | Pairs::Neighbours => self.dim / 2,
            Pairs::Apart | Pairs::NeighboursApart => self.dim,
        }
    }

    /// How far each dimension is interpolated, 0 to 1.
    fn yarn_ramp(&self, original_context: usize) -> Vec<f64> {
        let RopeScaling::Yarn { beta_fast, beta_slow, truncate, .. } = self.scaling else {
            return Vec::new();
        };
        let d = self.dim as f64;
        let dim_of = |rotations: f64| {
            d * (original_context as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (dim_of(beta_fast), dim_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(d - 1.0));
        if low == high {
            high += 0.001;
        }
        (0..self.angles()).map(|i| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)).collect()
    }

    fn yarn_attention_factor(&self, factor: f64) -> f64 {
        let RopeScaling::Yarn { attention_factor, mscale, mscale_all_dim, .. } = self.scaling else {
            return 1.0;
        };
        let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        match (attention_factor, mscale, mscale_all_dim) {
            (Some(f), _, _) => f,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale(m) / scale(all),
            _ => scale(1.0),
        }
    }

    fn longrope_attention_factor(&self, original_context: usize) -> f64 {
        let RopeScaling::LongRope { attention_factor, factor, .. } = self.scaling else { return 1.0 };
        let ratio = factor.unwrap_or(self.context as f64 / original_context as f64);
        attention_factor.unwrap_or(if ratio <= 1.0 {
            1.0
        } else {
            (1.0 + ratio.ln() / (original_context as f64).ln()).sqrt()
        })
    }
}

impl Frequencies {
    /// cos and sin of each frequency at `position`, times the factor. The angle is rounded to f32
    /// first, as every f32 implementation does.
    pub fn at(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((f, c), s) in self.inv_freq.iter().zip(cos).zip(sin) {
            let angle = f64::from(position as f32 * f);
            *c = angle.cos() as f32 * self.factor;
            *s = angle.sin() as f32 * self.factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope { dim: 8, theta: 10000.0, scaling, context: 4096, pairs: Pairs::Halves }
    }

    #[test]
    fn plain_frequencies_are_powers_of_the_base() {
        let f = rope(RopeScaling::None).frequencies(1);
        assert_eq!(f.inv_freq, [1.0, 0.1, 0.01, 0.001]);
        let (mut c, mut s) = ([0.0; 4], [0.0; 4]);
        f.at(3, &mut c, &mut s);
        assert_eq!((c[0], s[0]), (3f64.cos() as f32, 3f64.sin() as f32));
    }

    #[test]
    fn dynamic_grows_only_beyond_the_trained_context() {
        let r = rope(RopeScaling::Dynamic { factor: 2.0, original_context: 100 });
        assert_eq!(r.frequencies(100), rope(RopeScaling::None).frequencies(1));
        // HF: base * ((2 * 200 / 100) - 1) ** (8 / 6), then base ** -(2 / 8)
        let base = 10000.0 * 3f64.powf(8.0 / 6.0);
        assert_eq!(r.frequencies(200).inv_freq[1], base.powf(-0.25) as f32);
    }
}
