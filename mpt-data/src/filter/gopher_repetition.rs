//! `gopher_repetition`: the repetition rules of Rae et al. 2021 (Gopher), appendix A1.1 and table A1.
//!
//! Shares are of characters of the same kind: those of repeated lines and paragraphs of the characters of all lines,
//! those of runs of words of the characters of all words. Differences from datatrove's version: a run that occurs once is
//! no repetition (there, one pair of words in a text of ten is a fifth of it); occurrences that overlap are not counted
//! twice (there, `ha ha ha` can be more than the whole text); blank lines are no lines; no white space is counted.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::ngrams::{HashTable, NgramHashes, fmix64};
use super::text::{chars, raw_lines, share, words};
use super::{DocumentView, DropReason, GOPHER_REPETITION, InvalidKey, Rule, at_most, check_share};

/// Thresholds of the rules; a document at a threshold is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherRepetition {
    /// Maximum share of lines that repeat an earlier line.
    pub max_duplicate_lines: f64,
    /// Maximum share of paragraphs that repeat an earlier paragraph.
    pub max_duplicate_paragraphs: f64,
    /// Maximum share of characters in lines that repeat an earlier one.
    pub max_duplicate_line_chars: f64,
    /// Maximum share of characters in paragraphs that repeat an earlier one.
    pub max_duplicate_paragraph_chars: f64,
    /// Maximum share of characters in the most frequent run of 2 words.
    pub max_top_2_gram: f64,
    /// As `max_top_2_gram`, of 3 words.
    pub max_top_3_gram: f64,
    /// As `max_top_2_gram`, of 4 words.
    pub max_top_4_gram: f64,
    /// Maximum share of characters in runs of 5 words that occurred before.
    pub max_duplicate_5_gram: f64,
    /// As `max_duplicate_5_gram`, of 6 words.
    pub max_duplicate_6_gram: f64,
    /// As `max_duplicate_5_gram`, of 7 words.
    pub max_duplicate_7_gram: f64,
    /// As `max_duplicate_5_gram`, of 8 words.
    pub max_duplicate_8_gram: f64,
    /// As `max_duplicate_5_gram`, of 9 words.
    pub max_duplicate_9_gram: f64,
    /// As `max_duplicate_5_gram`, of 10 words.
    pub max_duplicate_10_gram: f64,
}

impl Default for GopherRepetition {
    fn default() -> Self {
        Self {
            max_duplicate_lines: 0.3,
            max_duplicate_paragraphs: 0.3,
            max_duplicate_line_chars: 0.2,
            max_duplicate_paragraph_chars: 0.2,
            max_top_2_gram: 0.2,
            max_top_3_gram: 0.18,
            max_top_4_gram: 0.16,
            max_duplicate_5_gram: 0.15,
            max_duplicate_6_gram: 0.14,
            max_duplicate_7_gram: 0.13,
            max_duplicate_8_gram: 0.12,
            max_duplicate_9_gram: 0.11,
            max_duplicate_10_gram: 0.1,
        }
    }
}

impl GopherRepetition {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        let lines = [
            ("max_duplicate_lines", self.max_duplicate_lines),
            ("max_duplicate_paragraphs", self.max_duplicate_paragraphs),
            ("max_duplicate_line_chars", self.max_duplicate_line_chars),
            ("max_duplicate_paragraph_chars", self.max_duplicate_paragraph_chars),
        ];
        let all_ngrams = self.top().into_iter().chain(self.duplicate()).map(|(_, key, most)| (key, most));
        lines.into_iter().chain(all_ngrams).try_for_each(|(key, most)| check_share(key, most))
    }

    /// Lengths of runs, with the key and the threshold for the most frequent one.
    fn top(&self) -> [(usize, &'static str, f64); 3] {
        [
            (2, "max_top_2_gram", self.max_top_2_gram),
            (3, "max_top_3_gram", self.max_top_3_gram),
            (4, "max_top_4_gram", self.max_top_4_gram),
        ]
    }

    /// Lengths of runs, with the key and the threshold for all that occurred before.
    fn duplicate(&self) -> [(usize, &'static str, f64); 6] {
        [
            (5, "max_duplicate_5_gram", self.max_duplicate_5_gram),
            (6, "max_duplicate_6_gram", self.max_duplicate_6_gram),
            (7, "max_duplicate_7_gram", self.max_duplicate_7_gram),
            (8, "max_duplicate_8_gram", self.max_duplicate_8_gram),
            (9, "max_duplicate_9_gram", self.max_duplicate_9_gram),
            (10, "max_duplicate_10_gram", self.max_duplicate_10_gram),
        ]
    }

    fn lines(&self, text: &str, table: &mut HashTable) -> Option<DropReason> {
        let (lines, paragraphs) = repeated(text, table);
        let rule = GOPHER_REPETITION;
        let all_chars = lines.all_chars;
        at_most(rule, "max_duplicate_lines", share(lines.again, lines.all), self.max_duplicate_lines)
            .or_else(|| {
                let part = share(paragraphs.again, paragraphs.all);
                at_most(rule, "max_duplicate_paragraphs", part, self.max_duplicate_paragraphs)
            })
            .or_else(|| {
                let part = share(lines.again_chars, all_chars);
                at_most(rule, "max_duplicate_line_chars", part, self.max_duplicate_line_chars)
            })
            .or_else(|| {
                let part = share(paragraphs.again_chars, all_chars);
                at_most(rule, "max_duplicate_paragraph_chars", part, self.max_duplicate_paragraph_chars)
            })
    }
}

impl Rule for GopherRepetition {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let (ngrams, table) = (&mut view.scratch.ngrams, &mut view.scratch.table);
        if let Some(drop) = self.lines(&view.text, table) {
            return Some(drop);
        }
        ngrams.reset(words(&view.text).map(|word| (fmix64(xxh3_64(word.as_bytes())), chars(word))));
        let rule = GOPHER_REPETITION;
        let top = self.top().into_iter().find_map(|(n, key, most)| {
            at_most(rule, key, share(top_chars(ngrams, n, table), ngrams.all_chars()), most)
        });
        top.or_else(|| {
            self.duplicate().into_iter().find_map(|(n, key, most)| {
                at_most(rule, key, share(duplicate_chars(ngrams, n, table), ngrams.all_chars()), most)
            })
        })
    }
}

/// Lines or paragraphs, and those that repeat an earlier one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RepeatCounts {
    pub(super) all: u64,
    pub(super) all_chars: u64,
    pub(super) again: u64,
    pub(super) again_chars: u64,
}

impl RepeatCounts {
    fn add(&mut self, chars: u64, is_new: bool) {
        self.all += 1;
        self.all_chars += chars;
        if !is_new {
            self.again += 1;
            self.again_chars += chars;
        }
    }
}

/// Repeated lines and paragraphs of a text.
pub(super) fn repeated(text: &str, table: &mut HashTable) -> (RepeatCounts, RepeatCounts) {
    // Lines and paragraphs share the table: the hashes of paragraphs are mixed once more.
    table.reset(2 * (1 + text.bytes().filter(|&byte| byte == b'\n').count()));
    let (mut lines, mut paragraphs) = (RepeatCounts::default(), RepeatCounts::default());
    let mut paragraph: Option<(u64, u64)> = None;
    for line in raw_lines(text).chain([""]) {
        if line.is_empty() {
            if let Some((hash, chars)) = paragraph.take() {
                paragraphs.add(chars, table.insert(hash));
            }
            continue;
        }
        let (hash, count) = (xxh3_64(line.as_bytes()), chars(line));
        lines.add(count, table.insert(hash));
        let (before, so_far) = paragraph.unwrap_or((1, 0));
        paragraph = Some((fmix64(before.rotate_left(1) ^ hash), so_far + count));
    }
    (lines, paragraphs)
}

/// Characters in the occurrences of the most frequent run of `n` words that occurs twice or more; of several equally
/// frequent ones, of the one with the most. Occurrences are counted from the left, none overlapping the one before.
fn top_chars(ngrams: &NgramHashes, n: usize, table: &mut HashTable) -> u64 {
    table.reset(ngrams.len());
    let mut best = (1, 0);
    for (at, hash) in ngrams.hashes(n).enumerate() {
        let seen = table.entry(hash);
        if seen.count > 0 && (at as u32) < seen.next {
            continue;
        }
        seen.count += 1;
        seen.next = (at + n) as u32;
        if seen.count > 1 {
            best = best.max((seen.count, ngrams.chars(at, n)));
        }
    }
    u64::from(best.0) * best.1
}

/// Characters in runs of `n` words that occurred before. From the left: such a run is passed over as a whole.
fn duplicate_chars(ngrams: &NgramHashes, n: usize, table: &mut HashTable) -> u64 {
    table.reset(ngrams.len());
    let (mut at, mut repeated) = (0, 0);
    while at + n <= ngrams.len() {
        if table.insert(ngrams.hash(at, n)) {
            at += 1;
        } else {
            repeated += ngrams.chars(at, n);
            at += n;
        }
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::super::testing::{drop_of, repeat};
    use super::*;

    fn plain(text: &str) -> Option<String> {
        drop_of(&GopherRepetition::default(), text)
    }

    /// Only one rule: the others let everything pass.
    fn only(change: impl FnOnce(&mut GopherRepetition)) -> GopherRepetition {
        let mut rules: GopherRepetition = toml::from_str(
            "max_duplicate_lines = 1\nmax_duplicate_paragraphs = 1\nmax_duplicate_line_chars = 1\n\
             max_duplicate_paragraph_chars = 1\nmax_top_2_gram = 1\nmax_top_3_gram = 1\nmax_top_4_gram = 1\n\
             max_duplicate_5_gram = 1\nmax_duplicate_6_gram = 1\nmax_duplicate_7_gram = 1\n\
             max_duplicate_8_gram = 1\nmax_duplicate_9_gram = 1\nmax_duplicate_10_gram = 1",
        )
        .expect("sound");
        change(&mut rules);
        rules
    }

    /// `count` different words of four letters.
    fn distinct(count: usize) -> String {
        (0..count).map(|i| format!("w{i:03} ")).collect()
    }

    #[test]
    fn repeated_lines_and_paragraphs_stay_at_the_threshold() {
        let defaults = GopherRepetition::default();
        let lines = only(|rules| rules.max_duplicate_lines = defaults.max_duplicate_lines);
        // Blank lines are no lines, and the spaces around a line no part of it.
        let page = |again: usize, different: usize| {
            let different: String = (0..different).map(|i| format!("line {i}\n\n")).collect();
            format!("same\n\n{}{different}", repeat("  same \n\n", again))
        };
        assert_eq!(drop_of(&lines, &page(3, 6)), None);
        assert_eq!(drop_of(&lines, &page(4, 5)), Some("max_duplicate_lines=0.4".into()));
        let paragraphs = only(|rules| rules.max_duplicate_paragraphs = defaults.max_duplicate_paragraphs);
        let two = |page: String| page.replace("same", "same\nthing");
        assert_eq!(drop_of(&paragraphs, &two(page(3, 6))), None);
        assert_eq!(drop_of(&paragraphs, &two(page(4, 5))), Some("max_duplicate_paragraphs=0.4".into()));
    }

    #[test]
    fn characters_of_repeated_lines_and_paragraphs_stay_at_the_threshold() {
        let defaults = GopherRepetition::default();
        let page =
            |again: usize, first: usize| format!("{0}\n\n{0}\n\n{1}", "a".repeat(again), "b".repeat(first));
        let lines = only(|rules| rules.max_duplicate_line_chars = defaults.max_duplicate_line_chars);
        assert_eq!(drop_of(&lines, &page(20, 60)), None);
        assert_eq!(drop_of(&lines, &page(21, 58)), Some("max_duplicate_line_chars=0.21".into()));
        let rules = |rules: &mut GopherRepetition| {
            rules.max_duplicate_paragraph_chars = defaults.max_duplicate_paragraph_chars;
        };
        assert_eq!(drop_of(&only(rules), &page(20, 60)), None);
        assert_eq!(drop_of(&only(rules), &page(21, 58)), Some("max_duplicate_paragraph_chars=0.21".into()));
    }

    #[test]
    fn the_most_frequent_run_stays_at_the_threshold() {
        let defaults = GopherRepetition::default();
        for (at, n) in [2, 3, 4].into_iter().enumerate() {
            let (_, key, most) = defaults.top()[at];
            let rules = only(|rules| match n {
                2 => rules.max_top_2_gram = most,
                3 => rules.max_top_3_gram = most,
                _ => rules.max_top_4_gram = most,
            });
            // 2 occurrences of n words in 100, and others; all words have four letters.
            let words = (2.0 * n as f64 / most).floor() as usize;
            let run: String = (0..n).map(|i| format!("run{i} ")).collect();
            let page = |words: usize| format!("{run}{}{run}", distinct(words - 2 * n));
            assert_eq!(drop_of(&rules, &page(words + 1)), None, "{key}");
            let value = drop_of(&rules, &page(words - 1)).expect("too much");
            assert!(value.starts_with(&format!("{key}=")), "{value}");
        }
        let rules = only(|rules| rules.max_top_2_gram = 0.2);
        assert_eq!(drop_of(&rules, &format!("aaaa bbbb {}aaaa bbbb", distinct(16))), None);
        let value = drop_of(&rules, &format!("aaaa bbbb {}aaaa bbbb", distinct(15)));
        assert_eq!(value, Some("max_top_2_gram=0.210526".into()));
    }

    #[test]
    fn runs_that_occurred_before_stay_at_the_threshold() {
        for (n, key, most) in GopherRepetition::default().duplicate() {
            let rules = only(|rules| match n {
                5 => rules.max_duplicate_5_gram = most,
                6 => rules.max_duplicate_6_gram = most,
                7 => rules.max_duplicate_7_gram = most,
                8 => rules.max_duplicate_8_gram = most,
                9 => rules.max_duplicate_9_gram = most,
                _ => rules.max_duplicate_10_gram = most,
            });
            let words = (n as f64 / most).ceil() as usize;
            let run: String = (0..n).map(|i| format!("run{i} ")).collect();
            let page = |words: usize| format!("{run}{}{run}", distinct(words - 2 * n));
            assert_eq!(drop_of(&rules, &page(words)), None, "{key}");
            let value = drop_of(&rules, &page(words - 2)).expect("too much");
            assert!(value.starts_with(&format!("{key}=")), "{value}");
        }
    }

    #[test]
    fn overlapping_occurrences_are_counted_once() {
        let mut ngrams = NgramHashes::default();
        let mut table = HashTable::default();
        ngrams.reset([7u64; 5].into_iter().map(|word| (fmix64(word), 2)));
        // `ha ha ha ha ha` holds `ha ha` twice, and one word is left.
        assert_eq!(top_chars(&ngrams, 2, &mut table), 8);
        assert_eq!(duplicate_chars(&ngrams, 2, &mut table), 8);
        assert_eq!(top_chars(&ngrams, 6, &mut table), 0);
        assert_eq!(duplicate_chars(&ngrams, 6, &mut table), 0);
    }

    #[test]
    fn what_occurs_once_is_no_repetition() {
        assert_eq!(plain("one two three"), None);
        assert_eq!(plain(&distinct(100)), None);
        assert_eq!(plain(&repeat("ha ", 5)), Some("max_top_2_gram=0.8".into()));
    }
}
