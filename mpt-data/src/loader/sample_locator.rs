//! Sample locator: from a sample's index to its position in a source, for either split.

use super::LoaderConfig;
use crate::error::Result;
use crate::manifest::{Manifest, SourceRecord, Split};
use crate::order::{Order, OrderConfig, OrderSource, SamplePosition};

impl OrderConfig {
    /// Order of a loader's training samples.
    pub fn from_manifest(manifest: &Manifest, config: &LoaderConfig) -> Self {
        let row_tokens = manifest.plan().row_tokens;
        let source = |source: &SourceRecord| OrderSource {
            name: source.name.clone(),
            share: source.proportion,
            tokens: source.split(config.split).rows * row_tokens as u64,
        };
        Self {
            sources: manifest.sources().iter().map(source).collect(),
            row_tokens,
            seq_len: config.seq_len,
            seed: config.seed,
            mixing: config.mixing.clone(),
            group: config.mixing.batch_group.unwrap_or(config.batch_size as u64),
        }
    }
}

/// Positions of the samples of a split.
#[derive(Debug)]
pub(super) enum SampleLocator {
    /// Endless order of training.
    Train(Box<Order>),
    /// Source and position of each sample of one pass, and tokens in a sample.
    Eval(Vec<(u16, u64)>, usize),
}

impl SampleLocator {
    pub(super) fn new(manifest: &Manifest, config: &LoaderConfig, group: u64) -> Result<Self> {
        let tokens =
            |source: &SourceRecord| source.split(config.split).rows * manifest.plan().row_tokens as u64;
        if config.split == Split::Eval {
            let samples = |source| tokens(source) / config.seq_len as u64;
            let counts: Vec<_> = manifest.sources().iter().map(samples).collect();
            return Ok(Self::Eval(interleave(&counts), config.seq_len));
        }
        let order = OrderConfig { group, ..OrderConfig::from_manifest(manifest, config) };
        Ok(Self::Train(Box::new(Order::new(&order)?)))
    }

    /// Position of sample `index`.
    pub(super) fn locate(&mut self, index: u64) -> SamplePosition {
        match self {
            Self::Train(order) => order.locate(index),
            Self::Eval(samples, seq_len) => {
                let len = samples.len() as u64;
                let (source, position) = samples[(index % len) as usize];
                let source = usize::from(source);
                SamplePosition { source, epoch: index / len, position, seq_len: *seq_len }
            }
        }
    }

    /// Latest end of a batch that begins with sample `first`.
    pub(super) fn batch_end(&self, first: u64) -> u64 {
        match self {
            Self::Train(order) => order.next_length_change(first).unwrap_or(u64::MAX),
            Self::Eval(samples, _) => samples.len() as u64,
        }
    }
}

/// Positions of all sources in one list, of which every prefix has the sources in their proportions.
fn interleave(counts: &[u64]) -> Vec<(u16, u64)> {
    let of_source =
        |(source, &count): (usize, &u64)| (0..count).map(move |position| (source as u16, position));
    let mut samples: Vec<_> = counts.iter().enumerate().flat_map(of_source).collect();
    // The middle of position p of n is at (2p + 1) / 2n of the whole.
    samples.sort_by(|a, b| {
        let key =
            |sample: &(u16, u64)| (2 * u128::from(sample.1) + 1, u128::from(counts[usize::from(sample.0)]));
        let ((a_middle, a_count), (b_middle, b_count)) = (key(a), key(b));
        (a_middle * b_count).cmp(&(b_middle * a_count)).then(a.cmp(b))
    });
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_prefixes_hold_every_source_in_its_share() {
        let counts = [50, 0, 5, 10];
        let places = interleave(&counts);
        assert_eq!(places.len(), 65);
        for n in 1..=65 {
            for (source, &count) in counts.iter().enumerate() {
                let found = places[..n].iter().filter(|place| usize::from(place.0) == source).count() as f64;
                assert!((found - count as f64 * n as f64 / 65.0).abs() <= 1.5, "{n} {source} {found}");
            }
        }
    }
}
