//! Definitions of characters, words, lines, paragraphs and sentences, for all filters.
//!
//! These definitions are pinned: they decide which documents stay, so they may only change with the format version.
//!
//! - A *character* is a Unicode scalar value.
//! - A *word* is a run of characters between white space (the Unicode property `White_Space`).
//! - A *line* ends at `\n`; white space at its ends is no part of it, and a line of nothing else is no line.
//! - A *paragraph* is a run of lines with nothing but white space before and after it: a blank line divides.
//! - A *sentence* of a line ends with `.`, `?` or `!`, any closing quotes and brackets, and white space after which no
//!   lower-case letter follows; the end of the line ends the last one.

/// Words of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// Lines of a text.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    raw_lines(text).filter(|line| !line.is_empty())
}

/// Lines of a text, and an empty one wherever there is nothing but white space: what divides paragraphs.
pub(super) fn raw_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(str::trim)
}

/// Characters of a text.
pub(super) fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Sentences of a line, which is not empty.
pub(super) fn sentences(line: &str) -> u64 {
    #[derive(Clone, Copy, PartialEq)]
    enum SentenceState {
        Inside,
        End,
        Gap,
    }
    let (mut at, mut sentences) = (SentenceState::Inside, 1);
    for c in line.chars() {
        let is_end = matches!(c, '.' | '?' | '!');
        if at == SentenceState::Gap && !c.is_whitespace() && !c.is_lowercase() && !is_end {
            sentences += 1;
        }
        at = match at {
            _ if is_end => SentenceState::End,
            SentenceState::End if is_closing(c) => SentenceState::End,
            SentenceState::End | SentenceState::Gap if c.is_whitespace() => SentenceState::Gap,
            _ => SentenceState::Inside,
        };
    }
    sentences
}

fn is_closing(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '\u{201d}' | '\u{2019}' | '\u{bb}')
}

/// Whether a line ends in an ellipsis: `...` or `…`.
pub(super) fn ends_in_ellipsis(line: &str) -> bool {
    line.ends_with("...") || line.ends_with('…')
}

/// Share of a part in a whole; 0 for an empty whole.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_trimmed_and_never_blank() {
        let found: Vec<_> = lines(" a b \r\n\n \t\u{a0}\nc\u{2028}d").collect();
        assert_eq!(found, ["a b", "c\u{2028}d"]);
        assert_eq!(raw_lines("a\n\nb").collect::<Vec<_>>(), ["a", "", "b"]);
    }

    #[test]
    fn sentences_end_where_the_next_one_begins() {
        for (line, count) in [
            ("One", 1),
            ("One.", 1),
            ("One. Two", 2),
            ("One.) \"Two?\" Three!", 3),
            ("e.g. this is 3.14 of it", 1),
            ("Wait . . . what", 1),
            ("Really?! Yes.", 2),
            ("Ende. Über alles.", 2),
        ] {
            assert_eq!(sentences(line), count, "{line}");
        }
    }

    #[test]
    fn shares_of_nothing_are_nothing() {
        assert_eq!(share(0, 0), 0.0);
        // Both are the f64 nearest to three tenths: a share at a threshold is that threshold.
        assert_eq!(share(3, 10), 0.3);
    }
}
