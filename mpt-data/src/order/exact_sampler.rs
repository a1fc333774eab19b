//! Sampler with exact shares: after any number of samples, every source is within one sample of its share.

use std::cmp::Reverse;

use super::tijdeman::tijdeman_schedule;
use crate::error::{Error, Result};

/// Resolution of proportions: nine decimal digits.
const UNIT: f64 = 1e9;
/// Longest period of a sampler, whose tables are built at start and held in memory.
pub(super) const MAX_PERIOD: u64 = 1 << 20;

/// Sources of samples with exact shares at every moment, by table look-up.
///
/// With weights `a_s` that sum to the period `B`, after any number `n` of samples every source has been drawn more than
/// `a_s·n/B − 1` and fewer than `a_s·n/B + 1` times. Within a period the sources take turns by Tijdeman's chairman
/// assignment, which keeps that bound for any weights. After a period all counts are exact and the pattern repeats.
///
/// Proportions are read to nine decimal digits and reduced. A common denominator above 2^20 is rounded: shares become
/// multiples of 2^-20 by largest remainder, none below one multiple, an error of 10^-6 at most in a proportion.
///
/// Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactSampler {
    weights: Vec<u64>,
    source: Vec<u16>,
    rank: Vec<u32>,
}

impl ExactSampler {
    /// Sampler with these proportions, which should sum to 1 and are used in proportion to each other.
    ///
    /// # Errors
    /// [`Error::Loader`] when there are none, more than 65,535, or one is not positive and finite.
    pub fn new(proportions: &[f64]) -> Result<Self> {
        Ok(Self::from_weights(weights_from_proportions(proportions)?))
    }

    /// Sampler with these weights, each 1 or more; reduced and perhaps rounded, as proportions are.
    pub(super) fn from_weights(weights: Vec<u64>) -> Self {
        let weights = reduce(weights);
        Self::with_period_counts(if weights.iter().sum::<u64>() <= MAX_PERIOD {
            weights
        } else {
            requantize(&weights)
        })
    }

    /// Sampler whose period has exactly these counts, in sum [`MAX_PERIOD`] at most.
    pub(super) fn with_period_counts(weights: Vec<u64>) -> Self {
        let (source, rank) = tijdeman_schedule(&weights);
        Self { weights, source, rank }
    }

    /// Samples in a period, after which every source has exactly its share.
    pub fn period(&self) -> u64 {
        self.source.len() as u64
    }

    /// Samples of each source in a period.
    pub fn weights(&self) -> &[u64] {
        &self.weights
    }

    /// Source of sample `index`, and the number of earlier samples of that source.
    pub fn at(&self, index: u64) -> (usize, u64) {
        let slot = (index % self.period()) as usize;
        let source = usize::from(self.source[slot]);
        (source, index / self.period() * self.weights[source] + u64::from(self.rank[slot]))
    }

    /// Counts by source over the first `samples` samples.
    pub fn counts(&self, samples: u64) -> Vec<u64> {
        let mut counts: Vec<_> = self.weights.iter().map(|weight| samples / self.period() * weight).collect();
        for &source in &self.source[..(samples % self.period()) as usize] {
            counts[usize::from(source)] += 1;
        }
        counts
    }
}

/// Smallest integers in the ratio of the proportions, to nine decimal digits.
pub(super) fn weights_from_proportions(proportions: &[f64]) -> Result<Vec<u64>> {
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
    Ok(reduce(proportions.iter().map(|share| (share * UNIT).round() as u64).collect()))
}

fn reduce(weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd);
    weights.into_iter().map(|weight| weight / divisor).collect()
}

/// Counts in the ratio of the weights that sum to `total`, by largest remainder; ties go to the earlier source.
pub(super) fn apportion(weights: &[u64], total: u64) -> Vec<u64> {
    let sum: u128 = weights.iter().copied().map(u128::from).sum();
    let scaled = |weight: u64| u128::from(weight) * u128::from(total);
    let mut counts: Vec<_> = weights.iter().map(|&weight| (scaled(weight) / sum) as u64).collect();
    let mut by_remainder: Vec<_> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&index| (Reverse(scaled(weights[index]) % sum), index));
    let missing = total - counts.iter().sum::<u64>();
    for &index in by_remainder.iter().take(missing as usize) {
        counts[index] += 1;
    }
    counts
}

/// Nearest weights that sum to [`MAX_PERIOD`], none below 1; the largest share gives what the others gain.
fn requantize(weights: &[u64]) -> Vec<u64> {
    let mut rounded: Vec<_> =
        apportion(weights, MAX_PERIOD).into_iter().map(|weight| weight.max(1)).collect();
    let given: u64 = rounded.iter().sum();
    let largest =
        (0..rounded.len()).max_by_key(|&index| (rounded[index], Reverse(index))).expect("there is a source");
    rounded[largest] -= given - MAX_PERIOD;
    reduce(rounded)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The proportions of the MPT-30B pre-training mix.
    const CARD: [f64; 10] = [0.335, 0.299, 0.085, 0.1, 0.04, 0.045, 0.033, 0.03, 0.019, 0.014];

    /// Every prefix of one period and a bit, against the bound.
    fn assert_exact(mix: &ExactSampler) {
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
        let mix = ExactSampler::new(&CARD).expect("sound");
        assert_eq!(mix.period(), 1000);
        assert_eq!(mix.weights(), [335, 299, 85, 100, 40, 45, 33, 30, 19, 14]);
        assert_exact(&mix);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_mix_is_exact_at_every_prefix(raw in prop::collection::vec(1u32..2000, 1..14)) {
            let sum: u32 = raw.iter().sum();
            let mix = ExactSampler::new(&raw.iter().map(|&w| f64::from(w) / f64::from(sum)).collect::<Vec<_>>()).expect("sound");
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
            assert_exact(&ExactSampler::with_period_counts(raw));
        }
    }

    #[test]
    fn long_denominators_are_rounded_and_stay_near() {
        let shares = [0.123456789, 0.000001, 0.876542211];
        let mix = ExactSampler::new(&shares).expect("sound");
        assert!(mix.period() <= MAX_PERIOD);
        for (weight, share) in mix.weights().iter().zip(shares) {
            assert!((*weight as f64 / mix.period() as f64 - share).abs() < 1e-6);
        }
        let many: Vec<_> = (0..1000).map(|index| if index == 0 { 0.999_001 } else { 1e-6 }).collect();
        let mix = ExactSampler::new(&many).expect("sound");
        assert_eq!(mix.weights().iter().sum::<u64>(), mix.period());
        assert!(mix.weights().iter().all(|&weight| weight > 0));
    }

    #[test]
    fn impossible_mixes_are_refused() {
        for shares in [&[][..], &[0.0, 1.0], &[f64::NAN], &[-0.1, 1.1]] {
            assert!(ExactSampler::new(shares).is_err(), "{shares:?}");
        }
    }

    #[test]
    fn thirds_take_turns() {
        let mix = ExactSampler::new(&[0.333333333, 0.333333333, 0.333333333]).expect("sound");
        assert_eq!(mix.period(), 3);
        assert_eq!(mix.counts(301).iter().sum::<u64>(), 301);
    }
}
