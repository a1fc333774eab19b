//! Byte-pair encoding of words: what the library does, without its detours.
//!
//! A word starts as its bytes; of all neighbours that may be merged the pair of the lowest rank is, the leftmost where there
//! are several, until none is left. Words recur, so what short ones became is kept in a small table that forgets.
//!
//! Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", algorithm 1.

use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of the longest word encoded here: the time for one is quadratic.
pub(crate) const MAX_WORD: usize = 64;

/// No merge.
const NONE: u32 = u32::MAX;

/// The ranks of all merges.
#[derive(Clone, Debug)]
pub(crate) struct Bpe {
    /// The id of each byte; [`NONE`] for those that UTF-8 has no use for.
    byte_ids: [u32; 256],
    /// Left and right id, and rank, at the first free place from the pair's hash on; a rank of [`NONE`] is a free place.
    pairs: Box<[(u64, u32)]>,
    /// The id that each merge gives, by rank.
    merged: Box<[u32]>,
    caches: Caches,
}

impl Bpe {
    /// Encoding by `merges`, each a left, a right and the merged id, in the order of ranks.
    ///
    /// `None` where two merges give the same id, or one pair is given twice: what the library makes of these depends on
    /// how it goes about them.
    pub(crate) fn new(byte_ids: [u32; 256], merges: &[[u32; 3]]) -> Option<Self> {
        let size = (2 * merges.len() + 1).next_power_of_two();
        let mut pairs = vec![(0, NONE); size].into_boxed_slice();
        let mut given = std::collections::HashSet::new();
        for (rank, &[left, right, whole]) in merges.iter().enumerate() {
            let key = key(left, right);
            let place = find(&pairs, key);
            if pairs[place].1 != NONE || !given.insert(whole) {
                return None;
            }
            pairs[place] = (key, rank as u32);
        }
        let merged = merges.iter().map(|merge| merge[2]).collect();
        Some(Self { byte_ids, pairs, merged, caches: Caches::default() })
    }

    /// An encoder with a cache of its own.
    pub(crate) fn encoder(&self) -> Encoder<'_> {
        let cache = self.caches.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Encoder { bpe: self, cache: Some(cache.unwrap_or_default()) }
    }

    fn rank(&self, left: u32, right: u32) -> u32 {
        self.pairs[find(&self.pairs, key(left, right))].1
    }

    /// Appends the ids of a word of 1 to [`MAX_WORD`] bytes.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        let mut parts = [0; MAX_WORD];
        let mut ranks = [NONE; MAX_WORD]; // of each part and the one after it
        let mut len = word.len();
        for (part, &byte) in parts.iter_mut().zip(word) {
            *part = self.byte_ids[usize::from(byte)];
        }
        for i in 1..len {
            ranks[i - 1] = self.rank(parts[i - 1], parts[i]);
        }
        loop {
            let lowest = ranks[..len - 1].iter().copied().min().unwrap_or(NONE);
            if lowest == NONE {
                break;
            }
            let at = ranks.iter().position(|&rank| rank == lowest).expect("it is one of them");
            parts[at] = self.merged[lowest as usize];
            parts.copy_within(at + 2..len, at + 1);
            ranks.copy_within(at + 1..len, at);
            len -= 1;
            ranks[len - 1] = NONE;
            if at > 0 {
                ranks[at - 1] = self.rank(parts[at - 1], parts[at]);
            }
            if at + 1 < len {
                ranks[at] = self.rank(parts[at], parts[at + 1]);
            }
        }
        ids.extend_from_slice(&parts[..len]);
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Spreads the bits of a key; the upper ones are used.
fn spread(key: u64) -> u64 {
    (key ^ key >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Where a key is, or would be. The table is at most half full.
fn find(pairs: &[(u64, u32)], key: u64) -> usize {
    let mask = pairs.len() - 1;
    let mut place = (spread(key) >> 32) as usize & mask;
    while pairs[place].1 != NONE && pairs[place].0 != key {
        place = (place + 1) & mask;
    }
    place
}

/// Bytes of the longest word that is kept, and its ids at most: an entry is a cache line.
const KEPT_BYTES: usize = 22;
const KEPT_IDS: usize = 10;

/// Words kept by an encoder: 2 MiB.
const ENTRIES: usize = 1 << 15;

/// A word and its ids.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    ids: [u32; KEPT_IDS],
    word: [u8; KEPT_BYTES],
    len: u8,
    num_ids: u8,
}

/// What recent words became; a new one takes the place of an old one with the same hash.
#[derive(Debug)]
struct Cache(Box<[Entry]>);

impl Default for Cache {
    fn default() -> Self {
        let empty = Entry { ids: [0; KEPT_IDS], word: [0; KEPT_BYTES], len: 0, num_ids: 0 };
        Self(vec![empty; ENTRIES].into_boxed_slice())
    }
}

/// Caches that no encoder uses at the moment. Clones of a tokenizer share them.
#[derive(Clone, Debug, Default)]
struct Caches(Arc<Mutex<Vec<Cache>>>);

/// Encodes word after word.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    bpe: &'a Bpe,
    cache: Option<Cache>,
}

impl Encoder<'_> {
    /// Appends the ids of a word of 1 to [`MAX_WORD`] bytes.
    pub(crate) fn encode(&mut self, word: &[u8], ids: &mut Vec<u32>) {
        let Some(Cache(entries)) = self.cache.as_mut().filter(|_| word.len() <= KEPT_BYTES) else {
            return self.bpe.merge(word, ids);
        };
        let mut padded = [0; KEPT_BYTES];
        padded[..word.len()].copy_from_slice(word);
        let entry = &mut entries[place_of(&padded, word.len())];
        if usize::from(entry.len) == word.len() && entry.word == padded {
            ids.extend_from_slice(&entry.ids[..usize::from(entry.num_ids)]);
            return;
        }
        let from = ids.len();
        self.bpe.merge(word, ids);
        let found = &ids[from..];
        if found.len() <= KEPT_IDS {
            entry.ids[..found.len()].copy_from_slice(found);
            (entry.word, entry.len, entry.num_ids) = (padded, word.len() as u8, found.len() as u8);
        }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        let mut idle = self.bpe.caches.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.cache.take());
    }
}

fn place_of(padded: &[u8; KEPT_BYTES], len: usize) -> usize {
    let part = |from: usize| u64::from_le_bytes(std::array::from_fn(|i| padded[from + i]));
    let mixed =
        spread(part(0) ^ len as u64) ^ spread(part(8)).rotate_left(21) ^ spread(part(14)).rotate_left(42);
    (spread(mixed) >> 40) as usize % ENTRIES
}
