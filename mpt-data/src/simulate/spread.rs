//! How well samples are spread: the entropy of the distances between one sample of a source and the next.

use serde::Serialize;

/// Classes that distances are counted in, at most.
const CLASSES: u64 = 256;

/// How far apart samples after one another lie.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Entropy of the distances, in bits.
    pub entropy: f64,
    /// The same of as many samples in truly random order.
    pub entropy_of_true_shuffle: f64,
}

/// Counts the distances between samples of a source.
#[derive(Debug)]
pub struct SpreadMeter {
    extent: u64,
    last: Option<u64>,
    distances: Vec<i64>,
}

impl SpreadMeter {
    /// For a source whose samples lie in `0..extent`.
    pub fn new(extent: u64) -> Self {
        Self { extent, last: None, distances: Vec::new() }
    }

    /// Counts the distance from the sample before to this one.
    pub fn see(&mut self, at: u64) {
        if let Some(last) = self.last.replace(at) {
            self.distances.push(at as i64 - last as i64);
        }
    }

    /// The entropies; of fewer than two distances both are 0.
    pub fn done(self) -> Spread {
        let count = self.distances.len() as u64;
        if count < 2 {
            return Spread::default();
        }
        Spread {
            entropy: entropy(self.distances.iter().copied(), count, self.extent),
            entropy_of_true_shuffle: true_shuffle_entropy(count, self.extent),
        }
    }
}

/// The entropy of `count` distances between places in `0..extent` that follow each other at random.
pub fn true_shuffle_entropy(count: u64, extent: u64) -> f64 {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut place = move || {
        // Xorshift64*: nothing but a yardstick, the same on every machine.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(word) * u128::from(extent)) >> 64) as i64
    };
    let mut last = place();
    let distances = (0..count).map(move |_| {
        let next = place();
        next - std::mem::replace(&mut last, next)
    });
    entropy(distances, count, extent)
}

/// The entropy of distances in `-extent..extent`, counted in equal classes: so few that each holds several.
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
        (0..len).for_each(|index| meter.see(at(index)));
        meter.done()
    }

    #[test]
    fn the_global_shuffle_is_as_good_as_a_true_one() {
        let permutation = Permutation::new(50_000, 1, "web", 0);
        let found = spread(50_000, |index| permutation.at(index));
        assert!((found.entropy / found.entropy_of_true_shuffle - 1.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn no_shuffle_has_no_entropy() {
        assert!(spread(1000, |index| index).entropy < 0.02);
        assert_eq!(spread(2, |index| index), Spread::default());
    }
}
