//! Keyed permutations of a range, evaluated at a point in either direction without a table.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Permutation of `0..len`, different for every seed, name and epoch, evaluated at a point without a table.
///
/// Keyed Feistel network over the next even power of two, with cycle walking until the result is below `len`: four steps on
/// average at worst. Eight rounds; the round function is a 64-bit finalizer with full avalanche.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 8;

impl Permutation {
    /// Permutation of `0..len` of a source in an epoch.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn new(len: u64, seed: u64, name: &str, epoch: u64) -> Self {
        Self::from_key(len, epoch_key(seed, name, epoch))
    }

    /// Permutation of `0..len` of a key.
    pub(super) fn from_key(len: u64, key: u64) -> Self {
        assert!(len > 0, "a permutation has something to permute");
        let bits = (u64::BITS - (len - 1).leading_zeros()).max(2);
        let keys =
            std::array::from_fn(|round| mix64(key.wrapping_add(GOLDEN.wrapping_mul(round as u64 + 1))));
        Self { len, half_bits: bits.div_ceil(2), keys }
    }

    /// Position that `index` maps to.
    ///
    /// # Panics
    /// When `index` is not below the length.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} of a permutation of {}", self.len);
        let mut position = self.network(index);
        while position >= self.len {
            position = self.network(position);
        }
        position
    }

    /// Index that maps to `position`.
    ///
    /// # Panics
    /// When `position` is not below the length.
    pub fn inverse(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of a permutation of {}", self.len);
        let mut index = self.network_back(position);
        while index >= self.len {
            index = self.network_back(index);
        }
        index
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix64(right ^ key) & mask));
        }
        left << self.half_bits | right
    }

    fn network_back(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ (mix64(left ^ key) & mask), left);
        }
        left << self.half_bits | right
    }
}

/// Key of a source in an epoch.
pub(super) fn epoch_key(seed: u64, name: &str, epoch: u64) -> u64 {
    mix64(xxh3_64_with_seed(name.as_bytes(), seed) ^ mix64(epoch.wrapping_add(GOLDEN)))
}

/// 2^64 over the golden ratio: the increment of SplitMix64.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Finalizer of SplitMix64 after one increment: every input bit flips every output bit with probability one half.
pub(super) fn mix64(value: u64) -> u64 {
    let mut x = value.wrapping_add(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_permutation_meets_every_index_once(len in 1u64..4097, seed: u64, epoch in 0u64..1000) {
            let permutation = Permutation::new(len, seed, "web", epoch);
            let mut seen = vec![false; len as usize];
            (0..len).for_each(|index| seen[permutation.at(index) as usize] = true);
            prop_assert!(seen.iter().all(|&met| met));
        }

        #[test]
        fn large_permutations_do_not_collide(len in (1u64 << 33)..(1 << 40), seed: u64) {
            let permutation = Permutation::new(len, seed, "web", 0);
            let mut met: Vec<_> = (0..2000).map(|i| permutation.at(i * (len / 2000))).collect();
            prop_assert!(met.iter().all(|&position| position < len));
            prop_assert!((0..2000).all(|i| permutation.inverse(met[i as usize]) == i * (len / 2000)));
            met.sort_unstable();
            met.dedup();
            prop_assert_eq!(met.len(), 2000);
        }
    }

    /// Every length up to 4096 (the larger ones in steps), both ways.
    #[test]
    fn every_small_permutation_is_one() {
        for len in (1..=300).chain((301..4096).step_by(61)).chain([4095, 4096]) {
            let permutation = Permutation::new(len, 1, "x", 2);
            let mut met: Vec<_> = (0..len).map(|index| permutation.at(index)).collect();
            assert!(
                met.iter().zip(0..).all(|(&position, index)| permutation.inverse(position) == index),
                "{len}"
            );
            met.sort_unstable();
            assert!(met.iter().copied().eq(0..len), "{len}");
        }
    }

    #[test]
    fn seeds_names_and_epochs_give_other_orders() {
        let list = |seed, name, epoch| {
            let permutation = Permutation::new(1000, seed, name, epoch);
            (0..1000).map(|index| permutation.at(index)).collect::<Vec<_>>()
        };
        let base = list(1, "web", 0);
        for other in [list(2, "web", 0), list(1, "code", 0), list(1, "web", 1)] {
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of 1000 places are the same, about 1 is expected");
        }
    }

    /// Distances between neighbors are spread as in a true shuffle: the mean of |a − b| is a third of the length.
    #[test]
    fn neighbors_land_far_apart() {
        let len = 100_000u64;
        let permutation = Permutation::new(len, 5, "web", 3);
        let far: u64 = (1..len).map(|index| permutation.at(index).abs_diff(permutation.at(index - 1))).sum();
        let mean = far as f64 / len as f64;
        assert!((mean / len as f64 - 1.0 / 3.0).abs() < 0.005, "{mean}");
    }
}
