//! Which pages of the pool belong to whom, and what a sequence holds in its own.

use tessera_compute::batch::PAGE;

/// The pool's free pages. A page number is taken by one sequence until it gives it back.
#[derive(Debug)]
pub struct PagePool {
    free: Vec<u32>,
    total: usize,
}

/// Too few free pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} KV pages of {PAGE} positions are needed, {free} of {total} are free")]
pub struct OutOfPages {
    /// Pages that are missing for the request.
    pub needed: usize,
    /// Free pages.
    pub free: usize,
    /// All pages.
    pub total: usize,
}

/// Tokens whose keys and values are in pages. Give its pages back with [`PagePool::release`].
#[derive(Debug, Default)]
pub struct Sequence {
    /// Token at each position held.
    pub tokens: Vec<u32>,
    pages: Vec<u32>,
}

impl PagePool {
    /// All pages free.
    pub fn new(total: usize) -> PagePool {
        PagePool { free: (0..total as u32).rev().collect(), total }
    }

    /// Pages that `positions` positions need.
    pub const fn pages_for(positions: usize) -> usize {
        positions.div_ceil(PAGE)
    }

    /// Free pages.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes room in `sequence` for `positions` positions in all; on failure nothing is taken.
    pub fn grow(&mut self, sequence: &mut Sequence, positions: usize) -> Result<(), OutOfPages> {
        let needed = PagePool::pages_for(positions).saturating_sub(sequence.pages.len());
        if needed > self.free.len() {
            return Err(OutOfPages { needed, free: self.free.len(), total: self.total });
        }
        let from = self.free.len() - needed;
        sequence.pages.extend(self.free.drain(from..).rev());
        Ok(())
    }

    /// Keeps the first `len` tokens of `sequence` and takes back the pages that are left over.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        sequence.tokens.truncate(len);
        let keep = PagePool::pages_for(sequence.tokens.len());
        self.free.extend(sequence.pages.drain(keep..).rev());
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
mod tests {
    use super::*;

    #[test]
    fn pages_are_owned_once_and_come_back() {
        let mut pool = PagePool::new(4);
        let (mut a, mut b) = (Sequence::default(), Sequence::default());
        pool.grow(&mut a, PAGE + 1).unwrap();
        pool.grow(&mut b, PAGE).unwrap();
        let mut all = [a.pages(), b.pages()].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 3);
        assert_eq!(pool.grow(&mut b, 3 * PAGE), Err(OutOfPages { needed: 2, free: 1, total: 4 }));
        a.tokens = vec![0; PAGE + 1];
        pool.truncate(&mut a, PAGE);
        assert_eq!((a.pages().len(), pool.free()), (1, 2));
        pool.release(a);
        pool.release(b);
        assert_eq!(pool.free(), 4);
    }
}
