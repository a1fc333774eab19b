//! `gopher_quality`: the document-wise quality rules of Rae et al. 2021 (Gopher), appendix A1.1.
//!
//! Differences from datatrove's version, which the paper's words do not ask for: words are divided by white space alone
//! (so no model of a language decides); stop words are found whatever their case and the punctuation around them; blank
//! lines are no lines, so a text with spaced paragraphs is judged as one without.

use serde::{Deserialize, Serialize};

use super::text::{chars, ends_in_ellipsis, lines, share, words};
use super::{
    DocumentView, DropReason, GOPHER_QUALITY, InvalidKey, Rule, at_least, at_most, check_order, check_ratio,
    check_share,
};

/// Each stop word has a bit.
const MAX_STOP_WORDS: usize = 64;

/// Thresholds of the rules; a document at a threshold is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQuality {
    /// Minimum number of words.
    pub min_words: u64,
    /// Maximum number of words.
    pub max_words: u64,
    /// Minimum mean of the words' characters.
    pub min_mean_word_chars: f64,
    /// Maximum mean of the words' characters.
    pub max_mean_word_chars: f64,
    /// Maximum number of `#` per word and, separately, of ellipses (`...` or `…`) per word.
    pub max_symbols_per_word: f64,
    /// Maximum share of lines that begin with a bullet point: one of `•‣⁃◦▪●*-`.
    pub max_bullet_lines: f64,
    /// Maximum share of lines that end in an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Minimum share of words that have an alphabetic character (the Unicode property).
    pub min_alphabetic_words: f64,
    /// Least number of different stop words.
    pub min_stop_words: u64,
    /// Stop words. Case does not matter, nor what is no letter or digit around a word.
    pub stop_words: Vec<String>,
}

impl Default for GopherQuality {
    fn default() -> Self {
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_chars: 3.0,
            max_mean_word_chars: 10.0,
            max_symbols_per_word: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
        }
    }
}

impl GopherQuality {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        check_order("min_words", self.min_words as f64, "max_words", self.max_words as f64)?;
        check_ratio("min_mean_word_chars", self.min_mean_word_chars)?;
        check_ratio("max_mean_word_chars", self.max_mean_word_chars)?;
        let (least, most) = (self.min_mean_word_chars, self.max_mean_word_chars);
        check_order("min_mean_word_chars", least, "max_mean_word_chars", most)?;
        check_ratio("max_symbols_per_word", self.max_symbols_per_word)?;
        check_share("max_bullet_lines", self.max_bullet_lines)?;
        check_share("max_ellipsis_lines", self.max_ellipsis_lines)?;
        check_share("min_alphabetic_words", self.min_alphabetic_words)?;
        if self.stop_words.len() > MAX_STOP_WORDS {
            let expected = format!("{MAX_STOP_WORDS} words at most");
            return Err(InvalidKey::new("stop_words", format!("{} words", self.stop_words.len()), expected));
        }
        if self.min_stop_words > self.stop_words.len() as u64 {
            let expected = format!("no more than the {} words of `stop_words`", self.stop_words.len());
            return Err(InvalidKey::new("min_stop_words", self.min_stop_words.to_string(), expected));
        }
        Ok(())
    }

    fn stop_word(&self, word: &str) -> Option<usize> {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        self.stop_words.iter().position(|stop| same_word(stop, word))
    }
}

/// Counts of one pass over the words.
#[derive(Default)]
struct WordStats {
    count: u64,
    chars: u64,
    alphabetic: u64,
    stop_words: u64,
}

impl Rule for GopherQuality {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let text = &*view.text;
        let words = self.words(text);
        let mean = share(words.chars, words.count);
        let hashes = text.bytes().filter(|&byte| byte == b'#').count() as u64;
        let ellipses = text.matches("...").count() as u64 + text.matches('…').count() as u64;
        let rule = GOPHER_QUALITY;
        at_least(rule, "min_words", words.count as f64, self.min_words as f64)
            .or_else(|| at_most(rule, "max_words", words.count as f64, self.max_words as f64))
            .or_else(|| at_least(rule, "min_mean_word_chars", mean, self.min_mean_word_chars))
            .or_else(|| at_most(rule, "max_mean_word_chars", mean, self.max_mean_word_chars))
            .or_else(|| self.symbols(hashes.max(ellipses), words.count))
            .or_else(|| self.lines(text))
            .or_else(|| {
                let alphabetic = share(words.alphabetic, words.count);
                at_least(rule, "min_alphabetic_words", alphabetic, self.min_alphabetic_words)
            })
            .or_else(|| {
                let found = f64::from(words.stop_words.count_ones());
                at_least(rule, "min_stop_words", found, self.min_stop_words as f64)
            })
    }
}

impl GopherQuality {
    fn words(&self, text: &str) -> WordStats {
        let mut counted = WordStats::default();
        for word in words(text) {
            counted.count += 1;
            counted.chars += chars(word);
            counted.alphabetic += u64::from(word.chars().any(char::is_alphabetic));
            if let Some(stop) = self.stop_word(word) {
                counted.stop_words |= 1 << stop;
            }
        }
        counted
    }

    fn symbols(&self, symbols: u64, words: u64) -> Option<DropReason> {
        at_most(GOPHER_QUALITY, "max_symbols_per_word", share(symbols, words), self.max_symbols_per_word)
    }

    fn lines(&self, text: &str) -> Option<DropReason> {
        let (mut count, mut bullets, mut ellipses) = (0, 0, 0);
        for line in lines(text) {
            count += 1;
            bullets += u64::from(line.starts_with(['•', '‣', '⁃', '◦', '▪', '●', '*', '-']));
            ellipses += u64::from(ends_in_ellipsis(line));
        }
        let rule = GOPHER_QUALITY;
        at_most(rule, "max_bullet_lines", share(bullets, count), self.max_bullet_lines)
            .or_else(|| at_most(rule, "max_ellipsis_lines", share(ellipses, count), self.max_ellipsis_lines))
    }
}

/// Whether two words are the same but for case.
fn same_word(a: &str, b: &str) -> bool {
    if a.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{drop_of, repeat};
    use super::*;

    fn value(text: &str, change: impl FnOnce(&mut GopherQuality)) -> Option<String> {
        let mut rules = GopherQuality::default();
        change(&mut rules);
        rules.check().expect("sound");
        drop_of(&rules, text)
    }

    fn plain(text: &str) -> Option<String> {
        value(text, |_| ())
    }

    /// `count` words of five letters, two of them stop words.
    fn good(count: usize) -> String {
        format!("{}with that", repeat("house ", count - 2))
    }

    #[test]
    fn word_counts_stay_at_the_threshold() {
        assert_eq!(plain(&good(50)), None);
        assert_eq!(plain(&good(49)), Some("min_words=49".into()));
        let most = |text: &str| value(text, |rules| rules.max_words = 60);
        assert_eq!(most(&good(60)), None);
        assert_eq!(most(&good(61)), Some("max_words=61".into()));
        assert_eq!(plain(&good(100_000)), None);
        assert_eq!(plain(&good(100_001)), Some("max_words=100001".into()));
    }

    #[test]
    fn mean_lengths_stay_at_the_threshold() {
        // 48 words of 3 letters, with `the` and `and`.
        let three = format!("{}the and", repeat("abc ", 48));
        assert_eq!(plain(&three), None);
        assert_eq!(plain(&three.replacen("abc", "ab", 1)), Some("min_mean_word_chars=2.98".into()));
        // 48 words of 10 letters but two, that make up for the short ones.
        let ten = format!("abcdefghijklmnopq abcdefghijklmnopq {}the and", repeat("abcdefghij ", 46));
        assert_eq!(plain(&ten), None);
        assert_eq!(plain(&ten.replacen("abc", "abcd", 1)), Some("max_mean_word_chars=10.02".into()));
    }

    #[test]
    fn symbols_stay_at_the_threshold() {
        for symbol in ["#", "...", "…"] {
            let with = |count: usize| format!("{}{}", repeat(symbol, count), good(50));
            assert_eq!(plain(&with(5)), None, "{symbol}");
            assert_eq!(plain(&with(6)), Some("max_symbols_per_word=0.12".into()), "{symbol}");
        }
        let both = format!("{}{}", repeat("#...", 5), good(50));
        assert_eq!(plain(&both), None, "hashes and ellipses are counted apart");
    }

    #[test]
    fn lines_stay_at_the_threshold() {
        let page = |line: &str, count: usize| {
            let plain = repeat("and this house with that river\n\n", 10 - count);
            format!("{}{plain}", repeat(line, count))
        };
        assert_eq!(plain(&page("  - the house with that river\n", 9)), None);
        assert_eq!(plain(&page("• the house with that river\n", 10)), Some("max_bullet_lines=1".into()));
        let ellipsis = "the river and the house with that tree and all…\n";
        assert_eq!(plain(&page(ellipsis, 3)), None);
        assert_eq!(plain(&page(ellipsis, 4)), Some("max_ellipsis_lines=0.4".into()));
    }

    #[test]
    fn alphabetic_words_stay_at_the_threshold() {
        let page = |numbers: usize| format!("{}{}", repeat("12345 ", numbers), good(100 - numbers));
        assert_eq!(plain(&page(20)), None);
        assert_eq!(plain(&page(21)), Some("min_alphabetic_words=0.79".into()));
    }

    #[test]
    fn stop_words_are_different_ones_whatever_case_and_punctuation() {
        let page = |last: &str| format!("{}{last}", repeat("house ", 50));
        assert_eq!(plain(&page("The (of)")), None);
        assert_eq!(plain(&page("the the the")), Some("min_stop_words=1".into()));
        let own = |text: &str| value(text, |rules| rules.stop_words = vec!["ÉTÉ".into(), "de".into()]);
        assert_eq!(own(&page("«été» De")), None);
        assert_eq!(own(&page("ete de")), Some("min_stop_words=1".into()));
    }

    #[test]
    fn impossible_thresholds_are_named() {
        let wrong = |change: fn(&mut GopherQuality)| {
            let mut rules = GopherQuality::default();
            change(&mut rules);
            rules.check().expect_err("impossible").key
        };
        assert_eq!(wrong(|rules| rules.max_words = 49), "min_words");
        assert_eq!(wrong(|rules| rules.max_bullet_lines = 1.1), "max_bullet_lines");
        assert_eq!(wrong(|rules| rules.max_symbols_per_word = f64::NAN), "max_symbols_per_word");
        assert_eq!(wrong(|rules| rules.min_stop_words = 9), "min_stop_words");
    }
}
