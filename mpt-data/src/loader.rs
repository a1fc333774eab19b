//! The loader: samples of prepared data, in the order of training, from any sample on.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::order::{Mix, Order};
use crate::pack::is_start;
use crate::shard::{RowLayout, Scratch, ShardReader, get_tokens};

/// Shards held open at most; opening one again costs no read of its content.
const MAX_OPEN: usize = 256;
/// Hex digits of a hash that a cursor keeps.
const CURSOR_DIGITS: usize = 16;

/// What a loader gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// The split. Training goes on for ever; what is held out is gone through once.
    pub split: Split,
    /// Tokens in a sample: a multiple or a divisor of the rows' length.
    pub seq_len: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Samples in a batch, over all ranks.
    pub batch_size: usize,
    /// Processes that share each batch.
    pub world_size: usize,
    /// Which of them this is.
    pub rank: usize,
}

/// Where a run is in its data: all that must be kept to go on exactly there. A few hundred bytes as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The next sample, counted over all ranks since the beginning of the run.
    pub sample: u64,
    seed: u64,
    seq_len: usize,
    tokenizer: String,
    mix: String,
    manifest: String,
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Gives batches of a split.
///
/// Training samples come in the order that [`Order`] gives for the seed; held-out ones so that every source is spread
/// evenly over them, whatever the seed. Batch `b` holds the samples from `b · batch_size` on, and rank `r` an equal share
/// of them, in order: the number of ranks does not change what a step sees.
#[derive(Debug)]
pub struct Loader {
    config: LoaderConfig,
    places: Places,
    shards: Shards,
    next: Cursor,
}

impl Loader {
    /// Opens the data; with a cursor, at the place the cursor was taken.
    ///
    /// # Errors
    /// [`Error::Loader`] for an impossible configuration, [`Error::SmallSource`] for a source without a single sample,
    /// [`Error::Cursor`] when the cursor was taken with other data or settings.
    pub fn new(manifest: &Manifest, config: LoaderConfig, cursor: Option<Cursor>) -> Result<Self> {
        check(manifest, &config)?;
        let places = Places::new(manifest, &config)?;
        let mut next = Cursor::start(manifest, &config);
        if let Some(cursor) = cursor {
            next.sample = cursor.accepted_by(&next)?;
        }
        Ok(Self { shards: Shards::new(manifest, &config), config, places, next })
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> Cursor {
        self.next.clone()
    }

    /// Sequences that the held-out split has; `None` for training, which does not end.
    pub fn eval_len(&self) -> Option<u64> {
        match &self.places {
            Places::Train(_) => None,
            Places::Eval(places) => Some(places.len() as u64),
        }
    }

    /// The sample with this number. The stream of held-out samples starts again after its end.
    ///
    /// # Errors
    /// [`Error::Shard`] when its shard is damaged.
    pub fn sample(&mut self, index: u64) -> Result<Sample> {
        let (source, position) = self.places.locate(index);
        let mut sample = Sample { id: SampleId { index, source }, tokens: Vec::new(), documents: Vec::new() };
        self.shards.read(source, position, &mut sample.tokens, &mut sample.documents)?;
        Ok(sample)
    }

    fn batch(&mut self) -> Result<Option<TokenBatch>> {
        let first = self.next.sample;
        let end = first + self.config.batch_size as u64;
        let end = self.eval_len().map_or(end, |len| end.min(len));
        if first >= end {
            return Ok(None);
        }
        let share = (end - first).div_ceil(self.config.world_size as u64);
        let own_first = (first + share * self.config.rank as u64).min(end);
        let own_end = (own_first + share).min(end);
        let mut batch = TokenBatch {
            batch: (own_end - own_first) as usize,
            seq: self.config.seq_len,
            tokens: Vec::new(),
            documents: Vec::new(),
            samples: Vec::new(),
        };
        for index in own_first..own_end {
            let (source, position) = self.places.locate(index);
            self.shards.read(source, position, &mut batch.tokens, &mut batch.documents)?;
            batch.samples.push(SampleId { index, source });
        }
        self.next.sample = end;
        Ok(Some(batch))
    }
}

impl Iterator for Loader {
    type Item = Result<TokenBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

impl Cursor {
    fn start(manifest: &Manifest, config: &LoaderConfig) -> Self {
        let short = |hash: &str| hash[..CURSOR_DIGITS.min(hash.len())].to_owned();
        let mix: Vec<_> = manifest.sources().iter().map(|source| (&source.name, source.proportion)).collect();
        let mix = serde_json::to_vec(&mix).expect("names and finite numbers");
        Self {
            sample: 0,
            seed: config.seed,
            seq_len: config.seq_len,
            tokenizer: short(&manifest.plan().tokenizer),
            mix: format!("{:016x}", xxh3_64(&mix)),
            manifest: short(manifest.root()),
        }
    }

    /// The sample to go on from, if everything that decides the order is as it was.
    fn accepted_by(self, now: &Self) -> Result<u64> {
        let pairs = [
            ("tokenizer", self.tokenizer, now.tokenizer.clone()),
            ("data.seed", self.seed.to_string(), now.seed.to_string()),
            ("data.seq_len", self.seq_len.to_string(), now.seq_len.to_string()),
            ("mix", self.mix, now.mix.clone()),
            ("manifest", self.manifest, now.manifest.clone()),
        ];
        match pairs.into_iter().find(|(_, expected, actual)| expected != actual) {
            Some((field, expected, actual)) => Err(Error::Cursor { field, expected, actual }),
            None => Ok(self.sample),
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
    if !config.batch_size.is_multiple_of(config.world_size) {
        return wrong(
            "batch_size",
            config.batch_size,
            format!("a multiple of `world_size`, which is {}", config.world_size),
        );
    }
    Ok(())
}

/// From the number of a sample to its source and its position there.
#[derive(Debug)]
enum Places {
    Train(Box<Order>),
    Eval(Vec<(u16, u64)>),
}

impl Places {
    fn new(manifest: &Manifest, config: &LoaderConfig) -> Result<Self> {
        let samples = |source: &crate::SourceRecord| {
            source.split(config.split).rows * manifest.plan().row_tokens as u64 / config.seq_len as u64
        };
        let sources = manifest.sources();
        let counts: Vec<_> = sources.iter().map(samples).collect();
        if config.split == Split::Eval {
            return Ok(Self::Eval(spread(&counts)));
        }
        if let Some(source) = counts.iter().position(|&count| count == 0) {
            return Err(Error::SmallSource {
                source_name: sources[source].name.clone(),
                split: config.split.name(),
                tokens: sources[source].split(config.split).tokens,
                what: "sequence",
                needed: config.seq_len as u64,
                field: "seq_len",
            });
        }
        let proportions: Vec<_> = sources.iter().map(|source| source.proportion).collect();
        let names = sources.iter().map(|source| source.name.clone()).collect();
        Ok(Self::Train(Box::new(Order::new(Mix::new(&proportions)?, names, counts, config.seed))))
    }

    fn locate(&mut self, index: u64) -> (usize, u64) {
        match self {
            Self::Train(order) => {
                let place = order.locate(index);
                (place.source, place.position)
            }
            Self::Eval(places) => {
                let (source, position) = places[(index % places.len() as u64) as usize];
                (usize::from(source), position)
            }
        }
    }
}

/// All positions of all sources, such that the first of them are spread over the sources as all of them are.
fn spread(counts: &[u64]) -> Vec<(u16, u64)> {
    let of_source =
        |(source, &count): (usize, &u64)| (0..count).map(move |position| (source as u16, position));
    let mut places: Vec<_> = counts.iter().enumerate().flat_map(of_source).collect();
    // The middle of position p of n lies at (2p + 1) / 2n of the whole.
    places.sort_by(|a, b| {
        let key =
            |place: &(u16, u64)| (2 * u128::from(place.1) + 1, u128::from(counts[usize::from(place.0)]));
        let ((a_middle, a_count), (b_middle, b_count)) = (key(a), key(b));
        (a_middle * b_count).cmp(&(b_middle * a_count)).then(a.cmp(b))
    });
    places
}

/// The shards of a split, opened when they are needed.
#[derive(Debug)]
struct Shards {
    manifest: Manifest,
    split: Split,
    layout: RowLayout,
    seq_len: usize,
    open: HashMap<(usize, usize), ShardReader>,
    scratch: Scratch,
}

impl Shards {
    fn new(manifest: &Manifest, config: &LoaderConfig) -> Self {
        Self {
            manifest: manifest.clone(),
            split: config.split,
            layout: manifest.layout(),
            seq_len: config.seq_len,
            open: HashMap::new(),
            scratch: Scratch::default(),
        }
    }

    /// Appends the tokens and documents of the sample at a position of a source.
    fn read(
        &mut self,
        source: usize,
        position: u64,
        tokens: &mut Vec<u32>,
        documents: &mut Vec<u64>,
    ) -> Result<()> {
        let row_tokens = self.layout.row_tokens as u64;
        let first_token = position * self.seq_len as u64;
        let first_row = first_token / row_tokens;
        let skip = (first_token % row_tokens) as usize;
        let end = tokens.len() + self.seq_len;
        for row in first_row..first_row + (self.seq_len as u64).div_ceil(row_tokens) {
            let take = self.seq_len.min(self.layout.row_tokens);
            self.read_row(source, row, skip, take, tokens, documents)?;
        }
        debug_assert_eq!(tokens.len(), end);
        Ok(())
    }

    /// Appends `take` tokens of a row, from token `skip` on.
    fn read_row(
        &mut self,
        source: usize,
        row: u64,
        skip: usize,
        take: usize,
        tokens: &mut Vec<u32>,
        documents: &mut Vec<u64>,
    ) -> Result<()> {
        let (file, inside) = self.file_of(source, row);
        self.open(source, file)?;
        let (layout, shard) = (self.layout, &self.open[&(source, file)]);
        shard.rows(inside, 1, &mut self.scratch, |bytes| {
            let wanted = skip * layout.token_bytes..(skip + take) * layout.token_bytes;
            get_tokens(&bytes.tokens[wanted], layout.token_bytes, tokens);
            // A start at token 0 is the start of the document the row names.
            let starts_before =
                |at: usize| (1..=at).filter(|&at| is_start(bytes.starts(), at)).count() as u64;
            let mut document = bytes.document() + starts_before(skip);
            documents.push(document);
            for at in skip + 1..skip + take {
                document += u64::from(is_start(bytes.starts(), at));
                documents.push(document);
            }
        })
    }

    /// The file that holds a row of a source, and the row's place in it.
    fn file_of(&self, source: usize, row: u64) -> (usize, u64) {
        let files = &self.manifest.sources()[source].split(self.split).files;
        let mut rest = row;
        for (index, file) in files.iter().enumerate() {
            if rest < file.rows {
                return (index, rest);
            }
            rest -= file.rows;
        }
        unreachable!("row {row} of source {source} is within the manifest's counts")
    }

    fn open(&mut self, source: usize, file: usize) -> Result<()> {
        if self.open.contains_key(&(source, file)) {
            return Ok(());
        }
        if self.open.len() == MAX_OPEN {
            self.open.clear();
        }
        let record = &self.manifest.sources()[source].split(self.split).files[file];
        let dir: &Path = self.manifest.dir();
        let reader = ShardReader::open(dir, record, self.layout)?;
        self.open.insert((source, file), reader);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_prefixes_hold_every_source_in_its_share() {
        let counts = [50, 0, 5, 10];
        let places = spread(&counts);
        assert_eq!(places.len(), 65);
        for n in 1..=65 {
            for (source, &count) in counts.iter().enumerate() {
                let found = places[..n].iter().filter(|place| usize::from(place.0) == source).count() as f64;
                assert!((found - count as f64 * n as f64 / 65.0).abs() <= 1.5, "{n} {source} {found}");
            }
        }
    }
}
