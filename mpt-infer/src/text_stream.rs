//! Text on its way out: tokens become whole characters, and stop strings end it before they show.

use mpt_tokenize::{StreamDecoder, TokenId, Tokenizer};

use crate::error::Result;
use crate::stop::StopStrings;

/// A text in the making. The pieces that [`push`](Self::push) and [`finish`](Self::finish) give are, together, the text.
#[derive(Debug)]
pub(crate) struct TextStream<'a> {
    decoder: StreamDecoder<'a>,
    stop: StopStrings,
}

impl<'a> TextStream<'a> {
    /// A text that ends where one of `stop` comes up.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stop: &[String]) -> Self {
        Self { decoder: tokenizer.stream(), stop: StopStrings::new(stop) }
    }

    /// The text that is certain after one more token; often a word, sometimes nothing.
    pub(crate) fn push(&mut self, id: TokenId) -> Result<String> {
        Ok(self.stop.push(&self.decoder.push(id)?))
    }

    /// Whether a stop string came up; the text is whole then.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.found()
    }

    /// The text that was held back, when no more tokens come.
    pub(crate) fn finish(mut self) -> String {
        let mut rest = self.stop.push(&self.decoder.finish());
        rest.push_str(&self.stop.finish());
        rest
    }
}
