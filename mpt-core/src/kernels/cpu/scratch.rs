//! Scratch buffers, recycled per thread, so that steady work touches no fresh pages.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Bytes that a thread caches at most.
const MAX_CACHED_BYTES: usize = 1 << 30;

thread_local! {
    /// Buffers returned on this thread: bytes, and a `Vec` of some type.
    static CACHE: RefCell<Vec<(usize, Box<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

/// Buffer with unspecified contents, returned to its thread when dropped.
pub(crate) struct Scratch<T: Copy + 'static> {
    data: Vec<T>,
    len: usize,
}

impl<T: Copy + 'static> Scratch<T> {
    /// Takes a buffer of `len` elements: `fill` in fresh memory, stale values in recycled memory.
    pub(crate) fn take(len: usize, fill: T) -> Self {
        let mut data = CACHE.with_borrow_mut(|cache| take_best_fit::<T>(cache, len)).unwrap_or_default();
        if data.len() < len {
            data = vec![fill; len];
        }
        Self { data, len }
    }
}

/// Removes the smallest cached buffer of `len` elements or more, or else the largest one.
fn take_best_fit<T: 'static>(cache: &mut Vec<(usize, Box<dyn Any>)>, len: usize) -> Option<Vec<T>> {
    let wanted = len * size_of::<T>();
    let of_type = |index: &usize| cache[*index].1.is::<Vec<T>>();
    let key = |&index: &usize| {
        let bytes = cache[index].0;
        if bytes >= wanted { (0, bytes) } else { (1, usize::MAX - bytes) }
    };
    let index = (0..cache.len()).filter(of_type).min_by_key(key)?;
    cache.swap_remove(index).1.downcast().ok().map(|data| *data)
}

impl<T: Copy + 'static> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[..self.len]
    }
}

impl<T: Copy + 'static> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[..self.len]
    }
}

impl<T: Copy + 'static> Drop for Scratch<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let bytes = data.len() * size_of::<T>();
        // no cache is left at the end of a thread
        let _ = CACHE.try_with(|cache| {
            let mut cache = cache.borrow_mut();
            if bytes > 0 && cache.iter().map(|(bytes, _)| bytes).sum::<usize>() + bytes <= MAX_CACHED_BYTES {
                cache.push((bytes, Box::new(data)));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_recycled_for_its_type() {
        let mut first = Scratch::take(100, 0u32);
        first[99] = 7;
        let at = first.as_ptr();
        drop(first);
        let other = Scratch::take(10, 0f64);
        let second = Scratch::take(80, 0u32);
        assert_eq!((second.as_ptr(), second.len(), other.len()), (at, 80, 10));
        let third = Scratch::take(80, 1u32);
        assert!(third.iter().all(|&x| x == 1));
    }
}
