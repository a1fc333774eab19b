//! `word_list`: a limit on the words and phrases of a list.

use std::path::Path;

use aho_corasick::{AhoCorasick, BuildError};
use serde::{Deserialize, Serialize};

use super::{DocumentView, DropReason, Rule, WORD_LIST, list_file};
use crate::error::{Error, Result};

/// List of words, and a limit on their occurrences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordList {
    /// File with a word or phrase per line, relative to the run file.
    pub path: String,
    /// Most occurrences in a document, of all entries together.
    #[serde(default)]
    pub max_matches: u64,
    /// Whether an occurrence must have no letter, digit or `_` right before or after it. Set it to false for languages
    /// that put no space between words.
    #[serde(default = "yes")]
    pub whole_words: bool,
}

fn yes() -> bool {
    true
}

/// Matcher of all entries of a list at once, in any case.
#[derive(Debug)]
pub(super) struct WordMatcher {
    entries: Vec<String>,
    search: AhoCorasick,
    whole_words: bool,
}

impl WordMatcher {
    /// Reads a list.
    pub(super) fn load(path: &Path, whole_words: bool) -> Result<Self> {
        Self::new(list_file::entries(path)?, whole_words).map_err(|error| Error::input(path, error))
    }

    pub(super) fn new(
        entries: impl IntoIterator<Item = String>,
        whole_words: bool,
    ) -> std::result::Result<Self, BuildError> {
        let entries: Vec<_> = entries.into_iter().map(|entry| entry.to_lowercase()).collect();
        Ok(Self { search: AhoCorasick::new(&entries)?, entries, whole_words })
    }

    /// Entry whose occurrence exceeds `matches`, and the occurrences so far.
    pub(super) fn more_than(&self, text: &str, matches: u64) -> Option<(&str, u64)> {
        let text = text.to_lowercase();
        let mut count = 0;
        // Overlapping matches too: a longer entry that is no whole word may cover a shorter one that is.
        for found in self.search.find_overlapping_iter(&text) {
            if self.whole_words && !is_whole(&text, found.start(), found.end()) {
                continue;
            }
            count += 1;
            if count > matches {
                return Some((&self.entries[found.pattern().as_usize()], count));
            }
        }
        None
    }
}

fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].ends_with(is_word) && !text[end..].starts_with(is_word)
}

/// List with its limit.
#[derive(Debug)]
pub(super) struct WordLimit {
    pub(super) words: WordMatcher,
    pub(super) max_matches: u64,
}

impl Rule for WordLimit {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let (word, count) = self.words.more_than(&view.text, self.max_matches)?;
        Some(DropReason { rule: WORD_LIST, value: format!("max_matches={count}: {word}") })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::drop_of;
    use super::*;

    fn limit(entries: &[&str], max_matches: u64, whole_words: bool) -> WordLimit {
        let words =
            WordMatcher::new(entries.iter().map(|&entry| entry.to_owned()), whole_words).expect("few");
        WordLimit { words, max_matches }
    }

    #[test]
    fn occurrences_stay_at_the_limit() {
        let two = limit(&["ship"], 2, true);
        assert_eq!(drop_of(&two, "a ship, and a Ship"), None);
        assert_eq!(drop_of(&two, "SHIP ship (ship)"), Some("max_matches=3: ship".into()));
    }

    #[test]
    fn words_are_whole_or_parts() {
        let whole = limit(&["ass", "Über uns"], 0, true);
        for text in ["assess", "class", "my_ass", "über unser"] {
            assert_eq!(drop_of(&whole, text), None, "{text}");
        }
        assert_eq!(drop_of(&whole, "ÜBER UNS!"), Some("max_matches=1: über uns".into()));
        assert_eq!(drop_of(&limit(&["性"], 0, false), "理性的"), Some("max_matches=1: 性".into()));
    }

    #[test]
    fn entries_within_others_are_found() {
        let list = limit(&["one two thr", "two"], 0, true);
        assert_eq!(drop_of(&list, "one two three"), Some("max_matches=1: two".into()));
    }
}
