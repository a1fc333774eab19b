//! Ragged batch of one forward pass: prefill chunks and single decode tokens of many sequences.
//!
//! The cached tokens of the sequences are not here: [`KvPool`](crate::KvPool) holds their keys and values.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Id of a sequence of a [`KvPool`](crate::KvPool).
///
/// Ids are unique in a process: the id of a removed sequence is valid in no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(u64);

impl SeqId {
    /// Fresh id.
    pub(crate) fn unused() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// New tokens of several sequences, flattened to `[tokens]` in the order of `push`; the tokens of a sequence are contiguous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    sequences: Vec<BatchSeq>,
}

/// New tokens of one sequence in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSeq {
    id: SeqId,
    tokens: Range<usize>,
    documents: Option<Box<[u32]>>,
}

impl BatchSeq {
    /// Id of the sequence that the tokens continue.
    pub fn id(&self) -> SeqId {
        self.id
    }

    /// Range of its tokens in [`Batch::tokens`]; never empty.
    pub fn token_range(&self) -> Range<usize> {
        self.tokens.clone()
    }

    /// Document id of each token; `None` when the caller gave none.
    pub(crate) fn documents(&self) -> Option<&[u32]> {
        self.documents.as_deref()
    }
}

impl Batch {
    /// Empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batch of one sequence.
    ///
    /// # Errors
    /// [`Error::Shape`] when `tokens` is empty.
    pub fn single(sequence: SeqId, tokens: &[u32]) -> Result<Self> {
        let mut batch = Self::new();
        batch.push(sequence, tokens)?;
        Ok(batch)
    }

    /// Adds new tokens of a sequence. They belong to the document of the token before them.
    ///
    /// # Errors
    /// [`Error::Shape`] when `tokens` is empty or the sequence is already in the batch.
    pub fn push(&mut self, sequence: SeqId, tokens: &[u32]) -> Result<()> {
        self.push_sequence(sequence, tokens, None)
    }

    /// Adds new tokens of a sequence with their document ids, `documents` `[tokens]`.
    ///
    /// A token attends to its own document only. The last document of the sequence may be continued.
    ///
    /// # Errors
    /// [`Error::Shape`] when `tokens` is empty, the two lengths differ, or the sequence is already in the batch.
    pub fn push_documents(&mut self, sequence: SeqId, tokens: &[u32], documents: &[u32]) -> Result<()> {
        if documents.len() != tokens.len() {
            let actual = format!("{} values", documents.len());
            return Err(wrong("documents", actual, format!("{}, one a token", tokens.len())));
        }
        self.push_sequence(sequence, tokens, Some(documents.into()))
    }

    fn push_sequence(
        &mut self,
        sequence: SeqId,
        tokens: &[u32],
        documents: Option<Box<[u32]>>,
    ) -> Result<()> {
        if tokens.is_empty() {
            return Err(wrong(
                "tokens",
                "empty".to_owned(),
                "at least one token of each sequence".to_owned(),
            ));
        }
        if self.sequences.iter().any(|seq| seq.id == sequence) {
            let expected = "a sequence once; push all of its tokens together".to_owned();
            return Err(wrong("sequence", "in the batch already".to_owned(), expected));
        }
        let from = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.sequences.push(BatchSeq { id: sequence, tokens: from..self.tokens.len(), documents });
        Ok(())
    }

    /// Token ids, `[tokens]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the batch has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Sequences with their token ranges, in the order of `push`.
    pub fn sequences(&self) -> &[BatchSeq] {
        &self.sequences
    }

    /// Index into [`Batch::tokens`] of the last token of each sequence, in the order of `push`.
    pub fn last_token_indices(&self) -> Vec<u32> {
        self.sequences.iter().map(|seq| seq.tokens.end as u32 - 1).collect()
    }
}

fn wrong(argument: &'static str, actual: String, expected: String) -> Error {
    Error::Shape { op: "batch", argument, actual, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_contiguous() {
        let (a, b) = (SeqId::unused(), SeqId::unused());
        let mut batch = Batch::new();
        batch.push(b, &[7, 8, 9]).unwrap();
        batch.push_documents(a, &[5, 6], &[1, 2]).unwrap();
        assert_eq!((batch.len(), batch.tokens()), (5, &[7, 8, 9, 5, 6][..]));
        let sequences: Vec<_> = batch.sequences().iter().map(|seq| (seq.id(), seq.token_range())).collect();
        assert_eq!(sequences, [(b, 0..3), (a, 3..5)]);
        assert_eq!(batch.last_token_indices(), [2, 4]);
    }

    #[test]
    fn empty_and_repeated_sequences_are_refused() {
        let a = SeqId::unused();
        let mut batch = Batch::new();
        assert!(batch.push(a, &[]).unwrap_err().to_string().contains("`tokens` is empty"));
        assert!(batch.push_documents(a, &[1, 2], &[0]).unwrap_err().to_string().contains("`documents`"));
        assert!(batch.is_empty());
        batch.push(a, &[1]).unwrap();
        let error = batch.push(a, &[2]).unwrap_err().to_string();
        assert_eq!(
            error,
            "batch: `sequence` is in the batch already, expected a sequence once; push all of its tokens together"
        );
        assert_eq!(batch.len(), 1);
    }
}
