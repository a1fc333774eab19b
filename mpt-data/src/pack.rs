//! Packing: documents, one after another, cut into rows of equal length; where documents start is kept, not guessed.

use crate::error::Result;

/// One row of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedRow<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The ordinal of the document that token 0 belongs to.
    pub document: u64,
    /// Bit `j % 8` of byte `j / 8` is set where token `j` is the first of a document.
    pub starts: &'a [u8],
}

/// Cuts a stream of documents into rows.
#[derive(Debug)]
pub struct Packer {
    row_tokens: usize,
    tokens: Vec<u32>,
    starts: Vec<u8>,
    document: u64,
}

impl Packer {
    /// Rows of `row_tokens` tokens, 1 or more.
    pub fn new(row_tokens: usize) -> Self {
        assert!(row_tokens > 0, "rows hold tokens");
        let starts = vec![0; row_tokens.div_ceil(8)];
        Self { row_tokens, tokens: Vec::with_capacity(row_tokens), starts, document: 0 }
    }

    /// Appends a document; `row` takes each row that is full.
    ///
    /// # Errors
    /// Those of `row`.
    pub fn push(
        &mut self,
        document: u64,
        tokens: &[u32],
        row: impl FnMut(PackedRow<'_>) -> Result<()>,
    ) -> Result<()> {
        if !tokens.is_empty() {
            self.mark_start();
        }
        self.extend(document, tokens, row)
    }

    /// Goes on with the document that was appended last.
    ///
    /// # Errors
    /// Those of `row`.
    pub fn extend(
        &mut self,
        document: u64,
        tokens: &[u32],
        mut row: impl FnMut(PackedRow<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut rest = tokens;
        while !rest.is_empty() {
            if self.tokens.is_empty() {
                self.document = document;
            }
            let (now, later) = rest.split_at(rest.len().min(self.row_tokens - self.tokens.len()));
            self.tokens.extend_from_slice(now);
            rest = later;
            if self.tokens.len() == self.row_tokens {
                row(PackedRow { tokens: &self.tokens, document: self.document, starts: &self.starts })?;
                self.tokens.clear();
                self.starts.fill(0);
            }
        }
        Ok(())
    }

    /// Tokens that do not fill a row.
    pub fn tail(&self) -> &[u32] {
        &self.tokens
    }

    fn mark_start(&mut self) {
        let at = self.tokens.len();
        self.starts[at / 8] |= 1 << (at % 8);
    }
}

/// Appends the ordinal of the document that each of `take` tokens of a row belongs to, from token `skip` on, where the row
/// begins in `document`.
pub(crate) fn push_documents(document: u64, starts: &[u8], skip: usize, take: usize, out: &mut Vec<u64>) {
    let (mut document, mut from, end) = (document, skip, skip + take);
    // A start at token 0 is the start of the document the row names.
    each_start(starts, 1, end, |at| {
        if at > from {
            out.resize(out.len() + at - from, document);
            from = at;
        }
        document += 1;
    });
    out.resize(out.len() + end - from, document);
}

/// Calls `each` with every document start in `from..end`, in order.
fn each_start(starts: &[u8], from: usize, end: usize, mut each: impl FnMut(usize)) {
    let (words, rest) = starts[..end.div_ceil(8)].as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for (word, bytes) in words.iter().chain([&last]).enumerate() {
        let mut bits = u64::from_le_bytes(*bytes);
        while bits != 0 {
            let at = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if (from..end).contains(&at) {
                each(at);
            }
        }
    }
}

/// Whether token `at` is the first of a document.
pub fn is_start(starts: &[u8], at: usize) -> bool {
    starts[at / 8] >> (at % 8) & 1 == 1
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
            let of = |at: usize| 7 + (1..=at).filter(|&at| is_start(&starts, at)).count() as u64;
            let mut found = vec![1];
            push_documents(7, &starts, skip, take, &mut found);
            prop_assert_eq!(&found[1..], &(skip..skip + take).map(of).collect::<Vec<_>>()[..]);
        }

        /// All rows and the tail are all documents; starts and first documents are exact even if token ids repeat.
        #[test]
        fn packing_keeps_every_token_and_every_boundary(
            lengths in prop::collection::vec(1usize..40, 0..60),
            row_tokens in 1usize..70,
        ) {
            let mut packer = Packer::new(row_tokens);
            let (mut stream, mut first_of, mut owner) = (Vec::new(), Vec::new(), Vec::new());
            let mut rows = Vec::new();
            for (index, &length) in lengths.iter().enumerate() {
                let document = 100 + index as u64;
                let tokens: Vec<_> = (0..length as u32).map(|at| at % 3).collect();
                first_of.extend((0..length).map(|at| at == 0));
                owner.extend(std::iter::repeat_n(document, length));
                stream.extend_from_slice(&tokens);
                let mut keep = |row: PackedRow<'_>| {
                    rows.push((row.tokens.to_vec(), row.document, row.starts.to_vec()));
                    Ok(())
                };
                packer.push(document, &tokens, &mut keep).expect("kept");
            }
            let packed: Vec<_> = rows.iter().flat_map(|row| &row.0).chain(packer.tail()).copied().collect();
            prop_assert_eq!(&packed, &stream);
            prop_assert!(packer.tail().len() < row_tokens);
            for (index, (tokens, document, starts)) in rows.iter().enumerate() {
                prop_assert_eq!(tokens.len(), row_tokens);
                prop_assert_eq!(*document, owner[index * row_tokens]);
                for at in 0..row_tokens {
                    prop_assert_eq!(is_start(starts, at), first_of[index * row_tokens + at]);
                }
            }
        }
    }
}
