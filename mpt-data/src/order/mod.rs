//! The order of training as pure functions of the sample index: which source, which epoch, which place in it.
//!
//! Nothing here depends on threads, ranks, batch sizes or how often a run was stopped, and nothing has to be made or kept
//! for it: a run resumes at any sample because a sample's index is all there is to know.
//!
//! A run is a list of stages (`draws` says which source a sample of a stage is of), and stages of one sample length after
//! another are a time, in which each source takes its course (`course`) along shuffled paths (`path`).

mod config;
mod epoch_plan;
mod exact_sampler;
mod iid_sampler;
mod permutation;
mod shuffle_order;
mod source_sampler;
mod tijdeman;

pub use config::{OrderConfig, OrderSource};
pub use exact_sampler::ExactSampler;
pub use permutation::Permutation;

use std::collections::BTreeMap;

use epoch_plan::{EpochPlan, SourceExtent, SourceProgress};
use shuffle_order::Shuffler;
use source_sampler::SourceSampler;

use crate::error::{Error, Result};
use crate::layout::GROUP_ROWS;
use crate::mixing::{Share, StageConfig};

/// Where a sample comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplePosition {
    /// The source.
    pub source: usize,
    /// How often the source was gone through before.
    pub epoch: u64,
    /// The sample's place in the source, in the order of the shards: samples of `seq_len` tokens before it.
    pub position: u64,
    /// Tokens in the sample.
    pub seq_len: usize,
}

/// The order of a whole training run.
#[derive(Debug, Clone)]
pub struct Order {
    stages: Vec<Stage>,
    times: Vec<LengthSpan>,
    sources: usize,
}

/// Samples that are drawn in one way.
#[derive(Debug, Clone)]
struct Stage {
    /// The first of them.
    from: u64,
    draws: SourceSampler,
    /// The time it belongs to, and how many samples of each source the stages before it in that time had.
    time: usize,
    earlier: Vec<u64>,
}

/// Stages after one another whose samples are equally long.
#[derive(Debug, Clone)]
struct LengthSpan {
    seq_len: usize,
    courses: Vec<EpochPlan>,
}

/// A stage with everything it takes over from those before it.
struct ResolvedStage {
    from: u64,
    weights: Vec<u64>,
    seq_len: usize,
}

impl Order {
    /// The order that a configuration describes.
    ///
    /// # Errors
    /// [`Error::Loader`] for an impossible mix, length or stage, [`Error::SmallSource`] for a source that is drawn and does
    /// not have a single sample.
    pub fn new(config: &OrderConfig) -> Result<Self> {
        check_sources(config, &settle(config)?)?;
        Self::of_shares(config)
    }

    /// The order of sources that may be too small for it: for counting, not for locating.
    pub(crate) fn of_shares(config: &OrderConfig) -> Result<Self> {
        let names = config.sources.iter().map(|source| source.name.as_str());
        config.mixing.check(names).map_err(|wrong| Error::Loader {
            field: wrong.key,
            actual: wrong.actual,
            expected: wrong.expected,
        })?;
        let settled = settle(config)?;
        let longest = check_lengths(config, &settled)?;
        let mut order = Self { stages: Vec::new(), times: Vec::new(), sources: config.sources.len() };
        let mut progress = vec![SourceProgress::default(); order.sources];
        let mut rest = &settled[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|stage| stage.seq_len == first.seq_len).count();
            let end = rest.get(same).map(|next| next.from);
            order.add_time(config, &rest[..same], end, longest, &mut progress)?;
            rest = &rest[same..];
        }
        Ok(order)
    }

    /// The place of a sample. The same for the same arguments, whatever was asked before.
    pub fn locate(&mut self, index: u64) -> SamplePosition {
        let number = self.stage_of(index);
        let stage = &mut self.stages[number];
        let (source, ordinal) = stage.draws.at(index - stage.from);
        let time = &mut self.times[stage.time];
        let (epoch, position) = time.courses[source].locate(stage.earlier[source] + ordinal);
        SamplePosition { source, epoch, position, seq_len: time.seq_len }
    }

    /// Tokens in the sample with this index.
    pub fn seq_len(&self, index: u64) -> usize {
        self.times[self.stages[self.stage_of(index)].time].seq_len
    }

    /// The first sample after this one that has another length; `None`: there is none.
    pub fn length_change(&self, index: u64) -> Option<u64> {
        let seq_len = self.seq_len(index);
        let later = &self.stages[self.stage_of(index)..];
        later.iter().find(|stage| self.times[stage.time].seq_len != seq_len).map(|stage| stage.from)
    }

    /// How many of the first `samples` samples are of each source.
    pub fn counts(&mut self, samples: u64) -> Vec<u64> {
        self.pieces(samples).into_iter().map(|(counts, _)| counts).fold(vec![0; self.sources], added)
    }

    /// How many tokens the first `samples` samples have of each source.
    pub fn tokens(&mut self, samples: u64) -> Vec<u64> {
        let tokens = |(counts, seq_len): (Vec<u64>, usize)| {
            counts.into_iter().map(|count| count * seq_len as u64).collect::<Vec<_>>()
        };
        self.pieces(samples).into_iter().map(tokens).fold(vec![0; self.sources], added)
    }

    /// The samples that so many tokens are enough for.
    pub fn samples_for(&self, tokens: u64) -> u64 {
        let mut left = tokens;
        for (number, stage) in self.stages.iter().enumerate() {
            let seq_len = self.times[stage.time].seq_len as u64;
            let fitting = left / seq_len;
            match self.stages.get(number + 1).map(|next| next.from - stage.from) {
                Some(samples) if samples <= fitting => left -= samples * seq_len,
                _ => return stage.from + fitting,
            }
        }
        unreachable!("the last stage has no end")
    }

    /// Samples of each source, and their length, by stage.
    fn pieces(&mut self, samples: u64) -> Vec<(Vec<u64>, usize)> {
        let ends: Vec<_> = self.stages.iter().skip(1).map(|stage| stage.from).chain([u64::MAX]).collect();
        let (times, sources) = (&self.times, self.sources);
        let piece = |(stage, end): (&mut Stage, u64)| {
            let of_stage = end.min(samples).saturating_sub(stage.from);
            (stage.draws.counts(of_stage, sources), times[stage.time].seq_len)
        };
        self.stages.iter_mut().zip(ends).map(piece).collect()
    }

    fn stage_of(&self, index: u64) -> usize {
        self.stages.partition_point(|stage| stage.from <= index) - 1
    }

    /// Adds stages of one length, which end before sample `end`; `progress` is where each source stands.
    fn add_time(
        &mut self,
        config: &OrderConfig,
        stages: &[ResolvedStage],
        end: Option<u64>,
        longest: usize,
        progress: &mut [SourceProgress],
    ) -> Result<()> {
        let (seq_len, mut met) = (stages[0].seq_len, vec![0; self.sources]);
        for (number, stage) in stages.iter().enumerate() {
            let key = permutation::key_of(config.seed, "draws", self.stages.len() as u64);
            let mut draws = SourceSampler::new(&stage.weights, &config.mixing, config.group, key)?;
            let earlier = met.clone();
            if let Some(end) = stages.get(number + 1).map(|next| next.from).or(end) {
                met = added(met, draws.counts(end - stage.from, self.sources));
            }
            self.stages.push(Stage { from: stage.from, draws, time: self.times.len(), earlier });
        }
        let course = |(source, from): (&OrderSource, &mut SourceProgress), total: u64| {
            let mixing = &config.mixing;
            let shuffler = Shuffler {
                kind: mixing.shuffle,
                window: mixing.window(),
                seed: config.seed,
                name: source.name.clone(),
            };
            let extent = SourceExtent {
                tokens: source.tokens,
                seq_len: seq_len as u64,
                longest: longest as u64,
                chunk: GROUP_ROWS * config.row_tokens as u64,
            };
            let course = EpochPlan::new(shuffler, extent, *from, end.map(|_| total));
            *from = course.end(total);
            course
        };
        let courses =
            config.sources.iter().zip(progress).zip(met).map(|(source, total)| course(source, total));
        self.times.push(LengthSpan { seq_len, courses: courses.collect() });
        Ok(())
    }
}

fn added(sums: Vec<u64>, counts: Vec<u64>) -> Vec<u64> {
    sums.into_iter().zip(counts).map(|(sum, count)| sum + count).collect()
}

/// The stages with what each takes over from those before; the first begins at sample 0.
fn settle(config: &OrderConfig) -> Result<Vec<ResolvedStage>> {
    let mut current = ResolvedStage { from: 0, weights: shares(config)?, seq_len: config.seq_len };
    let mut settled = Vec::new();
    for stage in &config.mixing.stages {
        let next = ResolvedStage {
            from: stage.from,
            weights: stage_weights(config, stage)?.unwrap_or_else(|| current.weights.clone()),
            seq_len: stage.seq_len.unwrap_or(current.seq_len),
        };
        let last = std::mem::replace(&mut current, next);
        if last.from < current.from {
            settled.push(last);
        }
    }
    settled.push(current);
    Ok(settled)
}

/// The weights that the shares of the sources give.
fn shares(config: &OrderConfig) -> Result<Vec<u64>> {
    let proportion = |source: &OrderSource| match source.share {
        Share::Proportion(share) => Some(share),
        Share::Quota(_) => None,
    };
    let proportions: Vec<_> = config.sources.iter().filter_map(proportion).collect();
    if proportions.len() == config.sources.len() {
        return exact_sampler::weights_of(&proportions);
    }
    config.sources.iter().map(|source| quota(source, config.seq_len)).collect()
}

fn quota(source: &OrderSource, seq_len: usize) -> Result<u64> {
    let wrong = |actual: String, expected: &str| {
        Err(Error::Loader { field: "proportion", actual, expected: expected.into() })
    };
    match source.share {
        Share::Proportion(_) => wrong(
            format!("set for `{}`, where other sources have `repeat` or `choose`", source.name),
            "the same kind for all",
        ),
        Share::Quota(quota) => match quota.samples(source.tokens / (seq_len as u64).max(1)) {
            0 => wrong(
                format!("{quota:?} for `{}`, which is no sample", source.name),
                "a sample or more of every source",
            ),
            samples => Ok(samples),
        },
    }
}

/// The weights that a stage names; a source that it does not name has none.
fn stage_weights(config: &OrderConfig, stage: &StageConfig) -> Result<Option<Vec<u64>>> {
    if stage.proportions.is_empty() {
        return Ok(None);
    }
    let named: Vec<_> = stage.proportions.iter().collect();
    let weights = exact_sampler::weights_of(&named.iter().map(|(_, share)| **share).collect::<Vec<_>>())?;
    let by_name: BTreeMap<_, _> = named.into_iter().map(|(name, _)| name.as_str()).zip(weights).collect();
    let weight = |source: &OrderSource| by_name.get(source.name.as_str()).copied().unwrap_or(0);
    Ok(Some(config.sources.iter().map(weight).collect()))
}

/// Every length fits rows and the other lengths; returns the longest.
fn check_lengths(config: &OrderConfig, stages: &[ResolvedStage]) -> Result<usize> {
    let row = config.row_tokens;
    let longest = stages.iter().map(|stage| stage.seq_len).max().expect("there is a stage");
    for stage in stages {
        let seq = stage.seq_len;
        if seq == 0 || (!seq.is_multiple_of(row) && !row.is_multiple_of(seq)) {
            let expected = format!(
                "a multiple or a divisor of the rows' {row} tokens; else build the data with another `seq_len`"
            );
            return Err(Error::Loader { field: "seq_len", actual: seq.to_string(), expected });
        }
        if !longest.is_multiple_of(seq) {
            let expected = format!("a divisor of the longest of the stages, which is {longest}");
            return Err(Error::Loader { field: "seq_len", actual: seq.to_string(), expected });
        }
    }
    Ok(longest)
}

/// Every source that is drawn has a sample.
fn check_sources(config: &OrderConfig, stages: &[ResolvedStage]) -> Result<()> {
    for stage in stages {
        let drawn = config.sources.iter().zip(&stage.weights).filter(|(_, weight)| **weight > 0);
        if let Some((source, _)) = drawn.into_iter().find(|(source, _)| source.tokens < stage.seq_len as u64)
        {
            return Err(Error::SmallSource {
                source_name: source.name.clone(),
                split: "train",
                tokens: source.tokens,
                what: "sequence",
                needed: stage.seq_len as u64,
                field: "seq_len",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mixing::{Batching, Mixing, Quota, Sampling, Shuffle};

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
        assert_eq!((order.length_change(0), order.length_change(300)), (Some(300), None));
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
        #![proptest_config(ProptestConfig::with_cases(32))]

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
