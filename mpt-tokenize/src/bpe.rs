//! Byte-pair encoding of pre-tokens with a rank table and a word cache.
//!
//! The symbols of a word start as its bytes. The adjacent pair of lowest rank is merged, leftmost first, until no pair has a
//! rank.
//!
//! Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", algorithm 1.

use crate::word_cache::{CachePool, MAX_CACHED_BYTES, WordCache, hash};

/// Longest word in bytes that is encoded here: merging takes quadratic time.
pub(crate) const MAX_WORD_BYTES: usize = 64;

/// Rank of a pair that does not merge.
const NO_MERGE: u32 = u32::MAX;

/// BPE model: ids of the bytes and ranks of the merges.
#[derive(Clone, Debug)]
pub(crate) struct Bpe {
    /// Id of each byte; [`NO_MERGE`] for bytes that never occur in UTF-8.
    byte_ids: [u32; 256],
    /// Open-addressing hash table of pairs and their ranks; a rank of [`NO_MERGE`] is an empty slot.
    pairs: Box<[(u64, u32)]>,
    /// Id of the merged token, by rank.
    merged: Box<[u32]>,
    caches: CachePool,
}

impl Bpe {
    /// Model of `merges` in the order of ranks, each `[left, right, merged]` ids.
    ///
    /// `None` when two merges give the same id or repeat a pair: the `tokenizers` crate resolves these by its iteration
    /// order.
    pub(crate) fn new(byte_ids: [u32; 256], merges: &[[u32; 3]]) -> Option<Self> {
        let size = (2 * merges.len() + 1).next_power_of_two();
        let mut pairs = vec![(0, NO_MERGE); size].into_boxed_slice();
        let mut merged_ids = std::collections::HashSet::new();
        for (rank, &[left, right, merged]) in merges.iter().enumerate() {
            let key = pair_key(left, right);
            let slot = slot_of(&pairs, key);
            if pairs[slot].1 != NO_MERGE || !merged_ids.insert(merged) {
                return None;
            }
            pairs[slot] = (key, rank as u32);
        }
        let merged = merges.iter().map(|merge| merge[2]).collect();
        Some(Self { byte_ids, pairs, merged, caches: CachePool::default() })
    }

    /// Encoder with its own cache.
    pub(crate) fn encoder(&self) -> Encoder<'_> {
        Encoder { bpe: self, cache: Some(self.caches.take()) }
    }

    /// Rank of the merge of a pair, or [`NO_MERGE`].
    fn rank(&self, left: u32, right: u32) -> u32 {
        self.pairs[slot_of(&self.pairs, pair_key(left, right))].1
    }

    /// Appends the ids of a word of 1 to [`MAX_WORD_BYTES`] bytes.
    fn merge_word(&self, word: &[u8], ids: &mut Vec<u32>) {
        let mut symbols = [0; MAX_WORD_BYTES];
        let mut ranks = [NO_MERGE; MAX_WORD_BYTES]; // of each symbol and the next
        let mut len = word.len();
        for (symbol, &byte) in symbols.iter_mut().zip(word) {
            *symbol = self.byte_ids[usize::from(byte)];
        }
        for i in 1..len {
            ranks[i - 1] = self.rank(symbols[i - 1], symbols[i]);
        }
        loop {
            let lowest = ranks[..len - 1].iter().copied().min().unwrap_or(NO_MERGE);
            if lowest == NO_MERGE {
                break;
            }
            let at = ranks.iter().position(|&rank| rank == lowest).expect("it is one of them");
            symbols[at] = self.merged[lowest as usize];
            symbols.copy_within(at + 2..len, at + 1);
            ranks.copy_within(at + 1..len, at);
            len -= 1;
            ranks[len - 1] = NO_MERGE;
            if at > 0 {
                ranks[at - 1] = self.rank(symbols[at - 1], symbols[at]);
            }
            if at + 1 < len {
                ranks[at] = self.rank(symbols[at], symbols[at + 1]);
            }
        }
        ids.extend_from_slice(&symbols[..len]);
    }
}

/// Key of a pair of ids.
fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Slot of a key, or the empty slot for it. The table is at most half full.
fn slot_of(pairs: &[(u64, u32)], key: u64) -> usize {
    let mask = pairs.len() - 1;
    let mut slot = (hash(key) >> 32) as usize & mask;
    while pairs[slot].1 != NO_MERGE && pairs[slot].0 != key {
        slot = (slot + 1) & mask;
    }
    slot
}

/// Encoder of words, with a cache.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    bpe: &'a Bpe,
    /// `None` only after drop.
    cache: Option<WordCache>,
}

impl Encoder<'_> {
    /// Appends the ids of a word of 1 to [`MAX_WORD_BYTES`] bytes.
    pub(crate) fn encode(&mut self, word: &[u8], ids: &mut Vec<u32>) {
        match self.cache.as_mut().filter(|_| word.len() <= MAX_CACHED_BYTES) {
            Some(cache) => cache.get_or_encode(word, ids, |word, ids| self.bpe.merge_word(word, ids)),
            None => self.bpe.merge_word(word, ids),
        }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.take() {
            self.bpe.caches.put(cache);
        }
    }
}
