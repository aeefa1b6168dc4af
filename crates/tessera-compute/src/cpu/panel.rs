//! Unpacking a panel of 16 rows once for many tokens.

use super::codes::{Codes, GROUP_BYTES};
use super::format::Format;
use super::lined::Lined;
#[cfg(target_arch = "x86_64")]
use super::simd::LANES;

/// Rows of a panel.
pub const PANEL: usize = 16;

/// A panel of rows, unpacked for the tile kernels.
#[derive(Default)]
pub struct Panel {
    /// `[group in visiting order][step][16 rows][4 inputs]`.
    pub codes: Lined<u8>,
    /// `[group in visiting order][16 rows]`.
    pub scales: Lined<f32>,
    /// Where each group stands in the visiting order.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    place: Vec<u32>,
}

/// Unpacks the 16 rows from `row`; what stands for rows past the last one is arbitrary.
pub fn scalar<F: Format, const KN: bool>(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    unpack::<F, KN>(w, row, order, panel);
}

/// Compiles to vector code by itself, once the words of 16 rows lie beside each other.
#[inline(always)]
fn unpack<F: Format, const KN: bool>(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    w.check_len();
    let width = PANEL.min(w.rows - row);
    let step_bytes = F::STEPS * 4 * PANEL;
    panel.codes.grow(order.len() * step_bytes);
    panel.scales.grow(order.len() * PANEL);
    let outs = panel.codes.chunks_exact_mut(step_bytes).zip(panel.scales.chunks_exact_mut(PANEL));
    for (&g, (codes, scales)) in order.iter().zip(outs) {
        let g = g as usize;
        let mut words = [[0u32; PANEL]; 4];
        for r in 0..width {
            if KN {
                for (s, words) in words.iter_mut().enumerate() {
                    words[r] = w.word((4 * g + s) * w.rows + row + r);
                }
                scales[r] = w.scale(g * w.rows + row + r);
            } else {
                let at = (row + r) * w.groups + g;
                let group = &w.words[at * GROUP_BYTES..(at + 1) * GROUP_BYTES];
                for (words, b) in words.iter_mut().zip(group.chunks_exact(4)) {
                    words[r] = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
                scales[r] = w.scale(at);
            }
        }
        scales[width..].fill(0.0);
        let mut steps = [[0u32; PANEL]; 10];
        for r in 0..PANEL {
            let all = F::steps([words[0][r], words[1][r], words[2][r], words[3][r]]);
            for (step, word) in steps.iter_mut().zip(all) {
                step[r] = word;
            }
        }
        for (out, v) in codes.chunks_exact_mut(4).zip(steps.as_flattened()) {
            out.copy_from_slice(&v.to_le_bytes());
        }
    }
}

/// As [`scalar`], but two steps at a time, `[group][two steps][16 rows][8 inputs]`: what `tile_i8mm`
/// reads.
#[cfg(target_arch = "aarch64")]
pub fn i8mm<F: Format, const KN: bool>(w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
    unpack::<F, KN>(w, row, order, panel);
    for steps in panel.codes[..order.len() * F::STEPS * 4 * PANEL].chunks_exact_mut(8 * PANEL) {
        let mut pairs = [0u8; 8 * PANEL];
        let (first, second) = steps.split_at(4 * PANEL);
        for ((out, a), b) in pairs.chunks_exact_mut(8).zip(first.chunks_exact(4)).zip(second.chunks_exact(4))
        {
            out[..4].copy_from_slice(a);
            out[4..].copy_from_slice(b);
        }
        steps.copy_from_slice(&pairs);
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    /// See [`scalar`].
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn avx512<F: Format, const KN: bool>(
        w: &Codes<'_>,
        row: usize,
        order: &[u32],
        panel: &mut Panel,
    ) {
        unpack::<F, KN>(w, row, order, panel);
    }

    /// See [`scalar`].
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn avx2<F: Format, const KN: bool>(
        w: &Codes<'_>,
        row: usize,
        order: &[u32],
        panel: &mut Panel,
    ) {
        unpack::<F, KN>(w, row, order, panel);
    }
}

#[cfg(target_arch = "x86_64")]
impl Panel {
    /// Makes room for a panel of 4-bit rows that are streams, and says where the words of each row begin: the
    /// last row stands for those behind it.
    fn prepare_int4(&mut self, w: &Codes<'_>, row: usize, order: &[u32]) -> [*const u8; PANEL] {
        w.check_len();
        assert!(w.rows > 0 && order.len() == w.groups && order.iter().all(|g| (*g as usize) < w.groups));
        self.codes.grow(order.len() * 512);
        self.scales.grow(order.len() * PANEL);
        self.place.resize(w.groups, 0);
        for (i, &g) in order.iter().enumerate() {
            self.place[g as usize] = i as u32;
        }
        std::array::from_fn(|r| {
            let row = (row + r).min(w.rows - 1);
            w.words[row * w.groups * GROUP_BYTES..].as_ptr()
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod int4;
#[cfg(target_arch = "x86_64")]
mod int4_avx2;
#[cfg(target_arch = "x86_64")]
pub use {int4::int4_nk_avx512, int4_avx2::int4_nk_avx2};
