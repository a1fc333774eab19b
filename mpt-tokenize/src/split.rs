//! Text to words: the pattern of GPT-2, in linear time and constant stack.
//!
//! The published pattern ends in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word after it.
//! A matcher that can look ahead does so by backtracking, which on runs of millions fails; here a plain automaton finds
//! the whole run, and the last character is given back by hand. Nothing of this comes from a file.
//!
//! Source: Radford et al. 2019, the released `encoder.py`.

use std::sync::LazyLock;

use regex::Regex;

static WORD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
        .expect("the pattern is valid")
});

/// The words of a text, in order; together they are the text.
pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    /// Words of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let found = WORD.find_at(self.text, self.at)?;
        let word = found.as_str();
        let last = word.chars().next_back()?;
        let ends_early =
            last.is_whitespace() && found.end() < self.text.len() && word.len() > last.len_utf8();
        self.at = found.end() - if ends_early { last.len_utf8() } else { 0 };
        Some(&self.text[found.start()..self.at])
    }
}

/// Runs of digits apart from everything else, or every digit by itself.
pub(crate) fn digits(text: &str, individual: bool) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let first = rest.chars().next()?.is_numeric();
        let differs = |(index, c): (usize, char)| {
            (index > 0 && (c.is_numeric() != first || (first && individual))).then_some(index)
        };
        let piece = &rest[..rest.char_indices().find_map(differs).unwrap_or(rest.len())];
        at += piece.len();
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::digits::Digits;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn pieces(by: &impl PreTokenizer, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        by.pre_tokenize(&mut pieces).expect("split");
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, range, _)| text[range.0..range.1].to_owned()).collect()
    }

    #[test]
    fn a_run_of_millions_is_one_word() {
        let text = format!("{}x", "\n".repeat(3_000_000));
        assert_eq!(Words::new(&text).map(str::len).collect::<Vec<_>>(), [2_999_999, 1, 1]);
        assert_eq!(Words::new(&text[..2_000_000]).map(str::len).collect::<Vec<_>>(), [2_000_000]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn words_are_those_of_the_library(text in "[ \\n\\t\u{a0}\u{2003}\u{85}\u{1c}'strvemlda1½²Ⅷ๑日éß_.!🐈\u{301}\\PC]{0,40}") {
            prop_assert_eq!(Words::new(&text).collect::<Vec<_>>(), pieces(&ByteLevel::new(false, true, true), &text));
            for individual in [false, true] {
                prop_assert_eq!(digits(&text, individual).collect::<Vec<_>>(), pieces(&Digits::new(individual), &text));
            }
        }
    }
}
