//! Decoding as ids come: whole characters only.

use crate::error::Result;
use crate::tokenizer::{TokenId, Tokenizer};

/// Turns ids into text one by one. What [`push`](Self::push) and [`finish`](Self::finish) give is, put together, what
/// [`Tokenizer::decode`] gives for all ids at once; a character whose bytes are spread over tokens comes when it is whole.
/// A push costs as much as the text it gives, however long the stream.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The beginning of a character, three bytes at most.
    held: Vec<u8>,
}

impl Tokenizer {
    /// A decoder for ids that come one by one.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, held: Vec::new() }
    }
}

impl StreamDecoder<'_> {
    /// Takes the next id and gives the text that is certain now: often a word, sometimes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) for an id without a token; the stream goes on without it.
    pub fn push(&mut self, id: TokenId) -> Result<String> {
        self.held.extend_from_slice(self.tokenizer.token_bytes(id)?);
        let certain = self.held.len() - unfinished(&self.held);
        let text = String::from_utf8_lossy(&self.held[..certain]).into_owned();
        self.held.drain(..certain);
        Ok(text)
    }

    /// The text of what was held back: nothing, or U+FFFD for the beginning of a character that never came whole.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// How many bytes at the end may become a character with the bytes that follow.
fn unfinished(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let tail = last.invalid();
    let may_go_on = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if may_go_on { tail.len() } else { 0 }
}
