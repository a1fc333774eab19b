//! Filters: which documents stay, and for those that do not, the rule and the value that decided.

use serde::{Deserialize, Serialize};

use crate::source::Document;

/// One condition that a document must meet to stay.
///
/// A *word* is a run of characters between white space (the Unicode property `White_Space`), as `str::split_whitespace`
/// gives it. This definition is pinned: it decides which documents stay, so it may only change with the format version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// The text has this many words or more.
    MinWords {
        /// Words.
        value: u64,
    },
    /// The text has this many words or fewer.
    MaxWords {
        /// Words.
        value: u64,
    },
    /// A field's value is one of some, or none of some.
    Column {
        /// The field or column.
        field: String,
        /// The values that stay; empty: all. A document without the field does not stay.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        any_of: Vec<String>,
        /// The values that do not stay. A document without the field stays.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        none_of: Vec<String>,
    },
}

/// Why a document does not stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    /// The rule: a filter's kind, `empty`, or `exact_duplicate`.
    pub rule: &'static str,
    /// What the rule saw: a word count, `field=value`, or the id of the copy that stays.
    pub value: String,
}

/// The rule for documents whose text has no words at all.
pub(crate) const EMPTY: &str = "empty";
/// The rule for later copies of the same text.
pub(crate) const EXACT_DUPLICATE: &str = "exact_duplicate";
const MIN_WORDS: &str = "min_words";
const MAX_WORDS: &str = "max_words";
const COLUMN: &str = "column";

/// The rule with this name; rules are a closed list.
pub(crate) fn rule(name: &str) -> Option<&'static str> {
    [EMPTY, MIN_WORDS, MAX_WORDS, COLUMN, EXACT_DUPLICATE].into_iter().find(|rule| *rule == name)
}

impl Filter {
    /// The field it looks at, if it looks at one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Column { field, .. } => Some(field),
            Self::MinWords { .. } | Self::MaxWords { .. } => None,
        }
    }

    /// What is there and what is expected, where the filter can mean nothing.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        match self {
            Self::Column { any_of, none_of, .. } if any_of.is_empty() && none_of.is_empty() => {
                Err(("a column filter without values".into(), "a list `any_of` or `none_of`".into()))
            }
            _ => Ok(()),
        }
    }
}

/// The first reason not to keep the document; a document without a single word is dropped by any list of filters.
///
/// `document.fields` holds the values of [`fields`] of the same filters.
pub(crate) fn judge(document: &Document, filters: &[Filter]) -> Option<Drop> {
    let words = document.text.split_whitespace().count() as u64;
    if words == 0 {
        return Some(Drop { rule: EMPTY, value: format!("{} bytes", document.text.len()) });
    }
    let names = fields(filters);
    let value = |field: &str| {
        let slot = names.iter().position(|name| *name == field)?;
        document.fields[slot].as_deref()
    };
    filters.iter().find_map(|filter| match filter {
        Filter::MinWords { value } => (words < *value).then(|| word_drop(MIN_WORDS, words)),
        Filter::MaxWords { value } => (words > *value).then(|| word_drop(MAX_WORDS, words)),
        Filter::Column { field, any_of, none_of } => column_drop(field, value(field), any_of, none_of),
    })
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

fn word_drop(rule: &'static str, words: u64) -> Drop {
    Drop { rule, value: words.to_string() }
}

fn column_drop(field: &str, value: Option<&str>, any_of: &[String], none_of: &[String]) -> Option<Drop> {
    let Some(value) = value else {
        return (!any_of.is_empty()).then(|| Drop { rule: COLUMN, value: format!("{field} absent") });
    };
    let listed = |list: &[String]| list.iter().any(|item| item == value);
    let stays = (any_of.is_empty() || listed(any_of)) && !listed(none_of);
    (!stays).then(|| Drop { rule: COLUMN, value: format!("{field}={value}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, lang: Option<&str>) -> Document {
        Document { id: "d".into(), text: text.into(), fields: vec![lang.map(str::to_owned)] }
    }

    fn column(any_of: &[&str], none_of: &[&str]) -> Filter {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Filter::Column { field: "lang".into(), any_of: list(any_of), none_of: list(none_of) }
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
    fn every_rule_has_a_name_that_is_known() {
        for name in ["empty", "min_words", "max_words", "column", "exact_duplicate"] {
            assert_eq!(rule(name), Some(name));
        }
        assert_eq!(rule("other"), None);
    }
}
