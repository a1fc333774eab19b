//! The way through some samples of a source: a permutation of blocks far apart, and one of samples near each other.

use super::permutation::{GOLDEN, Permutation, key_of, mix64};
use crate::mixing::Shuffle;

/// What shuffles a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shuffler {
    pub(super) kind: Shuffle,
    /// Chunks in a window.
    pub(super) window: u64,
    pub(super) seed: u64,
    pub(super) name: String,
}

/// The way through `0..len`, or through the samples of some blocks.
#[derive(Debug, Clone)]
pub(super) struct ShuffleOrder {
    near: WithinBlocks,
    far: AcrossBlocks,
    /// Samples in a block, and the block it begins with.
    per_block: u64,
    first_block: u64,
}

/// Who moves inside the path.
#[derive(Debug, Clone)]
enum WithinBlocks {
    Same,
    All(Permutation),
    Windows { samples: u64, window: u64, key: u64, held: Option<(u64, Permutation)> },
}

/// Who moves across the whole epoch.
#[derive(Debug, Clone)]
enum AcrossBlocks {
    Same,
    All(Permutation),
    Chunks(ChunkOrder),
}

/// Chunks in another order, each whole; the last of them may be shorter.
#[derive(Debug, Clone)]
struct ChunkOrder {
    len: u64,
    chunk: u64,
    order: Permutation,
    /// Which of the chunks in order is the short one.
    short: u64,
}

impl Shuffler {
    /// The way through a whole epoch of `len` samples, in chunks of so many.
    pub(super) fn epoch(&self, epoch: u64, len: u64, chunk: u64) -> ShuffleOrder {
        let (near, far) = match self.kind {
            Shuffle::None => (WithinBlocks::Same, AcrossBlocks::Same),
            Shuffle::Global => {
                (WithinBlocks::All(Permutation::new(len, self.seed, &self.name, epoch)), AcrossBlocks::Same)
            }
            Shuffle::Windowed => (
                self.windows(len, chunk, mix64(self.key(epoch) ^ WITHIN_BLOCKS_SALT)),
                AcrossBlocks::Chunks(ChunkOrder::new(len, chunk, self.key(epoch))),
            ),
        };
        ShuffleOrder { near, far, per_block: 1, first_block: 0 }
    }

    /// The way through a part of an epoch: `count` samples, `per_block` of which are a block, of the blocks from
    /// `first_block` on in the order in which all `blocks` of the epoch come.
    pub(super) fn part(&self, epoch: u64, blocks: EpochBlocks, first_block: u64, count: u64) -> ShuffleOrder {
        let EpochBlocks { len, per_block, chunk } = blocks;
        let near_key = mix64(self.key(epoch) ^ WITHIN_BLOCKS_SALT ^ mix64(first_block + 1));
        let (near, far) = match self.kind {
            Shuffle::None => (WithinBlocks::Same, AcrossBlocks::Same),
            Shuffle::Global => {
                let all = Permutation::keyed(len, self.key(epoch));
                (WithinBlocks::All(Permutation::keyed(count.max(1), near_key)), AcrossBlocks::All(all))
            }
            Shuffle::Windowed => (
                self.windows(count, chunk * per_block, near_key),
                AcrossBlocks::Chunks(ChunkOrder::new(len, chunk, self.key(epoch))),
            ),
        };
        ShuffleOrder { near, far, per_block, first_block }
    }

    fn windows(&self, samples: u64, chunk: u64, key: u64) -> WithinBlocks {
        WithinBlocks::Windows { samples, window: chunk.saturating_mul(self.window), key, held: None }
    }

    fn key(&self, epoch: u64) -> u64 {
        key_of(self.seed, &self.name, epoch)
    }
}

/// Sets the keys of samples apart from those of blocks.
const WITHIN_BLOCKS_SALT: u64 = 0x6E65_6172;

/// The blocks of an epoch that is read in samples of several lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochBlocks {
    /// How many.
    pub(super) len: u64,
    /// Samples in each.
    pub(super) per_block: u64,
    /// How many are a chunk.
    pub(super) chunk: u64,
}

impl ShuffleOrder {
    /// Where the sample with this number on the path lies in the source, in samples.
    pub(super) fn at(&mut self, index: u64) -> u64 {
        let index = self.near.at(index);
        let block = self.far.at(self.first_block + index / self.per_block);
        block * self.per_block + index % self.per_block
    }
}

impl WithinBlocks {
    fn at(&mut self, index: u64) -> u64 {
        match self {
            Self::Same => index,
            Self::All(permutation) => permutation.at(index),
            Self::Windows { samples, window, key, held } => {
                let number = index / *window;
                let start = number * *window;
                if held.as_ref().is_none_or(|(held, _)| *held != number) {
                    let len = (*window).min(*samples - start);
                    let key = mix64(key.wrapping_add(GOLDEN.wrapping_mul(number + 1)));
                    *held = Some((number, Permutation::keyed(len, key)));
                }
                let (_, permutation) = held.as_ref().expect("the window is held");
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
        let order = Permutation::keyed(count, key);
        let short = order.find(count - 1);
        Self { len, chunk, order, short }
    }

    fn at(&self, index: u64) -> u64 {
        // What the last chunk lacks of a whole one is put in behind it, so that chunks are equally long.
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

    fn assert_permutes(path: &mut ShuffleOrder, len: u64) {
        let mut met: Vec<_> = (0..len).map(|index| path.at(index)).collect();
        met.sort_unstable();
        assert!(met.iter().copied().eq(0..len));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_way_meets_every_sample_once(len in 1u64..3000, chunk in 1u64..500, window in 1u64..20, epoch in 0u64..9) {
            for kind in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                assert_permutes(&mut shuffler(kind, window).epoch(epoch, len, chunk), len);
            }
        }

        #[test]
        fn parts_share_an_epoch(len in 2u64..400, per_block in 1u64..9, chunk in 1u64..40, window in 1u64..5, cut in 0.0..1.0) {
            let cut = ((len as f64 * cut) as u64).min(len - 1).max(1);
            for kind in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                let shuffler = shuffler(kind, window);
                let blocks = EpochBlocks { len, per_block, chunk };
                let mut first = shuffler.part(3, blocks, 0, cut * per_block);
                let mut second = shuffler.part(3, EpochBlocks { per_block: 1, ..blocks }, cut, len - cut);
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
        let mut path = shuffler(Shuffle::Windowed, window).epoch(0, len, chunk);
        for start in (0..len - 256).step_by(256) {
            let mut chunks: Vec<_> = (start..start + 256).map(|index| path.at(index) / chunk).collect();
            chunks.sort_unstable();
            chunks.dedup();
            assert!(chunks.len() as u64 <= window + 1, "{chunks:?}");
        }
    }
}
