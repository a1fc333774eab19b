//! How a source is gone through while samples have one length: epoch after epoch, the first or last of which may be shared
//! with a time of other lengths.

use super::shuffle_order::{EpochBlocks, ShuffleOrder, Shuffler};

/// The sizes of a source, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceExtent {
    /// Tokens in the source.
    pub(super) tokens: u64,
    /// Tokens in a sample.
    pub(super) seq_len: u64,
    /// Tokens in a sample where they are longest; a multiple of every length of the run.
    pub(super) longest: u64,
    /// Tokens in a chunk.
    pub(super) chunk: u64,
}

/// How far a source was gone through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SourceProgress {
    /// Epochs begun and ended.
    pub(super) epoch: u64,
    /// Of the epoch under way, blocks of the longest sample that were used.
    pub(super) blocks: u64,
}

/// The way of a source through a time of one length.
#[derive(Debug, Clone)]
pub(super) struct EpochPlan {
    shuffler: Shuffler,
    extent: SourceExtent,
    from: SourceProgress,
    /// Samples of the epoch that was under way.
    head: u64,
    /// The last epoch, where another length takes over inside it: the first sample of it, and how many there are.
    tail: Option<(u64, u64)>,
    held: Option<(Segment, ShuffleOrder)>,
}

/// A piece of the course that has a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Head,
    Epoch(u64),
    Tail(u64),
}

impl SourceExtent {
    /// Samples in an epoch that is of one length.
    fn samples(self) -> u64 {
        self.tokens / self.seq_len
    }

    /// Blocks in an epoch that is shared between lengths.
    fn blocks(self) -> u64 {
        self.tokens / self.longest
    }

    fn per_block(self) -> u64 {
        self.longest / self.seq_len
    }
}

impl EpochPlan {
    /// The course from where the source stands, for `total` samples; `None`: for ever.
    pub(super) fn new(
        shuffler: Shuffler,
        extent: SourceExtent,
        from: SourceProgress,
        total: Option<u64>,
    ) -> Self {
        let left = if from.blocks > 0 { (extent.blocks() - from.blocks) * extent.per_block() } else { 0 };
        let head = total.map_or(left, |total| total.min(left));
        let tail = total.and_then(|total| {
            let rest = (total - head) % extent.samples().max(1);
            // With the last block in it nothing is left for another length.
            (rest > 0 && rest < extent.blocks() * extent.per_block()).then_some((total - rest, rest))
        });
        Self { shuffler, extent, from, head, tail, held: None }
    }

    /// The epoch of the sample with this number on the course, and its place in the source, in samples.
    pub(super) fn locate(&mut self, ordinal: u64) -> (u64, u64) {
        let (leg, epoch, inside) = self.leg(ordinal);
        if self.held.as_ref().is_none_or(|(held, _)| *held != leg) {
            self.held = Some((leg, self.path(leg)));
        }
        let (_, path) = self.held.as_mut().expect("the path is held");
        (epoch, path.at(inside))
    }

    /// Where the source stands after `total` samples, with which the course was made.
    pub(super) fn end(&self, total: u64) -> SourceProgress {
        if total == 0 {
            return self.from;
        }
        let used = |samples: u64| samples.div_ceil(self.extent.per_block());
        if total == self.head {
            let blocks = self.from.blocks + used(self.head);
            let is_over = blocks >= self.extent.blocks();
            return if is_over {
                SourceProgress { epoch: self.from.epoch + 1, blocks: 0 }
            } else {
                SourceProgress { blocks, ..self.from }
            };
        }
        let begun = self.first_epoch() + (total - self.head).div_ceil(self.extent.samples().max(1));
        match self.tail {
            Some((_, rest)) if used(rest) < self.extent.blocks() => {
                SourceProgress { epoch: begun - 1, blocks: used(rest) }
            }
            _ => SourceProgress { epoch: begun, blocks: 0 },
        }
    }

    /// The first epoch that is not the one under way at the beginning.
    fn first_epoch(&self) -> u64 {
        self.from.epoch + u64::from(self.from.blocks > 0)
    }

    fn leg(&self, ordinal: u64) -> (Segment, u64, u64) {
        if ordinal < self.head {
            return (Segment::Head, self.from.epoch, ordinal);
        }
        let samples = self.extent.samples();
        let epoch = self.first_epoch() + (ordinal - self.head) / samples;
        let inside = (ordinal - self.head) % samples;
        match self.tail {
            Some((from, _)) if ordinal >= from => (Segment::Tail(epoch), epoch, inside),
            _ => (Segment::Epoch(epoch), epoch, inside),
        }
    }

    fn path(&self, leg: Segment) -> ShuffleOrder {
        let SourceExtent { seq_len, longest, chunk, .. } = self.extent;
        let blocks = EpochBlocks {
            len: self.extent.blocks(),
            per_block: self.extent.per_block(),
            chunk: (chunk / longest).max(1),
        };
        match leg {
            Segment::Head => self.shuffler.part(self.from.epoch, blocks, self.from.blocks, self.head),
            Segment::Epoch(epoch) => {
                self.shuffler.epoch(epoch, self.extent.samples(), (chunk / seq_len).max(1))
            }
            Segment::Tail(epoch) => {
                let (_, count) = self.tail.expect("there is a last epoch");
                self.shuffler.part(epoch, blocks, 0, count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mixing::Shuffle;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// No token twice in an epoch, and no more left out of one than the longest sample, twice: at the end of the source
        /// and where the lengths change.
        #[test]
        fn lengths_may_change_anywhere(
            tokens in 64u64..2000, lengths in prop::collection::vec(0u32..4, 2..5), totals in prop::collection::vec(0u64..300, 4),
            window in 1u64..4, kind in 0usize..3,
        ) {
            let kind = [Shuffle::Global, Shuffle::Windowed, Shuffle::None][kind];
            let longest = lengths.iter().map(|bits| 8u64 << bits).max().expect("some");
            let mut from = SourceProgress::default();
            let mut met: BTreeSet<(u64, u64)> = BTreeSet::new();
            for (number, bits) in lengths.iter().enumerate() {
                let extent = SourceExtent { tokens, seq_len: 8 << bits, longest, chunk: 64 };
                let shuffler = Shuffler { kind, window, seed: 3, name: "web".into() };
                let total = totals[number % 4];
                let mut course = EpochPlan::new(shuffler, extent, from, Some(total));
                for ordinal in 0..total {
                    let (epoch, position) = course.locate(ordinal);
                    for token in position * extent.seq_len..(position + 1) * extent.seq_len {
                        prop_assert!(token < tokens);
                        prop_assert!(met.insert((epoch, token)), "token {token} twice in epoch {epoch}");
                    }
                }
                from = course.end(total);
            }
            for epoch in 0..from.epoch {
                let read = met.range((epoch, 0)..(epoch + 1, 0)).count() as u64;
                prop_assert!(read + longest * (1 + lengths.len() as u64) > tokens, "{read} of {tokens} in epoch {epoch}");
            }
        }
    }
}
