//! Near-duplicate detection by word shingles.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

/// Word shingles of earlier documents, to recognize near-duplicates.
#[derive(Debug, Default)]
pub(super) struct Shingles {
    seen: HashSet<u64>,
}

impl Shingles {
    /// Words per shingle.
    const WORDS: usize = 8;

    /// Whether at least a quarter of the text's shingles is new. Adds them all.
    pub(super) fn is_new(&mut self, text: &str) -> bool {
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let runs = words.windows(Self::WORDS.min(words.len()).max(1));
        let total = runs.len();
        let new = runs.filter(|run| self.seen.insert(xxh3_64(run.join(" ").as_bytes()))).count();
        new * 4 >= total && new > 0
    }
}
