//! What there are so many of, and how often each is held: pages of both kinds, and slots of states.
//!
//! One is held by sequences and by the prefix cache ([`crate::cache`]), and is free when nobody holds it.

use std::fmt;
use std::ops::{Add, AddAssign, Index, IndexMut};
use tessera_compute::batch::{PAGE, PageKind};

/// Pages of layers that see every position; see [`PageKind`].
pub const ALL: usize = PageKind::All as usize;
/// Pages of layers that see a window.
pub const WINDOW: usize = PageKind::Window as usize;
/// Slots of states.
pub const STATE: usize = PageKind::COUNT;
/// How many kinds of units there are.
pub const UNITS: usize = PageKind::COUNT + 1;

/// Pages that `positions` positions need.
pub const fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE)
}

/// So many of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub [usize; UNITS]);

impl Amounts {
    /// Whether there are as many of each as are needed.
    pub fn fit_in(self, available: Amounts) -> bool {
        self.0.iter().zip(available.0).all(|(needed, available)| *needed <= available)
    }

    /// What is left of them; none where more are taken than there are.
    #[must_use]
    pub fn less(self, taken: Amounts) -> Amounts {
        let mut left = self;
        left.0.iter_mut().zip(taken.0).for_each(|(left, taken)| *left = left.saturating_sub(taken));
        left
    }
}

impl Index<usize> for Amounts {
    type Output = usize;

    fn index(&self, kind: usize) -> &usize {
        &self.0[kind]
    }
}

impl IndexMut<usize> for Amounts {
    fn index_mut(&mut self, kind: usize) -> &mut usize {
        &mut self.0[kind]
    }
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, other: Amounts) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
    }
}

impl Add for Amounts {
    type Output = Amounts;

    fn add(mut self, other: Amounts) -> Amounts {
        self += other;
        self
    }
}

impl std::iter::Sum for Amounts {
    fn sum<I: Iterator<Item = Amounts>>(all: I) -> Amounts {
        all.fold(Amounts::default(), Add::add)
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["KV pages", "KV pages of windows", "states"];
        let some: Vec<String> = self.0.iter().zip(names).map(|(n, name)| format!("{n} {name}")).collect();
        f.write_str(&some.join(", "))
    }
}

/// The units of one kind.
#[derive(Debug)]
pub struct UnitPool {
    free: Vec<u32>,
    /// Holders of each.
    holders: Vec<u32>,
    /// Whether the prefix cache is one of them.
    cached: Vec<bool>,
    /// How many only the prefix cache holds.
    idle: usize,
    /// How many were taken at least once: the first ones, since what is given back is taken first.
    touched: usize,
}

impl UnitPool {
    /// All free.
    pub fn new(total: usize) -> UnitPool {
        let free = (0..total as u32).rev().collect();
        UnitPool { free, holders: vec![0; total], cached: vec![false; total], idle: 0, touched: 0 }
    }

    /// All.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Those that nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Those that only the prefix cache holds.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Those that were ever used.
    pub fn touched(&self) -> usize {
        self.touched
    }

    /// One that is free, held from now on.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let unit = self.free.pop()?;
        self.touched = self.touched.max(unit as usize + 1);
        self.holders[unit as usize] = 1;
        Some(unit)
    }

    /// One more sequence holds it.
    pub(crate) fn hold(&mut self, unit: u32) {
        let u = unit as usize;
        self.idle -= usize::from(self.cached[u] && self.holders[u] == 1);
        self.holders[u] += 1;
    }

    /// One sequence less holds it.
    pub(crate) fn drop_hold(&mut self, unit: u32) {
        let u = unit as usize;
        self.holders[u] -= 1;
        match self.holders[u] {
            0 => self.free.push(unit),
            1 if self.cached[u] => self.idle += 1,
            _ => {}
        }
    }

    /// The cache holds it beside a sequence.
    pub(crate) fn cache(&mut self, unit: u32) {
        self.hold(unit);
        self.cached[unit as usize] = true;
    }

    /// The cache holds it no more.
    pub(crate) fn uncache(&mut self, unit: u32) {
        let u = unit as usize;
        self.idle -= usize::from(self.holders[u] == 1);
        self.cached[u] = false;
        self.drop_hold(unit);
    }

    /// Whether only the cache holds it.
    pub(crate) fn is_idle(&self, unit: u32) -> bool {
        self.cached[unit as usize] && self.holders[unit as usize] == 1
    }

    /// Every unit is free or held by exactly those who say so.
    #[cfg(test)]
    pub(crate) fn check(&self, held: impl Iterator<Item = u32>) {
        let mut holders = vec![0; self.total()];
        held.for_each(|unit| holders[unit as usize] += 1);
        let idle = (0..holders.len()).filter(|u| self.cached[*u] && holders[*u] == 0).count();
        assert_eq!(self.idle, idle);
        for (unit, cached) in self.cached.iter().enumerate() {
            assert_eq!(self.holders[unit], holders[unit] + u32::from(*cached), "unit {unit}");
        }
        let mut free = self.free.clone();
        free.sort_unstable();
        let none = |u: &usize| self.holders[*u] == 0;
        assert_eq!(free, (0..holders.len()).filter(none).map(|u| u as u32).collect::<Vec<_>>());
    }
}
