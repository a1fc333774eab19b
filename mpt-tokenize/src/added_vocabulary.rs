//! Added tokens: strings that are matched in a text before pre-tokenization, each one id.
//!
//! Tokens that are not `normalized` are matched in the raw text, the others in the normalized rest. Matches are leftmost,
//! then longest.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};

/// Matcher of a set of added tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddedVocabulary {
    /// `None` for an empty set.
    finder: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// Segment of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    /// Text between added tokens, never empty.
    Text(&'a str),
    /// Id of an added token.
    Token(u32),
}

impl AddedVocabulary {
    /// Matcher of strings with their ids. No string is empty.
    pub(crate) fn new(tokens: &[(&str, u32)]) -> Result<Self, BuildError> {
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        // this automaton is small for any set of strings, and linear in the text
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(tokens.iter().map(|(content, _)| content))?;
        Ok(Self { finder: Some(finder), ids: tokens.iter().map(|(_, id)| *id).collect() })
    }

    /// Calls `on_segment` with each segment of a text, in order.
    pub(crate) fn split<'t, E>(
        &self,
        text: &'t str,
        mut on_segment: impl FnMut(Segment<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            if at < found.start() {
                on_segment(Segment::Text(&text[at..found.start()]))?;
            }
            on_segment(Segment::Token(self.ids[found.pattern().as_usize()]))?;
            at = found.end();
        }
        if at < text.len() { on_segment(Segment::Text(&text[at..])) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_at_the_leftmost_place_wins() {
        let tokens = [("  ", 2), ("   ", 3), ("<a>", 7), ("<a><b>", 8)];
        let added = AddedVocabulary::new(&tokens).expect("built");
        let mut segments = Vec::new();
        let all = |part| {
            segments.push(part);
            Ok::<_, std::convert::Infallible>(())
        };
        added.split("x<a><a><b>     é", all).expect("infallible");
        use Segment::{Text, Token};
        assert_eq!(segments, [Text("x"), Token(7), Token(8), Token(3), Token(2), Text("é")]);
        AddedVocabulary::default().split("", Err).expect("an empty text has no segments");
    }
}
