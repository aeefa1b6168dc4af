//! AVX-512 with VNNI: 64 bytes of codes and one `vpdpbusd` for each half of them.

use super::*;
use std::arch::x86_64::*;

/// See [`rows_scalar`]; up to 4 tokens share one unpacking.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL, DQ and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn rows_avx512(w: &Int4<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
    check(w, &rows, x, n, y);
    let mut t = 0;
    while t < n {
        // SAFETY: the instruction set is the caller's promise; `check` made the lengths right.
        unsafe {
            match n - t {
                1 => rows_avx512_t::<4, 1>(w, &rows, x, t, y),
                2 => rows_avx512_t::<2, 2>(w, &rows, x, t, y),
                3 => rows_avx512_t::<1, 3>(w, &rows, x, t, y),
                _ => rows_avx512_t::<1, 4>(w, &rows, x, t, y),
            }
        }
        t += (n - t).min(4);
    }
}

/// All rows against tokens `t0..t0 + T`, `R` of them in step: rows a part of the range apart, so that
/// waiting for memory at the beginning of one's page overlaps with that of the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn rows_avx512_t<const R: usize, const T: usize>(
    w: &Int4<'_>,
    rows: &Range<usize>,
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let part = rows.len() / R;
    for i in 0..part {
        let set = std::array::from_fn(|r| i + r * part);
        // SAFETY: rows of the range; the rest is the caller's promise.
        unsafe { some_rows_avx512::<R, T>(w, rows, set, x, t0, y) };
    }
    for i in part * R..rows.len() {
        // SAFETY: as above.
        unsafe { some_rows_avx512::<1, T>(w, rows, [i], x, t0, y) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn some_rows_avx512<const R: usize, const T: usize>(
    w: &Int4<'_>,
    rows: &Range<usize>,
    set: [usize; R],
    x: &q8::Rows,
    t0: usize,
    y: &mut [f32],
) {
    let full = w.groups / LANES;
    let left = w.groups % LANES;
    let order = _mm256_setr_epi16(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let order32 = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let size = w.scale_dtype.size();
    let mut acc = [[_mm512_setzero_ps(); T]; R];
    // SAFETY: `check` proved that every row's words and scales, and every token's values, scales and
    // offsets, are inside their slices.
    unsafe {
        let mut words = [std::ptr::null(); R];
        let mut scales = [std::ptr::null(); R];
        for r in 0..R {
            let row = rows.start + set[r];
            words[r] = w.words.as_ptr().add(row * w.groups * 16);
            scales[r] = w.scales.as_ptr().add(row * w.groups * size);
        }
        for b in 0..full {
            let mut at = [std::ptr::null(); R];
            let mut ws = [_mm512_setzero_ps(); R];
            for r in 0..R {
                at[r] = words[r].add(b * 256);
                let s: *const u8 = scales[r].add(b * LANES * size);
                ws[r] = match w.scale_dtype {
                    DType::BF16 => {
                        let s = _mm256_permutexvar_epi16(order, _mm256_loadu_si256(s.cast()));
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(s)))
                    }
                    DType::F16 => {
                        _mm512_cvtph_ps(_mm256_permutexvar_epi16(order, _mm256_loadu_si256(s.cast())))
                    }
                    _ => _mm512_permutexvar_ps(order32, _mm512_loadu_ps(s.cast())),
                };
            }
            block_avx512::<R, T>(at, 4, ws, x, t0, b, &mut acc);
        }
        if left > 0 {
            // Absent groups are zero codes with zero scales.
            for r in 0..R {
                let from = words[r].add(full * 256);
                let mut codes = [0u8; 256];
                for v in 0..left.div_ceil(4) {
                    let bytes = (left * 16 - v * 64).min(64);
                    let mask = u64::MAX >> (64 - bytes);
                    let c = _mm512_maskz_loadu_epi8(mask, from.add(v * 64).cast());
                    _mm512_storeu_si512(codes.as_mut_ptr().add(v * 64).cast(), c);
                }
                let s = scales[r].add(full * LANES * size);
                let mask = u16::MAX >> (LANES - left);
                let short = || _mm256_permutexvar_epi16(order, _mm256_maskz_loadu_epi16(mask, s.cast()));
                let ws = match w.scale_dtype {
                    DType::BF16 => {
                        let s = _mm512_cvtepu16_epi32(short());
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(s))
                    }
                    DType::F16 => _mm512_cvtph_ps(short()),
                    _ => _mm512_permutexvar_ps(order32, _mm512_maskz_loadu_ps(mask, s.cast())),
                };
                let mut one = [acc[r]];
                block_avx512::<1, T>([codes.as_ptr()], left.div_ceil(4), [ws], x, t0, full, &mut one);
                acc[r] = one[0];
            }
        }
        for r in 0..R {
            for t in 0..T {
                let mut sums = [0.0; LANES];
                _mm512_storeu_ps(sums.as_mut_ptr(), acc[r][t]);
                y[(t0 + t) * rows.len() + set[r]] = tree_sum(sums);
            }
        }
    }
}

/// 16 groups of `R` rows against `T` tokens.
///
/// # Safety
/// 256 bytes at each of `words`, block `b` in `x` for tokens `t0..t0 + T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn block_avx512<const R: usize, const T: usize>(
    words: [*const u8; R],
    vectors: usize,
    ws: [__m512; R],
    x: &q8::Rows,
    t0: usize,
    b: usize,
    acc: &mut [[__m512; T]; R],
) {
    let low = _mm512_set1_epi8(15);
    let zero = _mm512_setzero_si512();
    let mut dots = [[[zero; 4]; T]; R];
    for v in 0..4 {
        if v == vectors {
            break;
        }
        // SAFETY: the caller promises the bytes.
        unsafe {
            let mut values = [[zero; 2]; T];
            for t in 0..T {
                let at = x.values.as_ptr().add(((t0 + t) * x.blocks + b) * q8::BLOCK + v * 128);
                values[t] = [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())];
            }
            for r in 0..R {
                let codes = _mm512_loadu_si512(words[r].add(v * 64).cast());
                let even = _mm512_and_si512(codes, low);
                let odd = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
                for t in 0..T {
                    let e = _mm512_dpbusd_epi32(zero, even, values[t][0]);
                    dots[r][t][v] = _mm512_dpbusd_epi32(e, odd, values[t][1]);
                }
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            let d = dots[r][t];
            // Sum of each 128-bit lane of each vector: lane 4 c + v holds that of lane c of vector v.
            let (p, q) = (pairs(d[0], d[1]), pairs(d[2], d[3]));
            let sum = _mm512_add_epi32(_mm512_unpacklo_epi64(p, q), _mm512_unpackhi_epi64(p, q));
            // SAFETY: the caller promises the token's block.
            unsafe {
                let at = ((t0 + t) * x.blocks + b) * LANES;
                let offset = _mm512_loadu_si512(x.offsets.as_ptr().add(at).cast());
                let scale = _mm512_mul_ps(ws[r], _mm512_loadu_ps(x.scales.as_ptr().add(at)));
                let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, offset));
                acc[r][t] = _mm512_fmadd_ps(dot, scale, acc[r][t]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}

/// See [`panel_scalar`].
///
/// # Safety
/// The machine has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn panel_avx512(w: &Int4<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    assert!(w.words.len() == w.rows * w.groups * 16 && order.len() == w.groups);
    assert!(w.rows > 0 && order.iter().all(|g| (*g as usize) < w.groups));
    panel.codes.resize(order.len() * 512, 0);
    panel.scales.resize(order.len() * PANEL, 0.0);
    panel.place.resize(w.groups, 0);
    for (i, &g) in order.iter().enumerate() {
        panel.place[g as usize] = i as u32;
    }
    let base: [*const u8; PANEL] = std::array::from_fn(|r| {
        let row = (row + r).min(w.rows - 1);
        w.words[row * w.groups * 16..].as_ptr()
    });
    let whole = w.groups / 4 * 4;
    let next = PANEL * w.groups * 16;
    // Groups are read as they lie, four to a cache line, and written where they are visited.
    for g in (0..whole).step_by(4) {
        // SAFETY: groups `g..g + 4` of each row are inside `words`.
        unsafe {
            let line = |r: usize| {
                // The next panel follows this one in the file.
                _mm_prefetch::<_MM_HINT_T1>(base[r].wrapping_add(g * 16 + next).cast());
                _mm512_loadu_si512(base[r].add(g * 16).cast())
            };
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
fn panel_scales(w: &Int4<'_>, row: usize, panel: &mut Panel) {
    assert!(w.scales.len() == w.rows * w.groups * w.scale_dtype.size());
    let size = w.scale_dtype.size();
    let whole = w.groups / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let rows: [__m512; PANEL] = std::array::from_fn(|r| {
            let row = (row + r).min(w.rows - 1);
            let at = (row * w.groups + first) * size;
            let s = w.scales[at..at + LANES * size].as_ptr();
            // SAFETY: 16 scales from `s` are inside, as just sliced.
            unsafe {
                match w.scale_dtype {
                    DType::BF16 => {
                        let s = _mm512_cvtepu16_epi32(_mm256_loadu_si256(s.cast()));
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(s))
                    }
                    DType::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(s.cast())),
                    _ => _mm512_loadu_ps(s.cast()),
                }
            }
        });
        for (g, v) in transpose(rows).into_iter().enumerate() {
            let at = panel.place[first + g] as usize * PANEL;
            let out = panel.scales[at..at + PANEL].as_mut_ptr();
            // SAFETY: room for 16 values, as just sliced.
            unsafe { _mm512_storeu_ps(out, v) };
        }
    }
    for g in whole..w.groups {
        let at = panel.place[g] as usize * PANEL;
        for r in 0..PANEL {
            panel.scales[at + r] = w.scale((row + r).min(w.rows - 1), g);
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

/// See [`tile_scalar`].
///
/// # Safety
/// The machine has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_avx512(
    panel: &Panel,
    x: &TileView<'_>,
    ends: &[usize; LANES],
    y: &mut [f32; TILE * PANEL],
) {
    let groups = check_tile(panel, x, ends);
    debug_assert!(groups > 0);
    let mut stack = [[_mm512_setzero_ps(); TILE]; 5];
    let (mut depth, mut from) = (0, 0);
    for (lane, &end) in ends.iter().enumerate() {
        let mut acc = [_mm512_setzero_ps(); TILE];
        for i in from..end {
            // SAFETY: `check_tile` proved that group `i` is inside every slice.
            unsafe {
                let codes = panel.codes.as_ptr().add(i * 512);
                let c: [__m512i; 8] = std::array::from_fn(|s| _mm512_loadu_si512(codes.add(s * 64).cast()));
                let ws = _mm512_loadu_ps(panel.scales.as_ptr().add(i * PANEL));
                for (t, acc) in acc.iter_mut().enumerate() {
                    let slot = i * TILE + t;
                    let values = x.values.as_ptr().add(slot * GROUP).cast::<i32>();
                    let mut dot = _mm512_set1_epi32(*x.offsets.get_unchecked(slot));
                    for (s, c) in c.iter().enumerate() {
                        let v = _mm512_set1_epi32(values.add(s).read_unaligned());
                        dot = _mm512_dpbusd_epi32(dot, *c, v);
                    }
                    let scale = _mm512_mul_ps(ws, _mm512_set1_ps(*x.scales.get_unchecked(slot)));
                    *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *acc);
                }
            }
        }
        from = end;
        for _ in 0..(lane + 1).trailing_zeros() {
            depth -= 1;
            for (acc, s) in acc.iter_mut().zip(&stack[depth]) {
                *acc = _mm512_add_ps(*acc, *s);
            }
        }
        stack[depth] = acc;
        depth += 1;
    }
    for (t, v) in stack[0].iter().enumerate() {
        // SAFETY: `y` holds TILE rows of 16.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr().add(t * PANEL), *v) };
    }
}
