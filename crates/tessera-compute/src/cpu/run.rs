//! What the threads of a step share: the loaded program, activations, and where each thread writes.

use super::kernels::Kernels;
use super::lined::Lined;
use super::panel::Panel;
use super::q8;
use super::stage::Stages;
use super::{Activations, KvType};
use crate::batch::{Batch, Limits};
use crate::memory::Zeroed;
use crate::pages::PageLayout;
use crate::program::{Act, Mask, Program, Rows, Slot};
use crate::weights::Loaded;
use std::cell::UnsafeCell;

/// What does not change between steps.
pub(super) struct Model {
    pub program: Program,
    pub weights: Loaded,
    pub stages: Stages,
    pub kernels: Kernels,
    pub activations: Activations,
    pub kv_type: KvType,
    pub kv: Zeroed,
    pub limits: Limits,
    /// See [`Program::cache`].
    pub cache: Option<Mask>,
    /// Where pages and layers begin in `kv`.
    pub layout: PageLayout,
    /// The first counter of each stage.
    pub counters: Vec<usize>,
}

/// One thread's own buffers.
#[derive(Default)]
pub(super) struct Scratch {
    /// Inputs of a product, prepared by each thread for itself when there are few.
    pub own: Prepared,
    /// A row after its norm.
    pub row: Vec<f32>,
    /// Products of a claim, `[token][row]`.
    pub y: Vec<f32>,
    /// Those of the gate's other half.
    pub up: Vec<f32>,
    pub panels: Vec<Panel>,
    /// Weights of a claim in f32.
    pub weights: Lined<f32>,
    /// Rotated queries, their results and those of one part.
    pub queries: Vec<f32>,
    pub results: Vec<f32>,
    pub parts: Vec<f32>,
    /// The rows of one expert.
    pub chosen: Vec<Chosen>,
}

/// Inputs of a product in the form that its kernel reads.
#[derive(Default)]
pub(super) struct Prepared {
    pub rows: q8::Rows,
    pub tiles: q8::Tiles,
    /// f32 rows padded to whole vectors.
    pub floats: Lined<f32>,
}

/// What all threads share during a step. Slots and pages are written through pointers: stages give
/// every thread parts of its own, and barriers separate a write from its reads.
pub(super) struct Run<'a> {
    pub model: &'a Model,
    pub batch: &'a Batch<'a>,
    pub slots: Vec<*mut f32>,
    pub shared: SharedPrepared<'a>,
    /// Of each rope: `[row][cos of all angles, sin of all angles]`.
    pub angles: &'a [Vec<f32>],
    /// See [`Run::state`].
    pub states: *mut f32,
    /// Results of attention in parts; see [`Run::parts`].
    pub parts: *mut f32,
    pub parts_len: usize,
    pub scratch: Vec<UnsafeCell<&'a mut Scratch>>,
}

/// Inputs that all threads read. The first thread makes room and leaves pointers; between two
/// barriers rows are written through them, each by the thread that claimed its tile; then all read.
pub(super) struct SharedPrepared<'a>(pub UnsafeCell<(&'a mut Prepared, Pointers)>);

/// Where the buffers of a [`Prepared`] begin.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    values: *mut i8,
    scales: *mut f32,
    offsets: *mut i32,
    floats: *mut f32,
    /// Of all planes.
    group_bytes: usize,
}

/// A part of each buffer of a [`Prepared`]: one row, or one tile of rows.
pub(super) struct PartMut<'a> {
    pub values: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub offsets: &'a mut [i32],
    pub floats: &'a mut [f32],
}

impl Prepared {
    pub fn pointers(&mut self) -> Pointers {
        // Only one of the two integer forms is filled at a time.
        let tiles = self.tiles.groups > 0;
        let (v, s, o, group_bytes) = if tiles {
            let t = &mut self.tiles;
            (&mut t.values, &mut t.scales, &mut t.offsets, t.group_bytes * t.planes)
        } else {
            let r = &mut self.rows;
            (&mut r.values, &mut r.scales, &mut r.offsets, r.group_bytes * r.planes)
        };
        Pointers {
            values: v.as_mut_ptr(),
            scales: s.as_mut_ptr(),
            offsets: o.as_mut_ptr(),
            floats: self.floats.as_mut_ptr(),
            group_bytes,
        }
    }
}

impl Pointers {
    /// `groups` groups from `group` on, and `len` floats from `float` on.
    ///
    /// # Safety
    /// Both ranges are inside the buffers, and nobody else touches them meanwhile.
    pub unsafe fn part<'a>(self, group: usize, groups: usize, float: usize, len: usize) -> PartMut<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            let values = self.values.add(group * self.group_bytes);
            PartMut {
                values: std::slice::from_raw_parts_mut(values, groups * self.group_bytes),
                scales: std::slice::from_raw_parts_mut(self.scales.add(group), groups),
                offsets: std::slice::from_raw_parts_mut(self.offsets.add(group), groups),
                floats: std::slice::from_raw_parts_mut(self.floats.add(float), len),
            }
        }
    }
}

// SAFETY: see `Run`; each scratch is used by the thread of its index only.
unsafe impl Sync for Run<'_> {}

/// A row, a factor on its input and one on its product.
#[derive(Clone, Copy)]
pub(super) struct Chosen {
    pub row: usize,
    pub before: f32,
    pub after: f32,
}

/// Where a slot's rows begin, and how many values each has.
pub(super) fn stride(program: &Program, slot: Slot) -> usize {
    program.slots[slot.0].width
}

impl Run<'_> {
    /// Number of rows that a slot holds in this step.
    pub fn rows(&self, slot: Slot) -> usize {
        match self.model.program.slots[slot.0].rows {
            Rows::All => self.batch.tokens.len(),
            Rows::Picked => self.batch.picked.len(),
        }
    }

    /// A row of an activation, to read.
    pub fn row(&self, act: Act, row: usize) -> &[f32] {
        let width = stride(&self.model.program, act.slot);
        assert!(row < self.rows(act.slot) && act.from + act.width <= width);
        // SAFETY: slots of stages were made long enough in `step`; nobody writes it in a stage that reads it, but
        // for a row that is written in place, by the thread that reads it, which holds no other reference then.
        unsafe { std::slice::from_raw_parts(self.slots[act.slot.0].add(row * width + act.from), act.width) }
    }

    /// A part of a row, to write.
    ///
    /// # Safety
    /// No other thread reads or writes this part in the same stage.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, act: Act, row: usize, from: usize, len: usize) -> &mut [f32] {
        let width = stride(&self.model.program, act.slot);
        assert!(row < self.rows(act.slot) && from + len <= act.width && act.from + act.width <= width);
        let at = row * width + act.from + from;
        // SAFETY: slots of stages were made long enough in `step`; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.slots[act.slot.0].add(at), len) }
    }
}
