//! Spread of samples: the entropy of the distances between consecutive samples of a source.

use serde::Serialize;

/// Most bins of the histogram of distances.
const CLASSES: u64 = 256;

/// Spread of consecutive samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Entropy of the distances, in bits.
    pub entropy: f64,
    /// Entropy of as many samples in truly random order, in bits.
    pub entropy_of_true_shuffle: f64,
}

/// Meter of the distances between consecutive samples of a source.
#[derive(Debug)]
pub struct SpreadMeter {
    samples: u64,
    last: Option<u64>,
    distances: Vec<i64>,
}

impl SpreadMeter {
    /// Meter for a source of `samples` samples, 1 or more.
    pub fn new(samples: u64) -> Self {
        Self { samples: samples.max(1), last: None, distances: Vec::new() }
    }

    /// Records the next sample, by its position in the source.
    pub fn record(&mut self, sample: u64) {
        if let Some(last) = self.last.replace(sample) {
            self.distances.push(sample as i64 - last as i64);
        }
    }

    /// Entropies; 0 for fewer than two distances.
    pub fn done(self) -> Spread {
        let count = self.distances.len() as u64;
        if count < 2 {
            return Spread::default();
        }
        Spread {
            entropy: entropy(self.distances.iter().copied(), count, self.samples),
            entropy_of_true_shuffle: true_shuffle_entropy(count, self.samples),
        }
    }
}

/// Most samples of a source that the reference draws without replacement: with more, replacement makes no difference.
const MAX_EXACT_SAMPLES: u64 = 4096;

/// Reference entropy of `count` distances between samples in truly random order: each of the `samples` of a source once,
/// then each once again in another order.
pub fn true_shuffle_entropy(count: u64, samples: u64) -> f64 {
    let samples = samples.max(1);
    let mut draws = Xorshift64(0x9E37_79B9_7F4A_7C15);
    let (mut epoch, mut left) = ((0..samples.min(MAX_EXACT_SAMPLES)).collect::<Vec<_>>(), 0);
    let mut draw = move || {
        if samples > MAX_EXACT_SAMPLES {
            return draws.below(samples) as i64;
        }
        if left == 0 {
            left = epoch.len();
        }
        // Fisher-Yates shuffle, one step at a time.
        let drawn = draws.below(left as u64) as usize;
        left -= 1;
        epoch.swap(drawn, left);
        epoch[left] as i64
    };
    let mut last = draw();
    let distances = (0..count).map(move |_| {
        let next = draw();
        next - std::mem::replace(&mut last, next)
    });
    entropy(distances, count, samples)
}

/// Xorshift64*, the same on every machine.
struct Xorshift64(u64);

impl Xorshift64 {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(word) * u128::from(end)) >> 64) as u64
    }
}

/// Entropy of distances in `-extent..extent`, over equal bins that hold several distances each.
fn entropy(distances: impl Iterator<Item = i64>, count: u64, extent: u64) -> f64 {
    let classes = count.isqrt().clamp(2, CLASSES) as usize;
    let mut counts = vec![0u64; classes];
    for distance in distances {
        let shifted = (distance + extent as i64) as u128;
        let class = shifted * classes as u128 / (2 * u128::from(extent.max(1)));
        counts[(class as usize).min(classes - 1)] += 1;
    }
    let share = |number: &u64| *number as f64 / count as f64;
    counts.iter().filter(|number| **number > 0).map(|number| -share(number) * share(number).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Permutation;

    fn spread(len: u64, at: impl Fn(u64) -> u64) -> Spread {
        let mut meter = SpreadMeter::new(len);
        (0..len).for_each(|index| meter.record(at(index)));
        meter.done()
    }

    #[test]
    fn the_global_shuffle_is_as_good_as_a_true_one() {
        let permutation = Permutation::new(50_000, 1, "web", 0);
        let found = spread(50_000, |index| permutation.at(index));
        assert!((found.entropy / found.entropy_of_true_shuffle - 1.0).abs() < 0.01, "{found:?}");
    }

    /// Of two samples there are three distances, of which one is only between epochs.
    #[test]
    fn few_samples_have_the_entropy_that_few_can_have() {
        for samples in 1..=5u64 {
            let mut meter = SpreadMeter::new(samples);
            let orders: Vec<_> = (0..2000).map(|epoch| Permutation::new(samples, 1, "web", epoch)).collect();
            orders.iter().for_each(|order| (0..samples).for_each(|index| meter.record(order.at(index))));
            let found = meter.done();
            let most = ((2 * samples - 1) as f64).log2();
            assert!(found.entropy_of_true_shuffle <= most + 1e-9, "{samples}: {found:?}");
            assert!((found.entropy - found.entropy_of_true_shuffle).abs() < 0.05, "{samples}: {found:?}");
        }
    }

    #[test]
    fn no_shuffle_has_no_entropy() {
        assert!(spread(1000, |index| index).entropy < 0.02);
        assert_eq!(spread(2, |index| index), Spread::default());
    }
}
