//! Filters: conditions and edits that decide which documents stay, and with what text.
//!
//! A [`Filter`] is an entry of the run file. A `FilterChain` holds the filters of a source with their files loaded. Each
//! family of rules has a file; `text.rs` defines words, lines and sentences for all of them. A dropped document has a
//! [`DropReason`].

mod c4;
mod chain;
mod checks;
mod column;
mod decontaminate;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod language;
mod list_file;
pub(crate) mod ngrams;
mod pii;
mod rules;
mod text;
mod url_list;
mod word_count;
mod word_list;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::c4::C4;
pub use self::chain::DropReason;
use self::chain::{DocumentView, Rule};
pub(crate) use self::chain::{FilterChain, FilterOutcome, FilterScratch, check_empty};
use self::checks::{at_least, at_most, check_order, check_ratio};
pub(crate) use self::checks::{check_local, check_share};
pub use self::column::Column;
pub use self::decontaminate::Decontaminate;
pub use self::fineweb_quality::FinewebQuality;
pub use self::gopher_quality::GopherQuality;
pub use self::gopher_repetition::GopherRepetition;
pub use self::language::Language;
pub use self::pii::Pii;
#[cfg(feature = "interop")]
pub(crate) use self::rules::EMPTY;
pub(crate) use self::rules::{
    BAD_LINE, DUPLICATE_PARAGRAPHS, EXACT_DUPLICATE, NEAR_DUPLICATE, SEMANTIC_DUPLICATE, rule,
};
use self::rules::{
    C4_RULE, COLUMN, DECONTAMINATE, FINEWEB_QUALITY, GOPHER_QUALITY, GOPHER_REPETITION, LANGUAGE, MAX_WORDS,
    MIN_WORDS, URL_LIST, WORD_LIST,
};
pub use self::url_list::{ListedAction, UrlList};
pub use self::word_list::WordList;
use crate::error::Result;
use crate::mixing::InvalidKey;

/// Filter of a source: a condition to keep a document, an edit of its text, or both. Filters run in the order of the run
/// file, each on the text as the filters before it left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// At least this many words.
    MinWords {
        /// Minimum number of words.
        value: u64,
    },
    /// At most this many words.
    MaxWords {
        /// Maximum number of words.
        value: u64,
    },
    /// Field whose value is one of `any_of`, and none of `none_of`.
    Column(Column),
    /// Quality rules of Gopher. A document at a threshold is kept.
    GopherQuality(GopherQuality),
    /// Repetition rules of Gopher. A document at a threshold is kept.
    GopherRepetition(GopherRepetition),
    /// Rules of C4, which remove lines too. A line or page at a threshold is kept.
    C4(C4),
    /// Rules of FineWeb. A document at a threshold is kept.
    FinewebQuality(FinewebQuality),
    /// Text in one of the given languages.
    Language(Language),
    /// Address on a list, or not on it, as `listed` says.
    UrlList(UrlList),
    /// Words of a list occur `max_matches` times at most.
    WordList(WordList),
    /// E-mail and IP addresses are replaced.
    Pii(Pii),
    /// No run of words is one of an evaluation set.
    Decontaminate(Decontaminate),
}

impl Filter {
    /// Field that the filter reads, if any.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(&column.field),
            Self::UrlList(list) => Some(&list.field),
            _ => None,
        }
    }

    /// Files that the filter names, as in the run file.
    pub fn files(&self) -> Vec<String> {
        self.clone().files_mut().into_iter().map(std::mem::take).collect()
    }

    /// Copy with the names of files alone, because their folders decide nothing.
    pub(crate) fn without_folders(&self) -> Self {
        let mut filter = self.clone();
        for file in filter.files_mut() {
            *file = file_name(file);
        }
        filter
    }

    fn files_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::C4(rules) => rules.bad_words.iter_mut().collect(),
            Self::UrlList(list) => vec![&mut list.path],
            Self::WordList(list) => vec![&mut list.path],
            Self::Decontaminate(sets) => sets.paths.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// Checks the settings of the filter.
    pub(crate) fn check(&self) -> std::result::Result<(), InvalidKey> {
        match self {
            Self::Column(column) => column.check(),
            Self::GopherQuality(rules) => rules.check(),
            Self::GopherRepetition(rules) => rules.check(),
            Self::C4(rules) => rules.check(),
            Self::FinewebQuality(rules) => rules.check(),
            Self::Language(languages) => languages.check(),
            Self::Pii(kinds) => kinds.check(),
            Self::Decontaminate(sets) => sets.check(),
            Self::UrlList(list) => check_local("path", &list.path),
            Self::WordList(list) => check_local("path", &list.path),
            Self::MinWords { .. } | Self::MaxWords { .. } => Ok(()),
        }
    }

    /// Loads the files that the filter names, relative to `folder`.
    fn load(&self, folder: &Path) -> Result<Box<dyn Rule>> {
        Ok(match self {
            Self::MinWords { value } => {
                Box::new(word_count::WordCountRule { rule: MIN_WORDS, least: *value, most: u64::MAX })
            }
            Self::MaxWords { value } => {
                Box::new(word_count::WordCountRule { rule: MAX_WORDS, least: 0, most: *value })
            }
            Self::Column(column) => Box::new(column.clone()),
            Self::GopherQuality(rules) => Box::new(rules.clone()),
            Self::GopherRepetition(rules) => Box::new(rules.clone()),
            Self::C4(rules) => {
                let words = |path: &String| word_list::WordMatcher::load(&folder.join(path), true);
                let bad_words = rules.bad_words.as_ref().map(words).transpose()?;
                Box::new(c4::CompiledC4::new(rules.clone(), bad_words))
            }
            Self::FinewebQuality(rules) => Box::new(rules.clone()),
            Self::Language(languages) => Box::new(language::LanguageRule::new(languages)),
            Self::UrlList(list) => Box::new(url_list::UrlMatcher::load(list, &folder.join(&list.path))?),
            Self::WordList(list) => Box::new(word_list::WordLimit {
                words: word_list::WordMatcher::load(&folder.join(&list.path), list.whole_words)?,
                max_matches: list.max_matches,
            }),
            Self::Pii(kinds) => Box::new(kinds.clone()),
            Self::Decontaminate(sets) => Box::new(decontaminate::EvalNgrams::load(sets, folder)?),
        })
    }
}

/// Name of a file, without its folders.
pub(crate) fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Fields that the filters read, each once, in order.
pub(crate) fn fields(filters: &[Filter]) -> Vec<&str> {
    let mut names = Vec::new();
    for field in filters.iter().filter_map(Filter::field) {
        if !names.contains(&field) {
            names.push(field);
        }
    }
    names
}

#[cfg(test)]
mod testing {
    //! One rule, applied to one document.

    use super::{DocumentView, DropReason, FilterScratch, Rule};

    fn applied(
        rule: &dyn Rule,
        text: &str,
        field: Option<(&str, Option<&str>)>,
    ) -> (Option<DropReason>, String) {
        let names: Vec<_> = field.iter().map(|(name, _)| (*name).to_owned()).collect();
        let values: Vec<_> = field.iter().map(|(_, value)| value.map(str::to_owned)).collect();
        let mut scratch = FilterScratch::default();
        let mut view =
            DocumentView { text: text.into(), names: &names, values: &values, scratch: &mut scratch };
        let drop = rule.apply(&mut view);
        (drop, view.text.into_owned())
    }

    /// Value of the drop, if there is one.
    pub(super) fn drop_of(rule: &dyn Rule, text: &str) -> Option<String> {
        applied(rule, text, None).0.map(|drop| drop.value)
    }

    /// The same for a document with one field.
    pub(super) fn drop_with_field(rule: &dyn Rule, name: &str, value: Option<&str>) -> Option<String> {
        applied(rule, "text", Some((name, value))).0.map(|drop| drop.value)
    }

    /// Text kept, or value of the drop.
    pub(super) fn outcome(rule: &dyn Rule, text: &str) -> Result<String, String> {
        let (drop, text) = applied(rule, text, None);
        drop.map_or(Ok(text), |drop| Err(drop.value))
    }

    pub(super) fn repeat(text: &str, count: usize) -> String {
        text.repeat(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::rules::RULES;
    use super::*;
    use crate::document::Document;

    fn document(text: &str, lang: Option<&str>) -> Document {
        Document { id: "d".into(), text: text.into(), fields: vec![lang.map(str::to_owned)] }
    }

    fn column(any_of: &[&str], none_of: &[&str]) -> Filter {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Filter::Column(Column { field: "lang".into(), any_of: list(any_of), none_of: list(none_of) })
    }

    fn reason_of(document: &Document, filters: &[Filter]) -> Option<DropReason> {
        let chain = FilterChain::load(filters, Path::new("")).expect("no files");
        match chain.apply(document, &mut FilterScratch::default()) {
            FilterOutcome::Kept(_) => None,
            FilterOutcome::Dropped(drop) => Some(drop),
        }
    }

    #[test]
    fn words_are_counted_at_the_threshold() {
        let filters = [Filter::MinWords { value: 3 }, Filter::MaxWords { value: 4 }, column(&[], &["xx"])];
        let rule =
            |text: &str| reason_of(&document(text, None), &filters).map(|drop| (drop.rule, drop.value));
        assert_eq!(rule("two words"), Some(("min_words", "2".into())));
        assert_eq!(rule("just three words"), None);
        assert_eq!(rule(" now\tit's\u{2003}four\n words "), None);
        assert_eq!(rule("and this makes it five"), Some(("max_words", "5".into())));
        // A zero-width space is no white space: this is one word.
        assert_eq!(rule("a\u{200b}b\u{200b}c"), Some(("min_words", "1".into())));
    }

    #[test]
    fn a_text_without_words_is_empty_whatever_the_filters() {
        assert_eq!(reason_of(&document(" \n\u{a0}", None), &[]).map(|drop| drop.rule), Some("empty"));
        assert_eq!(reason_of(&document("x", None), &[]), None);
        let c4 = Filter::C4(C4 { min_sentences: 0, ..C4::default() });
        let drop = reason_of(&document("no line of this stays", None), &[c4]).expect("nothing is left");
        assert_eq!((drop.rule, drop.value.as_str()), ("empty", "0 bytes"));
    }

    #[test]
    fn columns_are_compared_whole() {
        let value_of =
            |filter: Filter, lang| reason_of(&document("x", lang), &[filter]).map(|drop| drop.value);
        assert_eq!(value_of(column(&["en", "fr"], &[]), Some("fr")), None);
        assert_eq!(value_of(column(&["en"], &[]), Some("en-US")), Some("lang=en-US".into()));
        assert_eq!(value_of(column(&["en"], &[]), None), Some("lang absent".into()));
        assert_eq!(value_of(column(&[], &["en"]), Some("en")), Some("lang=en".into()));
        assert_eq!(value_of(column(&[], &["en"]), None), None);
        assert!(column(&[], &[]).check().is_err());
    }

    #[test]
    fn edits_are_seen_by_the_filters_after_them() {
        let c4 = Filter::C4(C4 { min_sentences: 1, ..C4::default() });
        let short = Filter::MaxWords { value: 4 };
        let text = document("this line goes\nThis one stays, me@home.net.", None);
        assert_eq!(reason_of(&text, &[c4.clone(), short.clone()]), None);
        assert_eq!(reason_of(&text, &[short.clone(), c4.clone()]).map(|drop| drop.rule), Some("max_words"));
        let chain =
            FilterChain::load(&[c4, short, Filter::Pii(Pii::default())], Path::new("")).expect("no files");
        let outcome = chain.apply(&text, &mut FilterScratch::default());
        assert_eq!(outcome, FilterOutcome::Kept(Some("This one stays, email@example.com.".into())));
    }

    #[test]
    fn every_rule_has_a_name_that_is_known() {
        for name in RULES {
            assert_eq!(rule(name), Some(name));
        }
        assert_eq!(rule("other"), None);
    }

    #[test]
    fn folders_of_lists_decide_nothing() {
        let list = WordList { path: "../lists/bad.txt".into(), max_matches: 0, whole_words: true };
        let filter = Filter::WordList(list);
        assert_eq!(filter.files(), ["../lists/bad.txt"]);
        assert_eq!(filter.without_folders().files(), ["bad.txt"]);
        let chain = FilterChain::load(&[filter], Path::new("nowhere")).expect_err("absent");
        assert!(chain.to_string().contains("nowhere/../lists/bad.txt"), "{chain}");
    }

    /// Filters of every kind that need no file.
    fn all_filters() -> Vec<Filter> {
        let run = "filters = [{ kind = \"c4\", min_sentences = 1 }, { kind = \"pii\" }, { kind = \"gopher_quality\", min_words = 3, \
            min_stop_words = 0 }, { kind = \"gopher_repetition\" }, { kind = \"fineweb_quality\" }, { kind = \"language\", \
            any_of = [\"en\"], min_confidence = 0.0 }]";
        #[derive(Deserialize)]
        struct Run {
            filters: Vec<Filter>,
        }
        toml::from_str::<Run>(run).expect("sound").filters
    }

    proptest! {
        #[test]
        fn outcomes_do_not_depend_on_earlier_documents(
            texts in prop::collection::vec("(the |of |tree |[a-e]{1,4} |me@home\\.org |[.!?] |\n){0,40}", 1..12),
        ) {
            let chain = FilterChain::load(&all_filters(), Path::new("")).expect("no files");
            let mut scratch = FilterScratch::default();
            for text in texts.iter().chain(texts.iter().rev()) {
                let document = document(text, None);
                let alone = chain.apply(&document, &mut FilterScratch::default());
                prop_assert_eq!(chain.apply(&document, &mut scratch), alone);
            }
        }
    }
}
