//! What is kept of the texts of a source for the stages of deduplication.

use crate::config::PrepareRun;
use crate::dedup::{self, DedupKind, MinHasher};
use crate::filter::ngrams::NgramHashes;

/// What is kept of a text for the stages of deduplication; empty where none needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sketch {
    /// Its signature.
    pub(crate) signature: Vec<u32>,
    /// The hashes of its paragraphs.
    pub(crate) paragraphs: Vec<u128>,
    /// The text itself.
    pub(crate) text: Option<String>,
}

/// Makes the sketches of a source.
#[derive(Debug)]
pub(crate) struct Sketcher {
    minhash: Option<MinHasher>,
    min_paragraph_words: Option<u64>,
}

impl Sketcher {
    /// What the stages that a source goes through need.
    pub(crate) fn new(run: &PrepareRun, source: usize) -> Self {
        let minhash = run.dedup.minhash().filter(|_| run.goes_through(source, DedupKind::MinHash));
        let paragraphs = run.dedup.paragraphs().filter(|_| run.goes_through(source, DedupKind::Paragraph));
        Self {
            minhash: minhash.map(MinHasher::new),
            min_paragraph_words: paragraphs.map(|settings| settings.min_words),
        }
    }

    /// The sketch of a text.
    pub(crate) fn sketch(&self, text: &str, runs: &mut NgramHashes) -> Sketch {
        let paragraphs = self.min_paragraph_words.map(|words| dedup::paragraph_hashes(text, words));
        Sketch {
            signature: self.signature(text, runs),
            text: paragraphs.as_ref().map(|_| text.to_owned()),
            paragraphs: paragraphs.unwrap_or_default(),
        }
    }

    /// The signature of a text, where a stage needs it.
    pub(crate) fn signature(&self, text: &str, runs: &mut NgramHashes) -> Vec<u32> {
        self.minhash.as_ref().map_or_else(Vec::new, |hasher| hasher.signature(text, runs))
    }
}
