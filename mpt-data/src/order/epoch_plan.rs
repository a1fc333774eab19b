//! Epochs of one source while samples have one length: from a sample's ordinal to its epoch and its position in the source.
//!
//! The first and the last epoch of a plan may be shared with a plan of another sample length. Such an epoch is divided in
//! blocks of the longest sample, and each plan reads some of the blocks.

use super::shuffle_order::{EpochBlocks, ShuffleOrder, Shuffler};

/// Sizes of a source, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceExtent {
    /// Tokens in the source.
    pub(super) tokens: u64,
    /// Tokens in a sample.
    pub(super) seq_len: u64,
    /// Tokens in the longest sample of the run; a multiple of every `seq_len`.
    pub(super) longest: u64,
    /// Tokens in a chunk.
    pub(super) chunk: u64,
}

/// Progress of a run through a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SourceProgress {
    /// Complete epochs.
    pub(super) epoch: u64,
    /// Blocks of the longest sample that were read of the current epoch.
    pub(super) blocks: u64,
}

/// Epochs of a source for samples of one length.
#[derive(Debug, Clone)]
pub(super) struct EpochPlan {
    shuffler: Shuffler,
    extent: SourceExtent,
    /// Progress at the beginning of the plan.
    from: SourceProgress,
    /// Samples left in the epoch that an earlier plan began.
    head: u64,
    /// First sample and sample count of the last epoch, where a later plan of another length completes it.
    tail: Option<(u64, u64)>,
    cached: Option<(Segment, ShuffleOrder)>,
}

/// Part of a plan with a shuffle order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// Rest of an epoch that an earlier plan began.
    Head,
    /// Whole epoch.
    Epoch(u64),
    /// Beginning of an epoch that a later plan completes.
    Tail(u64),
}

impl SourceExtent {
    /// Samples in a whole epoch.
    fn samples(self) -> u64 {
        self.tokens / self.seq_len
    }

    /// Blocks in an epoch that two lengths share.
    fn blocks(self) -> u64 {
        self.tokens / self.longest
    }

    /// Samples in a block.
    fn per_block(self) -> u64 {
        self.longest / self.seq_len
    }
}

impl EpochPlan {
    /// Plan of `total` samples from `from` on; endless where `total` is `None`.
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
            // A tail that reaches the last block leaves nothing for another length.
            (rest > 0 && rest < extent.blocks() * extent.per_block()).then_some((total - rest, rest))
        });
        Self { shuffler, extent, from, head, tail, cached: None }
    }

    /// Epoch and position in the source, in samples, of sample `ordinal` of the plan.
    pub(super) fn locate(&mut self, ordinal: u64) -> (u64, u64) {
        let (segment, epoch, inside) = self.segment(ordinal);
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != segment) {
            self.cached = Some((segment, self.shuffle_order(segment)));
        }
        let (_, order) = self.cached.as_mut().expect("the order of this segment is cached");
        (epoch, order.at(inside))
    }

    /// Progress after all `total` samples of the plan.
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
        let begun = self.first_own_epoch() + (total - self.head).div_ceil(self.extent.samples().max(1));
        match self.tail {
            Some((_, rest)) if used(rest) < self.extent.blocks() => {
                SourceProgress { epoch: begun - 1, blocks: used(rest) }
            }
            _ => SourceProgress { epoch: begun, blocks: 0 },
        }
    }

    /// First epoch that begins within the plan.
    fn first_own_epoch(&self) -> u64 {
        self.from.epoch + u64::from(self.from.blocks > 0)
    }

    /// Segment and epoch of a sample, and its index in the segment.
    fn segment(&self, ordinal: u64) -> (Segment, u64, u64) {
        if ordinal < self.head {
            return (Segment::Head, self.from.epoch, ordinal);
        }
        let samples = self.extent.samples();
        let epoch = self.first_own_epoch() + (ordinal - self.head) / samples;
        let inside = (ordinal - self.head) % samples;
        match self.tail {
            Some((from, _)) if ordinal >= from => (Segment::Tail(epoch), epoch, inside),
            _ => (Segment::Epoch(epoch), epoch, inside),
        }
    }

    fn shuffle_order(&self, segment: Segment) -> ShuffleOrder {
        let SourceExtent { seq_len, longest, chunk, .. } = self.extent;
        let blocks = EpochBlocks {
            len: self.extent.blocks(),
            per_block: self.extent.per_block(),
            chunk: (chunk / longest).max(1),
        };
        match segment {
            Segment::Head => {
                self.shuffler.partial_epoch(self.from.epoch, blocks, self.from.blocks, self.head)
            }
            Segment::Epoch(epoch) => {
                self.shuffler.whole_epoch(epoch, self.extent.samples(), (chunk / seq_len).max(1))
            }
            Segment::Tail(epoch) => {
                let (_, count) = self.tail.expect("a tail segment has a tail");
                self.shuffler.partial_epoch(epoch, blocks, 0, count)
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
                let mut plan = EpochPlan::new(shuffler, extent, from, Some(total));
                for ordinal in 0..total {
                    let (epoch, position) = plan.locate(ordinal);
                    for token in position * extent.seq_len..(position + 1) * extent.seq_len {
                        prop_assert!(token < tokens);
                        prop_assert!(met.insert((epoch, token)), "token {token} twice in epoch {epoch}");
                    }
                }
                from = plan.end(total);
            }
            for epoch in 0..from.epoch {
                let read = met.range((epoch, 0)..(epoch + 1, 0)).count() as u64;
                prop_assert!(read + longest * (1 + lengths.len() as u64) > tokens, "{read} of {tokens} in epoch {epoch}");
            }
        }
    }
}
