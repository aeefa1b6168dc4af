// Functions of one value, as tessera-compute/src/functions.rs means them. Arguments of `exp` and `tanh` are limited:
// some drivers' `tanh` is NaN far out, and a compiler may think that there are no infinities.
fn silu(x: f32) -> f32 { return x / (1.0 + exp(min(-x, 88.0))); }
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(min(-x, 88.0))); }
fn relu(x: f32) -> f32 { return max(x, 0.0); }
fn relu2(x: f32) -> f32 { let y = max(x, 0.0); return y * y; }
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.7978846 * (x + 0.044715 * x * x * x);
    return 0.5 * x * (1.0 + tanh(clamp(inner, -15.0, 15.0)));
}
// Abramowitz and Stegun 7.1.26.
fn gelu(x: f32) -> f32 {
    let z = abs(x) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let poly = t * (0.25482959 + t * (-0.28449674 + t * (1.4214138 + t * (-1.4531521 + t * 1.0614054))));
    let erf = 1.0 - poly * exp(max(-z * z, -80.0));
    return 0.5 * x * (1.0 + select(erf, -erf, x < 0.0));
}
fn cap(x: f32, most: f32) -> f32 { return most * tanh(clamp(x / most, -15.0, 15.0)); }
// By its bits: a compiler may fold a comparison of a value with itself.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
