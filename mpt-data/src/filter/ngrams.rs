//! N-grams of words as 64-bit hashes, and a table that counts them. No n-gram is ever built as a text.
//!
//! Two different n-grams have the same hash with a probability of about 2⁻⁶³.

/// Base of the rolling hash: odd, and no power of it is near to 1, so each place in an n-gram has a factor of its own.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Prefix hashes of a text's words, from which the hash of any n-gram follows.
#[derive(Debug, Default)]
pub(crate) struct NgramHashes {
    /// Hash of the first `i` words, at `i`.
    prefixes: Vec<u64>,
    /// Characters of the first `i` words, at `i`.
    chars: Vec<u64>,
}

impl NgramHashes {
    /// Replaces the text by one with these hashes and lengths of words.
    pub(crate) fn reset(&mut self, words: impl Iterator<Item = (u64, u64)>) {
        self.prefixes.clear();
        self.chars.clear();
        let (mut prefix, mut chars) = (0u64, 0u64);
        self.prefixes.push(prefix);
        self.chars.push(chars);
        for (hash, length) in words {
            prefix = prefix.wrapping_mul(BASE).wrapping_add(hash);
            chars += length;
            self.prefixes.push(prefix);
            self.chars.push(chars);
        }
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.prefixes.len() - 1
    }

    /// Hashes of all n-grams, in order.
    pub(crate) fn hashes(&self, n: usize) -> impl Iterator<Item = u64> {
        let factor = BASE.wrapping_pow(n as u32);
        let run = move |(from, to): (&u64, &u64)| to.wrapping_sub(from.wrapping_mul(factor));
        self.prefixes.iter().zip(self.prefixes.iter().skip(n)).map(run)
    }

    /// Hash of the `n` words from `at`.
    pub(super) fn hash(&self, at: usize, n: usize) -> u64 {
        self.prefixes[at + n].wrapping_sub(self.prefixes[at].wrapping_mul(BASE.wrapping_pow(n as u32)))
    }

    /// Characters of the `n` words from `at`.
    pub(super) fn chars(&self, at: usize, n: usize) -> u64 {
        self.chars[at + n] - self.chars[at]
    }

    /// Characters of all words.
    pub(super) fn all_chars(&self) -> u64 {
        self.chars(0, self.len())
    }
}

/// Entry of a hash table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HashCount {
    hash: u64,
    /// Count of the hash.
    pub(super) count: u32,
    /// First place where the hash counts again.
    pub(super) next: u32,
}

/// Hash table of 64-bit hashes: open addressing, in memory that is reused for the next text.
#[derive(Debug, Default)]
pub(super) struct HashTable {
    slots: Vec<HashCount>,
    mask: usize,
}

impl HashTable {
    /// Empties the table, and makes room for `hashes` hashes.
    pub(super) fn reset(&mut self, hashes: usize) {
        let size = (hashes * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(size, HashCount::default());
        self.mask = size - 1;
    }

    /// Entry of a hash, which the caller counts; a new one has the count 0.
    pub(super) fn entry(&mut self, hash: u64) -> &mut HashCount {
        // The low bits of a product depend on the low bits of its factors alone: the high ones choose the slot.
        let mut slot = (hash.wrapping_mul(BASE) >> 20) as usize & self.mask;
        while self.slots[slot].count > 0 && self.slots[slot].hash != hash {
            slot = (slot + 1) & self.mask;
        }
        let seen = &mut self.slots[slot];
        seen.hash = hash;
        seen
    }

    /// Inserts a hash, and returns whether it was new.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        let seen = self.entry(hash);
        seen.count += 1;
        seen.count == 1
    }
}

/// 64-bit finalizer of MurmurHash3.
pub(crate) fn fmix64(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_equal_where_their_words_are(words in prop::collection::vec(0u64..4, 0..40), n in 1usize..6) {
            let mut ngrams = NgramHashes::default();
            ngrams.reset(words.iter().map(|&word| (fmix64(word + 1), word)));
            let hashes: Vec<_> = ngrams.hashes(n).collect();
            let windows: Vec<_> = words.windows(n).collect();
            prop_assert_eq!(hashes.len(), windows.len());
            for (i, a) in windows.iter().enumerate() {
                prop_assert_eq!(hashes[i], ngrams.hash(i, n));
                prop_assert_eq!(ngrams.chars(i, n), a.iter().sum::<u64>());
                for (j, b) in windows.iter().enumerate() {
                    prop_assert_eq!(a == b, hashes[i] == hashes[j]);
                }
            }
        }

        #[test]
        fn the_table_counts_as_a_map_does(hashes in prop::collection::vec(0u64..50, 0..200)) {
            let (mut table, mut map) = (HashTable::default(), HashMap::new());
            for _ in 0..2 {
                table.reset(hashes.len());
                map.clear();
                for &hash in &hashes {
                    prop_assert_eq!(table.insert(hash), map.insert(hash, ()).is_none());
                }
            }
        }
    }
}
