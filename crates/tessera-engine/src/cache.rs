//! What is kept of tokens that a later prompt may begin with: pages, and states.
//!
//! A tree: a node is a page's worth of tokens after those of its parent, so a node stands for a whole
//! prefix. Tokens are compared, not only hashed: a page is never taken for another. A node with fewer
//! tokens than a page holds is a leaf, and its page is copied rather than shared, because whoever goes on
//! from there writes into it. Such a leaf is never the beginning of a sibling, which keeps the neighbour in
//! order the best match.
//!
//! A page of layers that see everything is given up with its node, the least recently used leaf first. A page of layers
//! that see a window, and a state, may go alone: it is missed only by who would go on right behind it.

use crate::units::{ALL, STATE, UNITS, UnitPool, WINDOW};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use tessera_compute::batch::PAGE;

/// Fewer positions than these are computed again: copying a page costs about as much.
const LEAST_COPIED: usize = 8;

/// Parent (0 for none), RoPE class, tokens.
type Key = (u64, u32, Box<[u32]>);

/// Of each kind the unit that a node has.
pub type Units = [Option<u32>; UNITS];

#[derive(Debug)]
struct Node {
    key: Key,
    units: Units,
    children: usize,
    used: u64,
}

impl Node {
    /// Whether its unit of this kind may be given up: all that come after a page of [`ALL`] need it.
    fn gives(&self, kind: usize) -> bool {
        self.units[kind].is_some() && (kind != ALL || self.children == 0)
    }

    fn is_empty(&self) -> bool {
        self.children == 0 && self.units.iter().all(Option::is_none)
    }
}

/// What must be there to go on behind a prefix.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Which kinds of units the model has.
    pub uses: [bool; UNITS],
    /// How many positions the layers of [`WINDOW`] see at most.
    pub window: usize,
}

impl Reach {
    /// The first page of [`WINDOW`] that a token at this position sees.
    pub const fn first_page(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window) / PAGE
    }
}

/// The tree.
#[derive(Debug)]
pub struct PrefixCache {
    reach: Reach,
    nodes: HashMap<u64, Node>,
    index: BTreeMap<Key, u64>,
    /// Of each kind the nodes that may give a unit up, by last use.
    givers: [BTreeSet<(u64, u64)>; UNITS],
    last_id: u64,
    clock: u64,
}

/// What the cache holds of a prompt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Nodes of full pages, in order, behind which a sequence can go on.
    pub nodes: Vec<u64>,
    /// A page that agrees for a part, behind which it can go on then.
    pub part: Option<Part>,
    /// How many full pages are known, though one may not be able to go on behind them.
    pub known: usize,
}

/// A page to copy from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its node.
    pub node: u64,
    /// Positions that agree.
    pub len: usize,
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl PrefixCache {
    /// An empty one.
    pub fn new(reach: Reach) -> PrefixCache {
        let givers = std::array::from_fn(|_| BTreeSet::new());
        let (nodes, index) = (HashMap::new(), BTreeMap::new());
        PrefixCache { reach, nodes, index, givers, last_id: 0, clock: 0 }
    }

    /// The longest prefix of `tokens` that is here and behind which a sequence can go on; with `parts` also one that
    /// ends inside a page.
    pub fn find(&self, tokens: &[u32], class: u32, parts: bool) -> Found {
        let mut found = Found::default();
        let (mut parent, mut rest) = (0, tokens);
        while let Some((page, after)) = rest.split_at_checked(PAGE)
            && let Some(id) = self.index.get(&(parent, class, page.into()))
        {
            found.nodes.push(*id);
            (parent, rest) = (*id, after);
        }
        found.known = found.nodes.len();
        // Among siblings the neighbours in order share the most.
        let key: Key = (parent, class, rest[..rest.len().min(PAGE)].into());
        let before = self.index.range(..&key).next_back();
        let after = self.index.range(&key..).next();
        let near = [before, after].into_iter().flatten().filter(|(k, _)| (k.0, k.1) == (parent, class));
        let near = near.map(|(k, id)| Part { node: *id, len: common(&k.2, &key.2) });
        let part = near.filter(|part| parts && self.copies(&found.nodes, *part)).max_by_key(|p| p.len);
        // Without its state a few tokens more cost all since the last one.
        found.part = part.filter(|p| p.len >= LEAST_COPIED || self.reach.uses[STATE]);
        while found.part.is_none() && !self.goes_on(&found.nodes) {
            found.nodes.pop();
        }
        found
    }

    /// Whether a sequence can go on behind these nodes.
    fn goes_on(&self, nodes: &[u64]) -> bool {
        let Some(last) = nodes.last() else { return true };
        let state = !self.reach.uses[STATE] || self.unit(*last, STATE).is_some();
        state && self.sees(nodes, nodes.len() * PAGE)
    }

    /// Whether one can that takes a part of a page after them.
    fn copies(&self, nodes: &[u64], part: Part) -> bool {
        let Some(node) = self.nodes.get(&part.node) else { return false };
        let pages = [ALL, WINDOW].iter().all(|k| !self.reach.uses[*k] || node.units[*k].is_some());
        // A state is that of all tokens of its node.
        let whole = node.units[STATE].is_some() && node.key.2.len() == part.len;
        pages && (!self.reach.uses[STATE] || whole) && self.sees(nodes, nodes.len() * PAGE + part.len)
    }

    /// Whether the pages of windows that a token at this position sees are there.
    fn sees(&self, nodes: &[u64], position: usize) -> bool {
        let first = self.reach.first_page(position).min(nodes.len());
        !self.reach.uses[WINDOW] || nodes[first..].iter().all(|id| self.unit(*id, WINDOW).is_some())
    }

    /// Whether it has not been given up.
    pub fn contains(&self, id: u64) -> bool {
        self.nodes.contains_key(&id)
    }

    /// Whether there is nothing.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.index.is_empty() && self.givers.iter().all(BTreeSet::is_empty)
    }

    /// The node's unit of a kind.
    pub fn unit(&self, id: u64, kind: usize) -> Option<u32> {
        self.nodes.get(&id)?.units[kind]
    }

    /// Changes a node, and keeps the order in which units are given up.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        for (kind, givers) in self.givers.iter_mut().enumerate().filter(|(kind, _)| node.gives(*kind)) {
            debug_assert!(givers.contains(&(node.used, id)), "kind {kind}");
            givers.remove(&(node.used, id));
        }
        change(node);
        for (_, givers) in self.givers.iter_mut().enumerate().filter(|(kind, _)| node.gives(*kind)) {
            givers.insert((node.used, id));
        }
    }

    /// Notes a use and gives the node's units.
    pub fn touch(&mut self, id: u64) -> Units {
        self.clock += 1;
        let clock = self.clock;
        self.change(id, |node| node.used = clock);
        self.nodes.get(&id).map_or([None; UNITS], |node| node.units)
    }

    /// Adds a node for `tokens` with these units, or finds one that holds at least as much, which takes those that it
    /// lacks. `None` if a longer one holds a part, or if the parent is gone; otherwise the node and the units that it has.
    pub fn insert(
        &mut self,
        parent: Option<u64>,
        class: u32,
        tokens: &[u32],
        units: Units,
        pools: &mut [UnitPool; UNITS],
    ) -> Option<(u64, Units)> {
        let parent = parent.unwrap_or(0);
        let key: Key = (parent, class, tokens.into());
        let siblings = |k: &Key| (k.0, k.1) == (parent, class);
        let next = self.index.range((Bound::Included(&key), Bound::Unbounded)).next();
        if let Some((other, id)) = next.map(|(k, id)| (k, *id))
            && siblings(other)
            && other.2.starts_with(tokens)
        {
            let same = other.2.len() == tokens.len();
            let has = self.touch(id);
            if !same {
                return None;
            }
            let lacks = |kind: usize| if has[kind].is_none() { units[kind] } else { None };
            let given: Units = std::array::from_fn(lacks);
            self.change(id, |node| {
                for ((unit, given), pool) in node.units.iter_mut().zip(given).zip(pools) {
                    if let Some(given) = given {
                        pool.cache(given);
                        *unit = Some(given);
                    }
                }
            });
            return Some((id, std::array::from_fn(|kind| has[kind].or(given[kind]))));
        }
        if parent != 0 && !self.contains(parent) {
            return None;
        }
        let before = self.index.range(..&key).next_back();
        let shorter = before.filter(|(k, _)| siblings(k) && tokens.starts_with(&k.2)).map(|(_, id)| *id);
        self.last_id += 1;
        self.clock += 1;
        let (id, clock) = (self.last_id, self.clock);
        // First, so that what is above the shorter one is not left with nothing on the way.
        self.change(parent, |above| (above.children, above.used) = (above.children + 1, clock));
        shorter.iter().for_each(|shorter| self.remove(*shorter, pools));
        for (unit, pool) in units.iter().zip(pools.iter_mut()) {
            unit.iter().for_each(|unit| pool.cache(*unit));
        }
        self.index.insert(key.clone(), id);
        self.nodes.insert(id, Node { key, units: [None; UNITS], children: 0, used: clock });
        self.change(id, |node| node.units = units);
        Some((id, units))
    }

    /// Gives up the least recently used unit of a kind that nobody else holds.
    pub fn give_up_one(&mut self, kind: usize, pools: &mut [UnitPool; UNITS]) -> Option<()> {
        let unit = |id: &u64| self.unit(*id, kind);
        let idle = |(_, id): &&(u64, u64)| unit(id).is_some_and(|unit| pools[kind].is_idle(unit));
        let (_, id) = *self.givers[kind].iter().find(idle)?;
        if kind == ALL {
            self.remove(id, pools);
            return Some(());
        }
        let unit = unit(&id)?;
        pools[kind].uncache(unit);
        self.change(id, |node| node.units[kind] = None);
        if self.nodes.get(&id).is_some_and(Node::is_empty) {
            self.remove(id, pools);
        }
        Some(())
    }

    /// Gives up everything. What sequences hold stays theirs.
    pub fn clear(&mut self, pools: &mut [UnitPool; UNITS]) {
        for node in self.nodes.values() {
            for (unit, pool) in node.units.iter().zip(pools.iter_mut()) {
                unit.iter().for_each(|unit| pool.uncache(*unit));
            }
        }
        *self = PrefixCache { last_id: self.last_id, ..PrefixCache::new(self.reach) };
    }

    /// Takes a leaf out, and those above it that have nothing and lead nowhere then.
    fn remove(&mut self, id: u64, pools: &mut [UnitPool; UNITS]) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            self.change(id, |node| {
                for (unit, pool) in node.units.iter_mut().zip(pools.iter_mut()) {
                    unit.take().into_iter().for_each(|unit| pool.uncache(unit));
                }
            });
            let Some(node) = self.nodes.remove(&id) else { return };
            self.index.remove(&node.key);
            let parent = node.key.0;
            self.change(parent, |above| above.children -= 1);
            next = self.nodes.get(&parent).is_some_and(Node::is_empty).then_some(parent);
        }
    }
}
