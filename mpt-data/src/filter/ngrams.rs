//! Runs of words as 64-bit hashes, and the table that counts them: no run is ever built as a text.
//!
//! Two different runs have the same hash with a probability of about 2⁻⁶³.

/// Odd, and no power of it is near to 1: each place in a run has a factor of its own.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// The words of a text as hashes, such that the hash of every run of them is at hand.
#[derive(Debug, Default)]
pub(crate) struct NgramHashes {
    /// At `i` the hash of the first `i` words.
    prefixes: Vec<u64>,
    /// At `i` the characters of the first `i` words.
    chars: Vec<u64>,
}

impl NgramHashes {
    /// Takes the hashes and lengths of the words of another text.
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

    /// Words there are.
    pub(super) fn len(&self) -> usize {
        self.prefixes.len() - 1
    }

    /// The hashes of all runs of `n` words, in order.
    pub(crate) fn hashes(&self, n: usize) -> impl Iterator<Item = u64> {
        let factor = BASE.wrapping_pow(n as u32);
        let run = move |(from, to): (&u64, &u64)| to.wrapping_sub(from.wrapping_mul(factor));
        self.prefixes.iter().zip(self.prefixes.iter().skip(n)).map(run)
    }

    /// The hash of the `n` words from `at`.
    pub(super) fn hash(&self, at: usize, n: usize) -> u64 {
        self.prefixes[at + n].wrapping_sub(self.prefixes[at].wrapping_mul(BASE.wrapping_pow(n as u32)))
    }

    /// The characters of the `n` words from `at`.
    pub(super) fn chars(&self, at: usize, n: usize) -> u64 {
        self.chars[at + n] - self.chars[at]
    }

    /// The characters of all words.
    pub(super) fn all_chars(&self) -> u64 {
        self.chars(0, self.len())
    }
}

/// What is known of one hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HashCount {
    hash: u64,
    /// How often it was counted.
    pub(super) count: u32,
    /// The first place where it can be counted again.
    pub(super) next: u32,
}

/// A hash table of 64-bit hashes: open addressing over memory that is kept from text to text.
#[derive(Debug, Default)]
pub(super) struct HashTable {
    slots: Vec<HashCount>,
    mask: usize,
}

impl HashTable {
    /// Forgets everything, and makes room for so many hashes.
    pub(super) fn reset(&mut self, hashes: usize) {
        let size = (hashes * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(size, HashCount::default());
        self.mask = size - 1;
    }

    /// The entry of a hash; of one not seen before the count is 0, and the caller counts it.
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

    /// Whether a hash is new; from now on it is not.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        let seen = self.entry(hash);
        seen.count += 1;
        seen.count == 1
    }
}

/// Spreads the bits of a number evenly.
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
            let mut runs = NgramHashes::default();
            runs.reset(words.iter().map(|&word| (fmix64(word + 1), word)));
            let hashes: Vec<_> = runs.hashes(n).collect();
            let windows: Vec<_> = words.windows(n).collect();
            prop_assert_eq!(hashes.len(), windows.len());
            for (i, a) in windows.iter().enumerate() {
                prop_assert_eq!(hashes[i], runs.hash(i, n));
                prop_assert_eq!(runs.chars(i, n), a.iter().sum::<u64>());
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
