//! The instruction set, chosen once: a table of the fastest kernels that this machine can run. Every
//! entry gives the same bits on every instruction set.

use super::attend::{self, HeadPages, Query};
use super::codes::{Coded, Codes};
use super::dense::{self, Dense};
use super::format::{Bits3, Bits4};
use super::panel::{self, PANEL, Panel};
use super::q8::{self, TILE};
use super::simd::{LANES, Scalar};
use super::tile::{self, TileView};
use super::{KvType, f32ops, kn, kv, rows};
use std::ops::Range;

/// The kernels of one format of codes.
#[derive(Clone, Copy)]
struct Coder {
    row: InputFn,
    tile_row: InputTileFn,
    rows: RowsFn,
    kn: RowsFn,
    panel: PanelFn,
    panel_kn: PanelFn,
    tile: TileFn,
}

/// The kernels of one instruction set.
#[allow(clippy::type_complexity)]
#[derive(Clone, Copy)]
pub struct Kernels {
    name: &'static str,
    /// Whether two planes of inputs are one of 16 bits; see [`q8`]. Kernels of KN rows always take planes.
    words: bool,
    int4: Coder,
    int3: Coder,
    dense: unsafe fn(&Dense<'_>, Range<usize>, &[f32], usize, &mut [f32]),
    /// By root mean square, and by mean and variance.
    norms: [NormFn; 2],
    /// In the order of [`f32ops::SILU`] and those after it.
    gates: [GateFn; 4],
    exp_exp: unsafe fn(&[f32], &mut [f32]),
    wkv: RecurrentFn,
    delta: unsafe fn(&mut [f32], (&[f32], &[f32], &[f32]), (f32, f32), &mut [f32]),
    products: unsafe fn(&[f32], &[f32], usize, &mut [f32]),
    kv: [KvKernels; 2],
    merge: unsafe fn(&mut [f32], &[f32]),
    finish: unsafe fn(&mut [f32]),
}

/// The kernels of one form of keys and values.
#[allow(clippy::type_complexity)]
#[derive(Clone, Copy)]
struct KvKernels {
    store: unsafe fn(&[f32], &[f32], usize, *mut u8),
    attend: unsafe fn(&HeadPages<'_>, &[Query], usize),
}

type NormFn = unsafe fn(&[f32], (&[f32], &[f32]), f32, &mut [f32]);
type GateFn = unsafe fn(&[f32], &[f32], &mut [f32]);
type RecurrentFn = unsafe fn(&mut [f32], (&[f32], &[f32], &[f32]), (&[f32], &[f32]), &mut [f32]);
type InputFn = unsafe fn(&[f32], usize, bool, &mut [i8], &mut [f32], &mut [i32]);
type InputTileFn = unsafe fn(&[f32], usize, bool, &[u32], usize, &mut [i8], &mut [f32], &mut [i32]);
type RowsFn = unsafe fn(&Codes<'_>, Range<usize>, &q8::Rows, usize, &mut [f32]);
type PanelFn = unsafe fn(&Codes<'_>, usize, &[u32], &mut Panel);
type TileFn = unsafe fn(&Panel, &TileView<'_>, &[usize; LANES], &mut [f32; TILE * PANEL]);

/// See [`Kernels::most_rows`].
const AVX512_ROWS: usize = 2;
const AVX2_ROWS: usize = 3;

/// Copies of the functions that are generic over lanes, compiled for one instruction set.
macro_rules! lanes_for {
    ($module:ident, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::super::format::Format;
            use super::*;

            lanes_for!(@functions $lanes, $(#[target_feature(enable = $features)])?);
        }
    };
    (@functions $lanes:ty, $(#[$attribute:meta])?) => {
        // SAFETY of each: the caller runs on a machine with the instruction set (the table is only
        // handed out after asking), and keeps the called function's own contract.
        $(#[$attribute])?
        pub unsafe fn row<F: Format>(
            x: &[f32], p: usize, words: bool, v: &mut [i8], s: &mut [f32], o: &mut [i32],
        ) {
            // SAFETY: see above.
            unsafe { q8::row::<$lanes, F>(x, p, words, v, s, o) }
        }
        $(#[$attribute])?
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn tile_row<F: Format>(
            x: &[f32], p: usize, words: bool, order: &[u32], t: usize, v: &mut [i8], s: &mut [f32], o: &mut [i32],
        ) {
            // SAFETY: see above.
            unsafe { q8::tile_row::<$lanes, F>(x, p, words, order, t, v, s, o) }
        }
        $(#[$attribute])?
        pub unsafe fn dense(w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
            // SAFETY: see above.
            unsafe { dense::products::<$lanes>(w, rows, x, n, y) }
        }
        $(#[$attribute])?
        pub unsafe fn norm<const LAYER: bool>(x: &[f32], w: (&[f32], &[f32]), eps: f32, out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::norm::<$lanes, LAYER>(x, w, eps, out) }
        }
        $(#[$attribute])?
        pub unsafe fn gate<const F: u8>(gate: &[f32], up: &[f32], out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::gate::<$lanes, F>(gate, up, out) }
        }
        $(#[$attribute])?
        pub unsafe fn exp_exp(x: &[f32], out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::exp_exp::<$lanes>(x, out) }
        }
        $(#[$attribute])?
        pub unsafe fn wkv(
            state: &mut [f32],
            rows: (&[f32], &[f32], &[f32]),
            gates: (&[f32], &[f32]),
            out: &mut [f32],
        ) {
            // SAFETY: see above.
            unsafe { f32ops::wkv::<$lanes>(state, rows, gates, out) }
        }
        $(#[$attribute])?
        pub unsafe fn delta(
            state: &mut [f32],
            rows: (&[f32], &[f32], &[f32]),
            gates: (f32, f32),
            out: &mut [f32],
        ) {
            // SAFETY: see above.
            unsafe { f32ops::delta::<$lanes>(state, rows, gates, out) }
        }
        $(#[$attribute])?
        pub unsafe fn products(w: &[f32], x: &[f32], width: usize, y: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::products::<$lanes>(w, x, width, y) }
        }
        $(#[$attribute])?
        pub unsafe fn store<K: kv::Format>(key: &[f32], value: &[f32], slot: usize, head: *mut u8) {
            // SAFETY: see above.
            unsafe { K::store::<$lanes>(key, value, slot, head) }
        }
        $(#[$attribute])?
        pub unsafe fn attend<K: kv::Format>(kv: &HeadPages<'_>, queries: &[Query], part: usize) {
            // SAFETY: see above.
            unsafe { attend::attend::<$lanes, K>(kv, queries, part) }
        }
        $(#[$attribute])?
        pub unsafe fn merge(all: &mut [f32], part: &[f32]) {
            // SAFETY: see above.
            unsafe { attend::merge::<$lanes>(all, part) }
        }
        $(#[$attribute])?
        pub unsafe fn finish(all: &mut [f32]) {
            // SAFETY: see above.
            unsafe { attend::finish::<$lanes>(all) }
        }
    };
}

lanes_for!(scalar, Scalar);
#[cfg(target_arch = "x86_64")]
lanes_for!(avx2, super::super::simd::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
lanes_for!(avx512, super::super::simd::Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c");
// NEON belongs to every 64-bit Arm, and a wasm module has vectors in all of its code or in none.
#[cfg(target_arch = "aarch64")]
lanes_for!(neon, super::super::simd::Neon);
#[cfg(all(target_arch = "wasm32", target_feature = "simd128", not(feature = "relaxed-simd")))]
lanes_for!(simd128, super::super::simd::Simd128);
#[cfg(all(target_arch = "wasm32", target_feature = "simd128", feature = "relaxed-simd"))]
lanes_for!(simd128, super::super::simd::Simd128, "relaxed-simd");

/// The name of a wasm module's kernels: there are none where the relaxed multiply-add, which is what a module is built
/// for, rounds twice.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
fn wasm_name() -> Option<&'static str> {
    #[cfg(not(feature = "relaxed-simd"))]
    return Some("simd128");
    #[cfg(feature = "relaxed-simd")]
    return super::simd::fused().then_some("relaxed-simd");
}

macro_rules! table {
    ($name:literal, $module:ident, $rows:ident, $kn:ident, $tile:ident $(<$vectors:ty>)?, $panel:ident, $int4_panel:expr) => {
        Kernels {
            name: $name,
            words: false,
            int4: Coder {
                row: $module::row::<Bits4>,
                tile_row: $module::tile_row::<Bits4>,
                rows: rows::$rows::<$($vectors,)? Bits4>,
                kn: kn::$kn::<$($vectors,)? Bits4>,
                panel: $int4_panel,
                panel_kn: panel::$panel::<Bits4, true>,
                tile: tile::$tile::<$($vectors,)? Bits4>,
            },
            int3: Coder {
                row: $module::row::<Bits3>,
                tile_row: $module::tile_row::<Bits3>,
                rows: rows::$rows::<$($vectors,)? Bits3>,
                kn: kn::$kn::<$($vectors,)? Bits3>,
                panel: panel::$panel::<Bits3, false>,
                panel_kn: panel::$panel::<Bits3, true>,
                tile: tile::$tile::<$($vectors,)? Bits3>,
            },
            dense: $module::dense,
            norms: [$module::norm::<false>, $module::norm::<true>],
            gates: [
                $module::gate::<{ f32ops::SILU }>,
                $module::gate::<{ f32ops::GELU_TANH }>,
                $module::gate::<{ f32ops::GELU }>,
                $module::gate::<{ f32ops::SIGMOID }>,
            ],
            exp_exp: $module::exp_exp,
            wkv: $module::wkv,
            delta: $module::delta,
            products: $module::products,
            kv: [
                KvKernels { store: $module::store::<kv::F16>, attend: $module::attend::<kv::F16> },
                KvKernels { store: $module::store::<kv::Q8>, attend: $module::attend::<kv::Q8> },
            ],
            merge: $module::merge,
            finish: $module::finish,
        }
    };
}

impl Kernels {
    /// Plain Rust, the twin that every other table is tested against.
    pub const SCALAR: Kernels =
        table!("scalar", scalar, rows_scalar, kn_scalar, tile_scalar, scalar, panel::scalar::<Bits4, false>);

    /// Every table that this machine can run, the fastest first.
    pub fn available() -> Vec<Kernels> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use super::simd::{Pairs, Vbmi, Vl, Vnni};
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            if avx2 && avx512 {
                let int4_panel = panel::int4_nk_avx512;
                let vnni = table!(
                    "avx512-vnni",
                    avx512,
                    rows_avx512,
                    kn_avx512,
                    tile_avx512<Vl>,
                    avx512,
                    int4_panel
                );
                // Only words of 3-bit codes are split otherwise.
                if is_x86_feature_detected!("avx512vbmi") {
                    let (rows, kn) = (rows::rows_avx512::<Vbmi, Bits3>, kn::kn_avx512::<Vbmi, Bits3>);
                    all.push(Kernels { name: "avx512-vbmi", int3: Coder { rows, kn, ..vnni.int3 }, ..vnni });
                }
                all.push(vnni);
            }
            if avx2 {
                let int4_panel = panel::int4_nk_avx2;
                if is_x86_feature_detected!("avxvnni") {
                    all.push(table!(
                        "avx-vnni",
                        avx2,
                        rows_avx2,
                        kn_avx2,
                        tile_avx2<Vnni<false>>,
                        avx2,
                        int4_panel
                    ));
                } else if avx512 {
                    // The same kernels, their one instruction spelled as AVX-512 has it.
                    all.push(table!(
                        "avx-vnni",
                        avx2,
                        rows_avx2,
                        kn_avx2,
                        tile_avx2<Vnni<true>>,
                        avx2,
                        int4_panel
                    ));
                }
                all.push(table!("avx2", avx2, rows_avx2, kn_avx2, tile_avx2<Pairs>, avx2, int4_panel));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use super::simd::{NeonBase, NeonDot};
            let int4_panel = panel::scalar::<Bits4, false>;
            let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
            if dotprod && std::arch::is_aarch64_feature_detected!("i8mm") {
                let int4_panel = panel::i8mm::<Bits4, false>;
                all.push(table!(
                    "neon-i8mm",
                    neon,
                    rows_dotprod,
                    kn_dotprod,
                    tile_i8mm<NeonDot>,
                    i8mm,
                    int4_panel
                ));
            }
            if dotprod {
                all.push(table!(
                    "neon-dotprod",
                    neon,
                    rows_dotprod,
                    kn_dotprod,
                    tile_dotprod<NeonDot>,
                    scalar,
                    int4_panel
                ));
            }
            all.push(table!("neon", neon, rows_neon, kn_neon, tile_neon<NeonBase>, scalar, int4_panel));
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if let Some(name) = wasm_name() {
            use super::simd::SimdQuad;
            let int4_panel = panel::scalar::<Bits4, false>;
            let of = table!("", simd128, rows_words, kn_scalar, tile_words, scalar, int4_panel);
            // Of these kernels only those of KN rows are written over a kind of vector.
            let int4 = Coder { kn: kn::kn_simd128::<SimdQuad, Bits4>, ..of.int4 };
            let int3 = Coder { kn: kn::kn_simd128::<SimdQuad, Bits3>, ..of.int3 };
            all.push(Kernels { name, words: true, int4, int3, ..of });
        }
        // In a page nobody asks for the slow ones, and every visit would fetch them.
        #[cfg(not(all(target_arch = "wasm32", target_os = "unknown", target_feature = "simd128")))]
        all.push(Kernels::SCALAR);
        all
    }

    /// The fastest table, or the one that is named.
    pub fn choose(name: Option<&str>) -> Option<Kernels> {
        Kernels::available().into_iter().find(|k| name.is_none_or(|n| n == k.name))
    }

    /// The instruction set's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn coder(&self, w: &Coded<'_>) -> &Coder {
        match w {
            Coded::Int4(_) | Coded::Int4Kn(_) => &self.int4,
            Coded::Int3(_) | Coded::Int3Kn(_) => &self.int3,
        }
    }

    /// Quantises a row of inputs for [`Kernels::rows`]; see [`q8::row`].
    #[allow(clippy::too_many_arguments)]
    pub fn input_row(
        &self,
        w: &Coded<'_>,
        x: &[f32],
        planes: usize,
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        // SAFETY: the table exists, so the machine has the instruction set. So for all below.
        unsafe { (self.coder(w).row)(x, planes, self.words && w.is_nk(), values, scales, offsets) }
    }

    /// Quantises a row of inputs for [`Kernels::tile`]; see [`q8::tile_row`].
    #[allow(clippy::too_many_arguments)]
    pub fn input_tile_row(
        &self,
        w: &Coded<'_>,
        x: &[f32],
        planes: usize,
        order: &[u32],
        t: usize,
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        // SAFETY: see `input_row`.
        unsafe { (self.coder(w).tile_row)(x, planes, self.words, order, t, values, scales, offsets) }
    }

    /// Up to how many tokens [`Kernels::rows`] is quicker than unpacking panels.
    pub fn most_rows(&self, w: &Coded<'_>) -> usize {
        match (w.is_nk(), self.name) {
            (true, "avx2") => AVX2_ROWS,
            (true, name) if name.starts_with("avx512") => AVX512_ROWS,
            _ => 4,
        }
    }

    /// `y[t][i]` = row `rows.start + i` times token `t`, for a few tokens; see [`rows::rows_scalar`] and
    /// [`kn::kn_scalar`].
    pub fn rows(&self, w: &Coded<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        let coder = self.coder(w);
        let kernel = if w.is_nk() { coder.rows } else { coder.kn };
        // SAFETY: see `input_row`.
        unsafe { kernel(w.codes(), rows, x, n, y) }
    }

    /// See [`panel::scalar`].
    pub fn panel(&self, w: &Coded<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        let coder = self.coder(w);
        let kernel = if w.is_nk() { coder.panel } else { coder.panel_kn };
        // SAFETY: see `input_row`.
        unsafe { kernel(w.codes(), row, order, panel) }
    }

    /// One tile of tokens times one panel: `y[t][r]`; see [`tile::tile_scalar`].
    pub fn tile(
        &self,
        w: &Coded<'_>,
        panel: &Panel,
        x: &TileView<'_>,
        ends: &[usize; LANES],
        y: &mut [f32; TILE * PANEL],
    ) {
        // SAFETY: see `input_row`.
        unsafe { (self.coder(w).tile)(panel, x, ends, y) }
    }

    /// See [`dense::products`].
    pub fn dense(&self, w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.dense)(w, rows, x, n, y) }
    }

    /// See [`f32ops::norm`].
    pub fn norm(&self, layer: bool, x: &[f32], weights: (&[f32], &[f32]), eps: f32, out: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.norms[usize::from(layer)])(x, weights, eps, out) }
    }

    /// `out = f(gate) * up`; `f` is one of those of [`f32ops::gate`].
    pub fn gate(&self, f: u8, gate: &[f32], up: &[f32], out: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.gates[usize::from(f)])(gate, up, out) }
    }

    /// See [`f32ops::exp_exp`].
    pub fn exp_exp(&self, x: &[f32], out: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.exp_exp)(x, out) }
    }

    /// See [`f32ops::wkv`].
    pub fn wkv(
        &self,
        state: &mut [f32],
        rows: (&[f32], &[f32], &[f32]),
        gates: (&[f32], &[f32]),
        out: &mut [f32],
    ) {
        // SAFETY: see `input_row`.
        unsafe { (self.wkv)(state, rows, gates, out) }
    }

    /// See [`f32ops::delta`].
    pub fn delta(
        &self,
        state: &mut [f32],
        rows: (&[f32], &[f32], &[f32]),
        gates: (f32, f32),
        out: &mut [f32],
    ) {
        // SAFETY: see `input_row`.
        unsafe { (self.delta)(state, rows, gates, out) }
    }

    /// See [`f32ops::products`].
    pub fn products(&self, w: &[f32], x: &[f32], width: usize, y: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.products)(w, x, width, y) }
    }

    /// See [`kv::Format::store`].
    ///
    /// # Safety
    /// The head's page is writable and nobody else touches it meanwhile.
    pub unsafe fn store(&self, kv: KvType, key: &[f32], value: &[f32], slot: usize, head: *mut u8) {
        // SAFETY: the instruction set as in `input_row`, the rest is the caller's promise.
        unsafe { (self.kv[kv as usize].store)(key, value, slot, head) }
    }

    /// See [`attend::attend`].
    ///
    /// # Safety
    /// The pages hold what the queries see, and the queries' pointers are good.
    pub unsafe fn attend(&self, kv: KvType, pages: &HeadPages<'_>, queries: &[Query], part: usize) {
        // SAFETY: the instruction set as in `input_row`, the rest is the caller's promise.
        unsafe { (self.kv[kv as usize].attend)(pages, queries, part) }
    }

    /// See [`attend::merge`].
    pub fn merge(&self, all: &mut [f32], part: &[f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.merge)(all, part) }
    }

    /// See [`attend::finish`].
    pub fn finish(&self, all: &mut [f32]) {
        // SAFETY: see `input_row`.
        unsafe { (self.finish)(all) }
    }
}
