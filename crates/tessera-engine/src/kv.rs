//! Which pages and states belong to whom, and what a sequence holds in its own.
//!
//! Only full pages are shared between sequences; the page that a sequence writes is its own, though the cache may hold
//! it too, for the positions that are written already. A state that was put aside is shared likewise: whoever goes on
//! from it does so in a slot of its own.

use crate::cache::{PrefixCache, Reach, Units};
use crate::units::{ALL, Amounts, STATE, UNITS, UnitPool, WINDOW, pages_for};
use tessera_compute::batch::{GONE, PAGE, PageKind, Pools, Save, StateUse};

/// Pages behind the window that a sequence keeps, so that its last tokens can be taken back.
const SLACK: usize = 2;

/// Too few free pages or states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} are needed (a page has {PAGE} positions), {free} are free of {total}")]
pub struct OutOfUnits {
    /// What is missing for the request.
    pub needed: Amounts,
    /// What is free, and what the cache would give up.
    pub free: Amounts,
    /// All.
    pub total: Amounts,
}

/// Tokens whose keys and values are in pages. Give them back with [`Kv::release`].
#[derive(Debug, Default)]
pub struct Sequence {
    /// Token at each position held.
    pub tokens: Vec<u32>,
    /// Class of RoPE frequencies of each position, where the model has more than one.
    pub(crate) classes: Vec<u32>,
    /// Of each kind; [`GONE`] where one is behind the window.
    pages: [Vec<u32>; PageKind::COUNT],
    /// The cache's nodes of the first pages.
    pub(crate) nodes: Vec<u64>,
    /// Positions that others may read or copy: they are not written again.
    offered: usize,
    /// The slot of its state, in models that have one.
    state: Option<u32>,
    /// Its state as it was, to begin from or to go back to.
    base: Option<Base>,
    /// What the step that is being made will put aside.
    saving: Option<Base>,
    /// Positions at which its state is to be put aside, ascending.
    stops: Vec<usize>,
}

/// A state at a position. Nobody writes the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    slot: u32,
    position: usize,
}

/// A page whose values are to be copied before anything else is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct PageCopy {
    /// Of which kind both are.
    pub kind: PageKind,
    /// Where they are.
    pub from: u32,
    /// Where they go.
    pub to: u32,
}

/// The pools of a model and its prefix cache.
#[derive(Debug)]
pub struct Kv {
    pools: [UnitPool; UNITS],
    reach: Reach,
    /// Pages of [`WINDOW`] that a sequence holds at most.
    most: usize,
    cache: PrefixCache,
    keeps: bool,
}

impl Kv {
    /// All free; nothing is kept for later. Layers see `window` positions at most, where there are pages of that kind;
    /// a step feeds at most `rows` tokens. What there is none of the model has no use for.
    pub fn new(pools: Pools, window: usize, rows: usize) -> Kv {
        let [all, windows] = pools.pages;
        let totals = [all, windows, pools.states];
        let reach = Reach { uses: totals.map(|n| n > 0), window };
        let cache = PrefixCache::new(reach);
        Kv { pools: totals.map(UnitPool::new), reach, most: most_pages(window, rows), cache, keeps: false }
    }

    /// As new, keeping prefixes or not as before.
    pub fn emptied(&self, pools: Pools, window: usize, rows: usize) -> Kv {
        Kv { keeps: self.keeps, ..Kv::new(pools, window, rows) }
    }

    /// Keeps what others may begin with, or no longer.
    pub fn keep_prefixes(&mut self, keep: bool) {
        self.keeps = keep;
        if !keep {
            self.cache.clear(&mut self.pools);
        }
    }

    /// The units of a kind.
    pub fn pool(&self, kind: usize) -> &UnitPool {
        &self.pools[kind]
    }

    /// What there is.
    pub fn total(&self) -> Amounts {
        Amounts(std::array::from_fn(|kind| self.pools[kind].total()))
    }

    /// What a sequence could get: what is free and what the cache would give up.
    pub fn available(&self) -> Amounts {
        Amounts(std::array::from_fn(|kind| self.pools[kind].free() + self.pools[kind].idle()))
    }

    /// What it takes to put a state aside.
    pub fn saved(&self) -> Amounts {
        let mut needed = Amounts::default();
        needed[STATE] = usize::from(self.reach.uses[STATE]);
        needed
    }

    /// What `sequence` needs besides for `positions` positions in all.
    pub fn missing(&self, sequence: &Sequence, positions: usize) -> Amounts {
        let mut needed = Amounts::default();
        for kind in [ALL, WINDOW] {
            if self.reach.uses[kind] {
                needed[kind] = pages_for(positions).saturating_sub(sequence.pages[kind].len());
            }
        }
        needed[STATE] = usize::from(self.reach.uses[STATE] && sequence.state.is_none());
        needed
    }

    /// How many of the first tokens a new sequence would get from the cache.
    pub fn cached(&self, tokens: &[u32], class: u32) -> usize {
        let found = self.cache.find(tokens, class, true);
        found.nodes.len() * PAGE + found.part.map_or(0, |part| part.len)
    }

    /// What a new sequence of `tokens` would take of what is available to reach `positions`: what others hold already
    /// costs nothing.
    pub fn cost(&self, tokens: &[u32], class: u32, positions: usize) -> Amounts {
        let found = self.cache.find(tokens, class, true);
        let mut needed = self.missing(&Sequence::default(), positions);
        let first = self.reach.first_page(found.nodes.len() * PAGE);
        needed[WINDOW] = needed[WINDOW].saturating_sub(first).min(self.most);
        for (i, node) in found.nodes.iter().enumerate() {
            for kind in [ALL, WINDOW] {
                let seen = kind == ALL || i >= first;
                let held = self.cache.unit(*node, kind).is_some_and(|unit| !self.pools[kind].is_idle(unit));
                needed[kind] = needed[kind].saturating_sub(usize::from(seen && held));
            }
        }
        let last = found.part.map(|part| part.node).or(found.nodes.last().copied());
        let state = last.and_then(|node| self.cache.unit(node, STATE));
        needed[STATE] += usize::from(state.is_some_and(|state| self.pools[STATE].is_idle(state)));
        needed
    }

    /// A sequence with as many of the first `tokens` as the cache holds. The first `prompt_len` of them are a prompt's.
    pub fn begin(&mut self, tokens: &[u32], prompt_len: usize, class: u32) -> (Sequence, Vec<PageCopy>) {
        let mut found = self.cache.find(tokens, class, true);
        let mut copies = Vec::new();
        let mut copied = None;
        if let Some(part) = found.part {
            // Held while pages are looked for, so that they are not those that are given up.
            let held: Vec<Units> = found.nodes.iter().map(|node| self.cache.touch(*node)).collect();
            let from = self.cache.touch(part.node);
            held.iter().chain([&from]).for_each(|units| self.hold(*units));
            copied = self.take_copies(from, &mut copies).then_some((part, from));
            held.iter().for_each(|units| self.drop_hold(*units));
            if copied.is_none() {
                self.drop_hold(from);
                found = self.cache.find(tokens, class, false);
            }
        }
        let mut sequence = Sequence::default();
        let len = found.nodes.len() * PAGE + copied.map_or(0, |(part, _)| part.len);
        let first = self.reach.first_page(len);
        for (i, node) in found.nodes.iter().enumerate() {
            let units = self.cache.touch(*node);
            for kind in [ALL, WINDOW] {
                let unit = units[kind].filter(|_| kind == ALL || i >= first);
                unit.iter().for_each(|unit| self.pools[kind].hold(*unit));
                if self.reach.uses[kind] {
                    sequence.pages[kind].push(unit.unwrap_or(GONE));
                }
            }
        }
        for copy in &copies {
            sequence.pages[copy.kind as usize].push(copy.to);
        }
        let state = match copied {
            Some((_, from)) => from[STATE],
            None => found.nodes.last().and_then(|node| self.cache.unit(*node, STATE)),
        };
        if let Some(slot) = state.filter(|_| self.reach.uses[STATE]) {
            self.pools[STATE].hold(slot);
            sequence.base = Some(Base { slot, position: len });
        }
        if let Some((_, from)) = copied {
            self.drop_hold(from);
        }
        sequence.tokens.extend_from_slice(&tokens[..len]);
        sequence.offered = found.nodes.len() * PAGE;
        sequence.nodes = found.nodes;
        if class != 0 {
            sequence.classes.resize(len, class);
        }
        self.stop(&mut sequence, found.known, prompt_len);
        (sequence, copies)
    }

    /// A sequence goes on with a prompt that begins with its tokens.
    pub fn go_on(&self, sequence: &mut Sequence, tokens: &[u32], prompt_len: usize, class: u32) {
        let known = self.cache.find(tokens, class, false).known;
        self.stop(sequence, known, prompt_len);
    }

    /// Where the state of a sequence is to be put aside: where its prompt leaves the pages that are known, and at the end
    /// of its last whole page. There others, and its next turn, will begin.
    fn stop(&self, sequence: &mut Sequence, known: usize, prompt_len: usize) {
        sequence.stops.clear();
        if self.reach.uses[STATE] && self.keeps {
            let (held, last) = (sequence.tokens.len(), prompt_len.saturating_sub(1) / PAGE);
            let stops = [known.min(last), last].map(|pages| pages * PAGE);
            sequence.stops.extend(stops.into_iter().filter(|stop| *stop > held));
            sequence.stops.dedup();
        }
    }

    fn hold(&mut self, units: Units) {
        for (unit, pool) in units.iter().zip(&mut self.pools) {
            unit.iter().for_each(|unit| pool.hold(*unit));
        }
    }

    fn drop_hold(&mut self, units: Units) {
        for (unit, pool) in units.iter().zip(&mut self.pools) {
            unit.iter().for_each(|unit| pool.drop_hold(*unit));
        }
    }

    /// Pages to copy these to; where there are too few, none is taken.
    fn take_copies(&mut self, from: Units, copies: &mut Vec<PageCopy>) -> bool {
        for kind in PageKind::EACH {
            let Some(from) = from[kind as usize].filter(|_| self.reach.uses[kind as usize]) else { continue };
            let Some(to) = self.take(kind as usize) else {
                for copy in copies.drain(..) {
                    self.pools[copy.kind as usize].drop_hold(copy.to);
                }
                return false;
            };
            copies.push(PageCopy { kind, from, to });
        }
        true
    }

    /// Makes room in `sequence` for `positions` positions in all, and for its state.
    ///
    /// # Errors
    /// Where there is too little; nothing is taken then.
    pub fn grow(&mut self, sequence: &mut Sequence, positions: usize) -> Result<(), OutOfUnits> {
        self.forget(sequence);
        let needed = self.missing(sequence, positions);
        if !needed.fit_in(self.available()) {
            return Err(OutOfUnits { needed, free: self.available(), total: self.total() });
        }
        // As many as there are were asked for.
        for kind in [ALL, WINDOW] {
            for _ in 0..needed[kind] {
                let page = self.take(kind);
                sequence.pages[kind].extend(page);
            }
        }
        if needed[STATE] > 0 {
            sequence.state = self.take(STATE);
        }
        Ok(())
    }

    fn take(&mut self, kind: usize) -> Option<u32> {
        if self.pools[kind].free() == 0 {
            self.cache.give_up_one(kind, &mut self.pools)?;
        }
        self.pools[kind].take()
    }

    /// Where the state of a sequence is and will be, for a step of `rows` tokens, the last `drafts` of which may be
    /// taken back. Room was made for it.
    pub fn state(&mut self, sequence: &mut Sequence, rows: usize, drafts: usize) -> Option<StateUse> {
        self.forget_saving(sequence);
        let to = sequence.state?;
        let held = sequence.tokens.len();
        if let Some(base) = sequence.base.take_if(|base| base.position < held) {
            self.pools[STATE].drop_hold(base.slot);
        }
        let from = sequence.base.map_or(to, |base| base.slot);
        let stop = match drafts {
            0 => sequence.stops.iter().copied().find(|stop| (held + 1..=held + rows).contains(stop)),
            drafts => Some(held + rows - drafts),
        };
        sequence.saving = stop.and_then(|position| Some(Base { slot: self.take(STATE)?, position }));
        let save = sequence.saving.map(|base| Save { rows: base.position - held, slot: base.slot });
        Some(StateUse { from: (held > 0).then_some(from), to, save })
    }

    /// How many of `n` tokens a sequence may be fed in one step: to the first place where its state is put aside, if
    /// there is another behind it.
    pub fn step_limit(&self, sequence: &Sequence, n: usize) -> usize {
        let held = sequence.tokens.len();
        let mut stops = sequence.stops.iter().filter(|stop| (held + 1..=held + n).contains(stop));
        match (stops.next(), stops.next()) {
            (Some(first), Some(_)) => first - held,
            _ => n,
        }
    }

    /// A step has been made, and what it was to put aside is there.
    pub fn stepped(&mut self, sequence: &mut Sequence) {
        if let Some(saved) = sequence.saving.take()
            && let Some(before) = sequence.base.replace(saved)
        {
            self.pools[STATE].drop_hold(before.slot);
        }
    }

    /// A step was begun and has failed. Keys and values are written again by the next one; a state may be that of some of
    /// its tokens, and is of use no more where none was put aside before it.
    pub fn failed(&mut self, sequence: &mut Sequence) {
        self.forget_saving(sequence);
        let held = sequence.tokens.len();
        if self.reach.uses[STATE] && sequence.base.is_none_or(|base| base.position < held) {
            self.truncate(sequence, 0);
        }
    }

    /// Gives back the slot for what a step was to put aside, which was not made.
    fn forget_saving(&mut self, sequence: &mut Sequence) {
        if let Some(saving) = sequence.saving.take() {
            self.pools[STATE].drop_hold(saving.slot);
        }
    }

    /// Gives pages behind the window back.
    fn forget(&mut self, sequence: &mut Sequence) {
        if self.reach.uses[WINDOW] {
            let first = self.reach.first_page(sequence.tokens.len()).saturating_sub(SLACK);
            for page in sequence.pages[WINDOW].iter_mut().take(first).rev().take_while(|page| **page != GONE)
            {
                self.pools[WINDOW].drop_hold(std::mem::replace(page, GONE));
            }
        }
    }

    /// Keeps the first `len` tokens of `sequence` and takes back what is left over. It keeps fewer where it could not go
    /// on from there: a cut inside a page that others may read, one without its state, one whose window is gone.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        self.forget_saving(sequence);
        let mut len = len.min(sequence.tokens.len());
        if len < sequence.offered {
            len = len / PAGE * PAGE;
        }
        if self.reach.uses[STATE] && len < sequence.tokens.len() {
            len = sequence.base.map(|base| base.position).filter(|position| *position <= len).unwrap_or(0);
        }
        let seen = self.reach.first_page(len)..pages_for(len);
        if self.reach.uses[WINDOW] && sequence.pages[WINDOW][seen].contains(&GONE) {
            len = 0;
        }
        if len < sequence.tokens.len() || len == 0 {
            sequence.state.take().iter().for_each(|slot| self.pools[STATE].drop_hold(*slot));
        }
        if let Some(base) = sequence.base.take_if(|_| len == 0) {
            self.pools[STATE].drop_hold(base.slot);
        }
        sequence.offered = sequence.offered.min(len);
        sequence.tokens.truncate(len);
        sequence.classes.truncate(len);
        sequence.nodes.truncate(len / PAGE);
        for (pages, pool) in sequence.pages.iter_mut().zip(&mut self.pools) {
            let left = pages_for(len).min(pages.len());
            pages.drain(left..).rev().filter(|page| *page != GONE).for_each(|page| pool.drop_hold(page));
        }
    }

    /// Offers the sequence's tokens to others: its full pages, and with `tail` what is in the last one. Then what is
    /// behind its window may go, and a state that it has left behind.
    pub fn remember(&mut self, sequence: &mut Sequence, tail: bool) {
        while self.keeps && self.offer_page(sequence, tail) {}
        let held = sequence.tokens.len();
        if let Some(base) = sequence.base.take_if(|base| base.position < held) {
            self.pools[STATE].drop_hold(base.slot);
        }
        self.forget(sequence);
    }

    /// Offers the first page that was not offered whole; true if it was this time.
    fn offer_page(&mut self, sequence: &mut Sequence, tail: bool) -> bool {
        // What nobody held was given up, with what leads to it.
        while sequence.nodes.pop_if(|node| !self.cache.contains(*node)).is_some() {}
        let index = sequence.nodes.len();
        let from = index * PAGE;
        let held = sequence.tokens.len();
        let to = held.min(from + PAGE);
        let full = to == from + PAGE;
        let base = sequence.base.filter(|base| base.position == to);
        // Without pages only those are of use that lead to a state, which is offered with them.
        let kept = |base: Base| base.position.is_multiple_of(PAGE) || tail && base.position == held;
        let leads = sequence.base.is_some_and(|base| base.position >= to && kept(base));
        let pages = self.reach.uses[ALL] || self.reach.uses[WINDOW];
        let useful = if full { pages || leads } else { tail && (!self.reach.uses[STATE] || base.is_some()) };
        let classes = sequence.classes.get(from..to).unwrap_or_default();
        let class = classes.first().copied().unwrap_or(0);
        if from == to || !useful || classes.iter().any(|c| *c != class) {
            return false;
        }
        let parent = sequence.nodes.last().copied();
        let page = |kind: usize| sequence.pages[kind].get(index).copied().filter(|page| *page != GONE);
        let units = [page(ALL), page(WINDOW), base.map(|base| base.slot)];
        let tokens = &sequence.tokens[from..to];
        let Some((node, kept)) = self.cache.insert(parent, class, tokens, units, &mut self.pools) else {
            return false;
        };
        sequence.offered = to;
        if !full {
            return false;
        }
        for kind in [ALL, WINDOW] {
            // Another sequence computed the same tokens: one copy is enough.
            if let (Some(own), Some(kept)) = (units[kind], kept[kind])
                && own != kept
            {
                self.pools[kind].hold(kept);
                self.pools[kind].drop_hold(own);
                sequence.pages[kind][index] = kept;
            }
        }
        sequence.nodes.push(node);
        true
    }

    /// Offers all of a sequence, its state included.
    pub fn offer(&mut self, sequence: &mut Sequence) {
        if let Some(slot) = sequence.state.take() {
            let base = Base { slot, position: sequence.tokens.len() };
            let gone = match sequence.base {
                // Nothing was fed since.
                Some(before) if before.position == base.position => Some(base),
                _ => sequence.base.replace(base),
            };
            gone.iter().for_each(|base| self.pools[STATE].drop_hold(base.slot));
        }
        self.remember(sequence, true);
    }

    /// Takes everything back.
    pub fn release(&mut self, mut sequence: Sequence) {
        self.truncate(&mut sequence, 0);
    }
}

/// Pages that a sequence holds at most of layers that see a window, if a step feeds at most `rows` tokens.
pub fn most_pages(window: usize, rows: usize) -> usize {
    pages_for(window.saturating_add(rows)).saturating_add(SLACK + 1)
}

impl Sequence {
    /// The pages of each kind, in order of position.
    pub fn pages(&self) -> [&[u32]; PageKind::COUNT] {
        self.pages.each_ref().map(Vec::as_slice)
    }

    /// How many of the first tokens are the same as `tokens`.
    pub fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests;
