//! `min_words` and `max_words`: how many words a text may have.

use super::text::words;
use super::{DocumentView, DropReason, Rule};

/// The least and the most words that stay.
#[derive(Debug)]
pub(super) struct WordCountRule {
    pub(super) rule: &'static str,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Rule for WordCountRule {
    fn judge(&self, page: &mut DocumentView<'_>) -> Option<DropReason> {
        let mut words = words(&page.text);
        let first = words.by_ref().take(usize::try_from(self.least).unwrap_or(usize::MAX)).count() as u64;
        if first == self.least && self.most == u64::MAX {
            return None;
        }
        let words = first + words.count() as u64;
        let stays = (self.least..=self.most).contains(&words);
        (!stays).then(|| DropReason { rule: self.rule, value: words.to_string() })
    }
}
