//! Where keys and values lie in one block of memory: the pages of a kind one after another, kind after kind; in a page
//! the layers of its kind.

use crate::batch::PageKind;
use crate::program::{Kv, Program};
use std::ops::Range;

/// The places, in whatever unit the length of a layer was given.
#[derive(Clone, Debug)]
pub struct PageLayout {
    /// Of each layer.
    kinds: Vec<PageKind>,
    /// Where each layer begins in a page.
    layers: Vec<usize>,
    /// Length of a page of each kind.
    lens: [usize; PageKind::COUNT],
    /// Where the pages of each kind begin, and the end of all.
    begins: [usize; PageKind::COUNT + 1],
}

impl PageLayout {
    /// Of so many pages of each kind, where a layer takes `len` of a page. Lengths that no machine has saturate, and no
    /// memory can be had for them.
    pub fn new(program: &Program, pages: [usize; PageKind::COUNT], len: impl Fn(&Kv) -> usize) -> PageLayout {
        let (kinds, mut lens) = (program.page_kinds(), [0usize; PageKind::COUNT]);
        let place = |(kv, kind): (&Kv, &PageKind)| {
            let end = &mut lens[*kind as usize];
            let from = *end;
            *end = end.saturating_add(len(kv));
            from
        };
        let layers = program.kv.iter().zip(&kinds).map(place).collect();
        let mut begins = [0usize; PageKind::COUNT + 1];
        for (i, kind) in PageKind::EACH.into_iter().enumerate() {
            let all = pages[kind as usize].saturating_mul(lens[kind as usize]);
            begins[i + 1] = begins[i].saturating_add(all);
        }
        PageLayout { kinds, layers, lens, begins }
    }

    /// Length of a page of each kind.
    pub fn page_len(&self) -> [usize; PageKind::COUNT] {
        self.lens
    }

    /// Length of all.
    pub fn len(&self) -> usize {
        self.begins[PageKind::COUNT]
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of a layer's pages.
    pub fn kind(&self, layer: usize) -> PageKind {
        self.kinds[layer]
    }

    /// Of a layer: where the first page begins, the length of a page, and where the layer begins in it.
    pub fn of_layer(&self, layer: usize) -> (usize, usize, usize) {
        let kind = self.kinds[layer] as usize;
        (self.begins[kind], self.lens[kind], self.layers[layer])
    }

    /// Where a layer's part of a page begins.
    pub fn at(&self, layer: usize, page: u32) -> usize {
        let (begin, len, place) = self.of_layer(layer);
        begin + page as usize * len + place
    }

    /// A whole page.
    ///
    /// # Panics
    /// If it is not in the pool.
    pub fn page(&self, kind: PageKind, page: u32) -> Range<usize> {
        let (len, begin) = (self.lens[kind as usize], self.begins[kind as usize]);
        let from = begin + page as usize * len;
        assert!(from + len <= self.begins[kind as usize + 1], "page {page} of {kind:?} is not in the pool");
        from..from + len
    }
}
