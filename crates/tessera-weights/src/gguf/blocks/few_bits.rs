//! Q2_K and Q3_K: blocks of 256 with 16 scales, one for every 16 values.
//!
//! Values lie in two halves of 128; in each, runs of 32 values k = 0..4 share the same 32 bytes, run k in their bits
//! 2k and 2k + 1.

use super::f16_at;

// |scales 16|qs 64|d f16|dmin f16|; a scale's low half is that of the codes, its high half that of the minimum.
pub(super) fn q2_k(b: &[u8], y: &mut [f32]) {
    let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
    for (r, y) in y.chunks_exact_mut(32).enumerate() {
        let (half, k) = (r / 4, r % 4);
        for (i, (y, &q)) in y.iter_mut().zip(&b[16 + half * 32..]).enumerate() {
            let scale = b[r * 2 + i / 16];
            let (dl, ml) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
            *y = dl * f32::from(q >> (2 * k) & 3) - ml;
        }
    }
}

// |hmask 32|qs 64|scales 12|d f16|; bit r of hmask's byte i is the third bit of value i of run r.
pub(super) fn q3_k(b: &[u8], y: &mut [f32]) {
    let d = f16_at(b, 108);
    for (r, y) in y.chunks_exact_mut(32).enumerate() {
        let (half, k) = (r / 4, r % 4);
        for (i, (y, &low)) in y.iter_mut().zip(&b[32 + half * 32..]).enumerate() {
            let q = i32::from(low >> (2 * k) & 3) | i32::from(b[i] >> r & 1) << 2;
            *y = d * scale(&b[96..108], r * 2 + i / 16) * (q - 4) as f32;
        }
    }
}

/// Scale `j` of 16, six bits each in twelve bytes:
///
/// ```text
/// byte 0..8    |lo s8..s15 (4)|lo s0..s7 (4)|
/// byte 8..12   |hi s12..s15 (2)|hi s8..s11 (2)|hi s4..s7 (2)|hi s0..s3 (2)|
/// ```
fn scale(packed: &[u8], j: usize) -> f32 {
    let low = packed[j % 8] >> (j / 8 * 4) & 15;
    let high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
    (i32::from(low | high << 4) - 32) as f32
}
