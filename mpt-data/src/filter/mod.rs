//! Filters: which documents stay and with what text, and for those that do not, the rule and the value that decided.
//!
//! One family of rules a file; `text.rs` says what a word, a line and a sentence are for all of them. A [`Filter`] is what
//! the run file says. A [`FilterChain`] is the filters of a source with the files they name read: a pure function of a document.

mod c4;
mod column;
mod decontaminate;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod language;
mod list_file;
pub(crate) mod ngrams;
mod pii;
mod text;
mod url_list;
mod word_count;
mod word_list;

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::c4::C4;
pub use self::column::Column;
pub use self::decontaminate::Decontaminate;
pub use self::fineweb_quality::FinewebQuality;
pub use self::gopher_quality::GopherQuality;
pub use self::gopher_repetition::GopherRepetition;
pub use self::language::Language;
pub use self::pii::Pii;
pub use self::url_list::{ListedAction, UrlList};
pub use self::word_list::WordList;
use crate::document::Document;
use crate::error::Result;
use crate::remote;

/// One step of a source's filters: a condition that a document must meet to stay, an edit of its text, or both. They run
/// in the order of the run file, and a step sees the text as the steps before it left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// The text has this many words or more.
    MinWords {
        /// The fewest words.
        value: u64,
    },
    /// The text has this many words or fewer.
    MaxWords {
        /// The most words.
        value: u64,
    },
    /// A field's value is one of `any_of`, and none of `none_of`.
    Column(Column),
    /// The quality rules of Gopher. A document at a threshold stays.
    GopherQuality(GopherQuality),
    /// The repetition rules of Gopher. A document at a threshold stays.
    GopherRepetition(GopherRepetition),
    /// The rules of C4, which take lines out too. A line or page at a threshold stays.
    C4(C4),
    /// The rules of FineWeb. A document at a threshold stays.
    FinewebQuality(FinewebQuality),
    /// The text is in one of some languages.
    Language(Language),
    /// The address is on a list, or is not, as `listed` says.
    UrlList(UrlList),
    /// Words of a list occur `max_matches` times at most.
    WordList(WordList),
    /// E-mail and IP addresses are replaced.
    Pii(Pii),
    /// No run of words is one of an evaluation set.
    Decontaminate(Decontaminate),
}

/// Why a document does not stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropReason {
    /// The rule: a filter's kind, `empty`, `bad_line`, or that of a stage of deduplication.
    pub rule: &'static str,
    /// What the rule saw: of rules with several keys the key that decided and what it is about (`min_words=49`), else a
    /// word count, `field=value`, the entry of a list, what is wrong with a line, or the id of the copy that stays, with its similarity.
    pub value: String,
}

/// The rule for documents whose text has no words at all, as read or after edits.
pub(crate) const EMPTY: &str = "empty";
/// The rule for what is no document.
pub(crate) const BAD_LINE: &str = "bad_line";
/// The rule for later copies of the same text.
pub(crate) const EXACT_DUPLICATE: &str = "exact_duplicate";
/// The rule for documents of whose words none is left without the paragraphs that earlier documents have.
pub(crate) const DUPLICATE_PARAGRAPHS: &str = "duplicate_paragraphs";
/// The rule for documents that are nearly an earlier one.
pub(crate) const NEAR_DUPLICATE: &str = "near_duplicate";
/// The rule for documents that are near another one in meaning.
pub(crate) const SEMANTIC_DUPLICATE: &str = "semantic_duplicate";
const MIN_WORDS: &str = "min_words";
const MAX_WORDS: &str = "max_words";
const COLUMN: &str = "column";
const GOPHER_QUALITY: &str = "gopher_quality";
const GOPHER_REPETITION: &str = "gopher_repetition";
const C4_RULE: &str = "c4";
const FINEWEB_QUALITY: &str = "fineweb_quality";
const LANGUAGE: &str = "language";
const URL_LIST: &str = "url_list";
const WORD_LIST: &str = "word_list";
const DECONTAMINATE: &str = "decontaminate";

const RULES: [&str; 17] = [
    EMPTY,
    BAD_LINE,
    EXACT_DUPLICATE,
    DUPLICATE_PARAGRAPHS,
    NEAR_DUPLICATE,
    SEMANTIC_DUPLICATE,
    MIN_WORDS,
    MAX_WORDS,
    COLUMN,
    GOPHER_QUALITY,
    GOPHER_REPETITION,
    C4_RULE,
    FINEWEB_QUALITY,
    LANGUAGE,
    URL_LIST,
    WORD_LIST,
    DECONTAMINATE,
];

/// The rule with this name; rules are a closed list.
pub(crate) fn rule(name: &str) -> Option<&'static str> {
    RULES.into_iter().find(|rule| *rule == name)
}

impl Filter {
    /// The field it looks at, if it looks at one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(&column.field),
            Self::UrlList(list) => Some(&list.field),
            _ => None,
        }
    }

    /// The files it names, as the run file writes them.
    pub fn files(&self) -> Vec<String> {
        self.clone().files_mut().into_iter().map(std::mem::take).collect()
    }

    /// The same with the names of files alone: where they lie decides nothing.
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

    /// What is there and what is expected, where the filter can mean nothing.
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

    /// Reads the files it names, relative to `folder`.
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

/// What a file is called, without its folders.
pub(crate) fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The fields that the filters look at, each once, in order.
pub(crate) fn fields(filters: &[Filter]) -> Vec<&str> {
    let mut names = Vec::new();
    for field in filters.iter().filter_map(Filter::field) {
        if !names.contains(&field) {
            names.push(field);
        }
    }
    names
}

/// The filters of a source, ready.
#[derive(Debug)]
pub(crate) struct FilterChain {
    fields: Vec<String>,
    rules: Vec<Box<dyn Rule>>,
}

/// What becomes of a document.
#[derive(Debug, PartialEq)]
pub(crate) enum FilterOutcome {
    /// It stays; with this text, where filters changed it.
    Kept(Option<String>),
    /// It does not.
    Dropped(DropReason),
}

impl FilterChain {
    /// Reads the files that the filters name, relative to `folder`.
    ///
    /// # Errors
    /// Those of opening the files, and [`crate::Error::BrokenInput`] for one that says nothing.
    pub(crate) fn load(filters: &[Filter], folder: &Path) -> Result<Self> {
        let fields = fields(filters).into_iter().map(str::to_owned).collect();
        let rules = filters.iter().map(|filter| filter.load(folder)).collect::<Result<_>>()?;
        Ok(Self { fields, rules })
    }

    /// The first reason not to keep the document, or the text that stays of it. A document without a single word is
    /// dropped by any list of filters.
    ///
    /// `document.fields` holds the values of [`fields`] of the same filters.
    pub(crate) fn judge(&self, document: &Document, scratch: &mut FilterScratch) -> FilterOutcome {
        let text = Cow::Borrowed(document.text.as_str());
        let mut page = DocumentView { text, names: &self.fields, values: &document.fields, scratch };
        let drop = empty(&page.text).or_else(|| self.rules.iter().find_map(|rule| rule.judge(&mut page)));
        match (drop, page.text) {
            (Some(drop), _) => FilterOutcome::Dropped(drop),
            (None, Cow::Borrowed(_)) => FilterOutcome::Kept(None),
            (None, Cow::Owned(text)) => match empty(&text) {
                Some(drop) => FilterOutcome::Dropped(drop),
                None => FilterOutcome::Kept(Some(text)),
            },
        }
    }
}

pub(crate) fn empty(text: &str) -> Option<DropReason> {
    let is_empty = text::words(text).next().is_none();
    is_empty.then(|| DropReason { rule: EMPTY, value: format!("{} bytes", text.len()) })
}

/// Memory that is used for one document after the other.
#[derive(Debug, Default)]
pub(crate) struct FilterScratch {
    runs: ngrams::NgramHashes,
    table: ngrams::HashTable,
}

/// A document on its way through the rules.
struct DocumentView<'a> {
    text: Cow<'a, str>,
    names: &'a [String],
    values: &'a [Option<String>],
    scratch: &'a mut FilterScratch,
}

impl DocumentView<'_> {
    /// The value of a field, if the document has it.
    fn field(&self, name: &str) -> Option<&str> {
        let slot = self.names.iter().position(|other| other == name)?;
        self.values[slot].as_deref()
    }

    /// Takes another text, unless it is the same.
    fn edit(&mut self, text: String) {
        if text != *self.text {
            self.text = Cow::Owned(text);
        }
    }
}

/// A filter with all it needs.
trait Rule: Debug + Send + Sync {
    /// Why the document does not stay; or `None`, and the page may have another text.
    fn judge(&self, page: &mut DocumentView<'_>) -> Option<DropReason>;
}

/// A key of a filter that makes no sense.
#[derive(Debug)]
pub(crate) struct InvalidKey {
    /// The key; empty for the filter itself.
    pub(crate) key: &'static str,
    /// What it is.
    pub(crate) actual: String,
    /// What it must be.
    pub(crate) expected: String,
}

impl InvalidKey {
    pub(crate) fn new(key: &'static str, actual: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { key, actual: actual.into(), expected: expected.into() }
    }
}

/// Only the documents of sources can lie in a store: what is read whole, once, is a file.
pub(crate) fn check_local(key: &'static str, path: &str) -> std::result::Result<(), InvalidKey> {
    if remote::is_remote(Path::new(path)) {
        let expected = "a file on this machine; copy it beside the mix file, and name the copy here";
        return Err(InvalidKey::new(key, format!("\"{path}\""), expected));
    }
    Ok(())
}

pub(crate) fn check_share(key: &'static str, value: f64) -> std::result::Result<(), InvalidKey> {
    let is_share = (0.0..=1.0).contains(&value);
    if is_share { Ok(()) } else { Err(InvalidKey::new(key, value.to_string(), "a share from 0 to 1")) }
}

fn check_ratio(key: &'static str, value: f64) -> std::result::Result<(), InvalidKey> {
    let is_ratio = value >= 0.0 && value.is_finite();
    if is_ratio { Ok(()) } else { Err(InvalidKey::new(key, value.to_string(), "a number, 0 or more")) }
}

fn check_order(
    low_key: &'static str,
    low: f64,
    high_key: &'static str,
    high: f64,
) -> std::result::Result<(), InvalidKey> {
    if low <= high {
        return Ok(());
    }
    Err(InvalidKey::new(low_key, low.to_string(), format!("no more than `{high_key}`, which is {high}")))
}

/// A drop where a value is below its threshold.
fn at_least(rule: &'static str, key: &str, value: f64, threshold: f64) -> Option<DropReason> {
    (value < threshold).then(|| seen(rule, key, value))
}

/// A drop where a value is above its threshold.
fn at_most(rule: &'static str, key: &str, value: f64, threshold: f64) -> Option<DropReason> {
    (value > threshold).then(|| seen(rule, key, value))
}

/// The key that decided and what it is about, to six decimals.
fn seen(rule: &'static str, key: &str, value: f64) -> DropReason {
    let rounded = (value * 1e6).round() / 1e6;
    DropReason { rule, value: format!("{key}={rounded}") }
}

#[cfg(test)]
mod testing {
    //! What tests ask of one rule.

    use super::{DocumentView, DropReason, FilterScratch, Rule};

    fn judged(
        rule: &dyn Rule,
        text: &str,
        field: Option<(&str, Option<&str>)>,
    ) -> (Option<DropReason>, String) {
        let names: Vec<_> = field.iter().map(|(name, _)| (*name).to_owned()).collect();
        let values: Vec<_> = field.iter().map(|(_, value)| value.map(str::to_owned)).collect();
        let mut scratch = FilterScratch::default();
        let mut page =
            DocumentView { text: text.into(), names: &names, values: &values, scratch: &mut scratch };
        let drop = rule.judge(&mut page);
        (drop, page.text.into_owned())
    }

    /// The value of the drop, if there is one.
    pub(super) fn drop_of(rule: &dyn Rule, text: &str) -> Option<String> {
        judged(rule, text, None).0.map(|drop| drop.value)
    }

    /// The same for a document with one field.
    pub(super) fn drop_with_field(rule: &dyn Rule, name: &str, value: Option<&str>) -> Option<String> {
        judged(rule, "text", Some((name, value))).0.map(|drop| drop.value)
    }

    /// The text that stays, or the value of the drop.
    pub(super) fn outcome(rule: &dyn Rule, text: &str) -> Result<String, String> {
        let (drop, text) = judged(rule, text, None);
        drop.map_or(Ok(text), |drop| Err(drop.value))
    }

    pub(super) fn repeat(text: &str, count: usize) -> String {
        text.repeat(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(text: &str, lang: Option<&str>) -> Document {
        Document { id: "d".into(), text: text.into(), fields: vec![lang.map(str::to_owned)] }
    }

    fn column(any_of: &[&str], none_of: &[&str]) -> Filter {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Filter::Column(Column { field: "lang".into(), any_of: list(any_of), none_of: list(none_of) })
    }

    fn judge(document: &Document, filters: &[Filter]) -> Option<DropReason> {
        let judge = FilterChain::load(filters, Path::new("")).expect("no files");
        match judge.judge(document, &mut FilterScratch::default()) {
            FilterOutcome::Kept(_) => None,
            FilterOutcome::Dropped(drop) => Some(drop),
        }
    }

    #[test]
    fn words_are_counted_at_the_threshold() {
        let filters = [Filter::MinWords { value: 3 }, Filter::MaxWords { value: 4 }, column(&[], &["xx"])];
        let rule = |text: &str| judge(&document(text, None), &filters).map(|drop| (drop.rule, drop.value));
        assert_eq!(rule("two words"), Some(("min_words", "2".into())));
        assert_eq!(rule("just three words"), None);
        assert_eq!(rule(" now\tit's\u{2003}four\n words "), None);
        assert_eq!(rule("and this makes it five"), Some(("max_words", "5".into())));
        // A zero-width space is no white space: this is one word.
        assert_eq!(rule("a\u{200b}b\u{200b}c"), Some(("min_words", "1".into())));
    }

    #[test]
    fn a_text_without_words_is_empty_whatever_the_filters() {
        assert_eq!(judge(&document(" \n\u{a0}", None), &[]).map(|drop| drop.rule), Some("empty"));
        assert_eq!(judge(&document("x", None), &[]), None);
        let c4 = Filter::C4(C4 { min_sentences: 0, ..C4::default() });
        let drop = judge(&document("no line of this stays", None), &[c4]).expect("nothing is left");
        assert_eq!((drop.rule, drop.value.as_str()), ("empty", "0 bytes"));
    }

    #[test]
    fn columns_are_compared_whole() {
        let verdict = |filter: Filter, lang| judge(&document("x", lang), &[filter]).map(|drop| drop.value);
        assert_eq!(verdict(column(&["en", "fr"], &[]), Some("fr")), None);
        assert_eq!(verdict(column(&["en"], &[]), Some("en-US")), Some("lang=en-US".into()));
        assert_eq!(verdict(column(&["en"], &[]), None), Some("lang absent".into()));
        assert_eq!(verdict(column(&[], &["en"]), Some("en")), Some("lang=en".into()));
        assert_eq!(verdict(column(&[], &["en"]), None), None);
        assert!(column(&[], &[]).check().is_err());
    }

    #[test]
    fn edits_are_seen_by_the_filters_after_them() {
        let c4 = Filter::C4(C4 { min_sentences: 1, ..C4::default() });
        let short = Filter::MaxWords { value: 4 };
        let text = document("this line goes\nThis one stays, me@home.net.", None);
        assert_eq!(judge(&text, &[c4.clone(), short.clone()]), None);
        assert_eq!(judge(&text, &[short.clone(), c4.clone()]).map(|drop| drop.rule), Some("max_words"));
        let judge =
            FilterChain::load(&[c4, short, Filter::Pii(Pii::default())], Path::new("")).expect("no files");
        let verdict = judge.judge(&text, &mut FilterScratch::default());
        assert_eq!(verdict, FilterOutcome::Kept(Some("This one stays, email@example.com.".into())));
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
        let judge = FilterChain::load(&[filter], Path::new("nowhere")).expect_err("absent");
        assert!(judge.to_string().contains("nowhere/../lists/bad.txt"), "{judge}");
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
        fn verdicts_do_not_depend_on_what_was_judged_before(
            texts in prop::collection::vec("(the |of |tree |[a-e]{1,4} |me@home\\.org |[.!?] |\n){0,40}", 1..12),
        ) {
            let judge = FilterChain::load(&all_filters(), Path::new("")).expect("no files");
            let mut scratch = FilterScratch::default();
            for text in texts.iter().chain(texts.iter().rev()) {
                let document = document(text, None);
                let alone = judge.judge(&document, &mut FilterScratch::default());
                prop_assert_eq!(judge.judge(&document, &mut scratch), alone);
            }
        }
    }
}
