//! Shuffle order of some samples of a source: a permutation across blocks of the epoch, and one within neighboring blocks.

use super::permutation::{GOLDEN, Permutation, epoch_key, mix64};
use crate::mixing::Shuffle;

/// Settings of a source's shuffle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shuffler {
    pub(super) kind: Shuffle,
    /// Chunks in a window.
    pub(super) window: u64,
    pub(super) seed: u64,
    pub(super) name: String,
}

/// Order of the samples of a whole epoch, or of some blocks of one.
#[derive(Debug, Clone)]
pub(super) struct ShuffleOrder {
    within: WithinBlocks,
    across: AcrossBlocks,
    /// Samples in a block.
    per_block: u64,
    first_block: u64,
}

/// Permutation of the order's own samples.
#[derive(Debug, Clone)]
enum WithinBlocks {
    Same,
    All(Permutation),
    Windows { samples: u64, window: u64, key: u64, cached: Option<(u64, Permutation)> },
}

/// Permutation of the blocks of the whole epoch.
#[derive(Debug, Clone)]
enum AcrossBlocks {
    Same,
    All(Permutation),
    Chunks(ChunkOrder),
}

/// Permutation of whole chunks, of which the last may be shorter.
#[derive(Debug, Clone)]
struct ChunkOrder {
    len: u64,
    chunk: u64,
    order: Permutation,
    /// Position of the short chunk in the order.
    short: u64,
}

impl Shuffler {
    /// Order of a whole epoch of `len` samples, in chunks of `chunk` samples.
    pub(super) fn whole_epoch(&self, epoch: u64, len: u64, chunk: u64) -> ShuffleOrder {
        let (within, across) = match self.kind {
            Shuffle::None => (WithinBlocks::Same, AcrossBlocks::Same),
            Shuffle::Global => {
                (WithinBlocks::All(Permutation::new(len, self.seed, &self.name, epoch)), AcrossBlocks::Same)
            }
            Shuffle::Windowed => (
                self.windowed(len, chunk, mix64(self.key(epoch) ^ WITHIN_BLOCKS_SALT)),
                AcrossBlocks::Chunks(ChunkOrder::new(len, chunk, self.key(epoch))),
            ),
        };
        ShuffleOrder { within, across, per_block: 1, first_block: 0 }
    }

    /// Order of `count` samples of an epoch, from block `first_block` of the epoch's shuffled blocks on.
    pub(super) fn partial_epoch(
        &self,
        epoch: u64,
        blocks: EpochBlocks,
        first_block: u64,
        count: u64,
    ) -> ShuffleOrder {
        let EpochBlocks { len, per_block, chunk } = blocks;
        let within_key = mix64(self.key(epoch) ^ WITHIN_BLOCKS_SALT ^ mix64(first_block + 1));
        let (within, across) = match self.kind {
            Shuffle::None => (WithinBlocks::Same, AcrossBlocks::Same),
            Shuffle::Global => {
                let all = Permutation::from_key(len, self.key(epoch));
                (WithinBlocks::All(Permutation::from_key(count.max(1), within_key)), AcrossBlocks::All(all))
            }
            Shuffle::Windowed => (
                self.windowed(count, chunk * per_block, within_key),
                AcrossBlocks::Chunks(ChunkOrder::new(len, chunk, self.key(epoch))),
            ),
        };
        ShuffleOrder { within, across, per_block, first_block }
    }

    fn windowed(&self, samples: u64, chunk: u64, key: u64) -> WithinBlocks {
        WithinBlocks::Windows { samples, window: chunk.saturating_mul(self.window), key, cached: None }
    }

    fn key(&self, epoch: u64) -> u64 {
        epoch_key(self.seed, &self.name, epoch)
    }
}

/// Salt that separates the keys of samples from those of blocks.
const WITHIN_BLOCKS_SALT: u64 = 0x6E65_6172;

/// Blocks of an epoch that is read in samples of several lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochBlocks {
    /// Blocks in the epoch.
    pub(super) len: u64,
    /// Samples in a block.
    pub(super) per_block: u64,
    /// Blocks in a chunk.
    pub(super) chunk: u64,
}

impl ShuffleOrder {
    /// Position in the source, in samples, of sample `index` of the order.
    pub(super) fn at(&mut self, index: u64) -> u64 {
        let index = self.within.at(index);
        let block = self.across.at(self.first_block + index / self.per_block);
        block * self.per_block + index % self.per_block
    }
}

impl WithinBlocks {
    fn at(&mut self, index: u64) -> u64 {
        match self {
            Self::Same => index,
            Self::All(permutation) => permutation.at(index),
            Self::Windows { samples, window, key, cached } => {
                let number = index / *window;
                let start = number * *window;
                if cached.as_ref().is_none_or(|(cached, _)| *cached != number) {
                    let len = (*window).min(*samples - start);
                    let key = mix64(key.wrapping_add(GOLDEN.wrapping_mul(number + 1)));
                    *cached = Some((number, Permutation::from_key(len, key)));
                }
                let (_, permutation) = cached.as_ref().expect("the permutation of this window is cached");
                start + permutation.at(index - start)
            }
        }
    }
}

impl AcrossBlocks {
    fn at(&self, index: u64) -> u64 {
        match self {
            Self::Same => index,
            Self::All(permutation) => permutation.at(index),
            Self::Chunks(chunks) => chunks.at(index),
        }
    }
}

impl ChunkOrder {
    fn new(len: u64, chunk: u64, key: u64) -> Self {
        let count = len.div_ceil(chunk);
        let order = Permutation::from_key(count, key);
        let short = order.inverse(count - 1);
        Self { len, chunk, order, short }
    }

    fn at(&self, index: u64) -> u64 {
        // The short chunk is padded at its end, so that all chunks are equally long.
        let short_end = self.short * self.chunk + (self.len - 1) % self.chunk + 1;
        let index =
            if index < short_end { index } else { index + (self.chunk - 1 - (self.len - 1) % self.chunk) };
        self.order.at(index / self.chunk) * self.chunk + index % self.chunk
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shuffler(kind: Shuffle, window: u64) -> Shuffler {
        Shuffler { kind, window, seed: 5, name: "web".into() }
    }

    fn assert_permutes(order: &mut ShuffleOrder, len: u64) {
        let mut met: Vec<_> = (0..len).map(|index| order.at(index)).collect();
        met.sort_unstable();
        assert!(met.iter().copied().eq(0..len));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_way_meets_every_sample_once(len in 1u64..3000, chunk in 1u64..500, window in 1u64..20, epoch in 0u64..9) {
            for kind in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                assert_permutes(&mut shuffler(kind, window).whole_epoch(epoch, len, chunk), len);
            }
        }

        #[test]
        fn parts_share_an_epoch(len in 2u64..400, per_block in 1u64..9, chunk in 1u64..40, window in 1u64..5, cut in 0.0..1.0) {
            let cut = ((len as f64 * cut) as u64).min(len - 1).max(1);
            for kind in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                let shuffler = shuffler(kind, window);
                let blocks = EpochBlocks { len, per_block, chunk };
                let mut first = shuffler.partial_epoch(3, blocks, 0, cut * per_block);
                let mut second = shuffler.partial_epoch(3, EpochBlocks { per_block: 1, ..blocks }, cut, len - cut);
                let mut met: Vec<_> = (0..cut * per_block).map(|index| first.at(index)).collect();
                met.extend((0..len - cut).flat_map(|index| {
                    let block = second.at(index);
                    (0..per_block).map(move |inside| block * per_block + inside)
                }));
                met.sort_unstable();
                prop_assert!(met.iter().copied().eq(0..len * per_block), "{:?}", kind);
            }
        }
    }

    #[test]
    fn windows_stay_in_few_chunks() {
        let (len, chunk, window) = (100 * 64 + 17, 64, 4);
        let mut order = shuffler(Shuffle::Windowed, window).whole_epoch(0, len, chunk);
        for start in (0..len - 256).step_by(256) {
            let mut chunks: Vec<_> = (start..start + 256).map(|index| order.at(index) / chunk).collect();
            chunks.sort_unstable();
            chunks.dedup();
            assert!(chunks.len() as u64 <= window + 1, "{chunks:?}");
        }
    }
}
