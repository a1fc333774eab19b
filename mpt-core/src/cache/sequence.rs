//! What a pool knows of a sequence: its pages, its length, and where its documents begin.

use crate::batch::Part;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::PAGE;

/// A sequence of tokens held.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    /// First to last; with those reserved by a forward pass that has begun.
    pub(super) pages: Vec<u32>,
    /// Tokens held.
    pub(super) len: usize,
    pub(super) documents: Documents,
}

impl Sequence {
    /// Pages of the first `len` tokens.
    pub(super) fn pages_of(len: usize) -> usize {
        len.div_ceil(PAGE)
    }

    /// The last page, when new tokens go there beside those held.
    pub(super) fn open_page(&self) -> Option<u32> {
        let is_open = !self.len.is_multiple_of(PAGE);
        is_open.then(|| self.pages[self.len / PAGE])
    }
}

/// Tokens that see only each other, one document behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents(Vec<Document>);

#[derive(Clone, Copy, Debug)]
struct Document {
    /// Its number, where it was named.
    number: Option<u32>,
    /// Its first token.
    start: u32,
}

impl Documents {
    /// The documents of the first `len` tokens.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.retain(|document| (document.start as usize) < len);
    }

    /// Goes on with those of new tokens behind the first `len`; returns the first token of each new token's document.
    ///
    /// # Errors
    /// [`Error::Shape`] when a document that has ended is resumed.
    pub(super) fn go_on(&mut self, len: usize, part: &Part) -> Result<Vec<u32>> {
        let start = |at: usize| {
            let number = part.documents().map(|documents| documents[at]);
            match self.0.last() {
                Some(last) if number.is_none() || last.number == number => return Ok(last.start),
                _ if number.is_some() && self.0.iter().any(|document| document.number == number) => {
                    return Err(resumed(number.unwrap_or_default(), len + at));
                }
                _ => self.0.push(Document { number, start: (len + at) as u32 }),
            }
            Ok((len + at) as u32)
        };
        (0..part.tokens().len()).map(start).collect()
    }

    /// The first token of the document of each of the first `len` tokens.
    pub(super) fn starts(&self, len: usize) -> Vec<u32> {
        let mut starts = vec![0; len];
        for document in &self.0 {
            starts[(document.start as usize).min(len)..].fill(document.start);
        }
        starts
    }
}

fn resumed(number: u32, at: usize) -> Error {
    Error::Shape {
        op: "batch",
        argument: "documents",
        actual: format!("{number} at token {at} of a sequence, after another document"),
        expected: "each document in one piece".to_owned(),
    }
}
