//! What a run will ask of its storage and how well it is shuffled, from the real order of its samples.
//!
//! Nothing is read. Each node has a cache of its own, which forgets what was used the longest time ago.

mod lru_cache;
mod spread;

pub use spread::{Spread, SpreadMeter, true_shuffle_entropy};

use std::collections::BTreeSet;

use serde::Serialize;

use self::lru_cache::LruCache;
use crate::error::{Error, Result};
use crate::layout::{GROUP_ROWS, RowLayout};
use crate::order::{Order, OrderConfig, OrderSource, SamplePosition};

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulateConfig {
    /// The order.
    pub order: OrderConfig,
    /// Ids of the vocabulary, which decide the bytes of a token.
    pub vocab_size: usize,
    /// The first sample.
    pub start: u64,
    /// How many.
    pub samples: u64,
    /// Samples in a batch, over all ranks.
    pub batch_size: u64,
    /// Processes that share each batch.
    pub world_size: u64,
    /// Machines, each with an equal number of processes.
    pub nodes: u64,
    /// Bytes that each machine may keep.
    pub cache_bytes: u64,
    /// Dollars for a thousand requests.
    pub price_per_1000: f64,
}

/// What the run asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// The first sample.
    pub start: u64,
    /// How many were gone through.
    pub samples: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Reading what a sample needs and nothing else.
    pub row_mode: Traffic,
    /// Reading whole row groups.
    pub chunk_mode: Traffic,
    /// By source.
    pub sources: Vec<SourceSimulation>,
}

/// Requests to storage, of all machines together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests, a range each.
    pub requests: u64,
    /// Bytes that they bring.
    pub bytes: u64,
    /// Dollars for the requests.
    pub cost: f64,
    /// The share of what was wanted that was there already.
    pub cache_hit_rate: f64,
}

/// What a source gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceSimulation {
    /// Its name.
    pub source: String,
    /// Its samples.
    pub samples: u64,
    /// How often it was gone through, from the beginning of the run to the last sample.
    pub epochs: f64,
    /// Different row groups that were touched.
    pub chunks: u64,
    /// How far apart samples after one another lie.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Goes through the samples.
///
/// # Errors
/// [`Error::Loader`] for an impossible order or a world that cannot share batches.
pub fn simulate(config: &SimulateConfig) -> Result<Simulation> {
    check(config)?;
    let mut order = Order::new(&config.order)?;
    let layout = RowLayout::new(config.order.row_tokens, config.vocab_size);
    let mut nodes: Vec<_> = (0..config.nodes).map(|_| Node::new(config.cache_bytes, layout)).collect();
    let seq_len = config.order.seq_len.max(1) as u64;
    let seen = |source: &OrderSource| SourceReads::new(source.tokens, seq_len);
    let mut sources: Vec<_> = config.order.sources.iter().map(seen).collect();
    let mut tokens = 0;
    for index in config.start..config.start + config.samples {
        let place = order.locate(index);
        tokens += place.seq_len as u64;
        // Rank r of a batch has an equal share of it, in order; a machine has ranks next to each other.
        let node = index % config.batch_size * config.nodes / config.batch_size;
        nodes[node as usize].want(place, config.order.row_tokens as u64);
        sources[place.source].see(place, config.order.row_tokens as u64);
    }
    let all = order.tokens(config.start + config.samples);
    let sources = sources.into_iter().zip(&config.order.sources).zip(all).map(|((seen, source), tokens)| {
        let epochs = tokens as f64 / source.tokens as f64;
        seen.done(source.name.clone(), epochs)
    });
    let sources = sources.collect();
    let sum = |of: fn(&Node) -> &LruCache| {
        let mut traffic = Traffic::default();
        let (mut wanted, mut missed) = (0, 0);
        for cache in nodes.iter().map(of) {
            traffic.requests += cache.requests;
            traffic.bytes += cache.bytes;
            wanted += cache.wanted;
            missed += cache.missed;
        }
        traffic.cost = traffic.requests as f64 / 1000.0 * config.price_per_1000;
        traffic.cache_hit_rate = 1.0 - missed as f64 / (wanted as f64).max(1.0);
        traffic
    };
    let (row_mode, chunk_mode) = (sum(|node| &node.rows), sum(|node| &node.chunks));
    Ok(Simulation { start: config.start, samples: config.samples, tokens, row_mode, chunk_mode, sources })
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

/// A machine: what it would keep if it read rows, and if it read row groups.
struct Node {
    rows: LruCache,
    chunks: LruCache,
}

impl Node {
    fn new(cache_bytes: u64, layout: RowLayout) -> Self {
        let row_bytes = (layout.tokens_width() + layout.meta_width()) as u64;
        // The two columns of a single row are two ranges; those of a row group lie one behind the other.
        Self {
            rows: LruCache::new(cache_bytes, row_bytes, 2),
            chunks: LruCache::new(cache_bytes, row_bytes * GROUP_ROWS, 1),
        }
    }

    fn want(&mut self, place: SamplePosition, row_tokens: u64) {
        let rows = rows_of(place, row_tokens);
        let chunk = |row: u64| row / GROUP_ROWS;
        self.chunks.want(place.source, chunk(rows.start)..chunk(rows.end - 1) + 1, false);
        // The rows of a sample lie one after the other: together they are as many ranges as one.
        self.rows.want(place.source, rows, true);
    }
}

/// The rows of a sample, counted in its source.
fn rows_of(place: SamplePosition, row_tokens: u64) -> std::ops::Range<u64> {
    let first = place.position * place.seq_len as u64;
    first / row_tokens..(first + place.seq_len as u64).div_ceil(row_tokens)
}

/// What was seen of a source.
struct SourceReads {
    samples: u64,
    chunks: BTreeSet<u64>,
    meter: SpreadMeter,
    seq_len: u64,
}

impl SourceReads {
    /// Nothing of a source of so many tokens, with samples of this length at first.
    fn new(tokens: u64, seq_len: u64) -> Self {
        Self { samples: 0, chunks: BTreeSet::new(), meter: SpreadMeter::new(tokens / seq_len), seq_len }
    }

    fn see(&mut self, place: SamplePosition, row_tokens: u64) {
        self.samples += 1;
        self.chunks.insert(rows_of(place, row_tokens).start / GROUP_ROWS);
        self.meter.see(place.position * place.seq_len as u64 / self.seq_len);
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
