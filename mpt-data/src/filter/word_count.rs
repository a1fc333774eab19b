//! `min_words` and `max_words`: limits on the words of a text.

use super::text::words;
use super::{DocumentView, DropReason, Rule};

/// Least and most words of a kept text.
#[derive(Debug)]
pub(super) struct WordCountRule {
    pub(super) rule: &'static str,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Rule for WordCountRule {
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason> {
        let mut words = words(&view.text);
        let first = words.by_ref().take(usize::try_from(self.least).unwrap_or(usize::MAX)).count() as u64;
        if first == self.least && self.most == u64::MAX {
            return None;
        }
        let words = first + words.count() as u64;
        let is_kept = (self.least..=self.most).contains(&words);
        (!is_kept).then(|| DropReason { rule: self.rule, value: words.to_string() })
    }
}
