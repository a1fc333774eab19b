//! Pre-tokenizer: text to words, with GPT-2's pattern in linear time and constant stack.
//!
//! The published pattern is
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: a run of white space leaves its last character
//! to the next word. Regex engines with look-ahead backtrack and fail on runs of millions; here a table gives the class of
//! each character. No pattern comes from a file.
//!
//! Source: Radford et al. 2019, the released `encoder.py`.

use crate::char_class::{self, CharClass};

/// Pre-tokenizer of a `tokenizer.json`: optional `Digits`, then `ByteLevel`, under their option names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PreTokenizer {
    /// Split off runs of digits (false) or single digits (true) first; `None` for neither.
    pub(crate) individual_digits: Option<bool>,
    /// Prepend a space to a piece that has none.
    pub(crate) add_prefix_space: bool,
    /// Split by GPT-2's pattern.
    pub(crate) use_regex: bool,
}

impl PreTokenizer {
    /// Calls `on_word` with each word of a text, in order. Words are encoded independently.
    pub(crate) fn pre_tokenize<E>(
        &self,
        text: &str,
        mut on_word: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut split_piece = |piece: &str| {
            let prefixed = (self.add_prefix_space && !piece.starts_with(' ')).then(|| format!(" {piece}"));
            let piece = prefixed.as_deref().unwrap_or(piece);
            if self.use_regex { Gpt2Words::new(piece).try_for_each(&mut on_word) } else { on_word(piece) }
        };
        match self.individual_digits {
            Some(individual) => split_digits(text, individual).try_for_each(split_piece),
            None => split_piece(text),
        }
    }
}

/// Words of a text by GPT-2's pattern; their concatenation is the text.
struct Gpt2Words<'a> {
    text: &'a str,
    at: usize,
    classes: &'static [CharClass],
}

impl<'a> Gpt2Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, classes: char_class::table() }
    }

    /// Class of the character at `at`, and the offset after it; `None` at the end.
    fn class_at(&self, at: usize) -> Option<(CharClass, usize)> {
        let &byte = self.text.as_bytes().get(at)?;
        if byte.is_ascii() {
            return Some((self.classes[usize::from(byte)], at + 1));
        }
        let c = self.text[at..].chars().next()?;
        Some((self.classes[c as usize], at + c.len_utf8()))
    }

    /// End of the run of `class` from `at`, and the offset of its last character.
    fn run(&self, class: CharClass, mut at: usize) -> (usize, usize) {
        let mut last = at;
        while let Some((_, next)) = self.class_at(at).filter(|(found, _)| *found == class) {
            (last, at) = (at, next);
        }
        (at, last)
    }

    /// End of the word that begins at `at`.
    fn end(&self, at: usize) -> Option<usize> {
        let (class, next) = self.class_at(at)?;
        if let Some(len) = contraction(&self.text.as_bytes()[at..]) {
            return Some(at + len);
        }
        if class != CharClass::Space {
            return Some(self.run(class, next).0);
        }
        if self.text.as_bytes()[at] == b' '
            && let Some((class, _)) = self.class_at(next)
            && class != CharClass::Space
        {
            return Some(self.run(class, next).0);
        }
        let (end, last) = self.run(CharClass::Space, at);
        let leaves_last = end < self.text.len() && last > at;
        Some(if leaves_last { last } else { end })
    }
}

impl<'a> Iterator for Gpt2Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let from = self.at;
        self.at = self.end(from)?;
        Some(&self.text[from..self.at])
    }
}

/// Length in bytes of an English contraction at the start of a text.
fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// Pieces of a text: runs of digits, or single ones, and the text between.
fn split_digits(text: &str, individual: bool) -> impl Iterator<Item = &str> {
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
        assert_eq!(Gpt2Words::new(&text).map(str::len).collect::<Vec<_>>(), [2_999_999, 1, 1]);
        assert_eq!(Gpt2Words::new(&text[..2_000_000]).map(str::len).collect::<Vec<_>>(), [2_000_000]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn words_are_those_of_the_library(text in "[ \\n\\t\u{a0}\u{2003}\u{85}\u{1c}'strvemlda1½²Ⅷ๑日éß_.!🐈\u{301}\\PC]{0,40}") {
            prop_assert_eq!(Gpt2Words::new(&text).collect::<Vec<_>>(), pieces(&ByteLevel::new(false, true, true), &text));
            for individual in [false, true] {
                prop_assert_eq!(split_digits(&text, individual).collect::<Vec<_>>(), pieces(&Digits::new(individual), &text));
            }
        }
    }
}
