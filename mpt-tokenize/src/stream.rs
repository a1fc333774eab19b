//! Incremental decoding: text of ids one by one, in whole characters.

use crate::error::Result;
use crate::tokenizer::{TokenId, Tokenizer};

/// Incremental decoder.
///
/// The concatenated texts of [`push`](Self::push) and [`finish`](Self::finish) equal [`Tokenizer::decode`] of all ids. A
/// character whose bytes span tokens is returned when complete. A push takes time in the text it returns, not in the length
/// of the stream.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Incomplete character, at most three bytes.
    pending: Vec<u8>,
}

impl Tokenizer {
    /// Decoder for a stream of ids.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, pending: Vec::new() }
    }
}

impl StreamDecoder<'_> {
    /// Adds an id and returns the text that is now complete, possibly empty.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) for an id without a token; the stream continues without it.
    pub fn push(&mut self, id: TokenId) -> Result<String> {
        self.pending.extend_from_slice(self.tokenizer.token_bytes(id)?);
        let complete = self.pending.len() - incomplete_suffix_len(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        Ok(text)
    }

    /// Remaining text: empty, or U+FFFD for an incomplete character.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Length in bytes of an incomplete character at the end.
fn incomplete_suffix_len(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let tail = last.invalid();
    let is_incomplete = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if is_incomplete { tail.len() } else { 0 }
}
