//! Source sampler of a stage: exact shares or independent draws, sample by sample or group by group.

use super::exact_sampler::{ExactSampler, MAX_PERIOD, apportion};
use super::iid_sampler::IidSampler;
use crate::error::{Error, Result};
use crate::mixing::{Batching, Mixing, Sampling};

/// Sources of the samples of a stage, which are numbered from the beginning of the stage.
#[derive(Debug, Clone)]
pub(super) struct SourceSampler {
    /// Indices of the sources with a weight, in the numbering of the run.
    sources: Vec<usize>,
    kind: SamplerKind,
    /// Consecutive samples of one source.
    group: u64,
}

#[derive(Debug, Clone)]
enum SamplerKind {
    Exact(ExactSampler),
    Iid(Box<IidSampler>),
}

impl SourceSampler {
    /// Sampler with a weight per source; a source of weight 0 is never drawn. `key` is the seed of independent draws.
    pub(super) fn new(weights: &[u64], mixing: &Mixing, group: u64, key: u64) -> Result<Self> {
        let sources: Vec<_> = (0..weights.len()).filter(|&source| weights[source] > 0).collect();
        let weights: Vec<_> = sources.iter().map(|&source| weights[source]).collect();
        let kind = match (mixing.batching, mixing.sampling) {
            (Batching::Stratified, _) => SamplerKind::Exact(stratified(&weights, group)?),
            (_, Sampling::Exact) => SamplerKind::Exact(ExactSampler::from_weights(weights)),
            (_, Sampling::Iid) => SamplerKind::Iid(Box::new(IidSampler::new(weights, key))),
        };
        let group = if mixing.batching == Batching::PerSource { group } else { 1 };
        Ok(Self { sources, kind, group })
    }

    /// Source of sample `index`, and the number of earlier samples of that source.
    pub(super) fn at(&mut self, index: u64) -> (usize, u64) {
        let (source, ordinal) = match &mut self.kind {
            SamplerKind::Exact(exact) => exact.at(index / self.group),
            SamplerKind::Iid(iid) => iid.at(index / self.group),
        };
        (self.sources[source], ordinal * self.group + index % self.group)
    }

    /// Counts by source over the first `samples` samples, `[sources]`.
    pub(super) fn counts(&mut self, samples: u64, sources: usize) -> Vec<u64> {
        let (groups, rest) = (samples / self.group, samples % self.group);
        let drawn = match &mut self.kind {
            SamplerKind::Exact(exact) => exact.counts(groups),
            SamplerKind::Iid(iid) => iid.counts(groups),
        };
        let mut counts = vec![0; sources];
        drawn.iter().zip(&self.sources).for_each(|(count, &source)| counts[source] = count * self.group);
        if rest > 0 {
            counts[self.at(samples - 1).0] += rest;
        }
        counts
    }
}

/// Sampler with the same counts in every group of `group` samples.
fn stratified(weights: &[u64], group: u64) -> Result<ExactSampler> {
    let wrong =
        |actual: String, expected: String| Err(Error::Loader { field: "batch_group", actual, expected });
    if group > MAX_PERIOD {
        return wrong(group.to_string(), format!("{MAX_PERIOD} at most with `batching = \"stratified\"`"));
    }
    let counts = apportion(weights, group);
    match counts.iter().zip(weights).find(|(count, _)| **count == 0) {
        None => Ok(ExactSampler::with_period_counts(counts)),
        Some((_, &weight)) => {
            let sum: u64 = weights.iter().sum();
            let min_group = sum.div_ceil(weight.max(1));
            let expected = format!(
                "groups in which every source has a sample: about {min_group} samples, or a batch of so many, for the smallest share"
            );
            wrong(group.to_string(), expected)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixing(batching: Batching, sampling: Sampling) -> Mixing {
        Mixing { batching, sampling, ..Mixing::default() }
    }

    fn assert_numbered(sampler: &mut SourceSampler, sources: usize, samples: u64) {
        let mut met = vec![0; sources];
        for index in 0..samples {
            assert_eq!(sampler.counts(index, sources), met, "before {index}");
            let (source, ordinal) = sampler.at(index);
            assert_eq!(ordinal, met[source], "sample {index}");
            met[source] += 1;
        }
    }

    #[test]
    fn every_kind_numbers_samples_without_gaps() {
        for (batching, sampling) in [
            (Batching::Random, Sampling::Exact),
            (Batching::Random, Sampling::Iid),
            (Batching::Stratified, Sampling::Exact),
            (Batching::PerSource, Sampling::Exact),
            (Batching::PerSource, Sampling::Iid),
        ] {
            let mut sampler =
                SourceSampler::new(&[5, 0, 3, 2], &mixing(batching, sampling), 10, 3).expect("sound");
            assert_numbered(&mut sampler, 4, 205);
        }
    }

    #[test]
    fn stratified_groups_are_all_alike() {
        let weights = [335, 299, 85, 100, 40, 45, 33, 30, 19, 14];
        let stratified = mixing(Batching::Stratified, Sampling::Exact);
        let mut sampler = SourceSampler::new(&weights, &stratified, 64, 0).expect("sound");
        let mut before = vec![0; 10];
        for group in 1..20 {
            let counts = sampler.counts(group * 64, 10);
            let of_group: Vec<_> = counts.iter().zip(&before).map(|(now, before)| now - before).collect();
            assert_eq!(of_group, [22, 19, 5, 6, 3, 3, 2, 2, 1, 1], "group {group}");
            before = counts;
        }
        let error = SourceSampler::new(&weights, &stratified, 16, 0).expect_err("too small").to_string();
        assert!(error.contains("`batch_group` is 16, expected groups in which every source has"), "{error}");
    }

    #[test]
    fn groups_of_one_source_keep_the_shares() {
        for sampling in [Sampling::Exact, Sampling::Iid] {
            let per_source = mixing(Batching::PerSource, sampling);
            let mut sampler = SourceSampler::new(&[1, 1, 2], &per_source, 8, 5).expect("sound");
            for group in 0..100 {
                let source = sampler.at(group * 8).0;
                assert!((1..8).all(|at| sampler.at(group * 8 + at).0 == source));
            }
            let counts = sampler.counts(8 * 4000, 3);
            assert!(counts[2].abs_diff(16_000) < 1200 && counts[0].abs_diff(8000) < 1200, "{counts:?}");
        }
    }
}
