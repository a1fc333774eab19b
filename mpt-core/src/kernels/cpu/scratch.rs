//! Buffers that are used again, so that steady work touches no fresh pages.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Bytes that a thread keeps for later.
const KEPT_BYTES: usize = 1 << 30;

thread_local! {
    /// Buffers given back on this thread, each a `Vec` of some type, with its size in bytes.
    static KEPT: RefCell<Vec<(usize, Box<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of some length and of any content, given back to its thread when dropped.
pub(crate) struct Scratch<T: Copy + 'static> {
    data: Vec<T>,
    len: usize,
}

impl<T: Copy + 'static> Scratch<T> {
    /// A buffer of `len` elements: `fill` where memory is fresh, whatever was left there where it is not.
    pub(crate) fn take(len: usize, fill: T) -> Self {
        let mut data = KEPT.with_borrow_mut(|kept| best::<T>(kept, len)).unwrap_or_default();
        if data.len() < len {
            data = vec![fill; len];
        }
        Self { data, len }
    }
}

/// The smallest kept buffer that holds `len` elements, or else the largest, which is then replaced.
fn best<T: 'static>(kept: &mut Vec<(usize, Box<dyn Any>)>, len: usize) -> Option<Vec<T>> {
    let wanted = len * size_of::<T>();
    let of_type = |index: &usize| kept[*index].1.is::<Vec<T>>();
    let key = |&index: &usize| {
        let bytes = kept[index].0;
        if bytes >= wanted { (0, bytes) } else { (1, usize::MAX - bytes) }
    };
    let index = (0..kept.len()).filter(of_type).min_by_key(key)?;
    kept.swap_remove(index).1.downcast().ok().map(|data| *data)
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
        // at the end of a thread there is nobody to keep it for
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if bytes > 0 && kept.iter().map(|(bytes, _)| bytes).sum::<usize>() + bytes <= KEPT_BYTES {
                kept.push((bytes, Box::new(data)));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_for_the_next_of_its_type() {
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
