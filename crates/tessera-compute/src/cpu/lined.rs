//! Room that begins on a cache line: a vector load of 32 or 64 bytes that crosses a line counts twice.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// Values for kernels to fill, from the beginning of a cache line on.
pub struct Lined<T> {
    room: Vec<T>,
    from: usize,
    len: usize,
}

impl<T> Default for Lined<T> {
    fn default() -> Lined<T> {
        Lined { room: Vec::new(), from: 0, len: 0 }
    }
}

impl<T: Copy + Default> Lined<T> {
    /// Makes room for at least `len` values. What they are is arbitrary.
    pub fn grow(&mut self, len: usize) {
        if self.len >= len {
            return;
        }
        let more = LINE / size_of::<T>();
        self.room.clear();
        self.room.resize(len + more, T::default());
        self.from = self.room.as_ptr().align_offset(LINE).min(more);
        self.len = len;
    }

    /// Makes room for at least `len` values; the first `len` are zero.
    pub fn zeroed(&mut self, len: usize) {
        self.grow(len);
        self[..len].fill(T::default());
    }
}

impl<T> Deref for Lined<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.room[self.from..self.from + self.len]
    }
}

impl<T> DerefMut for Lined<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.room[self.from..self.from + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_on_a_line_and_is_as_long_as_was_asked() {
        let mut v: Lined<i8> = Lined::default();
        assert!(v.is_empty());
        for len in [1, 64, 1000, 10, 5000] {
            v.zeroed(len);
            assert!(v.len() >= len && v[..len].iter().all(|x| *x == 0));
            assert_eq!(v.as_ptr() as usize % LINE, 0);
            v.fill(7);
        }
        let mut v: Lined<f32> = Lined::default();
        v.grow(3);
        assert_eq!((v.len(), v.as_ptr() as usize % LINE), (3, 0));
    }
}
