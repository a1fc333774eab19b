//! `c4`: the heuristics of Raffel et al. 2020 (T5), section 2.2, which drop lines and whole pages.
//!
//! Differences from datatrove's version and the code that made C4: a curly bracket or "lorem ipsum" drops a page wherever
//! it stands, as the paper says (there, only in lines that pass the other rules, so most code stays); citations are taken
//! out until none is left, and all rules about a line see it without them; which makes the edit idempotent.

use std::borrow::Cow;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::text::{chars, raw_lines, sentences, words};
use super::word_list::WordMatcher;
use super::{C4_RULE, DocumentView, DropReason, InvalidKey, Rule, at_least, check_local};

const LOREM_IPSUM: &str = "lorem ipsum";
const JAVASCRIPT: &str = "javascript";
const POLICIES: [&str; 6] =
    ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// Thresholds and rules for lines and pages; a line or page at a threshold is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct C4 {
    /// Characters one of which a line must end with, and not with `...`; empty for any end.
    pub end_marks: String,
    /// Minimum number of words in a line.
    pub min_line_words: u64,
    /// Maximum number of characters in a word; a line with a longer one is removed.
    pub max_word_chars: u64,
    /// Minimum number of sentences in the kept lines.
    pub min_sentences: u64,
    /// Whether `[1]`, `[]`, `[edit]` and `[citation needed]` are taken out of lines.
    pub remove_citations: bool,
    /// Whether to remove lines with "javascript" in any case.
    pub drop_javascript_lines: bool,
    /// Whether to remove lines that mention terms of use, privacy policies or cookies, in any case.
    pub drop_policy_lines: bool,
    /// Whether to drop pages with "lorem ipsum" in any case.
    pub drop_lorem_ipsum: bool,
    /// Whether to drop pages with `{`.
    pub drop_curly_bracket: bool,
    /// File with a word or phrase per line; a page with one of them in a kept line is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_words: Option<String>,
}

impl Default for C4 {
    fn default() -> Self {
        Self {
            end_marks: ".?!\"'".to_owned(),
            min_line_words: 3,
            max_word_chars: 1000,
            min_sentences: 5,
            remove_citations: true,
            drop_javascript_lines: true,
            drop_policy_lines: true,
            drop_lorem_ipsum: true,
            drop_curly_bracket: true,
            bad_words: None,
        }
    }
}

impl C4 {
    pub(super) fn check(&self) -> Result<(), InvalidKey> {
        if self.max_word_chars == 0 {
            return Err(InvalidKey::new("max_word_chars", "0", "1 or more"));
        }
        self.bad_words.iter().try_for_each(|path| check_local("bad_words", path))
    }
}

/// Rules with their compiled phrases and bad words.
#[derive(Debug)]
pub(super) struct CompiledC4 {
    rules: C4,
    /// Phrases whose lines are dropped.
    phrases: Option<AhoCorasick>,
    lorem_ipsum: AhoCorasick,
    bad_words: Option<WordMatcher>,
}

impl CompiledC4 {
    pub(super) fn new(rules: C4, bad_words: Option<WordMatcher>) -> Self {
        let mut phrases = Vec::new();
        if rules.drop_javascript_lines {
            phrases.push(JAVASCRIPT);
        }
        if rules.drop_policy_lines {
            phrases.extend(POLICIES);
        }
        let phrases = (!phrases.is_empty()).then(|| any_case(&phrases));
        Self { rules, phrases, lorem_ipsum: any_case(&[LOREM_IPSUM]), bad_words }
    }

    fn line_stays(&self, line: &str) -> bool {
        let rules = &self.rules;
        let ends = rules.end_marks.is_empty() || line.ends_with(|c| rules.end_marks.contains(c));
        if !ends || line.ends_with("...") {
            return false;
        }
        let mut count = 0;
        for word in words(line) {
            count += 1;
            // Bytes are no fewer than characters, and cheaper to count.
            if word.len() as u64 > rules.max_word_chars && chars(word) > rules.max_word_chars {
                return false;
            }
        }
        count >= rules.min_line_words && !self.phrases.as_ref().is_some_and(|phrases| phrases.is_match(line))
    }
}

/// Matcher of ASCII phrases in any case.
fn any_case(phrases: &[&str]) -> AhoCorasick {
    AhoCorasick::builder().ascii_case_insensitive(true).build(phrases).expect("a few short phrases")
}

impl Rule for CompiledC4 {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let rules = &self.rules;
        let dropped = |value: &str| Some(DropReason { rule: C4_RULE, value: value.to_owned() });
        let (mut kept, mut count) = (String::new(), 0);
        for line in raw_lines(&view.text) {
            let line = if rules.remove_citations { without_citations(line) } else { line.into() };
            let line = line.trim();
            if rules.drop_curly_bracket && line.contains('{') {
                return dropped("drop_curly_bracket");
            }
            if rules.drop_lorem_ipsum && self.lorem_ipsum.is_match(line) {
                return dropped("drop_lorem_ipsum");
            }
            if line.is_empty() || !self.line_stays(line) {
                continue;
            }
            count += sentences(line);
            if !kept.is_empty() {
                kept.push('\n');
            }
            kept.push_str(line);
        }
        if let Some(drop) = at_least(C4_RULE, "min_sentences", count as f64, rules.min_sentences as f64) {
            return Some(drop);
        }
        if let Some((word, _)) = self.bad_words.as_ref().and_then(|words| words.more_than(&kept, 0)) {
            return Some(DropReason { rule: C4_RULE, value: format!("bad_words={word}") });
        }
        view.edit(kept);
        None
    }
}

/// Line without `[1]`, `[]`, `[edit]` and `[citation needed]`, and without those that such a removal leaves.
fn without_citations(line: &str) -> Cow<'_, str> {
    if !line.contains('[') {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        out.push(c);
        if c == ']'
            && let Some(start) = citation(&out)
        {
            out.truncate(start);
        }
    }
    out.into()
}

/// Start of the citation at the end of a text.
fn citation(text: &str) -> Option<usize> {
    let inside = text.strip_suffix(']')?;
    ["[edit", "[citation needed", "["].into_iter().find_map(|opening| {
        let digits =
            if opening == "[" { inside.trim_end_matches(|c: char| c.is_ascii_digit()) } else { inside };
        digits.strip_suffix(opening).map(str::len)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{outcome, repeat};
    use super::*;

    fn cleaned(rules: C4, text: &str) -> Result<String, String> {
        outcome(&CompiledC4::new(rules, None), text)
    }

    fn plain(text: &str) -> Result<String, String> {
        cleaned(C4::default(), text)
    }

    const GOOD: &str = "This is one. This is two. This is three. This is four.\nAnd this is five!";

    /// Remainder of a line before a good page.
    fn left(line: &str) -> String {
        let text = plain(&format!("{line}\n{GOOD}")).expect("stays");
        text.strip_suffix(GOOD).expect("the page stays").trim_end().to_owned()
    }

    #[test]
    fn lines_stay_at_the_threshold() {
        assert_eq!(left("  Only three words. \r"), "Only three words.");
        assert_eq!(left("Two words."), "");
        let longest = |count: usize| format!("A word {}.", "é".repeat(count - 1));
        assert_eq!(left(&longest(1000)), longest(1000));
        assert_eq!(left(&longest(1001)), "");
        for end in [".", "?", "!", "\"", "'"] {
            assert_eq!(left(&format!("This line stays{end}")), format!("This line stays{end}"));
        }
        for end in ["", ",", "...", "…", ":"] {
            assert_eq!(left(&format!("This line goes{end}")), "", "{end}");
        }
    }

    #[test]
    fn lines_about_scripts_and_policies_go() {
        for line in ["Please turn on JavaScript now.", "Our Privacy Policy is long.", "We USE COOKIES here."]
        {
            assert_eq!(left(line), "", "{line}");
            let rules = C4 { drop_javascript_lines: false, drop_policy_lines: false, ..C4::default() };
            assert!(cleaned(rules, &format!("{line}\n{GOOD}")).expect("stays").starts_with(line));
        }
    }

    #[test]
    fn pages_stay_at_the_threshold() {
        assert_eq!(plain(GOOD), Ok(GOOD.into()));
        let four = GOOD.replace("This is one. ", "");
        assert_eq!(plain(&four), Err("min_sentences=4".into()));
        assert_eq!(cleaned(C4 { min_sentences: 4, ..C4::default() }, &four), Ok(four.clone()));
    }

    #[test]
    fn brackets_and_lorem_ipsum_drop_the_page_wherever_they_are() {
        for (line, key) in [("fn main() {", "drop_curly_bracket"), ("Lorem IPSUM dolor", "drop_lorem_ipsum")]
        {
            assert_eq!(plain(&format!("{GOOD}\n{line}")), Err(key.into()));
        }
        let rules = C4 { drop_curly_bracket: false, drop_lorem_ipsum: false, ..C4::default() };
        assert_eq!(cleaned(rules, &format!("{GOOD}\nfn main() {{\nlorem ipsum")), Ok(GOOD.into()));
    }

    #[test]
    fn citations_are_taken_out() {
        assert_eq!(left("A fact.[1][23] Another[citation needed] one.[edit]"), "A fact. Another one.");
        assert_eq!(without_citations("[[1]2][] a[x] ["), " a[x] [");
        assert_eq!(without_citations("[ed[1]it]1]"), "1]");
        let kept = C4 { remove_citations: false, ..C4::default() };
        assert!(cleaned(kept, &format!("A known fact [1].\n{GOOD}")).expect("stays").contains("[1]"));
    }

    #[test]
    fn bad_words_are_those_of_the_lines_that_stay() {
        let words = WordMatcher::new(["bad word".to_owned()], true).expect("one word");
        let cleaner = CompiledC4::new(C4::default(), Some(words));
        assert_eq!(outcome(&cleaner, &format!("A Bad Word.\n{GOOD}")), Err("bad_words=bad word".into()));
        assert_eq!(outcome(&cleaner, &format!("A bad word\n{GOOD}")), Ok(GOOD.into()));
    }

    #[test]
    fn many_brackets_take_no_time() {
        let text = repeat("[", 200_000) + &repeat("1]", 200_000);
        assert_eq!(without_citations(&text), "");
    }

    proptest! {
        #[test]
        fn cleaning_again_changes_nothing(text in "([a-z]{1,9}[ .!\n]|\\[[0-9]?\\]|\\[edit|\\]|\\[|lorem| ipsum|\\.\\.\\.|\"){0,60}") {
            let rules = C4 { min_sentences: 0, ..C4::default() };
            if let Ok(once) = cleaned(rules.clone(), &text) {
                prop_assert_eq!(cleaned(rules, &once), Ok(once.clone()));
            }
        }
    }
}
