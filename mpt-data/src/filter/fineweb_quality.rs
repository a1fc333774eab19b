//! `fineweb_quality`: the rules that Penedo et al. 2024 (FineWeb), section 3.5, add to those of Gopher and C4.
//!
//! The defaults are those of the code that made FineWeb. Its paper prints 0.1 for `max_duplicate_chars`, and FineWeb 2 uses
//! that; the code of FineWeb used 0.01. Blank lines are no lines here.

use serde::{Deserialize, Serialize};

use super::gopher_repetition::repeated;
use super::text::{chars, lines, share, words};
use super::{
    DocumentView, DropReason, FINEWEB_QUALITY, InvalidKey, Rule, at_least, at_most, check_ratio, check_share,
};

/// Thresholds of the rules; a document at a threshold is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinewebQuality {
    /// Minimum share of lines that end with one of `end_marks`.
    pub min_punctuated_lines: f64,
    /// Characters that end such a line.
    pub end_marks: String,
    /// Maximum share of lines that are short.
    pub max_short_lines: f64,
    /// Maximum number of characters in a short line.
    pub short_line_chars: u64,
    /// Maximum share of characters of lines that are in lines which repeat an earlier one.
    pub max_duplicate_chars: f64,
    /// Maximum number of line breaks per word.
    pub max_newlines_per_word: f64,
}

impl Default for FinewebQuality {
    fn default() -> Self {
        Self {
            min_punctuated_lines: 0.12,
            end_marks: ".?!\"'".to_owned(),
            max_short_lines: 0.67,
            short_line_chars: 30,
            max_duplicate_chars: 0.01,
            max_newlines_per_word: 0.3,
        }
    }
}

impl FinewebQuality {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        check_share("min_punctuated_lines", self.min_punctuated_lines)?;
        check_share("max_short_lines", self.max_short_lines)?;
        check_share("max_duplicate_chars", self.max_duplicate_chars)?;
        check_ratio("max_newlines_per_word", self.max_newlines_per_word)
    }
}

impl Rule for FinewebQuality {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let text = &*view.text;
        let (mut count, mut punctuated, mut short) = (0, 0, 0);
        for line in lines(text) {
            count += 1;
            punctuated += u64::from(line.ends_with(|c| self.end_marks.contains(c)));
            short += u64::from(chars(line) <= self.short_line_chars);
        }
        let rule = FINEWEB_QUALITY;
        at_least(rule, "min_punctuated_lines", share(punctuated, count), self.min_punctuated_lines)
            .or_else(|| at_most(rule, "max_short_lines", share(short, count), self.max_short_lines))
            .or_else(|| {
                let (lines, _) = repeated(text, &mut view.scratch.table);
                let part = share(lines.again_chars, lines.all_chars);
                at_most(rule, "max_duplicate_chars", part, self.max_duplicate_chars)
            })
            .or_else(|| {
                let breaks = text.bytes().filter(|&byte| byte == b'\n').count() as u64;
                let part = share(breaks, words(text).count() as u64);
                at_most(rule, "max_newlines_per_word", part, self.max_newlines_per_word)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{drop_of, repeat};
    use super::*;

    fn plain(text: &str) -> Option<String> {
        drop_of(&FinewebQuality::default(), text)
    }

    /// A line of its own of more than 30 characters, with this end.
    fn line(at: usize, end: &str) -> String {
        format!("line {at} is long enough to be a long line{end}\n\n")
    }

    fn page(ends: impl IntoIterator<Item = &'static str>) -> String {
        ends.into_iter().enumerate().map(|(at, end)| line(at, end)).collect()
    }

    #[test]
    fn punctuated_lines_stay_at_the_threshold() {
        let with =
            |count: usize| page((0..25).map(|at| if at < count { ["!", "\"", "."][at % 3] } else { "" }));
        assert_eq!(plain(&with(3)), None);
        assert_eq!(plain(&with(2)), Some("min_punctuated_lines=0.08".into()));
        let own = FinewebQuality { end_marks: "。".into(), ..FinewebQuality::default() };
        assert_eq!(drop_of(&own, &page(["。"; 5])), None);
        assert_eq!(drop_of(&own, &page(["."; 5])), Some("min_punctuated_lines=0".into()));
    }

    #[test]
    fn short_lines_stay_at_the_threshold() {
        let short: String = (0..67).map(|at| format!("{at:02} {}.\n", repeat("é ", 13).trim_end())).collect();
        assert_eq!(short.lines().next().expect("a line").chars().count(), 29);
        let with = |long: usize| format!("{short}{}", page(vec!["."; long]));
        assert_eq!(plain(&with(33)), None);
        assert_eq!(plain(&with(32)), Some("max_short_lines=0.676768".into()));
        let rules = FinewebQuality { short_line_chars: 28, ..FinewebQuality::default() };
        assert_eq!(drop_of(&rules, &with(0)), None);
        let rules = FinewebQuality { short_line_chars: 29, ..FinewebQuality::default() };
        assert_eq!(drop_of(&rules, &with(0)), Some("max_short_lines=1".into()));
    }

    #[test]
    fn repeated_characters_stay_at_the_threshold() {
        // The repeated line has 40 of 4000 characters, then 41.
        let forty = "a line of thirty-nine letters, as it is";
        let long = |rest: usize| format!("{forty}.\n{}.\n{forty}.", "x".repeat(rest));
        assert_eq!(forty.len(), 39);
        assert_eq!(drop_of(&many_newlines(), &long(3919)), None);
        assert_eq!(drop_of(&many_newlines(), &long(3918)), Some("max_duplicate_chars=0.010003".into()));
    }

    fn many_newlines() -> FinewebQuality {
        FinewebQuality { max_newlines_per_word: 10.0, ..FinewebQuality::default() }
    }

    #[test]
    fn line_breaks_stay_at_the_threshold() {
        let with = |breaks: usize| {
            format!("one two three four five six seven eight nine ten.{}", repeat("\n", breaks))
        };
        assert_eq!(plain(&with(3)), None);
        assert_eq!(plain(&with(4)), Some("max_newlines_per_word=0.4".into()));
    }
}
