//! `min_words` and `max_words`: how many words a text may have.

use super::text::words;
use super::{Drop, Page, Rule};

/// The least and the most words that stay.
#[derive(Debug)]
pub(super) struct WordCount {
    pub(super) rule: &'static str,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Rule for WordCount {
    fn judge(&self, page: &mut Page<'_>) -> Option<Drop> {
        let words = words(&page.text).count() as u64;
        let stays = (self.least..=self.most).contains(&words);
        (!stays).then(|| Drop { rule: self.rule, value: words.to_string() })
    }
}
