//! Decoding as ids come: whole characters only.

use crate::error::Result;
use crate::tokenizer::{TokenId, Tokenizer};

/// Ids held back at most: a run of this many that ends in no whole character is no text, and is let go as U+FFFD.
const MAX_HELD: usize = 32;

/// Turns ids into text one by one. What [`push`](Self::push) and [`finish`](Self::finish) give is, put together, what
/// [`Tokenizer::decode`] gives for all ids at once; a character whose bytes are spread over tokens comes when it is whole.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids that gave the last text, since a decoder may treat the beginning of a text differently.
    context: Vec<TokenId>,
    held: Vec<TokenId>,
}

impl<'a> StreamDecoder<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, context: Vec::new(), held: Vec::new() }
    }

    /// Takes the next id and gives the text that is certain now: often a word, sometimes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) for an id without a token.
    pub fn push(&mut self, id: TokenId) -> Result<String> {
        self.held.push(id);
        let text = self.held_text()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && self.held.len() < MAX_HELD {
            return Ok(String::new());
        }
        self.context = std::mem::take(&mut self.held);
        Ok(text)
    }

    /// The text of what was held back.
    ///
    /// # Errors
    /// As [`StreamDecoder::push`].
    pub fn finish(self) -> Result<String> {
        self.held_text()
    }

    fn held_text(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.context)?;
        let all = self.tokenizer.decode(&[&self.context[..], &self.held].concat())?;
        Ok(all.get(before.len()..).unwrap_or_default().to_owned())
    }
}
