//! Zeroed memory that takes no pages of the machine until it is written.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// `len` zeros, on a cache line.
pub struct Zeroed {
    data: NonNull<u8>,
    layout: Layout,
    len: usize,
}

impl Zeroed {
    /// `None` if the memory cannot be had.
    pub fn new(len: usize) -> Option<Zeroed> {
        let layout = Layout::array::<u8>(len.max(1)).ok()?.align_to(64).ok()?;
        // SAFETY: the layout is not of size zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<u8>())?;
        Some(Zeroed { data, layout, len })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.data.as_ptr().cast(), self.layout) }
    }
}

// SAFETY: it owns its memory like a vector.
unsafe impl Send for Zeroed {}
// SAFETY: as above; shared access gives only a pointer.
unsafe impl Sync for Zeroed {}
