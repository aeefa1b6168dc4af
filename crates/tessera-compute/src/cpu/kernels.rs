//! The instruction set, chosen once: a table of the fastest kernels that this machine can run. Every
//! entry gives the same bits on every instruction set.

use super::attend::{self, HeadPages, Query};
use super::codes::Codes;
use super::dense::{self, Dense};
use super::int4::{self, Int4, Panel, TileView};
use super::q8::{self, TILE};
use super::simd::{LANES, Scalar};
use super::{f32ops, int3, int3_acts, int3_kn, int3_tile, int4::PANEL, int4_kn};
use std::ops::Range;

/// The kernels of one instruction set.
#[allow(clippy::type_complexity)]
#[derive(Clone, Copy)]
pub struct Kernels {
    name: &'static str,
    int4_rows: unsafe fn(&Int4<'_>, Range<usize>, &q8::Rows, usize, &mut [f32]),
    int4_panel: unsafe fn(&Int4<'_>, usize, &[u32], &mut Panel),
    int4_tile: unsafe fn(&Panel, &TileView<'_>, &[usize; LANES], &mut [f32; TILE * PANEL]),
    int4_kn_rows: RowsFn,
    int4_kn_panel: PanelFn,
    int3_rows: RowsFn,
    int3_panel: PanelFn,
    int3_tile: unsafe fn(&Panel, &TileView<'_>, &[usize; LANES], &mut [f32; TILE * PANEL]),
    int3_kn_rows: RowsFn,
    int3_kn_panel: PanelFn,
    dense: unsafe fn(&Dense<'_>, Range<usize>, &[f32], usize, &mut [f32]),
    int3_row: InputFn,
    int3_tile_row: InputTileFn,
    q8_row: InputFn,
    q8_tile_row: InputTileFn,
    residual: unsafe fn(&[f32], usize, &mut [f32]),
    rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    silu_gate: unsafe fn(&[f32], &[f32], &mut [f32]),
    products: unsafe fn(&[f32], &[f32], usize, &mut [f32]),
    store: unsafe fn(&[f32], &[f32], usize, *mut u16),
    attend: unsafe fn(&HeadPages<'_>, &[Query]),
}

type RowsFn = unsafe fn(&Codes<'_>, Range<usize>, &q8::Rows, usize, &mut [f32]);
type InputFn = unsafe fn(&[f32], &mut [i8], &mut [f32], &mut [i32]);
type InputTileFn = unsafe fn(&[f32], &[u32], usize, &mut [i8], &mut [f32], &mut [i32]);
type PanelFn = unsafe fn(&Codes<'_>, usize, &[u32], &mut Panel);

/// Copies of the functions that are generic over lanes, compiled for one instruction set.
macro_rules! lanes_for {
    ($module:ident, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            lanes_for!(@functions $lanes, $(#[target_feature(enable = $features)])?);
        }
    };
    (@functions $lanes:ty, $(#[$attribute:meta])?) => {
        // SAFETY of each: the caller runs on a machine with the instruction set (the table is only
        // handed out after asking), and keeps the called function's own contract.
        $(#[$attribute])?
        pub unsafe fn q8_row(x: &[f32], v: &mut [i8], s: &mut [f32], o: &mut [i32]) {
            // SAFETY: see above.
            unsafe { q8::row::<$lanes>(x, v, s, o) }
        }
        $(#[$attribute])?
        pub unsafe fn q8_tile_row(
            x: &[f32], order: &[u32], t: usize, v: &mut [i8], s: &mut [f32], o: &mut [i32],
        ) {
            // SAFETY: see above.
            unsafe { q8::tile_row::<$lanes>(x, order, t, v, s, o) }
        }
        $(#[$attribute])?
        pub unsafe fn int3_row(x: &[f32], v: &mut [i8], s: &mut [f32], o: &mut [i32]) {
            // SAFETY: see above.
            unsafe { int3_acts::row::<$lanes>(x, v, s, o) }
        }
        $(#[$attribute])?
        pub unsafe fn int3_tile_row(
            x: &[f32], order: &[u32], t: usize, v: &mut [i8], s: &mut [f32], o: &mut [i32],
        ) {
            // SAFETY: see above.
            unsafe { int3_acts::tile_row::<$lanes>(x, order, t, v, s, o) }
        }
        $(#[$attribute])?
        pub unsafe fn dense(w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
            // SAFETY: see above.
            unsafe { dense::products::<$lanes>(w, rows, x, n, y) }
        }
        $(#[$attribute])?
        pub unsafe fn residual(x: &[f32], group: usize, out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { q8::residual::<$lanes>(x, group, out) }
        }
        $(#[$attribute])?
        pub unsafe fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::rms_norm::<$lanes>(x, w, eps, out) }
        }
        $(#[$attribute])?
        pub unsafe fn silu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::silu_gate::<$lanes>(gate, up, out) }
        }
        $(#[$attribute])?
        pub unsafe fn products(w: &[f32], x: &[f32], width: usize, y: &mut [f32]) {
            // SAFETY: see above.
            unsafe { f32ops::products::<$lanes>(w, x, width, y) }
        }
        $(#[$attribute])?
        pub unsafe fn store(key: &[f32], value: &[f32], slot: usize, head: *mut u16) {
            // SAFETY: see above.
            unsafe { attend::store::<$lanes>(key, value, slot, head) }
        }
        $(#[$attribute])?
        pub unsafe fn attend(kv: &HeadPages<'_>, queries: &[Query]) {
            // SAFETY: see above.
            unsafe { attend::attend::<$lanes>(kv, queries) }
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
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
lanes_for!(simd128, super::super::simd::Simd128);

macro_rules! table {
    ($name:literal, $module:ident, $rows:ident, $panel:ident, $panel_kn:ident, $tile:ident, $int4_panel:path) => {
        Kernels {
            name: $name,
            int4_rows: int4::$rows,
            int4_panel: $int4_panel,
            int4_tile: int4::$tile,
            int4_kn_rows: int4_kn::$rows,
            int4_kn_panel: int4_kn::$panel,
            int3_rows: int3::$rows,
            int3_panel: int3::$panel,
            int3_tile: int3_tile::$tile,
            int3_kn_rows: int3_kn::$rows,
            int3_kn_panel: int3::$panel_kn,
            dense: $module::dense,
            int3_row: $module::int3_row,
            int3_tile_row: $module::int3_tile_row,
            q8_row: $module::q8_row,
            q8_tile_row: $module::q8_tile_row,
            residual: $module::residual,
            rms_norm: $module::rms_norm,
            silu_gate: $module::silu_gate,
            products: $module::products,
            store: $module::store,
            attend: $module::attend,
        }
    };
}

impl Kernels {
    /// Plain Rust, the twin that every other table is tested against.
    pub const SCALAR: Kernels =
        table!("scalar", scalar, rows_scalar, panel_scalar, panel_kn_scalar, tile_scalar, int4::panel_scalar);

    /// Every table that this machine can run, the fastest first.
    pub fn available() -> Vec<Kernels> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            if avx2 && avx512 {
                all.push(table!(
                    "avx512-vnni",
                    avx512,
                    rows_avx512,
                    panel_avx512,
                    panel_kn_avx512,
                    tile_avx512,
                    int4::panel_avx512
                ));
            }
            if avx2 {
                all.push(table!(
                    "avx2",
                    avx2,
                    rows_avx2,
                    panel_avx2,
                    panel_kn_avx2,
                    tile_avx2,
                    int4::panel_scalar
                ));
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(table!(
            "neon",
            neon,
            rows_scalar,
            panel_scalar,
            panel_kn_scalar,
            tile_scalar,
            int4::panel_scalar
        ));
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        all.push(table!(
            "simd128",
            simd128,
            rows_scalar,
            panel_scalar,
            panel_kn_scalar,
            tile_scalar,
            int4::panel_scalar
        ));
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

    /// See [`int4::rows_scalar`].
    pub fn int4_rows(&self, w: &Int4<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        // SAFETY: the table exists, so the machine has the instruction set. So for all below.
        unsafe { (self.int4_rows)(w, rows, x, n, y) }
    }

    /// See [`int4::panel_scalar`].
    pub fn int4_panel(&self, w: &Int4<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int4_panel)(w, row, order, panel) }
    }

    /// See [`int4::tile_scalar`].
    pub fn int4_tile(&self, p: &Panel, x: &TileView<'_>, ends: &[usize; LANES], y: &mut [f32; TILE * PANEL]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int4_tile)(p, x, ends, y) }
    }

    /// See [`int4_kn::rows_scalar`].
    pub fn int4_kn_rows(&self, w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int4_kn_rows)(w, rows, x, n, y) }
    }

    /// See [`int4_kn::panel_scalar`].
    pub fn int4_kn_panel(&self, w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int4_kn_panel)(w, row, order, panel) }
    }

    /// See [`int3::rows_scalar`].
    pub fn int3_rows(&self, w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_rows)(w, rows, x, n, y) }
    }

    /// See [`int3::panel_scalar`].
    pub fn int3_panel(&self, w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_panel)(w, row, order, panel) }
    }

    /// See [`int3_kn::rows_scalar`].
    pub fn int3_kn_rows(&self, w: &Codes<'_>, rows: Range<usize>, x: &q8::Rows, n: usize, y: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_kn_rows)(w, rows, x, n, y) }
    }

    /// See [`int3::panel_kn_scalar`].
    pub fn int3_kn_panel(&self, w: &Codes<'_>, row: usize, order: &[u32], panel: &mut Panel) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_kn_panel)(w, row, order, panel) }
    }

    /// See [`int3_tile::tile_scalar`].
    pub fn int3_tile(&self, p: &Panel, x: &TileView<'_>, ends: &[usize; LANES], y: &mut [f32; TILE * PANEL]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_tile)(p, x, ends, y) }
    }

    /// See [`dense::products`].
    pub fn dense(&self, w: &Dense<'_>, rows: Range<usize>, x: &[f32], n: usize, y: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.dense)(w, rows, x, n, y) }
    }

    /// See [`int3_acts::row`].
    pub fn int3_row(&self, x: &[f32], values: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_row)(x, values, scales, offsets) }
    }

    /// See [`int3_acts::tile_row`].
    pub fn int3_tile_row(
        &self,
        x: &[f32],
        order: &[u32],
        t: usize,
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.int3_tile_row)(x, order, t, values, scales, offsets) }
    }

    /// See [`q8::row`].
    pub fn q8_row(&self, x: &[f32], values: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.q8_row)(x, values, scales, offsets) }
    }

    /// See [`q8::tile_row`].
    pub fn q8_tile_row(
        &self,
        x: &[f32],
        order: &[u32],
        t: usize,
        values: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.q8_tile_row)(x, order, t, values, scales, offsets) }
    }

    /// See [`q8::residual`].
    pub fn residual(&self, x: &[f32], group: usize, out: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.residual)(x, group, out) }
    }

    /// See [`f32ops::rms_norm`].
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.rms_norm)(x, weight, eps, out) }
    }

    /// See [`f32ops::silu_gate`].
    pub fn silu_gate(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.silu_gate)(gate, up, out) }
    }

    /// See [`f32ops::products`].
    pub fn products(&self, w: &[f32], x: &[f32], width: usize, y: &mut [f32]) {
        // SAFETY: see `int4_rows`.
        unsafe { (self.products)(w, x, width, y) }
    }

    /// See [`attend::store`].
    ///
    /// # Safety
    /// The head's page is writable and nobody else touches it meanwhile.
    pub unsafe fn store(&self, key: &[f32], value: &[f32], slot: usize, head: *mut u16) {
        // SAFETY: the instruction set as in `int4_rows`, the rest is the caller's promise.
        unsafe { (self.store)(key, value, slot, head) }
    }

    /// See [`attend::attend`].
    ///
    /// # Safety
    /// The pages hold what the queries see, and the queries' pointers are good.
    pub unsafe fn attend(&self, kv: &HeadPages<'_>, queries: &[Query]) {
        // SAFETY: the instruction set as in `int4_rows`, the rest is the caller's promise.
        unsafe { (self.attend)(kv, queries) }
    }
}
