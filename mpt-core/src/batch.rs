//! The new tokens of one forward pass: prompts, pieces of prompts and single tokens of many sequences, side by side.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Name of a sequence of a [`KvPool`](crate::KvPool). No name is given twice in a process, so that the name of a removed
/// sequence names nothing, in any pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(u64);

impl SeqId {
    /// A name that was never given.
    pub(crate) fn unused() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// New tokens of sequences, flattened to one row: `[tokens]`, those of a sequence side by side, in the order of `push`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    parts: Vec<Part>,
}

/// The new tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    sequence: SeqId,
    tokens: Range<usize>,
    documents: Option<Box<[u32]>>,
}

impl Part {
    /// The sequence that the tokens continue.
    pub fn sequence(&self) -> SeqId {
        self.sequence
    }

    /// Where its tokens lie among those of the batch; never empty.
    pub fn tokens(&self) -> Range<usize> {
        self.tokens.clone()
    }

    /// Document of each token, where the caller named them.
    pub(crate) fn documents(&self) -> Option<&[u32]> {
        self.documents.as_deref()
    }
}

impl Batch {
    /// A batch without tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// New tokens of one sequence.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are none.
    pub fn of(sequence: SeqId, tokens: &[u32]) -> Result<Self> {
        let mut batch = Self::new();
        batch.push(sequence, tokens)?;
        Ok(batch)
    }

    /// Adds new tokens of a sequence. They go on with the document of the token before them.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are none, or the batch has tokens of this sequence already.
    pub fn push(&mut self, sequence: SeqId, tokens: &[u32]) -> Result<()> {
        self.push_part(sequence, tokens, None)
    }

    /// Adds new tokens of a sequence, each of the document that `documents` `[tokens]` numbers: a token sees only the
    /// tokens of its own document. A document whose tokens end the sequence is gone on with.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are no tokens, not as many documents as tokens, or tokens of this sequence already.
    pub fn push_documents(&mut self, sequence: SeqId, tokens: &[u32], documents: &[u32]) -> Result<()> {
        if documents.len() != tokens.len() {
            let actual = format!("{} values", documents.len());
            return Err(wrong("documents", actual, format!("{}, one a token", tokens.len())));
        }
        self.push_part(sequence, tokens, Some(documents.into()))
    }

    fn push_part(&mut self, sequence: SeqId, tokens: &[u32], documents: Option<Box<[u32]>>) -> Result<()> {
        if tokens.is_empty() {
            return Err(wrong(
                "tokens",
                "empty".to_owned(),
                "at least one token of each sequence".to_owned(),
            ));
        }
        if self.parts.iter().any(|part| part.sequence == sequence) {
            let expected = "a sequence once; push all of its tokens together".to_owned();
            return Err(wrong("sequence", "in the batch already".to_owned(), expected));
        }
        let from = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.parts.push(Part { sequence, tokens: from..self.tokens.len(), documents });
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

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The sequences with their tokens, in the order of `push`.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Index of each sequence's last token among those of the batch, in the order of `push`.
    pub fn last_token_indices(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.tokens.end as u32 - 1).collect()
    }
}

fn wrong(argument: &'static str, actual: String, expected: String) -> Error {
    Error::Shape { op: "batch", argument, actual, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_side_by_side() {
        let (a, b) = (SeqId::unused(), SeqId::unused());
        let mut batch = Batch::new();
        batch.push(b, &[7, 8, 9]).unwrap();
        batch.push_documents(a, &[5, 6], &[1, 2]).unwrap();
        assert_eq!((batch.len(), batch.tokens()), (5, &[7, 8, 9, 5, 6][..]));
        let parts: Vec<_> = batch.parts().iter().map(|part| (part.sequence(), part.tokens())).collect();
        assert_eq!(parts, [(b, 0..3), (a, 3..5)]);
        assert_eq!(batch.last_token_indices(), [2, 4]);
    }

    #[test]
    fn what_names_no_tokens_or_a_sequence_twice_is_refused() {
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
