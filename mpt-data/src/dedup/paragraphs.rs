//! Hashes of paragraphs, and the removal of paragraphs from a text.
//!
//! A paragraph is a sequence of lines between blank lines, as for the filters. Two paragraphs are equal if their lines are,
//! without the white space around each. Its bytes end where the next paragraph begins, so blank lines are removed with it.

use xxhash_rust::xxh3::Xxh3;

/// Hash of a paragraph that is too short to be a copy.
pub(crate) const SHORT_PARAGRAPH: u128 = 0;

/// Hash of each paragraph; [`SHORT_PARAGRAPH`] for one of fewer than `min_words` words.
pub(crate) fn paragraph_hashes(text: &str, min_words: u64) -> Vec<u128> {
    let mut found = Vec::new();
    for_each_paragraph(text, |_, lines| {
        let words = lines.clone().map(|line| line.split_whitespace().count() as u64).sum::<u64>();
        found.push(if words < min_words { SHORT_PARAGRAPH } else { hash(lines) });
    });
    found
}

/// Text without the paragraphs marked in `removed`; the rest stays byte for byte.
pub(crate) fn remove_paragraphs(text: &str, removed: &[bool]) -> String {
    let mut starts = Vec::with_capacity(removed.len());
    for_each_paragraph(text, |start, _| starts.push(start));
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut kept = text[..starts.first().copied().unwrap_or(text.len())].to_owned();
    for ((&start, end), _) in starts.iter().zip(ends).zip(removed).filter(|(_, removed)| !**removed) {
        kept.push_str(&text[start..end]);
    }
    if removed.last() == Some(&true) {
        kept.truncate(kept.trim_end().len());
    }
    kept
}

/// Lines of a paragraph, trimmed.
type Lines<'a> = std::iter::Map<std::str::Split<'a, char>, fn(&'a str) -> &'a str>;

/// Calls `on_paragraph` with the start of each paragraph, and its lines.
fn for_each_paragraph<'a>(text: &'a str, mut on_paragraph: impl FnMut(usize, Lines<'a>)) {
    let lines = |range: &'a str| range.split('\n').map(str::trim as fn(&str) -> &str);
    let (mut at, mut open) = (0, None);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        match open {
            None if !is_blank => open = Some(at),
            Some(start) if is_blank => {
                // The line break before the blank line is not part of the paragraph.
                on_paragraph(start, lines(&text[start..at - 1]));
                open = None;
            }
            _ => {}
        }
        at += line.len();
    }
    if let Some(start) = open {
        let rest = &text[start..];
        on_paragraph(start, lines(rest.strip_suffix('\n').unwrap_or(rest)));
    }
}

fn hash<'a>(lines: impl Iterator<Item = &'a str>) -> u128 {
    let mut hash = Xxh3::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    hash.digest128().max(SHORT_PARAGRAPH + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paragraphs_are_the_same_whatever_the_white_space_around_lines() {
        let found = paragraph_hashes("\n a b \n c\r\n \t\n\nd\n\na b\nc\n\n\u{a0}\n", 0);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], found[2]);
        assert_ne!(found[0], found[1]);
        assert_ne!(paragraph_hashes("a b c", 0), paragraph_hashes("a b\nc", 0), "a line break is no space");
        assert_eq!(paragraph_hashes("a b\nc\n\nd", 3), [found[0], SHORT_PARAGRAPH]);
        assert!(paragraph_hashes(" \n\n ", 0).is_empty());
    }

    #[test]
    fn blank_lines_go_with_the_paragraph_before_them() {
        let text = "\none\n1\n\n\ntwo\n \nthree\n";
        assert_eq!(remove_paragraphs(text, &[false, false, false]), text);
        assert_eq!(remove_paragraphs(text, &[true, false, false]), "\ntwo\n \nthree\n");
        assert_eq!(remove_paragraphs(text, &[false, true, false]), "\none\n1\n\n\nthree\n");
        assert_eq!(remove_paragraphs(text, &[false, false, true]), "\none\n1\n\n\ntwo");
        assert_eq!(remove_paragraphs(text, &[true, true, true]), "");
    }

    proptest! {
        #[test]
        fn what_stays_has_the_hashes_of_what_stays(
            text in "([ab]{1,2}|\n|\n\n| |é|\r\n){0,30}", marks in prop::collection::vec(any::<bool>(), 30),
        ) {
            let all = paragraph_hashes(&text, 0);
            let goes = &marks[..all.len()];
            let stays: Vec<_> = all.iter().zip(goes).filter(|(_, removed)| !**removed).map(|(hash, _)| *hash).collect();
            prop_assert_eq!(paragraph_hashes(&remove_paragraphs(&text, goes), 0), stays);
        }
    }
}
