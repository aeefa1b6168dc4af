//! A fused multiply-add for one value, the same on every machine.

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    // WebAssembly has no instruction for it, and its C libraries are slow or, as that of wasi was in 2022,
    // wrong half-way between two values.
    if cfg!(target_arch = "wasm32") { exact(a, b, c) } else { a.mul_add(b, c) }
}

/// [`fma`] in f64. A product of two f32 is exact there. The sum is not, and rounding it to f64 and then
/// to f32 is wrong when the f64 lies half-way between two f32 and the exact value does not. So the sum is
/// rounded to odd: an inexact one is cut off and its last bit set, which keeps it off every half-way
/// point.
#[inline(always)]
pub(super) fn exact(a: f32, b: f32, c: f32) -> f32 {
    let (p, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let s = p + c;
    // What rounding left (Knuth): exact, as nothing overflows.
    let t = s - p;
    let e = (p - (s - t)) + (c - t);
    // False for NaN, so infinities and NaN stay as they are.
    let inexact = e.abs() > 0.0;
    let away = inexact && s.is_sign_negative() != e.is_sign_negative();
    f64::from_bits((s.to_bits() - u64::from(away)) | u64::from(inexact)) as f32
}
