//! Every implementation of [`Lanes`] against the scalar one, bit for bit.

use super::*;

/// A small generator; the same numbers on every machine.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
}

/// The values at which formats begin, end and change their steps.
const EDGES: [f32; 20] = [
    0.0,
    1.0,
    1.5,
    1.0 + f32::EPSILON,
    1.0 - f32::EPSILON / 2.0,
    0.5,
    16_777_215.0,
    16_777_216.0,
    12_582_912.0,
    65504.0,
    65519.996,
    65520.0,
    f32::from_bits(0x3880_0000),
    f32::from_bits(0x387f_ffff),
    f32::from_bits(0x3300_0000),
    f32::from_bits(1),
    f32::from_bits(0x007f_ffff),
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::INFINITY,
];

/// Triples for `a * b + c`: edges of both signs and NaN, random bits, and sums that differ from a point
/// half-way between two f32 by less than f64 can tell.
fn triples() -> Vec<[f32; 3]> {
    let mut all = Vec::new();
    let edges: Vec<f32> = EDGES.iter().flat_map(|e| [*e, -*e]).chain([f32::NAN]).collect();
    for &a in &edges {
        for &b in &edges {
            all.extend(edges.iter().map(|&c| [a, b, c]));
        }
    }
    let mut r = Random(7);
    for _ in 0..200_000 {
        all.push([r.bits(), r.bits(), r.bits()].map(f32::from_bits));
        // Near each other in size.
        all.push([0; 3].map(|_| f32::from_bits((0x3f00_0000 + (r.bits() >> 7)) | (r.bits() & 0x8000_0000))));
    }
    for _ in 0..200_000 {
        // Half a step of `c`, or of the smallest f32, times a product of 1 - k 2^-46.
        let c = f32::from_bits(r.bits() & 0x83ff_ffff | if r.bits() & 1 == 0 { 0x3f00_0000 } else { 0 });
        let exponent = (c.to_bits() >> 23 & 255).max(1);
        let step = f64::powi(2.0, exponent as i32 - 127 - 23);
        let (i, j) = (r.bits() % 4, r.bits() % 4);
        let near_one =
            |i: u32| if i < 2 { 1.0 + i as f32 * f32::EPSILON } else { 1.0 - (i - 1) as f32 * f32::EPSILON };
        // The half step may be too small for a factor of its own: the other one takes a part.
        let (a, b) = (near_one(i) * f32::from_bits(63 << 23), near_one(j));
        let rest = step * 0.5 / f64::from(f32::from_bits(63 << 23));
        let b = (f64::from(b) * rest) as f32;
        all.push([a, if r.bits() & 1 == 0 { b } else { -b }, c]);
    }
    all.resize(all.len().next_multiple_of(LANES), [0.0; 3]);
    all
}

fn same(found: [f32; LANES], expected: [f32; LANES], what: &str, of: impl Fn(usize) -> String) {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            f.to_bits() == e.to_bits() || f.is_nan() && e.is_nan(),
            "{what} of {}: {f:e} and not {e:e}",
            of(i)
        );
    }
}

/// # Safety
/// As for [`Lanes`].
unsafe fn agrees<V: Lanes>() {
    // SAFETY: pointers are to arrays of 16; the rest is the caller's promise.
    unsafe {
        for t in triples().chunks_exact(LANES) {
            let [a, b, c]: [[f32; LANES]; 3] = std::array::from_fn(|k| std::array::from_fn(|i| t[i][k]));
            let (v, s) =
                ([a, b, c].map(|x| V::load(x.as_ptr())), [a, b, c].map(|x| Scalar::load(x.as_ptr())));
            let of = |i: usize| format!("{:?}", t[i]);
            same(v[0].fma(v[1], v[2]).to_array(), s[0].fma(s[1], s[2]).to_array(), "fma", of);
            same(v[0].add(v[1]).to_array(), s[0].add(s[1]).to_array(), "add", of);
            same(v[0].sub(v[1]).to_array(), s[0].sub(s[1]).to_array(), "sub", of);
            same(v[0].mul(v[1]).to_array(), s[0].mul(s[1]).to_array(), "mul", of);
            same(v[0].div(v[1]).to_array(), s[0].div(s[1]).to_array(), "div", of);
            same(v[0].abs().to_array(), s[0].abs().to_array(), "abs", of);
            // Which zero is the larger one is nobody's business.
            let zero = |x: [f32; LANES]| x.map(|x| x + 0.0);
            same(zero(v[0].max(v[1]).to_array()), zero(s[0].max(s[1]).to_array()), "max", of);
            same(exp(v[2]).to_array(), exp(s[2]).to_array(), "exp", of);
            for (v, e) in v.iter().zip(s) {
                for (i, (v, e)) in v.to_f16().into_iter().zip(e.to_f16()).enumerate() {
                    let (v, e) = (half::f16::from_bits(v), half::f16::from_bits(e));
                    let nan = v.is_nan() && e.is_nan();
                    assert!(v.to_bits() == e.to_bits() || nan, "f16 of {:?}: {v} and not {e}", t[i]);
                }
            }
        }
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for h in all.chunks_exact(LANES) {
            let of = |i: usize| format!("{:#x}", h[i]);
            let p = h.as_ptr();
            same(V::load_f16(p).to_array(), Scalar::load_f16(p).to_array(), "f16", of);
            same(V::load_bf16(p).to_array(), Scalar::load_bf16(p).to_array(), "bf16", of);
        }
        let all: [i8; 256] = std::array::from_fn(|i| i as u8 as i8);
        for b in all.chunks_exact(LANES) {
            let of = |i: usize| b[i].to_string();
            same(V::load_i8(b.as_ptr()).to_array(), Scalar::load_i8(b.as_ptr()).to_array(), "i8", of);
        }
        for n in -126..128 {
            let x = 12_582_912.0 + n as f32;
            assert_eq!(V::splat(x).pow2_of_shifted().to_array(), [f32::powi(2.0, n); LANES], "2^{n}");
        }
    }
}

#[test]
fn every_instruction_set_has_the_scalar_lanes() {
    // SAFETY: each runs where its instruction set is.
    unsafe {
        agrees::<Scalar>();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                agrees::<Avx2>();
            }
            if is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                agrees::<Avx512>();
            }
        }
        #[cfg(target_arch = "aarch64")]
        agrees::<Neon>();
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        agrees::<Simd128>();
    }
}

/// Here the processor is the judge.
#[test]
#[cfg(not(target_arch = "wasm32"))]
fn fma_can_be_made_of_f64() {
    for [a, b, c] in triples() {
        let (found, expected) = (super::fma::exact(a, b, c), a.mul_add(b, c));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{a:e} * {b:e} + {c:e}: {found:e} and not {expected:e}");
    }
}

#[test]
fn exp_is_close() {
    for i in -3480..3520 {
        let x = i as f32 * 0.025;
        // SAFETY: scalar lanes need no instruction set.
        let y = unsafe { exp(Scalar::splat(x)).to_array()[3] };
        let expected = f64::from(x).exp();
        assert!((f64::from(y) - expected).abs() <= 2e-7 * expected, "{x}: {y} {expected}");
    }
}
