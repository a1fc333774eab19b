//! Features of a text that the stages of deduplication need.

use crate::config::PrepareRun;
use crate::dedup::{self, DedupKind, MinHasher};
use crate::filter::ngrams::NgramHashes;

/// Features of a text for deduplication; empty where no stage needs them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sketch {
    /// MinHash signature.
    pub(crate) signature: Vec<u32>,
    /// Hashes of the paragraphs.
    pub(crate) paragraphs: Vec<u128>,
    /// The text itself.
    pub(crate) text: Option<String>,
}

/// Sketches of the documents of one source.
#[derive(Debug)]
pub(crate) struct Sketcher {
    minhash: Option<MinHasher>,
    min_paragraph_words: Option<u64>,
}

impl Sketcher {
    /// Sketcher for the stages that source `source` takes part in.
    pub(crate) fn new(run: &PrepareRun, source: usize) -> Self {
        let minhash = run.dedup.minhash().filter(|_| run.goes_through(source, DedupKind::MinHash));
        let paragraphs = run.dedup.paragraphs().filter(|_| run.goes_through(source, DedupKind::Paragraph));
        Self {
            minhash: minhash.map(MinHasher::new),
            min_paragraph_words: paragraphs.map(|settings| settings.min_words),
        }
    }

    /// Sketch of a text, which is kept where a stage edits texts.
    pub(crate) fn sketch(&self, text: String, ngrams: &mut NgramHashes) -> Sketch {
        let signature = self.signature(&text, ngrams);
        match self.min_paragraph_words {
            Some(words) => {
                let paragraphs = dedup::paragraph_hashes(&text, words);
                Sketch { signature, paragraphs, text: Some(text) }
            }
            None => Sketch { signature, paragraphs: Vec::new(), text: None },
        }
    }

    /// MinHash signature of a text; empty where no stage needs it.
    pub(crate) fn signature(&self, text: &str, ngrams: &mut NgramHashes) -> Vec<u32> {
        self.minhash.as_ref().map_or_else(Vec::new, |hasher| hasher.signature(text, ngrams))
    }
}
