//! Simulation of a run's reads and of its shuffle, from the real order of its samples.
//!
//! Nothing is read. Each node has an LRU cache of its own.

mod lru_cache;
mod spread;

pub use spread::{Spread, SpreadMeter, true_shuffle_entropy};

use std::collections::BTreeSet;

use serde::Serialize;

use self::lru_cache::LruCache;
use crate::error::{Error, Result};
use crate::layout::{GROUP_ROWS, RowLayout};
use crate::order::{Order, OrderConfig, OrderSource, SamplePosition};

/// Settings of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulateConfig {
    /// Order of the samples.
    pub order: OrderConfig,
    /// Size of the vocabulary, which decides the bytes of a token.
    pub vocab_size: usize,
    /// First sample.
    pub start: u64,
    /// Samples.
    pub samples: u64,
    /// Samples in a batch, over all ranks.
    pub batch_size: u64,
    /// Processes that share each batch.
    pub world_size: u64,
    /// Machines, each with an equal number of processes.
    pub nodes: u64,
    /// Bytes of each machine's cache.
    pub cache_bytes: u64,
    /// Dollars for a thousand requests.
    pub price_per_1000: f64,
}

/// Result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// First sample.
    pub start: u64,
    /// Samples simulated.
    pub samples: u64,
    /// Tokens of the samples.
    pub tokens: u64,
    /// Traffic of reads by row.
    pub row_mode: Traffic,
    /// Traffic of reads by row group.
    pub chunk_mode: Traffic,
    /// Reads of each source.
    pub sources: Vec<SourceSimulation>,
}

/// Requests to storage, of all machines together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests, a range each.
    pub requests: u64,
    /// Bytes transferred.
    pub bytes: u64,
    /// Cost of the requests, in dollars.
    pub cost: f64,
    /// Share of the reads that the caches served.
    pub cache_hit_rate: f64,
}

/// Reads of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceSimulation {
    /// Name of the source.
    pub source: String,
    /// Samples.
    pub samples: u64,
    /// Epochs from the beginning of the run to the last sample.
    pub epochs: f64,
    /// Distinct row groups read.
    pub chunks: u64,
    /// Spread of consecutive samples.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Simulates the reads of a run.
///
/// # Errors
/// [`Error::Loader`] for an impossible order, or ranks that cannot share batches.
pub fn simulate(config: &SimulateConfig) -> Result<Simulation> {
    check(config)?;
    let mut order = Order::new(&config.order)?;
    let layout = RowLayout::new(config.order.row_tokens, config.vocab_size);
    let mut nodes: Vec<_> = (0..config.nodes).map(|_| Node::new(config.cache_bytes, layout)).collect();
    let seq_len = config.order.seq_len.max(1) as u64;
    let reads = |source: &OrderSource| SourceReads::new(source.tokens, seq_len);
    let mut sources: Vec<_> = config.order.sources.iter().map(reads).collect();
    let mut tokens = 0;
    for index in config.start..config.start + config.samples {
        let position = order.locate(index);
        tokens += position.seq_len as u64;
        // Each rank has an equal share of a batch, in order, and a machine has consecutive ranks.
        let node = index % config.batch_size * config.nodes / config.batch_size;
        nodes[node as usize].request(position, config.order.row_tokens as u64);
        sources[position.source].record(position, config.order.row_tokens as u64);
    }
    let all = order.tokens(config.start + config.samples);
    let sources = sources.into_iter().zip(&config.order.sources).zip(all).map(|((reads, source), tokens)| {
        let epochs = tokens as f64 / source.tokens as f64;
        reads.done(source.name.clone(), epochs)
    });
    let sources = sources.collect();
    let traffic = |cache: fn(&Node) -> &LruCache| Traffic::of(nodes.iter().map(cache), config.price_per_1000);
    let (row_mode, chunk_mode) = (traffic(|node| &node.rows), traffic(|node| &node.chunks));
    Ok(Simulation { start: config.start, samples: config.samples, tokens, row_mode, chunk_mode, sources })
}

impl Traffic {
    /// Traffic of all caches together.
    fn of<'a>(caches: impl Iterator<Item = &'a LruCache>, price_per_1000: f64) -> Self {
        let mut traffic = Self::default();
        let (mut wanted, mut missed) = (0, 0);
        for cache in caches {
            traffic.requests += cache.requests;
            traffic.bytes += cache.bytes;
            wanted += cache.wanted;
            missed += cache.missed;
        }
        traffic.cost = traffic.requests as f64 / 1000.0 * price_per_1000;
        traffic.cache_hit_rate = 1.0 - missed as f64 / (wanted as f64).max(1.0);
        traffic
    }
}

fn check(config: &SimulateConfig) -> Result<()> {
    let wrong = |field, actual: u64, expected: String| {
        Err(Error::Loader { field, actual: actual.to_string(), expected })
    };
    if config.nodes == 0 || config.world_size == 0 || !config.world_size.is_multiple_of(config.nodes) {
        return wrong(
            "nodes",
            config.nodes,
            format!("a divisor of `world_size`, which is {}", config.world_size),
        );
    }
    if config.batch_size == 0 || !config.batch_size.is_multiple_of(config.world_size) {
        let expected = format!("a multiple of `world_size`, which is {}", config.world_size);
        return wrong("batch_size", config.batch_size, expected);
    }
    Ok(())
}

/// Machine with two caches: for reads by row, and for reads by row group.
struct Node {
    rows: LruCache,
    chunks: LruCache,
}

impl Node {
    fn new(cache_bytes: u64, layout: RowLayout) -> Self {
        let row_bytes = (layout.tokens_width() + layout.meta_width()) as u64;
        // The two columns of a row are two ranges; those of a row group are adjacent.
        Self {
            rows: LruCache::new(cache_bytes, row_bytes, 2),
            chunks: LruCache::new(cache_bytes, row_bytes * GROUP_ROWS, 1),
        }
    }

    fn request(&mut self, position: SamplePosition, row_tokens: u64) {
        let rows = rows_of(position, row_tokens);
        let chunk = |row: u64| row / GROUP_ROWS;
        self.chunks.request(position.source, chunk(rows.start)..chunk(rows.end - 1) + 1, false);
        // The rows of a sample are adjacent, and are as many ranges as one row.
        self.rows.request(position.source, rows, true);
    }
}

/// Rows of a sample in its source.
fn rows_of(position: SamplePosition, row_tokens: u64) -> std::ops::Range<u64> {
    let first = position.position * position.seq_len as u64;
    first / row_tokens..(first + position.seq_len as u64).div_ceil(row_tokens)
}

/// Reads of a source so far.
struct SourceReads {
    samples: u64,
    chunks: BTreeSet<u64>,
    meter: SpreadMeter,
    seq_len: u64,
}

impl SourceReads {
    /// No reads of a source of `tokens` tokens, in samples of `seq_len`.
    fn new(tokens: u64, seq_len: u64) -> Self {
        Self { samples: 0, chunks: BTreeSet::new(), meter: SpreadMeter::new(tokens / seq_len), seq_len }
    }

    fn record(&mut self, position: SamplePosition, row_tokens: u64) {
        self.samples += 1;
        self.chunks.insert(rows_of(position, row_tokens).start / GROUP_ROWS);
        self.meter.record(position.position * position.seq_len as u64 / self.seq_len);
    }

    fn done(self, source: String, epochs: f64) -> SourceSimulation {
        SourceSimulation {
            source,
            samples: self.samples,
            epochs,
            chunks: self.chunks.len() as u64,
            spread: self.meter.done(),
        }
    }
}
