//! Blocks of quantised weights to f32, with ggml's arithmetic.
//!
//! The order of operations is that of `dequantize_row_*` in ggml's `ggml-quants.c` and of the Python
//! package `gguf`; results are equal to the last bit. Rust does not fuse multiply and add, nor may this.

mod few_bits;
mod tables;

use half::f16;

use super::error::GgufError;
use super::types::GgmlType;

/// Names of the types that [`dequantize`] knows.
pub const SUPPORTED: &[&str] = &[
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4",
];

/// Refuses a tensor of a type that cannot be decoded.
pub fn check_supported(tensor: &str, ty: GgmlType) -> Result<(), GgufError> {
    if SUPPORTED.contains(&ty.name) {
        return Ok(());
    }
    Err(GgufError::UnsupportedType {
        tensor: tensor.to_string(),
        found: ty.name,
        expected: SUPPORTED.join(", "),
    })
}

/// Decodes whole blocks. `false` where the type is not supported or the lengths do not fit each other.
#[must_use]
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
    if !bytes.len().is_multiple_of(ty.bytes)
        || (bytes.len() / ty.bytes).checked_mul(ty.block) != Some(out.len())
    {
        return false;
    }
    let decode: fn(&[u8], &mut [f32]) = match ty.name {
        "F32" => |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        "F16" => |b, y| y[0] = f16_at(b, 0),
        "BF16" => |b, y| y[0] = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
        "Q4_0" => q4_0,
        "Q4_1" => q4_1,
        "Q5_0" => q5_0,
        "Q5_1" => q5_1,
        "Q8_0" => q8_0,
        "Q2_K" => few_bits::q2_k,
        "Q3_K" => few_bits::q3_k,
        "IQ4_NL" => tables::iq4_nl,
        "IQ4_XS" => tables::iq4_xs,
        "MXFP4" => tables::mxfp4,
        "Q4_K" => q4_k,
        "Q5_K" => q5_k,
        "Q6_K" => q6_k,
        _ => return false,
    };
    for (block, values) in bytes.chunks_exact(ty.bytes).zip(out.chunks_exact_mut(ty.block)) {
        decode(block, values);
    }
    true
}

fn f16_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

// Blocks of 32: |d f16|(m f16)|(qh u32)|qs 16 bytes|. Byte j of qs holds value j in its low half and
// value j + 16 in its high half; bit j of qh is the fifth bit of value j.

fn q4_0(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 0);
    for (j, &q) in b[2..18].iter().enumerate() {
        y[j] = (i32::from(q & 15) - 8) as f32 * d;
        y[j + 16] = (i32::from(q >> 4) - 8) as f32 * d;
    }
}

fn q4_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    for (j, &q) in b[4..20].iter().enumerate() {
        y[j] = f32::from(q & 15) * d + m;
        y[j + 16] = f32::from(q >> 4) * d + m;
    }
}

fn q5_0(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 0);
    let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
    for (j, &q) in b[6..22].iter().enumerate() {
        let bit = |i: usize| ((high >> i & 1) << 4) as i32;
        y[j] = (i32::from(q & 15) + bit(j) - 16) as f32 * d;
        y[j + 16] = (i32::from(q >> 4) + bit(j + 16) - 16) as f32 * d;
    }
}

fn q5_1(b: &[u8], y: &mut [f32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    for (j, &q) in b[8..24].iter().enumerate() {
        let bit = |i: usize| ((high >> i & 1) << 4) as i32;
        y[j] = (i32::from(q & 15) + bit(j)) as f32 * d + m;
        y[j + 16] = (i32::from(q >> 4) + bit(j + 16)) as f32 * d + m;
    }
}

fn q8_0(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..34]) {
        *y = f32::from(q as i8) * d;
    }
}

/// Scale and minimum of sub-block `j` of 8, six bits each in twelve bytes:
///
/// ```text
/// byte 0..4   |hi s4..s7 (2)|s0..s3 (6)|
/// byte 4..8   |hi m4..m7 (2)|m0..m3 (6)|
/// byte 8..12  |lo m4..m7 (4)|lo s4..s7 (4)|
/// ```
fn scale_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

// Blocks of 256: |d f16|dmin f16|scales 12|qs 128|, eight sub-blocks of 32. Sub-blocks 2i and 2i + 1
// are the low and high halves of bytes 32i..32i + 32.
fn q4_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let (d, m) = (d * scale, dmin * min);
        let shift = 4 * (j % 2);
        for (y, &q) in y.iter_mut().zip(&b[16 + j / 2 * 32..]) {
            *y = d * f32::from(q >> shift & 15) - m;
        }
    }
}

// As Q4_K with |qh 32| before qs: bit j of qh's byte i is the fifth bit of value i of sub-block j.
fn q5_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let (d, m) = (d * scale, dmin * min);
        let shift = 4 * (j % 2);
        for ((y, &q), &high) in y.iter_mut().zip(&b[48 + j / 2 * 32..]).zip(&b[16..48]) {
            *y = d * f32::from((q >> shift & 15) | (high >> j & 1) << 4) - m;
        }
    }
}

// Blocks of 256: |ql 128|qh 64|scales i8 x 16|d f16|. Two halves of 128 values; in each, runs of 32
// values k = 0..4 take their low four bits from ql (runs 0 and 2 share bytes 0..32, 1 and 3 bytes
// 32..64) and their high two from bits 2k..2k + 2 of qh. A scale covers 16 values.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 208);
    for (r, y) in y.chunks_exact_mut(32).enumerate() {
        let (half, k) = (r / 4, r % 4);
        let ql = &b[half * 64 + k % 2 * 32..];
        let qh = &b[128 + half * 32..];
        for (i, ((y, &low), &high)) in y.iter_mut().zip(ql).zip(qh).enumerate() {
            let scale = d * f32::from(b[192 + r * 2 + i / 16] as i8);
            let q = i32::from((low >> (k / 2 * 4) & 15) | (high >> (2 * k) & 3) << 4) - 32;
            *y = scale * q as f32;
        }
    }
}
