//! Batches from prepared data: the samples of training, for any number of ranks, from any sample on.

mod cursor;
mod sample_locator;
mod shard_set;

pub use cursor::{AcceptedChange, Cursor};

use serde::Serialize;

use self::sample_locator::SampleLocator;
use self::shard_set::ShardSet;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::mixing::Mixing;
use crate::order::SamplePosition;
use crate::remote;

/// Samples of a rank that are fetched ahead where the data is in an object store.
const LOOK_AHEAD: u64 = 512;

/// What a loader gives.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderConfig {
    /// The split. Training goes on for ever; what is held out is gone through once.
    pub split: Split,
    /// Tokens in a sample: a multiple or a divisor of the rows' length.
    pub seq_len: usize,
    /// Seed of the order.
    pub seed: u64,
    /// How samples are drawn and ordered.
    pub mixing: Mixing,
    /// Samples in a batch, over all ranks.
    pub batch_size: usize,
    /// Processes that share each batch.
    pub world_size: usize,
    /// Which of them this is.
    pub rank: usize,
    /// Neighboring ranks that get the same samples, because they share one copy of the model.
    pub replication: usize,
    /// What may differ from what a cursor was taken with, by the names that refusals give; it is noted in the cursor.
    pub accept: Vec<String>,
}

/// Which sample it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleId {
    /// Its number in the order of the run.
    pub index: u64,
    /// The source, as a number in the order of the manifest.
    pub source: usize,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which one.
    pub id: SampleId,
    /// Its tokens, `[seq]`.
    pub tokens: Vec<u32>,
    /// The ordinal of the document each token belongs to, `[seq]`.
    pub documents: Vec<u64>,
}

/// A rank's samples of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Samples in it.
    pub batch: usize,
    /// Tokens in a sample.
    pub seq: usize,
    /// `[batch * seq]`.
    pub tokens: Vec<u32>,
    /// The ordinal of the document each token belongs to, `[batch * seq]`.
    pub documents: Vec<u64>,
    /// Which samples they are.
    pub samples: Vec<SampleId>,
}

/// Where a sample lies in the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleLocation {
    /// How often its source was gone through before.
    pub epoch: u64,
    /// The shard that its first token is in, relative to the data folder.
    pub shard: String,
    /// The row of that shard.
    pub row: u64,
    /// Its first token in that row.
    pub token: usize,
}

/// Gives batches of a split.
///
/// Training samples come in the order that [`Order`](crate::order::Order) gives; held-out ones so that every source is
/// spread evenly over them, whatever the seed. Batch `b` holds the samples from `b · batch_size` on, and rank `r` an equal
/// share of them, in order: the number of ranks does not change what a step sees. Samples of a batch are equally long:
/// where a stage brings another length, the batch before it may be short.
#[derive(Debug)]
pub struct Loader {
    config: LoaderConfig,
    places: SampleLocator,
    shards: ShardSet,
    next: Cursor,
    /// The first sample that was not announced; `None` where nothing need be.
    announced: Option<u64>,
}

impl LoaderConfig {
    /// All of a split for one process, sample by sample, as the data was made for.
    pub fn new(manifest: &Manifest, split: Split) -> Self {
        let plan = manifest.plan();
        Self {
            split,
            seq_len: plan.seq_len,
            seed: plan.seed,
            mixing: plan.mixing.clone(),
            batch_size: 1,
            world_size: 1,
            rank: 0,
            replication: 1,
            accept: Vec::new(),
        }
    }
}

impl Loader {
    /// Opens the data; with a cursor, at the place the cursor was taken.
    ///
    /// # Errors
    /// [`Error::Loader`] for an impossible configuration, [`Error::SmallSource`] for a source without a single sample,
    /// [`Error::Cursor`] when the cursor was taken with other data or settings.
    pub fn new(manifest: &Manifest, config: LoaderConfig, cursor: Option<Cursor>) -> Result<Self> {
        check(manifest, &config)?;
        let pinned = cursor.as_ref().and_then(Cursor::group);
        let group = config.mixing.batch_group.or(pinned).unwrap_or(config.batch_size as u64);
        let places = SampleLocator::new(manifest, &config, group)?;
        let mut next = Cursor::start(manifest, &config, group);
        if let Some(cursor) = cursor {
            next = cursor.continued(next, &config.accept)?;
        }
        let announced = remote::is_remote(manifest.dir()).then_some(next.sample);
        Ok(Self { shards: ShardSet::new(manifest, config.split), config, places, next, announced })
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> Cursor {
        self.next.clone()
    }

    /// Goes to the batch that begins with this sample.
    pub fn seek(&mut self, sample: u64) {
        self.next.sample = sample;
        self.announced = self.announced.map(|_| sample);
    }

    /// The samples of a step, counted from 0, where all batches are of this loader's size; none behind the end.
    pub fn samples_of(&self, step: u64) -> std::ops::Range<u64> {
        let (mut first, mut steps, size) = (0, step, self.config.batch_size as u64);
        loop {
            let end = self.places.batch_end(first);
            let batches = end.saturating_sub(first).div_ceil(size);
            if steps < batches || first >= end {
                let first = (first + steps * size).min(end);
                return first..first.saturating_add(size).min(end);
            }
            (first, steps) = (end, steps - batches);
        }
    }

    /// Sequences that the held-out split has; `None` for training, which does not end.
    pub fn eval_len(&self) -> Option<u64> {
        match &self.places {
            SampleLocator::Train(_) => None,
            SampleLocator::Eval(places, _) => Some(places.len() as u64),
        }
    }

    /// The sample with this number. The stream of held-out samples starts again after its end.
    ///
    /// # Errors
    /// [`Error::Shard`] when its shard is damaged.
    pub fn sample(&mut self, index: u64) -> Result<Sample> {
        let place = self.places.locate(index);
        let id = SampleId { index, source: place.source };
        let mut sample = Sample { id, tokens: Vec::new(), documents: Vec::new() };
        self.shards.read(place, &mut sample.tokens, &mut sample.documents)?;
        Ok(sample)
    }

    /// Where the sample with this number lies.
    pub fn place(&mut self, manifest: &Manifest, index: u64) -> SampleLocation {
        let SamplePosition { source, epoch, position, seq_len } = self.places.locate(index);
        let (token, row_tokens) = (position * seq_len as u64, manifest.plan().row_tokens as u64);
        let row = self.shards.place_of(source, token / row_tokens);
        let file = &manifest.sources()[source].split(self.config.split).files[row.file];
        SampleLocation { epoch, shard: file.path.clone(), row: row.row, token: (token % row_tokens) as usize }
    }

    /// This rank's part of the batch of samples `first..end`.
    fn share(&self, first: u64, end: u64) -> (u64, u64) {
        let parts = (self.config.world_size / self.config.replication) as u64;
        let share = (end - first).div_ceil(parts);
        let own_first = (first + share * (self.config.rank / self.config.replication) as u64).min(end);
        (own_first, (own_first + share).min(end))
    }

    /// Says what this rank will need soon, so that it is fetched ahead.
    fn announce(&mut self) -> Result<()> {
        let Some(mut first) = self.announced else { return Ok(()) };
        let size = self.config.batch_size as u64;
        let until = self.next.sample + (LOOK_AHEAD * self.config.world_size as u64).max(size);
        while first < until {
            let end = self.places.batch_end(first).min(first + size);
            if end <= first {
                break;
            }
            let (own_first, own_end) = self.share(first, end);
            for index in own_first..own_end {
                let place = self.places.locate(index);
                self.shards.expect(place)?;
            }
            first = end;
        }
        self.announced = Some(first);
        Ok(())
    }

    /// Puts the next batch in place of what `batch` holds, whose memory is used again. `false`: there is none.
    ///
    /// # Errors
    /// [`Error::Shard`] when a shard is damaged.
    pub fn fill(&mut self, batch: &mut TokenBatch) -> Result<bool> {
        let first = self.next.sample;
        let end = self.places.batch_end(first).min(first + self.config.batch_size as u64);
        if first >= end {
            return Ok(false);
        }
        self.announce()?;
        let (own_first, own_end) = self.share(first, end);
        batch.tokens.clear();
        batch.documents.clear();
        batch.samples.clear();
        batch.batch = (own_end - own_first) as usize;
        batch.seq = self.places.locate(first).seq_len;
        let tokens = batch.batch * batch.seq;
        batch.tokens.reserve(tokens);
        batch.documents.reserve(tokens);
        let mut ahead = None;
        for index in own_first..own_end {
            let place = ahead.take().unwrap_or_else(|| self.places.locate(index));
            // What lies in an object store was announced long before.
            if self.announced.is_none() && index + 1 < own_end {
                let next = self.places.locate(index + 1);
                self.shards.expect(next)?;
                ahead = Some(next);
            }
            self.shards.read(place, &mut batch.tokens, &mut batch.documents)?;
            batch.samples.push(SampleId { index, source: place.source });
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

fn check(manifest: &Manifest, config: &LoaderConfig) -> Result<()> {
    let wrong = |field, actual: usize, expected: String| {
        Err(Error::Loader { field, actual: actual.to_string(), expected })
    };
    let (seq, row) = (config.seq_len, manifest.plan().row_tokens);
    if seq == 0 || (!seq.is_multiple_of(row) && !row.is_multiple_of(seq)) {
        return wrong(
            "seq_len",
            seq,
            format!(
                "a multiple or a divisor of the rows' {row} tokens; else build the data with another `seq_len`"
            ),
        );
    }
    if config.batch_size == 0 || config.world_size == 0 {
        return wrong("batch_size", config.batch_size, "1 or more, and a `world_size` of 1 or more".into());
    }
    if config.rank >= config.world_size {
        return wrong("rank", config.rank, format!("below `world_size`, which is {}", config.world_size));
    }
    if config.replication == 0 || !config.world_size.is_multiple_of(config.replication) {
        let expected = format!("a divisor of `world_size`, which is {}", config.world_size);
        return wrong("replication", config.replication, expected);
    }
    let parts = config.world_size / config.replication;
    if !config.batch_size.is_multiple_of(parts) {
        return wrong("batch_size", config.batch_size, multiple_of_parts(config.replication, parts));
    }
    Ok(())
}

fn multiple_of_parts(replication: usize, parts: usize) -> String {
    let what = if replication == 1 { "`world_size`" } else { "`world_size` over `replication`" };
    format!("a multiple of {what}, which is {parts}")
}
