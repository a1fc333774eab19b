//! Document starts of a row: a bitmap with a bit per token, in memory as in the shards.

use std::ops::Range;

/// First tokens of documents in a row. Bit `j % 8` of byte `j / 8` is set where token `j` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentStarts<'a> {
    bitmap: &'a [u8],
}

impl<'a> DocumentStarts<'a> {
    /// Starts of a bitmap, `[row_tokens / 8]` rounded up.
    pub(crate) fn new(bitmap: &'a [u8]) -> Self {
        Self { bitmap }
    }

    /// The bitmap.
    pub fn bitmap(self) -> &'a [u8] {
        self.bitmap
    }

    /// Whether token `at` is the first of a document.
    pub fn contains(self, at: usize) -> bool {
        self.bitmap[at / 8] >> (at % 8) & 1 == 1
    }

    /// Calls `on_start` with every start in `range`, in order.
    pub(crate) fn for_each(self, range: Range<usize>, mut on_start: impl FnMut(usize)) {
        let (words, rest) = self.bitmap[..range.end.div_ceil(8)].as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for (word, bytes) in words.iter().chain([&last]).enumerate() {
            let mut bits = u64::from_le_bytes(*bytes);
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if range.contains(&at) {
                    on_start(at);
                }
            }
        }
    }

    /// Appends the ordinal of the document of each token in `range`, where token 0 is of document `first`.
    pub(crate) fn push_ordinals(self, first: u64, range: Range<usize>, out: &mut Vec<u64>) {
        let (mut document, mut from) = (first, range.start);
        // A start at token 0 is that of document `first`.
        self.for_each(1..range.end, |at| {
            if at > from {
                out.resize(out.len() + at - from, document);
                from = at;
            }
            document += 1;
        });
        out.resize(out.len() + range.end - from, document);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn documents_of_tokens_follow_from_the_starts(
            starts in prop::collection::vec(any::<u8>(), 1..40), cuts in (0.0..1.0f64, 0.0..1.0f64), sparse: bool,
        ) {
            let starts: Vec<_> = starts.iter().map(|byte| if sparse { byte & byte >> 3 & 0x11 } else { *byte }).collect();
            let len = starts.len() * 8;
            let skip = (len as f64 * cuts.0) as usize;
            let take = ((len - skip) as f64 * cuts.1) as usize + 1;
            let take = take.min(len - skip);
            let of = |at: usize| 7 + (1..=at).filter(|&at| DocumentStarts::new(&starts).contains(at)).count() as u64;
            let mut found = vec![1];
            DocumentStarts::new(&starts).push_ordinals(7, skip..skip + take, &mut found);
            prop_assert_eq!(&found[1..], &(skip..skip + take).map(of).collect::<Vec<_>>()[..]);
        }
    }
}
