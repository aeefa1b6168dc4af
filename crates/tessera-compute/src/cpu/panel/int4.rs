//! Panels of 4-bit rows that are streams, with AVX-512: groups are read four to a cache line and
//! transposed in registers.

use super::super::codes::x86::some_scales16;
use super::*;
use std::arch::x86_64::*;

/// See [`scalar`]: 4-bit rows that are streams.
///
/// # Safety
/// The machine has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn int4_nk_avx512(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    let base = panel.prepare_int4(w, row, order);
    let whole = w.groups / 4 * 4;
    // Groups are read as they lie, four to a cache line, and written where they are visited.
    for g in (0..whole).step_by(4) {
        // SAFETY: groups `g..g + 4` of each row are inside `words`.
        unsafe {
            let line = |r: usize| _mm512_loadu_si512(base[r].add(g * 16).cast());
            // set[c][q]: group g + q of rows c, c + 4, c + 8, c + 12, one in each 128 bits.
            let set: [[__m512i; 4]; 4] =
                std::array::from_fn(|c| columns([line(c), line(c + 4), line(c + 8), line(c + 12)]));
            for q in 0..4 {
                let at = panel.place[g + q] as usize * 512;
                let out = panel.codes[at..at + 512].as_mut_ptr();
                unpack_group([set[0][q], set[1][q], set[2][q], set[3][q]], out);
            }
        }
    }
    for g in whole..w.groups {
        // SAFETY: group `g` of each row is inside `words`.
        unsafe {
            let four = |r: usize| {
                let at = |k: usize| _mm_loadu_si128(base[r + 4 * k].add(g * 16).cast());
                let v = _mm512_castsi128_si512(at(0));
                let v = _mm512_inserti32x4::<1>(v, at(1));
                let v = _mm512_inserti32x4::<2>(v, at(2));
                _mm512_inserti32x4::<3>(v, at(3))
            };
            let at = panel.place[g] as usize * 512;
            let out = panel.codes[at..at + 512].as_mut_ptr();
            unpack_group([four(0), four(1), four(2), four(3)], out);
        }
    }
    panel_scales(w, row, panel);
}

/// One group of 16 rows, row `c + 4 l` in lane `l` of `rows[c]`, to the 8 steps of a panel.
///
/// # Safety
/// Room for 512 bytes at `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack_group(rows: [__m512i; 4], out: *mut u8) {
    let low = _mm512_set1_epi8(15);
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    let steps = [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab2, cd2),
        _mm512_unpackhi_epi64(ab2, cd2),
    ];
    for (s, v) in steps.into_iter().enumerate() {
        // SAFETY: the caller promises the room.
        unsafe {
            _mm512_storeu_si512(out.add(s * 64).cast(), _mm512_and_si512(v, low));
            let odd = _mm512_and_si512(_mm512_srli_epi16::<4>(v), low);
            _mm512_storeu_si512(out.add(256 + s * 64).cast(), odd);
        }
    }
}

/// Transposes a 4 x 4 matrix of 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns(v: [__m512i; 4]) -> [__m512i; 4] {
    let [p, q, r, s] = v;
    let lo = _mm512_shuffle_i32x4::<0b01_00_01_00>(p, q);
    let hi = _mm512_shuffle_i32x4::<0b11_10_11_10>(p, q);
    let lo2 = _mm512_shuffle_i32x4::<0b01_00_01_00>(r, s);
    let hi2 = _mm512_shuffle_i32x4::<0b11_10_11_10>(r, s);
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(lo, lo2),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(lo, lo2),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(hi, hi2),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(hi, hi2),
    ]
}

/// Scales of a panel: 16 rows times 16 groups are widened and transposed at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn panel_scales(w: &Codes<'_>, row: usize, panel: &mut Panel) {
    let size = w.scale_dtype.size();
    for first in (0..w.groups).step_by(LANES) {
        let count = LANES.min(w.groups - first);
        let mut rows = [_mm512_setzero_ps(); PANEL];
        // A closure would be called for each row.
        for (r, scales) in rows.iter_mut().enumerate() {
            let row = (row + r).min(w.rows - 1);
            let at = (row * w.groups + first) * size;
            let s = w.scales[at..at + count * size].as_ptr();
            // SAFETY: `count` scales from `s` are inside, as just sliced.
            *scales = unsafe { some_scales16(w.scale_dtype, s, count) };
        }
        for (g, v) in transpose(rows).into_iter().take(count).enumerate() {
            let at = panel.place[first + g] as usize * PANEL;
            let out = panel.scales[at..at + PANEL].as_mut_ptr();
            // SAFETY: room for 16 values, as just sliced.
            unsafe { _mm512_storeu_ps(out, v) };
        }
    }
}

/// 16 rows of 16 values to 16 columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let mut a = rows;
    // Pairs of rows, then pairs of pairs, within 128 bits.
    for i in (0..16).step_by(2) {
        a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut b = a;
    for i in (0..16).step_by(4) {
        let double = |v| _mm512_castps_pd(v);
        let (l, h) = (_mm512_unpacklo_pd, _mm512_unpackhi_pd);
        b[i] = _mm512_castpd_ps(l(double(a[i]), double(a[i + 2])));
        b[i + 1] = _mm512_castpd_ps(h(double(a[i]), double(a[i + 2])));
        b[i + 2] = _mm512_castpd_ps(l(double(a[i + 1]), double(a[i + 3])));
        b[i + 3] = _mm512_castpd_ps(h(double(a[i + 1]), double(a[i + 3])));
    }
    // b[4 q + c] holds, in its 128-bit lane l, column 4 l + c of rows 4 q .. 4 q + 4: a 4 x 4
    // transposition of lanes is left for each c.
    let mut out = a;
    for c in 0..4 {
        let lanes = [b[c], b[4 + c], b[8 + c], b[12 + c]].map(|v| _mm512_castps_si512(v));
        for (l, v) in columns(lanes).into_iter().enumerate() {
            out[4 * l + c] = _mm512_castsi512_ps(v);
        }
    }
    out
}
