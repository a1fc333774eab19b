//! Paragraphs as hashes, and a text without some of them.
//!
//! A paragraph is a run of lines between blank lines, as for the filters; two are the same if their lines are, without the
//! white space around each. Its bytes go from its first line to that of the next paragraph, so blank lines go with it.

use xxhash_rust::xxh3::Xxh3;

/// The hash of a paragraph that is too short to be a copy.
pub(crate) const SHORT: u128 = 0;

/// The hash of each paragraph, [`SHORT`] for those of fewer than `min_words` words.
pub(crate) fn hashes(text: &str, min_words: u64) -> Vec<u128> {
    let mut found = Vec::new();
    each(text, |_, lines| {
        let words = lines.clone().map(|line| line.split_whitespace().count() as u64).sum::<u64>();
        found.push(if words < min_words { SHORT } else { hash(lines) });
    });
    found
}

/// The text without the paragraphs that `goes` marks. What was before the first and is not marked stays byte for byte.
pub(crate) fn without(text: &str, goes: &[bool]) -> String {
    let mut starts = Vec::with_capacity(goes.len());
    each(text, |start, _| starts.push(start));
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut stays = text[..starts.first().copied().unwrap_or(text.len())].to_owned();
    for ((&start, end), _) in starts.iter().zip(ends).zip(goes).filter(|(_, goes)| !**goes) {
        stays.push_str(&text[start..end]);
    }
    if goes.last() == Some(&true) {
        stays.truncate(stays.trim_end().len());
    }
    stays
}

/// The lines of a paragraph, trimmed.
type Lines<'a> = std::iter::Map<std::str::Split<'a, char>, fn(&'a str) -> &'a str>;

/// Calls `paragraph` with where each begins, and its lines.
fn each<'a>(text: &'a str, mut paragraph: impl FnMut(usize, Lines<'a>)) {
    let lines = |range: &'a str| range.split('\n').map(str::trim as fn(&str) -> &str);
    let (mut at, mut open) = (0, None);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        match open {
            None if !is_blank => open = Some(at),
            Some(start) if is_blank => {
                // The line break before the blank line is none of its lines.
                paragraph(start, lines(&text[start..at - 1]));
                open = None;
            }
            _ => {}
        }
        at += line.len();
    }
    if let Some(start) = open {
        let rest = &text[start..];
        paragraph(start, lines(rest.strip_suffix('\n').unwrap_or(rest)));
    }
}

fn hash<'a>(lines: impl Iterator<Item = &'a str>) -> u128 {
    let mut hash = Xxh3::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    hash.digest128().max(SHORT + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paragraphs_are_the_same_whatever_the_white_space_around_lines() {
        let found = hashes("\n a b \n c\r\n \t\n\nd\n\na b\nc\n\n\u{a0}\n", 0);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], found[2]);
        assert_ne!(found[0], found[1]);
        assert_ne!(hashes("a b c", 0), hashes("a b\nc", 0), "a line break is no space");
        assert_eq!(hashes("a b\nc\n\nd", 3), [found[0], SHORT]);
        assert!(hashes(" \n\n ", 0).is_empty());
    }

    #[test]
    fn blank_lines_go_with_the_paragraph_before_them() {
        let text = "\none\n1\n\n\ntwo\n \nthree\n";
        assert_eq!(without(text, &[false, false, false]), text);
        assert_eq!(without(text, &[true, false, false]), "\ntwo\n \nthree\n");
        assert_eq!(without(text, &[false, true, false]), "\none\n1\n\n\nthree\n");
        assert_eq!(without(text, &[false, false, true]), "\none\n1\n\n\ntwo");
        assert_eq!(without(text, &[true, true, true]), "");
    }

    proptest! {
        #[test]
        fn what_stays_has_the_hashes_of_what_stays(
            text in "([ab]{1,2}|\n|\n\n| |é|\r\n){0,30}", marks in prop::collection::vec(any::<bool>(), 30),
        ) {
            let all = hashes(&text, 0);
            let goes = &marks[..all.len()];
            let stays: Vec<_> = all.iter().zip(goes).filter(|(_, goes)| !**goes).map(|(hash, _)| *hash).collect();
            prop_assert_eq!(hashes(&without(&text, goes), 0), stays);
        }
    }
}
