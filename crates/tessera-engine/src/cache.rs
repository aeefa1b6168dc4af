//! Pages of tokens that a later prompt may begin with.
//!
//! A tree: a node is a page's worth of tokens after those of its parent, so a node stands for a whole
//! prefix. Tokens are compared, not only hashed: a page is never taken for another. A node with fewer
//! tokens than a page holds is a leaf, and its page is copied rather than shared, because whoever goes on
//! from there writes into it. Such a leaf is never the beginning of a sibling, which keeps the neighbour in
//! order the best match. The least recently used leaves are given up first.

use crate::kv::PagePool;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use tessera_compute::batch::PAGE;

/// Fewer positions than these are computed again: copying a page costs about as much.
const LEAST_COPIED: usize = 8;

/// Parent (0 for none), RoPE class, tokens.
type Key = (u64, u32, Box<[u32]>);

#[derive(Debug)]
struct Node {
    key: Key,
    page: u32,
    children: usize,
    used: u64,
}

/// The tree.
#[derive(Debug, Default)]
pub struct PrefixCache {
    nodes: HashMap<u64, Node>,
    index: BTreeMap<Key, u64>,
    /// Nodes without children by last use.
    leaves: BTreeSet<(u64, u64)>,
    last_id: u64,
    clock: u64,
}

/// What the cache holds of a prompt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Nodes of full pages, in order.
    pub nodes: Vec<u64>,
    /// A page that agrees for a part.
    pub part: Option<Part>,
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
    /// The longest prefix of `tokens` that is here.
    pub fn find(&self, tokens: &[u32], class: u32) -> Found {
        let mut found = Found::default();
        let (mut parent, mut rest) = (0, tokens);
        while let Some((page, after)) = rest.split_at_checked(PAGE)
            && let Some(id) = self.index.get(&(parent, class, page.into()))
        {
            found.nodes.push(*id);
            (parent, rest) = (*id, after);
        }
        // Among siblings the neighbours in order share the most.
        let key: Key = (parent, class, rest[..rest.len().min(PAGE)].into());
        let before = self.index.range(..&key).next_back();
        let after = self.index.range(&key..).next();
        let near = [before, after].into_iter().flatten().filter(|(k, _)| (k.0, k.1) == (parent, class));
        let parts = near.map(|(k, id)| Part { node: *id, len: common(&k.2, &key.2) });
        found.part = parts.max_by_key(|p| p.len).filter(|p| p.len >= LEAST_COPIED);
        found
    }

    /// The node's page.
    pub fn page(&self, id: u64) -> Option<u32> {
        self.nodes.get(&id).map(|node| node.page)
    }

    /// Notes a use and gives the node's page.
    pub fn touch(&mut self, id: u64) -> u32 {
        self.clock += 1;
        // Callers hold the node's page, so the node is here.
        let Some(node) = self.nodes.get_mut(&id) else { unreachable!("node {id} is held") };
        if node.children == 0 {
            self.leaves.remove(&(node.used, id));
            self.leaves.insert((self.clock, id));
        }
        node.used = self.clock;
        node.page
    }

    /// Adds a node for `tokens` in `page`, or finds one that holds at least as much. `None` if a longer
    /// one holds a part; otherwise the node and the page that it has.
    pub fn insert(
        &mut self,
        parent: Option<u64>,
        class: u32,
        tokens: &[u32],
        page: u32,
        pool: &mut PagePool,
    ) -> Option<(u64, u32)> {
        let parent = parent.unwrap_or(0);
        let key: Key = (parent, class, tokens.into());
        let siblings = |k: &Key| (k.0, k.1) == (parent, class);
        let next = self.index.range((Bound::Included(&key), Bound::Unbounded)).next();
        if let Some((other, id)) = next.map(|(k, id)| (k, *id))
            && siblings(other)
            && other.2.starts_with(tokens)
        {
            let same = other.2.len() == tokens.len();
            let kept = self.touch(id);
            return same.then_some((id, kept));
        }
        if let Some((shorter, id)) = self.index.range(..&key).next_back().map(|(k, id)| (k, *id))
            && siblings(shorter)
            && tokens.starts_with(&shorter.2)
        {
            self.remove(id, pool);
        }
        pool.cache(page);
        self.last_id += 1;
        self.clock += 1;
        let id = self.last_id;
        if let Some(above) = self.nodes.get_mut(&parent) {
            if above.children == 0 {
                self.leaves.remove(&(above.used, parent));
            }
            above.children += 1;
            above.used = self.clock;
        }
        self.index.insert(key.clone(), id);
        self.nodes.insert(id, Node { key, page, children: 0, used: self.clock });
        self.leaves.insert((self.clock, id));
        Some((id, page))
    }

    /// Gives up the least recently used page that nobody else holds.
    pub fn give_up_one(&mut self, pool: &mut PagePool) -> Option<()> {
        let idle = |(_, id): &&(u64, u64)| self.nodes.get(id).is_some_and(|n| pool.is_idle(n.page));
        let (_, id) = *self.leaves.iter().find(idle)?;
        self.remove(id, pool);
        Some(())
    }

    /// Gives up everything. Pages that sequences hold stay theirs.
    pub fn clear(&mut self, pool: &mut PagePool) {
        for node in self.nodes.values() {
            pool.uncache(node.page);
        }
        *self = PrefixCache { last_id: self.last_id, ..PrefixCache::default() };
    }

    /// Takes a leaf out.
    fn remove(&mut self, id: u64, pool: &mut PagePool) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.leaves.remove(&(node.used, id));
        self.index.remove(&node.key);
        pool.uncache(node.page);
        if let Some(parent) = self.nodes.get_mut(&node.key.0) {
            parent.children -= 1;
            if parent.children == 0 {
                self.leaves.insert((parent.used, node.key.0));
            }
        }
    }
}
