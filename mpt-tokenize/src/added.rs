//! Added tokens: strings that are found in a text before anything else, and become one id each.
//!
//! Tokens that are not `normalized` are looked for in the text as it is, the others afterwards in the normalized rest;
//! of several at one place the longest wins.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};

/// A set of added tokens to look for.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddedTokens {
    /// None where there is nothing to look for.
    finder: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Text between added tokens, never empty.
    Text(&'a str),
    /// An added token.
    Token(u32),
}

impl AddedTokens {
    /// A set of strings with their ids; no string is empty.
    pub(crate) fn new(tokens: &[(&str, u32)]) -> Result<Self, BuildError> {
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        // The automaton that is small for any set of strings, and linear in the text.
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(tokens.iter().map(|(content, _)| content))?;
        Ok(Self { finder: Some(finder), ids: tokens.iter().map(|(_, id)| *id).collect() })
    }

    /// Calls `each` with the parts of a text, in order.
    pub(crate) fn split<'t, E>(
        &self,
        text: &'t str,
        mut each: impl FnMut(Part<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            if at < found.start() {
                each(Part::Text(&text[at..found.start()]))?;
            }
            each(Part::Token(self.ids[found.pattern().as_usize()]))?;
            at = found.end();
        }
        if at < text.len() { each(Part::Text(&text[at..])) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_at_the_leftmost_place_wins() {
        let tokens = [("  ", 2), ("   ", 3), ("<a>", 7), ("<a><b>", 8)];
        let added = AddedTokens::new(&tokens).expect("built");
        let mut parts = Vec::new();
        let all = |part| {
            parts.push(part);
            Ok::<_, std::convert::Infallible>(())
        };
        added.split("x<a><a><b>     é", all).expect("infallible");
        use Part::{Text, Token};
        assert_eq!(parts, [Text("x"), Token(7), Token(8), Token(3), Token(2), Text("é")]);
        AddedTokens::default().split("", Err).expect("an empty text has no parts");
    }
}
