//! IQ4_NL, IQ4_XS and MXFP4: four-bit codes that stand for the numbers of a table.

use super::f16_at;

/// Levels of the IQ4 types (`kvalues_iq4nl` of ggml).
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the numbers of OCP's E2M1, whose half is in the scale: 0, 0.5, 1, 1.5, 2, 3, 4, 6, then the same below zero.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 values: byte j holds value j in its low half and value j + 16 in its high half.
fn look_up(table: &[i8; 16], scale: f32, qs: &[u8], y: &mut [f32]) {
    let (first, second) = y.split_at_mut(16);
    for ((&q, low), high) in qs.iter().zip(first).zip(second) {
        *low = scale * f32::from(table[usize::from(q & 15)]);
        *high = scale * f32::from(table[usize::from(q >> 4)]);
    }
}

// |d f16|qs 16|
pub(super) fn iq4_nl(b: &[u8], y: &mut [f32]) {
    look_up(&IQ4, f16_at(b, 0), &b[2..18], y);
}

// |d f16|scales_h u16|scales_l 4|qs 128|: eight sub-blocks of 32, each with a scale of six bits, four of them a half of
// a byte of scales_l, two of them bits 2j and 2j + 1 of scales_h.
pub(super) fn iq4_xs(b: &[u8], y: &mut [f32]) {
    let (d, high) = (f16_at(b, 0), u16::from_le_bytes([b[2], b[3]]));
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let low = b[4 + j / 2] >> (4 * (j % 2)) & 15;
        let scale = i32::from(low) | i32::from(high >> (2 * j) & 3) << 4;
        look_up(&IQ4, d * (scale - 32) as f32, &b[8 + j * 16..][..16], y);
    }
}

// |e u8|qs 16|: the scale is 2^(e - 127), of which the table takes a half.
pub(super) fn mxfp4(b: &[u8], y: &mut [f32]) {
    // 2^(e - 128), whose least two are below the normal numbers.
    let bits = match b[0] {
        e @ 0..2 => 0x0020_0000 << e,
        e => u32::from(e - 1) << 23,
    };
    look_up(&E2M1, f32::from_bits(bits), &b[1..17], y);
}
