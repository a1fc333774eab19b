//! Comparison of logits, its limits, and the sums it is made from.

use serde::Serialize;

/// Position of compared logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogitPosition {
    /// Name of the comparison: `rows` of two models, a batch of a fixture, or a check.
    pub part: &'static str,
    /// Index of the row.
    pub row: usize,
    /// Index of the token in the row.
    pub position: usize,
}

/// Distance of logits from their reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Number of positions compared.
    pub positions: u64,
    /// Largest absolute error of a logit; infinite where a logit is not finite.
    pub max_error: f64,
    /// `max_error` as a share of the range of the reference's logits.
    pub relative_error: f64,
    /// Mean Kullback-Leibler divergence of the next-token distributions from the reference's, in nats.
    pub kl_mean: f64,
    /// Largest Kullback-Leibler divergence at a position, in nats.
    pub kl_max: f64,
    /// Share of positions with the same most probable token.
    pub top1_agreement: f64,
    /// Perplexity of the model on the rows, where they are text.
    pub perplexity: Option<f64>,
    /// Perplexity of the reference.
    pub perplexity_against: Option<f64>,
    /// Position of the largest error.
    pub worst: Option<LogitPosition>,
}

/// Limits of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum of [`Comparison::relative_error`].
    pub tolerance: f64,
    /// Maximum of [`Comparison::kl_max`], if any.
    pub max_kl: Option<f64>,
    /// Minimum of [`Comparison::top1_agreement`], if any.
    pub min_top1: Option<f64>,
}

impl Limits {
    /// The wider of each limit of two.
    #[must_use]
    pub fn wider(&self, other: &Self) -> Self {
        let both = |a: Option<f64>, b: Option<f64>, wider: fn(f64, f64) -> f64| Some(wider(a?, b?));
        Self {
            tolerance: self.tolerance.max(other.tolerance),
            max_kl: both(self.max_kl, other.max_kl, f64::max),
            min_top1: both(self.min_top1, other.min_top1, f64::min),
        }
    }

    /// Limits that `found` exceeds, in words.
    pub fn broken(&self, found: &Comparison) -> Vec<String> {
        let mut broken = Vec::new();
        let mut expect = |holds: bool, message: String| {
            if !holds {
                broken.push(message);
            }
        };
        let (error, limit) = (found.relative_error, self.tolerance);
        expect(error <= limit, format!("relative error {error:.3e} is above the tolerance {limit:.3e}"));
        if let Some(limit) = self.max_kl {
            expect(found.kl_max <= limit, format!("KL divergence {:.3e} is above {limit:.3e}", found.kl_max));
        }
        if let Some(limit) = self.min_top1 {
            let share = found.top1_agreement;
            expect(share >= limit, format!("top-1 agreement {share:.4} is below {limit:.4}"));
        }
        broken
    }
}

/// Running sums of a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    positions: u64,
    max_error: f64,
    worst: Option<LogitPosition>,
    low: f64,
    high: f64,
    kl_sum: f64,
    kl_max: f64,
    agreeing: u64,
    loss: f64,
    loss_against: f64,
    scored: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            positions: 0,
            max_error: 0.0,
            worst: None,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            kl_sum: 0.0,
            kl_max: 0.0,
            agreeing: 0,
            loss: 0.0,
            loss_against: 0.0,
            scored: 0,
        }
    }
}

impl Tally {
    /// Adds a position: its logits and the reference's, `[vocab]`, and the token that follows, where known.
    pub(crate) fn add(&mut self, place: LogitPosition, found: &[f32], reference: &[f32], next: Option<u32>) {
        let errors = found.iter().zip(reference).map(|(a, b)| f64::from(a - b).abs());
        let error = errors.fold(0.0, largest);
        if self.worst.is_none() || error > self.max_error {
            (self.max_error, self.worst) = (error, Some(place));
        }
        for value in reference.iter().filter(|value| value.is_finite()) {
            self.low = self.low.min(f64::from(*value));
            self.high = self.high.max(f64::from(*value));
        }
        let (found, reference) = (LogProbs::new(found), LogProbs::new(reference));
        let kl = reference.divergence(&found);
        self.kl_sum += kl;
        self.kl_max = largest(self.kl_max, kl);
        self.agreeing += u64::from(found.best() == reference.best());
        self.positions += 1;
        if let Some(next) = next {
            self.loss -= found.of(next);
            self.loss_against -= reference.of(next);
            self.scored += 1;
        }
    }

    /// Adds the sums of another tally.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.worst.is_some() && (self.worst.is_none() || other.max_error > self.max_error) {
            (self.max_error, self.worst) = (other.max_error, other.worst);
        }
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.kl_max = largest(self.kl_max, other.kl_max);
        self.kl_sum += other.kl_sum;
        self.agreeing += other.agreeing;
        self.positions += other.positions;
        self.loss += other.loss;
        self.loss_against += other.loss_against;
        self.scored += other.scored;
    }

    /// Largest logit of the reference minus its smallest.
    pub(crate) fn range(&self) -> f64 {
        (self.high - self.low).max(0.0)
    }

    /// Figures of the comparison.
    pub(crate) fn comparison(&self) -> Comparison {
        let per_position = |sum: f64| sum / self.positions.max(1) as f64;
        let perplexity = |loss: f64| (self.scored > 0).then(|| (loss / self.scored as f64).exp());
        let range = if self.range() > 0.0 { self.range() } else { 1.0 };
        Comparison {
            positions: self.positions,
            max_error: self.max_error,
            relative_error: self.max_error / range,
            kl_mean: per_position(self.kl_sum),
            kl_max: self.kl_max,
            top1_agreement: per_position(self.agreeing as f64),
            perplexity: perplexity(self.loss),
            perplexity_against: perplexity(self.loss_against),
            worst: self.worst,
        }
    }
}

/// Larger of two numbers; NaN counts as infinite.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// Log-probabilities: logits and their log-sum-exp.
pub(crate) struct LogProbs<'a> {
    logits: &'a [f32],
    log_sum: f64,
}

impl<'a> LogProbs<'a> {
    pub(crate) fn new(logits: &'a [f32]) -> Self {
        let high = logits.iter().fold(f64::NEG_INFINITY, |high, &x| high.max(f64::from(x)));
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - high).exp()).sum();
        Self { logits, log_sum: high + sum.ln() }
    }

    /// Log-probability of a token; minus infinity outside the vocabulary.
    pub(crate) fn of(&self, token: u32) -> f64 {
        self.logits.get(token as usize).map_or(f64::NEG_INFINITY, |&x| f64::from(x) - self.log_sum)
    }

    /// KL(self || other) in nats, clamped at 0.
    fn divergence(&self, other: &Self) -> f64 {
        let pairs = self.logits.iter().zip(other.logits);
        let term = |(&p, &q): (&f32, &f32)| {
            let (log_p, log_q) = (f64::from(p) - self.log_sum, f64::from(q) - other.log_sum);
            let p = log_p.exp();
            if p == 0.0 { 0.0 } else { p * (log_p - log_q) }
        };
        largest(0.0, pairs.map(term).sum())
    }

    /// Most probable token, the first of equals.
    fn best(&self) -> Option<usize> {
        best(self.logits)
    }
}

/// Index of the largest logit, the first of equals.
pub(crate) fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: LogitPosition = LogitPosition { part: "rows", row: 1, position: 2 };

    fn of(found: &[f32], reference: &[f32], next: Option<u32>) -> Comparison {
        let mut tally = Tally::default();
        tally.add(PLACE, found, reference, next);
        tally.comparison()
    }

    #[test]
    fn equal_logits_have_no_error() {
        let found = of(&[1.0, 3.0, 2.0], &[1.0, 3.0, 2.0], Some(1));
        assert_eq!((found.max_error, found.kl_max, found.top1_agreement), (0.0, 0.0, 1.0));
        assert_eq!(found.perplexity, found.perplexity_against);
        assert_eq!((found.positions, found.worst), (1, Some(PLACE)));
    }

    #[test]
    fn figures_are_those_of_two_coins() {
        // logits ln 3, 0 are probabilities 3/4, 1/4; the reference's are 1/2, 1/2, shifted by a constant
        let found = of(&[3f32.ln(), 0.0], &[5.0, 5.0], Some(0));
        let kl = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((found.kl_mean - kl).abs() < 1e-7, "{found:?}");
        assert!((found.perplexity.unwrap() - 4.0 / 3.0).abs() < 1e-6);
        assert!((found.perplexity_against.unwrap() - 2.0).abs() < 1e-6);
        assert!((found.max_error - 5.0).abs() < 1e-6);
    }

    #[test]
    fn errors_are_shares_of_the_reference_s_range() {
        let found = of(&[0.0, 4.5, 1.0], &[0.0, 4.0, 1.0], None);
        assert_eq!((found.relative_error, found.perplexity), (0.125, None));
    }

    #[test]
    fn what_is_not_a_number_fails_every_limit() {
        let limits = Limits { tolerance: 1e9, max_kl: Some(1e9), min_top1: None };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for pair in [([bad, 0.0], [1.0, 0.0]), ([1.0, 0.0], [bad, 0.0]), ([bad, 0.0], [bad, 0.0])] {
                let found = of(&pair.0, &pair.1, None);
                assert_eq!(found.relative_error, f64::INFINITY, "{pair:?}");
                assert!(!limits.broken(&found).is_empty(), "{pair:?}");
            }
        }
    }

    #[test]
    fn a_broken_limit_is_named() {
        let found = of(&[0.0, 1.0], &[1.0, 0.0], None);
        let limits = Limits { tolerance: 0.5, max_kl: Some(0.1), min_top1: Some(1.0) };
        let broken = limits.broken(&found).join("; ");
        for name in ["relative error", "KL divergence", "top-1 agreement"] {
            assert!(broken.contains(name), "{broken}");
        }
        assert!(Limits { tolerance: 1.0, max_kl: None, min_top1: None }.broken(&found).is_empty());
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut all, mut a, mut b) = (Tally::default(), Tally::default(), Tally::default());
        let second = LogitPosition { row: 7, ..PLACE };
        for tally in [&mut all, &mut a] {
            tally.add(PLACE, &[1.0, 2.0], &[1.0, 2.5], Some(0));
        }
        for tally in [&mut all, &mut b] {
            tally.add(second, &[0.0, 2.0], &[3.0, 2.5], None);
        }
        a.merge(&b);
        assert_eq!(a.comparison(), all.comparison());
    }
}
