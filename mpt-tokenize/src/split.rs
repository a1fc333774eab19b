//! Text to words: the pattern of GPT-2, in linear time and constant stack.
//!
//! The published pattern is
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: a run of white space leaves its last character
//! to the word after it. A matcher that can look ahead does so by backtracking, which on runs of millions fails; here
//! characters are told apart by a table, and nothing of it comes from a file.
//!
//! Source: Radford et al. 2019, the released `encoder.py`.

use crate::classes::{self, Class};

/// The words of a text, in order; together they are the text.
pub(crate) struct Words<'a> {
    text: &'a str,
    at: usize,
    classes: &'static [Class],
}

impl<'a> Words<'a> {
    /// Words of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, classes: classes::table() }
    }

    /// The class of the character at `at` and the place after it; `None` at the end.
    fn class_at(&self, at: usize) -> Option<(Class, usize)> {
        let &byte = self.text.as_bytes().get(at)?;
        if byte.is_ascii() {
            return Some((self.classes[usize::from(byte)], at + 1));
        }
        let c = self.text[at..].chars().next()?;
        Some((self.classes[c as usize], at + c.len_utf8()))
    }

    /// The end of the run of `class` from `at` on, and where its last character begins.
    fn run(&self, class: Class, mut at: usize) -> (usize, usize) {
        let mut last = at;
        while let Some((_, next)) = self.class_at(at).filter(|(found, _)| *found == class) {
            (last, at) = (at, next);
        }
        (at, last)
    }

    /// Where the word that begins at `at` ends.
    fn end(&self, at: usize) -> Option<usize> {
        let (class, next) = self.class_at(at)?;
        if let Some(len) = contraction(&self.text.as_bytes()[at..]) {
            return Some(at + len);
        }
        if class != Class::Space {
            return Some(self.run(class, next).0);
        }
        if self.text.as_bytes()[at] == b' '
            && let Some((class, _)) = self.class_at(next)
            && class != Class::Space
        {
            return Some(self.run(class, next).0);
        }
        let (end, last) = self.run(Class::Space, at);
        let leaves_last = end < self.text.len() && last > at;
        Some(if leaves_last { last } else { end })
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let from = self.at;
        self.at = self.end(from)?;
        Some(&self.text[from..self.at])
    }
}

/// Bytes of the English contraction that a text begins with.
fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
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
