//! Batches from prepared data: training samples for any number of ranks, from any sample on.

mod batch;
mod config;
mod cursor;
mod sample_locator;
mod shard_set;

pub use batch::{Sample, SampleId, SampleLocation, TokenBatch};
pub use config::LoaderConfig;
pub use cursor::{AcceptedChange, Cursor};

use self::sample_locator::SampleLocator;
use self::shard_set::ShardSet;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::order::SamplePosition;
use crate::remote;

/// Samples of a rank that are fetched ahead from an object store.
const PREFETCH_SAMPLES: u64 = 512;

/// Iterator over the batches of a split.
///
/// Training samples come in the order of [`Order`](crate::order::Order). Evaluation samples are interleaved evenly over the
/// sources, whatever the seed. Batch `b` holds the samples from `b · batch_size` on, and rank `r` an equal share of them, in
/// order: the number of ranks does not change a step's samples. Samples of a batch are equally long: before a stage of
/// another length, a batch may be short.
#[derive(Debug)]
pub struct Loader {
    config: LoaderConfig,
    locator: SampleLocator,
    shards: ShardSet,
    next: Cursor,
    /// First sample that is not yet prefetched; `None` for local data.
    prefetched: Option<u64>,
}

impl Loader {
    /// Loader from the beginning, or from a cursor on.
    ///
    /// # Errors
    /// [`Error::Loader`](crate::Error::Loader) for an impossible configuration,
    /// [`Error::SmallSource`](crate::Error::SmallSource) for a source without a single sample,
    /// [`Error::Cursor`](crate::Error::Cursor) for a cursor of other data or settings.
    pub fn new(manifest: &Manifest, config: LoaderConfig, cursor: Option<Cursor>) -> Result<Self> {
        config.check(manifest.plan().row_tokens)?;
        let resumed = cursor.as_ref().and_then(Cursor::group);
        let group = config.mixing.batch_group.or(resumed).unwrap_or(config.batch_size as u64);
        let locator = SampleLocator::new(manifest, &config, group)?;
        let mut next = Cursor::start(manifest, &config, group);
        if let Some(cursor) = cursor {
            next = cursor.resume_as(next, &config.accept)?;
        }
        let prefetched = remote::is_remote(manifest.dir()).then_some(next.sample);
        Ok(Self { shards: ShardSet::new(manifest, config.split), config, locator, next, prefetched })
    }

    /// Cursor at the beginning of the next batch.
    pub fn cursor(&self) -> Cursor {
        self.next.clone()
    }

    /// Moves to the batch that begins with `sample`.
    pub fn seek(&mut self, sample: u64) {
        self.next.sample = sample;
        self.prefetched = self.prefetched.map(|_| sample);
    }

    /// Samples of step `step`, counted from 0, where all batches have this loader's size; empty after the end.
    pub fn step_samples(&self, step: u64) -> std::ops::Range<u64> {
        let (mut first, mut steps, size) = (0, step, self.config.batch_size as u64);
        loop {
            let end = self.locator.batch_end(first);
            let batches = end.saturating_sub(first).div_ceil(size);
            if steps < batches || first >= end {
                let first = (first + steps * size).min(end);
                return first..first.saturating_add(size).min(end);
            }
            (first, steps) = (end, steps - batches);
        }
    }

    /// Samples in the evaluation split; `None` for training, which has no end.
    pub fn eval_len(&self) -> Option<u64> {
        match &self.locator {
            SampleLocator::Train(_) => None,
            SampleLocator::Eval(samples, _) => Some(samples.len() as u64),
        }
    }

    /// Sample `index`. The evaluation split starts again after its end.
    ///
    /// # Errors
    /// [`Error::Shard`](crate::Error::Shard) for a damaged shard.
    pub fn sample(&mut self, index: u64) -> Result<Sample> {
        let position = self.locator.locate(index);
        let id = SampleId { index, source: position.source };
        let mut sample = Sample { id, tokens: Vec::new(), documents: Vec::new() };
        self.shards.read(position, &mut sample.tokens, &mut sample.documents)?;
        Ok(sample)
    }

    /// Location of sample `index` in the shards.
    pub fn location(&mut self, manifest: &Manifest, index: u64) -> SampleLocation {
        let SamplePosition { source, epoch, position, seq_len } = self.locator.locate(index);
        let (token, row_tokens) = (position * seq_len as u64, manifest.plan().row_tokens as u64);
        let row = self.shards.row_location(source, token / row_tokens);
        let file = &manifest.sources()[source].split(self.config.split).files[row.file];
        SampleLocation { epoch, shard: file.path.clone(), row: row.row, token: (token % row_tokens) as usize }
    }

    /// This rank's samples of the batch `first..end`.
    fn rank_range(&self, first: u64, end: u64) -> std::ops::Range<u64> {
        let share = (end - first).div_ceil(self.config.shares() as u64);
        let own_first = (first + share * (self.config.rank / self.config.replication) as u64).min(end);
        own_first..(own_first + share).min(end)
    }

    /// Starts to fetch this rank's next samples from an object store.
    fn prefetch_upcoming(&mut self) -> Result<()> {
        let Some(mut first) = self.prefetched else { return Ok(()) };
        let size = self.config.batch_size as u64;
        let until = self.next.sample + (PREFETCH_SAMPLES * self.config.world_size as u64).max(size);
        while first < until {
            let end = self.locator.batch_end(first).min(first + size);
            if end <= first {
                break;
            }
            for index in self.rank_range(first, end) {
                let position = self.locator.locate(index);
                self.shards.prefetch(position)?;
            }
            first = end;
        }
        self.prefetched = Some(first);
        Ok(())
    }

    /// Replaces the content of `batch` by the next batch, and reuses its memory; `false` after the last batch.
    ///
    /// # Errors
    /// [`Error::Shard`](crate::Error::Shard) for a damaged shard.
    pub fn fill(&mut self, batch: &mut TokenBatch) -> Result<bool> {
        let first = self.next.sample;
        let end = self.locator.batch_end(first).min(first + self.config.batch_size as u64);
        if first >= end {
            return Ok(false);
        }
        self.prefetch_upcoming()?;
        let own = self.rank_range(first, end);
        batch.reset((own.end - own.start) as usize, self.locator.locate(first).seq_len);
        let mut ahead = None;
        for index in own.clone() {
            let position = ahead.take().unwrap_or_else(|| self.locator.locate(index));
            // Samples in an object store were prefetched long before.
            if self.prefetched.is_none() && index + 1 < own.end {
                let next = self.locator.locate(index + 1);
                self.shards.prefetch(next)?;
                ahead = Some(next);
            }
            self.shards.read(position, &mut batch.tokens, &mut batch.documents)?;
            batch.samples.push(SampleId { index, source: position.source });
        }
        self.next.sample = end;
        Ok(true)
    }
}

impl Iterator for Loader {
    type Item = Result<TokenBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = TokenBatch::default();
        match self.fill(&mut batch) {
            Ok(true) => Some(Ok(batch)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
