//! Sampling of the next token from logits: repetition penalty, temperature, top-k, top-p, min-p, in transformers' order.

use mpt_core::rng::CounterRng;

use crate::error::{Error, Result};

/// Sampling parameters. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divisor of the logits; 0 is greedy.
    pub temperature: f32,
    /// Number of most probable tokens kept; 0 keeps all.
    pub top_k: usize,
    /// Probability mass kept, of the most probable tokens; 1 keeps all. Holtzman et al. 2020, section 3.1.
    pub top_p: f32,
    /// Lowest probability kept, as a share of the highest; 0 keeps all.
    pub min_p: f32,
    /// Penalty on tokens of the context; 1 is none. Keskar et al. 2019, "CTRL", section 4.1.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Sampler of one sequence: parameters and the state of its random numbers.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: CounterRng,
}

impl Sampler {
    /// A sampler before its first draw.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the parameter.
    pub fn new(params: &SamplingParams) -> Result<Self> {
        let check = |field, value: f32, holds: bool, expected| {
            if holds { Ok(()) } else { Err(Error::Parameter { field, actual: value.to_string(), expected }) }
        };
        let p = params;
        check("temperature", p.temperature, p.temperature >= 0.0 && p.temperature.is_finite(), "0 or more")?;
        check("top_p", p.top_p, p.top_p > 0.0 && p.top_p <= 1.0, "above 0 and at most 1")?;
        check("min_p", p.min_p, (0.0..=1.0).contains(&p.min_p), "from 0 to 1")?;
        let penalty = p.repetition_penalty;
        check("repetition_penalty", penalty, penalty > 0.0 && penalty.is_finite(), "above 0")?;
        Ok(Self { params: params.clone(), rng: CounterRng::named(params.seed, "sampling") })
    }

    /// Draws the token after `context`. `logits`, `[num_ids]`, are penalized in place.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when no logit is finite.
    pub fn next(&mut self, logits: &mut [f32], context: &[u32]) -> Result<u32> {
        penalize(logits, context, self.params.repetition_penalty);
        let best = argmax(logits).ok_or(Error::NotFinite { tokens: context.len() })?;
        if self.params.temperature == 0.0 {
            return Ok(best);
        }
        Ok(self.draw(&self.candidates(logits, logits[best as usize])))
    }

    /// Candidates of the draw, most probable first, with unnormalized probabilities.
    fn candidates(&self, logits: &[f32], highest: f32) -> Vec<(u32, f64)> {
        let weight = |logit: f32| f64::from((logit - highest) / self.params.temperature).exp();
        let finite = logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan());
        let mut candidates: Vec<_> = finite.map(|(id, &logit)| (id as u32, weight(logit))).collect();
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.params.top_k > 0 {
            candidates.truncate(self.params.top_k);
        }
        truncate_to_mass(&mut candidates, f64::from(self.params.top_p));
        let floor = f64::from(self.params.min_p) * candidates[0].1;
        candidates.retain(|candidate| candidate.1 >= floor);
        candidates
    }

    /// Draws one of the candidates by inversion of their cumulative sum.
    fn draw(&mut self, candidates: &[(u32, f64)]) -> u32 {
        let total: f64 = candidates.iter().map(|candidate| candidate.1).sum();
        let mut left = self.rng.uniform_f64() * total;
        for &(id, weight) in candidates {
            left -= weight;
            if left < 0.0 {
                return id;
            }
        }
        candidates[0].0
    }
}

/// Divides positive logits of tokens in `context` by `penalty`, and multiplies the others.
fn penalize(logits: &mut [f32], context: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen: Vec<_> = context.iter().map(|&id| id as usize).filter(|&id| id < logits.len()).collect();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let logit = &mut logits[id];
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
}

/// Index of the highest finite logit, the first of equals.
fn argmax(logits: &[f32]) -> Option<u32> {
    let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
    finite.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(id, _)| id as u32)
}

/// Keeps the fewest candidates whose probabilities sum to `mass`, at least one.
fn truncate_to_mass(candidates: &mut Vec<(u32, f64)>, mass: f64) {
    if mass >= 1.0 {
        return;
    }
    let total: f64 = candidates.iter().map(|candidate| candidate.1).sum();
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += candidate.1;
        sum >= mass * total
    });
    candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.0];

    fn counts(params: SamplingParams) -> [usize; 5] {
        let mut sampler = Sampler::new(&params).unwrap();
        let mut counts = [0; 5];
        (0..4000).for_each(|_| counts[sampler.next(&mut LOGITS.clone(), &[]).unwrap() as usize] += 1);
        counts
    }

    fn sampling() -> SamplingParams {
        SamplingParams { temperature: 1.0, ..SamplingParams::default() }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let total: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
        for (count, logit) in counts(sampling()).into_iter().zip(LOGITS) {
            let expected = 4000.0 * logit.exp() / total;
            assert!(
                (count as f32 - expected).abs() < 5.0 * expected.sqrt() + 1.0,
                "{count}, expected {expected}"
            );
        }
    }

    #[test]
    fn each_rule_keeps_what_it_should() {
        let kept = |params| counts(params).map(|count| count > 0);
        assert_eq!(kept(SamplingParams::default()), [false, true, false, false, false]);
        assert_eq!(kept(SamplingParams { top_k: 2, ..sampling() }), [false, true, true, false, false]);
        // Probabilities are 0.64, 0.24, 0.09, 0.03, 0.01.
        assert_eq!(kept(SamplingParams { top_p: 0.8, ..sampling() }), [false, true, true, false, false]);
        assert_eq!(kept(SamplingParams { min_p: 0.1, ..sampling() }), [true, true, true, false, false]);
        assert_eq!(
            kept(SamplingParams { temperature: 0.01, ..sampling() }),
            [false, true, false, false, false]
        );
    }

    #[test]
    fn the_penalty_divides_what_is_positive_and_multiplies_what_is_not() {
        let mut logits = LOGITS;
        penalize(&mut logits, &[1, 3, 1, 99], 2.0);
        assert_eq!(logits, [1.0, 1.5, 2.0, -2.0, 0.0]);
    }

    #[test]
    fn nothing_usable_is_an_error() {
        let mut sampler = Sampler::new(&SamplingParams::default()).unwrap();
        assert!(matches!(sampler.next(&mut [f32::NAN; 3], &[1]), Err(Error::NotFinite { tokens: 1 })));
        let error = Sampler::new(&SamplingParams { top_p: 0.0, ..sampling() }).unwrap_err().to_string();
        assert_eq!(error, "`top_p` is 0, expected above 0 and at most 1");
    }
}
