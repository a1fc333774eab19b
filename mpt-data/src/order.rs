//! The order of training as pure functions of the sample index: which source, which epoch, which place in it.
//!
//! Nothing here depends on threads, ranks, batch sizes or how often a run was stopped, and nothing has to be made or kept
//! for it: a run resumes at any sample because a sample's index is all there is to know.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};

/// Proportions are shares of this: nine decimal digits count.
const UNIT: f64 = 1e9;
/// The longest period of a mix: its tables are built at start and held in memory.
const MAX_PERIOD: u64 = 1 << 20;

/// How samples are shared out between sources: exact at every moment, and a table look-up.
///
/// With weights `a_s` that sum to the period `B`, after any number `n` of samples every source has been drawn more than
/// `a_s·n/B − 1` and fewer than `a_s·n/B + 1` times. Within a period the sources take turns by Tijdeman's chairman
/// assignment, which keeps that bound for any weights; after a period all counts are exact and the pattern repeats.
///
/// Proportions are read to nine decimal digits and reduced. Should their common denominator exceed 2^20, they are rounded
/// to multiples of 2^-20 by largest remainder, none below one multiple: an error of 10^-6 at most in a proportion.
///
/// Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    weights: Vec<u64>,
    source: Vec<u16>,
    rank: Vec<u32>,
}

impl Mix {
    /// The mix with these proportions, which should sum to 1; they are used in proportion to each other.
    ///
    /// # Errors
    /// [`Error::Loader`] when there are none, more than 65,535, or one is not positive and finite.
    pub fn new(proportions: &[f64]) -> Result<Self> {
        let weights = integer_weights(proportions)?;
        let (source, rank) = chairmen(&weights);
        Ok(Self { weights, source, rank })
    }

    /// Samples after which every source has been drawn exactly its share.
    pub fn period(&self) -> u64 {
        self.source.len() as u64
    }

    /// How often each source is drawn in a period.
    pub fn weights(&self) -> &[u64] {
        &self.weights
    }

    /// The source of sample `index`, and how many samples before it were of the same source.
    pub fn at(&self, index: u64) -> (usize, u64) {
        let place = (index % self.period()) as usize;
        let source = usize::from(self.source[place]);
        (source, index / self.period() * self.weights[source] + u64::from(self.rank[place]))
    }

    /// How many of the first `samples` samples are of each source.
    pub fn counts(&self, samples: u64) -> Vec<u64> {
        let mut counts: Vec<_> = self.weights.iter().map(|weight| samples / self.period() * weight).collect();
        for &source in &self.source[..(samples % self.period()) as usize] {
            counts[usize::from(source)] += 1;
        }
        counts
    }
}

/// A permutation of `0..len`, different for every seed, name and epoch, evaluated at a point without being made.
///
/// A keyed Feistel network over the next even power of two, walked until it lands inside `0..len` (four steps on average
/// at worst). Eight rounds; the round function is a 64-bit finalizer with full avalanche.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 8;

impl Permutation {
    /// The permutation of `0..len` that belongs to a source in an epoch.
    ///
    /// # Panics
    /// When `len` is 0: nothing cannot be permuted.
    pub fn new(len: u64, seed: u64, name: &str, epoch: u64) -> Self {
        assert!(len > 0, "a permutation has something to permute");
        let bits = (u64::BITS - (len - 1).leading_zeros()).max(2);
        let source = xxh3_64_with_seed(name.as_bytes(), seed);
        let base = mix(source ^ mix(epoch.wrapping_add(GOLDEN)));
        let keys = std::array::from_fn(|round| mix(base.wrapping_add(GOLDEN.wrapping_mul(round as u64 + 1))));
        Self { len, half_bits: bits.div_ceil(2), keys }
    }

    /// Where `index` goes.
    ///
    /// # Panics
    /// When `index` is not below the length.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} of a permutation of {}", self.len);
        let mut place = self.network(index);
        while place >= self.len {
            place = self.network(place);
        }
        place
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// Where a sample comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The source.
    pub source: usize,
    /// How often the source was gone through before.
    pub epoch: u64,
    /// The sample's place in the source, in the order of the shards.
    pub position: u64,
}

/// The order of a whole training run: the mix of sources, and a permutation per source and epoch.
#[derive(Debug, Clone)]
pub struct Order {
    mix: Mix,
    names: Vec<String>,
    samples: Vec<u64>,
    seed: u64,
    /// The last permutation used per source: it holds for a whole epoch.
    current: Vec<Option<(u64, Permutation)>>,
}

impl Order {
    /// The order of sources with these names, each with so many samples (1 or more).
    ///
    /// # Panics
    /// When the lengths disagree or a source has no samples: the loader refuses those by name.
    pub fn new(mix: Mix, names: Vec<String>, samples: Vec<u64>, seed: u64) -> Self {
        assert!(
            mix.weights.len() == names.len() && names.len() == samples.len(),
            "a name and a size per source"
        );
        assert!(samples.iter().all(|&count| count > 0), "every source has samples");
        let current = vec![None; names.len()];
        Self { mix, names, samples, seed, current }
    }

    /// The place of a sample. The same for the same arguments, whatever was asked before.
    pub fn locate(&mut self, index: u64) -> Place {
        let (source, ordinal) = self.mix.at(index);
        let count = self.samples[source];
        let epoch = ordinal / count;
        let permutation = match &mut self.current[source] {
            Some((held, permutation)) if *held == epoch => permutation,
            slot => {
                let made = Permutation::new(count, self.seed, &self.names[source], epoch);
                &mut slot.insert((epoch, made)).1
            }
        };
        Place { source, epoch, position: permutation.at(ordinal % count) }
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64, twice over a constant: every input bit flips every output bit half of the time.
fn mix(value: u64) -> u64 {
    let mut x = value.wrapping_add(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Proportions as the smallest integers in the same ratio.
fn integer_weights(proportions: &[f64]) -> Result<Vec<u64>> {
    let wrong = |actual: String, expected: &str| Error::Loader {
        field: "proportion",
        actual,
        expected: expected.into(),
    };
    if proportions.is_empty() || proportions.len() > usize::from(u16::MAX) {
        return Err(wrong(format!("a list of {}", proportions.len()), "1 to 65535 sources"));
    }
    if let Some(share) = proportions.iter().find(|share| !(1.0 / UNIT..=1.0).contains(*share)) {
        return Err(wrong(share.to_string(), "a share from 0.000000001 to 1"));
    }
    let weights: Vec<_> = proportions.iter().map(|share| (share * UNIT).round() as u64).collect();
    let divisor = weights.iter().copied().fold(0, gcd);
    let weights: Vec<_> = weights.into_iter().map(|weight| weight / divisor).collect();
    if weights.iter().sum::<u64>() <= MAX_PERIOD { Ok(weights) } else { Ok(requantize(&weights)) }
}

/// The nearest weights that sum to [`MAX_PERIOD`], by largest remainder; ties go to the earlier source.
fn requantize(weights: &[u64]) -> Vec<u64> {
    let sum = u128::from(weights.iter().sum::<u64>());
    let scaled = |weight: u64| u128::from(weight) * u128::from(MAX_PERIOD);
    let mut rounded: Vec<_> = weights.iter().map(|&weight| ((scaled(weight) / sum) as u64).max(1)).collect();
    let mut order: Vec<_> = (0..weights.len()).collect();
    order.sort_by_key(|&index| (Reverse(scaled(weights[index]) % sum), index));
    let mut given: u64 = rounded.iter().sum();
    let missing = MAX_PERIOD.saturating_sub(given);
    for &index in order.iter().cycle().take(missing as usize) {
        rounded[index] += 1;
    }
    given += missing;
    // Raising shares to one multiple may have given out too much: the largest share pays.
    let largest =
        (0..rounded.len()).max_by_key(|&index| (rounded[index], Reverse(index))).expect("there is a source");
    rounded[largest] -= given - MAX_PERIOD;
    let divisor = rounded.iter().copied().fold(0, gcd);
    rounded.into_iter().map(|weight| weight / divisor).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Draw number `count` of a source: from when it may happen, and by when it must.
///
/// With `k` sources and weights `a` of sum `B`, it may happen at the first `n` (from 1) where `(2k−2)(a·n − count·B) ≥ B`,
/// and of those that may, the one with the least `((2k−3) + count·(2k−2)) / a` must be next.
#[derive(Debug, PartialEq, Eq)]
struct Draw {
    deadline: u128,
    weight: u64,
    source: usize,
    count: u64,
}

impl Ord for Draw {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = self.deadline * u128::from(other.weight);
        let right = other.deadline * u128::from(self.weight);
        left.cmp(&right).then(self.source.cmp(&other.source))
    }
}

impl PartialOrd for Draw {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One period of the mix: the source of each sample, and its rank among the samples of that source.
fn chairmen(weights: &[u64]) -> (Vec<u16>, Vec<u32>) {
    let period: u64 = weights.iter().sum();
    let slack = (2 * weights.len() as u64).saturating_sub(2).max(1);
    let release = |source: usize, count: u64| {
        let owed = u128::from(period) * (1 + u128::from(slack) * u128::from(count));
        owed.div_ceil(u128::from(slack) * u128::from(weights[source])) as u64
    };
    let draw = |source: usize, count: u64| {
        let deadline = u128::from(slack - 1) + u128::from(count) * u128::from(slack);
        Draw { deadline, weight: weights[source], source, count }
    };
    let mut waiting: BinaryHeap<_> = (0..weights.len()).map(|s| Reverse((release(s, 0), s, 0))).collect();
    let mut ready: BinaryHeap<Reverse<Draw>> = BinaryHeap::new();
    let (mut sources, mut ranks) = (Vec::new(), Vec::new());
    for now in 1..=period {
        while let Some(&Reverse((from, source, count))) = waiting.peek().filter(|next| next.0.0 <= now) {
            debug_assert!(from <= now);
            waiting.pop();
            ready.push(Reverse(draw(source, count)));
        }
        let Reverse(next) = ready.pop().expect("Tijdeman's theorem: some source is due at every sample");
        sources.push(next.source as u16);
        ranks.push(next.count as u32);
        waiting.push(Reverse((release(next.source, next.count + 1), next.source, next.count + 1)));
    }
    (sources, ranks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The proportions of the MPT-30B pre-training mix.
    const CARD: [f64; 10] = [0.335, 0.299, 0.085, 0.1, 0.04, 0.045, 0.033, 0.03, 0.019, 0.014];

    /// Every prefix of one period and a bit, against the bound.
    fn assert_exact(mix: &Mix) {
        let period = i128::from(mix.period());
        let mut counts = vec![0i128; mix.weights().len()];
        for n in 1..=period + 7 {
            let (source, ordinal) = mix.at(n as u64 - 1);
            assert_eq!(i128::from(ordinal), counts[source], "samples of a source are numbered without gaps");
            counts[source] += 1;
            for (count, &weight) in counts.iter().zip(mix.weights()) {
                let error = count * period - i128::from(weight) * n;
                assert!(error.abs() < period, "after {n} samples of {:?}: {counts:?}", mix.weights());
            }
        }
    }

    #[test]
    fn the_card_mix_is_exact_at_every_prefix() {
        let mix = Mix::new(&CARD).expect("sound");
        assert_eq!(mix.period(), 1000);
        assert_eq!(mix.weights(), [335, 299, 85, 100, 40, 45, 33, 30, 19, 14]);
        assert_exact(&mix);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_mix_is_exact_at_every_prefix(raw in prop::collection::vec(1u32..2000, 1..14)) {
            let sum: u32 = raw.iter().sum();
            let mix = Mix::new(&raw.iter().map(|&w| f64::from(w) / f64::from(sum)).collect::<Vec<_>>()).expect("sound");
            prop_assert!(mix.period() <= MAX_PERIOD);
            // A long period is checked in part: the bound does not depend on where one stops.
            if mix.period() < 30_000 {
                assert_exact(&mix);
            }
            let n = mix.period() * 5 / 3;
            let mut counts = vec![0; raw.len()];
            (0..n).for_each(|index| counts[mix.at(index).0] += 1);
            prop_assert_eq!(counts, mix.counts(n));
        }

        #[test]
        fn small_weights_are_exact_at_every_prefix(raw in prop::collection::vec(1u64..30, 1..9)) {
            let (source, rank) = chairmen(&raw);
            assert_exact(&Mix { weights: raw, source, rank });
        }

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
            prop_assert!(met.iter().all(|&place| place < len));
            met.sort_unstable();
            met.dedup();
            prop_assert_eq!(met.len(), 2000);
        }
    }

    #[test]
    fn every_small_permutation_is_one() {
        for len in 1..=300 {
            let permutation = Permutation::new(len, 1, "x", 2);
            let mut met: Vec<_> = (0..len).map(|index| permutation.at(index)).collect();
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

    /// This order is that of every run ever started: changing it silently changes what a resumed run sees.
    #[test]
    fn the_order_is_pinned_for_ever() {
        let names = ["web", "code", "wiki"].map(str::to_owned).to_vec();
        let mut order = Order::new(Mix::new(&[0.5, 0.3, 0.2]).expect("sound"), names, vec![1000, 7, 3], 17);
        let found: Vec<_> =
            (0..10).map(|index| order.locate(index)).map(|p| (p.source, p.epoch, p.position)).collect();
        assert_eq!(found, PINNED);
        let far = order.locate(1 << 40);
        assert_eq!((far.source, far.epoch, far.position), PINNED_FAR);
    }

    const PINNED: [(usize, u64, u64); 10] = [
        (0, 0, 758),
        (1, 0, 3),
        (0, 0, 8),
        (2, 0, 2),
        (0, 0, 896),
        (1, 0, 4),
        (0, 0, 807),
        (2, 0, 1),
        (1, 0, 2),
        (0, 0, 551),
    ];
    const PINNED_FAR: (usize, u64, u64) = (0, 549_755_813, 748);

    #[test]
    fn long_denominators_are_rounded_and_stay_near() {
        let shares = [0.123456789, 0.000001, 0.876542211];
        let mix = Mix::new(&shares).expect("sound");
        assert!(mix.period() <= MAX_PERIOD);
        for (weight, share) in mix.weights().iter().zip(shares) {
            assert!((*weight as f64 / mix.period() as f64 - share).abs() < 1e-6);
        }
        let many: Vec<_> = (0..1000).map(|index| if index == 0 { 0.999_001 } else { 1e-6 }).collect();
        let mix = Mix::new(&many).expect("sound");
        assert_eq!(mix.weights().iter().sum::<u64>(), mix.period());
        assert!(mix.weights().iter().all(|&weight| weight > 0));
    }

    #[test]
    fn impossible_mixes_are_refused() {
        for shares in [&[][..], &[0.0, 1.0], &[f64::NAN], &[-0.1, 1.1]] {
            assert!(Mix::new(shares).is_err(), "{shares:?}");
        }
    }

    #[test]
    fn thirds_take_turns() {
        let mix = Mix::new(&[0.333333333, 0.333333333, 0.333333333]).expect("sound");
        assert_eq!(mix.period(), 3);
        assert_eq!(mix.counts(301).iter().sum::<u64>(), 301);
    }
}
