//! State of a sequence in a pool: page table, length, documents.

use crate::batch::BatchSeq;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::PAGE;

/// Cached sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedSequence {
    /// Page table, in order of tokens; pages reserved by an open forward pass included.
    pub(super) pages: Vec<u32>,
    /// Number of cached tokens.
    pub(super) len: usize,
    pub(super) documents: Documents,
}

impl CachedSequence {
    /// Number of pages of the first `len` tokens.
    pub(super) fn pages_for(len: usize) -> usize {
        len.div_ceil(PAGE)
    }

    /// Last page, when it is partly filled.
    pub(super) fn partial_page(&self) -> Option<u32> {
        let is_partial = !self.len.is_multiple_of(PAGE);
        is_partial.then(|| self.pages[self.len / PAGE])
    }
}

/// Documents of a sequence in order. A token attends to its own document only.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents(Vec<Document>);

#[derive(Clone, Copy, Debug)]
struct Document {
    /// Id given by the caller.
    id: Option<u32>,
    /// Index of its first token.
    start: u32,
}

impl Documents {
    /// Keeps the documents of the first `len` tokens.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.retain(|document| (document.start as usize) < len);
    }

    /// Appends the documents of new tokens after the first `len`. Returns the index of the first token of each new token's
    /// document.
    ///
    /// # Errors
    /// [`Error::Shape`] when a document that has ended is resumed.
    pub(super) fn extend(&mut self, len: usize, seq: &BatchSeq) -> Result<Vec<u32>> {
        let start = |at: usize| {
            let id = seq.documents().map(|documents| documents[at]);
            match self.0.last() {
                Some(last) if id.is_none() || last.id == id => return Ok(last.start),
                _ if id.is_some() && self.0.iter().any(|document| document.id == id) => {
                    return Err(resumed(id.unwrap_or_default(), len + at));
                }
                _ => self.0.push(Document { id, start: (len + at) as u32 }),
            }
            Ok((len + at) as u32)
        };
        (0..seq.token_range().len()).map(start).collect()
    }

    /// Index of the first token of each token's document, `[len]`.
    pub(super) fn starts(&self, len: usize) -> Vec<u32> {
        let mut starts = vec![0; len];
        for document in &self.0 {
            starts[(document.start as usize).min(len)..].fill(document.start);
        }
        starts
    }
}

fn resumed(id: u32, at: usize) -> Error {
    Error::Shape {
        op: "batch",
        argument: "documents",
        actual: format!("{id} at token {at} of a sequence, after another document"),
        expected: "each document in one piece".to_owned(),
    }
}
