//! Streamed text of a generation: whole characters from tokens, ended before a stop string shows.

use mpt_tokenize::{StreamDecoder, TokenId, Tokenizer};

use crate::error::Result;
use crate::stop::StopStrings;

/// Detokenizer and stop strings of one generation. Its text is the concatenation of what [`push`](Self::push) and
/// [`finish`](Self::finish) return.
#[derive(Debug)]
pub(crate) struct TextStream<'a> {
    decoder: StreamDecoder<'a>,
    stop: StopStrings,
}

impl<'a> TextStream<'a> {
    /// A stream that ends before the first of the strings `stop`.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stop: &[String]) -> Self {
        Self { decoder: tokenizer.stream(), stop: StopStrings::new(stop) }
    }

    /// Appends a token. Returns the text that is now certain, possibly empty.
    pub(crate) fn push(&mut self, id: TokenId) -> Result<String> {
        Ok(self.stop.push(&self.decoder.push(id)?))
    }

    /// Whether a stop string came up; the text is complete then.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.found()
    }

    /// Returns the text held back, after the last token.
    pub(crate) fn finish(mut self) -> String {
        let mut rest = self.stop.push(&self.decoder.finish());
        rest.push_str(&self.stop.finish());
        rest
    }
}
