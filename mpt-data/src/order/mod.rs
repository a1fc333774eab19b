//! Order of training: pure functions of a sample's index to its source, epoch and position in the source.
//!
//! The order is independent of threads, ranks, batch sizes and interruptions, and needs no stored state: a run resumes at any
//! sample from the sample's index alone.
//!
//! A run is a list of stages (`stages`), each with a sampler of sources (`source_sampler`). Consecutive stages of one sample
//! length share a plan of epochs for each source (`epoch_plan`), and each epoch has a shuffle order (`shuffle_order`).

mod config;
mod epoch_plan;
mod exact_sampler;
mod iid_sampler;
mod permutation;
mod shuffle_order;
mod source_sampler;
mod stages;
mod tijdeman;

pub use config::{OrderConfig, OrderSource};
pub use exact_sampler::ExactSampler;
pub use permutation::Permutation;

use epoch_plan::{EpochPlan, SourceExtent, SourceProgress};
use shuffle_order::Shuffler;
use source_sampler::SourceSampler;
use stages::{ResolvedStage, check_lengths, check_sources, resolve_stages};

use crate::error::{Error, Result};
use crate::layout::GROUP_ROWS;

/// Position of a sample in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplePosition {
    /// Index of the source.
    pub source: usize,
    /// Complete passes over the source before this one.
    pub epoch: u64,
    /// Samples of `seq_len` tokens before it in the source, in the order of the shards.
    pub position: u64,
    /// Tokens in the sample.
    pub seq_len: usize,
}

/// Order of a whole training run.
#[derive(Debug, Clone)]
pub struct Order {
    stages: Vec<Stage>,
    spans: Vec<LengthSpan>,
    sources: usize,
}

/// Samples with one set of shares.
#[derive(Debug, Clone)]
struct Stage {
    /// First sample.
    from: u64,
    sampler: SourceSampler,
    /// Index of the length span.
    span: usize,
    /// Samples of each source in earlier stages of the span.
    earlier: Vec<u64>,
}

/// Consecutive stages with one sample length.
#[derive(Debug, Clone)]
struct LengthSpan {
    seq_len: usize,
    /// Plan of each source.
    epoch_plans: Vec<EpochPlan>,
}

impl Order {
    /// Order of a configuration.
    ///
    /// # Errors
    /// [`Error::Loader`] for an impossible mix, length or stage, [`Error::SmallSource`] for a drawn source without a single
    /// sample.
    pub fn new(config: &OrderConfig) -> Result<Self> {
        check_sources(config, &resolve_stages(config)?)?;
        Self::for_counting(config)
    }

    /// Order for counting alone: sources may be too small to locate samples in them.
    pub(crate) fn for_counting(config: &OrderConfig) -> Result<Self> {
        let names = config.sources.iter().map(|source| source.name.as_str());
        config.mixing.check(names).map_err(|wrong| Error::Loader {
            field: wrong.key,
            actual: wrong.actual,
            expected: wrong.expected,
        })?;
        let resolved = resolve_stages(config)?;
        let longest = check_lengths(config, &resolved)?;
        let mut order = Self { stages: Vec::new(), spans: Vec::new(), sources: config.sources.len() };
        let mut progress = vec![SourceProgress::default(); order.sources];
        let mut rest = &resolved[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|stage| stage.seq_len == first.seq_len).count();
            let end = rest.get(same).map(|next| next.from);
            let totals = order.add_stages(config, &rest[..same], end)?;
            order.add_length_span(config, (first.seq_len, longest), end.map(|_| totals), &mut progress);
            rest = &rest[same..];
        }
        Ok(order)
    }

    /// Position of sample `index`; independent of earlier calls.
    pub fn locate(&mut self, index: u64) -> SamplePosition {
        let number = self.stage_index(index);
        let stage = &mut self.stages[number];
        let (source, ordinal) = stage.sampler.at(index - stage.from);
        let span = &mut self.spans[stage.span];
        let (epoch, position) = span.epoch_plans[source].locate(stage.earlier[source] + ordinal);
        SamplePosition { source, epoch, position, seq_len: span.seq_len }
    }

    /// Tokens in sample `index`.
    pub fn seq_len(&self, index: u64) -> usize {
        self.spans[self.stages[self.stage_index(index)].span].seq_len
    }

    /// First sample after `index` with another length; `None` where the length stays.
    pub fn next_length_change(&self, index: u64) -> Option<u64> {
        let seq_len = self.seq_len(index);
        let later = &self.stages[self.stage_index(index)..];
        later.iter().find(|stage| self.spans[stage.span].seq_len != seq_len).map(|stage| stage.from)
    }

    /// Samples of each source among the first `samples` samples.
    pub fn counts(&mut self, samples: u64) -> Vec<u64> {
        let stages = self.counts_by_stage(samples).into_iter();
        stages.map(|(counts, _)| counts).fold(vec![0; self.sources], add_elementwise)
    }

    /// Tokens of each source in the first `samples` samples.
    pub fn tokens(&mut self, samples: u64) -> Vec<u64> {
        let tokens = |(counts, seq_len): (Vec<u64>, usize)| {
            counts.into_iter().map(|count| count * seq_len as u64).collect::<Vec<_>>()
        };
        self.counts_by_stage(samples).into_iter().map(tokens).fold(vec![0; self.sources], add_elementwise)
    }

    /// Whole samples in the first `tokens` tokens of the run.
    pub fn samples_for(&self, tokens: u64) -> u64 {
        let mut left = tokens;
        for (number, stage) in self.stages.iter().enumerate() {
            let seq_len = self.spans[stage.span].seq_len as u64;
            let fitting = left / seq_len;
            match self.stages.get(number + 1).map(|next| next.from - stage.from) {
                Some(samples) if samples <= fitting => left -= samples * seq_len,
                _ => return stage.from + fitting,
            }
        }
        unreachable!("the last stage has no end")
    }

    /// Counts by source over the first `samples` samples, and the sample length, of each stage.
    fn counts_by_stage(&mut self, samples: u64) -> Vec<(Vec<u64>, usize)> {
        let ends: Vec<_> = self.stages.iter().skip(1).map(|stage| stage.from).chain([u64::MAX]).collect();
        let (spans, sources) = (&self.spans, self.sources);
        let counted = |(stage, end): (&mut Stage, u64)| {
            let of_stage = end.min(samples).saturating_sub(stage.from);
            (stage.sampler.counts(of_stage, sources), spans[stage.span].seq_len)
        };
        self.stages.iter_mut().zip(ends).map(counted).collect()
    }

    fn stage_index(&self, index: u64) -> usize {
        self.stages.partition_point(|stage| stage.from <= index) - 1
    }

    /// Adds stages of one length that end before sample `end`, and returns their counts by source.
    fn add_stages(
        &mut self,
        config: &OrderConfig,
        stages: &[ResolvedStage],
        end: Option<u64>,
    ) -> Result<Vec<u64>> {
        let mut counts = vec![0; self.sources];
        for (number, stage) in stages.iter().enumerate() {
            let key = permutation::epoch_key(config.seed, "draws", self.stages.len() as u64);
            let mut sampler = SourceSampler::new(&stage.weights, &config.mixing, config.group, key)?;
            let earlier = counts.clone();
            if let Some(end) = stages.get(number + 1).map(|next| next.from).or(end) {
                counts = add_elementwise(counts, sampler.counts(end - stage.from, self.sources));
            }
            self.stages.push(Stage { from: stage.from, sampler, span: self.spans.len(), earlier });
        }
        Ok(counts)
    }

    /// Adds the epoch plans of one length; `totals` are the samples of each source, `None` for the endless last span.
    fn add_length_span(
        &mut self,
        config: &OrderConfig,
        (seq_len, longest): (usize, usize),
        totals: Option<Vec<u64>>,
        progress: &mut [SourceProgress],
    ) {
        let mut epoch_plans = Vec::with_capacity(self.sources);
        for (index, (source, from)) in config.sources.iter().zip(progress).enumerate() {
            let shuffler = Shuffler {
                kind: config.mixing.shuffle,
                window: config.mixing.window(),
                seed: config.seed,
                name: source.name.clone(),
            };
            let extent = SourceExtent {
                tokens: source.tokens,
                seq_len: seq_len as u64,
                longest: longest as u64,
                chunk: GROUP_ROWS * config.row_tokens as u64,
            };
            let total = totals.as_ref().map(|totals| totals[index]);
            let plan = EpochPlan::new(shuffler, extent, *from, total);
            if let Some(total) = total {
                *from = plan.end(total);
            }
            epoch_plans.push(plan);
        }
        self.spans.push(LengthSpan { seq_len, epoch_plans });
    }
}

fn add_elementwise(sums: Vec<u64>, counts: Vec<u64>) -> Vec<u64> {
    sums.into_iter().zip(counts).map(|(sum, count)| sum + count).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mixing::{Batching, Mixing, Quota, Sampling, Share, Shuffle, StageConfig};

    fn config(shares: &[(&str, f64, u64)], mixing: Mixing) -> OrderConfig {
        let source = |&(name, share, tokens): &(&str, f64, u64)| OrderSource {
            name: name.into(),
            share: Share::Proportion(share),
            tokens,
        };
        let sources = shares.iter().map(source).collect();
        OrderConfig { sources, row_tokens: 1, seq_len: 1, seed: 17, mixing, group: 10 }
    }

    const THREE: [(&str, f64, u64); 3] = [("web", 0.5, 1000), ("code", 0.3, 7), ("wiki", 0.2, 3)];

    /// This order is that of every run ever started: changing it silently changes what a resumed run sees.
    #[test]
    fn the_order_is_pinned_for_ever() {
        let mut order = Order::new(&config(&THREE, Mixing::default())).expect("sound");
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
    fn every_way_of_drawing_goes_through_whole_epochs() {
        for sampling in [Sampling::Exact, Sampling::Iid] {
            for batching in [Batching::Random, Batching::Stratified, Batching::PerSource] {
                for shuffle in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                    let mixing = Mixing { sampling, batching, shuffle, ..Mixing::default() };
                    if mixing.check(["web", "code", "wiki"].into_iter()).is_err() {
                        continue;
                    }
                    let mut order = Order::new(&config(&THREE, mixing)).expect("sound");
                    let mut met = BTreeSet::new();
                    let mut last = [0; 3];
                    for index in 0..4000 {
                        let place = order.locate(index);
                        assert!(met.insert((place.source, place.epoch, place.position)), "{place:?}");
                        assert!(place.epoch >= last[place.source], "epochs come one after the other");
                        last[place.source] = place.epoch;
                    }
                    for (source, (_, _, tokens)) in THREE.iter().enumerate() {
                        let whole = (0..last[source])
                            .flat_map(|epoch| (0..*tokens).map(move |at| (source, epoch, at)));
                        assert!(
                            whole.into_iter().all(|place| met.contains(&place)),
                            "source {source} is whole"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn quotas_are_passes_over_the_mix() {
        let mut config = config(&THREE, Mixing::default());
        let quotas = [Quota::Repeat(0.01), Quota::Repeat(2.0), Quota::Choose(6)];
        config.sources.iter_mut().zip(quotas).for_each(|(source, quota)| source.share = Share::Quota(quota));
        let mut order = Order::new(&config).expect("sound");
        assert_eq!(order.counts(30), [10, 14, 6], "1000 · 0.01, 7 · 2 and 6");
        assert_eq!(order.counts(300), [100, 140, 60]);
        config.sources[0].share = Share::Proportion(0.5);
        let error = Order::new(&config).expect_err("mixed").to_string();
        assert!(error.contains("set for `web`, where other sources have `repeat` or `choose`"), "{error}");
    }

    #[test]
    fn stages_change_shares_without_touching_the_past() {
        let stages = |text: &str| toml::from_str::<Mixing>(text).expect("TOML");
        let plain = config(&THREE, Mixing::default());
        let mut staged = plain.clone();
        staged.mixing = stages("[[stages]]\nfrom = 35\nproportions = { web = 0.25, wiki = 0.75 }");
        let (mut plain, mut staged) =
            (Order::new(&plain).expect("sound"), Order::new(&staged).expect("sound"));
        for index in 0..35 {
            assert_eq!(plain.locate(index), staged.locate(index));
        }
        let mut met: BTreeSet<_> = (0..35).map(|index| staged.locate(index)).map(key).collect();
        assert!((35..435).all(|index| met.insert(key(staged.locate(index)))), "epochs go on");
        let before = plain.counts(35);
        assert_eq!(staged.counts(435), [before[0] + 100, before[1], before[2] + 300]);
    }

    fn key(place: SamplePosition) -> (usize, u64, u64) {
        (place.source, place.epoch, place.position)
    }

    #[test]
    fn longer_samples_take_over_where_shorter_ones_stopped() {
        let mut config = config(&[("web", 0.5, 1003), ("code", 0.5, 403)], Mixing::default());
        config.mixing = toml::from_str("[[stages]]\nfrom = 300\nseq_len = 4").expect("TOML");
        let mut order = Order::new(&config).expect("sound");
        assert_eq!((order.next_length_change(0), order.next_length_change(300)), (Some(300), None));
        assert_eq!((order.seq_len(299), order.seq_len(300)), (1, 4));
        assert_eq!((order.samples_for(299), order.samples_for(300 + 7)), (299, 301));
        assert_eq!(order.tokens(302), [154, 154]);
        let mut met = BTreeSet::new();
        for index in 0..2000 {
            let place = order.locate(index);
            for token in 0..place.seq_len as u64 {
                let token = place.position * place.seq_len as u64 + token;
                assert!(met.insert((place.source, place.epoch, token)), "{place:?}");
            }
        }
        let read = met.iter().filter(|(source, epoch, _)| (*source, *epoch) == (0, 0)).count();
        assert!(read > 1003 - 2 * 4, "{read} of the first epoch, in which the length changed");
    }

    #[test]
    fn lengths_must_fit_each_other() {
        let mut config = config(&[("web", 1.0, 1000)], Mixing::default());
        (config.seq_len, config.row_tokens) = (4, 2);
        config.mixing = toml::from_str("[[stages]]\nfrom = 300\nseq_len = 6").expect("TOML");
        let error = Order::new(&config).expect_err("6 and 4").to_string();
        assert!(
            error.contains("`seq_len` is 4, expected a divisor of the longest of the stages, which is 6"),
            "{error}"
        );
        config.seq_len = 1002;
        let error = Order::new(&config).expect_err("too long").to_string();
        assert!(error.contains("1000 tokens for train, less than one sequence of 1002"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The counts of any prefix are those of its samples, in every mode.
        #[test]
        fn counts_are_those_of_the_samples(n in 0u64..900, from in 1u64..500, mode in 0usize..4) {
            let (sampling, batching) = [
                (Sampling::Exact, Batching::Random), (Sampling::Iid, Batching::Random),
                (Sampling::Exact, Batching::Stratified), (Sampling::Iid, Batching::PerSource),
            ][mode];
            let mut config = config(&THREE, Mixing { sampling, batching, ..Mixing::default() });
            config.mixing.stages = vec![StageConfig { from, proportions: [("code".into(), 1.0)].into(), seq_len: None }];
            let mut order = Order::new(&config).expect("sound");
            let mut counts = vec![0; 3];
            (0..n).for_each(|index| counts[order.locate(index).source] += 1);
            prop_assert_eq!(order.counts(n), counts);
        }
    }
}
