//! Which pages of the pool belong to whom, and what a sequence holds in its own.
//!
//! A page is held by sequences and by the prefix cache ([`crate::cache`]), and is free when nobody holds
//! it. Only full pages are shared between sequences; the page that a sequence writes is its own, though
//! the cache may hold it too, for the positions that are written already.

use crate::cache::PrefixCache;
use tessera_compute::batch::{PAGE, StateUse};

/// Pages and how often each is held.
#[derive(Debug)]
pub struct PagePool {
    free: Vec<u32>,
    /// Holders of each page.
    holders: Vec<u32>,
    /// Whether the prefix cache is one of them.
    cached: Vec<bool>,
    /// Pages that only the prefix cache holds.
    idle: usize,
    /// Pages that were taken at least once: the first ones, since what is given back is taken first.
    touched: usize,
}

/// Too few free pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} KV pages of {PAGE} positions are needed, {free} of {total} are free")]
pub struct OutOfPages {
    /// Pages that are missing for the request.
    pub needed: usize,
    /// Free pages, those that the cache would give up included.
    pub free: usize,
    /// All pages.
    pub total: usize,
}

/// Tokens whose keys and values are in pages. Give its pages back with [`Kv::release`].
#[derive(Debug, Default)]
pub struct Sequence {
    /// Token at each position held.
    pub tokens: Vec<u32>,
    /// Class of RoPE frequencies of each position, where the model has more than one.
    pub(crate) classes: Vec<u32>,
    pages: Vec<u32>,
    /// The cache's nodes of the first pages.
    pub(crate) nodes: Vec<u64>,
    /// Positions that others may read or copy: they are not written again.
    offered: usize,
    /// The slot of its state, in models that have one.
    state: Option<u32>,
}

/// More sequences than states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many sequences as the model was loaded for have a state already")]
pub struct OutOfStates;

/// A page whose values are to be copied before anything else is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct PageCopy {
    /// Where they are.
    pub from: u32,
    /// Where they go.
    pub to: u32,
}

impl PagePool {
    /// All pages free.
    pub fn new(total: usize) -> PagePool {
        let free = (0..total as u32).rev().collect();
        PagePool { free, holders: vec![0; total], cached: vec![false; total], idle: 0, touched: 0 }
    }

    /// Pages that `positions` positions need.
    pub const fn pages_for(positions: usize) -> usize {
        positions.div_ceil(PAGE)
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Free pages.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages that only the prefix cache holds.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Pages that were ever used.
    pub fn touched(&self) -> usize {
        self.touched
    }

    fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.touched = self.touched.max(page as usize + 1);
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// One more sequence holds the page.
    pub(crate) fn hold(&mut self, page: u32) {
        let p = page as usize;
        self.idle -= usize::from(self.cached[p] && self.holders[p] == 1);
        self.holders[p] += 1;
    }

    /// One sequence less holds it.
    pub(crate) fn drop_hold(&mut self, page: u32) {
        let p = page as usize;
        self.holders[p] -= 1;
        match self.holders[p] {
            0 => self.free.push(page),
            1 if self.cached[p] => self.idle += 1,
            _ => {}
        }
    }

    /// The cache holds the page beside a sequence.
    pub(crate) fn cache(&mut self, page: u32) {
        self.hold(page);
        self.cached[page as usize] = true;
    }

    /// The cache holds it no more.
    pub(crate) fn uncache(&mut self, page: u32) {
        let p = page as usize;
        self.idle -= usize::from(self.holders[p] == 1);
        self.cached[p] = false;
        self.drop_hold(page);
    }

    /// Whether only the cache holds the page.
    pub(crate) fn is_idle(&self, page: u32) -> bool {
        self.cached[page as usize] && self.holders[page as usize] == 1
    }
}

/// The pool of a model and its prefix cache.
#[derive(Debug)]
pub struct Kv {
    pool: PagePool,
    cache: PrefixCache,
    keeps: bool,
    /// Free slots of states, in models that have them.
    states: Option<Vec<u32>>,
}

impl Kv {
    /// All pages free; nothing is kept for later.
    pub fn new(total: usize) -> Kv {
        Kv { pool: PagePool::new(total), cache: PrefixCache::default(), keeps: false, states: None }
    }

    /// Beside the pages `slots` states. A state is that of all its sequence's tokens: such a sequence goes on, or begins
    /// anew, and no other begins with its pages.
    pub fn with_states(total: usize, slots: usize) -> Kv {
        Kv { states: Some((0..slots as u32).rev().collect()), ..Kv::new(total) }
    }

    /// Whether sequences have a state beside their pages.
    pub fn has_states(&self) -> bool {
        self.states.is_some()
    }

    /// Where a sequence's state is and will be; a slot is taken for it at its first step.
    pub fn state(&mut self, sequence: &mut Sequence) -> Result<Option<StateUse>, OutOfStates> {
        let Some(free) = &mut self.states else { return Ok(None) };
        let to = match sequence.state {
            Some(slot) => slot,
            None => free.pop().ok_or(OutOfStates)?,
        };
        sequence.state = Some(to);
        Ok(Some(StateUse { from: (!sequence.tokens.is_empty()).then_some(to), to }))
    }

    /// Keeps pages of tokens that others may begin with, or no longer.
    pub fn keep_prefixes(&mut self, keep: bool) {
        self.keeps = keep && self.states.is_none();
        if !keep {
            self.cache.clear(&mut self.pool);
        }
    }

    /// The pool.
    pub fn pool(&self) -> &PagePool {
        &self.pool
    }

    /// Pages that a sequence could get: free ones and those that the cache would give up.
    pub fn available(&self) -> usize {
        self.pool.free() + self.pool.idle()
    }

    /// How many pages more `sequence` needs for `positions` positions in all.
    pub fn missing(sequence: &Sequence, positions: usize) -> usize {
        PagePool::pages_for(positions).saturating_sub(sequence.pages.len())
    }

    /// How many of the first tokens a new sequence would get from the cache.
    pub fn cached(&self, tokens: &[u32], class: u32) -> usize {
        let found = self.cache.find(tokens, class);
        found.nodes.len() * PAGE + found.part.map_or(0, |part| part.len)
    }

    /// How many available pages a new sequence of `tokens` would take to reach `positions`: those that
    /// others hold already cost nothing.
    pub fn cost(&self, tokens: &[u32], class: u32, positions: usize) -> usize {
        let found = self.cache.find(tokens, class);
        let held = found.nodes.iter().filter(|n| self.cache.page(**n).is_some_and(|p| !self.pool.is_idle(p)));
        PagePool::pages_for(positions).saturating_sub(held.count())
    }

    /// A sequence with as many of the first `tokens` as the cache holds.
    pub fn begin(&mut self, tokens: &[u32], class: u32) -> (Sequence, Option<PageCopy>) {
        let mut sequence = Sequence::default();
        let found = self.cache.find(tokens, class);
        for node in &found.nodes {
            let page = self.cache.touch(*node);
            self.pool.hold(page);
            sequence.pages.push(page);
        }
        sequence.tokens.extend_from_slice(&tokens[..found.nodes.len() * PAGE]);
        sequence.nodes = found.nodes;
        sequence.offered = sequence.tokens.len();
        let mut copy = None;
        if let Some(part) = found.part {
            // Held while a page is looked for, so that it is not the one that is given up.
            let from = self.cache.touch(part.node);
            self.pool.hold(from);
            if let Some(to) = self.take() {
                sequence.pages.push(to);
                let start = sequence.tokens.len();
                sequence.tokens.extend_from_slice(&tokens[start..start + part.len]);
                copy = Some(PageCopy { from, to });
            }
            self.pool.drop_hold(from);
        }
        if class != 0 {
            sequence.classes.resize(sequence.tokens.len(), class);
        }
        (sequence, copy)
    }

    /// Makes room in `sequence` for `positions` positions in all; on failure nothing is taken.
    pub fn grow(&mut self, sequence: &mut Sequence, positions: usize) -> Result<(), OutOfPages> {
        let needed = Kv::missing(sequence, positions);
        if needed > self.available() {
            return Err(OutOfPages { needed, free: self.available(), total: self.pool.total() });
        }
        for _ in 0..needed {
            // As many as there are were asked for.
            sequence.pages.extend(self.take());
        }
        Ok(())
    }

    fn take(&mut self) -> Option<u32> {
        if self.pool.free() == 0 {
            self.cache.give_up_one(&mut self.pool)?;
        }
        self.pool.take()
    }

    /// Keeps the first `len` tokens of `sequence` and takes back the pages that are left over. A cut
    /// inside a page that others may read keeps fewer: the sequence could not write there.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        let mut len = len.min(sequence.tokens.len());
        if let Some(free) = &mut self.states {
            if len < sequence.tokens.len() {
                len = 0;
            }
            if len == 0 {
                free.extend(sequence.state.take());
            }
        }
        let len = if len < sequence.offered { len / PAGE * PAGE } else { len };
        sequence.offered = sequence.offered.min(len);
        sequence.tokens.truncate(len);
        sequence.classes.truncate(len);
        sequence.nodes.truncate(len / PAGE);
        for page in sequence.pages.drain(PagePool::pages_for(len)..).rev() {
            self.pool.drop_hold(page);
        }
    }

    /// Offers the sequence's tokens to others: its full pages, and with `tail` what is in the last one.
    pub fn remember(&mut self, sequence: &mut Sequence, tail: bool) {
        while self.keeps {
            let index = sequence.nodes.len();
            let from = index * PAGE;
            let to = sequence.tokens.len().min(from + PAGE);
            let full = to == from + PAGE;
            if from == to || !(full || tail) {
                return;
            }
            let classes = sequence.classes.get(from..to).unwrap_or_default();
            let class = classes.first().copied().unwrap_or(0);
            if classes.iter().any(|c| *c != class) {
                return;
            }
            let parent = sequence.nodes.last().copied();
            let page = sequence.pages[index];
            let tokens = &sequence.tokens[from..to];
            let Some((node, kept)) = self.cache.insert(parent, class, tokens, page, &mut self.pool) else {
                return;
            };
            sequence.offered = to;
            if !full {
                return;
            }
            if kept != page {
                // Another sequence computed the same tokens: one copy is enough.
                self.pool.hold(kept);
                self.pool.drop_hold(page);
                sequence.pages[index] = kept;
            }
            sequence.nodes.push(node);
        }
    }

    /// Takes all pages back.
    pub fn release(&mut self, mut sequence: Sequence) {
        self.truncate(&mut sequence, 0);
    }
}

impl Sequence {
    /// The pages, in order of position.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// How many of the first tokens are the same as `tokens`.
    pub fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests;
