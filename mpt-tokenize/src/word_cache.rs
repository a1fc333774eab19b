//! Cache of short words and their ids: a fixed-size, direct-mapped table per encoder.

use std::sync::{Arc, Mutex, PoisonError};

/// Longest cached word in bytes, and most ids: an entry is one cache line.
pub(crate) const MAX_CACHED_BYTES: usize = 22;
const MAX_CACHED_IDS: usize = 10;

/// Entries of a cache: 2 MiB.
const CACHE_WORDS: usize = 1 << 15;

/// Word and its ids.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct CachedWord {
    ids: [u32; MAX_CACHED_IDS],
    word: [u8; MAX_CACHED_BYTES],
    len: u8,
    num_ids: u8,
}

/// Ids of recent words. A new word evicts the one in its slot.
#[derive(Debug)]
pub(crate) struct WordCache(Box<[CachedWord]>);

impl Default for WordCache {
    fn default() -> Self {
        let empty = CachedWord { ids: [0; MAX_CACHED_IDS], word: [0; MAX_CACHED_BYTES], len: 0, num_ids: 0 };
        Self(vec![empty; CACHE_WORDS].into_boxed_slice())
    }
}

impl WordCache {
    /// Appends the ids of a word of 1 to [`MAX_CACHED_BYTES`] bytes, from the cache or from `encode`.
    pub(crate) fn get_or_encode(
        &mut self,
        word: &[u8],
        ids: &mut Vec<u32>,
        encode: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let mut padded = [0; MAX_CACHED_BYTES];
        padded[..word.len()].copy_from_slice(word);
        let entry = &mut self.0[slot(&padded, word.len())];
        if usize::from(entry.len) == word.len() && entry.word == padded {
            ids.extend_from_slice(&entry.ids[..usize::from(entry.num_ids)]);
            return;
        }
        let first = ids.len();
        encode(word, ids);
        let encoded = &ids[first..];
        if encoded.len() <= MAX_CACHED_IDS {
            entry.ids[..encoded.len()].copy_from_slice(encoded);
            (entry.word, entry.len, entry.num_ids) = (padded, word.len() as u8, encoded.len() as u8);
        }
    }
}

/// Multiplicative hash; the upper bits are used.
pub(crate) fn hash(key: u64) -> u64 {
    (key ^ key >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Slot of a word.
fn slot(padded: &[u8; MAX_CACHED_BYTES], len: usize) -> usize {
    let part = |from: usize| u64::from_le_bytes(std::array::from_fn(|i| padded[from + i]));
    let mixed = hash(part(0) ^ len as u64) ^ hash(part(8)).rotate_left(21) ^ hash(part(14)).rotate_left(42);
    (hash(mixed) >> 40) as usize % CACHE_WORDS
}

/// Caches of idle encoders, shared by the clones of a tokenizer.
#[derive(Clone, Debug, Default)]
pub(crate) struct CachePool(Arc<Mutex<Vec<WordCache>>>);

impl CachePool {
    /// An idle cache, or an empty one.
    pub(crate) fn take(&self) -> WordCache {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Returns a cache to the pool.
    pub(crate) fn put(&self, cache: WordCache) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
    }
}
