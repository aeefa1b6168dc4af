//! Functions of values and rows that every backend computes: what they mean, in plain f32.

use crate::program::{Function, NormKind};
use tessera_weights::config::Activation;

/// The largest value; -inf of none. NaN are passed over. Many maxima side by side, since one would wait for
/// itself at every value.
pub fn max(row: &[f32]) -> f32 {
    let larger = |m: f32, x: f32| if x > m { x } else { m };
    let (lanes, rest) = row.as_chunks::<32>();
    let mut most = [f32::NEG_INFINITY; 32];
    for lane in lanes {
        most.iter_mut().zip(lane).for_each(|(m, x)| *m = larger(*m, *x));
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |m, x| larger(m, *x))
}

/// The id of the largest value, the lowest among equals. -inf is a value like others, of a token that cannot
/// come; `None` if any value is NaN or +inf, or if none is finite.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let valid = row.chunks(256).all(|part| part.iter().fold(true, |all, x| all & (*x < f32::INFINITY)));
    let largest = max(row);
    let at = row.iter().position(|x| *x == largest)?;
    (valid && largest > f32::NEG_INFINITY).then_some(at as u32)
}

/// The value of an activation.
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::GeluTanh => {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Gelu => {
            // Abramowitz and Stegun 7.1.26 in f64: |error| < 1.5e-7, below f32's own rounding here.
            let z = f64::from(x.abs()) * std::f64::consts::FRAC_1_SQRT_2;
            let t = 1.0 / (1.0 + 0.327_591_1 * z);
            let poly = t
                * (0.254_829_592
                    + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
            let erf = (1.0 - poly * (-z * z).exp()).copysign(f64::from(x));
            (0.5 * f64::from(x) * (1.0 + erf)) as f32
        }
    }
}

/// The weights of part `part` of a row that is normed in parts of `each` columns: all have the same, or each its own.
pub fn norm_part(weights: &[f32], each: usize, part: usize) -> &[f32] {
    if weights.len() == each { weights } else { &weights[part * each..][..each] }
}

/// One part of a row, normed.
pub fn norm(
    kind: NormKind,
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|v| f64::from(*v)).sum::<f64>() / n,
    };
    let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance as f32 + eps).sqrt();
    for (i, (o, x)) in out.iter_mut().zip(x).enumerate() {
        let normed = (x - mean as f32) * scale;
        *o = normed * weight.map_or(1.0, |w| w[i]) + bias.map_or(0.0, |b| b[i]);
    }
}

/// The value of a function.
pub fn apply(f: Function, x: f32) -> f32 {
    match f {
        Function::Activation(activation) => activate(activation, x),
        Function::Scale(factor) => x * factor,
        Function::Cap(cap) => cap * (x / cap).tanh(),
        // NaN stays NaN.
        Function::Clip(most) => x.clamp(-most, most),
    }
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn a_token_that_cannot_come_is_no_fault_of_the_others() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(argmax(&[-inf, 1.0, 3.0, 3.0]), Some(2));
        assert_eq!(argmax(&[-inf, -inf]), None);
        for broken in [[1.0, nan], [1.0, inf], [nan, nan]] {
            assert_eq!(argmax(&broken), None);
        }
        assert_eq!(argmax(&[]), None);
    }
}
