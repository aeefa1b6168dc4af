//! Zeroed memory on a cache line that takes no pages of the machine until it is written.
//!
//! The system gives such memory (`calloc`) at its own alignment only: for more, the standard library takes
//! ordinary memory and writes the zeros, and with that every page. So what is asked for has no alignment of its own
//! and is longer by a line, and the first whole line in it is where the bytes begin.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A cache line, and the widest vector.
const LINE: usize = 64;

/// `len` zeros, on a cache line.
pub struct Zeroed {
    /// What was allocated.
    block: NonNull<u8>,
    layout: Layout,
    /// The first byte that is used.
    data: NonNull<u8>,
    len: usize,
}

impl Zeroed {
    /// `None` if the memory cannot be had.
    pub fn new(len: usize) -> Option<Zeroed> {
        let layout = Layout::array::<u8>(len.checked_add(LINE)?).ok()?;
        // SAFETY: the layout is not of size zero.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = block.as_ptr().addr().next_multiple_of(LINE) - block.as_ptr().addr();
        // SAFETY: less than a line is skipped, and a line more than `len` was allocated.
        let data = unsafe { block.add(skip) };
        Some(Zeroed { block, layout, data, len })
    }

    /// `len` zeros as numbers.
    pub fn floats(len: usize) -> Option<ZeroedFloats> {
        Some(ZeroedFloats(Zeroed::new(len.checked_mul(size_of::<f32>())?)?))
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
        unsafe { dealloc(self.block.as_ptr(), self.layout) }
    }
}

// SAFETY: it owns its memory like a vector.
unsafe impl Send for Zeroed {}
// SAFETY: as above; shared access gives only a pointer.
unsafe impl Sync for Zeroed {}

/// Like a slice of f32.
pub struct ZeroedFloats(Zeroed);

impl std::ops::Deref for ZeroedFloats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: all bytes are initialised, any are an f32, and a line's alignment is more than enough.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / size_of::<f32>()) }
    }
}

impl std::ops::DerefMut for ZeroedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.0.len() / size_of::<f32>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_of_zeros() {
        for len in [0, 1, 63, 64, 65, 1 << 20] {
            let memory = Zeroed::new(len).unwrap();
            assert_eq!((memory.len(), memory.as_ptr().addr() % LINE), (len, 0));
            // SAFETY: `len` bytes that nobody else has.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) };
            assert!(bytes.iter().all(|b| *b == 0));
            bytes.fill(1);
        }
        assert!(Zeroed::new(usize::MAX).is_none() && Zeroed::new(usize::MAX - LINE).is_none());
        assert!(Zeroed::floats(usize::MAX / 2).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_nobody_wrote_are_not_taken() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
        };
        let before = resident();
        let memory = Zeroed::new(1 << 30).unwrap();
        let mut floats = Zeroed::floats(1 << 28).unwrap();
        floats[1 << 27] = 1.0;
        let taken = resident().saturating_sub(before);
        // Other tests of this process take some meanwhile, and a huge page has 2 MiB.
        assert!(taken < 1 << 28, "{taken} bytes of 2 GiB");
        assert_eq!((memory.len(), floats[1 << 27], floats[0]), (1 << 30, 1.0, 0.0));
    }
}
