//! Stages of an order: shares and lengths as the settings give them, with what a stage takes over from the one before.

use std::collections::BTreeMap;

use super::config::{OrderConfig, OrderSource};
use super::exact_sampler::weights_from_proportions;
use crate::error::{Error, Result};
use crate::mixing::{Share, StageConfig};

/// Stage with all its settings.
pub(super) struct ResolvedStage {
    /// First sample.
    pub(super) from: u64,
    /// Weight of each source; 0 for a source that is not drawn.
    pub(super) weights: Vec<u64>,
    /// Tokens in a sample.
    pub(super) seq_len: usize,
}

/// All stages, the first from sample 0 on.
pub(super) fn resolve_stages(config: &OrderConfig) -> Result<Vec<ResolvedStage>> {
    let mut current = ResolvedStage { from: 0, weights: base_weights(config)?, seq_len: config.seq_len };
    let mut resolved = Vec::new();
    for stage in &config.mixing.stages {
        let next = ResolvedStage {
            from: stage.from,
            weights: stage_weights(config, stage)?.unwrap_or_else(|| current.weights.clone()),
            seq_len: stage.seq_len.unwrap_or(current.seq_len),
        };
        let last = std::mem::replace(&mut current, next);
        if last.from < current.from {
            resolved.push(last);
        }
    }
    resolved.push(current);
    Ok(resolved)
}

/// Weights from the shares of the sources.
fn base_weights(config: &OrderConfig) -> Result<Vec<u64>> {
    let proportion = |source: &OrderSource| match source.share {
        Share::Proportion(share) => Some(share),
        Share::Quota(_) => None,
    };
    let proportions: Vec<_> = config.sources.iter().filter_map(proportion).collect();
    if proportions.len() == config.sources.len() {
        return weights_from_proportions(&proportions);
    }
    config.sources.iter().map(|source| quota_samples(source, config.seq_len)).collect()
}

/// Samples of a source with a quota.
fn quota_samples(source: &OrderSource, seq_len: usize) -> Result<u64> {
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

/// Weights of a stage, 0 for a source without a proportion; `None` for a stage without proportions.
fn stage_weights(config: &OrderConfig, stage: &StageConfig) -> Result<Option<Vec<u64>>> {
    if stage.proportions.is_empty() {
        return Ok(None);
    }
    let named: Vec<_> = stage.proportions.iter().collect();
    let weights = weights_from_proportions(&named.iter().map(|(_, share)| **share).collect::<Vec<_>>())?;
    let by_name: BTreeMap<_, _> = named.into_iter().map(|(name, _)| name.as_str()).zip(weights).collect();
    let weight = |source: &OrderSource| by_name.get(source.name.as_str()).copied().unwrap_or(0);
    Ok(Some(config.sources.iter().map(weight).collect()))
}

/// Checks every sample length against rows and against the other lengths, and returns the longest.
pub(super) fn check_lengths(config: &OrderConfig, stages: &[ResolvedStage]) -> Result<usize> {
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

/// Checks that every drawn source has at least one sample.
pub(super) fn check_sources(config: &OrderConfig, stages: &[ResolvedStage]) -> Result<()> {
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
