//! Unigram baseline: token frequencies, which a language model must beat.

/// Token frequencies with add-one smoothing.
#[derive(Debug, Clone)]
pub(super) struct Unigram {
    counts: Vec<u64>,
    total: u64,
}

impl Unigram {
    /// Zero counts for a vocabulary of `num_ids`.
    pub(super) fn new(num_ids: usize) -> Self {
        Self { counts: vec![0; num_ids], total: 0 }
    }

    /// Counts training tokens. Ids outside of the vocabulary were refused when they were read.
    pub(super) fn count(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.counts[token as usize] += 1;
        }
        self.total += tokens.len() as u64;
    }

    /// Cross-entropy of a token, in nats: minus the logarithm of (count + 1) / (total + vocabulary).
    pub(super) fn loss(&self, token: u32) -> f64 {
        let all = (self.total + self.counts.len() as u64) as f64;
        (all / (self.counts[token as usize] + 1) as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_that_of_smoothed_frequencies() {
        let mut unigram = Unigram::new(4);
        assert!((unigram.loss(3) - 4f64.ln()).abs() < 1e-12);
        unigram.count(&[0, 0, 0, 1]);
        for (token, probability) in [(0, 4.0 / 8.0), (1, 2.0 / 8.0), (2, 1.0 / 8.0)] {
            assert!((unigram.loss(token) + f64::ln(probability)).abs() < 1e-12);
        }
    }

    #[test]
    fn probabilities_sum_to_one() {
        let mut unigram = Unigram::new(5);
        unigram.count(&[1, 4, 4, 2]);
        let sum: f64 = (0..5).map(|token| (-unigram.loss(token)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
