//! Counter-based random number generator: a value is a pure function of seed, stream and index.
//!
//! Initial values, dropout and sampling therefore do not depend on threads or on earlier draws.

/// Counter-based generator of one stream.
///
/// Source: the SplitMix64 finalizer over a keyed counter (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct CounterRng {
    key: u64,
    index: u64,
}

impl CounterRng {
    /// Generator of `stream` under `seed`, at index 0.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ stream), index: 0 }
    }

    /// Generator of the stream `name` under `seed`, at index 0.
    pub fn named(seed: u64, name: &str) -> Self {
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)));
        Self::new(seed, stream)
    }

    /// Moves to `index`, which the next draw uses.
    pub fn seek(&mut self, index: u64) {
        self.index = index;
    }

    /// 64 random bits of `index`, independent of the current index.
    pub fn at(mut self, index: u64) -> u64 {
        self.seek(index);
        self.bits()
    }

    /// Next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.index = self.index.wrapping_add(1);
        mix(self.key.wrapping_add(self.index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform number in [0, 1), 24 random bits.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform number in [0, 1), 53 random bits.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal number.
    ///
    /// Source: Box and Muller 1958; one of the pair is used.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform_f64()).cos()) as f32
    }
}

/// Dropout at one site of a training step. The mask is a function of seed, site and position, so recomputation replays it.
///
/// Source: Srivastava et al. 2014; kept elements are scaled by `1 / (1 - rate)`, as in torch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of a zero, below 1.
    pub rate: f64,
    /// Seed of the step.
    pub seed: u64,
    /// Index of the site in the model.
    pub site: u64,
    /// Position of the first element in the whole batch: microbatches drop the same elements as the batch.
    pub first: u64,
}

impl Dropout {
    /// Factors of the elements from `from`: 0 or `1 / (1 - rate)`.
    pub(crate) fn factors(self, from: u64) -> impl Iterator<Item = f32> {
        let mut rng = CounterRng::new(self.seed, self.site);
        rng.seek(self.first.wrapping_add(from));
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let rate = self.rate as f32;
        std::iter::repeat_with(move || if rng.uniform() < rate { 0.0 } else { kept })
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_depends_on_its_index_alone() {
        let mut all = CounterRng::new(7, 1);
        let drawn: Vec<u64> = (0..10).map(|_| all.bits()).collect();
        let mut later = CounterRng::new(7, 1);
        later.seek(6);
        assert_eq!(later.bits(), drawn[6]);
        assert_ne!(CounterRng::new(7, 2).bits(), drawn[0]);
        assert_ne!(CounterRng::new(8, 1).bits(), drawn[0]);
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_deviation_one() {
        let mut rng = CounterRng::named(3, "weights");
        let n = 100_000;
        let drawn: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(n);
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
