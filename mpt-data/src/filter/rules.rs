//! Names of the rules that drop documents: a closed list, which the ledger and the units of a build refer to.

/// Rule for a text without words, as read or after edits.
pub(crate) const EMPTY: &str = "empty";
/// Rule for a line that is no document.
pub(crate) const BAD_LINE: &str = "bad_line";
/// Rule for later copies of the same text.
pub(crate) const EXACT_DUPLICATE: &str = "exact_duplicate";
/// Rule for documents without a word outside of paragraphs of earlier documents.
pub(crate) const DUPLICATE_PARAGRAPHS: &str = "duplicate_paragraphs";
/// Rule for near copies of an earlier document.
pub(crate) const NEAR_DUPLICATE: &str = "near_duplicate";
/// Rule for documents near another one in meaning.
pub(crate) const SEMANTIC_DUPLICATE: &str = "semantic_duplicate";
pub(super) const MIN_WORDS: &str = "min_words";
pub(super) const MAX_WORDS: &str = "max_words";
pub(super) const COLUMN: &str = "column";
pub(super) const GOPHER_QUALITY: &str = "gopher_quality";
pub(super) const GOPHER_REPETITION: &str = "gopher_repetition";
pub(super) const C4_RULE: &str = "c4";
pub(super) const FINEWEB_QUALITY: &str = "fineweb_quality";
pub(super) const LANGUAGE: &str = "language";
pub(super) const URL_LIST: &str = "url_list";
pub(super) const WORD_LIST: &str = "word_list";
pub(super) const DECONTAMINATE: &str = "decontaminate";

pub(super) const RULES: [&str; 17] = [
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

/// Rule of this name; `None` for an unknown one.
pub(crate) fn rule(name: &str) -> Option<&'static str> {
    RULES.into_iter().find(|rule| *rule == name)
}
