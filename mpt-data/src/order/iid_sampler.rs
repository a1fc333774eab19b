//! Independent draws: each sample's source with the probability of its share, and the ordinal of the sample in that source.
//!
//! A block of independent draws has counts from a multinomial distribution, in random order. The counts of a block cost
//! microseconds and depend on the key and the block's number alone. Counts of earlier blocks are added up at the first
//! access; the order of one block is a table.

use super::permutation::{GOLDEN, mix64};

/// Samples in a block.
const BLOCK: u64 = 1 << 16;

/// Independent draws from weighted sources.
#[derive(Debug, Clone)]
pub(super) struct IidSampler {
    weights: Vec<u64>,
    key: u64,
    /// Samples of each source before each visited block, `[block, source]`.
    counts_before: Vec<u64>,
    cached: Option<SampledBlock>,
}

/// Most recent block: source of each sample, and its rank among the block's samples of that source.
#[derive(Debug, Clone)]
struct SampledBlock {
    number: u64,
    samples: Vec<(u16, u16)>,
}

impl IidSampler {
    /// Draws with probabilities in the ratio of the weights, each 1 or more.
    pub(super) fn new(weights: Vec<u64>, key: u64) -> Self {
        let counts_before = vec![0; weights.len()];
        Self { weights, key, counts_before, cached: None }
    }

    /// Source of sample `index`, and the number of earlier samples of that source.
    pub(super) fn at(&mut self, index: u64) -> (usize, u64) {
        let number = index / BLOCK;
        self.load_block(number);
        let block = self.cached.as_ref().expect("the block is loaded");
        let (source, rank) = block.samples[(index % BLOCK) as usize];
        let source = usize::from(source);
        (source, self.counts_before[number as usize * self.weights.len() + source] + u64::from(rank))
    }

    /// Counts by source over the first `samples` samples.
    pub(super) fn counts(&mut self, samples: u64) -> Vec<u64> {
        let (number, rest) = (samples / BLOCK, (samples % BLOCK) as usize);
        self.extend_counts(number);
        let mut counts = self.counts_at(number).to_vec();
        if rest > 0 {
            self.load_block(number);
            let block = self.cached.as_ref().expect("the block is loaded");
            block.samples[..rest].iter().for_each(|&(source, _)| counts[usize::from(source)] += 1);
        }
        counts
    }

    fn counts_at(&self, number: u64) -> &[u64] {
        let sources = self.weights.len();
        &self.counts_before[number as usize * sources..][..sources]
    }

    /// Extends `counts_before` up to block `number`.
    fn extend_counts(&mut self, number: u64) {
        let sources = self.weights.len();
        for known in (self.counts_before.len() / sources) as u64 - 1..number {
            let counts = multinomial(&self.weights, &mut KeyedRng::new(self.key, known));
            let sums: Vec<_> =
                self.counts_at(known).iter().zip(counts).map(|(before, count)| before + count).collect();
            self.counts_before.extend(sums);
        }
    }

    fn load_block(&mut self, number: u64) {
        if self.cached.as_ref().is_some_and(|cached| cached.number == number) {
            return;
        }
        self.extend_counts(number);
        let mut rng = KeyedRng::new(self.key, number);
        let counts = multinomial(&self.weights, &mut rng);
        let of_source = |(source, count): (usize, u64)| (0..count).map(move |_| source as u16);
        let mut sources: Vec<_> = counts.into_iter().enumerate().flat_map(of_source).collect();
        // Fisher-Yates shuffle.
        for last in (1..sources.len()).rev() {
            sources.swap(last, rng.below(last as u64 + 1) as usize);
        }
        let mut seen = vec![0u32; self.weights.len()];
        let ranked = |source: u16| {
            let rank = &mut seen[usize::from(source)];
            *rank += 1;
            (source, (*rank - 1) as u16)
        };
        self.cached = Some(SampledBlock { number, samples: sources.into_iter().map(ranked).collect() });
    }
}

/// Counts by source over [`BLOCK`] draws.
fn multinomial(weights: &[u64], rng: &mut KeyedRng) -> Vec<u64> {
    let (mut draws, mut rest) = (BLOCK, weights.iter().sum::<u64>());
    let draw = |&weight: &u64| {
        let won = binomial(draws, weight, rest, rng);
        (draws, rest) = (draws - won, rest - weight);
        won
    };
    weights.iter().map(draw).collect()
}

/// Successes among `trials` of probability `hit / of`, exact and without floating point.
///
/// A trial is a random binary fraction that succeeds when it is below `hit / of`. The bits are drawn from the most
/// significant one on. Only the number of trials whose bits equal those of `hit / of` so far matters.
fn binomial(trials: u64, hit: u64, of: u64, rng: &mut KeyedRng) -> u64 {
    if hit == of {
        return trials;
    }
    let (mut open, mut rest, mut won) = (trials, u128::from(hit), 0);
    while open > 0 && rest > 0 {
        rest *= 2;
        let ones = rng.ones(open);
        if rest >= u128::from(of) {
            rest -= u128::from(of);
            won += open - ones;
            open = ones;
        } else {
            open -= ones;
        }
    }
    won
}

/// Random numbers that depend on a key and a block number alone.
struct KeyedRng {
    state: u64,
}

impl KeyedRng {
    fn new(key: u64, number: u64) -> Self {
        Self { state: mix64(key ^ mix64(number)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix64(self.state)
    }

    /// Heads among `coins` fair coins.
    fn ones(&mut self, coins: u64) -> u64 {
        let whole: u64 = (0..coins / 64).map(|_| u64::from(self.next().count_ones())).sum();
        match coins % 64 {
            0 => whole,
            rest => whole + u64::from((self.next() >> (64 - rest)).count_ones()),
        }
    }

    /// Uniform number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        loop {
            let wide = u128::from(self.next()) * u128::from(bound);
            // The lowest 2^64 mod bound products would come up once too often.
            if wide as u64 >= bound.wrapping_neg() % bound {
                return (wide >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Vec<u64> {
        vec![335, 299, 85, 100, 40, 45, 33, 30, 19, 14]
    }

    #[test]
    fn samples_of_a_source_are_numbered_without_gaps() {
        let mut draws = IidSampler::new(weights(), 7);
        let mut seen = [0u64; 10];
        for index in 0..2 * BLOCK + 1000 {
            let (source, ordinal) = draws.at(index);
            assert_eq!(ordinal, seen[source], "sample {index}");
            seen[source] += 1;
        }
        assert_eq!(draws.counts(2 * BLOCK + 1000), seen);
        let again = IidSampler::new(weights(), 7).at(2 * BLOCK + 999);
        assert_eq!(again, draws.at(2 * BLOCK + 999), "whatever was asked before");
        assert_eq!(draws.counts(BLOCK).iter().sum::<u64>(), BLOCK);
    }

    /// Pearson's statistic against the shares, of sources and of pairs of neighbors: both as independent draws give it.
    #[test]
    fn draws_are_independent_and_of_their_shares() {
        let weights = weights();
        let mut draws = IidSampler::new(weights.clone(), 99);
        let n = 3 * BLOCK;
        let mut pairs = vec![0f64; 100];
        let sources: Vec<_> = (0..n).map(|index| draws.at(index).0).collect();
        sources.windows(2).for_each(|pair| pairs[pair[0] * 10 + pair[1]] += 1.0);
        let share = |source: usize| weights[source] as f64 / 1000.0;
        let chi = |found: f64, expected: f64| (found - expected).powi(2) / expected;
        let counts = draws.counts(n);
        let of_sources: f64 = (0..10).map(|s| chi(counts[s] as f64, share(s) * n as f64)).sum();
        // 9 and 90 degrees of freedom: beyond these one time in a thousand.
        assert!(of_sources < 27.9, "{of_sources}");
        let of_pairs: f64 =
            (0..100).map(|pair| chi(pairs[pair], share(pair / 10) * share(pair % 10) * (n - 1) as f64)).sum();
        assert!((45.0..149.4).contains(&of_pairs), "{of_pairs}");
    }

    /// Counts of blocks spread as a binomial distribution: they are not fixed, and not too wild.
    #[test]
    fn counts_of_blocks_vary_as_they_should() {
        let mut draws = IidSampler::new(vec![1, 3], 5);
        let blocks = 400u64;
        let first = |draws: &mut IidSampler, block: u64| draws.counts(block * BLOCK)[0] as f64;
        let counts: Vec<_> =
            (0..blocks).map(|block| first(&mut draws, block + 1) - first(&mut draws, block)).collect();
        let mean = counts.iter().sum::<f64>() / blocks as f64;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / blocks as f64;
        assert!((mean / BLOCK as f64 - 0.25).abs() < 0.0005, "{mean}");
        let expected = BLOCK as f64 * 0.25 * 0.75;
        assert!((0.75..1.3).contains(&(variance / expected)), "{variance} against {expected}");
    }

    #[test]
    fn binomials_know_certain_things() {
        let mut rng = KeyedRng::new(1, 2);
        assert_eq!(binomial(100, 5, 5, &mut rng), 100);
        assert_eq!(binomial(0, 1, 5, &mut rng), 0);
        assert!((1..1000).map(|_| rng.below(3)).all(|number| number < 3));
    }

    /// These draws are those of every run ever started.
    #[test]
    fn the_draws_are_pinned_for_ever() {
        let mut draws = IidSampler::new(vec![5, 3, 2], 17);
        let found: Vec<_> = (0..10).map(|index| draws.at(index).0).collect();
        assert_eq!(
            (&found[..], draws.at(10 * BLOCK + 3)),
            (&[1, 0, 0, 1, 1, 0, 1, 0, 2, 1][..], (1, 196_999))
        );
    }
}
